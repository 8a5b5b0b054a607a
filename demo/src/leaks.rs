//! `/debug/leaks`: what is live in the running service, by where it was allocated, and what of it is lost.
//!
//! `POST` begins to keep where blocks are allocated, `DELETE` ends it, `GET` answers what of them is live. On another
//! allocator than Spandrel nothing is ever seen.

use axum::{
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};

/// `GET`: what is live and was allocated since the watch began.
pub async fn read(headers: HeaderMap) -> Response {
    // Every other thread is held still for the moment, and names are looked up in files.
    let found = tokio::task::spawn_blocking(|| spandrel::leaks().map(|leaks| leaks.text(false)));
    match found.await {
        Ok(Ok(text)) => text.into_response(),
        Ok(Err(why)) => {
            let start = crate::heap::how_to_start(&headers, "/debug/leaks");
            (StatusCode::NOT_FOUND, format!("{why}; here {start} does")).into_response()
        }
        Err(died) => (StatusCode::INTERNAL_SERVER_ERROR, died.to_string()).into_response(),
    }
}

/// `POST`: the watch begins.
pub async fn start() -> StatusCode {
    spandrel::watch_leaks(true);
    StatusCode::NO_CONTENT
}

/// `DELETE`: the watch ends.
pub async fn stop() -> StatusCode {
    spandrel::watch_leaks(false);
    StatusCode::NO_CONTENT
}
