//! Against the emulator, over TLS: each fault that it can inject has its promised outcome, and the files stay right.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dropbox_emulator::{Emulator, Fault, FaultKind, Options, Running};
use futures::{StreamExt, stream};
use wharf_connectors::dropbox::{Config, Credentials, MetadataKind, UploadOptions, WriteMode};
use wharf_connectors::{
    ByteRange, Common, Content, Egress, ErrorKind, IfExists, Outcome, Remote, RemotePath, TransferOptions, chain,
    deadline, transfer,
};

use crate::{common, path};

const HELLO: &[u8] = b"hello\n";

async fn emulator() -> Running {
    Emulator::start(Options::default()).await.unwrap()
}

fn with(running: &Running, common: Common, credentials: Credentials) -> Remote {
    let base: url::Url = running.url().parse().unwrap();
    let config = Config {
        api_url: base.clone(),
        content_url: base.clone(),
        token_url: base.join("/oauth2/token").unwrap(),
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        ..Config::new(credentials).unwrap()
    };
    let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Remote::new("team", common, wharf_connectors::Config::Dropbox(config), &egress).unwrap()
}

/// A connection that waits for so long.
fn waiting(running: &Running, budget: Option<Duration>, common: Common) -> Remote {
    let base: url::Url = running.url().parse().unwrap();
    let config = Config {
        api_url: base.clone(),
        content_url: base,
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        wait_budget: budget,
        ..Config::new(access_token()).unwrap()
    };
    let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    Remote::new("team", common, wharf_connectors::Config::Dropbox(config), &egress).unwrap()
}

fn access_token() -> Credentials {
    Credentials::AccessToken(Options::default().access_token.into())
}

fn refresh_token() -> Credentials {
    let options = Options::default();
    Credentials::RefreshToken {
        app_key: options.app_key,
        app_secret: Some(options.app_secret.into()),
        refresh_token: options.refresh_token.into(),
    }
}

fn remote(running: &Running) -> Remote {
    with(running, common(), access_token())
}

fn routes(running: &Running) -> Vec<String> {
    running.requests().into_iter().map(|record| record.route).collect()
}

async fn write(remote: &Remote, at: &str, bytes: &'static [u8], if_exists: IfExists) -> Result<String, ErrorKind> {
    let written = remote.write(&path(at), Content::from_bytes(bytes), if_exists).await;
    written.map(|entry| entry.path.to_string()).map_err(|error| error.kind())
}

/// Content that is not held in memory.
fn large() -> Content {
    let chunks = stream::iter((0..48_u8).map(|number| Ok(vec![number; 128 * 1024].into())));
    Content::from_stream(None, chunks)
}

#[tokio::test]
async fn only_the_configured_authority_is_trusted() {
    let (running, other) = (emulator().await, emulator().await);
    remote(&running).ping().await.unwrap();
    let base: url::Url = running.url().parse().unwrap();
    for authority in [None, Some(other.ca_pem().as_bytes().to_vec())] {
        let config =
            Config { api_url: base.clone(), certificate_authority: authority, ..Config::new(access_token()).unwrap() };
        let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
        let remote = Remote::new("team", common(), wharf_connectors::Config::Dropbox(config), &egress).unwrap();
        let error = remote.ping().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        // The setting that there is, and not the one that other types have.
        let told = error.to_string();
        assert!(told.contains("certificate-authority") && !told.contains("certificate-pin"), "{told}");
    }
}

#[tokio::test]
async fn the_outgoing_policy_is_asked() {
    let running = emulator().await;
    let base: url::Url = running.url().parse().unwrap();
    let config = Config { api_url: base, ..Config::new(access_token()).unwrap() };
    let config = wharf_connectors::Config::Dropbox(config);
    let remote = Remote::new("team", common(), config, &Arc::default()).unwrap();
    let error = remote.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(running.requests().is_empty());
}

#[tokio::test]
async fn each_way_to_write_does_what_it_says() {
    let running = emulator().await;
    let remote = remote(&running);
    assert_eq!(write(&remote, "/in/a.txt", HELLO, IfExists::Fail).await.as_deref(), Ok("/in/a.txt"));
    assert_eq!(write(&remote, "/in/a.txt", HELLO, IfExists::Fail).await, Err(ErrorKind::AlreadyExists));
    assert_eq!(write(&remote, "/in/a.txt", HELLO, IfExists::Rename).await.as_deref(), Ok("/in/a (1).txt"));
    assert_eq!(write(&remote, "/in/a.txt", b"new", IfExists::Replace).await.as_deref(), Ok("/in/a.txt"));
    assert_eq!(write(&remote, "/in", HELLO, IfExists::Replace).await, Err(ErrorKind::Conflict));
    assert_eq!(write(&remote, "/in/a.txt/b", HELLO, IfExists::Replace).await, Err(ErrorKind::Conflict));
    assert_eq!(running.content("/in/a.txt").unwrap(), b"new");
    assert_eq!(running.content("/in/a (1).txt").unwrap(), HELLO);
    assert_eq!(running.files().len(), 2);
}

#[tokio::test]
async fn a_large_file_goes_up_and_comes_down_in_parts_and_whole() {
    let running = emulator().await;
    let remote = remote(&running);
    let entry = remote.write(&path("/large"), large(), IfExists::Fail).await.unwrap();
    let expected = large().collect(u64::MAX).await.unwrap();
    assert_eq!(entry.size, Some(expected.len() as u64));
    assert_eq!(running.content("/large").unwrap(), expected);
    let read = async |offset, length| {
        let content = remote.read(&path("/large"), ByteRange { offset, length }).await.unwrap();
        content.collect(u64::MAX).await.unwrap()
    };
    assert_eq!(read(0, None).await, expected);
    assert_eq!(read(4_000_000, Some(300_000)).await, expected[4_000_000..4_300_000]);
    assert_eq!(read(6_291_400, None).await, expected[6_291_400..]);
    assert_eq!(read(6_291_400, Some(1_000_000)).await, expected[6_291_400..]);
    assert_eq!(read(99_000_000, None).await, "");
    assert_eq!(read(3, Some(0)).await, "");
}

#[tokio::test]
async fn calls_that_dropbox_turns_away_for_now_are_tried_again() {
    for kind in [
        FaultKind::RateLimitJson { retry_after_seconds: 1 },
        FaultKind::RateLimitText { retry_after_seconds: 1 },
        FaultKind::RateLimitBare,
        FaultKind::TooManyWriteOperations,
        FaultKind::ServiceUnavailable,
    ] {
        let running = emulator().await;
        running.inject(Fault::on("files/upload", kind.clone())).unwrap();
        assert_eq!(write(&remote(&running), "/a", HELLO, IfExists::Fail).await.as_deref(), Ok("/a"), "{kind:?}");
        assert_eq!(routes(&running), ["files/upload", "files/upload"], "{kind:?}");
    }
}

#[tokio::test]
async fn a_dropbox_that_stays_busy_is_borne_with_for_the_budget_however_few_retries_there_are() {
    let budget = Duration::from_secs(5);
    for kind in [
        FaultKind::TooManyWriteOperations,
        FaultKind::RateLimitText { retry_after_seconds: 1 },
        FaultKind::RateLimitBare,
        FaultKind::ServiceUnavailable,
    ] {
        let running = emulator().await;
        running.inject(Fault::on("files/upload", kind.clone()).times(Fault::EVERY_TIME)).unwrap();
        let remote = waiting(&running, Some(budget), Common { retries: 0, ..common() });
        let started = Instant::now();
        let written = remote.write(&path("/a"), Content::from_bytes(HELLO), IfExists::Fail).await;
        let (took, error) = (started.elapsed(), written.unwrap_err());
        assert!(matches!(error.kind(), ErrorKind::RateLimited | ErrorKind::Unavailable), "{kind:?}: {error}");
        let seconds = error.retry_after_seconds().unwrap();
        assert!(chain(&error).ends_with(&format!("(try again in {seconds} s)")), "{kind:?}: {}", chain(&error));
        // The last wait did not fit, so it was not begun.
        assert!(took > Duration::from_millis(1500) && took < budget + Duration::from_secs(1), "{kind:?}: {took:?}");
        assert!(running.requests().len() >= 4, "{kind:?}: {}", running.requests().len());
        assert!(running.files().is_empty());
    }
}

#[tokio::test]
async fn a_busy_dropbox_is_waited_for_within_the_deadline_of_the_caller() {
    let running = emulator().await;
    let remote = waiting(&running, None, common());
    running.inject(Fault::on("files/get_metadata", FaultKind::RateLimitText { retry_after_seconds: 4 })).unwrap();
    running.put("/a", HELLO).unwrap();
    let (at, started) = (path("/a"), Instant::now());
    let within = |time| deadline::until(tokio::time::Instant::now() + Duration::from_secs(time), remote.stat(&at));
    let error = within(2).await.unwrap_err();
    assert_eq!((error.kind(), error.retry_after_seconds()), (ErrorKind::RateLimited, Some(4)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    within(10).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_account_that_is_full_is_asked_once() {
    let running = emulator().await;
    running.inject(Fault::on("files/upload", FaultKind::InsufficientSpace).times(Fault::EVERY_TIME)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a"), HELLO).unwrap();
    let error = copied(folder.path(), &remote(&running)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("the account is full"), "{error}");
    assert_eq!(routes(&running), ["files/upload"]);
}

#[tokio::test]
async fn a_large_file_whose_target_exists_is_not_sent_and_a_small_one_costs_no_look() {
    let folder = tempfile::tempdir().unwrap();
    for (bytes, expected) in [(4 * 1024 * 1024, "files/get_metadata"), (4 * 1024 * 1024 - 1, "files/upload")] {
        std::fs::write(folder.path().join("a"), vec![7; bytes]).unwrap();
        let running = emulator().await;
        running.put("/a", HELLO).unwrap();
        let error = copied(folder.path(), &remote(&running)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.to_string().contains("/a"), "{error}");
        assert_eq!(routes(&running), [expected]);
        assert_eq!(running.content("/a").unwrap(), HELLO);
    }
}

/// What became of the file `a` in this folder on its way to `/a`.
async fn copied(folder: &std::path::Path, remote: &Remote) -> Result<Outcome, wharf_connectors::Error> {
    let config = wharf_connectors::local::Config { folder: folder.to_owned() };
    let config = wharf_connectors::Config::Local(config);
    let source = Remote::new("here", Common::default(), config, &Arc::default()).unwrap();
    let mut transfer = transfer(&source, &path("/a"), remote, &path("/a"), TransferOptions::default()).await.unwrap();
    transfer.next().await.unwrap().outcome
}

#[tokio::test]
async fn what_cannot_be_mended_is_told_at_once() {
    for (kind, expected) in [
        (FaultKind::InsufficientSpace, ErrorKind::Unavailable),
        (FaultKind::InternalError, ErrorKind::Unavailable),
        (FaultKind::InvalidAccessToken, ErrorKind::Denied),
        (FaultKind::ExpiredAccessToken, ErrorKind::Denied),
    ] {
        let running = emulator().await;
        running.inject(Fault::on("files/upload", kind.clone())).unwrap();
        assert_eq!(write(&remote(&running), "/a", HELLO, IfExists::Fail).await, Err(expected), "{kind:?}");
        assert_eq!(running.requests().len(), 1, "{kind:?}");
    }
}

#[tokio::test]
async fn a_read_is_tried_again_where_a_change_is_not() {
    let running = emulator().await;
    running.put("/a", HELLO).unwrap();
    running.inject(Fault::on("files/get_metadata", FaultKind::InternalError)).unwrap();
    assert_eq!(remote(&running).stat(&path("/a")).await.unwrap().size, Some(6));
}

#[tokio::test]
async fn tokens_that_expire_are_replaced_and_revoked_ones_are_not() {
    let running = emulator().await;
    let remote = with(&running, common(), refresh_token());
    remote.ping().await.unwrap();
    running.expire_access_tokens();
    remote.ping().await.unwrap();
    let facts = ["users/get_current_account", "users/get_space_usage"];
    let expected = [
        ["oauth2/token", "files/list_folder"].as_slice(),
        &facts,
        &["files/list_folder", "oauth2/token", "files/list_folder"],
        &facts,
    ];
    assert_eq!(routes(&running), expected.concat());
    running.expire_access_tokens();
    running.inject(Fault::on("oauth2/token", FaultKind::InvalidGrant)).unwrap();
    let error = remote.ping().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("refresh token was revoked"), "{error}");
}

#[tokio::test]
async fn a_token_service_that_is_busy_is_waited_for() {
    for kind in [FaultKind::RateLimitText { retry_after_seconds: 1 }, FaultKind::ServiceUnavailable] {
        let running = emulator().await;
        running.inject(Fault::on("oauth2/token", kind)).unwrap();
        with(&running, common(), refresh_token()).ping().await.unwrap();
        assert_eq!(routes(&running)[..3], ["oauth2/token", "oauth2/token", "files/list_folder"]);
    }
}

#[tokio::test]
async fn a_connection_that_breaks_never_leaves_doubt_about_an_upload() {
    for content in [|| Content::from_bytes(HELLO), large] {
        let running = emulator().await;
        running.inject(Fault::on("files/upload", FaultKind::DropAfterCommit)).unwrap();
        let entry = remote(&running).write(&path("/a"), content(), IfExists::Fail).await.unwrap();
        assert_eq!(entry.revision, Some(running.files()[0].rev.clone()));

        let running = emulator().await;
        running.inject(Fault::on("files/upload", FaultKind::DropBeforeEffect)).unwrap();
        let error = remote(&running).write(&path("/a"), content(), IfExists::Fail).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
        assert!(running.files().is_empty());
    }
}

#[tokio::test]
async fn a_damaged_upload_leaves_nothing_behind() {
    let running = emulator().await;
    running.inject(Fault::on("files/upload", FaultKind::WrongContentHash)).unwrap();
    let error = remote(&running).write(&path("/a"), large(), IfExists::Fail).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(running.files().is_empty());
    assert_eq!(routes(&running), ["files/upload", "files/delete_v2"]);
}

#[tokio::test]
async fn content_that_fails_leaves_nothing_behind() {
    let running = emulator().await;
    running.put("/old", HELLO).unwrap();
    for at in ["/new", "/old"] {
        let failure = wharf_connectors::Error::new(ErrorKind::Timeout, "the source stalled");
        let content = Content::from_stream(None, large().into_stream().chain(stream::iter([Err(failure)])));
        let error = remote(&running).write(&path(at), content, IfExists::Replace).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Timeout, "the source stalled"));
    }
    assert_eq!(running.files().len(), 1);
    assert_eq!(running.content("/old").unwrap(), HELLO);
}

#[tokio::test]
async fn a_copy_of_damaged_content_never_appears() {
    let running = emulator().await;
    let bytes = large().collect(u64::MAX).await.unwrap();
    running.put("/a", &bytes).unwrap();
    let remote = remote(&running);
    for kind in [FaultKind::CorruptDownload, FaultKind::CutDownload { after_bytes: 5_000_000 }] {
        running.inject(Fault::on("files/download", kind.clone())).unwrap();
        let content = remote.read(&path("/a"), ByteRange::ALL).await.unwrap();
        let error = remote.write(&path("/copy"), content, IfExists::Replace).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{kind:?}: {error}");
        assert!(running.content("/copy").is_none(), "{kind:?}");
    }
    let content = remote.read(&path("/a"), ByteRange::ALL).await.unwrap();
    remote.write(&path("/copy"), content, IfExists::Replace).await.unwrap();
    assert_eq!(running.content("/copy").unwrap(), bytes);
}

#[tokio::test]
async fn a_download_with_a_wrong_hash_ends_with_an_error() {
    let running = emulator().await;
    running.put("/a", HELLO).unwrap();
    running.inject(Fault::on("files/download", FaultKind::WrongContentHash)).unwrap();
    let content = remote(&running).read(&path("/a"), ByteRange::ALL).await.unwrap();
    assert_eq!(content.collect(100).await.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn a_dropbox_that_does_not_answer_is_a_timeout() {
    let running = emulator().await;
    running.put("/a", HELLO).unwrap();
    running.inject(Fault::on("files/get_metadata", FaultKind::Latency { milliseconds: 60_000 })).unwrap();
    let short = Duration::from_millis(500);
    let remote = with(&running, Common { connect_timeout: short, read_timeout: short, ..common() }, access_token());
    let error = remote.stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
}

#[tokio::test]
async fn listings_page_and_a_reset_cursor_is_told() {
    let running = emulator().await;
    for number in 0..501 {
        running.put(&format!("/in/{number:03}"), HELLO).unwrap();
    }
    let remote = remote(&running);
    assert_eq!(remote.list(&path("/in")).await.unwrap().len(), 501);
    assert_eq!(routes(&running), ["files/list_folder", "files/list_folder/continue"]);
    running.inject(Fault::on("files/list_folder/continue", FaultKind::ResetCursor)).unwrap();
    assert_eq!(remote.list(&path("/in")).await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn the_account_follows_changes_from_a_cursor_on() {
    let running = emulator().await;
    running.put("/Inbox/sub/a", HELLO).unwrap();
    running.put("/elsewhere", HELLO).unwrap();
    let remote = with(&running, Common { root: path("/inbox"), ..common() }, access_token());
    let account = remote.dropbox().unwrap();
    let page = account.list_folder(&RemotePath::root(), true).await.unwrap();
    let paths: Vec<_> = page.entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!((paths.as_slice(), page.has_more), (["/sub".to_owned(), "/sub/a".to_owned()].as_slice(), false));

    let options = UploadOptions { mode: WriteMode::Add, autorename: false, client_modified: None, mute: true };
    let uploaded = account.upload(&path("/b"), Content::from_bytes(HELLO), options).await.unwrap();
    assert_eq!((uploaded.kind, uploaded.path.as_str()), (MetadataKind::File, "/b"));
    running.put("/elsewhere", b"changed").unwrap();
    account.delete(&path("/sub")).await.unwrap();
    let page = account.list_folder_continue(&page.cursor).await.unwrap();
    let changes: Vec<_> = page.entries.iter().map(|entry| (entry.path.as_str(), entry.kind)).collect();
    assert!(changes.contains(&("/b", MetadataKind::File)), "{changes:?}");
    assert!(changes.contains(&("/sub", MetadataKind::Deleted)), "{changes:?}");
    assert!(changes.iter().all(|(path, _)| !path.contains("elsewhere")), "{changes:?}");

    let (metadata, content) = account.download(&path("/b")).await.unwrap();
    assert_eq!(metadata.content_hash.as_deref(), Some(dropbox_emulator::content_hash(HELLO).as_str()));
    assert_eq!(content.collect(100).await.unwrap(), HELLO);
    let stale = UploadOptions {
        mode: WriteMode::Update("0123456789abc".to_owned()),
        autorename: false,
        client_modified: None,
        mute: false,
    };
    let error = account.upload(&path("/b"), Content::from_bytes("other"), stale).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
}
