//! Which module an address lies in, and where its table of call frame information is.
//!
//! The C library answers that itself, without a lock, since glibc 2.35: `_dl_find_object`, made for
//! unwinders. It knows libraries opened and closed since, so nothing here can go stale. Where it is
//! missing, and in a static program, what the program itself has is found by what the kernel handed over;
//! other modules are then left to the frame pointer.

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::AtomicUsize;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// A loaded module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its first address.
    pub start: usize,
    /// Its last address, plus one.
    pub end: usize,
    /// Its `.eh_frame_hdr`; of the program itself 0 if it was linked without one.
    pub table: usize,
}

/// The module that `pc` lies in, if it has a table.
pub fn find(pc: usize) -> Option<Module> {
    match find_object() {
        Some(find_object) if !is_static() => asked(find_object, pc),
        _ => program().filter(|p| p.table != 0 && (p.start..p.end).contains(&pc)),
    }
}

/// Whether there is nothing but the program itself. There the C library's function must not be asked: while
/// it is set up, which takes memory of ours, it is no function yet.
fn is_static() -> bool {
    /// 0 until it was looked for, 1 no, 2 yes. Any thread; all find the same.
    static KNOWN: AtomicUsize = AtomicUsize::new(0);
    match KNOWN.load(Relaxed) {
        0 => {
            // Without a loader, or with one that was called by name: then the program is the loader.
            // SAFETY: getauxval reads what the kernel handed over.
            let alone = unsafe { libc::getauxval(libc::AT_BASE) } == 0;
            let here = is_static as fn() -> bool as usize;
            let found = alone && program().is_some_and(|p| (p.start..p.end).contains(&here));
            KNOWN.store(1 + usize::from(found), Relaxed);
            found
        }
        known => known == 2,
    }
}

/// As in `<dlfcn.h>`, with room for what may be added.
#[repr(C)]
struct Found {
    flags: u64,
    start: usize,
    end: usize,
    link_map: usize,
    table: usize,
    reserved: [u64; 16],
}

type FindObject = unsafe extern "C" fn(*mut c_void, *mut Found) -> i32;

/// The C library's function, if it has it: a weak symbol, which stable Rust cannot name.
fn find_object() -> Option<FindObject> {
    let at: usize;
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    // SAFETY: reads a word of the global offset table, which the linker or the loader filled in.
    unsafe {
        core::arch::asm!(
            ".weak _dl_find_object",
            "mov {at}, qword ptr [rip + _dl_find_object@GOTPCREL]",
            at = out(reg) at,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    #[cfg(all(target_os = "linux", target_arch = "aarch64"))]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!(
            ".weak _dl_find_object",
            "adrp {at}, :got:_dl_find_object",
            "ldr {at}, [{at}, :got_lo12:_dl_find_object]",
            at = out(reg) at,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    #[cfg(not(all(target_os = "linux", any(target_arch = "x86_64", target_arch = "aarch64"))))]
    {
        at = 0;
    }
    // SAFETY: null, or the function of that name.
    unsafe { core::mem::transmute::<usize, Option<FindObject>>(at) }
}

fn asked(find_object: FindObject, pc: usize) -> Option<Module> {
    let mut found = Found { flags: 0, start: 0, end: 0, link_map: 0, table: 0, reserved: [0; 16] };
    // SAFETY: any address may be asked for, and there is room for the answer.
    let failed = unsafe { find_object(ptr::without_provenance_mut(pc), &mut found) } != 0;
    (!failed && found.table != 0).then_some(Module {
        start: found.start,
        end: found.end,
        table: found.table,
    })
}

/// The program itself; all zero until it was looked for. Any thread; all find the same.
static PROGRAM: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// The program itself, by the program headers that the kernel handed over.
pub(super) fn program() -> Option<Module> {
    let known = || {
        // The end last: with it the rest is known.
        let end = PROGRAM[1].load(Acquire);
        let [start, table] = [0, 2].map(|i: usize| PROGRAM[i].load(Relaxed));
        (end != 0 && start != 0).then_some(Module { start, end, table })
    };
    known().or_else(|| {
        let found = read_headers()?;
        PROGRAM[0].store(found.start, Relaxed);
        PROGRAM[2].store(found.table, Relaxed);
        PROGRAM[1].store(found.end, Release);
        Some(found)
    })
}

fn read_headers() -> Option<Module> {
    // SAFETY: getauxval reads what the kernel handed over.
    let (at, count, size) = unsafe {
        (
            libc::getauxval(libc::AT_PHDR) as usize,
            libc::getauxval(libc::AT_PHNUM) as usize,
            libc::getauxval(libc::AT_PHENT) as usize,
        )
    };
    if at == 0 || size < size_of::<libc::Elf64_Phdr>() {
        return None;
    }
    let header = |n: usize| {
        // SAFETY: the kernel says that there are so many headers of that size.
        unsafe { ptr::with_exposed_provenance::<libc::Elf64_Phdr>(at + n * size).read_unaligned() }
    };
    let headers = || (0..count).map(header);
    let first = headers().find(|h| h.p_type == libc::PT_LOAD && h.p_offset == 0);
    // The headers lie behind the file's header, wherever that was loaded.
    let base = match headers().find(|h| h.p_type == libc::PT_PHDR) {
        Some(own) => at.checked_sub(own.p_vaddr as usize)?,
        None => at.checked_sub(size_of::<libc::Elf64_Ehdr>() + first?.p_vaddr as usize)?,
    };
    let loaded = || headers().filter(|h| h.p_type == libc::PT_LOAD);
    let start = loaded().map(|h| h.p_vaddr as usize).min()?;
    let end = loaded().map(|h| (h.p_vaddr + h.p_memsz) as usize).max()?;
    let table = headers().find(|h| h.p_type == libc::PT_GNU_EH_FRAME);
    let table = table.map_or(0, |table| base + table.p_vaddr as usize);
    Some(Module { start: base + start, end: base + end, table })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_by_both_ways() {
        let here = the_program_by_both_ways as fn() as usize;
        let program = program().unwrap();
        assert!((program.start..program.end).contains(&here));
        if let Some(find_object) = find_object() {
            let asked = asked(find_object, here).unwrap();
            assert_eq!(
                (asked.start & !0xfff, asked.table),
                (program.start & !0xfff, program.table)
            );
        }
    }

    #[test]
    fn what_lies_in_no_module() {
        let mut local = 0u8;
        assert_eq!(find((&raw mut local).addr()), None);
        assert_eq!(find(16), None);
    }
}
