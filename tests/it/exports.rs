//! What a service may export, each enough by itself, and what a guest may send out with its own client.

use crate::harness::{Host, Outside};

#[tokio::test]
async fn each_kind_of_export_is_called_as_it_should_be() {
    let kinds = [
        ("hello", "wharf:host/handler", "Hello, world, from Rust\n"),
        ("hello-wasi-http", "wasi:http/incoming-handler@0.2", "Hello from wasi:http 0.2\n"),
        ("hello-wasi-http-p3", "wasi:http/handler@0.3", "Hello from wasi:http 0.3\n"),
        ("program", "wasi:cli/run@0.2", ""),
    ];
    let host = Host::with(&kinds.map(|(guest, ..)| guest)).await;
    for (guest, export, text) in kinds {
        let status = host.service(guest).await.expect("it is deployed");
        assert_eq!(status.export.as_deref(), Some(export), "{guest}: {:?}", status.last_error);
        for _ in 0..3 {
            assert_eq!(host.get(guest).await.expect(200).text(), text);
        }
    }
}

#[tokio::test]
async fn interpreted_services_answer_like_compiled_ones() {
    let host = Host::with(&["hello-javascript", "hello-python"]).await;
    for guest in ["hello-javascript", "hello-python"] {
        let text = host.get(&format!("{guest}?name=Ada")).await.expect(200).text();
        assert!(text.contains("Hello, Ada"), "{guest}: {text}");
    }
}

#[tokio::test]
async fn a_standard_http_component_sees_the_request_as_it_was_sent() {
    let host = Host::with(&["http-echo"]).await;
    let request = host.request(reqwest::Method::PATCH, "http-echo/a%2Fb/c?x=%20&y").header("x-colour", "blue");
    let answer = host.send(request.body("body")).await.expect(200);
    assert_eq!(answer.header("x-echo-method"), "PATCH");
    assert_eq!(answer.header("x-echo-path"), "/a%2Fb/c?x=%20&y");
    assert_eq!(answer.header("x-echo-header-x-colour"), "blue");
    assert_eq!(answer.text(), "body");
}

#[tokio::test]
async fn a_program_reads_the_body_and_its_output_is_the_answer() {
    let host = Host::with(&["program"]).await;
    assert_eq!(host.post("program", "shout\nthis").await.expect(200).text(), "SHOUT\nTHIS");
    assert_eq!(host.get("program").await.expect(200).text(), "", "no body is an empty input");
}

#[tokio::test]
async fn a_program_in_c_answers_while_it_reads() {
    let host = Host::with(&["hello-cli"]).await;
    assert_eq!(host.post("hello-cli", "me").await.expect(200).text(), "Hello from C. You sent:\nme");
    let input = "quite a long line of input\n".repeat(300_000);
    let output = host.post("hello-cli", input.clone()).await.expect(200);
    assert!(output.text().strip_prefix("Hello from C. You sent:\n") == Some(&*input), "{} bytes", output.body.len());
}

#[tokio::test]
async fn a_program_that_exits_with_an_error_is_502_and_its_complaint_is_for_the_operator() {
    let host = Host::with(&["program"]).await;
    assert_eq!(host.post("program", "exit 0\n").await.expect(200).text(), "");
    for code in [1, 3, 255] {
        let answer = host.post("program", format!("exit {code}\n")).await;
        let detail = answer.problem(502);
        // `wasi:cli/exit` 0.2 tells success from failure, and no more: any other code is 1.
        assert!(detail.contains("exit code 1"), "{detail}");
        assert!(!answer.text().contains("told to exit"), "{detail}");
        let failure = host.service("program").await.and_then(|service| service.last_failure).expect("it is recorded");
        assert!(failure.message.contains("exit code 1"), "{}", failure.message);
        let details = failure.details.expect("it wrote to standard error");
        assert!(details.contains(&format!("told to exit with {code}")), "{details}");
    }
}

#[tokio::test]
async fn a_program_may_answer_more_than_the_host_holds() {
    let host = Host::with(&["program"]).await;
    let input = "quite a long line of input\n".repeat(300_000);
    let output = host.post("program", input.clone()).await.expect(200);
    assert!(output.body == input.to_uppercase().as_bytes(), "{} bytes came back, or others", output.body.len());
}

#[tokio::test]
async fn an_outgoing_request_without_a_grant_is_denied_and_never_sent() {
    let outside = Outside::start("outside").await;
    let host = Host::builder()
        .configuration("connections = { world = { type = 'http', url = 'http://127.0.0.1:${port}' } }")
        .set("port", outside.port())
        .services(&["outgoing"])
        .start()
        .await;
    let detail = host.get(&format!("outgoing?url=http://127.0.0.1:{}/secret?key=1", outside.port())).await.problem(503);
    assert!(detail.contains("HttpRequestDenied"), "{detail}");
    assert_eq!(outside.connections(), 0);
    let said = host.log().wait_for(&["an outgoing request is denied", "may not use connection world"]).await;
    assert!(!said.contains("secret") && !said.contains("key=1"), "{said}");
}

#[tokio::test]
async fn an_outgoing_request_goes_where_a_grant_allows_it_and_nowhere_else() {
    let outside = Outside::start("outside").await;
    let other = Outside::start("other").await;
    let host = Host::builder()
        .configuration(
            "[host]
            egress-allow = ['127.0.0.0/8']
            [connections.world]
            type = 'http'
            url = 'http://127.0.0.1:${port}/open'
            [services.outgoing]
            grants = [{ connection = 'world' }]",
        )
        .set("port", outside.port())
        .services(&["outgoing"])
        .start()
        .await;
    let get = async |port: u16, path: &str| host.get(&format!("outgoing?url=http://127.0.0.1:{port}{path}")).await;
    assert_eq!(get(outside.port(), "/open/file").await.expect(200).text(), "outside");
    assert_eq!(outside.connections(), 1);
    for path in ["/", "/closed", "/opened", "/open/../closed", "/open/%2e%2e/closed", "/open/..%2Fclosed"] {
        get(outside.port(), path).await.problem(503);
    }
    get(other.port(), "/open/file").await.problem(503);
    assert_eq!((outside.connections(), other.connections()), (1, 0));
}

#[tokio::test]
async fn the_outgoing_policy_holds_for_a_granted_connection_after_dns() {
    let outside = Outside::start("outside").await;
    for name in ["127.0.0.1", "localhost"] {
        let host = Host::builder()
            .configuration(
                "[host]
                egress-allow = ['10.0.0.0/8']
                [connections.world]
                type = 'http'
                url = 'http://${name}:${port}'
                [services.outgoing]
                grants = [{ connection = 'world' }]",
            )
            .set("name", name)
            .set("port", outside.port())
            .services(&["outgoing"])
            .start()
            .await;
        let detail = host.get(&format!("outgoing?url=http://{name}:{}/", outside.port())).await.problem(503);
        assert!(detail.contains("DestinationIpProhibited"), "{name}: {detail}");
        assert_eq!(outside.connections(), 0, "{name}");
    }
}
