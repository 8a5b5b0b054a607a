//! Group 9: what real programs do, with the libraries they do it with, on real text.

pub(super) mod json;
pub(super) mod patterns;
pub(super) mod service;
pub(super) mod source;
pub(super) mod text;

/// *Moby-Dick*: a JSON object per chapter, one per line.
const MOBY_DICK: &str = include_str!("../../../../../../demo/data/moby-dick.jsonl");
/// Deeply nested records of which browser supports what since when.
const BROWSER_COMPAT: &str = include_str!("../../../../../../demo/data/browser-compat.json");
