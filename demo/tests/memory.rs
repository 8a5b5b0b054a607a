//! The service says where its memory is: by route, and what of it is lost.

use std::{hint::black_box, num::NonZeroUsize};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use demo::service::Service;
use http_body_util::BodyExt;
use tower::ServiceExt;

#[global_allocator]
static A: spandrel::Spandrel = spandrel::Spandrel;

const LOST: usize = 77_777;

/// A bug: the only pointer to a block is given up.
#[inline(never)]
fn lose_one() {
    black_box(Box::leak(vec![1u8; LOST].into_boxed_slice()).len());
}

/// What dead frames may have left below this one.
#[inline(never)]
fn wipe() {
    black_box([0u8; 32 << 10]);
}

async fn ask(service: &Service, method: Method, uri: &str, body: &str) -> (StatusCode, String) {
    let request =
        Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
    let answer = service.router().oneshot(request).await.unwrap();
    let status = answer.status();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn by_route_and_what_is_lost() {
    spandrel::count_tags(true);
    let service = Service::new(1024, NonZeroUsize::new(2).unwrap()).unwrap();
    assert_eq!(ask(&service, Method::GET, "/debug/leaks", "").await.0, StatusCode::NOT_FOUND);
    assert_eq!(ask(&service, Method::POST, "/debug/leaks", "").await.0, StatusCode::NO_CONTENT);

    let text = "a word ".repeat(2000);
    let document =
        serde_json::json!({ "title": "one", "section": "here", "body": text }).to_string();
    let (status, answer) = ask(&service, Method::POST, "/documents", &document).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    assert_eq!(ask(&service, Method::POST, "/count", "one two").await.0, StatusCode::OK);

    // The document stays, what was counted is gone.
    let of = |name: &str| spandrel::tags().into_iter().find(|tag| tag.name == name).unwrap();
    assert!(of("insert").live >= text.len(), "{:?}", of("insert"));
    let count = of("count");
    assert!(count.peak > 0 && count.live < count.peak, "{count:?}");
    let (_, metrics) = ask(&service, Method::GET, "/metrics", "").await;
    assert!(metrics.contains("spandrel_tag_live_bytes{tag=\"insert\"}"), "{metrics}");

    lose_one();
    wipe();
    let (status, leaks) = ask(&service, Method::GET, "/debug/leaks", "").await;
    assert_eq!(status, StatusCode::OK);
    let lost = leaks.split("\n\n").find(|part| part.starts_with("lost: ")).unwrap_or_default();
    assert!(lost.contains("1 block of 77,777 bytes") && lost.contains("lose_one"), "{leaks}");
    assert!(leaks.lines().next().unwrap().contains("can still be reached"), "{leaks}");
    assert_eq!(ask(&service, Method::DELETE, "/debug/leaks", "").await.0, StatusCode::NO_CONTENT);
    spandrel::count_tags(false);
}
