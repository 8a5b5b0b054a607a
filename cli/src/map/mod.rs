//! `spandrel map`: what a map file says, in words and as a page that shows it.

pub mod file;
mod words;

use crate::written::quietly;
use anyhow::{Context, Result, ensure};
use file::Map;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Explain map files of a program, and draw them as one page that needs no network.
///
/// `spandrel run --map FILE` writes them, SIGUSR2 to such a program adds a snapshot, and so does a call of
/// `spandrel::write_map` or `spandrel_write_map`. Several snapshots, in one file or several, play as a
/// film. Without -o the newest is explained on the terminal.
#[derive(clap::Args)]
pub struct Arguments {
    /// The maps, all of one program.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write the page here.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Take what is whole of a file that was cut off.
    #[arg(long)]
    partial: bool,
}

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// Reads, explains, draws.
pub fn map(arguments: &Arguments) -> Result<ExitCode> {
    let mut map: Option<Map> = None;
    for path in &arguments.files {
        let next = Map::open(path, arguments.partial)?;
        match &mut map {
            None => map = Some(next),
            Some(map) => {
                let same =
                    map.head.classes == next.head.classes && map.head.window == next.head.window;
                ensure!(
                    same,
                    "{}: of another build of the allocator than the first file",
                    path.display()
                );
                map.stacks.extend(next.stacks);
                map.tags.extend(next.tags);
                map.maps.extend(next.maps);
                map.snapshots.extend(next.snapshots);
            }
        }
    }
    let mut map = map.context("no map")?;
    map.snapshots.sort_by_key(|snapshot| (snapshot.time_ms, snapshot.number));
    let Some(path) = &arguments.output else {
        let newest = map.snapshots.last().context("the file has no snapshot yet")?;
        let lines = words::of(&map, &map.names(), newest).lines.join("\n");
        let mut out = std::io::stdout().lock();
        quietly(writeln!(out, "process {}: {}\n{lines}", map.head.pid, map.head.command))?;
        return Ok(ExitCode::SUCCESS);
    };
    std::fs::write(path, page(&map)?).with_context(|| format!("-o {}", path.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// The page: everything in one file.
fn page(map: &Map) -> Result<String> {
    let names = map.names();
    let words: Vec<words::Words> =
        map.snapshots.iter().map(|snapshot| words::of(map, &names, snapshot)).collect();
    let lines = |one: &words::Use| {
        let site = |site| words::site(map, &names, one, site);
        one.sites.iter().take(5).map(site).collect::<Vec<String>>()
    };
    let sites: Vec<Vec<Vec<String>>> =
        words.iter().map(|words| words.uses.iter().map(lines).collect()).collect();
    let data = serde_json::json!({ "map": map, "words": words, "sites": sites });
    // Inside a script element, no text may close it.
    let data = serde_json::to_string(&data)?.replace('<', "\\u003c");
    Ok(PAGE.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT).replace("/*DATA*/", &data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_holds_all_of_it_and_loads_nothing() {
        let mut map = Map::read(file::forge::file().as_bytes()).0.unwrap();
        map.head.command = "</script><script>alert(1)</script>".to_owned();
        let page = page(&map).unwrap();
        assert!(!page.contains("<script>alert"), "a command's text closes no element");
        assert!(page.contains("tenant-a") && page.contains("prog+0x1310"));
        for loads in ["http://", "https://", "src=", "@import", "url("] {
            assert!(!page.contains(loads), "{loads}");
        }
        assert!(
            !page.contains("/*DATA*/")
                && !page.contains("/*STYLE*/")
                && !page.contains("/*SCRIPT*/")
        );
    }
}
