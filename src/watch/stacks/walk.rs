//! The walk up the running thread's stack.
//!
//! Each step asks, in this order: the rules remembered for this address, the module's table, the frame
//! pointer. A word of the stack is read only if its page was there a moment ago, so neither a frame
//! pointer that points anywhere nor a stack that ends early stops the process.

use super::cfi::{self, Cfa, Registers, Rule, Saved};
use super::modules;
use core::ptr;
use core::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The running function's registers, as its own call frame information sees them.
#[inline(always)]
pub fn here() -> Registers {
    let (pc, sp, fp): (usize, usize, usize);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads three registers.
    unsafe {
        core::arch::asm!(
            "lea {pc}, [rip]",
            "mov {sp}, rsp",
            "mov {fp}, rbp",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads three registers.
    unsafe {
        core::arch::asm!(
            "adr {pc}, .",
            "mov {sp}, sp",
            "mov {fp}, x29",
            pc = out(reg) pc,
            sp = out(reg) sp,
            fp = out(reg) fp,
            options(nomem, nostack, preserves_flags),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    {
        (pc, sp, fp) = (0, 0, 0);
    }
    Registers { pc, sp, fp, link: 0 }
}

/// Calls `visit` with the address at which each frame goes on, from the one of `frame` outwards, until
/// it answers `false` or the stack ends.
pub fn walk(mut frame: Registers, mut visit: impl FnMut(usize) -> bool) {
    let mut stack = Stack { page: frame.sp / PAGE };
    // The first address is the next instruction, and so is one that a signal interrupted; all others
    // are behind a call, which may be its function's last instruction.
    let mut called = false;
    while frame.pc != 0 && visit(frame.pc) {
        let Some((next, signal)) = step(&frame, frame.pc - usize::from(called), &mut stack) else {
            return;
        };
        // Outwards is up, but from the stack of a signal handler to any other.
        if next.sp <= frame.sp && !signal {
            return;
        }
        called = !signal;
        frame = next;
    }
}

fn step(frame: &Registers, pc: usize, stack: &mut Stack) -> Option<(Registers, bool)> {
    let mut read = |at| stack.read(at);
    let rule = match remembered(pc) {
        Some(rule) => rule,
        None => match modules::find(pc).and_then(|module| cfi::rule(&module, pc)) {
            Some(rule) => {
                remember(pc, &rule);
                rule
            }
            None => return Some((by_frame_pointer(frame, &mut read)?, false)),
        },
    };
    Some((rule.apply(frame, &mut read)?, rule.signal))
}

/// The caller's registers where a frame begins with the caller's frame pointer and the return address,
/// as compilers lay them out that keep one.
fn by_frame_pointer(
    frame: &Registers,
    read: &mut impl FnMut(usize) -> Option<usize>,
) -> Option<Registers> {
    const WORD: usize = size_of::<usize>();
    if frame.fp < frame.sp {
        return None;
    }
    let fp = read(frame.fp)?;
    let pc = read(frame.fp.checked_add(WORD)?)?;
    // Anything may be in a register that is no frame pointer; a return address lies in a module.
    modules::find(pc)?;
    Some(Registers { pc, sp: frame.fp + 2 * WORD, fp, link: 0 })
}

/// The smallest page there is; larger ones are asked for once more often than needed.
const PAGE: usize = 4096;

/// Reads words, one page's presence at a time.
struct Stack {
    /// The number of the page that was seen to be there last.
    page: usize,
}

impl Stack {
    fn read(&mut self, at: usize) -> Option<usize> {
        if !at.is_multiple_of(size_of::<usize>()) {
            return None;
        }
        if at / PAGE != self.page {
            if !is_readable(at) {
                return None;
            }
            self.page = at / PAGE;
        }
        // SAFETY: an aligned word in a page that is there and may be read.
        Some(unsafe { ptr::with_exposed_provenance::<usize>(at).read_volatile() })
    }
}

/// Whether the word at `at` may be read: the kernel looks at it before it refuses the call.
pub fn is_readable(at: usize) -> bool {
    // No such way to change a signal mask.
    const HOW: libc::c_long = -1;
    // SAFETY: the kernel copies a word from `at`, or says that it cannot; then it refuses `HOW`. The
    // caller keeps errno.
    unsafe {
        let errno = libc::__errno_location();
        *errno = 0;
        libc::syscall(libc::SYS_rt_sigprocmask, HOW, at, 0usize, size_of::<usize>());
        *errno == libc::EINVAL
    }
}

/// One remembered rule: the address mixed with the rule, and the rule. A reader that sees halves of two
/// finds that the address does not fit.
struct Slot([AtomicU64; 2]);

const SLOTS: usize = 4096;

/// The rules of addresses that were met. In `.bss`: nothing until a stack is walked. A library that is
/// loaded where another one was may meet the other's rules; then its frames are wrong until theirs
/// take the slots.
static SEEN: [Slot; SLOTS] = [const { Slot([const { AtomicU64::new(0) }; 2]) }; SLOTS];

fn slot(pc: usize) -> &'static Slot {
    let hash = (pc as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - SLOTS.ilog2());
    &SEEN[hash as usize % SLOTS]
}

fn mix(pc: usize, packed: u64) -> u64 {
    pc as u64 ^ packed.wrapping_mul(0xd6e8_feb8_6659_fd93)
}

fn remembered(pc: usize) -> Option<Rule> {
    let slot = slot(pc);
    let (key, packed) = (slot.0[0].load(Relaxed), slot.0[1].load(Relaxed));
    if packed == 0 || key != mix(pc, packed) {
        return None;
    }
    unpack(packed)
}

fn remember(pc: usize, rule: &Rule) {
    if let Some(packed) = pack(rule) {
        let slot = slot(pc);
        slot.0[0].store(mix(pc, packed), Relaxed);
        slot.0[1].store(packed, Relaxed);
    }
}

const USED: u64 = 1;
const FROM_FP: u64 = 2;
const FP_SAVED: u64 = 4;
const END: u64 = 8;

/// A rule in a word, if it is one of the common ones: 4 bits of kind, 28 of the CFA's offset, 16 each
/// of where frame pointer and return address are, in words from the CFA.
fn pack(rule: &Rule) -> Option<u64> {
    let words = |offset: i64| {
        i16::try_from(offset / 8).ok().filter(|_| offset % 8 == 0).map(|w| u64::from(w as u16))
    };
    let (kind, offset) = match rule.cfa {
        Cfa::Sp(offset) => (USED, offset),
        Cfa::Fp(offset) => (USED | FROM_FP, offset),
        Cfa::Expression(_) => return None,
    };
    if rule.signal || !(-(1 << 27)..1 << 27).contains(&offset) {
        return None;
    }
    let (kind, fp) = match rule.fp {
        Saved::Same => (kind, 0),
        Saved::At(offset) => (kind | FP_SAVED, words(offset)?),
        _ => return None,
    };
    let (kind, link) = match rule.link {
        Saved::Undefined => (kind | END, 0),
        Saved::At(offset) => (kind, words(offset)?),
        _ => return None,
    };
    Some(kind | ((offset as u64) & ((1 << 28) - 1)) << 4 | fp << 32 | link << 48)
}

fn unpack(packed: u64) -> Option<Rule> {
    let offset = ((packed as u32) as i32 >> 4).into();
    let words = |shift: u32| Saved::At(i64::from((packed >> shift) as i16) * 8);
    Some(Rule {
        cfa: if packed & FROM_FP != 0 { Cfa::Fp(offset) } else { Cfa::Sp(offset) },
        fp: if packed & FP_SAVED != 0 { words(32) } else { Saved::Same },
        link: if packed & END != 0 { Saved::Undefined } else { words(48) },
        signal: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_in_a_word_and_back() {
        for cfa in [Cfa::Sp(8), Cfa::Sp(-16), Cfa::Fp(16), Cfa::Sp((1 << 27) - 8)] {
            for fp in [Saved::Same, Saved::At(-16), Saved::At(-32768)] {
                for link in [Saved::Undefined, Saved::At(-8), Saved::At(80)] {
                    let rule = Rule { cfa, fp, link, signal: false };
                    assert_eq!(pack(&rule).and_then(unpack), Some(rule));
                }
            }
        }
        let plain = Rule { cfa: Cfa::Sp(8), fp: Saved::Same, link: Saved::At(-8), signal: false };
        for rare in [
            Rule { cfa: Cfa::Sp(1 << 27), ..plain },
            Rule { cfa: Cfa::Expression((1, 1)), ..plain },
            Rule { fp: Saved::At(-4), ..plain },
            Rule { fp: Saved::At(-8 << 16), ..plain },
            Rule { fp: Saved::Undefined, ..plain },
            Rule { signal: true, ..plain },
        ] {
            assert_eq!(pack(&rare), None);
        }
    }

    #[test]
    fn what_is_readable() {
        let word = 7usize;
        let at = (&raw const word).addr();
        assert!(is_readable(at) && !is_readable(8) && !is_readable(usize::MAX - 7));
        let mut stack = Stack { page: at / PAGE };
        assert_eq!((stack.read(at), stack.read(at + 1), stack.read(8)), (Some(7), None, None));
    }
}
