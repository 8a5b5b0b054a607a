//! Names for the addresses of a process that may be gone: what was mapped where, and what the files say.

use addr2line::Loader;
use object::{Object, ObjectSegment};
use std::cell::RefCell;
use std::collections::HashMap;

/// One mapped file that code runs in.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    pub start: u64,
    pub end: u64,
    /// The offset in the file at `start`.
    pub offset: u64,
    pub path: String,
}

impl Module {
    /// A line of /proc/self/maps, `START-END PERMISSIONS OFFSET DEVICE INODE PATH`, if it is of code in a
    /// file.
    pub fn of_line(line: &str) -> Option<Module> {
        let mut words = line.split_ascii_whitespace();
        let (start, end) = words.next()?.split_once('-')?;
        let hex = |text| u64::from_str_radix(text, 16).ok();
        let code = words.next()?.as_bytes().get(2) == Some(&b'x');
        let offset = hex(words.next()?)?;
        let path = words.nth(2)?.to_owned();
        code.then_some(Module { start: hex(start)?, end: hex(end)?, offset, path })
    }

    fn file(&self) -> &str {
        self.path.rsplit('/').next().unwrap_or(&self.path)
    }
}

/// A file's debug information, and how its offsets become the addresses that it speaks of.
struct Book {
    loader: Loader,
    /// Offset in the file, length, address.
    segments: Vec<(u64, u64, u64)>,
}

/// What addresses are called.
#[derive(Default)]
pub struct Names {
    modules: Vec<Module>,
    books: RefCell<HashMap<String, Option<Book>>>,
}

/// Functions by which calls come into the allocator, and what stands around them in its library.
const OWN: &str = "libspandrel";
/// How the names of such functions begin where they are inside a Rust program.
const OWN_NAMES: [&str; 7] = [
    "spandrel::",
    "<spandrel::",
    "__rustc::__rust_",
    "__rust_",
    "alloc::alloc::",
    "<alloc::alloc::Global",
    "std::alloc::",
];

impl Names {
    /// Names for a process with these modules; of two that overlap the first counts.
    pub fn new(modules: Vec<Module>) -> Names {
        Names { modules, books: RefCell::default() }
    }

    /// What an address is called that a call returns to: the function, and those it is inlined into; or
    /// file and offset; or just the address.
    pub fn of(&self, address: u64) -> String {
        // The call is the instruction before.
        let call = address.wrapping_sub(1);
        let Some(module) =
            self.modules.iter().find(|module| (module.start..module.end).contains(&call))
        else {
            return format!("{address:#x}");
        };
        let offset = call - module.start + module.offset;
        self.in_file(module, offset)
            .unwrap_or_else(|| format!("{}+{:#x}", module.file(), offset + 1))
    }

    fn in_file(&self, module: &Module, offset: u64) -> Option<String> {
        let mut books = self.books.borrow_mut();
        let book = books.entry(module.path.clone()).or_insert_with(|| open(&module.path));
        let Book { loader, segments } = book.as_ref()?;
        let &(from, _, at) =
            segments.iter().find(|(from, length, _)| (*from..from + length).contains(&offset))?;
        let address = offset - from + at;
        let mut names = Vec::new();
        if let Ok(mut frames) = loader.find_frames(address) {
            while let Ok(Some(frame)) = frames.next() {
                let name = frame
                    .function
                    .and_then(|name| name.demangle().ok().map(|name| name.into_owned()));
                names.extend(name);
            }
        }
        if names.is_empty() {
            let symbol = loader.find_symbol(address)?;
            names.push(addr2line::demangle_auto(symbol.into(), None).into_owned());
        }
        Some(names.join(" < "))
    }

    /// A stack's names, innermost first, without the allocator's own.
    pub fn stack(&self, frames: &[u64]) -> Vec<String> {
        let own = |&&address: &&u64| {
            let within = |module: &&Module| (module.start..module.end).contains(&address);
            self.modules.iter().find(within).is_some_and(|module| module.file().starts_with(OWN))
        };
        let names = frames.iter().skip_while(own).map(|&address| self.of(address));
        let mut all: Vec<String> = names
            .flat_map(|names| names.split(" < ").map(str::to_owned).collect::<Vec<_>>())
            .collect();
        // In a program that has the allocator inside, its functions have names; what is left of a stack of
        // nothing else is as it is.
        let first = all.iter().position(|name| !OWN_NAMES.iter().any(|own| name.starts_with(own)));
        all.drain(..first.unwrap_or(0));
        all
    }
}

fn open(path: &str) -> Option<Book> {
    let bytes = std::fs::read(path).ok()?;
    let file = object::File::parse(&bytes[..]).ok()?;
    let segments = file.segments().map(|segment| {
        let (from, length) = segment.file_range();
        (from, length, segment.address())
    });
    let segments = segments.collect();
    Some(Book { loader: Loader::new(path).ok()?, segments })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_code_are_modules() {
        let maps = "00400000-00452000 r-xp 00001000 08:02 173521 /usr/bin/prog\n\
                    00651000-00652000 r--p 00051000 08:02 173521 /usr/bin/prog\n\
                    7ffd0000-7ffd2000 r-xp 00000000 00:00 0\n";
        let modules: Vec<Module> = maps.lines().filter_map(Module::of_line).collect();
        assert_eq!(modules.len(), 1);
        // There is no such file, so there are no names.
        let names = Names::new(modules);
        assert_eq!(names.stack(&[0x40_0010, 0x65_1000]), ["prog+0x1010", "0x651000"]);
    }

    #[test]
    fn the_allocators_own_names_are_left_out() {
        let text = "spandrel::front::give < <spandrel::front::Spandrel as core::alloc::global::GlobalAlloc>::dealloc";
        assert!(text.split(" < ").all(|name| OWN_NAMES.iter().any(|own| name.starts_with(own))));
        assert!(!OWN_NAMES.iter().any(|own| "alloc::vec::Vec<u8>::push".starts_with(own)));
    }

    #[test]
    fn functions_have_their_names() {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        let names = Names::new(maps.lines().filter_map(Module::of_line).collect());
        let here: fn() = functions_have_their_names;
        let name = names.of(here as usize as u64 + 5);
        assert!(name.contains("functions_have_their_names"), "{name}");
    }
}
