//! The allocators under comparison.

/// One allocator, by the worker that runs on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocator {
    /// The name on the command line and in the tables.
    pub name: &'static str,
    /// The binary of `src/bin` that declares it global.
    pub worker: &'static str,
    /// The cargo feature that compiles it, if it needs one.
    pub feature: Option<&'static str>,
    /// What a build of it calls for beyond cargo and a C compiler: a program, in a package of its
    /// name.
    pub build_tool: Option<&'static str>,
}

/// Ours.
pub static SPANDREL: Allocator =
    Allocator { name: "spandrel", worker: "w-spandrel", feature: None, build_tool: None };

/// The system's, and the home of the empty harness.
pub static SYSTEM: Allocator =
    Allocator { name: "system", worker: "w-system", feature: None, build_tool: None };

const fn foreign(
    name: &'static str,
    worker: &'static str,
    build_tool: Option<&'static str>,
) -> Allocator {
    Allocator { name, worker, feature: Some(name), build_tool }
}

/// All of them, in the order of the tables.
pub static ALLOCATORS: [Allocator; 6] = [
    SPANDREL,
    foreign("mimalloc", "w-mimalloc", None),
    foreign("jemalloc", "w-jemalloc", Some("make")),
    foreign("snmalloc", "w-snmalloc", Some("cmake")),
    foreign("rpmalloc", "w-rpmalloc", None),
    SYSTEM,
];

impl Allocator {
    /// Whether this is the one the others are compared with.
    pub fn is_ours(&self) -> bool {
        self.name == SPANDREL.name
    }
}
