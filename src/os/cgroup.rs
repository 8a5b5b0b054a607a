//! What the process's control group (v2) lets it use, read without allocating.
//!
//! `/proc/self/cgroup` names the group in its line `0::/path`; the limit is the smallest `memory.max` of
//! the group and all groups above it, as far as they can be seen from here. Not cheap: read when asked.

use core::ffi::CStr;

/// Where the groups are mounted.
const ROOT: &[u8] = b"/sys/fs/cgroup";
/// The longest path that is followed.
const PATH: usize = 1024;

/// Bytes that the process's group may use; `None` where nothing limits it.
pub fn memory_limit() -> Option<usize> {
    let mut text = [0; 4096];
    let text = read(c"/proc/self/cgroup", &mut text)?;
    smallest(ROOT, group(text)?)
}

/// The path of the v2 group in the text of `/proc/self/cgroup`.
fn group(text: &[u8]) -> Option<&[u8]> {
    text.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(b"0::"))
}

/// The smallest limit of a group and those above it under `root`.
fn smallest(root: &[u8], mut group: &[u8]) -> Option<usize> {
    let mut least = None;
    loop {
        group = group.strip_suffix(b"/").unwrap_or(group);
        let mut path = [0u8; PATH];
        let mut value = [0; 32];
        if let Some(path) = join(&mut path, &[root, group, b"/memory.max\0"])
            && let Some(bytes) = read(path, &mut value).and_then(number)
        {
            least = Some(least.map_or(bytes, |least: usize| least.min(bytes)));
        }
        let Some(above) = group.iter().rposition(|&byte| byte == b'/') else {
            return least;
        };
        group = &group[..above];
    }
}

/// A number of bytes; `max` is none.
fn number(text: &[u8]) -> Option<usize> {
    core::str::from_utf8(text.trim_ascii()).ok()?.parse().ok()
}

fn join<'a>(room: &'a mut [u8; PATH], parts: &[&[u8]]) -> Option<&'a CStr> {
    let mut len = 0;
    for part in parts {
        room.get_mut(len..len + part.len())?.copy_from_slice(part);
        len += part.len();
    }
    CStr::from_bytes_with_nul(&room[..len]).ok()
}

/// The first bytes of a file, as many as there is room for.
fn read<'a>(path: &CStr, room: &'a mut [u8]) -> Option<&'a [u8]> {
    // SAFETY: open(2) takes a string that ends with a zero.
    let file = unsafe { libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
    if file < 0 {
        return None;
    }
    // SAFETY: the descriptor was opened above, and `room` is that long.
    let got = unsafe { libc::read(file, room.as_mut_ptr().cast(), room.len()) };
    // SAFETY: as above; nobody else knows the descriptor.
    unsafe { libc::close(file) };
    room.get(..usize::try_from(got).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_group_is_the_line_of_version_two() {
        assert_eq!(group(b"9:memory:/old\n0::/user.slice/x\n"), Some(&b"/user.slice/x"[..]));
        assert_eq!(group(b"0::/\n"), Some(&b"/"[..]));
        assert_eq!(group(b"9:memory:/old\n"), None);
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("spandrel-cgroup-{}", std::process::id()));
        let set = |group: &str, text: &str| {
            std::fs::create_dir_all(root.join(group)).unwrap();
            std::fs::write(root.join(group).join("memory.max"), text).unwrap();
        };
        let get = |group: &str| smallest(root.as_os_str().as_bytes(), group.as_bytes());
        std::fs::create_dir_all(&root).unwrap();
        assert_eq!(get("/a/b"), None, "no such group");
        set("a", "1000000\n");
        set("a/b", "max\n");
        assert_eq!(get("/a/b"), Some(1_000_000));
        set("a/b", "2000\n");
        assert_eq!(
            (get("/a/b"), get("/a/b/c"), get("/a"), get("/")),
            (Some(2000), Some(2000), Some(1_000_000), None)
        );
        set("a", "1000\n");
        assert_eq!(get("/a/b"), Some(1000));
        assert_eq!(get(&format!("/{}", "x".repeat(2 * PATH))), None, "too long a path");
        std::fs::remove_dir_all(&root).unwrap();
    }
}
