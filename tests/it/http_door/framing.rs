//! Where one request ends and the next begins: pipelining, and attempts to make the host see another border than a proxy
//! in front of it would (RFC 9112, section 11.2).

use std::time::Duration;

use crate::harness::{Host, Raw, eventually};

/// How long an answer that must not come is waited for.
const SILENCE: Duration = Duration::from_millis(400);

/// A request that was smuggled is seen by its service and by this word, which no other part of a test contains as such.
const SMUGGLED: &str = "GET /invoke/respond?text=%53MUGGLED HTTP/1.1\r\nHost: test\r\n\r\n";

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_their_order() {
    let host = Host::with(&["echo", "sleep"]).await;
    let mut client = host.connect().await;
    client
        .send(concat!(
            "GET /invoke/sleep?ms=200 HTTP/1.1\r\nHost: test\r\n\r\n",
            "POST /invoke/echo HTTP/1.1\r\nHost: test\r\nContent-Length: 6\r\n\r\nsecond",
            "POST /invoke/echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nthird\r\n0\r\n\r\n",
            "GET /invoke/nothing HTTP/1.1\r\nHost: test\r\n\r\n",
            "GET /invoke/sleep?ms=0 HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n",
        ))
        .await;
    let mut answers = Vec::new();
    while let Some(answer) = client.answer().await {
        answers.push((answer.status, String::from_utf8_lossy(&answer.body[..answer.body.len().min(6)]).into_owned()));
    }
    let expected = [(200, "awake\n"), (200, "second"), (200, "third"), (404, "{\n  \"t"), (200, "awake\n")];
    assert_eq!(answers, expected.map(|(status, body)| (status, body.to_owned())));
}

#[tokio::test]
async fn a_body_that_the_service_left_unread_is_never_taken_for_a_request() {
    let host = Host::with(&["ignore-body", "respond"]).await;
    for bytes in [0, 1_000, 3_000_000] {
        let mut client = host.connect().await;
        let body = format!("{SMUGGLED}{}", "x".repeat(bytes));
        let request = "POST /invoke/ignore-body HTTP/1.1\r\nHost: test\r\nContent-Length:";
        client.send(format!("{request} {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(client.answer().await.expect("an answer").body, b"ignored\n");
        client.send("GET /invoke/ignore-body HTTP/1.1\r\nHost: test\r\n\r\n").await;
        // The host either skipped the body and answers, or closed.
        if let Some(answer) = client.answer().await {
            assert_eq!(answer.body, b"ignored\n", "{bytes}");
        }
    }
    assert_eq!(host.service("respond").await.expect("it is deployed").invocations, 0);
}

/// The border between a request and what follows it is not clear to everybody: whatever the host makes of it, what
/// follows must not be answered as a request.
#[tokio::test]
async fn an_ambiguous_request_never_lets_what_follows_pass_for_another() {
    let host = Host::with(&["ignore-body", "respond"]).await;
    let post = "POST /invoke/ignore-body HTTP/1.1\r\nHost: test\r\n";
    let chunked = "Transfer-Encoding: chunked\r\n";
    let cases = [
        ("length and chunks", format!("{post}Content-Length: 5\r\n{chunked}\r\n0\r\n\r\n")),
        ("chunks and length", format!("{post}{chunked}Content-Length: 5\r\n\r\n0\r\n\r\n")),
        ("two lengths", format!("{post}Content-Length: 0\r\nContent-Length: 5\r\n\r\n")),
        ("a list of lengths", format!("{post}Content-Length: 0, 5\r\n\r\n")),
        ("a length with a plus", format!("{post}Content-Length: +0\r\n\r\n")),
        ("a negative length", format!("{post}Content-Length: -1\r\n\r\n")),
        ("a length in hexadecimal", format!("{post}Content-Length: 0x0\r\n\r\n")),
        ("a length that is too long", format!("{post}Content-Length: 18446744073709551616\r\n\r\n")),
        ("an empty length", format!("{post}Content-Length: \r\n\r\n")),
        ("a space before the colon", format!("{post}Content-Length : 0\r\n\r\n")),
        ("a space before the colon of the encoding", format!("{post}Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n")),
        ("a folded header", format!("{post}X-A: b\r\n Content-Length: 0\r\n\r\n")),
        ("a folded encoding", format!("{post}Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n")),
        ("an encoding that is not chunked", format!("{post}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
        ("chunked, but not last", format!("{post}Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n")),
        ("chunked in quotes", format!("{post}Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n")),
        ("chunked with a tab of its own", format!("{post}Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n")),
        ("chunks in HTTP/1.0", {
            format!("POST /invoke/ignore-body HTTP/1.0\r\nConnection: keep-alive\r\n{chunked}\r\n0\r\n\r\n")
        }),
        ("a size with a plus", format!("{post}{chunked}\r\n+0\r\n\r\n")),
        ("a size with 0x", format!("{post}{chunked}\r\n0x0\r\n\r\n")),
        ("a size that is negative", format!("{post}{chunked}\r\n-0\r\n\r\n")),
        ("a size that overflows", format!("{post}{chunked}\r\n10000000000000000\r\n\r\n0\r\n\r\n")),
        ("a size that is no number", format!("{post}{chunked}\r\nzero\r\n\r\n")),
        ("an empty size", format!("{post}{chunked}\r\n\r\n0\r\n\r\n")),
        ("a size that ends with a bare line feed", format!("{post}{chunked}\r\n0\n\r\n")),
        ("a bare line feed in an extension", format!("{post}{chunked}\r\n0;a\nb\r\n\r\n")),
        ("a chunk longer than its size", format!("{post}{chunked}\r\n1\r\nab\r\n0\r\n\r\n")),
        ("a bare carriage return in a header", format!("{post}X-A: b\rContent-Length: 0\r\n\r\n")),
        ("a NUL in a header", format!("{post}X-A: b\0c\r\nContent-Length: 0\r\n\r\n")),
        ("a header without a name", format!("{post}: b\r\n\r\n")),
        ("a header without a colon", format!("{post}Content-Length\r\n\r\n")),
        ("two methods", "GET POST /invoke/ignore-body HTTP/1.1\r\nHost: test\r\n\r\n".to_owned()),
        ("an unknown version", "GET /invoke/ignore-body HTTP/1.9\r\nHost: test\r\n\r\n".to_owned()),
        ("a version that is none", "GET /invoke/ignore-body HTTP/11\r\nHost: test\r\n\r\n".to_owned()),
    ];
    for (what, request) in cases {
        let mut client = host.connect().await;
        client.send(format!("{request}{SMUGGLED}")).await;
        let seen = until_silence(&mut client).await;
        let statuses: Vec<&str> = seen.split("HTTP/1.").skip(1).filter_map(|answer| answer.get(2..5)).collect();
        assert!(!seen.contains("SMUGGLED"), "{what}: what followed was answered: {seen}");
        assert!(statuses.len() <= 1, "{what}: {statuses:?} {seen}");
    }
    assert_eq!(host.service("respond").await.expect("it is deployed").invocations, 0);
}

/// What RFC 9112 lets a server accept, because everybody sees the same border.
#[tokio::test]
async fn odd_but_unambiguous_requests_are_answered_once_and_so_is_what_follows() {
    let host = Host::with(&["bytes-body", "respond"]).await;
    let post = "POST /invoke/bytes-body HTTP/1.1\r\nHost: test\r\n";
    let cases = [
        ("the same length twice", format!("{post}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")),
        ("chunked in capitals", format!("{post}Transfer-Encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n")),
        ("an extension of a chunk", format!("{post}Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n")),
        ("a size with zeros in front", format!("{post}Transfer-Encoding: chunked\r\n\r\n0005\r\nhello\r\n0\r\n\r\n")),
        ("trailers", format!("{post}Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n")),
        ("an empty line before the request", format!("\r\n{post}Content-Length: 5\r\n\r\nhello")),
        ("an empty header", format!("{post}X-A:\r\nContent-Length: 5\r\n\r\nhello")),
    ];
    for (what, request) in cases {
        let mut client = host.connect().await;
        client.send(format!("{request}{SMUGGLED}")).await;
        let first = client.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
        assert_eq!((first.status, first.body.as_slice()), (200, b"5\n".as_slice()), "{what}: {}", first.head);
        let second = client.answer().await.unwrap_or_else(|| panic!("{what}: no second answer"));
        assert_eq!(second.body, b"SMUGGLED", "{what}: here it is an honest request");
    }
}

#[tokio::test]
async fn a_line_that_ends_with_a_line_feed_alone_ends_there_for_the_whole_head() {
    let host = Host::with(&["bytes-body", "respond"]).await;
    let mut client = host.connect().await;
    client.send("POST /invoke/bytes-body HTTP/1.1\nHost: test\nContent-Length: 5\n\nhello").await;
    let answer = client.answer().await.expect("an answer");
    // Both are allowed (RFC 9112, section 2.2); it must not be read as a request without a body.
    assert!(answer.status == 400 || answer.body == b"5\n", "{answer:?}");
}

#[tokio::test]
async fn noise_on_the_listener_is_refused_and_harms_nobody() {
    let host = Host::with(&["respond"]).await;
    let tls = [0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03];
    let http2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice();
    for noise in [tls.as_slice(), http2, b"\0\0\0\0", b"SSH-2.0-x\r\n\r\n", b"GET\r\n\r\n"] {
        let mut client = host.connect().await;
        client.send(noise).await;
        client.close_writing().await;
        let (seen, closed) = client.read_to_end(crate::harness::PATIENCE).await;
        assert!(closed, "{noise:?}");
        assert!(seen.is_empty() || seen.starts_with(b"HTTP/1.1 4"), "{noise:?}: {}", String::from_utf8_lossy(&seen));
    }
    eventually("the host answers", async || (host.get("respond?text=well").await.text() == "well").then_some(())).await;
}

async fn until_silence(client: &mut Raw) -> String {
    let (seen, _) = client.read_to_end(SILENCE).await;
    String::from_utf8_lossy(&seen).into_owned()
}
