//! The limits of the public listener and of a service's admission: sizes, times, how many at once, and clients that are
//! slow or go away.

use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;

use crate::harness::{Answer, Host, PATIENCE, Raw};

const CHUNK: Bytes = Bytes::from_static(&[b'x'; 65_536]);

/// A body of this many chunks whose size is not announced.
fn chunked(chunks: usize) -> reqwest::Body {
    let chunks = std::iter::repeat_n(CHUNK, chunks).map(Ok::<_, std::io::Error>);
    reqwest::Body::wrap_stream(futures::stream::iter(chunks))
}

#[tokio::test]
async fn a_body_beyond_the_limit_is_413_whether_announced_or_not() {
    let host = Host::builder()
        .configuration("http = { body-max = '1KiB' }")
        .services(&["bytes-body", "stream-body", "echo", "http-echo"])
        .start()
        .await;
    assert_eq!(host.post("bytes-body", vec![b'x'; 1024]).await.expect(200).text(), "1024\n");
    let detail = host.post("bytes-body", vec![b'x'; 1025]).await.problem(413);
    assert!(detail.contains("1024 bytes") && detail.contains("body-max"), "{detail}");
    assert_eq!(host.service("bytes-body").await.expect("it is deployed").invocations, 1, "the guest was not asked");
    for service in ["bytes-body", "stream-body"] {
        let mut client = host.connect().await;
        client.send(format!("POST /invoke/{service} HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
        client.send(format!("401\r\n{}\r\n0\r\n\r\n", "x".repeat(1025))).await;
        let answer = client.answer().await.expect("an answer");
        assert_eq!(answer.status, 413, "{service}: {}", answer.head);
    }
    // The answer has begun already: it must not look complete.
    for service in ["echo", "http-echo"] {
        match host.request(Method::POST, service).body(chunked(16)).send().await {
            Ok(response) if response.status() == 413 => {}
            Ok(response) => {
                let read = Answer::read(response).await;
                assert!(read.is_err(), "{service}: {read:?}");
            }
            Err(error) => assert!(error.is_request(), "{service}: {error:?}"),
        }
        host.wait_until_idle(service).await;
    }
}

#[tokio::test]
async fn a_service_that_sleeps_or_spins_beyond_its_timeout_is_504() {
    let host = Host::builder()
        .configuration("service-defaults = { timeout = '300ms' }")
        .services(&["sleep", "spin", "ignore-body"])
        .start()
        .await;
    for target in ["sleep?ms=60000", "spin"] {
        let begun = Instant::now();
        let detail = host.get(target).await.problem(504);
        let took = begun.elapsed();
        assert!(detail.contains("timeout"), "{detail}");
        assert!(took >= Duration::from_millis(300) && took < Duration::from_secs(5), "{target}: {took:?}");
        let name = target.split('?').next().expect("there is a first part");
        let status = host.wait_until_idle(name).await;
        assert_eq!(status.failures, 1);
        assert!(status.last_failure.is_some(), "{name}");
    }
    assert_eq!(host.get("sleep?ms=10").await.expect(200).text(), "awake\n");
}

#[tokio::test]
async fn a_service_that_waits_for_a_body_that_does_not_come_ends_with_its_timeout() {
    let host = Host::builder()
        .configuration("service-defaults = { timeout = '500ms' }")
        .services(&["bytes-body", "stream-body"])
        .start()
        .await;
    for service in ["bytes-body", "stream-body"] {
        let mut client = host.connect().await;
        client.send(format!("POST /invoke/{service} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf.")).await;
        assert_eq!(client.answer().await.expect("an answer").status, 504, "{service}");
        host.wait_until_idle(service).await;
    }
}

#[tokio::test]
async fn a_body_that_stalls_is_given_up() {
    let host =
        Host::builder().configuration("http = { body-timeout = '300ms' }").services(&["bytes-body"]).start().await;
    let mut client = host.connect().await;
    client.send("POST /invoke/bytes-body HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf.").await;
    let answer = client.answer().await.expect("an answer");
    assert!((400..600).contains(&answer.status), "{}", answer.head);
    let (_, closed) = client.read_to_end(PATIENCE).await;
    assert!(closed, "what comes later on this connection is no request");
}

#[tokio::test]
async fn beyond_the_concurrency_limit_is_503_with_retry_after_until_a_place_is_free() {
    let host = Host::builder()
        .configuration("services = { sleep = { concurrency = 1, queue-timeout = '0s' } }")
        .service("sleep", "sleep")
        .start()
        .await;
    let first = host.get("sleep?ms=3000");
    let others = async {
        host.wait_for("sleep", "one runs", |status| status.in_flight == 1).await;
        let refused = host.get("sleep?ms=0").await;
        let detail = refused.problem(503);
        assert!(detail.contains("1 invocations at once"), "{detail}");
        assert!(refused.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1), "{refused:?}");
    };
    let (first, ()) = tokio::join!(first, others);
    assert_eq!(first.expect(200).text(), "awake\n");
    assert_eq!(host.get("sleep?ms=0").await.expect(200).text(), "awake\n");
}

#[tokio::test]
async fn invocations_wait_for_their_turn_as_long_as_the_queue_allows() {
    let host = Host::builder()
        .configuration("services = { sleep = { concurrency = 2, queue-timeout = '20s' } }")
        .service("sleep", "sleep")
        .start()
        .await;
    let begun = Instant::now();
    let answers = futures::future::join_all((0..6).map(|_| host.get("sleep?ms=200"))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert!(begun.elapsed() >= Duration::from_millis(600), "two at once: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_invocation() {
    let host = Host::builder()
        .configuration("service-defaults = { timeout = '10m' }")
        .services(&["sleep", "spin", "stream-body"])
        .start()
        .await;
    for (id, request) in [
        ("gone-1", "GET /invoke/sleep?ms=500000 HTTP/1.1\r\n"),
        ("gone-2", "GET /invoke/spin HTTP/1.1\r\n"),
        ("gone-3", "POST /invoke/stream-body HTTP/1.1\r\nContent-Length: 1000\r\n"),
    ] {
        let service = request.split(['/', '?', ' ']).nth(3).expect("the name of the service");
        let mut client = host.connect().await;
        client.send(format!("{request}Host: test\r\nX-Request-Id: {id}\r\n\r\n")).await;
        host.wait_for(service, "it runs", |status| status.in_flight == 1).await;
        drop(client);
        host.wait_until_idle(service).await;
        host.log().wait_for(&[id, service]).await;
        // Broken off in the middle of its body, the request itself fails; otherwise it is cancelled.
        if service != "stream-body" {
            host.log().wait_for(&[id, "cancelled"]).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_amid_the_answer_cancels_its_invocation() {
    let host =
        Host::builder().configuration("service-defaults = { timeout = '10m' }").services(&["http-echo"]).start().await;
    let mut client = host.connect().await;
    let head = "POST /invoke/http-echo HTTP/1.1\r\nHost: test\r\nX-Request-Id: gone-4\r\n";
    client.send(format!("{head}Transfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")).await;
    client.read_until(b"first").await.expect("the answer begins");
    drop(client);
    host.wait_until_idle("http-echo").await;
    host.log().wait_for(&["gone-4"]).await;
    assert!(host.log().with(&["gone-4", "answered"]).is_empty());
}

#[tokio::test]
async fn a_client_that_does_not_read_its_answer_is_given_up() {
    let host = Host::builder()
        .configuration("http = { body-timeout = '1s' }\nservice-defaults = { timeout = '10m' }")
        .services(&["http-echo"])
        .start()
        .await;
    let mut client = host.connect().await;
    client.send("POST /invoke/http-echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    // More than all buffers between the two hold: the host stops reading, so sending stops, too.
    let flood = format!("10000\r\n{}\r\n", "x".repeat(65_536));
    let flooding = async {
        for _ in 0..4_000 {
            client.send(&flood).await;
        }
    };
    // It ends when the host closes the connection; until then sending waits.
    tokio::time::timeout(PATIENCE, flooding).await.expect("the host closes the connection");
    host.wait_until_idle("http-echo").await;
}

/// A client that closes its sending side and one that is gone look the same on the wire.
#[tokio::test]
async fn a_client_that_closes_its_sending_side_is_taken_for_gone() {
    let host =
        Host::builder().configuration("service-defaults = { timeout = '10m' }").services(&["sleep"]).start().await;
    let mut client = host.connect().await;
    client.send("GET /invoke/sleep?ms=500000 HTTP/1.1\r\nHost: test\r\nX-Request-Id: half-1\r\n\r\n").await;
    host.wait_for("sleep", "it runs", |status| status.in_flight == 1).await;
    client.close_writing().await;
    let (seen, closed) = client.read_to_end(PATIENCE).await;
    assert!(closed && seen.is_empty(), "{}", String::from_utf8_lossy(&seen));
    host.wait_until_idle("sleep").await;
    host.log().wait_for(&["half-1", "cancelled"]).await;
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_cut_off() {
    let host = Host::builder().configuration("http = { header-timeout = '500ms' }").services(&["echo"]).start().await;
    for begin in ["", "GET", "GET /invoke/echo HTTP/1.1\r\nHost: te"] {
        let mut client = host.connect().await;
        client.send(begin).await;
        let (seen, closed) = client.read_to_end(PATIENCE).await;
        assert!(closed, "{begin:?}");
        assert!(seen.is_empty() || seen.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&seen));
    }
    host.get("echo").await.expect(200);
}

#[tokio::test]
async fn a_head_beyond_the_limit_is_431() {
    let host = Host::builder().configuration("http = { head-max = '8KiB' }").services(&["echo"]).start().await;
    let fits = format!("GET /invoke/echo HTTP/1.1\r\nHost: test\r\nX-A: {}\r\n\r\n", "x".repeat(6_000));
    let long_value = format!("GET /invoke/echo HTTP/1.1\r\nHost: test\r\nX-A: {}\r\n\r\n", "x".repeat(20_000));
    let long_path = format!("GET /invoke/echo/{} HTTP/1.1\r\nHost: test\r\n\r\n", "x".repeat(20_000));
    let many = format!("GET /invoke/echo HTTP/1.1\r\nHost: test\r\n{}\r\n", "X-A: b\r\n".repeat(200));
    for (request, expected) in
        [(fits, [200, 200]), (long_value, [431, 431]), (long_path, [414, 431]), (many, [431, 431])]
    {
        let mut client = host.connect().await;
        client.send(&request).await;
        let answer = client.answer().await.expect("an answer");
        assert!(expected.contains(&answer.status), "{}: {}", &request[..40], answer.head);
    }
    assert_eq!(host.service("echo").await.expect("it is deployed").invocations, 1);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_is_closed() {
    let host = Host::builder()
        .configuration("http = { connections-max = 2, header-timeout = '1m' }")
        .services(&["echo"])
        .start()
        .await;
    let first = host.connect().await;
    let mut second = host.connect().await;
    second.send("GET /invoke/echo HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(second.answer().await.expect("an answer").status, 200);
    let mut third = host.connect().await;
    third.send("GET /invoke/echo HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let (seen, closed) = third.read_to_end(Duration::from_millis(300)).await;
    assert!(seen.is_empty() && !closed, "it waits its turn");
    drop(first);
    assert_eq!(third.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_large_body_passes_through_in_little_memory() {
    let host = Host::builder().services(&["echo", "http-echo", "stream-body"]).alone().start().await;
    host.post("http-echo", "warm").await.expect(200);
    for service in ["echo", "http-echo", "stream-body"] {
        let before = host.memory_bytes();
        let mut peak = before;
        let chunks = 4_096;
        let request = host.request(Method::POST, service).body(chunked(chunks));
        let mut response = request.send().await.expect("an answer");
        let mut seen = 0;
        while let Some(chunk) = response.chunk().await.expect("the answer is whole") {
            seen += chunk.len();
            if seen % 16 == 0 {
                peak = peak.max(host.memory_bytes());
            }
        }
        peak = peak.max(host.memory_bytes());
        if service != "stream-body" {
            assert_eq!(seen, chunks * CHUNK.len(), "{service}");
        }
        let growth_mib = (peak - before) >> 20;
        println!("{service}: {} MiB through, memory grew by {growth_mib} MiB", (chunks * CHUNK.len()) >> 20);
        assert!(growth_mib < 32, "{service}: memory grew by {growth_mib} MiB");
    }
}

#[tokio::test]
async fn many_connections_that_say_nothing_leave_room_for_others() {
    let host = Host::builder().configuration("http = { connections-max = 500 }").services(&["echo"]).start().await;
    let mut silent: Vec<Raw> = Vec::new();
    for _ in 0..300 {
        silent.push(host.connect().await);
    }
    host.get("echo").await.expect(200);
}
