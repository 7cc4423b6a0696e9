//! Several connections to one account, and to others: who waits with whom.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dropbox_emulator::{Emulator, Fault, FaultKind, Options, Running};
use futures::{StreamExt, stream};
use serde_json::json;
use wharf_connectors::dropbox::{Config, Credentials};
use wharf_connectors::{Common, Content, Egress, ErrorKind, IfExists, Remote, RemotePath};

use crate::scripted::{Call, Reply, Scripted};
use crate::{common, config, file_metadata, path};

/// What a connection waits for in all.
const PATIENT: Duration = Duration::from_secs(10);

/// In seconds, longer than any connection waits here.
const LONG: u64 = 300;

fn open(common: Common, config: Config) -> Remote {
    let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Remote::new("team", common, wharf_connectors::Config::Dropbox(config), &egress).unwrap()
}

/// A connection that waits for `budget` at most.
fn emulated(running: &Running, root: &str, credentials: Credentials, budget: Duration) -> Remote {
    let base: url::Url = running.url().parse().unwrap();
    let config = Config {
        api_url: base.clone(),
        content_url: base.clone(),
        token_url: base.join("/oauth2/token").unwrap(),
        wait_budget: Some(budget),
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        ..Config::new(credentials).unwrap()
    };
    open(Common { root: path(root), operations_max: 32, ..common() }, config)
}

fn access_token() -> Credentials {
    Credentials::AccessToken(Options::default().access_token.into())
}

fn refresh_token() -> Credentials {
    let Options { app_key, app_secret, refresh_token, .. } = Options::default();
    Credentials::RefreshToken { app_key, app_secret: Some(app_secret.into()), refresh_token: refresh_token.into() }
}

async fn upload(remote: &Remote) -> Result<(), wharf_connectors::Error> {
    remote.write(&path("/a"), Content::from_bytes("hello\n"), IfExists::Replace).await.map(|_| ())
}

fn uploads(running: &Running) -> usize {
    running.requests().into_iter().filter(|request| request.route == "files/upload").count()
}

#[tokio::test]
async fn when_one_connection_is_told_to_wait_the_others_of_its_account_do_not_call() {
    for other_login in [access_token(), refresh_token()] {
        let running = Emulator::start(Options::default()).await.unwrap();
        let one = emulated(&running, "/one", access_token(), PATIENT);
        let other = emulated(&running, "/other", other_login, PATIENT);
        upload(&one).await.unwrap();
        upload(&other).await.unwrap();
        let busy = FaultKind::RateLimitText { retry_after_seconds: LONG };
        running.inject(Fault::on("files/upload", busy)).unwrap();
        assert_eq!(upload(&one).await.unwrap_err().kind(), ErrorKind::RateLimited);
        let before = running.requests().len();
        let error = upload(&other).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited, "{error}");
        assert!(error.retry_after().unwrap() > Duration::from_secs(LONG - 30), "{error}");
        assert_eq!(running.requests().len(), before);
    }
}

#[tokio::test]
async fn a_connection_waits_out_what_another_one_was_told() {
    let running = Emulator::start(Options::default()).await.unwrap();
    let one = emulated(&running, "/one", access_token(), Duration::from_secs(1));
    let other = emulated(&running, "/other", access_token(), PATIENT);
    // Longer than the one waits, and shorter than the other does.
    running.inject(Fault::on("files/upload", FaultKind::RateLimitJson { retry_after_seconds: 2 })).unwrap();
    let started = Instant::now();
    assert_eq!(upload(&one).await.unwrap_err().kind(), ErrorKind::RateLimited);
    upload(&other).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(2), "{:?}", started.elapsed());
    assert_eq!(uploads(&running), 2);
}

#[tokio::test]
async fn a_connection_that_is_opened_anew_remembers_what_its_account_asked_for() {
    let running = Emulator::start(Options::default()).await.unwrap();
    let (one, other) =
        (emulated(&running, "/one", access_token(), PATIENT), emulated(&running, "/other", access_token(), PATIENT));
    running.inject(Fault::on("files/upload", FaultKind::RateLimitText { retry_after_seconds: LONG })).unwrap();
    assert_eq!(upload(&one).await.unwrap_err().kind(), ErrorKind::RateLimited);
    drop(one);
    let anew = emulated(&running, "/anew", access_token(), PATIENT);
    assert_eq!(upload(&anew).await.unwrap_err().kind(), ErrorKind::RateLimited);
    assert_eq!(uploads(&running), 1);
    drop((other, anew));
    // Nobody is left who was told.
    upload(&emulated(&running, "/one", access_token(), PATIENT)).await.unwrap();
}

/// Answers with the account of each token, and is busy for the token `busy`.
fn two_accounts(call: &Call, _: usize) -> Reply {
    let token = call.header("authorization").unwrap().trim_start_matches("Bearer ").to_owned();
    match call.route.as_str() {
        "users/get_current_account" => Reply::ok(&json!({
            "account_id": format!("dbid:{token}"),
            "name": { "display_name": "Somebody" },
            "email": "somebody@example.com",
            "account_type": { ".tag": "basic" },
            "root_info": { "root_namespace_id": "1", "home_namespace_id": "1" },
        })),
        _ if token == "busy" => Reply::text(429, "").with("Retry-After", "300"),
        _ => Reply::ok(&file_metadata("/a", b"hello\n")),
    }
}

#[tokio::test]
async fn different_accounts_do_not_wait_for_each_other() {
    let server = Scripted::start(two_accounts).await;
    let login = |token: &str| open(common(), config(&server, Credentials::AccessToken(token.to_owned().into())));
    let (busy, idle) = (login("busy"), login("idle"));
    for _ in 0..2 {
        assert_eq!(busy.stat(&path("/a")).await.unwrap_err().kind(), ErrorKind::RateLimited);
        idle.stat(&path("/a")).await.unwrap();
    }
    let asked = server.routes().iter().filter(|route| *route == "users/get_current_account").count();
    assert_eq!(asked, 2, "once for each of them");
    assert_eq!(server.calls().len(), 5);
}

#[tokio::test]
async fn a_login_that_may_not_tell_its_account_works_by_itself() {
    let server = Scripted::start(|call, n| match call.route.as_str() {
        "users/get_current_account" => Reply::status(
            401,
            &json!({
                "error_summary": "missing_scope/..",
                "error": { ".tag": "missing_scope", "required_scope": "account_info.read" },
            }),
        ),
        _ => two_accounts(call, n),
    })
    .await;
    let login = |token: &str| open(common(), config(&server, Credentials::AccessToken(token.to_owned().into())));
    let (one, other) = (login("one"), login("other"));
    for remote in [&one, &other, &one, &other] {
        remote.stat(&path("/a")).await.unwrap();
    }
    assert_eq!(server.calls().len(), 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_of_all_connections_to_an_account_take_turns_and_are_not_turned_away() {
    let options = Options { change_time: Duration::from_millis(10), ..Options::default() };
    let running = Emulator::start(options).await.unwrap();
    running.inject(Fault::on("*", FaultKind::Latency { milliseconds: 20 }).times(Fault::EVERY_TIME)).unwrap();
    let remotes = [("/one", access_token()), ("/two", access_token()), ("/three", refresh_token())]
        .map(|(root, login)| emulated(&running, root, login, PATIENT));
    // Nothing is there yet, but now they know each other.
    for remote in &remotes {
        assert_eq!(remote.stat(&RemotePath::root()).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    let missing = remotes.len();
    let written = stream::iter(0..240).map(|number| {
        let remote = &remotes[number % remotes.len()];
        async move {
            let content = Content::from_bytes(format!("{number:05}").repeat(800));
            remote.write(&path(&format!("/{number}")), content, IfExists::Fail).await
        }
    });
    let written: Vec<_> = written.buffer_unordered(60).collect().await;
    for entry in written {
        entry.unwrap_or_else(|error| panic!("{}", wharf_connectors::chain(&error)));
    }
    assert_eq!(running.files().len(), 240);
    let refused = running.requests().into_iter().filter(|request| request.status != Some(200));
    assert_eq!(refused.count(), missing);
}
