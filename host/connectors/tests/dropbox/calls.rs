//! What every call has in common: tokens, waits, refusals.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use wharf_connectors::dropbox::Config;
use wharf_connectors::{Common, Content, Egress, ErrorKind, IfExists, Remote, RemotePath, chain};

use crate::scripted::{Call, Reply, Scripted};
use crate::{access_token, common, config, connect, file_metadata, path, refresh_token, remote};

fn metadata() -> Reply {
    Reply::ok(&file_metadata("/a", b"hello\n"))
}

fn empty_listing() -> Reply {
    Reply::ok(&json!({ "entries": [], "cursor": "c", "has_more": false }))
}

fn granted(token: &str) -> Reply {
    Reply::ok(&json!({ "access_token": token, "expires_in": 14400, "token_type": "bearer" }))
}

fn expired() -> Reply {
    let error = json!({ ".tag": "expired_access_token" });
    Reply::status(401, &json!({ "error_summary": "expired_access_token/..", "error": error }))
}

#[tokio::test]
async fn a_call_that_is_told_to_wait_waits_and_succeeds() {
    let server = Scripted::start(|_, n| match n {
        0 => Reply::text(429, "too many requests").with("Retry-After", "1"),
        _ => metadata(),
    })
    .await;
    let started = Instant::now();
    let entry = remote(&server).stat(&path("/a")).await.unwrap();
    assert_eq!((entry.size, entry.revision.as_deref()), (Some(6), Some("0123456789")));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(server.routes(), ["files/get_metadata", "files/get_metadata"]);
}

#[tokio::test]
async fn while_one_operation_waits_no_other_one_calls() {
    let server = Scripted::start(|_, n| match n {
        0 => Reply::text(429, "").with("Retry-After", "1"),
        _ => metadata(),
    })
    .await;
    let remote = remote(&server);
    let (path, started) = (path("/a"), Instant::now());
    let first = remote.stat(&path);
    let second = async {
        while server.calls().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // The answer to the first call is on its way.
        tokio::time::sleep(Duration::from_millis(200)).await;
        remote.stat(&path).await.map(|_| started.elapsed())
    };
    let (first, second) = tokio::join!(first, second);
    first.unwrap();
    assert!(second.unwrap() >= Duration::from_secs(1));
    assert_eq!(server.calls().len(), 3);
}

#[tokio::test]
async fn a_wait_beyond_the_budget_is_told_at_once_and_nothing_is_sent_meanwhile() {
    let server = Scripted::start(|_, _| Reply::text(429, "").with("Retry-After", "300")).await;
    let remote = remote(&server);
    let started = Instant::now();
    for _ in 0..2 {
        let error = remote.stat(&path("/a")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
        let wait = error.retry_after().unwrap();
        assert!((290..=300).contains(&wait.as_secs()), "{wait:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn an_overloaded_dropbox_is_tried_again_without_being_told_when() {
    let server = Scripted::start(|_, n| if n == 0 { Reply::text(503, "") } else { metadata() }).await;
    remote(&server).stat(&path("/a")).await.unwrap();
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn a_lock_on_the_folder_is_tried_again_with_the_same_content() {
    let server = Scripted::start(|_, n| match n {
        0 => Reply::refusal(&json!({ ".tag": "path", "reason": { ".tag": "too_many_write_operations" } })),
        _ => metadata(),
    })
    .await;
    let content = Content::from_bytes("hello\n");
    remote(&server).write(&path("/a"), content, IfExists::Replace).await.unwrap();
    let bodies: Vec<_> = server.calls().into_iter().map(|call| call.body).collect();
    assert_eq!(bodies, [b"hello\n", b"hello\n"]);
}

#[tokio::test]
async fn dropping_an_operation_that_waits_ends_it() {
    let server = Scripted::start(|_, n| match n {
        0 => Reply::text(429, "").with("Retry-After", "1"),
        _ => metadata(),
    })
    .await;
    let remote = remote(&server);
    let waiting = tokio::time::timeout(Duration::from_millis(500), remote.stat(&path("/a"))).await;
    assert!(waiting.is_err());
    // The next one still waits, and its call is the second.
    remote.stat(&path("/a")).await.unwrap();
    assert_eq!(server.calls().len(), 2);
}

#[tokio::test]
async fn operations_at_once_renew_the_access_token_once() {
    let server = Scripted::start(|call, _| match call.route.as_str() {
        "oauth2/token" => granted("ACCESS-1"),
        _ => metadata(),
    })
    .await;
    let remote = connect(&server, common(), refresh_token());
    let path = path("/a");
    let results = futures::future::join_all((0..8).map(|_| remote.stat(&path))).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    let calls = server.calls();
    let tokens: Vec<&Call> = calls.iter().filter(|call| call.route == "oauth2/token").collect();
    assert_eq!(tokens.len(), 1);
    let form = String::from_utf8_lossy(&tokens[0].body);
    let expected = "grant_type=refresh_token&refresh_token=REFRESH-SECRET&client_id=KEY&client_secret=APP-SECRET";
    assert_eq!(form, expected);
    assert_eq!(tokens[0].header("authorization"), None);
    let others = calls.iter().filter(|call| call.route != "oauth2/token");
    assert!(others.into_iter().all(|call| call.header("authorization") == Some("Bearer ACCESS-1")));
}

#[tokio::test]
async fn a_token_is_renewed_ahead_of_its_end_and_kept_while_that_fails() {
    let server = Scripted::start(|call, n| match (call.route.as_str(), n) {
        // Half of its life is ahead of its end.
        ("oauth2/token", 0) => Reply::ok(&json!({ "access_token": "SHORT", "expires_in": 2 })),
        ("oauth2/token", _) => Reply::text(500, "out of order"),
        _ => metadata(),
    })
    .await;
    let remote = connect(&server, common(), refresh_token());
    remote.stat(&path("/a")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1200)).await;
    remote.stat(&path("/a")).await.unwrap();
    let routes = server.routes();
    assert_eq!(routes, ["oauth2/token", "files/get_metadata", "oauth2/token", "files/get_metadata"]);
    assert_eq!(server.calls()[3].header("authorization"), Some("Bearer SHORT"));
}

#[tokio::test]
async fn an_expired_token_is_replaced_once() {
    let server = Scripted::start(|call, n| match call.route.as_str() {
        "oauth2/token" => granted(&format!("ACCESS-{n}")),
        _ if call.header("authorization") == Some("Bearer ACCESS-0") => expired(),
        _ => metadata(),
    })
    .await;
    connect(&server, common(), refresh_token()).stat(&path("/a")).await.unwrap();
    assert_eq!(server.routes(), ["oauth2/token", "files/get_metadata", "oauth2/token", "files/get_metadata"]);

    let server = Scripted::start(|call, _| match call.route.as_str() {
        "oauth2/token" => granted("ALWAYS-OLD"),
        _ => expired(),
    })
    .await;
    let error = connect(&server, common(), refresh_token()).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert_eq!(server.calls().len(), 4);

    let server = Scripted::start(|_, _| expired()).await;
    let error = connect(&server, common(), access_token()).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("refresh token"), "{error}");
    assert_eq!(server.calls().len(), 1);
}

#[tokio::test]
async fn a_revoked_refresh_token_is_denied_and_asks_for_a_login() {
    let server = Scripted::start(|_, _| {
        Reply::status(400, &json!({ "error": "invalid_grant", "error_description": "refresh token is invalid" }))
    })
    .await;
    let error = connect(&server, common(), refresh_token()).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("revoked") && error.to_string().contains("log in"), "{error}");
    assert_eq!(server.routes(), ["oauth2/token"]);
}

#[tokio::test]
async fn what_changes_nothing_is_asked_again_when_there_was_no_answer() {
    for broken in [Reply::Break, Reply::text(500, ""), Reply::text(502, "<html>")] {
        let server = Scripted::start(move |_, n| if n < 2 { broken.clone() } else { metadata() }).await;
        remote(&server).stat(&path("/a")).await.unwrap();
        assert_eq!(server.calls().len(), 3);
    }
    for retries in [0, 2] {
        let server = Scripted::start(|_, _| Reply::Break).await;
        let remote = connect(&server, Common { retries, ..common() }, access_token());
        assert_eq!(remote.stat(&path("/a")).await.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(server.calls().len(), retries as usize + 1);
        assert_eq!(remote.make_directory(&path("/a")).await.unwrap_err().kind(), ErrorKind::Interrupted);
        assert_eq!(server.calls().len(), retries as usize + 2);
    }
}

#[tokio::test]
async fn refusals_have_their_kinds_and_name_the_request() {
    let server = Scripted::start(|call, _| match call.argument["path"].as_str() {
        Some("/missing") => Reply::not_found(),
        Some("/malformed") => Reply::text(400, "Error in call to API function \"files/get_metadata\": ..."),
        Some("/failing") => Reply::text(404, "<html>not the API</html>"),
        Some("/no-json") => Reply::text(200, "<html>"),
        Some("/broken") => Reply::Break,
        Some("/future") => Reply::refusal(&json!({ ".tag": "path", "path": { ".tag": "unheard_of" } })),
        other => panic!("{other:?}"),
    })
    .await;
    let remote = remote(&server);
    for (at, kind) in [
        ("/missing", ErrorKind::NotFound),
        ("/malformed", ErrorKind::Invalid),
        ("/failing", ErrorKind::Unavailable),
        ("/no-json", ErrorKind::Unavailable),
        ("/future", ErrorKind::Conflict),
    ] {
        let error = remote.stat(&path(at)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains("request-1") && error.to_string().contains(at), "{error}");
    }
    assert_eq!(remote.stat(&path("/broken")).await.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn an_endless_answer_is_not_read_to_its_end() {
    let server = Scripted::start(|_, _| Reply::text(200, &" ".repeat(17 * 1024 * 1024))).await;
    let error = remote(&server).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
}

#[tokio::test]
async fn the_root_is_an_empty_path_to_dropbox() {
    let server = Scripted::start(|_, _| empty_listing()).await;
    let remote = remote(&server);
    remote.ping().await.unwrap();
    assert!(remote.list(&RemotePath::root()).await.unwrap().is_empty());
    let listings: Vec<_> = server.calls().into_iter().filter(|call| call.route == "files/list_folder").collect();
    assert_eq!(listings.len(), 2);
    assert!(listings.iter().all(|call| call.argument["path"] == ""));
}

#[tokio::test]
async fn secrets_are_in_no_debug_output_and_no_error() {
    let server = Scripted::start(|_, _| Reply::Break).await;
    let config = format!("{:?}", config(&server, refresh_token()));
    let error = connect(&server, common(), refresh_token()).stat(&path("/a")).await.unwrap_err();
    let odd_token = wharf_connectors::dropbox::Credentials::AccessToken("SECRET\n".to_owned().into());
    let odd = connect(&server, common(), odd_token).stat(&path("/a")).await.unwrap_err();
    for text in [config, format!("{error:?} {}", chain(&error)), format!("{odd:?} {}", chain(&odd))] {
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[tokio::test]
async fn tokens_do_not_travel_in_the_clear() {
    let server = Scripted::start(|_, _| metadata()).await;
    for setting in 0..3 {
        let mut config = config(&server, access_token());
        let url = "http://api.dropboxapi.com/".parse().unwrap();
        match setting {
            0 => config.api_url = url,
            1 => config.content_url = url,
            _ => config.token_url = url,
        }
        let config = wharf_connectors::Config::Dropbox(config);
        let error = wharf_connectors::Remote::new("team", common(), config, &std::sync::Arc::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[tokio::test]
async fn operations_of_the_account_count_against_the_limit_of_the_connection() {
    let server = Scripted::start(|call, _| match call.route.as_str() {
        "files/download" => {
            Reply::text(200, "hello\n").with("dropbox-api-result", &file_metadata("/a", b"hello\n").to_string())
        }
        _ => metadata(),
    })
    .await;
    let remote = connect(&server, wharf_connectors::Common { operations_max: 1, ..common() }, access_token());
    let (_, content) = remote.dropbox().unwrap().download(&path("/a")).await.unwrap();
    let path = path("/a");
    let second = remote.stat(&path);
    futures::pin_mut!(second);
    assert!(tokio::time::timeout(Duration::from_millis(300), &mut second).await.is_err());
    assert_eq!(server.routes(), ["files/download"]);
    drop(content);
    second.await.unwrap();
}

#[tokio::test]
async fn http_2_is_spoken_where_the_server_offers_it() {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let (pem, certificate) = (key.cert.pem(), key.cert.der().clone());
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], private)
        .unwrap();
    tls.alpn_protocols = vec![b"h2".to_vec()];
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let server = tokio::spawn(async move {
        let acceptor = TlsAcceptor::from(std::sync::Arc::new(tls));
        let mut stream = acceptor.accept(listener.accept().await.unwrap().0).await.unwrap();
        // RFC 9113 section 3.4: what a client of HTTP/2 sends first.
        let mut preface = [0; 24];
        stream.read_exact(&mut preface).await.unwrap();
        preface
    });
    let config =
        Config { api_url: url, certificate_authority: Some(pem.into_bytes()), ..Config::new(access_token()).unwrap() };
    let config = wharf_connectors::Config::Dropbox(config);
    let egress = std::sync::Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    let remote = Remote::new("team", Common { retries: 0, ..common() }, config, &egress).unwrap();
    assert_eq!(remote.ping().await.unwrap_err().kind(), ErrorKind::Interrupted);
    assert_eq!(server.await.unwrap(), *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}
