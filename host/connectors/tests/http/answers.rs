//! Requests and answers by path, streamed both ways; and pings.

use bytes::Bytes;
use futures::StreamExt;
use http::Method;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use wharf_connectors::http::{Config, Credentials, Ping};
use wharf_connectors::{Content, ErrorKind, Step};

use crate::{answer, answering, config, get, open, read_until, request, send, server, text};

#[tokio::test]
async fn a_request_goes_below_the_base_with_query_headers_and_body() {
    let (url, seen) = answering(|_, _| answer(201, &["x-answer: yes", "x-answer: again"], "made")).await;
    let mut request = request(Method::POST, "/orders/a b", "the order");
    request.query = vec![("q".to_owned(), "1&2".to_owned())];
    request.headers.insert("x-own", "ü".parse().unwrap());
    request.headers.insert("content-length", "3".parse().unwrap());
    request.headers.insert("host", "evil.test".parse().unwrap());
    let answered = send(&open(config(&format!("{url}/v1/"))), request).await.unwrap();
    assert_eq!(answered.status, 201);
    assert_eq!(answered.headers.get_all("x-answer").iter().count(), 2);
    assert_eq!(answered.content.size(), Some(4));
    assert_eq!(text(answered).await, "made");
    let heard = &seen.all()[0];
    assert_eq!(heard.line, "POST /v1/orders/a%20b?q=1%262");
    assert_eq!(heard.header("content-length"), Some("9"));
    assert_eq!(heard.header("host"), Some(url.trim_start_matches("http://")));
    assert_eq!(heard.body, "the order");
}

#[tokio::test]
async fn bodies_stream_both_ways_at_once() {
    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        for _ in 0..2 {
            let chunk = read_until(&mut stream, b"\r\n").await + &read_until(&mut stream, b"\r\n").await;
            stream.write_all(chunk.as_bytes()).await.unwrap();
        }
        read_until(&mut stream, b"0\r\n\r\n").await;
        stream.write_all(b"0\r\n\r\n").await.unwrap();
    })
    .await;
    let (sender, receiver) = mpsc::channel::<&'static str>(1);
    let chunks = futures::stream::unfold(receiver, |mut receiver| async {
        Some((Ok(Bytes::from_static(receiver.recv().await?.as_bytes())), receiver))
    });
    let mut request = request(Method::POST, "/", "");
    request.content = Content::from_stream(None, chunks);
    let answered = send(&open(config(&url)), request).await.unwrap();
    let mut body = answered.content.into_stream();
    for word in ["one", "two"] {
        sender.send(word).await.unwrap();
        assert_eq!(body.next().await.unwrap().unwrap(), word);
    }
    drop(sender);
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn paths_and_methods_that_leave_the_connection_are_refused_before_anything_is_sent() {
    let (url, seen) = answering(|_, _| answer(200, &[], "")).await;
    let origin = open(config(&format!("{url}/v1")));
    for path in ["/../admin", "/..%2Fadmin", "http://evil.test/", "/a?b", "@evil.test/"] {
        assert_eq!(get(&origin, path).await.unwrap_err().kind(), ErrorKind::Invalid, "{path}");
    }
    for method in [Method::TRACE, Method::CONNECT] {
        assert_eq!(send(&origin, request(method, "/", "")).await.unwrap_err().kind(), ErrorKind::Invalid);
    }
    assert!(seen.lines().is_empty());
}

#[tokio::test]
async fn a_ping_tells_what_answers() {
    let (url, seen) = answering(|_, _| answer(204, &[], "")).await;
    let ping = Ping { method: Method::OPTIONS, path: "/health".to_owned() };
    let origin = open(Config { ping, credentials: Credentials::Bearer("t".into()), ..config(&format!("{url}/v1")) });
    let facts = origin.ping().await.unwrap();
    let address = url.trim_start_matches("http://").to_owned();
    let expected = [("address", address), ("http", "1.1".to_owned()), ("status", "204".to_owned())];
    assert_eq!(facts, expected);
    let heard = seen.all().pop().unwrap();
    assert_eq!((heard.line.as_str(), heard.header("authorization")), ("OPTIONS /v1/health", Some("Bearer t")));
}

#[tokio::test]
async fn a_ping_that_fails_says_at_which_step() {
    for (status, kind, step, part) in [
        (401, ErrorKind::Denied, Step::Login, "status 401: it refuses the credentials"),
        (403, ErrorKind::Denied, Step::Login, "status 403: it refuses the credentials"),
        (500, ErrorKind::Unavailable, Step::Command, "status 500: it fails"),
    ] {
        let (url, _) = answering(move |_, _| answer(status, &[], "")).await;
        let error = open(config(&url)).ping().await.unwrap_err();
        assert_eq!((error.kind(), error.step()), (kind, Some(step)), "{error}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = open(config(&format!("http://{closed}"))).ping().await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Unavailable, Some(Step::Connect)));
    assert!(error.to_string().contains("cannot connect to 127.0.0.1"), "{error}");
    let error = open(config("http://no-such-name.invalid/")).ping().await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Unavailable, Some(Step::Name)));
    assert!(error.to_string().contains("the name no-such-name.invalid does not resolve"), "{error}");
    let error = open(config("http://10.1.2.3/")).ping().await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Denied, Some(Step::Name)), "{error}");
}
