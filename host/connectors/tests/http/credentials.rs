//! Who the connection is, as its origin sees it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{HeaderName, Method};
use wharf_connectors::http::{
    ClientAuthentication, ClientCredentials, Config, Credentials, DefaultHeader, DefaultValue, Origin,
};
use wharf_connectors::{ErrorKind, chain};

use crate::{Heard, answer, answering, config, get, open, request, send, streamed, text};

fn with(url: &str, credentials: Credentials) -> Config {
    Config { credentials, ..config(url) }
}

fn client(url: &str) -> ClientCredentials {
    ClientCredentials {
        token_url: format!("{url}/token").parse().unwrap(),
        client_id: "wharf client".to_owned(),
        client_secret: "s:cret".into(),
        scopes: vec!["read".to_owned(), "write".to_owned()],
        audience: Some("orders".to_owned()),
        authentication: ClientAuthentication::Basic,
    }
}

#[tokio::test]
async fn credentials_are_added_and_take_the_place_of_what_the_caller_wrote() {
    let (url, seen) = answering(|_, _| answer(200, &[], "")).await;
    let basic = Credentials::Basic { user: "Aladdin".to_owned(), password: "open sesame".into() };
    for credentials in [
        basic,
        Credentials::Bearer("t0k3n".into()),
        Credentials::KeyHeader(HeaderName::from_static("x-api-key"), "k3y".into()),
        Credentials::KeyParameter("key".to_owned(), "k3y".into()),
        Credentials::None,
    ] {
        let mut request = request(Method::GET, "/", "");
        request.query = vec![("key".to_owned(), "mine".to_owned()), ("a".to_owned(), "1".to_owned())];
        for name in ["authorization", "x-api-key"] {
            request.headers.insert(name, "mine".parse().unwrap());
        }
        send(&open(with(&url, credentials)), request).await.unwrap();
    }
    let seen: Vec<_> = seen
        .all()
        .iter()
        .map(|heard| {
            [Some(heard.line.as_str()), heard.header("authorization"), heard.header("x-api-key")]
                .map(|part| part.unwrap_or("none").to_owned())
        })
        .collect();
    assert_eq!(
        seen,
        [
            // The example of RFC 7617 section 2.
            ["GET /?key=mine&a=1", "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", "mine"],
            ["GET /?key=mine&a=1", "Bearer t0k3n", "mine"],
            ["GET /?key=mine&a=1", "mine", "k3y"],
            ["GET /?a=1&key=k3y", "mine", "mine"],
            ["GET /?key=mine&a=1", "mine", "mine"],
        ]
    );
}

#[tokio::test]
async fn default_headers_give_way_and_secret_ones_do_not() {
    let (url, seen) = answering(|_, _| answer(200, &[], "")).await;
    let header = |name, value| DefaultHeader { name: HeaderName::from_static(name), value };
    let headers = vec![
        header("accept", DefaultValue::Plain("application/json".to_owned())),
        header("x-tenant", DefaultValue::Secret("42".into())),
        header("x-plain", DefaultValue::Plain("kept".to_owned())),
    ];
    let origin = open(Config { headers, user_agent: Some("tester/1".to_owned()), ..config(&url) });
    let mut request = request(Method::GET, "/", "");
    request.headers.insert("accept", "text/plain".parse().unwrap());
    request.headers.insert("x-tenant", "7".parse().unwrap());
    send(&origin, request).await.unwrap();
    let heard = &seen.all()[0];
    let values = ["accept", "x-tenant", "x-plain", "user-agent"].map(|name| heard.header(name).unwrap());
    assert_eq!(values, ["text/plain", "42", "kept", "tester/1"]);
}

fn token_server(life: &'static str) -> impl Fn(usize, &Heard) -> String + Send + Sync + 'static {
    let issued = AtomicUsize::new(0);
    move |_, heard| match heard.line.as_str() {
        "POST /token" => {
            let number = issued.fetch_add(1, Ordering::SeqCst) + 1;
            answer(200, &[], &format!(r#"{{"access_token":"t{number}","token_type":"Bearer"{life}}}"#))
        }
        // The first token was revoked meanwhile.
        "GET /revoked" | "POST /revoked" if heard.header("authorization") == Some("Bearer t1") => {
            answer(401, &[], "expired")
        }
        "GET /never" => answer(401, &[], "never"),
        _ => answer(200, &[], heard.header("authorization").unwrap_or("none")),
    }
}

#[tokio::test]
async fn one_token_serves_many_requests_and_is_asked_for_as_the_standard_says() {
    let (url, seen) = answering(token_server(r#","expires_in":3600"#)).await;
    let origin = Arc::new(open(with(&url, Credentials::ClientCredentials(client(&url)))));
    let together = (0..10).map(|_| {
        let origin = Arc::clone(&origin);
        tokio::spawn(async move { text(get(&origin, "/").await.unwrap()).await })
    });
    for answer in futures::future::join_all(together).await {
        assert_eq!(answer.unwrap(), "Bearer t1");
    }
    let asked: Vec<Heard> = seen.all().into_iter().filter(|heard| heard.line == "POST /token").collect();
    assert_eq!(asked.len(), 1, "one at a time");
    // "wharf+client:s%3Acret"
    assert_eq!(asked[0].header("authorization"), Some("Basic d2hhcmYrY2xpZW50OnMlM0FjcmV0"));
    assert_eq!(asked[0].body, "grant_type=client_credentials&scope=read+write&audience=orders");

    let form = ClientCredentials {
        authentication: ClientAuthentication::Form,
        scopes: Vec::new(),
        audience: None,
        ..client(&url)
    };
    get(&open(with(&url, Credentials::ClientCredentials(form))), "/").await.unwrap();
    let asked = seen.all().into_iter().rfind(|heard| heard.line == "POST /token").unwrap();
    assert_eq!(asked.header("authorization"), None);
    assert_eq!(asked.body, "grant_type=client_credentials&client_id=wharf+client&client_secret=s%3Acret");
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end() {
    let (url, _) = answering(token_server(r#","expires_in":"0.4""#)).await;
    let origin = open(with(&url, Credentials::ClientCredentials(client(&url))));
    assert_eq!(text(get(&origin, "/").await.unwrap()).await, "Bearer t1");
    // Half of its life is over, the other half is not.
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(text(get(&origin, "/").await.unwrap()).await, "Bearer t2");
}

#[tokio::test]
async fn a_refused_token_is_replaced_once() {
    let (url, seen) = answering(token_server("")).await;
    let origin = open(with(&url, Credentials::ClientCredentials(client(&url))));
    let again = send(&origin, request(Method::POST, "/revoked", "in memory")).await.unwrap();
    assert_eq!(text(again).await, "Bearer t2");
    assert_eq!(get(&origin, "/never").await.unwrap().status, 401);
    let lines = seen.lines();
    assert_eq!(
        lines,
        ["POST /token", "POST /revoked", "POST /token", "POST /revoked", "GET /never", "POST /token", "GET /never"]
    );

    let origin = open(with(&answering(token_server("")).await.0, Credentials::ClientCredentials(client(&url))));
    let mut streaming = request(Method::POST, "/revoked", "");
    streaming.content = streamed("once");
    let answered = send(&origin, streaming).await;
    // This origin's token endpoint is the other server, whose next token is t4: nothing is refused here.
    assert_eq!(answered.unwrap().status, 200);
}

#[tokio::test]
async fn a_stream_that_met_an_expired_token_is_not_sent_twice_and_the_error_says_so() {
    let (url, seen) = answering(token_server("")).await;
    let origin = open(with(&url, Credentials::ClientCredentials(client(&url))));
    let streaming = || {
        let mut request = request(Method::POST, "/revoked", "");
        request.content = streamed("once");
        request
    };
    let error = send(&origin, streaming()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
    assert!(error.to_string().contains("was a stream, which cannot be sent a second time"), "{error}");
    assert_eq!(seen.lines(), ["POST /token", "POST /revoked"]);
    assert_eq!(send(&origin, streaming()).await.unwrap().status, 200);
}

async fn token_problem(told: &str) -> (ErrorKind, String) {
    let told = told.to_owned();
    let (url, seen) = answering(move |_, _| told.clone()).await;
    let error = get(&fails_fast(&url), "/").await.unwrap_err();
    assert!(seen.lines().iter().all(|line| line == "POST /token"), "nothing is sent without a token");
    let told = chain(&error);
    assert!(!told.contains("s:cret") && !told.contains("czpjcmV0"), "{told}");
    (error.kind(), told)
}

fn fails_fast(url: &str) -> Origin {
    open(Config { ..with(url, Credentials::ClientCredentials(client(url))) })
}

#[tokio::test]
async fn each_failure_of_a_token_endpoint_is_told_as_what_it_is() {
    let refusal = r#"{"error":"invalid_client","error_description":"no such client"}"#;
    let repeating = r#"{"error":"invalid_client","error_description":"no client has s:cret"}"#;
    let endless = "x".repeat(200_000);
    for (told, kind, part) in [
        (answer(200, &[], "<html>"), ErrorKind::Unavailable, "it is not JSON"),
        (answer(200, &[], r#"{"token":"x"}"#), ErrorKind::Unavailable, "no access_token"),
        (answer(200, &[], r#"{"access_token":7}"#), ErrorKind::Unavailable, "no access_token, or another form"),
        (answer(200, &[], r#"{"access_token":"a\nb"}"#), ErrorKind::Unavailable, "cannot stand in a header"),
        (answer(200, &[], r#"{"access_token":"a","token_type":"mac"}"#), ErrorKind::Unavailable, "token_type is mac"),
        (answer(200, &[], r#"{"access_token":"a","expires_in":"soon"}"#), ErrorKind::Unavailable, "not a number"),
        (answer(200, &[], r#"{"access_token":"a","expires_in":"NaN"}"#), ErrorKind::Unavailable, "not a number"),
        (answer(200, &[], &endless), ErrorKind::Unavailable, "longer than"),
        (answer(401, &[], refusal), ErrorKind::Denied, "status 401: invalid_client: no such client"),
        (answer(401, &[], repeating), ErrorKind::Denied, "it repeats the client's secret"),
        (answer(400, &[], "what?"), ErrorKind::Denied, "status 400: it does not say why"),
        (answer(302, &["location: /elsewhere"], ""), ErrorKind::Denied, "set token-url to the final place"),
        (answer(503, &["retry-after: 7"], ""), ErrorKind::Unavailable, "fails with status 503"),
        (answer(429, &[], ""), ErrorKind::RateLimited, "asked too often"),
        (
            "nonsense\r\n\r\n".to_owned(),
            ErrorKind::Interrupted,
            "no access token from 127.0.0.1: what 127.0.0.1 answers is not HTTP",
        ),
    ] {
        let (got, message) = token_problem(&told).await;
        assert_eq!(got, kind, "{message}");
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[tokio::test]
async fn contradicting_settings_are_refused() {
    for (settings, part) in [
        (with("https://x/", Credentials::Basic { user: "a:b".to_owned(), password: "p".into() }), "colon"),
        (
            Config {
                headers: vec![DefaultHeader {
                    name: HeaderName::from_static("authorization"),
                    value: DefaultValue::Secret("x".into()),
                }],
                ..with("https://x/", Credentials::Bearer("t".into()))
            },
            "authorization is set twice",
        ),
        (config("https://user:pass@x/"), "user name or password"),
        (config("https://x/?a=b"), "query"),
        (config("ftp://x/"), "https:// or http://"),
    ] {
        let error = crate::try_open(settings).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    }
}
