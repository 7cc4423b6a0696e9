//! Requests with a whole URL, as a language's own client makes them, against servers that do exactly what a test says.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::StreamExt;
use http::{Request, Response, StatusCode};
use reqwest::Body;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wharf_connectors::http::{Config, Origin};
use wharf_connectors::{Content, Error, ErrorKind};

use crate::{READ_TIMEOUT, open, read_until, server};

fn origin(url: &str) -> Origin {
    open(Config { ..Config::new(url.parse().unwrap()) })
}

async fn get(url: &str) -> Result<Response<Body>, Error> {
    origin(url).forward(Request::get(url).body(Content::from_bytes("")).unwrap()).await
}

fn chunks(body: Body) -> impl futures::Stream<Item = reqwest::Result<Bytes>> + Unpin {
    Box::pin(reqwest::Response::from(Response::new(body)).bytes_stream())
}

/// The error of this crate that travelled inside the HTTP library's.
fn own(error: &reqwest::Error) -> &Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = cause {
        if let Some(own) = current.downcast_ref::<Error>() {
            return own;
        }
        cause = current.source();
    }
    panic!("{error:?} has no error of this crate in it");
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_not_followed() {
    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let answer = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let answer = get(&url).await.unwrap();
    assert_eq!(answer.status(), StatusCode::FOUND);
    assert_eq!(answer.headers()["location"], "http://127.0.0.1:1/");
}

#[tokio::test]
async fn the_answer_streams_chunk_by_chunk() {
    let (more, requests_for_more) = mpsc::channel(1);
    let requests_for_more = Arc::new(tokio::sync::Mutex::new(requests_for_more));
    let url = server(move |mut stream| {
        let requests_for_more = Arc::clone(&requests_for_more);
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await.unwrap();
            let () = requests_for_more.lock().await.recv().await.unwrap();
            stream.write_all(b"two").await.unwrap();
        }
    })
    .await;
    let mut body = chunks(get(&url).await.unwrap().into_body());
    assert_eq!(body.next().await.unwrap().unwrap(), "one");
    more.send(()).await.unwrap();
    assert_eq!(body.next().await.unwrap().unwrap(), "two");
    assert!(body.next().await.is_none());
}

#[tokio::test]
async fn the_request_streams_chunk_by_chunk_and_a_slow_source_is_no_timeout() {
    let (seen, mut seen_by_the_server) = mpsc::channel(1);
    let url = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            read_until(&mut stream, b"3\r\none\r\n").await;
            seen.send(()).await.unwrap();
            read_until(&mut stream, b"3\r\ntwo\r\n0\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        }
    })
    .await;
    let (sender, receiver) = mpsc::channel(1);
    let chunks = futures::stream::unfold(receiver, |mut receiver: mpsc::Receiver<&'static [u8]>| async {
        Some((Ok(Bytes::from_static(receiver.recv().await?)), receiver))
    });
    let request = Request::post(&url).body(Content::from_stream(None, chunks)).unwrap();
    let sending = tokio::spawn(async move { origin(&url).forward(request).await });
    sender.send(b"one").await.unwrap();
    seen_by_the_server.recv().await.unwrap();
    // The source takes several times the read timeout, which is about the remote.
    tokio::time::sleep(4 * READ_TIMEOUT).await;
    sender.send(b"two").await.unwrap();
    drop(sender);
    assert_eq!(sending.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn a_silent_server_is_a_timeout_before_and_within_the_answer() {
    let url = server(|mut stream| async move {
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        if head.starts_with("GET /body ") {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await.unwrap();
        }
        let mut closed = [0];
        let _ = stream.read(&mut closed).await;
    })
    .await;
    let error = get(&format!("{url}/")).await.unwrap_err();
    // The first movement may take the connect timeout besides.
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let mut body = chunks(get(&format!("{url}/body")).await.unwrap().into_body());
    assert_eq!(body.next().await.unwrap().unwrap(), "one");
    let waiting = Instant::now();
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(own(&error).kind(), ErrorKind::Timeout, "{error:?}");
    assert!(waiting.elapsed() < 10 * READ_TIMEOUT, "{:?}", waiting.elapsed());
}

#[tokio::test]
async fn a_reader_that_takes_its_time_is_no_timeout() {
    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await.unwrap();
        tokio::time::sleep(READ_TIMEOUT / 2).await;
        stream.write_all(b"two").await.unwrap();
    })
    .await;
    let mut body = chunks(get(&url).await.unwrap().into_body());
    assert_eq!(body.next().await.unwrap().unwrap(), "one");
    tokio::time::sleep(3 * READ_TIMEOUT).await;
    assert_eq!(body.next().await.unwrap().unwrap(), "two");
}

#[tokio::test]
async fn a_server_that_takes_nothing_more_is_a_timeout() {
    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let endless = futures::stream::repeat_with(|| Ok(Bytes::from_static(&[0; 64 * 1024])));
    let request = Request::post(&url).body(Content::from_stream(None, endless)).unwrap();
    let error = origin(&url).forward(request).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn a_broken_connection_is_interrupted_and_a_refused_one_unavailable() {
    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
    })
    .await;
    let error = get(&url).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");

    let url = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\none").await.unwrap();
    })
    .await;
    let mut body = chunks(get(&url).await.unwrap().into_body());
    assert_eq!(body.next().await.unwrap().unwrap(), "one");
    let error = body.next().await.unwrap().unwrap_err();
    assert_eq!(own(&error).kind(), ErrorKind::Interrupted, "{error:?}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = get(&format!("http://{closed}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn headers_of_one_hop_and_a_forged_host_do_not_go_out() {
    let (seen, mut heads) = mpsc::channel(1);
    let url = server(move |mut stream| {
        let seen = seen.clone();
        async move {
            let head = read_until(&mut stream, b"\r\n\r\n").await;
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
            seen.send(head).await.unwrap();
        }
    })
    .await;
    let request = Request::post(&url)
        .header("host", "internal.example")
        .header("connection", "upgrade")
        .header("upgrade", "websocket")
        .header("transfer-encoding", "chunked")
        .header("x-own", "stays")
        .body(Content::from_bytes("four"))
        .unwrap();
    origin(&url).forward(request).await.unwrap();
    let head = heads.recv().await.unwrap().to_lowercase();
    assert!(head.contains(&format!("host: {}\r\n", url.trim_start_matches("http://"))), "{head}");
    assert!(head.contains("content-length: 4\r\n") && head.contains("x-own: stays\r\n"), "{head}");
    for absent in ["internal.example", "upgrade", "websocket", "chunked"] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
}

#[tokio::test]
async fn what_the_origin_does_not_cover_is_denied_without_a_connection() {
    let (connected, mut connections) = mpsc::channel::<()>(1);
    let url = server(move |_| {
        let connected = connected.clone();
        async move { connected.send(()).await.unwrap() }
    })
    .await;
    let origin = origin(&format!("{url}/v1"));
    for uri in [format!("{url}/v2"), format!("{url}/v1/%2e%2e/v2"), url.replace("127.0.0.1", "127.0.0.2")] {
        let error = origin.forward(Request::get(&uri).body(Content::from_bytes("")).unwrap()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{uri}: {error}");
    }
    let twice = Request::post(format!("{url}/v1")).header("content-length", "1").header("content-length", "2");
    let error = origin.forward(twice.body(Content::from_bytes("a")).unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(connections.try_recv().is_err());
}
