//! The public listener: what of a request reaches a service, what of its answer reaches the client, and what the host
//! says when it answers itself.

use crate::harness::Host;

#[tokio::test]
async fn a_request_reaches_the_service_whole_and_its_answer_comes_back_whole() {
    let host = Host::with(&["echo"]).await;
    let request = host
        .request(reqwest::Method::PUT, "echo/some/p%C3%A4th?a=1&b=%C3%BC+x&a=2")
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
}
