//! Servers that answer with what no server should: each is its own error, none is endured.

use std::time::{Duration, Instant};

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wharf_connectors::http::{Config, Credentials};
use wharf_connectors::{Common, Error, ErrorKind, Step, chain};

use crate::{READ_TIMEOUT, answer, answering, common, config, get, open, read_until, request, send, server, try_with};

fn once(url: &str) -> Config {
    Config { ..config(url) }
}

/// Asks a server that answers with these bytes and closes; the error of the head or of the body.
async fn told(answer: &'static [u8]) -> Error {
    let url = server(move |mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let _ = stream.write_all(answer).await;
    })
    .await;
    match get(&open(once(&url)), "/").await {
        Err(error) => error,
        Ok(response) => response.content.collect(1 << 20).await.unwrap_err(),
    }
}

#[tokio::test]
async fn an_answer_that_is_not_one_is_told_as_what_it_is() {
    for (answer, part) in [
        (&b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n"[..], "what 127.0.0.1 answers is not HTTP"),
        (b"HTTP/1.1 200\x00OK\r\n\r\n", "what 127.0.0.1 answers is not HTTP"),
        (b"HTTP/1.1 9999 OK\r\n\r\n", "what 127.0.0.1 answers is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nna me: x\r\n\r\n", "what 127.0.0.1 answers is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: minus\r\n\r\n", "what 127.0.0.1 answers is not HTTP"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab", "what 127.0.0.1 answers is not HTTP"),
        (b"", "127.0.0.1 closed the connection before the end of its answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "127.0.0.1 closed the connection before the end of its answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfour", "the answer of 127.0.0.1 broke off before its end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfour", "broke off before its end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nfour\r\n", "broke off before its end"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n", "broke off before its end"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n",
            "broke off before its end",
        ),
    ] {
        let shown = String::from_utf8_lossy(answer).into_owned();
        let error = told(answer).await;
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{shown:?}: {}", chain(&error));
        assert!(error.to_string().contains(part), "{shown:?}: {}", chain(&error));
    }
}

#[tokio::test]
async fn a_head_without_end_is_too_large() {
    for filler in [&b"x-filler: "[..], b"a: b\r\n"] {
        let url = server(move |mut stream| async move {
            read_until(&mut stream, b"\r\n\r\n").await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
            // As much as it takes: gigabytes, to a client that endures it.
            while stream.write_all(&filler.repeat(1000)).await.is_ok() {}
        })
        .await;
        let error = get(&open(once(&url)), "/").await.unwrap_err();
        let message = chain(&error);
        assert_eq!(error.kind(), ErrorKind::TooLarge, "{message}");
        assert!(message.contains("the head of the answer of 127.0.0.1 is larger than any should be"), "{message}");
    }
}

#[tokio::test]
async fn a_body_without_end_is_read_as_far_as_the_reader_or_the_operator_wants() {
    let url = server(|mut stream| async move {
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let announced: &[u8] =
            if head.contains("/announced") { b"content-length: 99999999999\r\n\r\n" } else { b"\r\n" };
        let _ = stream.write_all(announced).await;
        while stream.write_all(&[b'x'; 64 * 1024]).await.is_ok() {}
    })
    .await;
    let unlimited = open(once(&url));
    let error = get(&unlimited, "/").await.unwrap().content.collect(1 << 20).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");

    let limited = open(Config { answer_bytes_max: Some(1 << 20), ..once(&url) });
    let error = get(&limited, "/").await.unwrap().content.collect(u64::MAX).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(error.to_string().contains("1048576 bytes that answer-max allows"), "{error}");
    let error = get(&limited, "/announced").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
}

#[tokio::test]
async fn a_server_that_never_answers_is_a_timeout_and_not_asked_for_ever() {
    let url = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let started = Instant::now();
    let error = send(&open(config(&url)), request(Method::POST, "/", "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    assert!(error.to_string().contains("neither took nor sent anything"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_error_names_the_request_and_says_what_is_known_of_its_effect() {
    let lost = "it may have happened, so look before you repeat it";
    let closing = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
    })
    .await;
    let silent = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    for (url, happened) in [(closing, "closed the connection before the end of its answer"), (silent, "for 0.3 s")] {
        let credentials = Credentials::KeyParameter("key".to_owned(), "hunter2".into());
        let origin = open(Config { credentials, ..config(&format!("{url}/v1")) });
        for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::GET, Method::OPTIONS] {
            let mut asked = request(method.clone(), "/orders", "");
            asked.query.push(("token".to_owned(), "hunter3".to_owned()));
            let error = send(&origin, asked).await.unwrap_err();
            let message = error.to_string();
            let request = format!("{method} {url}/v1/orders on connection test: 127.0.0.1 ");
            assert!(message.starts_with(&request) && message.contains(happened), "{message}");
            assert_eq!(message.ends_with(lost), !method.is_safe(), "{message}");
            assert!(!chain(&error).contains("hunter"), "{}", chain(&error));
        }
        let error = origin.ping().await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("HEAD {url}/v1 on connection test: ")), "{error}");
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let error = send(&open(config(&nobody)), request(Method::POST, "/", "")).await.unwrap_err();
    assert_eq!(error.to_string(), format!("POST {nobody}/ on connection test: cannot connect to 127.0.0.1"));
}

#[tokio::test]
async fn the_read_timeout_is_for_the_head_of_the_answer_and_the_connect_timeout_for_what_comes_before() {
    let url = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let long = Duration::from_secs(20);
    let patient_to_connect = Common { connect_timeout: long, ..common() };
    let origin = try_with(config(&url), &patient_to_connect).unwrap();
    for method in [Method::GET, Method::POST] {
        let started = Instant::now();
        let error = send(&origin, request(method, "/", "x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.to_string().contains("neither took nor sent anything for 0.3 s"), "{error}");
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
    let started = Instant::now();
    assert_eq!(origin.ping().await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());

    // A handshake that is not answered is a part of connecting.
    let patient_to_read = Common { read_timeout: long, ..common() };
    let origin = try_with(config(&url.replace("http:", "https:")), &patient_to_read).unwrap();
    let started = Instant::now();
    let error = get(&origin, "/").await.unwrap_err();
    assert_eq!((error.kind(), error.step()), (ErrorKind::Timeout, Some(Step::Connect)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    let later_than_read = Common { connect_timeout: READ_TIMEOUT * 3, ..common() };
    let origin = try_with(config(&url.replace("http:", "https:")), &later_than_read).unwrap();
    let started = Instant::now();
    assert_eq!(get(&origin, "/").await.unwrap_err().step(), Some(Step::Connect));
    assert!(started.elapsed() >= READ_TIMEOUT * 3, "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_origin_that_takes_a_large_body_slowly_is_not_given_up() {
    const PARTS: usize = 48;
    let size = PARTS << 20;
    let url = server(move |mut stream| async move {
        // What buffers hold is taken already to the client, and must not last for longer than its patience.
        socket2::SockRef::from(&stream).set_recv_buffer_size(64 * 1024).unwrap();
        read_until(&mut stream, b"\r\n\r\n").await;
        let mut part = vec![0; size / PARTS];
        for _ in 0..PARTS {
            stream.read_exact(&mut part).await.unwrap();
            tokio::time::sleep(READ_TIMEOUT / 12).await;
        }
        stream.write_all(answer(200, &[], "taken").as_bytes()).await.unwrap();
    })
    .await;
    let started = Instant::now();
    let answered = send(&open(config(&url)), request(Method::PUT, "/", &"x".repeat(size))).await.unwrap();
    assert_eq!(crate::text(answered).await, "taken");
    assert!(started.elapsed() > READ_TIMEOUT * 3, "{:?}", started.elapsed());
}

#[tokio::test]
async fn answers_before_the_final_one_do_not_disturb() {
    let early = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
    let (url, _) = answering(move |_, _| format!("{early}{}", answer(200, &[], "final"))).await;
    assert_eq!(crate::text(get(&open(once(&url)), "/").await.unwrap()).await, "final");
}
