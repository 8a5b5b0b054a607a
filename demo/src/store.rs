//! The documents in memory: a bounded number of them, sharded, each shard with its inverted index.
//!
//! Bounded, so that a long run has churn and no growth: every insertion beyond the capacity pushes the shard's oldest
//! document out, and frees on one thread what some other thread allocated thousands of requests ago.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::text::{self, Counts};

const SHARDS: usize = 8;
const HITS: usize = 10;
const SNIPPET_WORDS: usize = 12;

/// A document as clients send it and get it back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// Shown in search results.
    pub title: String,
    /// Where it comes from.
    pub section: String,
    /// Free labels.
    #[serde(default)]
    pub tags: Vec<String>,
    /// The text that is indexed.
    pub body: String,
    /// Anything else the client wants kept.
    #[serde(default)]
    pub data: Value,
}

/// What an insertion answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inserted {
    /// The new document's id.
    pub id: u64,
    /// Words indexed, title and body.
    pub words: u64,
    /// Different words indexed.
    pub distinct: usize,
}

/// One search result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hit {
    /// The document.
    pub id: u64,
    /// Occurrences of the query's words in it.
    pub score: u32,
    /// Its title.
    pub title: String,
    /// The text around the first occurrence of the query's first word.
    pub snippet: String,
}

/// What a search answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// The query as understood.
    pub query: Vec<String>,
    /// Documents that hold every word of the query.
    pub total: usize,
    /// The best of them, best first.
    pub hits: Vec<Hit>,
}

/// Why a document cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// No document ever had this id.
    Unknown,
    /// It was pushed out; so was everything in its shard up to this id.
    Gone {
        /// The newest id its shard has pushed out.
        evicted: u64,
    },
}

#[derive(Debug)]
struct Stored {
    document: Document,
    terms: Counts,
}

#[derive(Debug, Default)]
struct Shard {
    documents: HashMap<u64, Arc<Stored>>,
    order: VecDeque<u64>,
    /// Per word the documents that hold it, oldest first but for insertions that overtook each other: an eviction
    /// finds its document at or near the front.
    postings: HashMap<String, VecDeque<u64>>,
    evicted: Option<u64>,
}

impl Shard {
    /// Takes the oldest document out of the shard and its index. The caller drops it after unlocking.
    fn evict(&mut self) -> Option<Arc<Stored>> {
        let id = self.order.pop_front()?;
        let stored = self.documents.remove(&id)?;
        for term in stored.terms.keys() {
            if let Some(ids) = self.postings.get_mut(term) {
                if let Some(at) = ids.iter().position(|&other| other == id) {
                    ids.remove(at);
                }
                if ids.is_empty() {
                    self.postings.remove(term);
                }
            }
        }
        self.evicted = self.evicted.max(Some(id));
        Some(stored)
    }
}

/// The sharded, bounded store.
#[derive(Debug)]
pub struct Store {
    shards: Vec<RwLock<Shard>>,
    next: AtomicU64,
    per_shard: usize,
}

/// The shards' locks are held over plain map operations only; a panic in one of them is a bug worth stopping for.
const POISONED: &str = "a panic while a shard was locked";

impl Store {
    /// A store that keeps about `capacity` documents.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            next: AtomicU64::new(0),
            per_shard: capacity.div_ceil(SHARDS).max(1),
        }
    }

    #[allow(clippy::cast_possible_truncation)] // a remainder below SHARDS
    fn shard(&self, id: u64) -> &RwLock<Shard> {
        &self.shards[(id % SHARDS as u64) as usize]
    }

    /// Indexes and keeps a document, and pushes out the oldest of a full shard.
    ///
    /// # Panics
    /// When another thread panicked inside the store.
    pub fn insert(&self, document: Document) -> Inserted {
        let counts = text::merge(text::count(&document.body), text::count(&document.title));
        let words = counts.values().map(|&n| u64::from(n)).sum();
        let distinct = counts.len();
        // Ids only have to be different; the shard's lock orders everything that goes with one.
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let stored = Arc::new(Stored { document, terms: counts });
        let evicted = {
            let mut shard = self.shard(id).write().expect(POISONED);
            let evicted = if shard.order.len() >= self.per_shard { shard.evict() } else { None };
            for term in stored.terms.keys() {
                match shard.postings.get_mut(term) {
                    Some(ids) => ids.push_back(id),
                    None => {
                        shard.postings.insert(term.clone(), VecDeque::from([id]));
                    }
                }
            }
            shard.order.push_back(id);
            shard.documents.insert(id, stored);
            evicted
        };
        drop(evicted);
        Inserted { id, words, distinct }
    }

    /// Hands the document to `read`, outside the lock.
    ///
    /// # Errors
    /// When the store has no such document: never had, or has no more.
    ///
    /// # Panics
    /// When another thread panicked inside the store.
    pub fn get<T>(&self, id: u64, read: impl FnOnce(&Document) -> T) -> Result<T, Absent> {
        let stored = {
            let shard = self.shard(id).read().expect(POISONED);
            match (shard.documents.get(&id), shard.evicted) {
                (Some(stored), _) => Arc::clone(stored),
                (None, Some(evicted)) if id <= evicted => return Err(Absent::Gone { evicted }),
                (None, _) => return Err(Absent::Unknown),
            }
        };
        Ok(read(&stored.document))
    }

    /// The documents that hold every word of `query`, the best first; shards are searched in parallel.
    ///
    /// # Panics
    /// When another thread panicked inside the store.
    #[must_use]
    pub fn search(&self, query: &str) -> Found {
        let query: Vec<String> = text::words(query).collect();
        let (total, mut best) =
            self.shards.par_iter().map(|shard| search_shard(shard, &query)).reduce(
                || (0, Vec::new()),
                |mut left, mut right| {
                    left.0 += right.0;
                    left.1.append(&mut right.1);
                    left
                },
            );
        rank(&mut best);
        let hits = best
            .into_iter()
            .map(|(score, id, stored)| Hit {
                id,
                score,
                title: stored.document.title.clone(),
                snippet: snippet(&stored.document, &query[0]),
            })
            .collect();
        Found { query, total, hits }
    }

    /// Documents held now.
    ///
    /// # Panics
    /// When another thread panicked inside the store.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().expect(POISONED).order.len()).sum()
    }

    /// Whether it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

type Candidate = (u32, u64, Arc<Stored>);

/// The best first, newer first among equals, no more than an answer shows.
fn rank(candidates: &mut Vec<Candidate>) {
    candidates.sort_unstable_by_key(|&(score, id, _)| std::cmp::Reverse((score, id)));
    candidates.truncate(HITS);
}

fn search_shard(shard: &RwLock<Shard>, query: &[String]) -> (usize, Vec<Candidate>) {
    let shard = shard.read().expect(POISONED);
    let mut lists = Vec::with_capacity(query.len());
    for word in query {
        match shard.postings.get(word) {
            Some(ids) => lists.push(ids),
            None => return (0, Vec::new()),
        }
    }
    let Some(rarest) = lists.iter().min_by_key(|ids| ids.len()) else {
        return (0, Vec::new());
    };
    let mut found: Vec<Candidate> = rarest
        .iter()
        .filter_map(|id| {
            let stored = &shard.documents[id];
            let mut score = 0;
            for word in query {
                score += stored.terms.get(word)?;
            }
            Some((score, *id, Arc::clone(stored)))
        })
        .collect();
    let total = found.len();
    rank(&mut found);
    (total, found)
}

/// A few words around the first occurrence of `word` in the body, or the title when only that holds it.
fn snippet(document: &Document, word: &str) -> String {
    let tokens: Vec<&str> = document.body.split_whitespace().collect();
    let Some(at) = tokens.iter().position(|token| text::words(token).any(|w| w == word)) else {
        return document.title.clone();
    };
    let from = at.saturating_sub(SNIPPET_WORDS / 2);
    tokens[from..tokens.len().min(from + SNIPPET_WORDS)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(n: u64) -> Document {
        Document {
            title: format!("Chapter {n}"),
            section: "test".to_owned(),
            tags: vec![],
            body: format!("The whale number{n} and the sea."),
            data: Value::Null,
        }
    }

    #[test]
    fn the_oldest_documents_leave_the_store_and_its_index() {
        let store = Store::new(SHARDS);
        for n in 0..3 * SHARDS as u64 {
            assert_eq!(store.insert(document(n)).id, n);
        }
        assert_eq!(store.len(), SHARDS);
        assert_eq!(store.get(0, Document::clone), Err(Absent::Gone { evicted: SHARDS as u64 }));
        assert_eq!(store.get(999, Document::clone), Err(Absent::Unknown));
        let last = 3 * SHARDS as u64 - 1;
        assert_eq!(store.get(last, Document::clone), Ok(document(last)));
        assert_eq!(store.search("number0").total, 0);
        assert_eq!(store.search(&format!("Whale NUMBER{last}")).hits[0].id, last);
        let all = store.search("the");
        assert_eq!((all.total, all.hits[0].score), (SHARDS, 2));
        let terms = store.shards.iter().map(|s| s.read().unwrap().postings.len()).sum::<usize>();
        assert_eq!(terms, SHARDS * 7, "evicted documents must leave no postings behind");
    }

    #[test]
    fn a_snippet_holds_the_word_it_was_cut_for() {
        let store = Store::new(64);
        store.insert(document(1));
        assert_eq!(store.search("sea").hits[0].snippet, "The whale number1 and the sea.");
        assert_eq!(store.search("chapter").hits[0].snippet, "Chapter 1");
        assert_eq!(store.search("").total, 0);
    }
}
