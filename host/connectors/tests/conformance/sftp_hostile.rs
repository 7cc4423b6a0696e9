//! Servers that break SSH or SFTP, stall, or lie: each gives an error of its own within its time, and none crashes or
//! hangs.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt;
use russh::server;
use secrecy::SecretString;
use tokio::sync::mpsc;
use wharf_connectors::{ByteRange, Common, Config, Content, Error, ErrorKind, Remote, RemotePath, Step, chain, sftp};

use crate::openssh::Openssh;
use crate::places::loopback;

const HOSTILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/servers/openssh/hostile");

/// For each answer of the server; a wait that is longer than a few of them has no end.
const LIMIT: Duration = Duration::from_millis(1500);

fn remote(config: sftp::Config) -> Remote {
    let common = Common { connect_timeout: LIMIT * 2, read_timeout: LIMIT, retries: 0, ..Common::default() };
    Remote::new("hostile", common, Config::Sftp(config), &loopback()).unwrap()
}

/// A server whose logins and encryption are OpenSSH's, and whose SFTP goes wrong in this way.
fn hostile(way: &str) -> (Openssh, Remote) {
    let server = Openssh::start_with(&[], &[("OPENSSH_SFTP", &format!("{HOSTILE} {way}"))]);
    let remote = remote(server.config());
    (server, remote)
}

async fn read_all(remote: &Remote) -> Result<usize, Error> {
    let content: Content = remote.read(&RemotePath::parse("/file").unwrap(), ByteRange::ALL).await?;
    content.into_stream().try_fold(0, |sum, chunk| async move { Ok(sum + chunk.len()) }).await
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kinds: &[ErrorKind], part: &str) {
    match result {
        Ok(_) => panic!("it succeeded instead of failing: {part}"),
        Err(error) => {
            let message = chain(&error);
            assert!(kinds.contains(&error.kind()) && message.contains(part), "{:?}: {message}", error.kind());
        }
    }
}

/// A TCP server that does something with each connection.
fn tcp(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> sftp::Config {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().map_while(Result::ok).for_each(&serve));
    let pinned = vec![sftp::Fingerprint::parse("SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").unwrap()];
    sftp::Config {
        port,
        login: vec![sftp::Login::Password(SecretString::from("secret"))],
        host_keys: sftp::HostKeys { pinned, ..sftp::HostKeys::default() },
        ..sftp::Config::new("127.0.0.1", "alice")
    }
}

async fn connecting_fails(config: sftp::Config, kinds: &[ErrorKind]) {
    let started = Instant::now();
    let error = remote(config).ping().await.unwrap_err();
    assert_eq!(error.step(), Some(Step::Connect), "{}", chain(&error));
    assert!(kinds.contains(&error.kind()), "{:?}: {}", error.kind(), chain(&error));
    assert!(started.elapsed() < LIMIT * 4, "it took {:?}", started.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_says_nothing_or_no_ssh_is_given_up() {
    let hold = |mut stream: TcpStream| drop(stream.read(&mut [0; 4096]).and_then(|_| stream.read(&mut [0; 4096])));
    connecting_fails(tcp(hold), &[ErrorKind::Timeout]).await;
    connecting_fails(tcp(drop), &[ErrorKind::Unavailable]).await;
    let web = |mut stream: TcpStream| drop(stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    connecting_fails(tcp(web), &[ErrorKind::Unavailable]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_greeting_without_end_is_given_up() {
    let line = |mut stream: TcpStream| while stream.write_all(&[b'A'; 65536]).is_ok() {};
    connecting_fails(tcp(line), &[ErrorKind::Timeout, ErrorKind::Unavailable]).await;
    let lines = |mut stream: TcpStream| while stream.write_all(&b"hello\r\n".repeat(1000)).is_ok() {};
    connecting_fails(tcp(lines), &[ErrorKind::Timeout, ErrorKind::Unavailable]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_of_nonsense_is_given_up() {
    let nonsense = |mut stream: TcpStream| {
        let packet = [&0xFFFF_FFFF_u32.to_be_bytes()[..], &[20; 4096]].concat();
        let _sent = stream.write_all(b"SSH-2.0-hostile\r\n").and_then(|()| stream.write_all(&packet));
        let _read = stream.read(&mut [0; 4096]).and_then(|_| stream.read(&mut [0; 4096]));
    };
    connecting_fails(tcp(nonsense), &[ErrorKind::Timeout, ErrorKind::Unavailable]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sftp_that_does_not_begin_is_given_up() {
    for (way, kinds) in [
        ("silent", [ErrorKind::Timeout]),
        ("garbage", [ErrorKind::Unavailable]),
        ("old-version", [ErrorKind::Unavailable]),
    ] {
        let (_server, remote) = hostile(way);
        fails(remote.ping().await.map(drop), &kinds, "SFTP");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_that_break_the_protocol_end_the_session_and_nothing_else() {
    for way in ["absurd-length", "absurd-string", "wrong-number", "too-much-data"] {
        let (_server, remote) = hostile(way);
        fails(read_all(&remote).await, &[ErrorKind::Unavailable, ErrorKind::Interrupted], "the SFTP server");
        remote.ping().await.unwrap_or_else(|error| panic!("after {way}: {}", chain(&error)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_breaks_off_is_no_whole_content() {
    for (way, kinds) in [
        ("no-data", [ErrorKind::Interrupted, ErrorKind::Interrupted]),
        ("cut", [ErrorKind::Unavailable, ErrorKind::Interrupted]),
        ("stall", [ErrorKind::Timeout, ErrorKind::Timeout]),
        ("drip", [ErrorKind::Timeout, ErrorKind::Timeout]),
    ] {
        let (_server, remote) = hostile(way);
        let started = Instant::now();
        fails(read_all(&remote).await, &kinds, "file");
        assert!(started.elapsed() < LIMIT * 5, "{way} took {:?}", started.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_without_end_ends_in_bounded_memory() {
    let (_server, remote) = hostile("endless-names");
    fails(remote.list(&RemotePath::root()).await, &[ErrorKind::TooLarge], "entries");
    let handle = remote.sftp().unwrap();
    fails(handle.list(&RemotePath::root()).await, &[ErrorKind::TooLarge], "entries");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_climb_are_left_out_of_a_listing() {
    let (_server, remote) = hostile("climbing-names");
    let entries = remote.list(&RemotePath::root()).await.unwrap();
    let names: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(names, ["/new\u{ef0a}line", "/fine"]);
}

/// A server that opens channels of its own when it is asked for SFTP, and tells whether it got any.
struct Opener {
    opened: mpsc::Sender<Vec<bool>>,
}

impl server::Handler for Opener {
    type Error = russh::Error;

    async fn auth_password(&mut self, _: &str, _: &str) -> Result<server::Auth, russh::Error> {
        Ok(server::Auth::Accept)
    }

    async fn channel_open_session(
        &mut self,
        _: russh::Channel<server::Msg>,
        reply: server::ChannelOpenHandle,
        _: &mut server::Session,
    ) -> Result<(), russh::Error> {
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        _: russh::ChannelId,
        _: &str,
        session: &mut server::Session,
    ) -> Result<(), russh::Error> {
        let (handle, opened) = (session.handle(), self.opened.clone());
        tokio::spawn(async move {
            let all = vec![
                handle.channel_open_session().await.is_ok(),
                handle.channel_open_agent().await.is_ok(),
                handle.channel_open_x11("127.0.0.1", 6000).await.is_ok(),
                handle.channel_open_forwarded_tcpip("127.0.0.1", 22, "127.0.0.1", 1).await.is_ok(),
                handle.channel_open_forwarded_streamlocal("/run/socket").await.is_ok(),
            ];
            opened.send(all).await.unwrap();
        });
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn channels_that_a_server_opens_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (file, form) = (folder.path().join("host_key"), ["-q", "-t", "ed25519", "-N", "", "-f"]);
    assert!(Command::new("ssh-keygen").args(form).arg(&file).status().unwrap().success());
    let key = russh::keys::load_secret_key(&file, None).unwrap();
    let fingerprint = key.public_key().fingerprint(russh::keys::HashAlg::Sha256).to_string();
    let config = Arc::new(server::Config {
        keys: vec![key],
        auth_rejection_time_initial: Some(Duration::ZERO),
        ..server::Config::default()
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (opened, mut told) = mpsc::channel(1);
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        server::run_stream(config, stream, Opener { opened }).await.unwrap().await
    });
    let config = sftp::Config {
        port,
        login: vec![sftp::Login::Password(SecretString::from("secret"))],
        host_keys: sftp::HostKeys {
            pinned: vec![sftp::Fingerprint::parse(&fingerprint).unwrap()],
            ..sftp::HostKeys::default()
        },
        ..sftp::Config::new("127.0.0.1", "alice")
    };
    // It never begins to speak SFTP.
    fails(remote(config).ping().await, &[ErrorKind::Timeout], "starting SFTP");
    assert_eq!(told.recv().await.unwrap(), [false; 5]);
    // The connection is closed, so the server ends.
    let _broken_off = serving.await.unwrap();
}
