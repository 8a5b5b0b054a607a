//! The service under a small load, in this process, on Spandrel: every answer is compared with the right one.

use std::{num::NonZeroUsize, sync::Arc, sync::Mutex};

use axum::{
    body::{Body, Bytes},
    http::{Method, Request, StatusCode},
};
use clap::Parser;
use demo::{
    corpus::Corpus,
    report::Line,
    service::Service,
    service_main::{Config, serve_and_load},
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;

#[global_allocator]
static ALLOCATOR: spandrel::Spandrel = spandrel::Spandrel;

fn config(arguments: &[&str]) -> Config {
    Config::parse_from(["svc-test"].iter().chain(arguments))
}

#[test]
fn a_small_load_is_answered_rightly_and_measured() {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let heard = Arc::clone(&lines);
    let config = config(&[
        "--requests",
        "2000",
        "--warm-up",
        "200",
        "--threads",
        "2",
        "--capacity",
        "1024",
        "--settle-ms",
        "0",
    ]);
    let snapshot = || Some(spandrel::stats().to_string());
    let result = serve_and_load("spandrel", &config, snapshot, move |line| {
        heard.lock().unwrap().push(line.clone());
        Ok(())
    })
    .unwrap();
    assert_eq!(result.requests, 2000);
    assert_eq!(result.documents, 1024, "the store stays within its bound");
    assert!(result.throughput > 0.0 && result.seconds > 0.0);
    assert!(result.p50_us > 0.0 && result.p50_us <= result.p99_us);
    assert!(result.p99_us <= result.p999_us && result.p999_us <= result.max_us);
    assert!(result.peak_rss_kib >= result.loaded_rss_kib && result.final_rss_kib > 0);
    assert!(result.snapshot_loaded.is_some_and(|text| !text.is_empty()));
    let lines = lines.lock().unwrap();
    assert!(matches!(lines.last(), Some(Line::Result(_))), "{lines:?}");
    assert!(lines.iter().any(|line| matches!(line, Line::Progress { .. })));
}

#[test]
fn a_load_that_runs_out_of_time_fails() {
    let config = config(&[
        "--requests",
        "100000000",
        "--deadline",
        "1",
        "--warm-up",
        "0",
        "--capacity",
        "512",
    ]);
    let error = serve_and_load("spandrel", &config, || None, |_| Ok(())).unwrap_err().to_string();
    assert!(error.contains("did not end within 1s"), "{error}");
}

async fn ask(service: &Service, method: Method, uri: &str, body: Body) -> (StatusCode, Value) {
    let request = Request::builder().method(method).uri(uri).body(body).unwrap();
    let response = service.router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn service(capacity: usize) -> Service {
    Service::new(capacity, NonZeroUsize::new(2).unwrap()).unwrap()
}

#[tokio::test]
async fn documents_come_back_as_they_went_in() {
    let service = service(64);
    let document = json!({
        "title": "Loomings", "section": "book", "tags": ["whale"],
        "body": "Call me Ishmael.", "data": { "nested": [1, -2.5, null, { "deep": "é" }] },
    });
    let (status, inserted) =
        ask(&service, Method::POST, "/documents", document.to_string().into()).await;
    assert_eq!(
        (status, &inserted),
        (StatusCode::CREATED, &json!({ "id": 0, "words": 4, "distinct": 4 }))
    );
    let (status, held) = ask(&service, Method::GET, "/documents/0", Body::empty()).await;
    assert_eq!((status, held), (StatusCode::OK, json!({ "id": 0, "document": document })));
    let (status, found) = ask(&service, Method::GET, "/search?q=ISHMAEL+call", Body::empty()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        found,
        json!({
            "query": ["ishmael", "call"], "total": 1,
            "hits": [{ "id": 0, "score": 2, "title": "Loomings", "snippet": "Call me Ishmael." }],
        })
    );
}

#[tokio::test]
async fn words_are_counted_on_the_pool() {
    let text = "The whale.\n\nThe white whale!\n\nthe SEA";
    let (status, counted) = ask(&service(64), Method::POST, "/count", text.into()).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        counted,
        json!({
            "words": 7, "distinct": 4,
            "top": [["the", 3], ["whale", 2], ["sea", 1], ["white", 1]],
        })
    );
}

#[tokio::test]
async fn bad_requests_are_refused_with_a_reason() {
    let service = service(64);
    for (method, uri, body, status) in [
        (Method::POST, "/documents", "{\"title\":", StatusCode::BAD_REQUEST),
        (Method::POST, "/documents", "{\"title\":1}", StatusCode::BAD_REQUEST),
        (Method::GET, "/documents/77", "", StatusCode::NOT_FOUND),
        (Method::GET, "/search?q=%2C", "", StatusCode::BAD_REQUEST),
    ] {
        let (got, answer) = ask(&service, method, uri, body.into()).await;
        assert_eq!(got, status, "{uri} {body}");
        assert!(answer["error"].as_str().is_some_and(|why| !why.is_empty()), "{uri}: {answer}");
    }
    let (status, _) =
        ask(&service, Method::POST, "/count", Bytes::from_static(b"\xff").into()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = ask(&service, Method::POST, "/count", vec![b'a'; 2 << 20].into()).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn a_document_that_was_pushed_out_is_gone() {
    let service = service(64);
    let posts = Corpus::load().unwrap().posts;
    let documents: Vec<_> = posts.into_iter().take(200).map(|post| post.json).collect();
    service.preload(&documents).unwrap();
    assert_eq!(service.store().len(), 64);
    let (status, answer) = ask(&service, Method::GET, "/documents/0", Body::empty()).await;
    assert_eq!(status, StatusCode::GONE);
    assert!(answer["evicted"].as_u64().is_some());
}

/// The allocator's account of itself, in every form that `/metrics` has.
#[tokio::test]
async fn metrics_in_four_forms() {
    let service = Service::new(512, NonZeroUsize::MIN).unwrap();
    let get = async |path: &str| {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let answer = service.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    let value = |text: &str, name: &str| -> f64 {
        let line = text.lines().find(|line| line.split(' ').next() == Some(name));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}"))
            .split(' ')
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    };
    let (status, prometheus) = get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let (_, recorder) = get("/metrics?format=recorder").await;
    for text in [&prometheus, &recorder] {
        let live = value(text, "spandrel_live_bytes");
        assert!(live > 0.0 && live < value(text, "spandrel_mapped_bytes"), "{text}");
        assert!(value(text, "spandrel_os_maps_total") > 0.0);
        assert!(
            text.lines().any(|line| line.starts_with("spandrel_class_live_objects{size=\"64\"} "))
        );
        let occupancy = value(text, "spandrel_class_occupancy_ratio{size=\"64\"}");
        assert!(occupancy > 0.0 && occupancy <= 1.0, "{text}");
        assert_eq!(value(text, "spandrel_limit_hard_bytes"), 0.0);
    }
    let (_, text) = get("/metrics?format=text").await;
    assert!(text.contains("free in spans") && text.contains("occupancy"));
    let (_, body) = get("/metrics?format=json").await;
    let json: Value = serde_json::from_str(&body).unwrap();
    assert!(
        json["live"].as_u64().unwrap() > 0 && json["floors"]["os"]["nanos"].as_u64().unwrap() > 0
    );
    for class in json["classes"].as_array().unwrap() {
        assert_ne!(class["spans"], json!(0));
        let (live, occupancy) =
            (class["live"].as_u64().unwrap(), class["occupancy"].as_f64().unwrap());
        assert_eq!(live == 0, occupancy == 0.0, "{class}");
        assert!((0.0..=1.0).contains(&class["fragmentation"].as_f64().unwrap()), "{class}");
    }
    let (status, _) = get("/metrics?format=xml").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

/// A profile is started, fetched as pprof reads it and as a picture, and stopped, while the service serves.
#[tokio::test]
async fn a_heap_profile() {
    let service = Service::new(1024, NonZeroUsize::new(2).unwrap()).unwrap();
    let router = service.router();
    let ask = |method: Method, uri: &'static str, body: &'static str| {
        let request = Request::builder().method(method).uri(uri).body(Body::from(body)).unwrap();
        let router = router.clone();
        async move {
            let answer = router.oneshot(request).await.unwrap();
            let status = answer.status();
            (status, answer.into_body().collect().await.unwrap().to_bytes())
        }
    };
    let heap = "/debug/pprof/heap";
    let (status, why) = ask(Method::GET, heap, "").await;
    assert_eq!(
        (status, &why[..]),
        (
            StatusCode::NOT_FOUND,
            &b"no heap profile: `curl -X POST http://HOST/debug/pprof/heap` starts one, of what is allocated from \
               then on"[..]
        )
    );
    // The largest interval there is, which nothing here reaches.
    let far = "/debug/pprof/heap?interval=1099511627776";
    assert_eq!(ask(Method::POST, far, "").await.0, StatusCode::NO_CONTENT);
    let (status, why) = ask(Method::GET, heap, "").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let why = String::from_utf8(why.to_vec()).unwrap();
    assert!(why.starts_with("the heap profile is on and has no sample yet"), "{why}");
    assert_eq!(
        ask(Method::POST, "/debug/pprof/heap?interval=1", "").await.0,
        StatusCode::NO_CONTENT
    );
    let text = "one two three\n\ntwo three\n\nthree";
    assert_eq!(ask(Method::POST, "/count", text).await.0, StatusCode::OK);
    let (status, gzip) = ask(Method::GET, heap, "").await;
    assert_eq!((status, &gzip[..2]), (StatusCode::OK, &[0x1f, 0x8b][..]));
    assert_eq!(ask(Method::DELETE, heap, "").await.0, StatusCode::NO_CONTENT);
    // What was sampled can still be fetched.
    let (status, svg) = ask(Method::GET, "/debug/pprof/heap?format=svg&figure=allocated", "").await;
    let svg = String::from_utf8(svg.to_vec()).unwrap();
    assert!(status == StatusCode::OK && svg.contains("demo::service"), "{svg}");
    assert_eq!(
        ask(Method::GET, "/debug/pprof/heap?format=pdf", "").await.0,
        StatusCode::BAD_REQUEST
    );
}
