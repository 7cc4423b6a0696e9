//! What a guest cannot reach, how much it may use, what becomes of its failures, and how services call each other.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::harness::Host;

#[tokio::test]
async fn a_guest_sees_no_file_no_variable_no_socket_and_no_process() {
    let host = Host::builder().variable("WHARF_TEST_SECRET", "hunter2").services(&["probe"]).start().await;
    let answer = host.get("probe").await.expect(200);
    assert!(!answer.text().contains("hunter2"));
    let found = answer.json();
    let attempts = found
        .as_object()
        .expect("an object")
        .iter()
        .filter(|(name, _)| !matches!(name.as_str(), "environment" | "arguments" | "random" | "clock"));
    let mut denied = 0;
    for (attempt, outcome) in attempts {
        assert!(outcome.as_str().is_some_and(|outcome| outcome.starts_with("denied: ")), "{attempt}: {outcome}");
        denied += 1;
    }
    assert_eq!(denied, 9, "the probe tries so many things: {found}");
    assert_eq!(found["environment"], serde_json::json!([]));
    assert_eq!(found["arguments"], serde_json::json!([]));
}

#[tokio::test]
async fn a_guest_has_a_clock_and_random_numbers() {
    let host = Host::with(&["probe"]).await;
    let (first, second) = (host.get("probe").await.expect(200).json(), host.get("probe").await.expect(200).json());
    assert_ne!(first["random"], second["random"]);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
    assert!(first["clock"].as_u64().is_some_and(|seconds| now.abs_diff(seconds) < 60), "{first}");
}

#[tokio::test]
async fn a_guest_has_the_memory_that_its_service_allows_and_no_more() {
    let host = Host::builder()
        .configuration("services = { small = { memory = '16MiB' }, allocate = { memory = '32MiB' } }")
        .service("small", "memory")
        .services(&["memory", "allocate"])
        .start()
        .await;
    assert_eq!(host.get("small?mib=8").await.expect(200).text(), "8388608 bytes\n");
    assert_eq!(host.get("memory?mib=64").await.expect(200).text(), "67108864 bytes\n");
    for (target, limit) in [("small?mib=64", "16 MiB"), ("allocate", "32 MiB"), ("memory?mib=500", "128 MiB")] {
        host.get(target).await.problem(502);
        let name = target.split('?').next().expect("there is a first part");
        let failure = host.service(name).await.and_then(|service| service.last_failure).expect("it is recorded");
        assert!(failure.message.contains(&format!("memory limit of {limit}")), "{target}: {}", failure.message);
    }
    assert_eq!(host.get("small?mib=8").await.expect(200).text(), "8388608 bytes\n");
}

#[tokio::test]
async fn each_error_of_a_guest_has_its_status() {
    let host = Host::with(&["fail"]).await;
    for (code, status) in [
        ("not-found", 404),
        ("already-exists", 409),
        ("denied", 403),
        ("invalid", 400),
        ("too-large", 413),
        ("timeout", 504),
        ("unavailable", 503),
        ("rate-limited", 429),
        ("conflict", 409),
        ("unsupported", 501),
        ("interrupted", 502),
        ("internal", 500),
    ] {
        let detail = host.get(&format!("fail?code={code}")).await.problem(status);
        assert_eq!(detail, format!("this guest fails with {code}"));
    }
    let status = host.service("fail").await.expect("it is deployed");
    assert!(status.last_failure.is_none(), "an answer of the guest, even an error, is no failure of the service");
}

#[tokio::test]
async fn what_a_guest_answers_is_http_or_502() {
    let host = Host::with(&["respond"]).await;
    for status in [200, 201, 404, 418, 500, 599] {
        let answer = host.get(&format!("respond?status={status}&header=x-a:b&header=x-a:c&text=hello")).await;
        assert_eq!((answer.status, answer.text().as_str()), (status, "hello"));
        assert_eq!(answer.header_all("x-a"), ["b", "c"]);
    }
    for query in [
        "status=99",
        "status=101",
        "status=199",
        "status=600",
        "status=0",
        "header=bad%20name:x",
        "header=:x",
        "header=x-a:b%0D%0AX-Injected:%20yes",
        "header=x-a:b%00c",
    ] {
        let answer = host.get(&format!("respond?text=hello&{query}")).await;
        answer.problem(502);
        assert_eq!(answer.header("x-injected"), "", "{query}");
    }
}

#[tokio::test]
async fn a_guest_has_no_say_in_how_its_answer_is_framed() {
    let host = Host::with(&["respond"]).await;
    let mut client = host.connect().await;
    for header in ["content-length:2", "content-length:2000", "transfer-encoding:chunked", "connection:close", "te:x"] {
        client.send(format!("GET /invoke/respond?header={header}&text=hello HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let answer = client.answer().await.expect("the connection is kept");
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"hello".as_slice()), "{header}: {}", answer.head);
    }
    for status in [204, 205, 304] {
        client.send(format!("GET /invoke/respond?status={status}&text=hello HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        let answer = client.answer().await.expect("an answer");
        assert_eq!(answer.status, status);
        client.send("GET /invoke/respond?text=next HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.answer().await.expect("the next answer").body, b"next", "{status}");
    }
    let spoofed = host.get("respond?header=x-request-id:forged").await.expect(200);
    assert_ne!(spoofed.header("x-request-id"), "forged");
    assert_eq!(spoofed.header_all("x-request-id").len(), 1);
}

#[tokio::test]
async fn services_call_each_other_under_one_id() {
    let host = Host::builder().service("a", "call").service("b", "call").services(&["echo", "fail"]).start().await;
    let call = host.request(reqwest::Method::GET, "a?service=b").header("x-request-id", "chain-1");
    assert_eq!(host.send(call).await.expect(200).text(), "the end, in chain-1\n");
    let answer = host.post("a?service=b,echo", "handed on").await.expect(200);
    assert_eq!((answer.text().as_str(), answer.header("x-echo-trigger").as_str()), ("handed on", "service b"));
    assert_eq!(host.get("a?service=b,fail&code=rate-limited").await.problem(429), "this guest fails with rate-limited");
    let detail = host.get("a?service=b,nobody").await.problem(404);
    assert!(detail.contains("\"nobody\""), "{detail}");
}

#[tokio::test]
async fn a_ring_of_services_is_an_error_that_shows_the_ring() {
    let host = Host::builder().service("a", "call").service("b", "call").service("c", "call").start().await;
    for (target, ring) in [("a?service=a", "a -> a"), ("a?service=b,c,a", "a -> b -> c -> a")] {
        let begun = Instant::now();
        let detail = host.get(target).await.problem(409);
        assert!(detail.contains(ring) && detail.contains("ring"), "{detail}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test]
async fn a_chain_of_services_has_an_end() {
    let names: Vec<String> = (1..=17).map(|index| format!("link-{index}")).collect();
    let host = names.iter().fold(Host::builder(), |builder, name| builder.service(name, "call")).start().await;
    let chain = |length: usize| format!("link-1?service={}", names[1..length].join(","));
    assert!(host.get(&chain(16)).await.expect(200).text().starts_with("the end"));
    let detail = host.get(&chain(17)).await.problem(409);
    assert!(detail.contains("chain of more than 16"), "{detail}");
}

#[tokio::test]
async fn the_callers_deadline_holds_for_whom_it_calls() {
    let host = Host::builder()
        .configuration("services = { caller = { timeout = '400ms' } }")
        .service("caller", "call")
        .services(&["sleep", "spin"])
        .start()
        .await;
    for (target, callee) in [("caller?service=sleep&ms=20000", "sleep"), ("caller?service=spin", "spin")] {
        let begun = Instant::now();
        host.get(target).await.problem(504);
        assert!(begun.elapsed() < Duration::from_secs(5), "{target}: {:?}", begun.elapsed());
        host.wait_until_idle(callee).await;
    }
}

#[tokio::test]
async fn a_callee_that_traps_is_an_error_for_its_caller_not_its_end() {
    let host = Host::builder().service("caller", "call").services(&["trap"]).start().await;
    let detail = host.get("caller?service=trap").await.problem(503);
    assert!(detail.contains("invoking trap") && !detail.contains("always panics"), "{detail}");
    assert!(host.service("caller").await.expect("it is deployed").last_failure.is_none());
    assert!(host.service("trap").await.expect("it is deployed").last_failure.is_some());
}

#[tokio::test]
async fn what_a_guest_prints_is_in_the_log_with_its_id() {
    let host = Host::with(&["log"]).await;
    let printed = host.request(reqwest::Method::GET, "log?lines=3").header("x-request-id", "print-1");
    host.send(printed).await.expect(200);
    for stream in ["stdout", "stderr"] {
        for line in ["line 1 ", "line 2 ", "line 3 "] {
            host.log().wait_for(&["print-1", "service=log", stream, line]).await;
        }
    }
    let first = host.log().with(&["print-1", "line "]);
    assert_eq!(first.len(), 6, "{first:?}");
}

#[tokio::test]
async fn a_guest_cannot_forge_or_flood_the_log() {
    let host = Host::with(&["log", "fail"]).await;
    let print = |id: &'static str, query: &str| {
        host.request(reqwest::Method::GET, &format!("log?{query}")).header("x-request-id", id)
    };
    host.send(print("forge-1", "lines=1&text=%1B%5B2J%0A2026-01-01T00:00:00Z%20%20INFO%20forged%0Drewritten")).await;
    let said = "2026-01-01T00:00:00Z%20%20INFO%20forged";
    let failed = host.request(reqwest::Method::GET, &format!("fail?code=%0A{said}%0D%1B%5B2J"));
    host.send(failed.header("x-request-id", "forge-2")).await.problem(400);
    for id in ["forge-1", "forge-2"] {
        host.log().wait_for(&[id, "duration_ms"]).await;
    }
    for line in host.log().lines() {
        assert!(!line.contains(['\x1b', '\r']), "{line:?}");
        assert!(!line.contains("forged") || line.contains("forge-1") || line.contains("forge-2"), "{line:?}");
    }
    host.send(print("flood-1", "lines=3000&bytes=100")).await.expect(200);
    for stream in ["stdout", "stderr"] {
        host.log().wait_for(&["flood-1", stream, "the rest is dropped"]).await;
    }
    host.log().wait_for(&["flood-1", "answered"]).await;
    let kept = host.log().with(&["flood-1", "line "]).len();
    assert!((1_200..=1_312).contains(&kept), "64 KiB of each output are kept: {kept} lines");
    host.send(print("long-1", "lines=1&bytes=10000")).await.expect(200);
    host.log().wait_for(&["long-1", "answered"]).await;
    assert!(host.log().lines().iter().all(|line| line.len() < 5_000));
    assert_eq!(host.log().with(&["long-1", "xxxxx"]).len(), 6, "each of two long lines is cut into three");
}

#[tokio::test]
async fn each_invocation_has_an_instance_of_its_own() {
    let host = Host::with(&["count"]).await;
    for _ in 0..5 {
        assert_eq!(host.get("count").await.expect(200).text(), "1\n");
    }
}

#[tokio::test]
async fn a_reused_instance_serves_as_often_as_it_may_and_none_that_failed_serves_again() {
    let host = Host::builder()
        .configuration("services = { count = { reuse = 3, timeout = '500ms' } }")
        .services(&["count"])
        .start()
        .await;
    let count = async || host.get("count").await.expect(200).text();
    let six: Vec<String> =
        [count().await, count().await, count().await, count().await, count().await, count().await].into();
    assert_eq!(six, ["1\n", "2\n", "3\n", "1\n", "2\n", "3\n"]);
    assert_eq!(count().await, "1\n");
    host.get("count?then=trap").await.problem(502);
    assert_eq!(count().await, "1\n", "one that trapped is retired");
    host.get("count?then=spin").await.problem(504);
    assert_eq!(count().await, "1\n", "one that was interrupted is retired");
    host.get("count?then=fail").await.problem(400);
    assert_eq!(count().await, "3\n", "an error is an answer");
}
