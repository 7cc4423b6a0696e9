//! What an FTP connection promises when its server is hostile, broken or merely old.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use wharf_connectors::ftp::Passive;
use wharf_connectors::{
    ByteRange, Common, Config, Content, Egress, EntryKind, Error, ErrorKind, IfExists, Remote, RemotePath, Step,
    TransferOptions, chain, ftp, local, tls, transfer,
};

use crate::fake_ftp::{FakeFtp, Faults, Noop, SLOW};
use crate::places::loopback;

const PASSWORD: &str = "hunter2 and more";

/// Short, for every test that waits for it waits that long.
const READ_TIMEOUT: Duration = Duration::from_millis(400);

/// An answer that comes after a timeout and not after the next one.
const SOON: Duration = Duration::from_secs(4);

fn config(port: u16, passive: Passive) -> Config {
    let password = SecretString::from(PASSWORD);
    Config::Ftp(ftp::Config { port, passive, ..ftp::Config::new("127.0.0.1", "alice", password) })
}

/// Without retries, so that one fault is one error.
fn common() -> Common {
    Common { connect_timeout: Duration::from_secs(1), read_timeout: READ_TIMEOUT, retries: 0, ..Common::default() }
}

fn remote_by(server: &FakeFtp, passive: Passive) -> Remote {
    Remote::new("partner", common(), config(server.port, passive), &loopback()).unwrap()
}

fn remote(server: &FakeFtp) -> Remote {
    remote_by(server, Passive::Auto)
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

async fn read(remote: &Remote, at: &str) -> Result<Bytes, Error> {
    remote.read(&path(at), ByteRange::ALL).await?.collect(10_000_000).await
}

async fn write(remote: &Remote, at: &str, content: &'static str) -> Result<(), Error> {
    remote.write(&path(at), Content::from_bytes(content), IfExists::Replace).await.map(drop)
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kind: ErrorKind, parts: &[&str]) {
    let Err(error) = result else { panic!("it succeeded instead of failing with {kind:?}") };
    let text = chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
    assert!(!text.contains("hunter2"), "the password is in {text:?}");
    assert!(text.len() < 1000, "{text}");
}

async fn server_with_file(faults: Faults) -> FakeFtp {
    FakeFtp::start(faults).await.with_file("file", &[b'x'; 100_000])
}

#[tokio::test]
async fn a_server_in_order_is_used_in_order() {
    let server = server_with_file(Faults::default()).await;
    let remote = remote(&server);
    assert_eq!(read(&remote, "/file").await.unwrap().len(), 100_000);
    write(&remote, "/new", "content").await.unwrap();
    assert_eq!(server.file("new").unwrap(), b"content");
    assert_eq!(server.names(), ["file", "new"]);
    assert_eq!(remote.list(&RemotePath::root()).await.unwrap().len(), 2);
    assert_eq!(server.connections(), 1);
    let login = ["USER alice", "PASS hunter2 and more", "TYPE I"];
    assert_eq!(server.commands(1)[..3], login);
}

/// The verbs of what was sent on the first connection.
fn verbs(server: &FakeFtp) -> Vec<String> {
    let commands = server.commands(1);
    commands.iter().map(|command| command.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn an_upload_asks_no_more_than_it_must() {
    let server = FakeFtp::start(Faults { machine_facts: true, ..Faults::default() }).await;
    let remote = remote(&server);
    let entry = remote.write(&path("/new"), Content::from_bytes("content"), IfExists::Replace).await.unwrap();
    assert_eq!(server.file("new").unwrap(), b"content");
    assert_eq!(verbs(&server), ["USER", "PASS", "TYPE", "EPSV", "STOR", "MLST", "RNFR", "RNTO"]);
    assert_eq!((entry.path, entry.kind, entry.size), (path("/new"), EntryKind::File, Some(7)));
    assert!(entry.modified.is_some());
}

#[tokio::test]
async fn an_upload_to_an_older_server_finds_out_once_what_it_lacks() {
    let server = FakeFtp::start(Faults::default()).await;
    let remote = remote(&server);
    write(&remote, "/new", "content").await.unwrap();
    let first = ["USER", "PASS", "TYPE", "EPSV", "STOR", "MLST", "FEAT", "SIZE", "MDTM", "RNFR", "RNTO"];
    assert_eq!(verbs(&server), first);
    let entry = remote.write(&path("/new"), Content::from_bytes("again"), IfExists::Replace).await.unwrap();
    assert_eq!(verbs(&server)[first.len()..], ["EPSV", "STOR", "SIZE", "MDTM", "RNFR", "RNTO"]);
    assert!(entry.size == Some(5) && entry.modified.is_some(), "{entry:?}");
}

#[tokio::test]
async fn how_names_are_written_is_agreed_on_before_the_first_that_could_be_misread() {
    let features = Some("211-features\r\n UTF8\r\n211 end");
    let server = server_with_file(Faults { features, machine_facts: true, ..Faults::default() }).await;
    let remote = remote(&server);
    write(&remote, "/new", "content").await.unwrap();
    assert!(!verbs(&server).contains(&"OPTS".to_owned()), "{:?}", server.commands(1));
    remote.rename(&path("/new"), &path("/neu für später"), IfExists::Fail).await.unwrap();
    let commands = server.commands(1);
    let at = commands.iter().position(|command| !command.is_ascii()).unwrap();
    assert!(commands[..at].contains(&"OPTS UTF8 ON".to_owned()), "{commands:?}");
    assert_eq!(server.names(), ["file", "neu für später"]);
}

#[tokio::test]
async fn a_data_address_of_a_third_party_is_denied_and_not_contacted() {
    let third_party = TcpListener::bind("127.0.0.2:0").unwrap();
    third_party.set_nonblocking(true).unwrap();
    let faults = Faults { epsv: Some("502 no"), pasv_address: Some("127,0,0,2"), ..Faults::default() };
    for passive in [Passive::Auto, Passive::Pasv] {
        let server = server_with_file(faults.clone()).await;
        let parts = ["127.0.0.1", "127.0.0.2", "pasv-same-host"];
        fails(read(&remote_by(&server, passive), "/file").await, ErrorKind::Denied, &parts);
    }
    assert_eq!(third_party.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let server = server_with_file(faults).await;
    assert_eq!(read(&remote_by(&server, Passive::PasvSameHost), "/file").await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn where_epsv_fails_pasv_is_tried() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let dead_port: &'static str = Box::leak(format!("229 entering (|||{closed}|)").into_boxed_str());
    for epsv in ["502 no", "522 no such protocol", "229 what?", dead_port] {
        let server = server_with_file(Faults { epsv: Some(epsv), ..Faults::default() }).await;
        let remote = remote(&server);
        assert_eq!(read(&remote, "/file").await.unwrap().len(), 100_000, "{epsv}");
        assert_eq!(read(&remote, "/file").await.unwrap().len(), 100_000, "{epsv}");
        let epsvs = server.commands(1).iter().filter(|command| *command == "EPSV").count();
        assert_eq!((epsvs, server.connections()), (1, 1), "{epsv}");
        fails(read(&remote_by(&server, Passive::Epsv), "/file").await, ErrorKind::Unavailable, &["data"]);
    }
}

#[tokio::test]
async fn a_download_that_is_not_confirmed_is_an_error() {
    let half = Some(50_000);
    let cases = [
        (Faults { sent_max: half, after_download: Some("426 aborted by an admin"), ..Faults::default() }, "426"),
        (Faults { after_download: Some("426 aborted by an admin"), ..Faults::default() }, "aborted by an admin"),
        (Faults { after_download: Some("451 disk error"), ..Faults::default() }, "disk error"),
        (Faults { after_download: Some(""), ..Faults::default() }, "did not confirm"),
        (Faults { sent_max: half, ..Faults::default() }, "before the size"),
        (Faults { sent_max: half, is_cut: true, ..Faults::default() }, "did not confirm"),
        (Faults { is_cut: true, ..Faults::default() }, "did not confirm"),
    ];
    for (faults, part) in cases {
        let server = server_with_file(faults).await;
        let content = remote(&server).read(&path("/file"), ByteRange::ALL).await.unwrap();
        assert_eq!(content.size(), Some(100_000));
        let begun = Instant::now();
        fails(content.collect(1 << 20).await, ErrorKind::Interrupted, &["/file", part]);
        assert!(begun.elapsed() < SOON);
    }
}

#[tokio::test]
async fn a_file_that_grows_while_it_is_read_is_an_error() {
    // The size is asked for first; what is sent afterwards is more.
    let server = FakeFtp::start(Faults::default()).await.with_file("file", b"short");
    let remote = remote(&server);
    assert_eq!(read(&remote, "/file").await.unwrap(), "short");
    let content = remote.read(&path("/file"), ByteRange { offset: 2, length: Some(2) }).await.unwrap();
    assert_eq!(content.collect(10).await.unwrap(), "or");
    assert!(server.commands(1).contains(&"REST 2".to_owned()));
}

#[tokio::test]
async fn a_server_that_hangs_is_given_up() {
    let server = FakeFtp::start(Faults { greeting: Some(""), ..Faults::default() }).await;
    let begun = Instant::now();
    fails(remote(&server).ping().await, ErrorKind::Timeout, &["greeting", "127.0.0.1"]);
    assert!(begun.elapsed() < SOON);

    let server = server_with_file(Faults { login: Some(""), ..Faults::default() }).await;
    fails(remote(&server).ping().await, ErrorKind::Timeout, &["logging in"]);

    for (faults, words) in [
        (Faults { epsv: Some(""), ..Faults::default() }, "which has not said to which port"),
        (Faults { never_begins: true, ..Faults::default() }, "but the transfer does not begin"),
    ] {
        let server = server_with_file(faults).await;
        fails(remote(&server).list(&RemotePath::root()).await, ErrorKind::Timeout, &["within 400ms", words]);
    }

    let server = server_with_file(Faults { sent_max: Some(50_000), data_hangs: true, ..Faults::default() }).await;
    let mut content = remote(&server).read(&path("/file"), ByteRange::ALL).await.unwrap().into_stream();
    let mut received = 0;
    let error = loop {
        match content.next().await.unwrap() {
            Ok(chunk) => received += chunk.len(),
            Err(error) => break error,
        }
    };
    assert_eq!(received, 50_000);
    fails(Err::<(), _>(error), ErrorKind::Timeout, &["/file"]);
    assert!(content.next().await.is_none());
}

#[tokio::test]
async fn a_listing_cannot_lead_out_of_its_folder() {
    let line = |name: &str| format!("-rw-r--r-- 1 ftp ftp 7 Jan  2 03:04 {name}\r\n");
    let listing: String =
        [".", "..", "../up", "a/b", "/etc/passwd", "..\\up", "good", "a\u{1b}[2J", "x/"].map(line).concat();
    let server = FakeFtp::start(Faults { listing: Some(listing), ..Faults::default() }).await;
    let entries = remote(&server).list(&RemotePath::root()).await.unwrap();
    let told: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.kind)).collect();
    assert_eq!(told, [("/good", EntryKind::File), ("/a\u{ef1b}[2J", EntryKind::File)]);
}

#[tokio::test]
async fn lines_that_say_nothing_are_left_out_of_a_listing() {
    let junk = "hello\r\n\0\u{1}\u{2}\r\n\r\n\n-rw-r--r-- nonsense\r\ntotal 4\n";
    let listing = format!("{junk}-rw-r--r-- 1 ftp ftp 7 Jan  2 03:04 good\n{junk}");
    let server = FakeFtp::start(Faults { listing: Some(listing), ..Faults::default() }).await;
    let entries = remote(&server).list(&RemotePath::root()).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["/good"]);
}

#[tokio::test]
async fn a_listing_without_end_is_limited() {
    let listing = Some("-rw-r--r-- 1 ftp ftp 7 Jan  2 03:04 again\r\n".repeat(100));
    let server = FakeFtp::start(Faults { listing, is_listing_endless: true, ..Faults::default() }).await;
    fails(remote(&server).list(&RemotePath::root()).await, ErrorKind::TooLarge, &["10000"]);
    let listing = Some("never a line end ".repeat(100));
    let server = FakeFtp::start(Faults { listing, is_listing_endless: true, ..Faults::default() }).await;
    fails(remote(&server).list(&RemotePath::root()).await, ErrorKind::TooLarge, &["line"]);
}

#[tokio::test]
async fn a_connection_that_was_closed_while_idle_is_replaced_unnoticed() {
    for farewell in ["421 you were idle for too long", ""] {
        let after = Duration::from_millis(50);
        let server = server_with_file(Faults { farewell: Some((after, farewell)), ..Faults::default() }).await;
        let remote = remote(&server);
        remote.ping().await.unwrap();
        tokio::time::sleep(4 * after).await;
        assert_eq!(read(&remote, "/file").await.unwrap().len(), 100_000);
        assert_eq!(server.connections(), 2);
    }
}

type Operation = fn(Remote) -> BoxFuture<'static, Result<(), Error>>;

#[tokio::test]
async fn a_connection_that_dies_of_its_first_command_is_replaced_unnoticed() {
    // USER, PASS, TYPE, FEAT, SYST and the NOOP of the ping are answered, and nothing more.
    let faults = Faults { commands_max: Some(6), ..Faults::default() };
    let operations: [Operation; 4] = [
        |remote| Box::pin(async move { remote.ping().await.map(drop) }),
        |remote| Box::pin(async move { remote.delete(&path("/file")).await }),
        |remote| Box::pin(async move { write(&remote, "/file", "x").await }),
        |remote| Box::pin(async move { read(&remote, "/file").await.map(drop) }),
    ];
    for operation in operations {
        let server = server_with_file(faults.clone()).await;
        let remote = remote(&server);
        remote.ping().await.unwrap();
        operation(remote).await.unwrap();
        assert_eq!(server.connections(), 2);
    }
}

#[tokio::test]
async fn a_connection_that_dies_later_is_an_error() {
    // SIZE is answered, what follows is not.
    let server = server_with_file(Faults { commands_max: Some(7), ..Faults::default() }).await;
    let remote = remote(&server);
    remote.ping().await.unwrap();
    fails(read(&remote, "/file").await, ErrorKind::Unavailable, &["RETR /file"]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn what_is_safe_to_repeat_is_tried_again() {
    let server = server_with_file(Faults { commands_max: Some(7), ..Faults::default() }).await;
    let common = Common { retries: 1, ..common() };
    let remote = Remote::new("partner", common, config(server.port, Passive::Auto), &loopback()).unwrap();
    remote.ping().await.unwrap();
    // The first connection dies before the transfer, a second one has commands enough for it.
    read(&remote, "/file").await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_transfer_that_breaks_off_is_tried_again_as_often_as_both_ends_allow() {
    let folder = tempfile::tempdir().unwrap();
    for (here, there, tries) in [(2, 2, 3), (0, 2, 1), (2, 0, 1)] {
        let faults = Faults { sent_max: Some(10), after_download: Some("426 broken off"), ..Faults::default() };
        let server = server_with_file(faults).await;
        let common = |retries| Common { retries, ..common() };
        let source = Remote::new("partner", common(there), config(server.port, Passive::Auto), &loopback()).unwrap();
        let local = Config::Local(local::Config { folder: folder.path().to_owned() });
        let target = Remote::new("here", common(here), local, &loopback()).unwrap();
        let at = path("/file");
        let mut moving = transfer(&source, &at, &target, &at, TransferOptions::default()).await.unwrap();
        fails(moving.next().await.unwrap().outcome, ErrorKind::Interrupted, &["broke off"]);
        let commands: Vec<_> = (1..=server.connections()).flat_map(|number| server.commands(number)).collect();
        let asked = commands.iter().filter(|command| command.starts_with("RETR")).count();
        assert_eq!(asked, tries, "{here} and {there}: {commands:?}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}

#[tokio::test]
async fn idle_connections_are_closed_with_a_farewell() {
    let server = server_with_file(Faults::default()).await;
    let common = Common { idle_timeout: Duration::from_millis(100), ..common() };
    let remote = Remote::new("partner", common, config(server.port, Passive::Auto), &loopback()).unwrap();
    remote.ping().await.unwrap();
    let deadline = Instant::now() + SOON;
    while server.commands(1).last().unwrap() != "QUIT" {
        assert!(Instant::now() < deadline, "{:?}", server.commands(1));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    remote.ping().await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_refused_login_is_denied_and_keeps_the_password_secret() {
    let replies = [
        ("530 Login incorrect.", ErrorKind::Denied, "Login incorrect"),
        ("530-You said\r\n530 PASS hunter2 and more", ErrorKind::Denied, "PASS ***"),
        ("421 Too many users", ErrorKind::Unavailable, "Too many users"),
        ("332 Need account", ErrorKind::Denied, "Need account"),
    ];
    for (login, kind, part) in replies {
        let server = FakeFtp::start(Faults { login: Some(login), ..Faults::default() }).await;
        fails(remote(&server).ping().await, kind, &["alice", "127.0.0.1", part]);
    }
    assert!(!format!("{:?}", config(21, Passive::Auto)).contains("hunter2"));
}

#[tokio::test]
async fn an_error_tells_which_step_failed() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let remote = Remote::new("partner", common(), config(closed, Passive::Auto), &loopback()).unwrap();
    fails(
        remote.ping().await,
        ErrorKind::Unavailable,
        &["cannot be reached", &format!("127.0.0.1:{closed}"), "refused"],
    );

    let server = FakeFtp::start(Faults { greeting: Some("SSH-2.0-OpenSSH_9.2"), ..Faults::default() }).await;
    fails(self::remote(&server).ping().await, ErrorKind::Unavailable, &["does not greet like an FTP server"]);
    let server = FakeFtp::start(Faults { greeting: Some("421 full"), ..Faults::default() }).await;
    fails(self::remote(&server).ping().await, ErrorKind::Unavailable, &["takes no connection now", "421 full"]);

    let server = FakeFtp::start(Faults::default()).await;
    fails(read(&self::remote(&server), "/missing").await, ErrorKind::NotFound, &["/missing"]);

    let Config::Ftp(mut unknown) = config(21, Passive::Auto) else { unreachable!() };
    unknown.host = "no-such-host.invalid".to_owned();
    let remote = Remote::new("partner", common(), Config::Ftp(unknown), &loopback()).unwrap();
    fails(remote.ping().await, ErrorKind::Unavailable, &["no-such-host.invalid"]);
}

#[tokio::test]
async fn the_outgoing_policy_holds() {
    let server = server_with_file(Faults::default()).await;
    let policy = Arc::new(Egress::default());
    let remote = Remote::new("partner", common(), config(server.port, Passive::Auto), &policy).unwrap();
    fails(remote.ping().await, ErrorKind::Denied, &["127.0.0.1", "egress-allow"]);
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_user_that_could_smuggle_a_command_is_no_setting() {
    let Config::Ftp(mut smuggler) = config(21, Passive::Auto) else { unreachable!() };
    smuggler.user = "alice\r\nDELE file".to_owned();
    let made = Remote::new("partner", common(), Config::Ftp(smuggler), &loopback());
    assert_eq!(made.unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn an_upload_that_the_server_does_not_keep_whole_changes_nothing() {
    let cases = [
        (Faults { kept_max: Some(3), ..Faults::default() }, ErrorKind::Interrupted, "3 of the 7 bytes"),
        (
            Faults { kept_max: Some(3), machine_facts: true, ..Faults::default() },
            ErrorKind::Interrupted,
            "3 of the 7 bytes",
        ),
        (Faults { after_upload: Some("552 disk full"), ..Faults::default() }, ErrorKind::Unavailable, "552 disk full"),
        (Faults { after_upload: Some("426 aborted"), ..Faults::default() }, ErrorKind::Interrupted, "426 aborted"),
    ];
    for (faults, kind, part) in cases {
        let server = server_with_file(faults).await;
        fails(write(&remote(&server), "/file", "content").await, kind, &["/file", part]);
        assert_eq!(server.names(), ["file"]);
        assert_eq!(server.file("file").unwrap().len(), 100_000);
    }
}

#[tokio::test]
async fn an_upload_that_is_never_confirmed_changes_nothing() {
    let server = server_with_file(Faults { after_upload: Some(""), ..Faults::default() }).await;
    fails(write(&remote(&server), "/file", "content").await, ErrorKind::Timeout, &["end of a transfer"]);
    let deadline = Instant::now() + SOON;
    while server.names() != ["file"] {
        assert!(Instant::now() < deadline, "{:?}", server.names());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(server.file("file").unwrap().len(), 100_000);
}

#[tokio::test]
async fn where_a_rename_does_not_replace_the_target_is_deleted_first() {
    let server = server_with_file(Faults { keeps_targets: true, ..Faults::default() }).await.with_file("b", b"b");
    let remote = remote(&server);
    write(&remote, "/file", "content").await.unwrap();
    assert_eq!(server.file("file").unwrap(), b"content");
    assert_eq!(server.names(), ["b", "file"]);
    let commands = server.commands(1);
    let at = commands.iter().position(|command| command == "DELE /file").unwrap();
    assert!(commands[at + 1].starts_with("RNFR /.file.") && commands[at + 2] == "RNTO /file", "{commands:?}");
    remote.rename(&path("/file"), &path("/b"), IfExists::Replace).await.unwrap();
    assert_eq!(server.file("b").unwrap(), b"content");
    assert_eq!(server.names(), ["b"]);
}

#[tokio::test]
async fn a_server_that_talks_without_end_is_given_up() {
    let endless: &'static str = Box::leak("220-and\r\n".repeat(60_000).into_boxed_str());
    let server = FakeFtp::start(Faults { greeting: Some(endless), ..Faults::default() }).await;
    let begun = Instant::now();
    fails(remote(&server).ping().await, ErrorKind::Unavailable, &["larger than"]);
    assert!(begun.elapsed() < SOON);
}

#[tokio::test]
async fn a_slow_source_does_not_run_into_the_timeout_of_the_server() {
    let server = FakeFtp::start(Faults::default()).await;
    let slow = stream::iter(["a", "b", "c"]).then(async |text| {
        tokio::time::sleep(READ_TIMEOUT).await;
        Ok(Bytes::from_static(text.as_bytes()))
    });
    let content = Content::from_stream(None, slow);
    remote(&server).write(&path("/file"), content, IfExists::Fail).await.unwrap();
    assert_eq!(server.file("file").unwrap(), b"abc");
}

#[tokio::test]
async fn pages_of_a_listing_arrive_before_its_end() {
    let listing = Some("-rw-r--r-- 1 ftp ftp 7 Jan  2 03:04 again\r\n".repeat(1000));
    let server = FakeFtp::start(Faults { listing, is_listing_endless: true, ..Faults::default() }).await;
    let pages = remote(&server).list_pages(&RemotePath::root()).await.unwrap();
    futures::pin_mut!(pages);
    let first = pages.try_next().await.unwrap().unwrap();
    assert!(!first.is_empty() && first.len() <= 1000);
}

#[tokio::test]
async fn an_account_is_told_to_a_server_that_asks_for_it() {
    let faults = Faults { account: Some("230 welcome, sales"), ..Faults::default() };
    let server = FakeFtp::start(faults.clone()).await;
    fails(remote(&server).ping().await, ErrorKind::Denied, &["332 account?"]);
    let Config::Ftp(mut config) = config(server.port, Passive::Auto) else { unreachable!() };
    config.account = Some(SecretString::from("hunter2 sales"));
    let remote = Remote::new("partner", common(), Config::Ftp(config.clone()), &loopback()).unwrap();
    remote.ping().await.unwrap();
    assert!(server.commands(2).contains(&"ACCT hunter2 sales".to_owned()), "{:?}", server.commands(2));
    let server = FakeFtp::start(Faults { account: Some("530 no such account"), ..faults }).await;
    config.port = server.port;
    let remote = Remote::new("partner", common(), Config::Ftp(config), &loopback()).unwrap();
    fails(remote.ping().await, ErrorKind::Denied, &["530 no such account"]);
}

#[tokio::test]
async fn a_failed_ping_tells_its_step() {
    let step = async |config: Config, egress: &Arc<Egress>| {
        let remote = Remote::new("partner", common(), config, egress).unwrap();
        remote.ping().await.unwrap_err().step()
    };
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let Config::Ftp(unknown) = config(21, Passive::Auto) else { unreachable!() };
    let unknown = Config::Ftp(ftp::Config { host: "no-such-host.invalid".to_owned(), ..unknown });
    assert_eq!(step(unknown, &loopback()).await, Some(Step::Name));
    assert_eq!(step(config(closed, Passive::Auto), &Arc::default()).await, Some(Step::Name));
    assert_eq!(step(config(closed, Passive::Auto), &loopback()).await, Some(Step::Connect));
    let cases = [
        (Faults { greeting: Some("421 full"), ..Faults::default() }, Step::Connect),
        (Faults { greeting: Some(""), ..Faults::default() }, Step::Connect),
        (Faults { login: Some("530 no"), ..Faults::default() }, Step::Login),
        (Faults { login: Some(""), ..Faults::default() }, Step::Login),
        (Faults { commands_max: Some(5), ..Faults::default() }, Step::Command),
    ];
    for (faults, wanted) in cases {
        let server = FakeFtp::start(faults).await;
        assert_eq!(step(config(server.port, Passive::Auto), &loopback()).await, Some(wanted));
    }
    let server = FakeFtp::start(Faults::default()).await;
    let Config::Ftp(plain) = config(server.port, Passive::Auto) else { unreachable!() };
    let secure = ftp::Config { security: ftp::Security::Explicit(Default::default()), ..plain };
    assert_eq!(step(Config::Ftp(secure), &loopback()).await, Some(Step::Tls));
}

#[tokio::test]
async fn a_long_transfer_keeps_its_control_connection_alive_whenever_the_server_answers() {
    for noop in [Noop::AtOnce, Noop::AfterTheTransfer, Noop::Never] {
        let server = server_with_file(Faults { slow_bytes: 8, noop, ..Faults::default() }).await;
        let Config::Ftp(mut config) = config(server.port, Passive::Auto) else { unreachable!() };
        config.noop_interval = Some(2 * SLOW);
        let remote = Remote::new("partner", common(), Config::Ftp(config), &loopback()).unwrap();
        for _ in 0..2 {
            assert_eq!(read(&remote, "/file").await.unwrap().len(), 100_000);
        }
        let noops = server.commands(1).iter().filter(|command| *command == "NOOP").count();
        assert!((2..20).contains(&noops), "{:?}", server.commands(1));
        // Whoever owes an answer is not asked again.
        assert_eq!(server.connections(), if noop == Noop::Never { 2 } else { 1 });
    }
}

#[tokio::test]
async fn a_connection_is_not_used_beyond_its_life_time() {
    let server = server_with_file(Faults::default()).await;
    let common = Common { life_time: Duration::from_millis(100), ..common() };
    let remote = Remote::new("partner", common, config(server.port, Passive::Auto), &loopback()).unwrap();
    remote.ping().await.unwrap();
    remote.ping().await.unwrap();
    assert_eq!(server.connections(), 1);
    tokio::time::sleep(Duration::from_millis(120)).await;
    remote.ping().await.unwrap();
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn a_server_that_cannot_connect_to_us_is_an_error_and_no_wait() {
    let server = server_with_file(Faults::default()).await;
    let begun = Instant::now();
    // It has no PORT.
    fails(read(&remote_by(&server, Passive::Never), "/file").await, ErrorKind::Unsupported, &["502"]);
    assert!(begun.elapsed() < SOON);
}

/// What a server of TLS shows, and the pin by which it is known.
fn identity() -> (TlsAcceptor, String) {
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let pin = Sha256::digest(key.cert.der()).iter().map(|byte| format!("{byte:02x}")).collect();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let tls = tls.with_no_client_auth();
    let tls = tls.with_single_cert(vec![key.cert.der().clone()], key.signing_key.into()).unwrap();
    (TlsAcceptor::from(Arc::new(tls)), pin)
}

fn secured(server: &FakeFtp, pin: &str) -> Remote {
    let tls = tls::Config { pin: pin.parse().ok(), ..tls::Config::default() };
    let Config::Ftp(plain) = config(server.port, Passive::Auto) else { unreachable!() };
    let config = Config::Ftp(ftp::Config { security: ftp::Security::Implicit(tls), ..plain });
    Remote::new("partner", common(), config, &loopback()).unwrap()
}

#[tokio::test]
async fn an_end_that_tls_does_not_announce_is_believed_only_when_the_size_is_as_told() {
    let (tls, pin) = identity();
    let faults = Faults { tls: Some(tls), no_close_notify: true, ..Faults::default() };
    let remote = |server: &FakeFtp| secured(server, &pin);

    let server = server_with_file(faults.clone()).await;
    assert_eq!(read(&remote(&server), "/file").await.unwrap().len(), 100_000);
    assert_eq!(remote(&server).list(&RemotePath::root()).await.unwrap().len(), 1);
    let server = server_with_file(Faults { no_size: true, ..faults.clone() }).await;
    fails(read(&remote(&server), "/file").await, ErrorKind::Interrupted, &["/file", "broke"]);
    let server = server_with_file(Faults { sent_max: Some(50_000), ..faults.clone() }).await;
    fails(read(&remote(&server), "/file").await, ErrorKind::Interrupted, &["/file", "broke"]);
    let server = server_with_file(Faults { after_download: Some("426 aborted"), ..faults.clone() }).await;
    fails(read(&remote(&server), "/file").await, ErrorKind::Interrupted, &["426 aborted"]);
    // Announced, it needs no size.
    let server = server_with_file(Faults { no_close_notify: false, no_size: true, ..faults }).await;
    assert_eq!(read(&remote(&server), "/file").await.unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_task_that_has_used_up_its_turn_sends_its_commands_all_the_same() {
    // What a task may do before others have their turn, in tokio; more is tried, for what else is done counts, too.
    const TURN: usize = 128;
    let (tls, pin) = identity();
    let server = server_with_file(Faults { tls: Some(tls), ..Faults::default() }).await;
    let remote = secured(&server, &pin);
    remote.ping().await.unwrap();
    for used in 0..TURN {
        tokio::task::yield_now().await;
        for _ in 0..used {
            tokio::task::coop::consume_budget().await;
        }
        remote.ping().await.unwrap_or_else(|error| panic!("after {used} steps of a turn: {}", chain(&error)));
    }
    assert_eq!(server.connections(), 1);
}
