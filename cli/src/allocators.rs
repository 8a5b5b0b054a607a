//! The other allocators of this machine, by the names their libraries usually have.

use crate::{FAILED, Refusal, USAGE, library};
use std::collections::HashSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// An allocator that a program can be run on.
#[derive(Clone, Debug, PartialEq)]
pub struct Allocator {
    /// As it is called in reports.
    pub name: String,
    /// What is preloaded; none for the program's own, which is the C library's.
    pub library: Option<PathBuf>,
}

/// Names, and the stems of their libraries, the preferred one first.
const KNOWN: [(&str, &[&str]); 8] = [
    ("jemalloc", &["libjemalloc"]),
    ("mimalloc", &["libmimalloc"]),
    ("tcmalloc", &["libtcmalloc_minimal", "libtcmalloc"]),
    ("snmalloc", &["libsnmallocshim"]),
    ("rpmalloc", &["librpmallocwrap", "librpmalloc"]),
    ("hoard", &["libhoard"]),
    ("hardened_malloc", &["libhardened_malloc"]),
    ("scudo", &["libscudo"]),
];

/// The directories where the loader looks, and the usual ones besides.
pub fn directories() -> Vec<PathBuf> {
    let mut list: Vec<PathBuf> = Vec::new();
    if let Some(path) = std::env::var_os("LD_LIBRARY_PATH") {
        list.extend(std::env::split_paths(&path).filter(|path| path.is_absolute()));
    }
    list.extend(["/usr/local/lib", "/usr/local/lib64"].map(PathBuf::from));
    // Where ld.so.conf adds directories, its cache names them.
    for command in ["/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"] {
        if let Ok(output) = Command::new(command).arg("-p").output() {
            let text = String::from_utf8_lossy(&output.stdout);
            list.extend(cached(&text));
            break;
        }
    }
    let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
    for root in ["/usr/lib", "/lib"] {
        list.push(Path::new(root).join(&triplet));
    }
    list.extend(["/usr/lib64", "/lib64", "/usr/lib", "/lib"].map(PathBuf::from));
    let mut seen = HashSet::new();
    list.retain(|path| path.canonicalize().is_ok_and(|real| seen.insert(real)));
    list
}

/// The directories of `ldconfig -p`'s lines, `\tlibc.so.6 (libc6,x86-64) => /lib/libc.so.6`.
fn cached(text: &str) -> impl Iterator<Item = PathBuf> {
    text.lines().filter_map(|line| Some(Path::new(line.split_once(" => ")?.1).parent()?.to_owned()))
}

/// Every known allocator that lies in one of the directories and can be preloaded here.
pub fn installed(directories: &[PathBuf]) -> Vec<Allocator> {
    KNOWN
        .iter()
        .filter_map(|&(name, stems)| {
            let library = stems
                .iter()
                .find_map(|stem| directories.iter().find_map(|directory| best(directory, stem)))?;
            Some(Allocator { name: name.to_owned(), library: Some(library) })
        })
        .collect()
}

/// The highest version of `STEM.so[.VERSION]` in a directory that can be preloaded.
fn best(directory: &Path, stem: &str) -> Option<PathBuf> {
    let mut found: Vec<(Vec<u32>, PathBuf)> = std::fs::read_dir(directory)
        .ok()?
        .flatten()
        .filter_map(|entry| Some((version(&entry.file_name(), stem)?, entry.path())))
        .collect();
    // The shortest of equal names: `libx.so.2`, which others link to, rather than `libx.so.2.0`.
    found.sort_by(|a, b| {
        b.0.first().cmp(&a.0.first()).then(a.0.len().cmp(&b.0.len())).then(b.0.cmp(&a.0))
    });
    found.into_iter().map(|(_, path)| path).find(|path| library::check(path).is_ok())
}

/// The numbers after `STEM.so`, if that is the file's name.
fn version(file: &OsStr, stem: &str) -> Option<Vec<u32>> {
    let rest = file.to_str()?.strip_prefix(stem)?.strip_prefix(".so")?;
    if rest.is_empty() {
        return Some(Vec::new());
    }
    rest.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect()
}

/// The user's `NAME=PATH`.
///
/// # Errors
///
/// A [`Refusal`] when the form is wrong or the file cannot be preloaded.
pub fn named(argument: &str) -> Result<Allocator, Refusal> {
    let (name, path) = argument
        .split_once('=')
        .filter(|(name, path)| !name.is_empty() && !path.is_empty())
        .ok_or_else(|| {
            Refusal::new(
                USAGE,
                format!("--with {argument}: wanted NAME=PATH, as mine=./libmine.so"),
            )
        })?;
    let library = library::check(Path::new(path))
        .map_err(|refusal| Refusal::new(FAILED, format!("--with {name}: {}", refusal.message)))?;
    Ok(Allocator { name: name.to_owned(), library: Some(library) })
}

/// Spandrel, the system, what is installed, what the user names.
///
/// # Errors
///
/// A [`Refusal`] when a name is not here or there twice, or a library cannot be preloaded.
pub fn line_up(
    library: Option<&Path>,
    with: &[String],
    only: &[String],
) -> anyhow::Result<Vec<Allocator>> {
    let named: Vec<Allocator> = with.iter().map(|with| named(with)).collect::<Result<_, _>>()?;
    let all = chosen(library::path(library)?, installed(&directories()), named, only)?;
    // A library that the loader leaves out would be measured as the system's malloc.
    for allocator in &all {
        if let Some(path) = &allocator.library {
            library::serves(path).map_err(|error| {
                Refusal::new(FAILED, format!("{}: {}: {error}", allocator.name, path.display()))
            })?;
        }
    }
    Ok(all)
}

/// Spandrel first, then of what is found what `only` names, or all, then what the user has named.
fn chosen(
    ours: PathBuf,
    installed: Vec<Allocator>,
    named: Vec<Allocator>,
    only: &[String],
) -> Result<Vec<Allocator>, Refusal> {
    let mut all = vec![
        Allocator { name: "spandrel".to_owned(), library: Some(ours) },
        Allocator { name: "system".to_owned(), library: None },
    ];
    all.extend(
        installed.into_iter().filter(|found| !named.iter().any(|named| named.name == found.name)),
    );
    let unnamed = all.len();
    for allocator in named {
        if all.iter().any(|earlier| earlier.name == allocator.name) {
            return Err(Refusal::new(
                USAGE,
                format!("--with {}: there is one of that name already", allocator.name),
            ));
        }
        all.push(allocator);
    }
    for name in only {
        if !all.iter().any(|one| one.name == *name) {
            let there: Vec<&str> = all.iter().map(|one| one.name.as_str()).collect();
            return Err(Refusal::new(
                USAGE,
                format!("--only {name}: not here; there are: {}", there.join(", ")),
            ));
        }
    }
    // Figures are over Spandrel's, so it is there in any case; who names a library wants it, too.
    let mut index = 0;
    all.retain(|one| {
        index += 1;
        only.is_empty() || only.contains(&one.name) || index == 1 || index > unnamed
    });
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_after_the_stem() {
        let version = |file: &str| version(OsStr::new(file), "libmimalloc");
        assert_eq!(version("libmimalloc.so"), Some(vec![]));
        assert_eq!(version("libmimalloc.so.2"), Some(vec![2]));
        assert_eq!(version("libmimalloc.so.2.0"), Some(vec![2, 0]));
        assert_eq!(version("libmimalloc-secure.so.2"), None);
        assert_eq!(version("libmimalloc.so.2.debug"), None);
        assert_eq!(version("libmimalloc.a"), None);
    }

    #[test]
    fn the_loaders_cache_names_directories() {
        let text = "2 libs found in cache `/etc/ld.so.cache'\n\
                    \tliba.so.1 (libc6,x86-64) => /opt/a/liba.so.1\n\
                    \tlibb.so (libc6) => /lib/libb.so\n";
        let found: Vec<_> = cached(text).collect();
        assert_eq!(found, [Path::new("/opt/a"), Path::new("/lib")]);
    }

    #[test]
    fn only_what_can_be_preloaded_is_found() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("libjemalloc.so.2"), b"not a library").unwrap();
        assert_eq!(installed(&[root.path().to_owned()]), []);
    }

    #[test]
    fn a_named_allocator_must_be_one() {
        let says = |argument| named(argument).unwrap_err().message;
        assert_eq!(says("mine"), "--with mine: wanted NAME=PATH, as mine=./libmine.so");
        assert_eq!(says("=x"), "--with =x: wanted NAME=PATH, as mine=./libmine.so");
        assert_eq!(says("mine=/no/such.so"), "--with mine: /no/such.so: no such library");
        assert_eq!(says("mine=/"), "--with mine: /: not a file");
        assert_eq!(says("mine=/etc/passwd"), "--with mine: /etc/passwd: not an ELF library");
    }

    #[test]
    fn only_chooses_among_all_of_them() {
        let one = |name: &str| Allocator { name: name.to_owned(), library: Some("/x.so".into()) };
        let pick = |with: &[&str], only: &[&str]| {
            let with = with.iter().copied().map(one).collect();
            let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
            let all = chosen("/ours.so".into(), vec![one("jemalloc")], with, &only);
            all.map(|all| all.into_iter().map(|one| one.name).collect::<Vec<_>>().join(" "))
                .map_err(|refusal| (refusal.code, refusal.message))
        };
        assert_eq!(pick(&["mine"], &[]).unwrap(), "spandrel system jemalloc mine");
        assert_eq!(pick(&["mine"], &["mine"]).unwrap(), "spandrel mine");
        assert_eq!(pick(&["mine"], &["system"]).unwrap(), "spandrel system mine");
        assert_eq!(pick(&[], &["spandrel"]).unwrap(), "spandrel");
        assert_eq!(pick(&["jemalloc"], &["spandrel", "jemalloc"]).unwrap(), "spandrel jemalloc");
        let says = |code, text: &str| Err((code, text.to_owned()));
        assert_eq!(
            pick(&["mine"], &["typo"]),
            says(2, "--only typo: not here; there are: spandrel, system, jemalloc, mine")
        );
        for name in ["system", "spandrel"] {
            let message = format!("--with {name}: there is one of that name already");
            assert_eq!(pick(&[name], &[]), says(2, &message));
        }
    }
}
