//! The promises of what goes beyond one file written once: times, appending, copies, trees, transfers, and going on
//! where something broke off.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt, TryStreamExt};
use wharf_connectors::{
    ByteRange, Common, Config, Content, EntryKind, Error, ErrorKind, Filter, IfExists, IfPresent, Outcome, Remote,
    RemotePath, Resume, ResumeKey, TransferOptions, Verify, WriteOptions, local, transfer,
};

use crate::places::{Place, loopback};

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

async fn put(remote: &Remote, at: &str, text: &'static str) {
    let options = WriteOptions { parents: true, ..WriteOptions::new(IfExists::Replace) };
    remote.write_with(&path(at), Content::from_bytes(text), &options).await.unwrap();
}

async fn get(remote: &Remote, at: &str) -> String {
    let content = remote.read(&path(at), ByteRange::ALL).await.unwrap().collect(1 << 24).await.unwrap();
    String::from_utf8(content.to_vec()).unwrap()
}

fn kind_of_failure<T>(outcome: Result<T, Error>) -> Option<ErrorKind> {
    outcome.err().map(|error| error.kind())
}

/// Everything below the root, by path; folders end with `/`.
async fn tree(remote: &Remote) -> BTreeSet<String> {
    let entries: Vec<_> = remote.walk(&RemotePath::root(), Filter::default()).try_collect().await.unwrap();
    let mark = |kind| if kind == EntryKind::Directory { "/" } else { "" };
    entries.iter().map(|entry| format!("{}{}", entry.path, mark(entry.kind))).collect()
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

/// A local folder, for the other end of a transfer.
fn other() -> (tempfile::TempDir, Remote) {
    let folder = tempfile::tempdir().unwrap();
    let config = Config::Local(local::Config { folder: folder.path().to_owned() });
    let remote = Remote::new("other", Common::default(), config, &loopback()).unwrap();
    (folder, remote)
}

pub(crate) async fn missing_folders_are_made_when_asked(place: &Place) {
    put(&place.remote, "/a/b c/file", "x").await;
    put(&place.remote, "/a/b c/other", "y").await;
    place.remote.make_directories(&path("/a/d/e")).await.unwrap();
    place.remote.make_directories(&path("/a/d/e")).await.unwrap();
    assert_eq!(tree(&place.remote).await, set(["/a/", "/a/b c/", "/a/b c/file", "/a/b c/other", "/a/d/", "/a/d/e/"]));
    let through_a_file = place.remote.make_directories(&path("/a/b c/file/deeper")).await;
    assert_eq!(kind_of_failure(through_a_file), Some(ErrorKind::Conflict));
    assert!(place.remote.exists(&path("/a/d")).await.unwrap());
    assert!(!place.remote.exists(&path("/a/x/y")).await.unwrap());
}

pub(crate) async fn a_tree_is_copied_within_the_connection(place: &Place) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    put(&place.remote, "/from/deep/one", "one").await;
    let options = WriteOptions { modified: Some(time), ..WriteOptions::new(IfExists::Fail) };
    place.remote.write_with(&path("/from/two"), Content::from_bytes("two"), &options).await.unwrap();
    let copy = async |if_present| {
        let options = TransferOptions { if_present, verify: Verify::Content, ..TransferOptions::default() };
        let mut copying = transfer(&place.remote, &path("/from"), &place.remote, &path("/to"), options).await.unwrap();
        let mut outcomes = Vec::new();
        while let Some(result) = copying.next().await {
            outcomes.push(result.outcome.map_err(|error| error.kind()));
        }
        assert_eq!(copying.progress().bytes_found, 6);
        outcomes
    };
    let done = Ok(Outcome::Transferred { bytes: 3, resumed_at: 0 });
    assert_eq!(copy(IfPresent::Fail).await, [done.clone(), done.clone()]);
    assert_eq!(copy(IfPresent::Fail).await, [Err(ErrorKind::AlreadyExists), Err(ErrorKind::AlreadyExists)]);
    put(&place.remote, "/to/two", "another").await;
    assert_eq!(copy(IfPresent::Replace).await, [done.clone(), done.clone()]);
    assert_eq!(copy(IfPresent::Rename).await, [done.clone(), done]);
    let names = ["/to/", "/to/deep/", "/to/deep/one", "/to/deep/one (1)", "/to/two", "/to/two (1)"];
    let there: BTreeSet<_> = tree(&place.remote).await.into_iter().filter(|name| name.starts_with("/to")).collect();
    assert_eq!(there, set(names));
    assert_eq!(
        (get(&place.remote, "/to/deep/one").await, get(&place.remote, "/to/two").await),
        ("one".into(), "two".into())
    );
    if place.keeps_times {
        assert_eq!(place.remote.stat(&path("/to/two")).await.unwrap().modified, Some(time));
    }
}

pub(crate) async fn a_time_of_last_change_is_kept_where_it_can_be(place: &Place) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_234_567_890);
    let options = WriteOptions { modified: Some(time), ..WriteOptions::new(IfExists::Fail) };
    place.remote.write_with(&path("/file"), Content::from_bytes("x"), &options).await.unwrap();
    if place.keeps_times {
        assert_eq!(place.remote.stat(&path("/file")).await.unwrap().modified, Some(time));
        let later = time + Duration::from_secs(86_400);
        match place.remote.set_modified(&path("/file"), later).await {
            Ok(()) => assert_eq!(place.remote.stat(&path("/file")).await.unwrap().modified, Some(later)),
            Err(error) => assert_eq!((error.kind(), place.remote.kind()), (ErrorKind::Unsupported, "dropbox")),
        }
    }
    let missing = place.remote.set_modified(&path("/missing"), time).await;
    let kind = kind_of_failure(missing);
    assert!(matches!(kind, Some(ErrorKind::NotFound | ErrorKind::Unsupported)), "{kind:?}");
}

pub(crate) async fn content_is_appended(place: &Place) {
    if place.remote.kind() == "dropbox" {
        let append = place.remote.append(&path("/file"), Content::from_bytes("x")).await;
        assert_eq!(kind_of_failure(append), Some(ErrorKind::Unsupported));
        return;
    }
    let pieces = ["one", " two", " three"];
    for (number, text) in pieces.into_iter().enumerate() {
        let entry = place.remote.append(&path("/file"), Content::from_bytes(text)).await.unwrap();
        assert_eq!(entry.size, Some(pieces[..=number].concat().len() as u64));
    }
    assert_eq!(get(&place.remote, "/file").await, "one two three");
    place.remote.make_directory(&path("/folder")).await.unwrap();
    let to_folder = place.remote.append(&path("/folder"), Content::from_bytes("x")).await;
    assert_eq!(kind_of_failure(to_folder), Some(ErrorKind::Conflict));
}

pub(crate) async fn a_copy_is_another_file(place: &Place) {
    put(&place.remote, "/a", "content").await;
    let copy = place.remote.copy(&path("/a"), &path("/b"), IfExists::Fail).await.unwrap();
    assert_eq!((copy.path, copy.size), (path("/b"), Some(7)));
    put(&place.remote, "/a", "changed").await;
    assert_eq!(get(&place.remote, "/b").await, "content");
    let again = place.remote.copy(&path("/a"), &path("/b"), IfExists::Fail).await;
    assert_eq!(kind_of_failure(again), Some(ErrorKind::AlreadyExists));
    place.remote.copy(&path("/a"), &path("/b"), IfExists::Replace).await.unwrap();
    assert_eq!(get(&place.remote, "/b").await, "changed");
    let missing = place.remote.copy(&path("/missing"), &path("/c"), IfExists::Fail).await;
    assert_eq!(kind_of_failure(missing), Some(ErrorKind::NotFound));
    assert_eq!(tree(&place.remote).await, set(["/a", "/b"]));
}

pub(crate) async fn a_tree_is_deleted_whole(place: &Place) {
    for at in ["/tree/a", "/tree/b/c", "/tree/b/.hidden", "/kept/d"] {
        put(&place.remote, at, "x").await;
    }
    place.remote.make_directory(&path("/tree/empty")).await.unwrap();
    place.remote.delete_tree(&path("/tree")).await.unwrap();
    assert_eq!(tree(&place.remote).await, set(["/kept/", "/kept/d"]));
    place.remote.delete_tree(&path("/kept/d")).await.unwrap();
    assert_eq!(kind_of_failure(place.remote.delete_tree(&path("/tree")).await), Some(ErrorKind::NotFound));
    assert_eq!(kind_of_failure(place.remote.delete_tree(&RemotePath::root()).await), Some(ErrorKind::Invalid));
}

pub(crate) async fn a_checksum_is_that_of_the_content(place: &Place) {
    put(&place.remote, "/file", "hello\n").await;
    let Some(checksum) = place.remote.checksum(&path("/file")).await.unwrap() else {
        assert!(matches!(place.remote.kind(), "ftp" | "sftp"), "it has checksums");
        return;
    };
    let wanted = match checksum.algorithm.name() {
        "sha256" => "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03",
        "sha1" => "f572d396fae9206628714fb2ce00f72e94f2258f",
        "md5" => "b1946ac92492d2347c6235b4d2611184",
        "crc32" => "363a3020",
        _ => "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc",
    };
    assert_eq!(checksum.value, wanted);
}

pub(crate) async fn a_tree_is_moved_there_and_back(place: &Place) {
    let (_folder, other) = other();
    for at in ["/in/a.csv", "/in/deep/b.csv", "/in/deep/c.tmp"] {
        put(&other, at, "content").await;
    }
    other.make_directory(&path("/in/empty")).await.unwrap();
    let filter = Filter::new([], ["*.tmp"]).unwrap();
    let options = TransferOptions { verify: Verify::Content, filter, ..TransferOptions::default() };
    let mut there = transfer(&other, &path("/in"), &place.remote, &path("/out"), options).await.unwrap();
    while let Some(result) = there.next().await {
        assert_eq!(result.outcome.unwrap(), Outcome::Transferred { bytes: 7, resumed_at: 0 });
    }
    assert_eq!(there.progress().files_transferred, 2);
    assert_eq!(tree(&place.remote).await, set(["/out/", "/out/a.csv", "/out/deep/", "/out/deep/b.csv", "/out/empty/"]));
    let options = TransferOptions { delete_source: true, if_present: IfPresent::Replace, ..TransferOptions::default() };
    let mut back = transfer(&place.remote, &path("/out"), &other, &path("/in"), options).await.unwrap();
    while let Some(result) = back.next().await {
        result.outcome.unwrap();
    }
    assert_eq!(tree(&place.remote).await, set([]));
    assert_eq!(get(&other, "/in/deep/b.csv").await, "content");
    assert_eq!(tree(&other).await.len(), 6);
}

pub(crate) async fn a_file_with_the_same_size_that_is_not_older_is_left_out_of_an_update(place: &Place) {
    let (_folder, other) = other();
    put(&other, "/in/a", "content").await;
    let update = async || {
        let options = TransferOptions { if_present: IfPresent::Update, ..TransferOptions::default() };
        let mut transfer = transfer(&other, &path("/in"), &place.remote, &path("/out"), options).await.unwrap();
        transfer.next().await.unwrap().outcome.unwrap()
    };
    assert!(matches!(update().await, Outcome::Transferred { .. }));
    assert!(matches!(update().await, Outcome::Skipped(_)));
    let later = SystemTime::now() + Duration::from_secs(3600);
    other.set_modified(&path("/in/a"), later).await.unwrap();
    assert!(matches!(update().await, Outcome::Transferred { .. }));
}

pub(crate) async fn a_write_that_broke_off_can_be_continued(place: &Place) {
    let key = ResumeKey::of("this content");
    let options = |offset| WriteOptions {
        resume: Some(Resume { key: key.clone(), offset }),
        ..WriteOptions::new(IfExists::Replace)
    };
    let failure = stream::once(async { Err(Error::new(ErrorKind::Interrupted, "the source broke off")) });
    let first = stream::iter([Ok("0123456789".repeat(10_000).into())]).chain(failure);
    let written = place.remote.write_with(&path("/file"), Content::from_stream(None, first), &options(0)).await;
    assert!(written.is_err());
    let there = place.remote.partial(&path("/file"), &key).await.unwrap();
    assert!(there <= 100_000, "{there} bytes");
    assert!(!place.remote.exists(&path("/file")).await.unwrap(), "a part has the name of the whole");
    assert_eq!(place.remote.partial(&path("/file"), &ResumeKey::of("another content")).await.unwrap(), 0);
    if place.resumes {
        assert!(there > 0, "nothing was kept");
    }
    let whole = "0123456789".repeat(20_000);
    let rest = whole[there as usize..].to_owned();
    let entry = place.remote.write_with(&path("/file"), Content::from_bytes(rest), &options(there)).await.unwrap();
    assert_eq!(entry.size, Some(200_000));
    assert!(get(&place.remote, "/file").await == whole, "the content differs");
    assert_eq!(tree(&place.remote).await, set(["/file"]));
}
