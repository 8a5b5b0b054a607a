//! The service: four routes over the [`Store`], heavy work handed to a rayon pool, `/metrics`,
//! `/debug/pprof/heap` and `/debug/leaks`. What a request allocates on the pool is put down to its route (`tags=on`).

use std::{num::NonZeroUsize, sync::Arc};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use rayon::{ThreadPool, ThreadPoolBuilder, prelude::*};
use serde::{Deserialize, Serialize};
use serde_json::json;
use spandrel::{Tag, tag};
use tokio::sync::oneshot;

use crate::{
    heap, leaks,
    store::{Absent, Document, Store},
    text::{self, CountSummary},
};

/// Larger bodies are refused.
const BODY_LIMIT: usize = 1 << 20;

/// What every route sees.
#[derive(Debug, Clone)]
pub struct Service {
    store: Arc<Store>,
    pool: Arc<ThreadPool>,
    tags: Tags,
}

/// Whom memory is put down to.
#[derive(Debug, Clone, Copy)]
struct Tags {
    insert: Tag,
    search: Tag,
    count: Tag,
}

impl Tags {
    fn new() -> Self {
        Self { insert: tag("insert"), search: tag("search"), count: tag("count") }
    }
}

impl Service {
    /// A service that keeps about `capacity` documents and works on `threads` pool threads.
    ///
    /// # Errors
    /// When the system refuses the threads.
    pub fn new(capacity: usize, threads: NonZeroUsize) -> Result<Self> {
        let pool = ThreadPoolBuilder::new()
            .num_threads(threads.get())
            .thread_name(|n| format!("pool-{n}"))
            .build()
            .context("cannot start the worker pool")?;
        Ok(Self { store: Arc::new(Store::new(capacity)), pool: Arc::new(pool), tags: Tags::new() })
    }

    /// Fills the store from serialised documents, in parallel, as a service does that loads its data when it starts.
    ///
    /// # Errors
    /// When one of them is not a document.
    pub fn preload(&self, documents: &[Bytes]) -> Result<()> {
        self.pool.install(|| {
            documents.par_iter().try_for_each(|json| {
                self.store.insert(serde_json::from_slice(json)?);
                Ok::<(), serde_json::Error>(())
            })
        })?;
        self.flush_pool();
        Ok(())
    }

    /// Has every thread of the pool give what it keeps free at hand to the others, as at the end of a large job:
    /// rayon has no hook for a thread that is about to sleep.
    pub fn flush_pool(&self) {
        self.pool.broadcast(|_| spandrel::flush_current_thread());
    }

    /// The store itself.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The routes.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/documents", post(insert))
            .route("/documents/{id}", get(document))
            .route("/search", get(search))
            .route("/count", post(count))
            .route("/metrics", get(crate::metrics::metrics))
            .route("/debug/pprof/heap", get(heap::read).post(heap::start).delete(heap::stop))
            .route("/debug/leaks", get(leaks::read).post(leaks::start).delete(leaks::stop))
            .layer(DefaultBodyLimit::max(BODY_LIMIT))
            .with_state(self.clone())
    }

    /// Runs `work` on the pool and waits for it without holding a tokio worker.
    async fn on_pool<T: Send + 'static>(
        &self,
        tag: Tag,
        work: impl FnOnce(&Store) -> Result<T, Refusal> + Send + 'static,
    ) -> Result<T, Refusal> {
        let (answer, waiting) = oneshot::channel();
        let store = Arc::clone(&self.store);
        self.pool.spawn(move || {
            let _tagged = tag.enter();
            // The client may have hung up: then nobody waits, and the answer is dropped here.
            let _ = answer.send(work(&store));
        });
        waiting.await.unwrap_or_else(|_| {
            Err(Refusal(
                StatusCode::INTERNAL_SERVER_ERROR,
                json!({ "error": "the work was abandoned" }),
            ))
        })
    }
}

/// An error answer: a status and a JSON body that says why.
#[derive(Debug)]
struct Refusal(StatusCode, serde_json::Value);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(self.1)).into_response()
    }
}

fn bad_request(why: &impl std::fmt::Display) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, json!({ "error": why.to_string() }))
}

/// Serialised where it was made: on the pool.
fn to_json(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    serde_json::to_vec(value)
        .map_err(|e| Refusal(StatusCode::INTERNAL_SERVER_ERROR, json!({ "error": e.to_string() })))
}

fn json_answer(status: StatusCode, body: Vec<u8>) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn insert(State(service): State<Service>, body: Bytes) -> Result<Response, Refusal> {
    let answer = service
        .on_pool(service.tags.insert, move |store| {
            let document: Document = serde_json::from_slice(&body).map_err(|e| bad_request(&e))?;
            to_json(&store.insert(document))
        })
        .await?;
    Ok(json_answer(StatusCode::CREATED, answer))
}

#[derive(Serialize)]
struct Held<'a> {
    id: u64,
    document: &'a Document,
}

async fn document(
    State(service): State<Service>,
    Path(id): Path<u64>,
) -> Result<Response, Refusal> {
    match service.store.get(id, |document| to_json(&Held { id, document })) {
        Ok(body) => Ok(json_answer(StatusCode::OK, body?)),
        Err(Absent::Gone { evicted }) => Err(Refusal(
            StatusCode::GONE,
            json!({ "error": "pushed out by newer documents", "evicted": evicted }),
        )),
        Err(Absent::Unknown) => {
            Err(Refusal(StatusCode::NOT_FOUND, json!({ "error": "no such document" })))
        }
    }
}

#[derive(Deserialize)]
struct SearchQuery {
    q: String,
}

async fn search(
    State(service): State<Service>,
    Query(SearchQuery { q }): Query<SearchQuery>,
) -> Result<Response, Refusal> {
    if !q.contains(char::is_alphanumeric) {
        return Err(bad_request(&"q holds no word"));
    }
    let answer =
        service.on_pool(service.tags.search, move |store| to_json(&store.search(&q))).await?;
    Ok(json_answer(StatusCode::OK, answer))
}

async fn count(State(service): State<Service>, body: Bytes) -> Result<Response, Refusal> {
    let answer = service
        .on_pool(service.tags.count, move |_| {
            let text = std::str::from_utf8(&body).map_err(|e| bad_request(&e))?;
            let paragraphs: Vec<&str> = text.split("\n\n").collect();
            let counts =
                paragraphs.into_par_iter().map(text::count).reduce(text::Counts::new, text::merge);
            to_json(&CountSummary::from(counts))
        })
        .await?;
    Ok(json_answer(StatusCode::OK, answer))
}
