//! The preloadable library, and that of C++'s sized deletes: carried inside the command, each written to a cache
//! directory at its first use.
//!
//! `build.rs` builds them; a file's name holds a hash of its bytes, so commands of different builds keep
//! theirs apart. A file that is there already is used only if its bytes are the library's and nobody but
//! this user and root may change it or its directory.

use crate::elf::Elf;
use crate::{FAILED, Refusal};
use anyhow::Result;
use std::ffi::{CStr, CString};
use std::fs::{self, DirBuilder};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

/// A file inside the command.
struct Carried {
    name: &'static str,
    bytes: &'static [u8],
}

static LIBRARY: Carried = Carried {
    name: env!("SPANDREL_LIBRARY_NAME"),
    bytes: include_bytes!(env!("SPANDREL_LIBRARY")),
};
static SIZED: Carried =
    Carried { name: env!("SPANDREL_SIZED_NAME"), bytes: include_bytes!(env!("SPANDREL_SIZED")) };

/// A file to preload: the one the user names, or the one inside this command.
///
/// # Errors
///
/// A [`Refusal`] when the named file is no such library, or when no directory can hold ours.
pub fn path(named: Option<&Path>) -> Result<PathBuf> {
    match named {
        Some(path) => Ok(check(path)?),
        None => Ok(LIBRARY.extract(&candidates())?),
    }
}

/// A file to preload behind that one in checked mode: C++'s sized deletes, which tell it what size they are given.
///
/// # Errors
///
/// A [`Refusal`] when no directory can hold it.
pub fn sized() -> Result<PathBuf, Refusal> {
    SIZED.extract(&candidates())
}

/// Checks that a file can be preloaded to serve `malloc`, and gives its absolute path.
///
/// # Errors
///
/// A [`Refusal`] that says what the file is instead.
pub fn check(path: &Path) -> Result<PathBuf, Refusal> {
    let refuse = |why: String| Refusal::new(FAILED, format!("{}: {why}", path.display()));
    let absolute = fs::canonicalize(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => refuse("no such library".to_owned()),
        _ => refuse(error.to_string()),
    })?;
    if !absolute.is_file() {
        return Err(refuse("not a file".to_owned()));
    }
    let elf = Elf::read(&absolute).map_err(|error| refuse(format!("{error}")))?;
    let elf = elf.ok_or_else(|| refuse("not an ELF library".to_owned()))?;
    if !elf.fits() {
        let own = crate::elf::own_kind();
        return Err(refuse(format!("a {} library; {own} is needed", elf.kind())));
    }
    if !elf.defines_malloc {
        return Err(refuse("does not export malloc".to_owned()));
    }
    if !listable(&absolute) {
        return Err(refuse("LD_PRELOAD cannot hold a path with a space or a colon".to_owned()));
    }
    Ok(absolute)
}

/// Whether a path can stand in LD_PRELOAD, which spaces and colons divide.
fn listable(path: &Path) -> bool {
    path.is_absolute() && !path.as_os_str().as_bytes().iter().any(|byte| b" :\t\n".contains(byte))
}

/// Where the library may be kept, best first.
fn candidates() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let cache = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")));
    // SAFETY: no arguments, never fails.
    let user = unsafe { libc::geteuid() };
    let shared = [std::env::temp_dir(), PathBuf::from("/tmp"), PathBuf::from("/dev/shm")];
    cache
        .map(|cache| cache.join("spandrel"))
        .into_iter()
        .chain(shared.iter().map(|directory| directory.join(format!("spandrel-{user}"))))
        .collect()
}

impl Carried {
    fn extract(&self, candidates: &[PathBuf]) -> Result<PathBuf, Refusal> {
        let mut tried = String::new();
        for directory in candidates {
            match self.keep(directory) {
                Ok(path) => return Ok(path),
                Err(why) => tried.push_str(&format!("\n  {}: {why}", directory.display())),
            }
        }
        Err(Refusal::new(
            FAILED,
            format!(
                "no directory can hold the library (set XDG_CACHE_HOME to one that can):{tried}"
            ),
        ))
    }

    /// The library as a file in `directory`, written there if it is not yet.
    fn keep(&self, directory: &Path) -> Result<PathBuf> {
        if !listable(directory) {
            anyhow::bail!("LD_PRELOAD cannot hold a relative path, or one with a space or a colon");
        }
        DirBuilder::new().recursive(true).mode(0o755).create(directory)?;
        // Not followed: in /tmp the name may be somebody else's link.
        ours(&fs::symlink_metadata(directory)?, fs::Metadata::is_dir)?;
        if mounted_noexec(directory) {
            anyhow::bail!("mounted noexec");
        }
        let path = directory.join(self.name);
        if fs::symlink_metadata(&path)
            .is_ok_and(|metadata| ours(&metadata, fs::Metadata::is_file).is_ok())
            && fs::read(&path).is_ok_and(|bytes| bytes == self.bytes)
        {
            return Ok(path);
        }
        // A name of its own and a rename: two commands that start at once do not see half a file.
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        file.write_all(self.bytes)?;
        file.as_file().set_permissions(fs::Permissions::from_mode(0o755))?;
        file.persist(&path)?;
        Ok(path)
    }
}

/// Fails unless the file is of the wanted kind and only this user and root may write to it.
fn ours(metadata: &fs::Metadata, kind: fn(&fs::Metadata) -> bool) -> Result<()> {
    // SAFETY: no arguments, never fails.
    let user = unsafe { libc::geteuid() };
    if !kind(metadata) {
        anyhow::bail!("taken by something else");
    }
    if metadata.uid() != user && metadata.uid() != 0 {
        anyhow::bail!("belongs to user {}", metadata.uid());
    }
    if metadata.mode() & 0o022 != 0 {
        anyhow::bail!("others may write to it (mode {:04o})", metadata.mode() & 0o7777);
    }
    Ok(())
}

fn mounted_noexec(directory: &Path) -> bool {
    let Ok(name) = CString::new(directory.as_os_str().as_bytes()) else { return false };
    // SAFETY: all zeros is a value of this plain struct.
    let mut system: libc::statvfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends in a zero byte, and a struct to fill.
    let known = unsafe { libc::statvfs(name.as_ptr(), &mut system) } == 0;
    known && system.f_flag & libc::ST_NOEXEC != 0
}

/// The argument that makes this command answer which file serves its own `malloc`.
const PROBE: &str = "__serves-malloc";

/// Loads `library` before a small program (this one) and asks it who serves `malloc`.
///
/// # Errors
///
/// What the loader said, or who serves instead.
pub fn serves(library: &Path) -> Result<()> {
    let output = Command::new("/proc/self/exe")
        .arg(PROBE)
        .env("LD_PRELOAD", library)
        .env_remove("SPANDREL")
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let server = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        anyhow::bail!("a program preloaded with it ended with {}: {}", output.status, said.trim());
    }
    if fs::canonicalize(server.trim()).ok() != fs::canonicalize(library).ok() {
        anyhow::bail!("{} serves malloc instead. {}", server.trim(), said.trim());
    }
    Ok(())
}

/// The other side of [`serves`]: prints the file that `malloc` comes from.
pub fn probe() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != PROBE {
        return None;
    }
    // SAFETY: a name that ends in a zero byte, looked up in all loaded objects.
    let malloc = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"malloc".as_ptr()) };
    // SAFETY: all zeros is a value of this plain struct.
    let mut about: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: an address, and a struct to fill.
    if unsafe { libc::dladdr(malloc, &mut about) } == 0 || about.dli_fname.is_null() {
        return Some(ExitCode::FAILURE);
    }
    // SAFETY: `dladdr` succeeded, so the name is a string of the loader's that outlives this call.
    let name = unsafe { CStr::from_ptr(about.dli_fname) };
    println!("{}", name.to_string_lossy());
    Some(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_written_once_and_repaired() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("a/b");
        let path = LIBRARY.keep(&directory).unwrap();
        assert_eq!(fs::read(&path).unwrap(), LIBRARY.bytes);
        let inode = fs::metadata(&path).unwrap().ino();
        assert_eq!(LIBRARY.keep(&directory).unwrap(), path);
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "a good file is left alone");
        fs::write(&path, b"something else").unwrap();
        assert_eq!(LIBRARY.keep(&directory).unwrap(), path);
        assert_eq!(fs::read(&path).unwrap(), LIBRARY.bytes, "a bad file is replaced");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 1, "nothing is left over");
    }

    #[test]
    fn places_others_may_change_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let open = root.path().join("open");
        fs::create_dir(&open).unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
        let link = root.path().join("link");
        std::os::unix::fs::symlink("/tmp", &link).unwrap();
        let space = root.path().join("with space");
        let good = root.path().join("good");
        let tried = [open.clone(), link.clone(), space.clone()];
        let refusal = LIBRARY.extract(&tried).unwrap_err();
        assert_eq!(
            refusal.message,
            format!(
                "no directory can hold the library (set XDG_CACHE_HOME to one that can):\
                 \n  {}: others may write to it (mode 0777)\
                 \n  {}: taken by something else\
                 \n  {}: LD_PRELOAD cannot hold a relative path, or one with a space or a colon",
                open.display(),
                link.display(),
                space.display()
            )
        );
        assert_eq!(
            LIBRARY.extract(&[open, link, space, good.clone()]).unwrap(),
            good.join(LIBRARY.name)
        );
    }
}
