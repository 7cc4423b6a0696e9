//! What a transfer promises whatever its ends are: tried between two local folders.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use wharf_connectors::{
    Common, Config, Content, ErrorKind, FileResult, IfExists, IfPresent, Outcome, Progress, Remote, RemotePath,
    Transfer, TransferOptions, local, transfer,
};

use crate::ftp_server::FtpServer;
use crate::openssh::Openssh;
use crate::places::{emulator, loopback};

struct Ends {
    folder: tempfile::TempDir,
    source: Remote,
    target: Remote,
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

impl Ends {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let open = |name: &str| {
            fs::create_dir(folder.path().join(name)).unwrap();
            let config = Config::Local(local::Config { folder: folder.path().join(name) });
            Remote::new(name, Common::default(), config, &loopback()).unwrap()
        };
        let (source, target) = (open("source"), open("target"));
        Self { folder, source, target }
    }

    fn put(&self, at: &str, content: impl AsRef<[u8]>) {
        let file = self.folder.path().join(at);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    fn names(&self, at: &str) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path().join(at)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    async fn transfer(&self, from: &str, to: &str, options: TransferOptions) -> (Vec<FileResult>, Progress) {
        let mut transfer = transfer(&self.source, &path(from), &self.target, &path(to), options).await.unwrap();
        let mut results = Vec::new();
        while let Some(result) = transfer.next().await {
            results.push(result);
        }
        (results, transfer.progress())
    }
}

#[tokio::test]
async fn each_file_has_a_result_of_its_own() {
    let ends = Ends::new();
    ends.put("source/in/good", "good");
    ends.put("source/in/taken", "taken");
    ends.put("target/out/taken", "mine");
    std::os::unix::fs::symlink("good", ends.folder.path().join("source/in/link")).unwrap();
    let (mut results, progress) = ends.transfer("/in", "/out", TransferOptions::default()).await;
    results.sort_by(|a, b| a.source.cmp(&b.source));
    let outcomes: Vec<_> = results.into_iter().map(|result| result.outcome.map_err(|error| error.kind())).collect();
    assert_eq!(outcomes[0], Ok(Outcome::Transferred { bytes: 4, resumed_at: 0 }));
    assert_eq!(outcomes[1], Ok(Outcome::Skipped("it is a symbolic link")));
    assert_eq!(outcomes[2], Err(ErrorKind::AlreadyExists));
    assert_eq!((progress.files_transferred, progress.files_skipped, progress.files_failed), (1, 1, 1));
    assert!(progress.is_counted);
    assert_eq!(fs::read_to_string(ends.folder.path().join("target/out/taken")).unwrap(), "mine");
}

#[tokio::test]
async fn what_failed_or_was_left_out_stays_when_the_rest_is_moved() {
    let ends = Ends::new();
    ends.put("source/in/deep/good", "good");
    ends.put("source/in/taken", "taken");
    ends.put("target/out/taken", "mine");
    let options = TransferOptions { delete_source: true, ..TransferOptions::default() };
    let (_, progress) = ends.transfer("/in", "/out", options).await;
    assert_eq!((progress.files_transferred, progress.files_failed), (1, 1));
    assert_eq!(ends.names("source/in"), ["taken"]);
    assert_eq!(ends.names("target/out/deep"), ["good"]);
}

#[tokio::test]
async fn a_source_that_changes_while_it_is_read_is_not_moved() {
    let ends = Ends::new();
    ends.put("source/file", vec![b'x'; 64 << 20]);
    let options = TransferOptions { delete_source: true, ..TransferOptions::default() };
    let mut transfer = transfer(&ends.source, &path("/file"), &ends.target, &path("/file"), options).await.unwrap();
    while transfer.progress().bytes_transferred == 0 {
        tokio::task::yield_now().await;
    }
    let later = SystemTime::now() + Duration::from_secs(60);
    ends.source.set_modified(&path("/file"), later).await.unwrap();
    let result = transfer.next().await.unwrap();
    assert_eq!(result.outcome.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!(ends.names("source"), ["file"]);
    assert_eq!(ends.names("target"), [""; 0]);
}

#[tokio::test]
async fn a_transfer_that_was_dropped_is_continued_where_it_was() {
    let ends = Ends::new();
    let content: Vec<u8> = (0..96_u32 << 20).map(|at| (at >> 12) as u8).collect();
    ends.put("source/file", &content);
    let options = TransferOptions { resume: true, ..TransferOptions::default() };
    let first = transfer(&ends.source, &path("/file"), &ends.target, &path("/file"), options.clone()).await.unwrap();
    while first.progress().bytes_transferred < 4 << 20 {
        tokio::task::yield_now().await;
    }
    drop(first);
    // The write ends a moment after it was dropped; until then it is the only one.
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let resumed_at = loop {
        let (results, _) = ends.transfer("/file", "/file", options.clone()).await;
        match results.into_iter().next().unwrap().outcome {
            Ok(Outcome::Transferred { bytes, resumed_at }) => {
                assert_eq!(bytes, content.len() as u64);
                break resumed_at;
            }
            Err(error) if error.kind() == ErrorKind::Conflict => {
                assert!(std::time::Instant::now() < deadline, "{error}");
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(resumed_at > 0 && resumed_at < content.len() as u64, "resumed at {resumed_at}");
    assert_eq!(ends.names("target"), ["file"]);
    assert!(fs::read(ends.folder.path().join("target/file")).unwrap() == content);
}

#[tokio::test]
async fn a_file_takes_a_free_name_when_asked() {
    let ends = Ends::new();
    ends.put("source/a.txt", "new");
    ends.put("target/a.txt", "old");
    let options = TransferOptions { if_present: IfPresent::Rename, ..TransferOptions::default() };
    let (results, _) = ends.transfer("/a.txt", "/a.txt", options).await;
    assert_eq!(results[0].target, path("/a (1).txt"));
    assert_eq!(ends.names("target"), ["a (1).txt", "a.txt"]);
}

fn ftp(name: &str, server: &FtpServer, operations_max: usize) -> Remote {
    let common = Common { operations_max, ..Common::default() };
    Remote::new(name, common, Config::Ftp(server.config()), &loopback()).unwrap()
}

async fn all(mut transfer: Transfer) -> Vec<FileResult> {
    let mut results = Vec::new();
    while let Some(result) = transfer.next().await {
        results.push(result);
    }
    results
}

#[tokio::test]
async fn a_file_is_not_moved_to_itself_by_another_name_of_its_folder() {
    let ends = Ends::new();
    ends.put("source/tree/a", "content");
    ends.put("source/tree/deep/a", "content");
    std::os::unix::fs::symlink("tree", ends.folder.path().join("source/link")).unwrap();
    let whole = Config::Local(local::Config { folder: ends.folder.path().to_owned() });
    let whole = Remote::new("whole", Common::default(), whole, &loopback()).unwrap();
    let server = FtpServer::start("proftpd", &[]);
    fs::create_dir(server.home().join("tree")).unwrap();
    fs::write(server.home().join("tree/a"), "content").unwrap();
    let partner = ftp("partner", &server, 8);
    let home = Config::Local(local::Config { folder: server.home() });
    let home = Remote::new("home", Common::default(), home, &loopback()).unwrap();
    let options =
        || TransferOptions { if_present: IfPresent::Replace, delete_source: true, ..TransferOptions::default() };
    for (source, from, target, to) in
        [(&whole, "/source/tree/a", &ends.source, "/link/a"), (&partner, "/tree", &home, "/tree")]
    {
        let results = all(transfer(source, &path(from), target, &path(to), options()).await.unwrap()).await;
        for result in &results {
            let error = result.outcome.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
            assert!(error.to_string().contains("are the same file"), "{error}");
        }
        assert!(!results.is_empty());
    }
    assert_eq!(ends.names("source/tree"), ["a", "deep"]);
    assert_eq!(fs::read_to_string(server.home().join("tree/a")).unwrap(), "content");
    // Another file of the same name and size is replaced, and its source gone.
    ends.put("target/a", "CONTENT");
    let (results, _) = ends.transfer("/tree/a", "/a", options()).await;
    assert!(results[0].outcome.is_ok(), "{results:?}");
    assert_eq!((ends.names("source/tree"), ends.names("target")), (vec!["deep".to_owned()], vec!["a".to_owned()]));
}

#[tokio::test]
async fn a_change_within_the_minute_that_a_listing_tells_is_seen() {
    let ends = Ends::new();
    let server = FtpServer::start("vsftpd", &[]);
    let minute = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_040 / 60 * 60);
    let place = |at: &Path, content: &str, seconds: u64| {
        fs::write(at, content).unwrap();
        fs::File::options().write(true).open(at).unwrap().set_modified(minute + Duration::from_secs(seconds)).unwrap();
    };
    fs::create_dir_all(server.home().join("tree")).unwrap();
    place(&server.home().join("tree/changed"), "new", 45);
    place(&server.home().join("tree/same"), "old", 5);
    place(&ends.folder.path().join("target/changed"), "old", 5);
    place(&ends.folder.path().join("target/same"), "old", 5);
    let source = ftp("partner", &server, 8);
    let options = TransferOptions { if_present: IfPresent::Update, ..TransferOptions::default() };
    let results = all(transfer(&source, &path("/tree"), &ends.target, &path("/"), options).await.unwrap()).await;
    let done = |result: &FileResult| matches!(result.outcome, Ok(Outcome::Transferred { .. }));
    let transferred: Vec<_> = results.iter().filter(|result| done(result)).map(|result| result.target.name()).collect();
    assert_eq!(transferred, ["changed"], "{results:?}");
    assert_eq!(fs::read_to_string(ends.folder.path().join("target/changed")).unwrap(), "new");
}

#[tokio::test]
async fn copying_within_a_connection_that_allows_one_operation_is_refused_where_the_content_would_pass_here() {
    let server = FtpServer::start("vsftpd", &[]);
    fs::write(server.home().join("a"), "x").unwrap();
    let remote = ftp("partner", &server, 1);
    let copying = transfer(&remote, &path("/a"), &remote, &path("/b"), TransferOptions::default()).await;
    let refused = [
        copying.unwrap().next().await.unwrap().outcome.err(),
        remote.copy(&path("/a"), &path("/b"), IfExists::Fail).await.err(),
    ];
    for error in refused.map(Option::unwrap) {
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("raise operations-max"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_within_a_connection_is_made_by_the_remote_where_it_can() {
    let alone = |root: &Path| Common { root: path(root.to_str().unwrap()), operations_max: 1, ..Common::default() };
    let (ends, ftp_server, openssh) =
        (Ends::new(), FtpServer::start("proftpd", &["LoadModule mod_copy.c"]), Openssh::start(&[]));
    let (emulator, dropbox) = emulator().await;
    let folder = Config::Local(local::Config { folder: ends.folder.path().join("source") });
    let top = Path::new("/");
    let remotes = [
        (folder, alone(top)),
        (Config::Ftp(ftp_server.config()), alone(top)),
        (Config::Sftp(openssh.config()), alone(&openssh.home())),
        (Config::Dropbox(dropbox), alone(top)),
    ];
    for (config, common) in remotes {
        // One operation at once: what passed through here would take two.
        let remote = Remote::new("partner", common, config, &loopback()).unwrap();
        let content = Content::from_bytes(vec![b'x'; 10 << 20]);
        remote.write(&path("/large"), content, IfExists::Fail).await.unwrap();
        let before = remote.stat(&path("/large")).await.unwrap();
        let copying = transfer(&remote, &path("/large"), &remote, &path("/new/copy"), TransferOptions::default()).await;
        let copied = copying.unwrap().next().await.unwrap().outcome.unwrap();
        assert_eq!(copied, Outcome::Transferred { bytes: 10 << 20, resumed_at: 0 }, "{}", remote.kind());
        let after = remote.stat(&path("/new/copy")).await.unwrap();
        assert_eq!((after.size, after.modified), (before.size, before.modified), "{}", remote.kind());
    }
    drop(emulator);
}

#[tokio::test]
async fn a_folder_is_not_moved_into_itself() {
    let ends = Ends::new();
    ends.put("source/a/b", "x");
    for to in ["/a", "/a/c"] {
        let into = transfer(&ends.source, &path("/a"), &ends.source, &path(to), TransferOptions::default()).await;
        assert_eq!(into.err().unwrap().kind(), ErrorKind::Invalid, "{to}");
    }
}

#[tokio::test]
async fn a_folder_is_not_copied_into_itself_by_another_connection_or_another_case() {
    let ends = Ends::new();
    ends.put("source/a/b", "x");
    std::os::unix::fs::symlink("a", ends.folder.path().join("source/link")).unwrap();
    let whole = Config::Local(local::Config { folder: ends.folder.path().to_owned() });
    let whole = Remote::new("whole", Common::default(), whole, &loopback()).unwrap();
    let server = FtpServer::start("proftpd", &[]);
    fs::create_dir(server.home().join("a")).unwrap();
    let (_emulator, config) = emulator().await;
    let dropbox = |name: &str, root: &str| {
        let common = Common { root: path(root), ..Common::default() };
        Remote::new(name, common, Config::Dropbox(config.clone()), &loopback()).unwrap()
    };
    let (team, folder) = (dropbox("team", "/"), dropbox("folder", "/a"));
    team.make_directories(&path("/a/b")).await.unwrap();
    for (source, from, target, to) in [
        (&whole, "/source", &ends.source, "/deeper/still"),
        (&ends.source, "/a", &whole, "/source/link/c"),
        (&ftp("one", &server, 8), "/a", &ftp("another", &server, 8), "/a/b"),
        (&team, "/a", &team, "/A/c"),
        (&team, "/A", &folder, "/c"),
    ] {
        let into = transfer(source, &path(from), target, &path(to), TransferOptions::default()).await;
        let error = into.err().unwrap_or_else(|| panic!("{from} goes into {to} on {}", target.name()));
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    // Beside it, and out of it, is another matter.
    for (source, from, target, to) in
        [(&ends.source, "/a", &whole, "/source/ab"), (&folder, "/b", &team, "/c"), (&team, "/a/b", &folder, "/bc")]
    {
        let results = all(transfer(source, &path(from), target, &path(to), TransferOptions::default()).await.unwrap());
        assert!(results.await.iter().all(|result| result.outcome.is_ok()));
    }
}

#[tokio::test]
async fn of_two_files_that_have_one_name_where_case_makes_no_difference_none_is_lost() {
    let ends = Ends::new();
    let (_emulator, config) = emulator().await;
    let dropbox = Remote::new("dropbox", Common::default(), Config::Dropbox(config), &loopback()).unwrap();
    for if_present in [IfPresent::Replace, IfPresent::Update] {
        for file in ["Rep.txt", "rep.txt", "other", "folder/a", "Folder/a", "Folder/deep/b"] {
            ends.put(&format!("source/{file}"), file);
        }
        let options = || TransferOptions { if_present, delete_source: true, ..TransferOptions::default() };
        let to = path(&format!("/{if_present:?}"));
        let results = all(transfer(&ends.source, &RemotePath::root(), &dropbox, &to, options()).await.unwrap()).await;
        let (moved, kept): (Vec<_>, Vec<_>) = results.iter().partition(|result| result.outcome.is_ok());
        for result in &kept {
            let error = result.outcome.as_ref().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
            assert!(ends.folder.path().join("source").join(&result.source.as_str()[1..]).exists(), "{error}");
        }
        // One of the two texts, and all that is in one of the two folders.
        assert!(kept.len() == 2 || kept.len() == 3, "{results:?}");
        assert_eq!(moved.len() + kept.len(), 6, "{results:?}");
        for result in &moved {
            let there = dropbox.read(&result.target, wharf_connectors::ByteRange::ALL).await.unwrap();
            assert_eq!(there.collect(100).await.unwrap(), &result.source.as_str()[1..]);
        }
    }
    // Where case makes a difference, all are moved.
    ends.put("source/both/A", "1");
    ends.put("source/both/a", "2");
    let options = TransferOptions { if_present: IfPresent::Replace, delete_source: true, ..TransferOptions::default() };
    let (results, _) = ends.transfer("/both", "/both", options).await;
    assert!(results.iter().all(|result| result.outcome.is_ok()), "{results:?}");
    assert_eq!(ends.names("target/both"), ["A", "a"]);
}
