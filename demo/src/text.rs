//! Words: the one definition that indexing, searching and counting share.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

/// How many of the most frequent words a count answers with.
const TOP: usize = 25;

/// How many of each word a text holds. Owned `String` keys, as services write it.
pub type Counts = HashMap<String, u32>;

/// The words of `text` in order, lower-cased: runs of alphanumeric characters.
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

/// Counts the words of `text` on the calling thread.
#[must_use]
pub fn count(text: &str) -> Counts {
    let mut counts = Counts::new();
    for word in words(text) {
        *counts.entry(word).or_insert(0) += 1;
    }
    counts
}

/// Adds the smaller of two counts to the larger.
#[must_use]
pub fn merge(left: Counts, right: Counts) -> Counts {
    let (mut into, from) = if left.len() < right.len() { (right, left) } else { (left, right) };
    for (word, n) in from {
        *into.entry(word).or_insert(0) += n;
    }
    into
}

/// The answer to a word count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountSummary {
    /// Words in all.
    pub words: u64,
    /// Different words.
    pub distinct: usize,
    /// The most frequent words, most frequent first, ties in alphabetical order.
    pub top: Vec<(String, u32)>,
}

impl From<Counts> for CountSummary {
    fn from(counts: Counts) -> Self {
        let words = counts.values().map(|&n| u64::from(n)).sum();
        let distinct = counts.len();
        let mut top: Vec<_> = counts.into_iter().collect();
        top.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        top.truncate(TOP);
        Self { words, distinct, top }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_alphanumeric_runs() {
        let got: Vec<_> = words("Call me Ishmael. Some years ago--never mind; 1851!").collect();
        assert_eq!(got, ["call", "me", "ishmael", "some", "years", "ago", "never", "mind", "1851"]);
    }

    #[test]
    fn counting_in_parts_and_merging_equals_counting_at_once() {
        let (left, right) = ("the whale the sea", "the ship, a whale");
        let whole = CountSummary::from(count("the whale the sea the ship, a whale"));
        let parts = CountSummary::from(merge(count(left), count(right)));
        assert_eq!(whole, parts);
        assert_eq!(whole.words, 8);
        assert_eq!(whole.distinct, 5);
        assert_eq!(whole.top[..2], [("the".to_owned(), 3), ("whale".to_owned(), 2)]);
    }
}
