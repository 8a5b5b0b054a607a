//! Names for addresses: function, file and line, from what the modules' files say.
//!
//! Reads files and allocates: for reports only. A stripped module yields what its tables still have,
//! its exported functions, or nothing; then a place is its address in a named file.

use super::modules::{Module, modules};
use addr2line::Loader;
use std::cell::OnceCell;
use std::fmt;
use std::path::Path;

/// One function at an address; several where functions were inlined into each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The function's name as its language writes it, or nothing.
    pub function: String,
    /// The source file, or nothing.
    pub file: String,
    /// The line in it, from 1; 0 where it is not known.
    pub line: u32,
}

/// Names for the addresses of this process.
pub struct Symbols {
    modules: Vec<(Module, OnceCell<Option<Loader>>)>,
}

impl fmt::Debug for Symbols {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.modules.iter().map(|(module, _)| module)).finish()
    }
}

impl Default for Symbols {
    fn default() -> Self {
        Self::new()
    }
}

impl Symbols {
    /// For the modules that are loaded now. Their files are read when they are first asked for.
    pub fn new() -> Self {
        Self::of(modules())
    }

    /// For these modules, loaded here or elsewhere.
    pub fn of(modules: Vec<Module>) -> Self {
        Self { modules: modules.into_iter().map(|module| (module, OnceCell::new())).collect() }
    }

    /// The module that holds `pc`, and its place in the list.
    pub fn module(&self, pc: usize) -> Option<(usize, &Module)> {
        let at = self.modules.iter().position(|(module, _)| module.holds(pc))?;
        Some((at, &self.modules[at].0))
    }

    /// All modules.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().map(|(module, _)| module)
    }

    /// The functions at `pc`, the innermost of inlined ones first; none if nothing is known. For the
    /// frames of a stack give the address behind the call, less one.
    pub fn frames(&self, pc: usize) -> Vec<Frame> {
        let Some((at, module)) = self.module(pc) else { return Vec::new() };
        let Some(loader) = self.modules[at].1.get_or_init(|| load(module)) else {
            return Vec::new();
        };
        let probe = pc.wrapping_sub(module.bias) as u64;
        let mut frames = Vec::new();
        if let Ok(mut found) = loader.find_frames(probe) {
            while let Ok(Some(frame)) = found.next() {
                let function = frame.function.and_then(|f| Some(f.demangle().ok()?.into_owned()));
                let place = frame.location;
                frames.push(Frame {
                    function: function.unwrap_or_default(),
                    file: place.as_ref().and_then(|p| p.file).unwrap_or_default().to_owned(),
                    line: place.as_ref().and_then(|p| p.line).unwrap_or(0),
                });
            }
        }
        // Line tables alone name a function without its path, and some modules have not even those: the
        // symbol table may know more.
        let known = symbol(loader, probe);
        match frames.last_mut() {
            Some(outermost) if known.ends_with(&outermost.function) => outermost.function = known,
            None if !known.is_empty() => frames.push(Frame { function: known, ..Frame::default() }),
            _ => {}
        }
        frames.retain(|frame| !frame.function.is_empty() || !frame.file.is_empty());
        frames
    }

    /// `pc` as a place in a file: what is left to say where no name is known.
    pub fn place(&self, pc: usize) -> String {
        match self.module(pc) {
            Some((_, module)) => {
                let name = module.path.file_name().unwrap_or(module.path.as_os_str());
                format!("{}+{:#x}", name.display(), pc.wrapping_sub(module.bias))
            }
            None => format!("{pc:#x}"),
        }
    }
}

fn load(module: &Module) -> Option<Loader> {
    // The program's own file may have been replaced or removed; what runs is still behind this name.
    let own = std::env::current_exe().is_ok_and(|own| own == module.path);
    let path = if own { Path::new("/proc/self/exe") } else { &module.path };
    Loader::new(path).ok()
}

fn symbol(loader: &Loader, probe: u64) -> String {
    let name = loader.find_symbol(probe).unwrap_or_default();
    addr2line::demangle_auto(name.into(), None).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(always)]
    fn inner() -> usize {
        let pc: usize;
        #[cfg(target_arch = "x86_64")]
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("lea {pc}, [rip]", pc = out(reg) pc)
        };
        #[cfg(target_arch = "aarch64")]
        // SAFETY: reads a register.
        unsafe {
            std::arch::asm!("adr {pc}, .", pc = out(reg) pc)
        };
        pc
    }

    #[inline(never)]
    fn outer() -> usize {
        inner()
    }

    #[test]
    fn a_function_inlined_into_another() {
        let symbols = Symbols::new();
        let pc = outer();
        let frames = symbols.frames(pc);
        let names: Vec<_> = frames.iter().map(|frame| frame.function.as_str()).collect();
        // Line tables, which optimised builds have, name no function that was inlined.
        let [.., inner, outer] = &names[..] else {
            assert!(!cfg!(debug_assertions) && names.len() == 1, "{frames:?}");
            return assert!(names[0].ends_with("symbols::tests::outer"), "{frames:?}");
        };
        assert!(inner.ends_with("tests::inner") && outer.ends_with("tests::outer"), "{frames:?}");
        assert!(frames[1].file.ends_with("observe/symbols.rs") && frames[1].line > 100);
        assert!(symbols.place(pc).contains("+0x"));
    }

    #[test]
    fn what_has_no_name() {
        let symbols = Symbols::new();
        assert!(symbols.frames(16).is_empty());
        assert_eq!(symbols.place(16), "0x10");
        // A library without debug information has its exported functions.
        let frames = symbols.frames(libc::qsort as *const () as usize + 1);
        assert!(frames[0].function.starts_with("qsort"), "{frames:?}");
    }
}
