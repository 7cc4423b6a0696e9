//! What is sent again, after which wait, and when nothing is sent at all.

use std::time::{Duration, Instant, SystemTime};

use http::Method;
use wharf_connectors::http::{Breaker, Config, Origin};
use wharf_connectors::{Common, Content, Error, ErrorKind};

use crate::{answer, answering, common, config, get, open, request, send, server, streamed, text, try_with};

/// An origin whose requests are tried three times.
fn patient(config: Config) -> Origin {
    try_with(config, &Common { retries: 2, ..common() }).unwrap()
}

#[tokio::test]
async fn an_idempotent_request_is_sent_again_until_it_is_answered() {
    for status in [429, 502, 503, 504] {
        let (url, seen) = answering(move |before, heard| match before {
            0 | 1 => answer(status, &[], "not now"),
            _ => answer(200, &[], &heard.body),
        })
        .await;
        let answered = send(&patient(config(&url)), request(Method::PUT, "/", "all of it")).await.unwrap();
        assert_eq!(text(answered).await, "all of it", "{status}");
        assert_eq!(seen.lines().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn what_is_not_safe_to_repeat_is_sent_once() {
    let (url, seen) = answering(|_, _| answer(503, &["retry-after: 0"], "")).await;
    let origin = patient(config(&url));
    assert_eq!(send(&origin, request(Method::POST, "/post", "x")).await.unwrap().status, 503);
    assert_eq!(send(&origin, request(Method::PATCH, "/patch", "x")).await.unwrap().status, 503);
    let mut streaming = request(Method::PUT, "/stream", "");
    streaming.content = streamed("once");
    assert_eq!(send(&origin, streaming).await.unwrap().status, 503);
    assert_eq!(seen.lines(), ["POST /post", "PATCH /patch", "PUT /stream"]);
}

#[tokio::test]
async fn the_last_answer_is_given_when_the_tries_are_used_up() {
    let (url, seen) = answering(|before, _| answer(503, &["retry-after: 0"], &format!("no. {before}"))).await;
    let answered = get(&patient(config(&url)), "/").await.unwrap();
    assert_eq!(answered.status, 503);
    assert_eq!(text(answered).await, "no. 2");
    assert_eq!(seen.lines().len(), 3);
}

#[tokio::test]
async fn the_wait_is_the_one_that_the_server_asks_for() {
    for asked in [|| "1".to_owned(), || httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2))] {
        let asked = format!("retry-after: {}", asked());
        let (url, _) = answering(move |before, _| match before {
            0 => answer(429, &[&asked], ""),
            _ => answer(200, &[], ""),
        })
        .await;
        let started = Instant::now();
        assert_eq!(get(&patient(config(&url)), "/").await.unwrap().status, 200);
        assert!(started.elapsed() >= Duration::from_millis(900), "{:?}", started.elapsed());
    }
    // A wait beyond the budget is the caller's to decide about.
    let (url, seen) = answering(|_, _| answer(503, &["retry-after: 3600"], "")).await;
    let started = Instant::now();
    assert_eq!(get(&patient(config(&url)), "/").await.unwrap().status, 503);
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(seen.lines().len(), 1);
}

#[tokio::test]
async fn what_became_of_an_earlier_try_is_told_when_the_last_one_reaches_nobody() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let once = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // From here on nobody listens.
        drop(listener);
        crate::read_until(&mut stream, b"\r\n\r\n").await;
    });
    let error = send(&patient(config(&url)), request(Method::PUT, "/order", "x")).await.unwrap_err();
    once.await.unwrap();
    let message = error.to_string();
    assert!(message.contains("cannot connect"), "{message}");
    assert!(message.ends_with("it may have happened, so look before you repeat it"), "{message}");
}

#[tokio::test]
async fn no_try_is_waited_for_that_would_come_when_the_caller_is_gone() {
    let (url, seen) = answering(|_, _| answer(503, &["retry-after: 2"], "")).await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    let origin = patient(config(&url));
    let answered = wharf_connectors::deadline::until(deadline, get(&origin, "/")).await.unwrap();
    assert_eq!(answered.status, 503);
    assert!(tokio::time::Instant::now() < deadline);
    assert_eq!(seen.lines().len(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_tried_again_and_a_source_that_breaks_is_not() {
    let (url, seen) = answering(|before, _| match before {
        0 => "HTTP/1.1 200 OK\r\ncontent-".to_owned(),
        _ => answer(200, &[], "whole"),
    })
    .await;
    // The server keeps the first connection open, so this is a timeout before it is a success.
    assert_eq!(text(get(&patient(config(&url)), "/").await.unwrap()).await, "whole");
    assert_eq!(seen.lines().len(), 2);

    let (url, _) = answering(|_, _| answer(200, &[], "")).await;
    let broken = || Err(Error::new(ErrorKind::Interrupted, "the disk is gone"));
    let one_failure = Breaker { failures: 1, ..Breaker::default() };
    let origin = patient(Config { breaker: one_failure, ..config(&url) });
    let mut breaking = request(Method::PUT, "/", "");
    breaking.content = Content::from_stream(None, futures::stream::iter([Ok("a".into()), broken()]));
    let error = send(&origin, breaking).await.unwrap_err();
    assert_eq!(error.to_string(), "the disk is gone");
    assert_eq!(get(&origin, "/").await.unwrap().status, 200, "the breaker has nothing against the origin");
}

#[tokio::test]
async fn an_origin_that_keeps_failing_is_left_alone_and_tried_again() {
    let (url, seen) = answering(|before, _| if before < 3 { answer(503, &[], "") } else { answer(200, &[], "") }).await;
    let breaker = Breaker { failures: 3, pause: Duration::from_millis(400), ..Breaker::default() };
    let origin = open(Config { breaker, ..config(&url) });
    for _ in 0..3 {
        assert_eq!(get(&origin, "/").await.unwrap().status, 503);
    }
    let error = get(&origin, "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("the last 3 requests failed (the last one: status 503)"), "{error}");
    let wait = error.retry_after().unwrap();
    assert!(wait <= Duration::from_millis(400), "{wait:?}");
    assert_eq!(seen.lines().len(), 3, "nothing is sent meanwhile");
    tokio::time::sleep(wait).await;
    assert_eq!(get(&origin, "/").await.unwrap().status, 200);
    assert_eq!(get(&origin, "/").await.unwrap().status, 200);
}

#[tokio::test]
async fn requests_beyond_those_at_once_wait_until_an_answer_is_consumed() {
    let (url, seen) = answering(|_, _| answer(200, &[], "body")).await;
    let egress = wharf_connectors::Egress::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let common = wharf_connectors::Common { operations_max: 1, ..crate::common() };
    let origin = wharf_connectors::http::Origin::new("test", config(&url), &common, egress.into()).unwrap();
    let first = get(&origin, "/first").await.unwrap();
    let second = get(&origin, "/second");
    futures::pin_mut!(second);
    assert!(futures::poll!(&mut second).is_pending());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(futures::poll!(&mut second).is_pending());
    assert_eq!(seen.lines(), ["GET /first"]);
    drop(first);
    assert_eq!(second.await.unwrap().status, 200);
}

#[tokio::test]
async fn bodies_keep_within_the_bandwidth_both_ways() {
    let (url, _) = answering(|_, heard| answer(200, &[], &heard.body)).await;
    let limited = Common { bandwidth: Some(100_000), ..common() };
    let origin = try_with(config(&url), &limited).unwrap();
    let started = Instant::now();
    let body = "x".repeat(20_000);
    let answered = send(&origin, request(Method::POST, "/", &body)).await.unwrap();
    assert_eq!(text(answered).await, body);
    // 40 kB at 100 kB/s, less what may pass at once.
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_total_timeout_holds_over_tries_and_for_the_answer() {
    let total_timeout = Some(Duration::from_millis(600));
    let (url, seen) = answering(|_, _| answer(503, &["retry-after: 5"], "")).await;
    let started = Instant::now();
    let error = get(&patient(Config { total_timeout, ..config(&url) }), "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("total-timeout"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3));
    assert_eq!(seen.lines().len(), 1);

    // A byte now and then keeps the read timeout at rest for ever.
    let url = server(|mut stream| async move {
        use tokio::io::AsyncWriteExt;
        crate::read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await.unwrap();
        while stream.write_all(b".").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let answered = get(&patient(Config { total_timeout, ..config(&url) }), "/").await.unwrap();
    let error = answered.content.collect(1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("total-timeout"), "{error}");
}
