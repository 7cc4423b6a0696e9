//! The public listener: what of a request reaches a service, what of its answer reaches the client, and what the host
//! says when it answers itself.

mod framing;
mod limits;
mod shutdown;

use reqwest::Method;

use crate::harness::{Host, guest};

#[tokio::test]
async fn a_request_reaches_the_service_whole_and_its_answer_comes_back_whole() {
    let host = Host::with(&["echo"]).await;
    let request = host
        .request(Method::PUT, "echo/some/p%C3%A4th?a=1&b=%C3%BC+x&a=2")
        .header("x-colour", "blue")
        .header("x-request-id", "order-17")
        .body("the body");
    let answer = host.send(request).await.expect(200);
    assert_eq!(answer.text(), "the body");
    assert_eq!(answer.header("x-echo-method"), "PUT");
    assert_eq!(answer.header("x-echo-path"), "/some/p\u{e4}th");
    assert_eq!(answer.header_all("x-echo-param"), ["a=1", "b=\u{fc} x", "a=2"]);
    assert_eq!(answer.header("x-echo-header-x-colour"), "blue");
    assert_eq!(answer.header("x-echo-trigger"), "http");
    assert_eq!(answer.header("x-echo-size"), "8");
    assert_eq!(answer.header("x-echo-id"), "order-17");
    assert_eq!(answer.header("x-request-id"), "order-17");
    assert_eq!(answer.header("content-length"), "8", "a body of known size is announced");
}

#[tokio::test]
async fn a_large_body_of_any_bytes_comes_back_unchanged() {
    let host = Host::with(&["echo", "http-echo", "bytes-body", "stream-body"]).await;
    let body: Vec<u8> = (0..5_000_011_u32).map(|index| (index.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for service in ["echo", "http-echo"] {
        let answer = host.post(service, body.clone()).await.expect(200);
        assert!(answer.body == body, "{service}: {} bytes came back, or others", answer.body.len());
    }
    for service in ["bytes-body", "stream-body"] {
        assert_eq!(host.post(service, body.clone()).await.expect(200).text(), "5000011\n", "{service}");
    }
}

#[tokio::test]
async fn an_answer_begins_and_goes_on_while_the_request_is_still_being_sent() {
    let host = Host::with(&["echo", "http-echo"]).await;
    for service in ["echo", "http-echo"] {
        let mut client = host.connect().await;
        let head = format!("POST /invoke/{service} HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send(head).await;
        client.send("5\r\nfirst\r\n").await;
        let head = client.read_until(b"\r\n\r\n").await.expect("the answer begins before the request ended");
        assert!(head.starts_with(b"HTTP/1.1 200 "), "{service}: {}", String::from_utf8_lossy(&head));
        assert_eq!(client.chunk().await.as_deref(), Some(b"first".as_slice()), "{service}");
        for word in ["second", "third."] {
            client.send(format!("6\r\n{word}\r\n")).await;
            assert_eq!(client.chunk().await.as_deref(), Some(word.as_bytes()), "{service}");
        }
        client.send("0\r\n\r\n").await;
        assert_eq!(client.chunk().await, None, "{service}");
        host.wait_until_idle(service).await;
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_no_whole_body() {
    let host = Host::with(&["bytes-body", "stream-body"]).await;
    for service in ["bytes-body", "stream-body"] {
        let mut client = host.connect().await;
        client.send(format!("POST /invoke/{service} HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\nhalf.")).await;
        host.wait_for(service, "it runs", |status| status.in_flight == 1).await;
        drop(client);
        let status = host.wait_until_idle(service).await;
        assert_eq!(status.invocations, 1);
        assert!(host.log().with(&["answered", &format!("service=\"{service}\"")]).is_empty(), "{service}");
    }
}

#[tokio::test]
async fn expect_100_continue_is_answered_when_the_service_wants_the_body() {
    let host = Host::with(&["bytes-body", "ignore-body"]).await;
    let head = |service: &str| {
        format!("POST /invoke/{service} HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    };
    let mut client = host.connect().await;
    client.send(head("bytes-body")).await;
    assert_eq!(client.answer().await.expect("an interim answer").status, 100);
    client.send("hello").await;
    assert_eq!(client.answer().await.expect("the answer").body, b"5\n");
    let mut client = host.connect().await;
    client.send(head("ignore-body")).await;
    let answer = client.answer().await.expect("an answer");
    assert_eq!((answer.status, answer.body.as_slice()), (200, b"ignored\n".as_slice()));
}

#[tokio::test]
async fn the_answer_to_head_has_no_body() {
    let host = Host::with(&["respond"]).await;
    let mut client = host.connect().await;
    client.send("HEAD /invoke/respond?text=hello HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let head = client.read_until(b"\r\n\r\n").await.expect("a head");
    assert!(String::from_utf8_lossy(&head).to_lowercase().contains("content-length: 5\r\n"));
    client.send("GET /invoke/respond?text=next HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.answer().await.expect("the next answer").body, b"next");
}

#[tokio::test]
async fn an_unknown_service_is_404_and_near_names_are_offered() {
    let host = Host::builder().service("orders.import", "echo").service("orders.export", "echo").start().await;
    let detail = host.get("orders.imprt").await.problem(404);
    assert!(detail.contains("\"orders.imprt\"") && detail.contains("did you mean orders.import"), "{detail}");
    let detail = host.get("zzz").await.problem(404);
    assert!(detail.contains("no file of this name"), "{detail}");
    // A name is a name, never a path.
    for name in ["..%2F..%2Fetc%2Fpasswd", "a%00b", "%2E%2E", "orders.import%2F"] {
        host.get(name).await.problem(404);
    }
}

#[tokio::test]
async fn other_paths_are_404_and_say_where_services_are() {
    let host = Host::with(&[]).await;
    for path in ["/", "/invoke", "/metrics", "/api/v1/services", "/readyz"] {
        let answer = host.send(Host::client().get(host.url(path))).await;
        let detail = answer.problem(404);
        assert!(detail.contains("/invoke/NAME"), "{path}: {detail}");
    }
    host.get("").await.problem(400);
}

#[tokio::test]
async fn methods_that_make_no_sense_are_405_and_the_allowed_ones_are_named() {
    let host = Host::with(&["echo"]).await;
    let mut client = host.connect().await;
    client.send("TRACE /invoke/echo HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = client.answer().await.expect("an answer");
    assert_eq!(answer.status, 405);
    let allowed: Vec<&str> = answer.header("allow").split(", ").collect();
    assert!(allowed.contains(&"GET") && allowed.contains(&"POST"), "{allowed:?}");
    assert!(allowed.iter().all(|method| method.bytes().all(|byte| byte.is_ascii_uppercase())), "{allowed:?}");
    let mut client = host.connect().await;
    client.send("CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n").await;
    assert_eq!(client.answer().await.expect("an answer").status, 405);
    for path in ["/healthz", "/readyz", "/metrics", "/api/v1/services"] {
        let answer = host.send(Host::client().post(host.admin_url(path))).await;
        answer.problem(405);
        assert_eq!(answer.header("allow"), "GET, HEAD", "{path}");
    }
    assert_eq!(host.service("echo").await.expect("it is deployed").invocations, 0);
}

#[tokio::test]
async fn every_other_method_reaches_the_service() {
    let host = Host::with(&["echo"]).await;
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH"] {
        let request = host.request(method.parse().expect("a method"), "echo");
        assert_eq!(host.send(request).await.expect(200).header("x-echo-method"), method);
    }
}

#[tokio::test]
async fn a_request_id_is_taken_over_only_when_it_is_well_formed() {
    let host = Host::with(&["echo"]).await;
    let longest = "i".repeat(128);
    for id in ["a", "order-17", "trace:01.02_03", &longest] {
        let answer = host.send(host.request(Method::GET, "echo").header("x-request-id", id)).await.expect(200);
        assert_eq!((answer.header("x-request-id").as_str(), answer.header("x-echo-id").as_str()), (id, id));
        assert_eq!(answer.header_all("x-request-id").len(), 1);
    }
    let too_long = "i".repeat(129);
    let mut made = vec![host.get("echo").await.expect(200).header("x-request-id")];
    for id in ["", "two words", "a;b", "\u{e4}", "a\tb", "{}", &too_long] {
        let value = reqwest::header::HeaderValue::from_bytes(id.as_bytes()).expect("HTTP allows it");
        let answer = host.send(host.request(Method::GET, "echo").header("x-request-id", value)).await.expect(200);
        assert_eq!(answer.header("x-request-id"), answer.header("x-echo-id"));
        made.push(answer.header("x-request-id"));
    }
    assert!(made.iter().all(|id| id.parse::<uuid::Uuid>().is_ok()), "{made:?}");
    made.dedup();
    assert_eq!(made.len(), 8, "each has one of its own: {made:?}");
    let problem = host.send(host.request(Method::GET, "nothing").header("x-request-id", "order-18")).await;
    problem.problem(404);
    assert_eq!(problem.header("x-request-id"), "order-18");
}

#[tokio::test]
async fn a_trap_is_502_and_its_last_words_are_for_the_operator_alone() {
    let host = Host::with(&["trap"]).await;
    let answer = host.send(host.request(Method::GET, "trap").header("x-request-id", "crash-1")).await;
    let detail = answer.problem(502);
    for inner in ["always panics", "trap.rs", "wasm backtrace", "last lines"] {
        assert!(!answer.text().contains(inner), "{detail}");
    }
    let failure = host.service("trap").await.and_then(|service| service.last_failure).expect("it is recorded");
    assert_eq!(failure.request_id, "crash-1");
    let details = failure.details.expect("the guest wrote to standard error");
    assert!(details.contains("this guest always panics"), "{details}");
    host.log().wait_for(&["crash-1", "failed"]).await;
    assert_eq!(host.log().with(&["crash-1", "failed"]).len(), 1, "one line says how it ended");
    let status = host.service("trap").await.expect("it is deployed");
    assert_eq!((status.state.as_str(), status.invocations, status.failures), ("serving", 1, 1));
}

#[tokio::test]
async fn a_path_that_no_guest_could_read_is_400() {
    let host = Host::with(&["echo"]).await;
    for path in ["echo/%FF", "echo/a%00b", "echo/%C3%28"] {
        host.get(path).await.problem(400);
    }
    for name in ["%FF", "%C3%28/x"] {
        host.get(name).await.problem(400);
    }
    assert_eq!(host.get("echo/%25").await.expect(200).header("x-echo-path"), "/%");
    assert_eq!(host.get("echo/a/../b//c").await.expect(200).header("x-echo-path"), "/b//c", "the client resolves dots");
    let mut client = host.connect().await;
    client.send("GET /invoke/echo/a/../b//c HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = client.answer().await.expect("an answer");
    assert_eq!(answer.header("x-echo-path"), "/a/../b//c", "a path is passed on as it is");
}

#[tokio::test]
async fn a_component_that_is_not_deployed_well_is_503_with_the_reason() {
    let host = Host::builder().service("core", "core-module").start().await;
    let answer = host.get("core").await;
    let detail = answer.problem(503);
    assert!(detail.contains("core module"), "{detail}");
    host.deploy_and_wait("core", &guest("echo")).await;
    host.get("core").await.expect(200);
}
