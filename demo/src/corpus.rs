//! What is sent: public-domain text and JSON from `data/`, cut into documents and chapters, with the right answers.
//!
//! The right answers are worked out here, once, on one thread, before any load: what comes back over the wire is
//! compared with them.

use anyhow::{Context, Result, ensure};
use axum::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    store::Document,
    text::{self, CountSummary},
};

const MOBY_DICK: &str = include_str!("../data/moby-dick.jsonl");
const BROWSER_COMPAT: &str = include_str!("../data/browser-compat.json");

/// A document to post.
#[derive(Debug)]
pub struct Post {
    /// It, serialised: the request body, and byte for byte what a later GET must hold.
    pub json: Bytes,
    /// Words the service must report.
    pub words: u64,
    /// Different words the service must report.
    pub distinct: usize,
    /// Words of the body to search for.
    pub keywords: Vec<String>,
}

/// A text to have counted.
#[derive(Debug)]
pub struct Chapter {
    /// The request body.
    pub text: Bytes,
    /// Byte for byte the right answer.
    pub answer: Bytes,
}

/// Everything the load generator sends.
#[derive(Debug)]
pub struct Corpus {
    /// Paragraphs of the book and records of the compatibility data.
    pub posts: Vec<Post>,
    /// Chapters of the book.
    pub chapters: Vec<Chapter>,
}

impl Corpus {
    /// Reads what is compiled in.
    ///
    /// # Errors
    /// When the data files are damaged.
    pub fn load() -> Result<Self> {
        let chapters: Vec<BookChapter> = MOBY_DICK
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .context("data/moby-dick.jsonl")?;
        let compat: Value =
            serde_json::from_str(BROWSER_COMPAT).context("data/browser-compat.json")?;
        let mut documents = Vec::new();
        for chapter in &chapters {
            paragraphs(chapter, &mut documents);
        }
        records("", &compat, &mut documents);
        let posts = documents.iter().map(Post::new).collect::<Result<Vec<_>>>()?;
        let chapters = chapters.iter().map(Chapter::new).collect::<Result<Vec<_>>>()?;
        ensure!(posts.len() > 1000 && chapters.len() > 100, "the data files are cut short");
        Ok(Self { posts, chapters })
    }
}

#[derive(Deserialize)]
struct BookChapter {
    chapter: String,
    title: String,
    text: String,
}

impl Post {
    fn new(document: &Document) -> Result<Self> {
        let counts = text::merge(text::count(&document.body), text::count(&document.title));
        let mut keywords: Vec<String> =
            text::words(&document.body).filter(|word| word.len() > 4).collect();
        keywords.sort_unstable();
        keywords.dedup();
        keywords.truncate(8);
        if keywords.is_empty() {
            keywords.extend(text::words(&document.title).take(1));
        }
        ensure!(!keywords.is_empty(), "a document without words: {}", document.title);
        Ok(Self {
            json: serde_json::to_vec(document)?.into(),
            words: counts.values().map(|&n| u64::from(n)).sum(),
            distinct: counts.len(),
            keywords,
        })
    }
}

impl Chapter {
    fn new(chapter: &BookChapter) -> Result<Self> {
        let summary = CountSummary::from(text::count(&chapter.text));
        Ok(Self {
            text: Bytes::copy_from_slice(chapter.text.as_bytes()),
            answer: serde_json::to_vec(&summary)?.into(),
        })
    }
}

/// One document per paragraph of a chapter.
fn paragraphs(chapter: &BookChapter, documents: &mut Vec<Document>) {
    for (n, paragraph) in chapter.text.split("\n\n").filter(|p| p.len() > 20).enumerate() {
        documents.push(Document {
            title: format!("{}. {}", chapter.chapter, chapter.title),
            section: "moby-dick".to_owned(),
            tags: vec!["book".to_owned(), format!("chapter-{}", chapter.chapter)],
            body: paragraph.to_owned(),
            data: serde_json::json!({ "chapter": chapter.chapter, "paragraph": n }),
        });
    }
}

/// One document per feature of the compatibility data, its whole record kept as free JSON.
fn records(path: &str, node: &Value, documents: &mut Vec<Document>) {
    let Value::Object(fields) = node else { return };
    for (name, child) in fields {
        if name == "__compat" {
            let strings = |key: &str| -> Vec<String> {
                let values = child.get(key).and_then(Value::as_array);
                values.into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
            };
            let description = child.get("description").and_then(Value::as_str).unwrap_or_default();
            documents.push(Document {
                title: path.to_owned(),
                section: "browser-compat".to_owned(),
                tags: strings("tags"),
                body: format!("{path} {description}"),
                data: child.clone(),
            });
        } else {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            records(&path, child, documents);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_document_survives_a_round_trip_byte_for_byte() {
        let corpus = Corpus::load().unwrap();
        for post in &corpus.posts {
            let document: Document = serde_json::from_slice(&post.json).unwrap();
            assert_eq!(serde_json::to_vec(&document).unwrap(), post.json);
        }
    }

    #[test]
    fn both_sources_are_in() {
        let corpus = Corpus::load().unwrap();
        let of = |section: &str| {
            let mark = format!("\"section\":\"{section}\"");
            corpus
                .posts
                .iter()
                .filter(|p| std::str::from_utf8(&p.json).unwrap().contains(&mark))
                .count()
        };
        assert_eq!(corpus.chapters.len(), 136);
        assert!(of("moby-dick") > 2000, "{}", of("moby-dick"));
        assert!(of("browser-compat") > 500, "{}", of("browser-compat"));
    }
}
