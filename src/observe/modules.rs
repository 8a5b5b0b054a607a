//! The loaded modules: where their code lies, in which file, and which build of it.
//!
//! Asks the loader, which may take its lock: for reports only, never on the way of an allocation.

use std::ffi::{CStr, OsStr, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A loaded module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// What is added to the addresses in its file.
    pub bias: usize,
    /// The first address of its code.
    pub start: usize,
    /// The last address of its code, plus one.
    pub end: usize,
    /// Where in the file its code begins.
    pub offset: usize,
    /// Its writable data: first address, and last plus one.
    pub data: Vec<(usize, usize)>,
    /// The file it was loaded from; the program's own may be gone by now.
    pub path: PathBuf,
    /// The build id in its notes, or nothing.
    pub build_id: Vec<u8>,
}

impl Module {
    /// Whether `pc` lies in its code.
    pub fn holds(&self, pc: usize) -> bool {
        (self.start..self.end).contains(&pc)
    }

    /// The build id in hexadecimal digits.
    pub fn build_id_hex(&self) -> String {
        self.build_id.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// All modules, the program itself first.
pub fn modules() -> Vec<Module> {
    let mut modules = Vec::new();
    // SAFETY: `note` gets what it expects, and the list outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut modules).cast()) };
    modules
}

unsafe extern "C" fn note(info: *mut libc::dl_phdr_info, _: usize, out: *mut c_void) -> c_int {
    // SAFETY: the loader's description of a module, which stays while this runs.
    let (info, out) = unsafe { (&*info, &mut *out.cast::<Vec<Module>>()) };
    let headers = match info.dlpi_phnum {
        0 => &[],
        // SAFETY: as above; the module has so many headers.
        count => unsafe { std::slice::from_raw_parts(info.dlpi_phdr, count.into()) },
    };
    let bias = info.dlpi_addr as usize;
    let name = match info.dlpi_name {
        name if name.is_null() => &[][..],
        // SAFETY: a string of the loader's.
        name => unsafe { CStr::from_ptr(name) }.to_bytes(),
    };
    let path = match name {
        // The program itself has no name.
        [] => std::fs::read_link("/proc/self/exe").unwrap_or_default(),
        name => PathBuf::from(OsStr::from_bytes(name)),
    };
    let span = |header: &libc::Elf64_Phdr| {
        let start = bias.wrapping_add(header.p_vaddr as usize);
        (start, start + header.p_memsz as usize)
    };
    let loaded = |flag: u32| {
        headers.iter().filter(move |h| h.p_type == libc::PT_LOAD && h.p_flags & flag != 0)
    };
    let Some(code) = loaded(libc::PF_X).next() else { return 0 };
    let (start, end) = span(code);
    out.push(Module {
        bias,
        start,
        end,
        offset: code.p_offset as usize,
        data: loaded(libc::PF_W).map(span).collect(),
        path,
        build_id: headers
            .iter()
            .filter(|h| h.p_type == libc::PT_NOTE)
            // SAFETY: the loader mapped the segment.
            .find_map(|h| unsafe { build_id(span(h)) })
            .unwrap_or_default(),
    });
    0
}

/// The build id among the notes between two addresses.
///
/// # Safety
/// They may be read.
unsafe fn build_id((start, end): (usize, usize)) -> Option<Vec<u8>> {
    const BUILD_ID: u32 = 3;
    // SAFETY: the caller's promise.
    let notes = unsafe {
        std::slice::from_raw_parts(std::ptr::with_exposed_provenance::<u8>(start), end - start)
    };
    let mut rest = notes;
    loop {
        let word = |n: usize| {
            rest.get(n * 4..n * 4 + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes)
        };
        let (name, text, kind) = (word(0)? as usize, word(1)? as usize, word(2)?);
        let at = 12 + name.next_multiple_of(4);
        let body = rest.get(at..at.checked_add(text)?)?;
        if kind == BUILD_ID && rest.get(12..12 + name)? == b"GNU\0" {
            return Some(body.to_vec());
        }
        rest = rest.get(at + text.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_and_its_library() {
        let modules = modules();
        let here = the_program_and_its_library as fn() as usize;
        let own = &modules[0];
        assert!(own.holds(here), "{modules:x?}");
        assert_eq!(own.path, std::env::current_exe().unwrap());
        static mut WORD: u64 = 1;
        let data = (&raw mut WORD).addr();
        assert!(own.data.iter().any(|&(start, end)| (start..end).contains(&data)));
        let c = modules.iter().find(|module| module.path.ends_with("libc.so.6")).unwrap();
        assert_eq!((c.build_id.len(), c.build_id_hex().len()), (20, 40));
    }
}
