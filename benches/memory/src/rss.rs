//! What the system says of this process, read without allocating.

/// Bytes resident now.
///
/// # Panics
/// Without /proc.
#[must_use]
pub fn resident() -> usize {
    let mut text = [0u8; 128];
    // SAFETY: the path ends with a zero, `text` is that long, the descriptor is closed once.
    let length = unsafe {
        let file = libc::open(c"/proc/self/statm".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let length = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        length
    };
    let text = &text[..usize::try_from(length).expect("/proc/self/statm")];
    let pages = text.split(|&byte| byte == b' ').nth(1).expect("a second number");
    let pages = pages.iter().fold(0, |n, digit| n * 10 + usize::from(digit - b'0'));
    // SAFETY: sysconf reads a constant of the running kernel.
    pages * usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).expect("a page size")
}

/// The most bytes that were resident since the peak was last forgotten.
///
/// # Panics
/// Without /proc.
#[must_use]
pub fn recent_peak() -> usize {
    let mut text = [0u8; 4096];
    // SAFETY: the path ends with a zero, `text` is that long, the descriptor is closed once.
    let length = unsafe {
        let file = libc::open(c"/proc/self/status".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC);
        let length = libc::read(file, text.as_mut_ptr().cast(), text.len());
        libc::close(file);
        length
    };
    let text = &text[..usize::try_from(length).expect("/proc/self/status")];
    let lines = text.split(|&byte| byte == b'\n');
    let line = lines.filter_map(|line| line.strip_prefix(b"VmHWM:")).next().expect("VmHWM");
    let digits = line.iter().filter(|byte| byte.is_ascii_digit());
    digits.fold(0, |n, digit| n * 10 + usize::from(digit - b'0')) << 10
}

/// Forgets the peak: what is resident now is the most from now on.
///
/// # Panics
/// Without /proc.
pub fn forget_peak() {
    // SAFETY: the path ends with a zero, one byte is written, the descriptor is closed once.
    let written = unsafe {
        let file = libc::open(c"/proc/self/clear_refs".as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        let written = libc::write(file, c"5".as_ptr().cast(), 1);
        libc::close(file);
        written
    };
    assert_eq!(written, 1, "/proc/self/clear_refs");
}

/// The most bytes that were ever resident.
#[must_use]
pub fn peak() -> usize {
    // SAFETY: getrusage fills the struct it is given.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage
    };
    usize::try_from(usage.ru_maxrss).unwrap_or(0) << 10
}
