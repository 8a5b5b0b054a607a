//! `libspandrel_sized.so`: C++'s four sized deletes, for checked mode. Preloaded behind `libspandrel.so`.
//!
//! The C++ runtime's own sized `delete` calls the one without a size, and that one `free`: the size is lost on the way.
//! Each of these shows it to `libspandrel.so` and goes on to the definition that would have been called without this
//! library; so what replaces the form without a size is called as ever. Where any of the operators is replaced nothing is
//! shown, because what its `new` makes of a size is the replacement's business; nor where the program has no C++ runtime
//! of its own, because a library that it opens may bring any. Then these functions hide ([`hide`]).

use core::ffi::{CStr, c_void};
use core::mem::{self, transmute};
use core::ptr;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicBool, AtomicPtr};

type Plain = unsafe extern "C-unwind" fn(*mut c_void);
type Unaligned = unsafe extern "C-unwind" fn(*mut c_void, usize);
type Aligned = unsafe extern "C-unwind" fn(*mut c_void, usize, usize);

/// The forms that are here.
const NAMES: [&CStr; 4] =
    [c"_ZdlPvm", c"_ZdaPvm", c"_ZdlPvmSt11align_val_t", c"_ZdaPvmSt11align_val_t"];

/// And what each of them calls by itself.
const WITHOUT: [&CStr; 4] =
    [c"_ZdlPv", c"_ZdaPv", c"_ZdlPvSt11align_val_t", c"_ZdaPvSt11align_val_t"];

/// The others that a program may replace and whose blocks may come here.
const OTHERS: [&CStr; 12] = [
    c"_Znwm",
    c"_Znam",
    c"_ZnwmRKSt9nothrow_t",
    c"_ZnamRKSt9nothrow_t",
    c"_ZnwmSt11align_val_t",
    c"_ZnamSt11align_val_t",
    c"_ZnwmSt11align_val_tRKSt9nothrow_t",
    c"_ZnamSt11align_val_tRKSt9nothrow_t",
    c"_ZdlPv",
    c"_ZdaPv",
    c"_ZdlPvSt11align_val_t",
    c"_ZdaPvSt11align_val_t",
];

/// How files of C++ runtimes are called: GNU's, LLVM's and FreeBSD's.
const RUNTIMES: [&[u8]; 3] = [b"libstdc++", b"libc++", b"libcxxrt"];

/// What would be called without this library, form by form.
static NEXT: [AtomicPtr<c_void>; 4] = [const { AtomicPtr::new(ptr::null_mut()) }; 4];
/// `spandrel_sized_delete`, if sizes are to be shown.
static LOOK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// Whether both are known.
static STARTED: AtomicBool = AtomicBool::new(false);

/// Run by the loader; by the `delete` of an earlier constructor if one comes first.
#[used]
#[unsafe(link_section = ".init_array")]
static AT_START: extern "C" fn() = start;

#[cold]
extern "C" fn start() {
    for (next, name) in NEXT.iter().zip(NAMES) {
        next.store(find(libc::RTLD_NEXT, name), Relaxed);
    }
    let look = find(libc::RTLD_DEFAULT, c"spandrel_sized_delete");
    let mut forms = NEXT.iter().map(|next| next.load(Relaxed));
    let mut others = OTHERS.iter().map(|name| find(libc::RTLD_DEFAULT, name));
    if !look.is_null() && forms.all(is_the_runtimes) && others.all(is_the_runtimes) {
        LOOK.store(look, Relaxed);
    } else {
        let own: [*const c_void; 4] = [
            _ZdlPvm as Unaligned as *const c_void,
            _ZdaPvm as Unaligned as *const c_void,
            _ZdlPvmSt11align_val_t as Aligned as *const c_void,
            _ZdaPvmSt11align_val_t as Aligned as *const c_void,
        ];
        own.into_iter().for_each(hide);
    }
    // What was not found is not the program's error.
    // SAFETY: no arguments.
    unsafe { libc::dlerror() };
    STARTED.store(true, Release);
}

fn find(among: *mut c_void, name: &CStr) -> *mut c_void {
    // SAFETY: a name that ends in a zero byte.
    unsafe { libc::dlsym(among, name.as_ptr()) }
}

/// What file an address is from, and where that begins.
fn about(at: *const c_void) -> Option<libc::Dl_info> {
    // SAFETY: all zeros is a value of this plain struct.
    let mut about: libc::Dl_info = unsafe { mem::zeroed() };
    // SAFETY: an address, and a struct to fill.
    (unsafe { libc::dladdr(at, &mut about) } != 0).then_some(about)
}

fn is_the_runtimes(operator: *mut c_void) -> bool {
    let Some(path) = about(operator).map(|about| about.dli_fname).filter(|path| !path.is_null())
    else {
        return false;
    };
    // SAFETY: a string of the loader's, which keeps it as long as the file is loaded.
    let path = unsafe { CStr::from_ptr(path) }.to_bytes();
    let name = path.rsplit(|&byte| byte == b'/').next().unwrap_or(path);
    RUNTIMES.iter().any(|runtime| name.starts_with(runtime))
}

/// Makes a function of this library undefined in its table of symbols, as the loader reads it: who is bound to it by now
/// goes on through it, and nobody else will find it. A library that the program opens finds its own runtime's, as it would
/// without this one.
#[cfg(target_env = "gnu")]
fn hide(function: *const c_void) {
    /// glibc's number for: and the entry in the table of symbols.
    const RTLD_DL_SYMENT: libc::c_int = 1;
    // SAFETY: all zeros is a value of this plain struct.
    let mut its: libc::Dl_info = unsafe { mem::zeroed() };
    let mut symbol = ptr::null_mut();
    // SAFETY: an address, and room for both answers.
    if unsafe { libc::dladdr1(function, &mut its, &mut symbol, RTLD_DL_SYMENT) } == 0 {
        return;
    }
    // The name may be bound to the program's own, which comes first.
    let own = about(start as extern "C" fn() as *const c_void);
    if symbol.is_null() || own.is_none_or(|own| own.dli_fbase != its.dli_fbase) {
        return;
    }
    let symbol = symbol.cast::<libc::Elf64_Sym>();
    // SAFETY: no pointers.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) }.cast_unsigned() as usize;
    let before = symbol.addr() % page;
    let (first, bytes) = (symbol.wrapping_byte_sub(before), before + size_of::<libc::Elf64_Sym>());
    // SAFETY: pages of this library's own that hold no code (`build.rs`) and were only to be read; the loader, which reads
    // them too, is running this, or an earlier constructor.
    unsafe {
        if libc::mprotect(first.cast(), bytes, libc::PROT_READ | libc::PROT_WRITE) == 0 {
            (*symbol).st_shndx = 0;
            (*symbol).st_value = 0;
            libc::mprotect(first.cast(), bytes, libc::PROT_READ);
        }
    }
}

#[cfg(not(target_env = "gnu"))]
fn hide(_: *const c_void) {}

/// What a form goes on to, after the size was shown.
#[inline(always)]
fn shown(form: usize, at: *mut c_void, size: usize, align: usize) -> *mut c_void {
    if !STARTED.load(Acquire) {
        start();
    }
    let look = LOOK.load(Relaxed);
    if !look.is_null() && !at.is_null() {
        // SAFETY: the function of this name and type, which only looks.
        unsafe { transmute::<*mut c_void, Aligned>(look)(at, size, align) };
    }
    NEXT[form].load(Relaxed)
}

/// What a sized form does where the loader has none.
///
/// # Safety
/// As in C++, of a block that is not looked at.
#[cold]
unsafe fn without(form: usize, at: *mut c_void, align: Option<usize>) {
    let next = find(libc::RTLD_DEFAULT, WITHOUT[form]);
    // SAFETY: the caller's promise; functions of these names and types, or C's, which a runtime's would call.
    unsafe {
        match (next.is_null(), align) {
            (true, _) => libc::free(at),
            (_, None) => transmute::<*mut c_void, Plain>(next)(at),
            (_, Some(align)) => transmute::<*mut c_void, Unaligned>(next)(at, align),
        }
    }
}

macro_rules! sized {
    ($($form:literal $name:ident $($align:ident)?: $type:ty;)*) => {$(
        /// C++'s sized `delete`.
        ///
        /// # Safety
        /// As in C++.
        #[unsafe(no_mangle)]
        #[allow(non_snake_case, reason = "C++'s name")]
        pub unsafe extern "C-unwind" fn $name(at: *mut c_void, size: usize $(, $align: usize)?) {
            let next = shown($form, at, size, 0 $(+ $align)?);
            if next.is_null() {
                // No runtime when the program started, and this is called all the same.
                // SAFETY: the caller gives the block up.
                return unsafe { without($form, at, None::<usize> $(.or(Some($align)))?) };
            }
            // SAFETY: the definition of this form that comes next; the caller's promise is C++'s.
            unsafe { transmute::<*mut c_void, $type>(next)(at, size $(, $align)?) }
        }
    )*};
}

sized! {
    0 _ZdlPvm: Unaligned;
    1 _ZdaPvm: Unaligned;
    2 _ZdlPvmSt11align_val_t align: Aligned;
    3 _ZdaPvmSt11align_val_t align: Aligned;
}
