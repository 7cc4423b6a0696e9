//! What FTP connections do beyond the contract, on real servers: active data connections, times, continued writes,
//! appending, copies and checksums of the server's own, encodings of names, raw commands, large folders.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use wharf_connectors::ftp::{Passive, Security};
use wharf_connectors::{
    ByteRange, ChecksumAlgorithm, Common, Config, Content, EntryKind, Error, ErrorKind, IfExists, Remote, RemotePath,
    Resume, ResumeKey, TransferOptions, WriteOptions, chain, ftp, transfer,
};

use crate::ftp_server::FtpServer;
use crate::places::loopback;

const SOFTWARE: [&str; 3] = ["proftpd", "vsftpd", "pure-ftpd"];

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

fn remote(config: ftp::Config) -> Remote {
    Remote::new("partner", Common { retries: 0, ..Common::default() }, Config::Ftp(config), &loopback()).unwrap()
}

/// A server and a connection to it, with the folder `/wharf`, which is the only one that vsftpd can write to.
async fn partner(software: &str, arguments: &[&str]) -> (FtpServer, Remote) {
    let server = FtpServer::start(software, arguments);
    let security = if arguments.contains(&"explicit") { Security::Explicit(server.tls()) } else { Security::None };
    let remote = remote(ftp::Config { security, ..server.config() });
    remote.make_directories(&path("/wharf")).await.unwrap();
    (server, remote)
}

async fn put(remote: &Remote, at: &str, content: &'static [u8]) {
    remote.write(&path(at), Content::from_bytes(content), IfExists::Replace).await.unwrap();
}

async fn get(remote: &Remote, at: &str) -> Bytes {
    remote.read(&path(at), ByteRange::ALL).await.unwrap().collect(10_000_000).await.unwrap()
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kind: ErrorKind, parts: &[&str]) {
    let Err(error) = result else { panic!("it succeeded instead of failing with {kind:?}") };
    let text = chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

#[tokio::test]
async fn a_link_is_followed_where_the_server_tells_what_it_leads_to() {
    for software in SOFTWARE {
        let (server, remote) = partner(software, &[]).await;
        put(&remote, "/wharf/file", b"content").await;
        std::os::unix::fs::symlink("file", server.home().join("wharf/link")).unwrap();
        let found = remote.follow(&path("/wharf/link")).await.unwrap();
        assert_eq!((found.kind, found.size), (EntryKind::File, Some(7)), "{software}");
        let target = path("/wharf/copy");
        let copied = transfer(&remote, &path("/wharf/link"), &remote, &target, TransferOptions::default()).await;
        copied.unwrap().next().await.unwrap().outcome.unwrap();
        assert_eq!(get(&remote, "/wharf/copy").await, "content");
    }
}

#[tokio::test]
async fn names_that_a_path_cannot_hold_are_listed_read_written_and_deleted() {
    let names = [
        ("next\u{85}line", "/wharf/next\u{efc2}\u{ef85}line"),
        // These Pure-FTPd does not take, or does not list.
        ("back\\slash", "/wharf/back\u{ef5c}slash"),
        ("escape\u{1b}[2J", "/wharf/escape\u{ef1b}[2J"),
        ("tab\tstop", "/wharf/tab\u{ef09}stop"),
    ];
    for software in SOFTWARE {
        let names = if software == "pure-ftpd" { &names[..1] } else { &names };
        let (server, remote) = partner(software, &[]).await;
        let folder = server.home().join("wharf");
        for (name, at) in names {
            put(&remote, at, b"content").await;
            assert_eq!(std::fs::read(folder.join(name)).unwrap(), b"content", "{name:?} on {software}");
        }
        let entries = remote.list(&path("/wharf")).await.unwrap();
        let told: BTreeSet<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(told, names.iter().map(|(_, at)| *at).collect(), "{software}");
        for (_, at) in names {
            assert_eq!(get(&remote, at).await, "content", "{at:?} on {software}");
            remote.delete(&path(at)).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0, "{software}");
        let smuggled = remote.delete(&path("/wharf/a\u{ef0d}\u{ef0a}DELE b")).await;
        fails(smuggled, ErrorKind::Invalid, &["cannot send"]);
    }
}

/// A folder `/wharf/in` that shall not be left, with links of all kinds in it, and `/wharf/out` beside it.
fn with_links(server: &FtpServer) {
    let folder = server.home().join("wharf");
    for name in ["in/deep", "in/a", "out"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    for name in ["in", "out"] {
        std::fs::set_permissions(folder.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    }
    std::fs::write(folder.join("out/secret"), "secret").unwrap();
    let forged_lines = [
        "A\nlrwxrwxrwx   1 0        0               4 Jan  2  2024 forged-link -> file",
        "A\n-rw-r--r--   1 0        0               4 Jan  2  2024 forged-file",
    ];
    for name in ["file", "deep/file", "a/a b", "my file", "a [b]*", "-la", "x -> y"].into_iter().chain(forged_lines) {
        std::fs::write(folder.join("in").join(name), "inside").unwrap();
    }
    for (name, target) in [
        ("folder-out", "../out"),
        ("file-out", "../out/secret"),
        ("absolute-out", "/wharf/out/secret"),
        ("twice-out", "file-out"),
        ("arrow -> out", "../out/secret"),
        ("[p]*", "../out/secret"),
        ("my link", "../out/secret"),
        ("new-out", "../out/new"),
        ("a b", "../out/secret"),
        ("nl\nx", "../out/secret"),
        ("twice-told", "nl\nx"),
        ("forged-link", "../out/secret"),
        ("forged-file", "../out/secret"),
        ("circle", "circle"),
        ("folder-in", "deep"),
        ("file-in", "deep/file"),
    ] {
        std::os::unix::fs::symlink(target, folder.join("in").join(name)).unwrap();
    }
}

#[tokio::test]
async fn a_link_that_leads_out_of_a_folder_is_not_followed_by_those_who_are_confined_to_it() {
    for software in SOFTWARE {
        let (server, remote) = partner(software, &[]).await;
        with_links(&server);
        let common = Common { retries: 0, root: path("/wharf/in"), ..Common::default() };
        let rooted = Remote::new("partner", common, Config::Ftp(server.config()), &loopback()).unwrap();
        let granted = remote.within(&[path("/wharf/in"), path("/wharf/new")]);
        for (confined, at) in [(&rooted, ""), (&granted, "/wharf/in")] {
            let at = |name: &str| path(&format!("{at}/{name}"));
            for name in ["file", "deep/file", "my file", "a [b]*", "-la", "x -> y", "folder-in/file"] {
                assert_eq!(get(confined, at(name).as_str()).await, "inside", "{software} {name}");
            }
            let out = [
                "file-out",
                "absolute-out",
                "twice-out",
                "arrow -> out",
                "[p]*",
                "my link",
                "folder-out/secret",
                "circle",
                "a b",
                "twice-told",
                "forged-link",
                "forged-file",
                "file-in",
            ];
            for name in out {
                let denied = |result: Result<(), Error>, what: &str| {
                    let Err(error) = result else { panic!("{software} {what} {name} succeeded") };
                    // Where the server itself refuses to follow a link, nothing is there.
                    let kinds =
                        [ErrorKind::Denied, ErrorKind::NotFound, ErrorKind::Unavailable, ErrorKind::Unsupported];
                    assert!(kinds.contains(&error.kind()), "{software} {what} {name}: {}", chain(&error));
                };
                let name = at(name);
                denied(confined.read(&name, ByteRange::ALL).await.map(drop), "read");
                denied(confined.append(&name, Content::from_bytes("x")).await.map(drop), "append");
                denied(confined.copy(&name, &at("copy"), IfExists::Replace).await.map(drop), "copy");
                denied(confined.set_modified(&name, SystemTime::UNIX_EPOCH).await, "set the time of");
                // Nothing is computed where the server cannot.
                let checksum = confined.checksum(&name).await;
                assert!(!matches!(checksum, Ok(Some(_))), "{software} computes a checksum of {name}");
                let followed = confined.follow(&name).await;
                let is_told = followed.is_ok_and(|entry| entry.kind != EntryKind::Symlink);
                assert!(!is_told, "{software} tells what is behind {name}");
            }
            // ProFTPD itself refuses to make a file by way of a link.
            confined.append(&at("new-out"), Content::from_bytes("x")).await.unwrap_err();
            fails(confined.list(&at("folder-out")).await, ErrorKind::Denied, &["leads out", "folder-out"]);
            let out = at("folder-out/new");
            fails(confined.stat(&at("folder-out/secret")).await, ErrorKind::Denied, &["leads out"]);
            for if_exists in [IfExists::Replace, IfExists::Fail] {
                fails(
                    confined.write(&out, Content::from_bytes("x"), if_exists).await,
                    ErrorKind::Denied,
                    &["leads out"],
                );
            }
            fails(confined.make_directory(&out).await, ErrorKind::Denied, &["leads out"]);
            fails(confined.rename(&at("file"), &out, IfExists::Replace).await, ErrorKind::Denied, &["leads out"]);
            fails(confined.delete(&at("folder-out/secret")).await, ErrorKind::Denied, &["leads out"]);
            // What is not there is not in doubt, and a new file is one of the folder.
            fails(confined.read(&at("missing"), ByteRange::ALL).await, ErrorKind::NotFound, &["missing"]);
            confined.append(&at("log"), Content::from_bytes("new")).await.unwrap();
            assert_eq!(get(confined, at("log").as_str()).await, "new");
            // What was found to be a file is looked at again when something took its place.
            confined.append(&at("replaced"), Content::from_bytes("x")).await.unwrap();
            assert_eq!(get(confined, at("replaced").as_str()).await, "x");
            confined.rename(&at("my link"), &at("replaced"), IfExists::Replace).await.unwrap();
            confined.read(&at("replaced"), ByteRange::ALL).await.map(drop).unwrap_err();
            confined.rename(&at("replaced"), &at("my link"), IfExists::Fail).await.unwrap();
            // The link itself may go, and what it leads to stays.
            confined.delete(&at("log")).await.unwrap();
            confined.delete(&at("absolute-out")).await.unwrap();
            std::os::unix::fs::symlink("/wharf/out/secret", server.home().join("wharf/in/absolute-out")).unwrap();
        }
        // Sessions are shared: what holds for one handle does not for the other.
        for _ in 0..2 {
            assert_eq!(get(&remote, "/wharf/in/folder-out/secret").await, "secret", "{software}");
            let refused = granted.read(&path("/wharf/in/folder-out/secret"), ByteRange::ALL).await;
            fails(refused, ErrorKind::Denied, &["leads out of /wharf/in"]);
        }
        let options = WriteOptions { parents: true, ..WriteOptions::new(IfExists::Fail) };
        granted.write_with(&path("/wharf/new/folder/file"), Content::from_bytes("x"), &options).await.unwrap();
        assert_eq!(get(&granted, "/wharf/new/folder/file").await, "x");
        assert_eq!(std::fs::read_to_string(server.home().join("wharf/out/secret")).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(server.home().join("wharf/out")).unwrap().count(), 1);
    }
}

#[tokio::test]
async fn a_link_that_could_not_be_deleted_is_still_one() {
    let (server, remote) = partner("vsftpd", &[]).await;
    with_links(&server);
    let folder = server.home().join("wharf/in");
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o555)).unwrap();
    let confined = remote.within(&[path("/wharf/in")]);
    let link = path("/wharf/in/new-out");
    confined.delete(&link).await.unwrap_err();
    fails(confined.append(&link, Content::from_bytes("x")).await, ErrorKind::Denied, &["is a symbolic link"]);
    assert!(!server.home().join("wharf/out/new").exists());
}

#[tokio::test]
async fn a_partial_file_that_was_exchanged_for_a_link_is_not_continued() {
    let (server, remote) = partner("pure-ftpd", &[]).await;
    with_links(&server);
    let confined = remote.within(&[path("/wharf/in")]);
    let (target, key) = (path("/wharf/in/big"), ResumeKey::of("the same"));
    let resumed = |offset| WriteOptions {
        resume: Some(Resume { key: key.clone(), offset }),
        ..WriteOptions::new(IfExists::Replace)
    };
    let broken =
        stream::iter([Ok(Bytes::from_static(b"se")), Err(Error::new(ErrorKind::Interrupted, "the source broke"))]);
    let broken = Content::from_stream(None, broken.boxed());
    confined.write_with(&target, broken, &resumed(0)).await.unwrap_err();
    let is_partial = |name: &str| name.contains("big") && name != "big";
    let names = std::fs::read_dir(server.home().join("wharf/in")).unwrap();
    let partial = names.map(|entry| entry.unwrap()).find(|entry| is_partial(entry.file_name().to_str().unwrap()));
    let partial = partial.unwrap().path();
    std::fs::remove_file(&partial).unwrap();
    std::os::unix::fs::symlink("../out/secret", &partial).unwrap();
    fails(confined.partial(&target, &key).await, ErrorKind::Denied, &["is a symbolic link"]);
    for offset in [0, 6] {
        let written = confined.write_with(&target, Content::from_bytes("x"), &resumed(offset)).await;
        fails(written, ErrorKind::Denied, &["is a symbolic link"]);
    }
    assert_eq!(std::fs::read_to_string(server.home().join("wharf/out/secret")).unwrap(), "secret");
}

#[tokio::test]
async fn a_server_may_connect_to_us_for_data() {
    for (software, arguments) in
        [("proftpd", &[][..]), ("proftpd", &["explicit"]), ("vsftpd", &["explicit"]), ("pure-ftpd", &[])]
    {
        let (server, plain) = partner(software, arguments).await;
        drop(plain);
        let security = if arguments.is_empty() { Security::None } else { Security::Explicit(server.tls()) };
        let remote = remote(ftp::Config { passive: Passive::Never, security, ..server.config() });
        for round in 0..5 {
            let name = format!("/wharf/{round}");
            put(&remote, &name, b"by active mode").await;
            assert_eq!(get(&remote, &name).await, "by active mode");
            assert_eq!(remote.list(&path("/wharf")).await.unwrap().len(), round + 1, "{software}");
        }
        fails(remote.read(&path("/wharf/missing"), ByteRange::ALL).await, ErrorKind::NotFound, &["/wharf/missing"]);
    }
}

#[tokio::test]
async fn the_time_of_a_file_is_kept_and_set() {
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    for software in SOFTWARE {
        let (_server, remote) = partner(software, &[]).await;
        let options = WriteOptions { modified: Some(then), ..WriteOptions::new(IfExists::Fail) };
        let written = remote.write_with(&path("/wharf/old"), Content::from_bytes("x"), &options).await.unwrap();
        assert_eq!(written.modified, Some(then), "{software}");
        put(&remote, "/wharf/new", b"x").await;
        remote
            .set_modified(&path("/wharf/new"), then)
            .await
            .unwrap_or_else(|error| panic!("{software}: {}", chain(&error)));
        assert_eq!(remote.stat(&path("/wharf/new")).await.unwrap().modified, Some(then), "{software}");
        fails(remote.set_modified(&path("/wharf/missing"), then).await, ErrorKind::NotFound, &["/wharf/missing"]);
    }
}

#[tokio::test]
async fn a_listing_that_the_server_cuts_short_is_an_error() {
    for arguments in [&["--limitrecursion=2000:10"][..], &["explicit", "--limitrecursion=2000:10"]] {
        let (server, remote) = partner("pure-ftpd", arguments).await;
        let folder = server.home().join("wharf");
        for number in 0..1_990 {
            std::fs::write(folder.join(number.to_string()), "").unwrap();
        }
        assert_eq!(remote.list(&path("/wharf")).await.unwrap().len(), 1_990);
        for number in 1_990..2_010 {
            std::fs::write(folder.join(number.to_string()), "").unwrap();
        }
        let parts = ["does not list all of /wharf", "truncated to 2000", "LimitRecursion"];
        fails(remote.list(&path("/wharf")).await, ErrorKind::TooLarge, &parts);
        assert_eq!(get(&remote, "/wharf/7").await, "", "the connection goes on");
    }
}

#[tokio::test]
async fn the_root_is_looked_for_by_a_ping_and_not_told_to_those_inside() {
    for software in SOFTWARE {
        let (server, _remote) = partner(software, &[]).await;
        let rooted = |root: &str| {
            let common = Common { retries: 0, root: path(root), ..Common::default() };
            Remote::new("partner", common, Config::Ftp(server.config()), &loopback()).unwrap()
        };
        rooted("/wharf").ping().await.unwrap();
        let missing = rooted("/nope").ping().await.map(drop);
        fails(missing, ErrorKind::NotFound, &["/nope"]);
        let Err(error) = rooted("/wharf").read(&path("/gone"), ByteRange::ALL).await else { panic!("it is read") };
        assert!(error.to_string().contains("/gone") && !error.to_string().contains("/wharf"), "{error}");
    }
}

#[tokio::test]
async fn content_is_appended() {
    for software in SOFTWARE {
        let (_server, remote) = partner(software, &[]).await;
        for (text, size) in [("one", 3), (" two", 7)] {
            let entry = remote.append(&path("/wharf/log"), Content::from_bytes(text)).await;
            let entry = entry.unwrap_or_else(|error| panic!("{software}: {}", chain(&error)));
            assert_eq!(entry.size, Some(size));
        }
        assert_eq!(get(&remote, "/wharf/log").await, "one two", "{software}");
        fails(remote.append(&path("/wharf"), Content::from_bytes("x")).await, ErrorKind::Conflict, &["folder"]);
        fails(
            remote.append(&path("/wharf/no/log"), Content::from_bytes("x")).await,
            ErrorKind::NotFound,
            &["/wharf/no"],
        );
    }
}

#[tokio::test]
async fn a_write_that_broke_off_is_continued() {
    let content: Bytes = (0..400_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>().into();
    let target = path("/wharf/large");
    for software in SOFTWARE {
        let (_server, remote) = partner(software, &["explicit"]).await;
        let key = ResumeKey::of("some source");
        let options = |offset| WriteOptions {
            resume: Some(Resume { key: key.clone(), offset }),
            ..WriteOptions::new(IfExists::Replace)
        };
        assert_eq!(remote.partial(&target, &key).await.unwrap(), 0);
        let failure = Err(Error::new(ErrorKind::RateLimited, "the source gave up"));
        let begun = Content::from_stream(None, stream::iter([Ok(content.slice(..1_000_000)), failure]));
        fails(remote.write_with(&target, begun, &options(0)).await, ErrorKind::RateLimited, &["gave up"]);
        let partial = remote.partial(&target, &key).await.unwrap();
        assert!(partial > 0 && partial <= 1_000_000, "{software}: {partial}");
        assert_eq!(remote.partial(&target, &ResumeKey::of("another")).await.unwrap(), 0);
        assert!(!remote.exists(&target).await.unwrap());

        // What is behind the offset is not believed.
        let offset = partial / 2;
        let rest = Content::from_bytes(content.slice(usize::try_from(offset).unwrap()..));
        let written = remote.write_with(&target, rest, &options(offset)).await;
        let written = written.unwrap_or_else(|error| panic!("{software}: {}", chain(&error)));
        assert_eq!(written.size, Some(content.len() as u64));
        assert!(get(&remote, "/wharf/large").await == content, "{software}: the bytes differ");
        assert_eq!(remote.list(&path("/wharf")).await.unwrap().len(), 1);

        let early = remote.write_with(&target, Content::from_bytes("x"), &options(77)).await;
        fails(early, ErrorKind::Interrupted, &["byte 77", "begin anew"]);
    }
}

#[tokio::test]
async fn the_server_copies_and_computes_checksums_where_it_can() {
    let (server, remote) = partner("proftpd", &["LoadModule mod_copy.c", "LoadModule mod_digest.c"]).await;
    put(&remote, "/wharf/a b", b"hello").await;
    put(&remote, "/wharf/c", b"in the way").await;
    let copied = remote.copy(&path("/wharf/a b"), &path("/wharf/c"), IfExists::Replace).await.unwrap();
    assert_eq!((copied.path, copied.size), (path("/wharf/c"), Some(5)));
    assert_eq!(get(&remote, "/wharf/c").await, "hello");
    let transfers = remote.ftp().unwrap().command("NOOP").await.unwrap();
    assert_eq!(transfers.code, 200);
    fails(
        remote.copy(&path("/wharf/c"), &path("/wharf/a b"), IfExists::Fail).await,
        ErrorKind::AlreadyExists,
        &["a b"],
    );
    assert_eq!(remote.list(&path("/wharf")).await.unwrap().len(), 2);

    let checksum = remote.checksum(&path("/wharf/a b")).await.unwrap().unwrap();
    assert_eq!(checksum.algorithm, ChecksumAlgorithm::Sha256);
    assert_eq!(checksum.value, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
    fails(remote.checksum(&path("/wharf")).await, ErrorKind::Conflict, &["folder"]);
    fails(remote.checksum(&path("/wharf/missing")).await, ErrorKind::NotFound, &[]);
    drop(server);

    let (_server, remote) = partner("vsftpd", &[]).await;
    put(&remote, "/wharf/a", b"hello").await;
    assert_eq!(remote.checksum(&path("/wharf/a")).await.unwrap(), None);
    remote.copy(&path("/wharf/a"), &path("/wharf/b"), IfExists::Fail).await.unwrap();
    assert_eq!(get(&remote, "/wharf/b").await, "hello");
}

#[tokio::test]
async fn names_are_written_in_the_encoding_of_the_connection() {
    for software in SOFTWARE {
        let (server, remote_in_utf8) = partner(software, &[]).await;
        let on_disk = |name: &[u8]| server.home().join("wharf").join(OsStr::from_bytes(name));
        let latin = remote(ftp::Config { encoding: "iso-8859-1".parse().unwrap(), ..server.config() });
        std::fs::write(on_disk(b"gr\xfc\xdfe"), "latin").unwrap();
        let names: Vec<String> =
            latin.list(&path("/wharf")).await.unwrap().iter().map(|entry| entry.path.name().to_owned()).collect();
        assert_eq!(names, ["grüße"], "{software}");
        assert_eq!(get(&latin, "/wharf/grüße").await, "latin", "{software}");
        put(&latin, "/wharf/ä", b"written").await;
        assert_eq!(std::fs::read(on_disk(b"\xe4")).unwrap(), b"written", "{software}");
        fails(latin.stat(&path("/wharf/€")).await, ErrorKind::Invalid, &["iso-8859-1", "€"]);

        // What is not UTF-8 can be listed, read and deleted all the same.
        let entries = remote_in_utf8.list(&path("/wharf")).await.unwrap();
        assert_eq!(entries.len(), 2, "{software}: {entries:?}");
        for entry in entries {
            let content = remote_in_utf8.read(&entry.path, ByteRange::ALL).await.unwrap();
            assert!(!content.collect(100).await.unwrap().is_empty());
            remote_in_utf8.delete(&entry.path).await.unwrap();
        }
        assert_eq!(std::fs::read_dir(on_disk(b"")).unwrap().count(), 0, "{software}");
    }
}

#[tokio::test]
async fn raw_commands_are_answered_and_those_that_would_take_the_session_are_refused() {
    let (server, remote) = partner("proftpd", &[]).await;
    let ftp = remote.ftp().unwrap();
    let features = ftp.features().await.unwrap();
    assert!(features.iter().any(|feature| feature.starts_with("MLST ")), "{features:?}");
    put(&remote, "/wharf/a", b"x").await;
    let answer = ftp.site("CHMOD 600 /wharf/a").await.unwrap();
    assert_eq!(answer.code, 200, "{answer:?}");
    let answer = ftp.command("STAT").await.unwrap();
    assert!(answer.lines.len() > 2 && answer.lines[0].starts_with("211-"), "{answer:?}");
    assert_eq!(ftp.command("DELE /wharf/missing").await.unwrap().code, 550);
    assert_eq!(ftp.command("NONSENSE").await.unwrap().code, 500);
    for command in ["RETR /wharf/a", "list", "PASV", "USER bob", "quit", "TYPE A", "", " NOOP", "NOOP\r\nDELE /wharf/a"]
    {
        fails(ftp.command(command).await, ErrorKind::Invalid, &["raw command"]);
    }
    assert_eq!(get(&remote, "/wharf/a").await, "x");

    let common = Common { root: path("/wharf"), ..Common::default() };
    let rooted = Remote::new("rooted", common, Config::Ftp(server.config()), &loopback()).unwrap();
    fails(rooted.ftp().unwrap().command("DELE /wharf/a").await, ErrorKind::Denied, &["rooted", "root"]);
    assert!(!rooted.ftp().unwrap().features().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_ping_tells_what_the_server_is() {
    let (_server, remote) = partner("vsftpd", &["explicit"]).await;
    let facts = remote.ping().await.unwrap().facts;
    let fact = |name: &str| facts.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_str());
    assert_eq!(fact("address"), Some("127.0.0.1"));
    assert_eq!(fact("server"), Some("(vsFTPd 3.0.3)"));
    assert_eq!(fact("system"), Some("UNIX Type: L8"));
    assert!(fact("tls").unwrap().starts_with("TLSv1"), "{facts:?}");
    assert!(fact("features").unwrap().contains("REST"), "{facts:?}");
}

#[tokio::test]
async fn a_folder_of_a_hundred_thousand_files_is_listed_page_by_page() {
    const FILES: usize = 100_000;
    for arguments in [&[][..], &["FactsAdvertise off"]] {
        let (server, remote) = partner("proftpd", arguments).await;
        let folder = server.home().join("wharf");
        for number in 0..FILES {
            std::fs::File::create(folder.join(format!("file {number:06}"))).unwrap();
        }
        let pages = remote.list_pages(&path("/wharf")).await.unwrap();
        let counts: Vec<usize> = pages.map_ok(|page| page.len()).boxed().try_collect().await.unwrap();
        assert_eq!(counts.iter().sum::<usize>(), FILES);
        assert!(counts.iter().all(|count| (1..=1000).contains(count)), "a page of {:?}", counts.iter().max());
    }
}
