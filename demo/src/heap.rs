//! `/debug/pprof/heap`: the heap profile of the running service.
//!
//! `GET` answers what was sampled so far: for `go tool pprof http://HOST/debug/pprof/heap` and all else that reads its
//! format, or with `?format=svg` a flame graph for the browser, of what is in use (`&figure=allocated`, `peak`: of that). `POST` starts a profile (`?interval=`, bytes between two
//! samples), `DELETE` stops it; what it holds can then still be fetched. On another allocator than Spandrel it stays
//! empty.

use axum::{
    extract::Query,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use spandrel::{observe::pprof::Figure, profile};

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Pprof,
    Svg,
}

/// What the client asks for.
#[derive(Debug, Deserialize)]
pub struct HeapQuery {
    #[serde(default)]
    format: Format,
    #[serde(default)]
    figure: Shown,
}

/// What a flame graph shows; pprof chooses by itself.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Shown {
    #[default]
    InUse,
    Allocated,
    Peak,
}

/// `GET`: the profile so far.
pub async fn read(
    Query(HeapQuery { format, figure }): Query<HeapQuery>,
    headers: HeaderMap,
) -> Response {
    let figure = match figure {
        Shown::InUse => Figure::InUse,
        Shown::Allocated => Figure::Allocated,
        Shown::Peak => Figure::Peak,
    };
    let start = how_to_start(&headers, "/debug/pprof/heap");
    // Names are looked up in the program's file, which takes a while: not on a thread that serves others.
    let written = tokio::task::spawn_blocking(move || {
        let profile = profile::snapshot();
        if profile.samples == 0 && profile::is_on() {
            let every = profile.interval;
            return Err(format!(
                "the heap profile is on and has no sample yet: it takes one every {every} bytes on average"
            ));
        }
        if profile.samples == 0 {
            return Err(format!(
                "no heap profile: {start} starts one, of what is allocated from then on"
            ));
        }
        match format {
            Format::Pprof => Ok(profile.pprof()),
            Format::Svg => {
                let mut svg = Vec::new();
                let drawn = profile.flame_graph(figure, &mut svg);
                drawn.map(|()| svg).map_err(|error| error.to_string())
            }
        }
    });
    let kind = match format {
        Format::Pprof => "application/octet-stream",
        Format::Svg => "image/svg+xml",
    };
    match written.await {
        Ok(Ok(body)) => ([(header::CONTENT_TYPE, kind)], body).into_response(),
        Ok(Err(why)) => (StatusCode::NOT_FOUND, why).into_response(),
        Err(died) => (StatusCode::INTERNAL_SERVER_ERROR, died.to_string()).into_response(),
    }
}

/// The command that starts what `path` answers, with the address the client asked.
pub(crate) fn how_to_start(headers: &HeaderMap, path: &str) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("HOST");
    format!("`curl -X POST http://{host}{path}`")
}

/// Where samples are taken.
#[derive(Debug, Deserialize)]
pub struct StartQuery {
    interval: Option<usize>,
}

/// `POST`: a new profile begins.
pub async fn start(Query(StartQuery { interval }): Query<StartQuery>) -> Response {
    match profile::start(interval.unwrap_or(profile::INTERVAL)) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => (StatusCode::INSUFFICIENT_STORAGE, error.to_string()).into_response(),
    }
}

/// `DELETE`: the profile ends.
pub async fn stop() -> StatusCode {
    profile::stop();
    StatusCode::NO_CONTENT
}
