//! The library's options, read by its own parser: what this command takes, the library takes.

#[allow(dead_code, reason = "the library's, of which this command needs a part")]
#[path = "../../src/base/line.rs"]
mod line;
#[allow(dead_code, reason = "the library's, of which this command needs a part")]
#[path = "../../src/base/options/mod.rs"]
mod parser;
#[allow(dead_code, reason = "the library's, which `line` names")]
#[path = "../../src/base/quiet.rs"]
mod quiet;

pub use parser::{Check, Decay, HugepagePolicy, Limit, Options};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What is in force in a program of this environment.
pub struct InForce {
    pub options: Options,
    /// The same as it is written, an item an option.
    pub items: Vec<String>,
    /// What the library would say of items that it does not understand, a line each.
    pub complaints: Vec<String>,
}

/// The variable as it is, if it says anything.
pub fn variable() -> Option<OsString> {
    std::env::var_os(parser::VARIABLE).filter(|list| !list.is_empty())
}

impl InForce {
    /// Reads a value of the variable as the library does.
    pub fn of(list: &OsStr) -> InForce {
        let mut complaints = Vec::new();
        let options = Options::parse(list.as_bytes(), |problem| {
            complaints.push(String::from_utf8_lossy(problem.line().bytes()).into_owned());
        });
        let mut items: Vec<String> = Vec::new();
        for item in list.as_bytes().split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
            let mut understood = !item.is_empty();
            Options::parse(item, |_| understood = false);
            if understood {
                let item = String::from_utf8_lossy(item).into_owned();
                // Of two items with one key the later counts.
                items.retain(|earlier| key(earlier) != key(&item));
                items.push(item);
            }
        }
        InForce { options, items, complaints }
    }

    /// Of this command's environment. What is not understood is said, for the output of the programs that
    /// would say it is not shown.
    pub fn said() -> InForce {
        let read = InForce::of(&variable().unwrap_or_default());
        for complaint in &read.complaints {
            eprintln!("{complaint}");
        }
        read
    }
}

/// What stands before the `=`.
fn key(item: &str) -> &str {
    item.split('=').next().unwrap_or_default().trim_end()
}

/// For clap: takes a value that the library takes for `key`, `off` excepted, and says what is allowed
/// otherwise.
pub fn value(key: &'static str) -> impl Fn(&str) -> Result<String, String> + Clone + Send + Sync {
    move |text| {
        let known = parser::KEYS.iter().find(|known| known.name == key);
        let known = known.ok_or("the library has no such option")?;
        let text = text.trim_ascii();
        if text != "off" && (known.set)(&mut Options::new(), text.as_bytes()).is_some() {
            return Ok(text.to_owned());
        }
        Err(format!("allowed: {}", known.allowed.trim_end_matches(", or off")))
    }
}

/// Every option and what is allowed, for --help.
pub fn help() -> String {
    let mut text = format!(
        "The environment variable {} sets options, divided by commas, as in {0}=decay=5s,hugepages=never; the \
         flags above are added to them:\n",
        parser::VARIABLE
    );
    let width = parser::KEYS.iter().map(|key| key.name.len()).max().unwrap_or(0);
    for key in &parser::KEYS {
        let mut line = format!("  {:width$} ", key.name);
        for word in key.allowed.split(' ') {
            if line.len() + 1 + word.len() > WIDTH {
                text.push_str(&line);
                line = format!("\n{:1$}", "", width + 3);
            }
            line.push(' ');
            line.push_str(word);
        }
        text.push_str(&line);
        text.push('\n');
    }
    text
}

/// Columns of the list, so that a folded line stands under its own column.
const WIDTH: usize = 96;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_librarys() {
        for (key, good) in [
            ("profile", &["64KiB", "64k", "1B", "1.5MiB", "2 GB", " 64KiB "][..]),
            ("map-every", &["500ms", "10s", "2min", "1h", "0.5s"]),
        ] {
            for text in good {
                assert!(value(key)(text).is_ok(), "{key}={text}");
            }
        }
        for text in ["64kb", "0.5B", "0B", "64", "off", "some", "", "64KiB,decay=0"] {
            assert_eq!(
                value("profile")(text).unwrap_err(),
                "allowed: the bytes between two samples (512KiB, 1B samples all)",
                "{text}"
            );
        }
        for text in ["1e1s", "99999h", "0.1ms", "0s", "soon", "10", "1s,trace=/x"] {
            assert!(
                value("map-every")(text).unwrap_err().starts_with("allowed: a time with its unit"),
                "{text}"
            );
        }
    }

    #[test]
    fn help_has_every_option() {
        let text = help();
        for key in &parser::KEYS {
            assert!(text.contains(&format!("\n  {}", key.name)), "{text}");
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let words = words.join(" ");
        for key in &parser::KEYS {
            assert!(words.contains(&format!("{} {}", key.name, key.allowed)), "{text}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_read_too() {
        let read = InForce::of(OsStr::from_bytes(b"decay=never,\xff=1"));
        assert_eq!(read.options, Options::new().decay(Decay::Never));
        assert_eq!(read.items, ["decay=never"]);
        assert_eq!(read.complaints.len(), 1);
        assert!(read.complaints[0].starts_with("spandrel: SPANDREL: unknown option `?`"));
    }

    #[test]
    fn the_later_of_two_items_counts() {
        let list = "decay=1s, hugepages=never,decay=soon,, decay =2s,colour=blue";
        let read = InForce::of(OsStr::new(list));
        assert_eq!(read.items, ["hugepages=never", "decay =2s"]);
        assert_eq!(read.complaints.len(), 2);
    }
}
