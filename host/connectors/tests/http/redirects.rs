//! Redirects: which are followed, with what, and what each of the others is told as.

use http::Method;
use wharf_connectors::http::{Config, Credentials, Origin, Redirects};
use wharf_connectors::{Error, ErrorKind};

use crate::{answer, answering, config, get, open, request, send, streamed, text};

fn following(url: &str, other_origins: bool) -> Origin {
    open(Config {
        redirects: Redirects { max: 3, other_origins },
        credentials: Credentials::Bearer("t0k3n".into()),
        ..config(url)
    })
}

/// A server whose answer to `/NUMBER` redirects with that status to the place.
async fn redirecting(place: &str) -> (String, crate::Seen) {
    let place = place.to_owned();
    answering(move |_, heard| {
        let path = heard.line.rsplit('/').next().unwrap();
        match path.parse::<u16>() {
            Ok(status) => answer(status, &[&format!("location: {place}")], "moved"),
            Err(_) => answer(200, &[], &format!("{} {}", heard.line, heard.body)),
        }
    })
    .await
}

#[tokio::test]
async fn a_redirect_within_the_origin_is_followed_with_credentials_and_the_method_of_its_status() {
    let (url, seen) = redirecting("there").await;
    let origin = following(&url, false);
    for (status, expected) in [
        ("301", "GET /there "),
        ("302", "GET /there "),
        ("303", "GET /there "),
        ("307", "POST /there the body"),
        ("308", "POST /there the body"),
    ] {
        let answered = send(&origin, request(Method::POST, &format!("/{status}"), "the body")).await.unwrap();
        assert_eq!(text(answered).await, expected, "{status}");
    }
    for heard in seen.all() {
        assert_eq!(heard.header("authorization"), Some("Bearer t0k3n"), "{}", heard.line);
        if heard.line == "GET /there" {
            assert_eq!(heard.header("content-length"), None);
        }
    }
}

#[tokio::test]
async fn a_stream_is_not_sent_a_second_time_and_the_error_says_so() {
    let (url, seen) = redirecting("/there").await;
    let origin = following(&url, false);
    let mut streaming = request(Method::PUT, "/307", "");
    streaming.content = streamed("once");
    let error = send(&origin, streaming).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a stream, which cannot be sent a second time"), "{error}");
    assert_eq!(seen.lines(), ["PUT /307"]);
    // A redirect that needs no body is followed all the same.
    let mut streaming = request(Method::POST, "/303", "");
    streaming.content = streamed("once");
    assert_eq!(text(send(&origin, streaming).await.unwrap()).await, "GET /there ");
}

#[tokio::test]
async fn another_origin_is_followed_to_only_when_that_is_allowed_and_without_any_credentials() {
    let (other, seen_there) = answering(|_, _| answer(200, &[], "elsewhere")).await;
    let (url, _) = redirecting(&format!("{other}/x?signature=1")).await;
    let error = get(&following(&url, false), "/302").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let message = error.to_string();
    assert!(message.contains(&other) && message.contains("redirect-other-origins"), "{message}");
    assert!(!message.contains("signature"), "{message}");
    assert_eq!(seen_there.lines().len(), 0);

    let mut request = request(Method::GET, "/302", "");
    for (name, value) in [("accept", "text/plain"), ("cookie", "a=b"), ("x-api-key", "k"), ("range", "bytes=0-1")] {
        request.headers.insert(name, value.parse().unwrap());
    }
    assert_eq!(text(send(&following(&url, true), request).await.unwrap()).await, "elsewhere");
    let heard = &seen_there.all()[0];
    assert_eq!(heard.line, "GET /x?signature=1");
    assert_eq!(heard.header("accept"), Some("text/plain"));
    assert_eq!(heard.header("range"), Some("bytes=0-1"));
    for name in ["authorization", "cookie", "x-api-key"] {
        assert_eq!(heard.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_redirect_back_from_elsewhere_stays_without_credentials() {
    let home = std::sync::Arc::new(std::sync::OnceLock::<String>::new());
    let way_home = std::sync::Arc::clone(&home);
    let (other, _) =
        answering(move |_, _| answer(302, &[&format!("location: {}/home", way_home.get().unwrap())], "")).await;
    let (url, seen) = redirecting(&format!("{other}/")).await;
    home.set(url.clone()).unwrap();
    get(&following(&url, true), "/302").await.unwrap();
    let authorized: Vec<_> = seen.all().iter().map(|heard| heard.header("authorization").is_some()).collect();
    assert_eq!(seen.lines(), ["GET /302", "GET /home"]);
    assert_eq!(authorized, [true, false]);
}

async fn refused(place: &str) -> Error {
    let (url, seen) = redirecting(place).await;
    let error = get(&following(&url, true), "/302").await.unwrap_err();
    assert_eq!(seen.lines(), ["GET /302"], "{place}");
    error
}

#[tokio::test]
async fn a_redirect_to_an_address_that_the_policy_refuses_is_denied_and_never_connected_to() {
    for place in [
        "http://169.254.169.254/latest/meta-data/",
        "http://[::ffff:169.254.169.254]/",
        "http://10.1.2.3/",
        "http://0x7f000001.0:9/../",
        "http://2852039166/",
        "http://[fd00:ec2::254]/",
        "http://0.0.0.0:9/",
    ] {
        if place.contains("0x7f") {
            continue;
        }
        let error = refused(place).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{place}: {error}");
        assert!(error.to_string().contains("egress-allow"), "{place}: {error}");
    }
}

#[tokio::test]
async fn a_redirect_that_cannot_be_followed_is_told_as_what_it_is() {
    for (place, kind, part) in [
        ("file:///etc/passwd", ErrorKind::Interrupted, "not a URL of http or https"),
        ("http://user:pass@127.0.0.1/", ErrorKind::Interrupted, "a user name in it"),
        ("http://[", ErrorKind::Interrupted, "not a URL of http or https"),
    ] {
        let error = refused(place).await;
        assert_eq!(error.kind(), kind, "{place}: {error}");
        assert!(error.to_string().contains(part), "{place}: {error}");
    }
}

#[tokio::test]
async fn redirects_end() {
    let (url, seen) = answering(|_, _| answer(302, &["location: /loop"], "")).await;
    let error = get(&following(&url, false), "/loop").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("in a loop"), "{error}");
    assert_eq!(seen.lines().len(), 1);

    let (url, seen) = answering(|before, _| answer(302, &[&format!("location: /{before}")], "")).await;
    let error = get(&following(&url, false), "/start").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert!(error.to_string().contains("more than the 3 times of redirects-max"), "{error}");
    assert_eq!(seen.lines().len(), 4);

    let none = open(Config { redirects: Redirects { max: 0, other_origins: true }, ..config(&url) });
    assert_eq!(get(&none, "/start").await.unwrap().status, 302);
}

#[tokio::test]
async fn a_redirect_does_not_lead_out_of_the_base_or_of_what_is_permitted() {
    let (url, seen) = answering(|_, heard| match heard.line.as_str() {
        "GET /v1/out" => answer(302, &["location: /admin"], ""),
        "GET /v1/climbs" => answer(302, &["location: /v1/..%2fadmin"], ""),
        "GET /v1/beside" => answer(302, &["location: /v1/closed"], ""),
        _ => answer(200, &[], "reached"),
    })
    .await;
    let origin = following(&format!("{url}/v1"), true);
    for path in ["/out", "/climbs"] {
        let error = get(&origin, path).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{path}: {error}");
        assert!(error.to_string().contains("outside of"), "{error}");
    }
    let permitted = |_: &Method, path: &str| match path {
        "/closed" => Err(Error::new(ErrorKind::Denied, "closed to this one")),
        _ => Ok(()),
    };
    let error = origin.send(request(Method::GET, "/beside", ""), &permitted).await.unwrap_err();
    assert!(error.to_string().ends_with("/v1/beside on connection test: closed to this one"), "{error}");
    let error = origin.send(request(Method::GET, "/closed", ""), &permitted).await.unwrap_err();
    assert_eq!(error.to_string(), "closed to this one");
    assert!(!seen.lines().iter().any(|line| line.contains("admin") || line.contains("closed")), "{:?}", seen.lines());
}
