//! What only Dropbox has, against the emulator; and that none of it leads out of a root.

use std::sync::Arc;
use std::time::{Duration, Instant};

use dropbox_emulator::{Emulator, Fault, FaultKind, Options, Running};
use serde_json::{Value, json};
use wharf_connectors::dropbox::login::{Application, Login};
use wharf_connectors::dropbox::{
    Account, Audience, Batch, CallStyle, Config, Credentials, Job, LinkSettings, ListOptions, MetadataKind, PathRoot,
    SearchOptions, UploadOptions, WriteMode,
};
use wharf_connectors::{Common, Content, Egress, Error, ErrorKind, IfExists, Remote, RemotePath};

use crate::scripted::{Reply, Scripted};
use crate::{common, path};

fn egress() -> Arc<Egress> {
    Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]))
}

fn config(running: &Running) -> Config {
    let base: url::Url = running.url().parse().unwrap();
    Config {
        api_url: base.clone(),
        content_url: base.clone(),
        notify_url: base.clone(),
        token_url: base.join("/oauth2/token").unwrap(),
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        ..Config::new(Credentials::AccessToken(Options::default().access_token.into())).unwrap()
    }
}

fn remote(config: Config, root: &str) -> Remote {
    let common = Common { root: path(root), ..common() };
    Remote::new("team", common, wharf_connectors::Config::Dropbox(config), &egress()).unwrap()
}

fn account(running: &Running, root: &str) -> Account {
    remote(config(running), root).dropbox().unwrap()
}

async fn emulator() -> Running {
    Emulator::start(Options::default()).await.unwrap()
}

async fn text(content: Content) -> String {
    String::from_utf8(content.collect(1 << 20).await.unwrap().to_vec()).unwrap()
}

#[track_caller]
fn kind<T: std::fmt::Debug>(result: Result<T, Error>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn options() -> UploadOptions {
    UploadOptions { mode: WriteMode::Overwrite, autorename: false, client_modified: None, mute: false }
}

#[tokio::test]
async fn revisions_are_told_downloaded_and_restored() {
    let running = emulator().await;
    running.put("/in/secret", b"hidden").unwrap();
    let account = account(&running, "/In/Box");
    for content in ["one", "two", "three"] {
        account.upload(&path("/a"), Content::from_bytes(content), options()).await.unwrap();
    }
    let revisions = account.revisions(&path("/a"), 10).await.unwrap();
    let marks: Vec<_> = revisions.entries.iter().map(|entry| entry.revision.clone().unwrap()).collect();
    assert_eq!((marks.len(), revisions.deleted), (3, false));
    let (metadata, content) = account.download_revision(&path("/a"), &marks[2]).await.unwrap();
    assert_eq!((metadata.path.as_str(), text(content).await.as_str()), ("/a", "one"));
    account.restore(&path("/a"), &marks[1]).await.unwrap();
    assert_eq!(running.content("/in/box/a").unwrap(), b"two");

    // A revision names any file of the account.
    let elsewhere = running.files().into_iter().find(|file| file.path == "/in/secret").unwrap().rev;
    assert_eq!(kind(account.download_revision(&path("/a"), &elsewhere).await), ErrorKind::NotFound);
    assert_eq!(kind(account.restore(&path("/a"), &elsewhere).await), ErrorKind::NotFound);
    assert_eq!(kind(account.revisions(&path("/nowhere"), 10).await), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_folder_comes_as_an_archive_and_documents_are_exported() {
    let running = emulator().await;
    running.put("/in/folder/größe.txt", b"content").unwrap();
    running.put("/in/notes.paper", b"# Notes").unwrap();
    let account = account(&running, "/in");
    let archive = account.download_zip(&path("/folder")).await.unwrap().collect(1 << 20).await.unwrap();
    assert!(archive.starts_with(b"PK\x03\x04"));
    let holds = |part: &[u8]| archive.windows(part.len()).any(|window| window == part);
    assert!(holds("folder/größe.txt".as_bytes()) && holds(b"content"));
    assert_eq!(kind(account.download_zip(&path("/notes.paper")).await), ErrorKind::Conflict);

    assert_eq!(kind(account.download(&path("/notes.paper")).await), ErrorKind::Unsupported);
    let export = account.export(&path("/notes.paper"), None).await.unwrap();
    assert_eq!((export.name.as_str(), text(export.content).await.as_str()), ("notes.md", "# Notes"));
    assert_eq!(kind(account.export(&path("/folder/größe.txt"), None).await), ErrorKind::Unsupported);
    running.inject(Fault::on("files/export", FaultKind::CorruptDownload)).unwrap();
    let damaged = account.export(&path("/notes.paper"), None).await.unwrap().content;
    assert_eq!(kind(damaged.collect(100).await), ErrorKind::Interrupted);
}

#[tokio::test]
async fn changes_go_on_from_a_cursor_and_begin_anew_when_it_is_lost() {
    let running = emulator().await;
    running.put("/in/box/a", b"1").unwrap();
    running.put("/elsewhere", b"1").unwrap();
    let account = account(&running, "/in");
    let options = ListOptions { recursive: true, ..ListOptions::default() };
    let folder = path("/box");
    let told = |changes: &wharf_connectors::dropbox::Changes| {
        let entries = changes.entries.iter().map(|entry| format!("{:?} {}", entry.kind, entry.path));
        (changes.reset, entries.collect::<Vec<_>>())
    };
    let first = account.changes(&folder, None, &options).await.unwrap();
    assert_eq!(told(&first), (true, vec!["File /box/a".to_owned()]));
    running.put("/in/box/b", b"2").unwrap();
    running.remove("/in/box/a");
    running.put("/in/other", b"2").unwrap();
    let second = account.changes(&folder, Some(&first.cursor), &options).await.unwrap();
    assert_eq!(told(&second), (false, vec!["File /box/b".to_owned(), "Deleted /box/a".to_owned()]));
    running.inject(Fault::on("files/list_folder/continue", FaultKind::ResetCursor)).unwrap();
    let third = account.changes(&folder, Some(&second.cursor), &options).await.unwrap();
    assert_eq!(told(&third), (true, vec!["File /box/b".to_owned()]));

    // A cursor of the whole account tells nothing but what is within.
    let whole = self::account(&running, "/");
    let cursor = whole.latest_cursor(&RemotePath::root(), &options).await.unwrap();
    running.put("/elsewhere", b"2").unwrap();
    running.put("/in/other", b"3").unwrap();
    let outer = account.changes(&RemotePath::root(), Some(&cursor), &options).await.unwrap();
    assert_eq!(told(&outer), (false, vec!["File /other".to_owned()]));
    let inner = account.changes(&folder, Some(&cursor), &options).await.unwrap();
    assert!(inner.entries.is_empty());
    assert_eq!(kind(account.changes(&folder, Some("senseless"), &options).await), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_long_poll_ends_with_a_change_or_with_its_time_and_sends_no_token() {
    let options = Options { longest_poll: Duration::from_millis(400), ..Options::default() };
    let running = Emulator::start(options).await.unwrap();
    let account = account(&running, "/");
    let cursor = account.latest_cursor(&RemotePath::root(), &ListOptions::default()).await.unwrap();
    let poll = account.longpoll(&cursor, Duration::ZERO).await.unwrap();
    assert!(!poll.changes);
    let (poll, ()) = tokio::join!(account.longpoll(&cursor, Duration::ZERO), async {
        running.put("/new", b"1").unwrap();
    });
    assert!(poll.unwrap().changes);
    running.inject(Fault::on("files/list_folder/longpoll", FaultKind::RateLimitBare)).unwrap();
    assert_eq!(kind(account.longpoll(&cursor, Duration::ZERO).await), ErrorKind::RateLimited);
}

#[tokio::test]
async fn the_backoff_of_a_long_poll_is_honoured() {
    let server = Scripted::start(|_, _| Reply::ok(&json!({ "changes": false, "backoff": 1 }))).await;
    let mut config = crate::config(&server, crate::access_token());
    config.notify_url = server.url.parse().unwrap();
    let account = remote(config, "/").dropbox().unwrap();
    let started = Instant::now();
    let poll = account.longpoll("c", Duration::from_secs(9999)).await.unwrap();
    assert_eq!(poll.backoff, Some(Duration::from_secs(1)));
    account.longpoll("c", Duration::ZERO).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));
    let calls = server.calls();
    assert_eq!(calls[0].argument, json!({ "cursor": "c", "timeout": 480 }));
    assert_eq!(calls[1].argument["timeout"], 30);
    assert!(calls.iter().all(|call| call.header("authorization").is_none()));
}

#[tokio::test]
async fn a_search_stays_within_the_root() {
    let running = emulator().await;
    for at in ["/in/report 1", "/in/sub/Report 2", "/in/other", "/outside/report 3"] {
        running.put(at, b"x").unwrap();
    }
    let account = account(&running, "/in");
    let search = |folder: &'static str, limit| {
        let (account, options) = (account.clone(), SearchOptions { limit, ..SearchOptions::default() });
        async move { account.search(&path(folder), "report", &options).await.unwrap() }
    };
    let all = search("/", None).await;
    let paths: Vec<_> = all.entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!((paths, all.cursor), (vec!["/report 1", "/sub/Report 2"], None));
    let first = search("/", Some(1)).await;
    let second = account.search_continue(&first.cursor.unwrap()).await.unwrap();
    assert_eq!((second.entries[0].path.as_str(), second.cursor), ("/sub/Report 2", None));
    assert_eq!(search("/sub", None).await.entries.len(), 1);
    let foreign = self::account(&running, "/");
    let options = SearchOptions { limit: Some(1), ..SearchOptions::default() };
    let foreign = foreign.search(&RemotePath::root(), "report", &options).await.unwrap().cursor.unwrap();
    let rest = account.search_continue(&foreign).await.unwrap();
    assert!(rest.entries.iter().all(|entry| entry.path.as_str() != "/outside/report 3"));
    assert_eq!(kind(account.search(&path("/"), "", &SearchOptions::default()).await), ErrorKind::Invalid);
}

#[tokio::test]
async fn entries_are_moved_copied_and_deleted_one_by_one_and_in_batches() {
    let running = emulator().await;
    for name in ["a", "b", "c"] {
        running.put(&format!("/in/{name}"), name.as_bytes()).unwrap();
    }
    let account = account(&running, "/in");
    let moved = account.move_to(&path("/a"), &path("/sub/a"), false).await.unwrap();
    assert_eq!(moved.path.as_str(), "/sub/a");
    assert_eq!(kind(account.move_to(&path("/a"), &path("/x"), false).await), ErrorKind::NotFound);
    assert_eq!(kind(account.copy_to(&path("/b"), &path("/c"), false).await), ErrorKind::AlreadyExists);
    assert_eq!(account.copy_to(&path("/b"), &path("/c"), true).await.unwrap().path.as_str(), "/c (1)");

    let pairs = [(path("/b"), path("/sub/b")), (path("/missing"), path("/x")), (path("/c"), path("/sub/a"))];
    let batch = account.move_batch(&pairs, false).await.unwrap();
    let Batch::UnderWay(job) = &batch else { panic!("{batch:?}") };
    // Its text can be kept.
    let job: Job = job.to_string().parse().unwrap();
    let results = account.done(Batch::UnderWay(job)).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().path.as_str(), "/sub/b");
    let kinds: Vec<_> = results[1..].iter().map(|result| result.as_ref().unwrap_err().kind()).collect();
    assert_eq!(kinds, [ErrorKind::NotFound, ErrorKind::AlreadyExists]);

    let copied = account.copy_batch(&[(path("/sub"), path("/twin"))], false).await.unwrap();
    let copied = account.done(copied).await.unwrap();
    assert_eq!(copied[0].as_ref().unwrap().kind, MetadataKind::Folder);
    let created = account.create_folder_batch(&[path("/new"), path("/sub")], false).await.unwrap();
    let created = account.done(created).await.unwrap();
    assert!(created[0].is_ok());
    assert_eq!(created[1].as_ref().unwrap_err().kind(), ErrorKind::AlreadyExists);
    let deleted = account.delete_batch(&[path("/sub"), path("/new"), path("/nowhere")]).await.unwrap();
    let deleted = account.done(deleted).await.unwrap();
    assert_eq!(deleted.iter().filter(|result| result.is_ok()).count(), 2);
    assert_eq!(deleted[2].as_ref().unwrap_err().kind(), ErrorKind::NotFound);

    assert_eq!(kind(account.delete_batch(&[]).await), ErrorKind::Invalid);
    assert_eq!(kind(account.delete_batch(&[RemotePath::root()]).await), ErrorKind::Invalid);
    assert_eq!(kind(account.check(&"move:dbjid:unknown".parse().unwrap()).await), ErrorKind::NotFound);
    assert!("dbjid:unknown".parse::<Job>().is_err());
}

#[tokio::test]
async fn a_job_of_elsewhere_tells_nothing() {
    let running = emulator().await;
    running.put("/outside/a", b"x").unwrap();
    running.put("/outside/b", b"x").unwrap();
    let batch = account(&running, "/").delete_batch(&[path("/outside/a"), path("/outside/b")]).await.unwrap();
    let results = account(&running, "/in").done(batch).await.unwrap();
    assert!(results.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::Denied), "{results:?}");
}

#[tokio::test]
async fn a_url_is_saved_in_its_own_time() {
    let running = emulator().await;
    let account = account(&running, "/in");
    let batch = account.save_url(&path("/saved"), "https://example.com/file").await.unwrap();
    let results = account.done(batch).await.unwrap();
    assert_eq!(results[0].as_ref().unwrap().path.as_str(), "/saved");
    assert!(running.content("/in/saved").is_some());
    assert_eq!(kind(account.save_url(&path("/x"), "file:///etc/passwd").await), ErrorKind::Invalid);
}

#[tokio::test]
async fn links_are_made_changed_and_ended_for_what_is_within() {
    let running = emulator().await;
    running.put("/in/a", b"content").unwrap();
    running.put("/outside", b"secret").unwrap();
    let account = account(&running, "/in");
    let link = account.create_shared_link(&path("/a"), &LinkSettings::default()).await.unwrap();
    assert_eq!(link.path, Some(path("/a")));
    // One that exists is as good, unless something else is wanted.
    assert_eq!(account.create_shared_link(&path("/a"), &LinkSettings::default()).await.unwrap(), link);
    let settings = LinkSettings {
        password: Some("open sesame".to_owned().into()),
        audience: Some(Audience::Public),
        ..LinkSettings::default()
    };
    assert_eq!(kind(account.create_shared_link(&path("/a"), &settings).await), ErrorKind::AlreadyExists);
    account.modify_shared_link(&path("/a"), &link.url, &settings).await.unwrap();
    assert_eq!(kind(account.shared_link_metadata(&link.url, None).await), ErrorKind::Denied);
    let (found, content) = account.shared_link_file(&link.url, settings.password.as_ref()).await.unwrap();
    assert_eq!((found.name.as_str(), text(content).await.as_str()), ("a", "content"));
    assert_eq!(account.shared_links(&path("/a")).await.unwrap().len(), 1);

    let whole = self::account(&running, "/");
    let outside = whole.create_shared_link(&path("/outside"), &LinkSettings::default()).await.unwrap();
    assert_eq!(kind(account.shared_link_metadata(&outside.url, None).await), ErrorKind::Denied);
    assert_eq!(kind(account.shared_link_file(&outside.url, None).await), ErrorKind::Denied);
    assert_eq!(kind(account.revoke_shared_link(&path("/a"), &outside.url).await), ErrorKind::NotFound);
    let modified = account.modify_shared_link(&path("/a"), &outside.url, &LinkSettings::default()).await;
    assert_eq!(kind(modified), ErrorKind::NotFound);
    account.revoke_shared_link(&path("/a"), &link.url).await.unwrap();
    assert!(account.shared_links(&path("/a")).await.unwrap().is_empty());
}

fn browser(running: &Running) -> reqwest::Client {
    let authority = reqwest::Certificate::from_pem(running.ca_pem().as_bytes()).unwrap();
    let builder = reqwest::Client::builder().tls_certs_only([authority]).no_proxy();
    builder.redirect(reqwest::redirect::Policy::none()).build().unwrap()
}

#[tokio::test]
async fn temporary_links_work_without_a_login() {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let running = emulator().await;
    running.put("/in/a", b"content").unwrap();
    let account = account(&running, "/in");
    let browser = browser(&running);
    let link = account.temporary_link(&path("/a")).await.unwrap();
    assert_eq!(browser.get(link).send().await.unwrap().text().await.unwrap(), "content");
    let link = account.temporary_upload_link(&path("/b"), Duration::from_secs(600)).await.unwrap();
    assert!(browser.post(&link).body("sent").send().await.unwrap().status().is_success());
    assert_eq!(running.content("/in/b").unwrap(), b"sent");
    assert_eq!(browser.post(&link).body("again").send().await.unwrap().status(), 410);
}

#[tokio::test]
async fn any_route_can_be_called_on_a_whole_account_only() {
    let running = emulator().await;
    running.put("/in/a", b"content").unwrap();
    let whole = account(&running, "/");
    let argument = json!({ "path": "/in/a" }).to_string();
    let (result, _) = whole.call(CallStyle::Rpc, "files/get_metadata", &argument, None).await.unwrap();
    assert_eq!(serde_json::from_str::<Value>(&result).unwrap()["size"], 7);
    let (_, content) = whole.call(CallStyle::Download, "files/download", &argument, None).await.unwrap();
    assert_eq!(text(content.unwrap()).await, "content");
    let upload = json!({ "path": "/new" }).to_string();
    whole.call(CallStyle::Upload, "files/upload", &upload, Some(Content::from_bytes("new"))).await.unwrap();
    assert_eq!(running.content("/new").unwrap(), b"new");
    whole.call(CallStyle::Rpc, "users/get_current_account", "", None).await.unwrap();
    let missing = whole.call(CallStyle::Rpc, "files/get_metadata", r#"{"path":"/nowhere"}"#, None).await;
    assert_eq!(kind(missing), ErrorKind::NotFound);
    running.inject(Fault::on("files/get_metadata", FaultKind::RateLimitText { retry_after_seconds: 1 })).unwrap();
    whole.call(CallStyle::Rpc, "files/get_metadata", &argument, None).await.unwrap();

    for route in ["files", "../oauth2/token", "files/get_metadata?x=1", "Files/x", "files//x", "", "files/x y"] {
        assert_eq!(kind(whole.call(CallStyle::Rpc, route, "", None).await), ErrorKind::Invalid, "{route}");
    }
    assert_eq!(kind(whole.call(CallStyle::Rpc, "auth/token/revoke", "", None).await), ErrorKind::Denied);
    assert_eq!(kind(whole.call(CallStyle::Rpc, "files/get_metadata", "{", None).await), ErrorKind::Invalid);
    let confined = account(&running, "/in");
    assert!(whole.is_whole() && !confined.is_whole() && !whole.within(&path("/in")).is_whole());
    for account in [confined, whole.within(&path("/in"))] {
        assert_eq!(kind(account.call(CallStyle::Rpc, "files/get_metadata", &argument, None).await), ErrorKind::Denied);
    }
}

#[tokio::test]
async fn the_account_tells_whose_it_is_and_how_full() {
    let running = emulator().await;
    running.put("/a", b"12345").unwrap();
    let account = account(&running, "/");
    let current = account.current_account().await.unwrap();
    assert_eq!((current.email.as_str(), current.root_namespace.as_str()), ("user@emulator.example", "1234567890"));
    let space = account.space_usage().await.unwrap();
    assert_eq!((space.used, space.allocated), (5, Some(2 << 30)));
    let ping = remote(config(&running), "/").ping().await.unwrap();
    let facts = format!("{ping:?}");
    assert!(facts.contains("user@emulator.example") && facts.contains("5 of 2147483648"), "{facts}");
    running
        .inject(Fault::on(
            "users/get_current_account",
            FaultKind::MissingScope { scope: "account_info.read".to_owned() },
        ))
        .unwrap();
    let facts = format!("{:?}", remote(config(&running), "/").ping().await.unwrap());
    assert!(facts.contains("account_info.read"), "{facts}");
}

#[tokio::test]
async fn a_ping_tells_what_the_login_allowed_or_why_that_is_not_known() {
    let running = emulator().await;
    let Options { app_key, refresh_token, .. } = Options::default();
    let credentials = || Credentials::RefreshToken {
        app_key: app_key.clone(),
        app_secret: None,
        refresh_token: refresh_token.clone().into(),
    };
    let scopes = async |credentials, scopes: Option<&str>| {
        let config = Config { credentials, scopes: scopes.map(str::to_owned), ..config(&running) };
        let ping = remote(config, "/").ping().await.unwrap();
        ping.facts.into_iter().find(|(name, _)| *name == "scopes").unwrap().1
    };
    assert_eq!(scopes(credentials(), Some("files.content.read")).await, "files.content.read");
    assert!(scopes(credentials(), None).await.contains("wharf dropbox login"));
    assert!(scopes(Credentials::AccessToken(Options::default().access_token.into()), None).await.contains("unknown"));
}

#[tokio::test]
async fn an_update_of_another_revision_says_what_is_there() {
    let running = emulator().await;
    running.put("/in/a", b"old").unwrap();
    let account = account(&running, "/in");
    let old = account.get_metadata(&path("/a")).await.unwrap().revision.unwrap();
    running.put("/in/a", b"new").unwrap();
    let new = account.get_metadata(&path("/a")).await.unwrap().revision.unwrap();
    for (at, now) in [("/a", format!("it is at revision {new}")), ("/missing", "it is not there".to_owned())] {
        let options = UploadOptions { mode: WriteMode::Update(old.clone()), ..options() };
        let error = account.upload(&path(at), Content::from_bytes("mine"), options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        let told = error.to_string();
        assert!(told.contains(&format!("not at revision {old}")) && told.contains(&now), "{told}");
    }
    assert_eq!(running.content("/in/a").unwrap(), b"new");
}

#[tokio::test]
async fn a_move_or_copy_onto_something_names_both() {
    let running = emulator().await;
    for name in ["/a", "/b"] {
        running.put(name, name.as_bytes()).unwrap();
    }
    let (account, remote) = (account(&running, "/"), remote(config(&running), "/"));
    let (a, b) = (path("/a"), path("/b"));
    for error in [
        account.move_to(&a, &b, false).await.unwrap_err(),
        account.copy_to(&a, &b, false).await.unwrap_err(),
        remote.copy(&a, &b, IfExists::Fail).await.unwrap_err(),
        remote.rename(&a, &b, IfExists::Fail).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
        assert!(error.to_string().contains("/a to /b: a file is there already"), "{error}");
    }
}

#[tokio::test]
async fn calls_say_whose_space_they_mean() {
    let running = emulator().await;
    running.put("/a", b"x").unwrap();
    let with = |path_root, select_user: Option<&str>| {
        let select_user = select_user.map(str::to_owned);
        remote(Config { path_root, select_user, ..config(&running) }, "/")
    };
    with(Some(PathRoot::Auto), Some("dbmid:AAEmulatedMember")).stat(&path("/a")).await.unwrap();
    with(Some(PathRoot::Root("1234567890".to_owned())), None).stat(&path("/a")).await.unwrap();
    let error = with(Some(PathRoot::Root("5".to_owned())), None).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("1234567890"), "{error}");
    let error = with(None, Some("dbmid:unknown")).stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("select-user") && !error.to_string().contains("log in"), "{error}");
    let unknown = Config { select_admin: Some("dbmid:unknown".to_owned()), ..config(&running) };
    let error = remote(unknown, "/").stat(&path("/a")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    assert!(error.to_string().contains("select-admin") && !error.to_string().contains("log in"), "{error}");

    // Another root is found when the account gets one.
    let auto = with(Some(PathRoot::Auto), None);
    auto.stat(&path("/a")).await.unwrap();
    running.inject(Fault::on("files/get_metadata", FaultKind::ChangedRoot)).unwrap();
    assert_eq!(kind(auto.stat(&path("/a")).await), ErrorKind::Invalid);
    auto.stat(&path("/a")).await.unwrap();
    let asked = running.requests().iter().filter(|request| request.route == "users/get_current_account").count();
    assert_eq!(asked, 3);
}

#[tokio::test]
async fn a_login_gives_a_refresh_token_that_works() {
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let running = emulator().await;
    let base: url::Url = running.url().parse().unwrap();
    let application = Application {
        authorize_url: base.join("/oauth2/authorize").unwrap(),
        token_url: base.join("/oauth2/token").unwrap(),
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        ..Application::new(&Options::default().app_key).unwrap()
    };
    let browser = browser(&running);
    // A person copies the code, or the browser brings it.
    let shown = Login::begin(application.clone(), None);
    let code = browser.get(shown.address(&[])).send().await.unwrap().text().await.unwrap();
    let redirected = Login::begin(application, Some("http://127.0.0.1:1/done".parse().unwrap()));
    let answer = browser.get(redirected.address(&["files.content.read"])).send().await.unwrap();
    let location: url::Url = answer.headers()["location"].to_str().unwrap().parse().unwrap();
    let brought = redirected.code_of_redirect(location.query().unwrap()).unwrap();

    // The verifier of another login does not fit, and the code is then used up.
    let stolen = browser.get(shown.address(&[])).send().await.unwrap().text().await.unwrap();
    assert_eq!(kind(redirected.finish(&stolen.clone().into(), &common(), egress()).await), ErrorKind::Denied);
    assert_eq!(kind(shown.finish(&stolen.into(), &common(), egress()).await), ErrorKind::Denied);

    for (login, code) in [(shown, code.into()), (redirected, brought)] {
        let tokens = login.finish(&code, &common(), egress()).await.unwrap();
        assert!(tokens.scopes.contains(&"files.content.write".to_owned()));
        let credentials = Credentials::RefreshToken {
            app_key: Options::default().app_key,
            app_secret: None,
            refresh_token: tokens.refresh_token,
        };
        remote(Config { credentials, ..config(&running) }, "/").ping().await.unwrap();
        assert_eq!(kind(login.finish(&code, &common(), egress()).await), ErrorKind::Denied);
    }
}
