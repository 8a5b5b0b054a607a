//! The load: a fixed number of requests over loopback connections, every answer verified.
//!
//! Closed loop: each connection sends its next request when the last answer is in. So a run is bounded by its request
//! count and cannot pile up work, and two allocators given the same count do the same work; the price is that latency
//! is measured without the queue an open loop would build while the service stalls.
//!
//! Request `n` is the same request in every run: its kind and its document are drawn from a generator seeded by `n`.
//! Only *which connection* sends it depends on timing, and with it which earlier document a GET or a search asks for.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use axum::body::Bytes;
use fastrand::Rng;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    corpus::Corpus,
    store::{Found, Inserted},
    text,
};

/// How many of its own documents a connection remembers and asks for again.
const RECENT: usize = 16;
/// A connection gives up after this many wrong answers.
const ERRORS_PER_CONNECTION: u64 = 8;
/// Latencies are kept to three digits between these, in nanoseconds.
const LATENCY_NS: (u64, u64) = (1_000, 60_000_000_000);

/// How much to send.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Requests in all.
    pub requests: u64,
    /// Connections they are sent over.
    pub connections: usize,
    /// Number of the first request: different ranges are different requests.
    pub first: u64,
    /// The longest the whole may take.
    pub deadline: Duration,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// Answers that came in time and were right.
    pub verified: u64,
    /// Among them, documents that had been pushed out of the store before they were asked for again.
    pub gone: u64,
    /// Wrong answers, and connections that broke.
    pub errors: u64,
    /// The first of them, in words.
    pub first_error: Option<String>,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from a request to its whole answer.
    pub latency: Histogram<u64>,
}

/// Counts requests as they are handed out, for whoever shows progress.
#[derive(Debug, Default)]
pub struct Progress(AtomicU64);

impl Progress {
    /// Requests handed out so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        // A display value; nothing is read on the strength of it.
        self.0.load(Ordering::Relaxed)
    }

    /// The next request's number, until there are `limit`.
    fn ticket(&self, limit: u64) -> Option<u64> {
        // Tickets only have to be different.
        Some(self.0.fetch_add(1, Ordering::Relaxed)).filter(|&n| n < limit)
    }
}

/// Sends the plan to a service at `address`.
///
/// # Errors
/// When the service cannot be reached, or the deadline passes. Wrong answers are counted in the outcome.
pub async fn run(
    address: SocketAddr,
    corpus: Arc<Corpus>,
    plan: Plan,
    progress: Arc<Progress>,
) -> Result<Outcome> {
    let work = async {
        let mut clients = JoinSet::new();
        for n in 0..plan.connections {
            let client = Client::connect(address, Arc::clone(&corpus), n).await?;
            clients.spawn(client.work(plan, Arc::clone(&progress)));
        }
        let started = Instant::now();
        let mut outcome = Outcome::new()?;
        while let Some(client) = clients.join_next().await {
            outcome.add(client.context("a client task died")?)?;
        }
        outcome.elapsed = started.elapsed();
        Ok(outcome)
    };
    match tokio::time::timeout(plan.deadline, work).await {
        Ok(outcome) => outcome,
        Err(_) => bail!(
            "the load did not end within {:?}: {} of {} requests were sent",
            plan.deadline,
            progress.sent().min(plan.requests),
            plan.requests
        ),
    }
}

impl Outcome {
    fn new() -> Result<Self> {
        Ok(Self {
            verified: 0,
            gone: 0,
            errors: 0,
            first_error: None,
            elapsed: Duration::ZERO,
            latency: Histogram::new_with_bounds(LATENCY_NS.0, LATENCY_NS.1, 3)?,
        })
    }

    fn add(&mut self, other: Self) -> Result<()> {
        self.verified += other.verified;
        self.gone += other.gone;
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(self.latency.add(other.latency)?)
    }

    fn record(&mut self, checked: Result<Answer>, took: Duration) {
        match checked {
            Ok(answer) => {
                self.verified += 1;
                self.gone += u64::from(answer == Answer::Gone);
                self.latency.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
            }
            Err(error) => {
                self.errors += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }
}

/// A right answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Full,
    /// The document was pushed out in the meantime, and the service proved it.
    Gone,
}

/// What a request asks for. The share of each is in [`Kind::of`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Insert,
    Fetch,
    Search,
    Count,
}

impl Kind {
    fn of(rng: &mut Rng) -> Self {
        match rng.u32(0..100) {
            0..35 => Self::Insert,
            35..65 => Self::Fetch,
            65..85 => Self::Search,
            _ => Self::Count,
        }
    }
}

/// One connection.
struct Client {
    sender: http1::SendRequest<Full<Bytes>>,
    corpus: Arc<Corpus>,
    /// Documents this connection has inserted: id, and index in the corpus.
    recent: VecDeque<(u64, usize)>,
    number: usize,
}

impl Client {
    async fn connect(address: SocketAddr, corpus: Arc<Corpus>, number: usize) -> Result<Self> {
        let stream = TcpStream::connect(address).await.context("cannot connect to the service")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends when `sender` is dropped; a broken connection shows up as an error of the request on it.
        tokio::spawn(connection);
        Ok(Self { sender, corpus, recent: VecDeque::with_capacity(RECENT + 1), number })
    }

    async fn work(mut self, plan: Plan, progress: Arc<Progress>) -> Outcome {
        let mut outcome = Outcome::new().expect("the bounds are constants");
        // Something to fetch and search for; not one of the plan's requests.
        let primed = self.insert(self.number % self.corpus.posts.len()).await;
        if let Err(error) = primed {
            outcome.record(Err(error.context("the first document")), Duration::ZERO);
            return outcome;
        }
        while let Some(n) = progress.ticket(plan.requests) {
            let mut rng = Rng::with_seed(plan.first + n);
            let started = Instant::now();
            let checked = match Kind::of(&mut rng) {
                Kind::Insert => self.insert(rng.usize(..self.corpus.posts.len())).await,
                Kind::Fetch => self.fetch(&mut rng).await,
                Kind::Search => self.search(&mut rng).await,
                Kind::Count => self.count(rng.usize(..self.corpus.chapters.len())).await,
            };
            outcome.record(checked, started.elapsed());
            if outcome.errors >= ERRORS_PER_CONNECTION || self.sender.is_closed() {
                break;
            }
        }
        outcome
    }

    async fn send(
        &mut self,
        method: Method,
        uri: &str,
        body: Bytes,
    ) -> Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .method(&method)
            .uri(uri)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))?;
        self.sender.ready().await.with_context(|| format!("{method} {uri}: no connection"))?;
        let response = self.sender.send_request(request).await;
        let response = response.with_context(|| format!("{method} {uri}: no answer"))?;
        let status = response.status();
        let body = response.into_body().collect().await;
        let body = body.with_context(|| format!("{method} {uri}: half an answer"))?;
        Ok((status, body.to_bytes()))
    }

    async fn insert(&mut self, index: usize) -> Result<Answer> {
        let corpus = Arc::clone(&self.corpus);
        let post = &corpus.posts[index];
        let (status, body) = self.send(Method::POST, "/documents", post.json.clone()).await?;
        expect(status, StatusCode::CREATED, "insert", &body)?;
        let answer: Inserted = serde_json::from_slice(&body).context("insert")?;
        ensure!(
            (answer.words, answer.distinct) == (post.words, post.distinct),
            "insert: {} words, {} distinct where the document has {} and {}",
            answer.words,
            answer.distinct,
            post.words,
            post.distinct
        );
        self.recent.push_back((answer.id, index));
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
        Ok(Answer::Full)
    }

    async fn fetch(&mut self, rng: &mut Rng) -> Result<Answer> {
        let (id, index) = self.recent[rng.usize(..self.recent.len())];
        let (status, body) =
            self.send(Method::GET, &format!("/documents/{id}"), Bytes::new()).await?;
        if status == StatusCode::GONE {
            return gone(id, &body);
        }
        expect(status, StatusCode::OK, "fetch", &body)?;
        let prefix = format!("{{\"id\":{id},\"document\":");
        let document =
            body.strip_prefix(prefix.as_bytes()).and_then(|rest| rest.strip_suffix(b"}"));
        ensure!(
            document == Some(&self.corpus.posts[index].json),
            "fetch: document {id} is not what was inserted: {}",
            excerpt(&body)
        );
        Ok(Answer::Full)
    }

    async fn search(&mut self, rng: &mut Rng) -> Result<Answer> {
        let (id, index) = self.recent[rng.usize(..self.recent.len())];
        let keywords = &self.corpus.posts[index].keywords;
        let mut query = vec![keywords[rng.usize(..keywords.len())].clone()];
        if rng.bool() {
            query.push(keywords[rng.usize(..keywords.len())].clone());
        }
        let uri = format!("/search?q={}", query.join("+"));
        let (status, body) = self.send(Method::GET, &uri, Bytes::new()).await?;
        expect(status, StatusCode::OK, "search", &body)?;
        let found: Found = serde_json::from_slice(&body).context("search")?;
        check_hits(&found, &query).with_context(|| format!("search for {query:?}"))?;
        if found.total > 0 {
            return Ok(Answer::Full);
        }
        // The words come from a document this connection inserted: nothing found means it was pushed out.
        let (status, body) =
            self.send(Method::GET, &format!("/documents/{id}"), Bytes::new()).await?;
        expect(
            status,
            StatusCode::GONE,
            "search: nothing found for a document that is held",
            &body,
        )?;
        gone(id, &body)
    }

    async fn count(&mut self, index: usize) -> Result<Answer> {
        let corpus = Arc::clone(&self.corpus);
        let chapter = &corpus.chapters[index];
        let (status, body) = self.send(Method::POST, "/count", chapter.text.clone()).await?;
        expect(status, StatusCode::OK, "count", &body)?;
        ensure!(body == chapter.answer, "count: chapter {index} miscounted: {}", excerpt(&body));
        Ok(Answer::Full)
    }
}

fn check_hits(found: &Found, query: &[String]) -> Result<()> {
    ensure!(found.query == query, "understood as {:?}", found.query);
    ensure!(
        found.hits.len() == found.total.min(10),
        "{} hits of {} shown",
        found.hits.len(),
        found.total
    );
    ensure!(found.hits.is_sorted_by(|a, b| (a.score, a.id) > (b.score, b.id)), "hits out of order");
    for hit in &found.hits {
        ensure!(
            text::words(&hit.snippet).any(|word| word == query[0]),
            "document {}: {:?} does not hold the word",
            hit.id,
            hit.snippet
        );
    }
    Ok(())
}

fn gone(id: u64, body: &[u8]) -> Result<Answer> {
    #[derive(Deserialize)]
    struct Gone {
        evicted: u64,
    }
    let Gone { evicted } = serde_json::from_slice(body).context("gone")?;
    ensure!(evicted >= id, "document {id} is said to be gone, but only up to {evicted} are");
    Ok(Answer::Gone)
}

fn expect(got: StatusCode, want: StatusCode, what: &str, body: &[u8]) -> Result<()> {
    ensure!(got == want, "{what}: answered {got} instead of {want}: {}", excerpt(body));
    Ok(())
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Hit;

    fn found(hits: &[(u64, u32, &str)]) -> Found {
        let hits: Vec<Hit> = hits
            .iter()
            .map(|&(id, score, snippet)| Hit {
                id,
                score,
                title: String::new(),
                snippet: snippet.to_owned(),
            })
            .collect();
        Found { query: vec!["whale".to_owned()], total: hits.len(), hits }
    }

    #[test]
    fn wrong_search_answers_are_told_from_right_ones() {
        let query = ["whale".to_owned()];
        let right = found(&[(7, 3, "The Whale!"), (9, 1, "a whale"), (2, 1, "whale")]);
        check_hits(&right, &query).unwrap();
        check_hits(&found(&[(7, 3, "The wale!")]), &query).unwrap_err();
        check_hits(&found(&[(7, 1, "whale"), (8, 2, "whale")]), &query).unwrap_err();
        check_hits(&found(&[(7, 1, "whale"), (7, 1, "whale")]), &query).unwrap_err();
        check_hits(&Found { total: 4, ..right.clone() }, &query).unwrap_err();
        check_hits(&right, &["sea".to_owned()]).unwrap_err();
    }

    #[test]
    fn a_document_is_gone_only_when_the_service_has_pushed_out_as_much() {
        assert_eq!(gone(5, br#"{"evicted":5}"#).unwrap(), Answer::Gone);
        gone(5, br#"{"evicted":4}"#).unwrap_err();
        gone(5, b"{}").unwrap_err();
    }
}
