//! The classical attacks on a heap, each as a child program: preloaded, in the default mode, none may gain
//! an overlap, a block at an address of the attacker's choice, or a write to one. `--nocapture` prints what the other allocators of this machine do.

mod common;

use common::{compile, library, run_on, run_with};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What became of an attack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It ran to its end and gained nothing.
    Held,
    /// The allocator stopped the program and said why.
    Stopped,
    /// The program crashed.
    Crashed,
    /// Two blocks overlap.
    Overlap,
    /// A block lies where the attacker wants it.
    Placed,
    /// Something was written where the attacker wants it.
    Written,
}
use End::*;

impl End {
    fn of(output: &Output) -> Self {
        match (output.status.code(), output.status.signal()) {
            (Some(0), _) => Held,
            (Some(10), _) => Overlap,
            (Some(11), _) => Placed,
            (Some(12), _) => Written,
            (_, Some(libc::SIGABRT)) => Stopped,
            (_, Some(libc::SIGSEGV | libc::SIGBUS | libc::SIGILL | libc::SIGTRAP)) => Crashed,
            _ => panic!("{output:?}"),
        }
    }

    fn is_gain(self) -> bool {
        matches!(self, Overlap | Placed | Written)
    }
}

/// Every attack, and what becomes of it here.
const ATTACKS: [(&str, End); 22] = [
    ("control", Held),
    ("poison_link", Held),
    ("poison_masked_link", Held),
    ("poison_everything", Held),
    ("poison_large", Held),
    ("scribble", Held),
    ("double_free_at_once", Stopped),
    ("double_free_wiped", Stopped),
    ("double_free_large", Stopped),
    ("double_free_apart", Stopped),
    ("double_free_far_apart", Stopped),
    ("realloc_after_free", Stopped),
    ("forge_size", Held),
    ("overflow_into_size", Held),
    ("overflow_into_metadata", Held),
    ("house_of_spirit", Stopped),
    ("house_of_force", Held),
    ("house_of_einherjar", Held),
    ("house_of_large_bins", Held),
    ("house_of_lore", Held),
    ("unsafe_unlink", Held),
    ("unlink_2001", Held),
];

/// The others, as far as the linker knows them: Debian's libjemalloc2, libmimalloc2.0 and
/// libtcmalloc-minimal4.
fn others() -> Vec<(&'static str, PathBuf)> {
    let Ok(output) = Command::new("/sbin/ldconfig").arg("-p").output() else { return Vec::new() };
    let known = String::from_utf8_lossy(&output.stdout).into_owned();
    let wanted = [
        ("jemalloc", "libjemalloc.so"),
        ("mimalloc", "libmimalloc.so"),
        ("tcmalloc", "libtcmalloc_minimal.so"),
    ];
    let find = |name: &str| {
        let line = known.lines().find(|line| line.trim_start().starts_with(name))?;
        Some(PathBuf::from(line.split_once("=> ")?.1))
    };
    wanted.into_iter().filter_map(|(name, file)| Some((name, find(file)?))).collect()
}

#[test]
fn none_gains_anything() {
    let program = compile("attacks.c", "attacks", &[]);
    let attack = |name: &str, on: Option<&Path>| End::of(&run_on(&program, &[name], on));
    let others = others();
    print!("{:22} {:9} {:9} {:9}", "", "spandrel", "checked", "glibc");
    others.iter().for_each(|(name, _)| print!(" {name:9}"));
    println!();
    let (mut wrong, mut glibc_falls) = (Vec::new(), 0);
    for (name, expected) in ATTACKS {
        let (here, glibc) = (attack(name, Some(library())), attack(name, None));
        let checked = End::of(&run_with(&program, &[name], "check=on"));
        let [first, second, third] = [here, checked, glibc].map(|end| format!("{end:?}"));
        print!("{name:22} {first:9} {second:9} {third:9}");
        for (_, library) in &others {
            print!(" {:9}", format!("{:?}", attack(name, Some(library))));
        }
        println!();
        glibc_falls += usize::from(glibc.is_gain());
        if here != expected || here.is_gain() || checked.is_gain() {
            wrong.push((name, here, checked, expected));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
    // They are attacks: they gain something somewhere.
    assert!(glibc_falls >= 3, "only {glibc_falls} gain something on glibc");
}
