//! Files that reports and records go to: written with plain system calls, from any thread, a signal
//! handler included. Nothing here allocates, and `errno` stays as it was.

use crate::base::quiet::quietly;
use core::ffi::c_int;
use core::ptr::{self, NonNull};

/// The longest path the kernel takes, with the zero at its end.
pub const PATH_MAX: usize = libc::PATH_MAX as usize;

/// A path that ends with a zero.
#[derive(Clone, Copy, Debug)]
pub struct Path([u8; PATH_MAX]);

impl Path {
    /// The path in these bytes, none of them zero; `None` if it is too long or has one.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let mut path = [0; PATH_MAX];
        let fits = bytes.len() < PATH_MAX && !bytes.contains(&0);
        path.get_mut(..bytes.len())?.copy_from_slice(bytes);
        fits.then_some(Self(path))
    }

    /// The same with a dot and a number behind it.
    pub fn numbered(&self, number: u32) -> Option<Self> {
        let mut path = *self;
        let mut at = path.0.iter().position(|&byte| byte == 0)?;
        let mut digits = [b'0'; 10];
        let mut rest = number;
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        let first = digits.iter().position(|&digit| digit != b'0').unwrap_or(9);
        for &byte in b".".iter().chain(digits.get(first..)?) {
            *path.0.get_mut(at)? = byte;
            at += 1;
        }
        (at < PATH_MAX && path.0[at] == 0).then_some(path)
    }
}

/// A file, open for reading and writing, that this handle closes when it is dropped.
#[derive(Debug)]
pub struct File(c_int);

/// The process, as the system numbers it.
pub fn pid() -> u32 {
    // SAFETY: no arguments, never fails.
    unsafe { libc::getpid() }.cast_unsigned()
}

impl File {
    /// Opens a file with these flags besides those for reading, writing and closing on exec; answers the
    /// system's error.
    fn with(path: &Path, flags: c_int) -> Result<Self, c_int> {
        quietly(|| {
            let flags = flags | libc::O_RDWR | libc::O_CLOEXEC | libc::O_NOCTTY;
            // SAFETY: the path ends with a zero.
            match unsafe { libc::open(path.0.as_ptr().cast(), flags, 0o644) } {
                // SAFETY: this thread's own.
                -1 => Err(unsafe { *libc::__errno_location() }),
                descriptor => Ok(Self(descriptor)),
            }
        })
    }

    /// Opens a file, or makes it, to write at its end.
    ///
    /// # Errors
    /// The system's number of what is in the way.
    pub fn append(path: &Path) -> Result<Self, c_int> {
        Self::with(path, libc::O_CREAT | libc::O_APPEND)
    }

    /// Opens a file to read it.
    ///
    /// # Errors
    /// As [`File::append`].
    pub fn read_only(path: &Path) -> Result<Self, c_int> {
        quietly(|| {
            let flags = libc::O_RDONLY | libc::O_CLOEXEC;
            // SAFETY: the path ends with a zero.
            match unsafe { libc::open(path.0.as_ptr().cast(), flags) } {
                // SAFETY: this thread's own.
                -1 => Err(unsafe { *libc::__errno_location() }),
                descriptor => Ok(Self(descriptor)),
            }
        })
    }

    /// Makes the file at `path` this process's: the one that makes it, or whose number `owner` finds at
    /// the start of it, because another program was the process before `exec`. If it is another's, the
    /// file with this process's number behind the path, and the answer says so.
    ///
    /// # Errors
    /// As [`File::append`].
    pub fn claim(path: &Path, owner: impl Fn(&[u8]) -> Option<u32>) -> Result<(Self, bool), c_int> {
        match Self::with(path, libc::O_CREAT | libc::O_EXCL) {
            Err(libc::EEXIST) => {}
            made => return Ok((made?, false)),
        }
        let mut start = [0; 64];
        let there = Self::with(path, libc::O_APPEND)?;
        let length = there.read(0, &mut start);
        if owner(start.get(..length).unwrap_or_default()) == Some(pid()) {
            return Ok((there, false));
        }
        let path = path.numbered(pid()).ok_or(libc::ENAMETOOLONG)?;
        Ok((Self::with(&path, libc::O_CREAT | libc::O_TRUNC)?, true))
    }

    /// As [`File::claim`], for a file that is written at places, and begins empty.
    ///
    /// # Errors
    /// As [`File::append`].
    pub fn claim_anew(
        path: &Path,
        owner: impl Fn(&[u8]) -> Option<u32>,
    ) -> Result<(Self, bool), c_int> {
        let (claimed, numbered) = Self::claim(path, owner)?;
        drop(claimed);
        let path = if numbered { path.numbered(pid()).ok_or(libc::ENAMETOOLONG)? } else { *path };
        Ok((Self::with(&path, libc::O_TRUNC)?, numbered))
    }

    /// The descriptor.
    pub fn descriptor(&self) -> c_int {
        self.0
    }

    /// Reads as much as there is room and file; answers how much.
    pub fn read(&self, at: u64, to: &mut [u8]) -> usize {
        let mut done = 0;
        quietly(|| {
            while let Some(rest) = to.get_mut(done..).filter(|rest| !rest.is_empty()) {
                let from = (at + done as u64) as libc::off_t;
                // SAFETY: a buffer of that length.
                let read =
                    unsafe { libc::pread(self.0, rest.as_mut_ptr().cast(), rest.len(), from) };
                match read {
                    1.. => done += read.cast_unsigned(),
                    -1 if interrupted() => {}
                    _ => break,
                }
            }
        });
        done
    }

    /// Writes all of `bytes` at the end of a file opened to append, or where the last write ended; whether
    /// it could.
    pub fn write(&self, bytes: &[u8]) -> bool {
        self.all(bytes, |_, rest| {
            // SAFETY: a buffer of that length.
            unsafe { libc::write(self.0, rest.as_ptr().cast(), rest.len()) }
        })
    }

    /// Writes all of `bytes` at a place in a file that was not opened to append; whether it could.
    pub fn write_at(&self, at: u64, bytes: &[u8]) -> bool {
        self.all(bytes, |done, rest| {
            let to = (at + done as u64) as libc::off_t;
            // SAFETY: a buffer of that length.
            unsafe { libc::pwrite(self.0, rest.as_ptr().cast(), rest.len(), to) }
        })
    }

    fn all(&self, bytes: &[u8], mut write: impl FnMut(usize, &[u8]) -> isize) -> bool {
        quietly(|| {
            let mut done = 0;
            while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
                match write(done, rest) {
                    written @ 1.. => done += written.cast_unsigned(),
                    -1 if interrupted() => {}
                    _ => return false,
                }
            }
            true
        })
    }

    /// Bytes it has.
    pub fn length(&self) -> u64 {
        // SAFETY: all zeros is a value of this plain struct.
        let mut about: libc::stat = unsafe { core::mem::zeroed() };
        // SAFETY: a struct to fill.
        match quietly(|| unsafe { libc::fstat(self.0, &mut about) }) {
            0 => about.st_size.cast_unsigned(),
            _ => 0,
        }
    }

    /// Cuts it off, or lengthens it with zeros that have no room on the disk yet.
    pub fn set_length(&self, bytes: u64) -> bool {
        // SAFETY: a descriptor of ours.
        quietly(|| unsafe { libc::ftruncate(self.0, bytes as libc::off_t) } == 0)
    }

    /// Has the system set room aside for `bytes` from `at` on, so that writing there cannot fail.
    pub fn reserve(&self, at: u64, bytes: usize) -> bool {
        quietly(|| {
            // SAFETY: a descriptor of ours.
            let done =
                unsafe { libc::fallocate(self.0, 0, at as libc::off_t, bytes as libc::off_t) };
            if done == 0 {
                return true;
            }
            // SAFETY: errno is this thread's own.
            if !matches!(unsafe { *libc::__errno_location() }, libc::EOPNOTSUPP | libc::ENOSYS) {
                return false;
            }
            // Zeros are room too.
            const ZEROS: [u8; 4096] = [0; 4096];
            (0..bytes).step_by(ZEROS.len()).all(|offset| {
                let part = ZEROS.get(..(bytes - offset).min(ZEROS.len())).unwrap_or_default();
                self.write_at(at + offset as u64, part)
            })
        })
    }

    /// Maps a part of it, whole pages, for reading and writing: what is written there is in the file.
    pub fn map_shared(&self, at: u64, bytes: usize) -> Option<NonNull<u8>> {
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapped = quietly(|| unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                self.0,
                at as libc::off_t,
            )
        });
        if mapped == libc::MAP_FAILED { None } else { NonNull::new(mapped.cast()) }
    }

    /// Takes a mapping away again; the file stays.
    ///
    /// # Safety
    /// [`File::map_shared`] answered it, and nobody uses it any more.
    pub unsafe fn unmap(at: NonNull<u8>, bytes: usize) {
        // SAFETY: the caller's promise.
        quietly(|| unsafe { libc::munmap(at.as_ptr().cast(), bytes) });
    }

    /// Lets go of the handle and leaves the file open for good.
    pub fn keep(self) -> c_int {
        let descriptor = self.0;
        core::mem::forget(self);
        descriptor
    }

    /// The handle of a descriptor that was kept.
    ///
    /// # Safety
    /// [`File::keep`] answered it, and one handle at a time is dropped.
    pub unsafe fn kept(descriptor: c_int) -> Self {
        Self(descriptor)
    }
}

impl Drop for File {
    fn drop(&mut self) {
        // SAFETY: the descriptor is this handle's.
        quietly(|| unsafe { libc::close(self.0) });
    }
}

fn interrupted() -> bool {
    // SAFETY: errno is this thread's own.
    unsafe { *libc::__errno_location() == libc::EINTR }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_end_with_zeros_and_take_numbers() {
        let text = |path: &Path| {
            let end = path.0.iter().position(|&byte| byte == 0).unwrap();
            String::from_utf8(path.0[..end].to_vec()).unwrap()
        };
        let path = Path::of(b"/tmp/x").unwrap();
        assert_eq!(text(&path.numbered(4_070).unwrap()), "/tmp/x.4070");
        assert_eq!(text(&path.numbered(0).unwrap()), "/tmp/x.0");
        assert!(Path::of(&[b'a'; PATH_MAX]).is_none() && Path::of(b"a\0b").is_none());
        let longest = Path::of(&[b'a'; PATH_MAX - 1]).unwrap();
        assert!(longest.numbered(1).is_none());
    }

    #[test]
    fn a_file_is_its_makers() {
        let directory = std::env::temp_dir().join(format!("spandrel-file-{}", pid()));
        std::fs::create_dir_all(&directory).unwrap();
        let name = directory.join("own");
        let path = Path::of(name.as_os_str().as_encoded_bytes()).unwrap();
        let owner = |start: &[u8]| std::str::from_utf8(start).ok()?.lines().next()?.parse().ok();
        let (file, _) = File::claim(&path, owner).unwrap();
        assert!(file.write(format!("{}\n", pid()).as_bytes()) && file.write_at(20, b"x"));
        assert_eq!(file.length(), 21);
        let (again, _) = File::claim(&path, owner).unwrap();
        assert_eq!(again.length(), 21, "the same file");
        std::fs::write(&name, "1\n").unwrap();
        let (other, _) = File::claim(&path, owner).unwrap();
        assert_eq!(other.length(), 0);
        assert!(directory.join(format!("own.{}", pid())).exists());
        assert!(other.reserve(0, 10_000) && other.length() == 10_000);
        assert_eq!(File::append(&Path::of(b"/no/such/file").unwrap()).unwrap_err(), libc::ENOENT);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
