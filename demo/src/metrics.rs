//! `/metrics`: what the allocator says of itself, in four forms.
//!
//! `?format=text` for people, `json`, `prometheus` (the default, Spandrel's own writer), and `recorder`: the same
//! series by way of the `metrics` crate and its Prometheus exporter, as a service that has one anyway would do it.
//! On another allocator than Spandrel all of it is zero.

use std::sync::OnceLock;

use axum::{
    extract::Query,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde::Deserialize;

/// How the answer is written.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    Text,
    Json,
    #[default]
    Prometheus,
    Recorder,
}

/// What the client asks for.
#[derive(Debug, Deserialize)]
pub struct MetricsQuery {
    #[serde(default)]
    format: Format,
}

/// The route. Reading a snapshot stops no thread.
pub async fn metrics(Query(MetricsQuery { format }): Query<MetricsQuery>) -> Response {
    let stats = spandrel::stats();
    let (kind, body) = match format {
        Format::Text => ("text/plain; charset=utf-8", stats.to_string()),
        Format::Json => match serde_json::to_string(&stats) {
            Ok(json) => ("application/json", json),
            Err(error) => return refuse(&error),
        },
        Format::Prometheus => {
            ("text/plain; version=0.0.4", spandrel::Prometheus(&stats).to_string())
        }
        Format::Recorder => match recorder() {
            Ok(handle) => {
                spandrel::publish(&stats);
                ("text/plain; version=0.0.4", handle.render())
            }
            Err(error) => return refuse(&error),
        },
    };
    ([(header::CONTENT_TYPE, kind)], body).into_response()
}

fn refuse(error: &impl std::fmt::Display) -> Response {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response()
}

/// The process's recorder, installed with the first request for it.
fn recorder() -> Result<&'static PrometheusHandle, &'static str> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| PrometheusBuilder::new().install_recorder().ok());
    handle.as_ref().ok_or("another recorder is installed")
}
