//! The promises, each checked on one place. They are those of the trait behind `Remote`, in its words.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use wharf_connectors::{ByteRange, Content, Entry, EntryKind, Error, ErrorKind, IfExists, Remote, RemotePath};

use crate::places::{OPERATIONS_MAX, Place};
pub(crate) use crate::trees::*;

/// Several chunks and a rest.
const LARGE_BYTES: usize = 3 * 1024 * 1024 + 7;

/// How long something may take that happens behind the back of a test.
const EVENTUALLY: Duration = Duration::from_secs(15);

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

/// Bytes that do not repeat soon, so that a chunk that is lost, doubled or moved shows.
fn bytes(length: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    words.flatten().take(length).collect::<Vec<_>>().into()
}

/// A stream in chunks, as a network delivers them.
fn chunked(bytes: &Bytes) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let bytes = bytes.clone();
    let pieces = (0..bytes.len()).step_by(50_000).map(move |at| bytes.slice(at..bytes.len().min(at + 50_000)));
    stream::iter(pieces.map(Ok).collect::<Vec<_>>())
}

async fn put(remote: &Remote, at: &str, text: &'static str) -> Entry {
    remote.write(&path(at), Content::from_bytes(text), IfExists::Replace).await.unwrap()
}

async fn get(remote: &Remote, at: &str) -> Bytes {
    let content = remote.read(&path(at), ByteRange::ALL).await.unwrap();
    content.collect(2 * LARGE_BYTES as u64).await.unwrap()
}

async fn names(remote: &Remote, at: &str) -> BTreeSet<String> {
    let entries = remote.list(&path(at)).await.unwrap();
    let names: BTreeSet<_> = entries.iter().map(|entry| entry.path.name().to_owned()).collect();
    assert_eq!(names.len(), entries.len(), "an entry is listed twice");
    names
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kind: ErrorKind) -> Error {
    match result {
        Ok(_) => panic!("it succeeded instead of failing with {kind:?}"),
        Err(error) if error.kind() == kind => error,
        Err(error) => panic!("{:?} instead of {kind:?}: {}", error.kind(), wharf_connectors::chain(&error)),
    }
}

/// Waits until the root has these names and no others.
async fn comes_to(remote: &Remote, wanted: BTreeSet<String>) {
    let deadline = tokio::time::Instant::now() + EVENTUALLY;
    loop {
        let found = names(remote, "/").await;
        if found == wanted {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{found:?} instead of {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) async fn it_answers_a_ping(place: &Place) {
    place.remote.ping().await.unwrap();
    place.remote.ping().await.unwrap();
}

pub(crate) async fn what_was_written_is_read_back(place: &Place) {
    let content = bytes(LARGE_BYTES);
    let before = SystemTime::now();
    let stream = Content::from_stream(Some(LARGE_BYTES as u64), chunked(&content));
    let written = place.remote.write(&path("/large.bin"), stream, IfExists::Fail).await.unwrap();
    assert_eq!(written.path, path("/large.bin"));
    assert_eq!((written.kind, written.size), (EntryKind::File, Some(LARGE_BYTES as u64)));
    let modified = written.modified.unwrap();
    let distance = modified.duration_since(before).unwrap_or_else(|error| error.duration());
    assert!(distance < Duration::from_secs(120), "written {distance:?} away from now");
    assert_eq!(place.remote.stat(&path("/large.bin")).await.unwrap(), written);

    let read = place.remote.read(&path("/large.bin"), ByteRange::ALL).await.unwrap();
    assert_eq!(read.size(), Some(LARGE_BYTES as u64));
    let chunks: Vec<Bytes> = read.into_stream().try_collect().await.unwrap();
    assert!(chunks.iter().all(|chunk| !chunk.is_empty() && chunk.len() <= wharf_connectors::CHUNK_BYTES));
    assert!(chunks.concat() == content, "the bytes differ");
    assert_eq!(names(&place.remote, "/").await, set(["large.bin"]));
}

pub(crate) async fn an_empty_file_is_a_file(place: &Place) {
    let written = put(&place.remote, "/empty", "").await;
    assert_eq!((written.kind, written.size), (EntryKind::File, Some(0)));
    assert_eq!(get(&place.remote, "/empty").await, "");
    assert_eq!(names(&place.remote, "/").await, set(["empty"]));
}

pub(crate) async fn content_of_unknown_size_is_written(place: &Place) {
    let content = bytes(200_001);
    let stream = Content::from_stream(None, chunked(&content));
    let written = place.remote.write(&path("/streamed"), stream, IfExists::Fail).await.unwrap();
    assert_eq!(written.size, Some(200_001));
    assert!(get(&place.remote, "/streamed").await == content, "the bytes differ");
    let nothing = Content::from_stream(None, stream::empty());
    assert_eq!(place.remote.write(&path("/nothing"), nothing, IfExists::Fail).await.unwrap().size, Some(0));
}

pub(crate) async fn names_are_kept_as_they_are(place: &Place) {
    let strange = [
        "two  spaces in between",
        ".hidden",
        "...",
        "-a",
        "~alice",
        "it's \"quoted\"",
        "100% of #1 & more; yes, really = a+b",
        "a -> b",
        "[a-z]{x}",
        "type=dir; not a folder",
        "Jan  2 03:04 report",
        "äöü ß Ж 中文",
        "🚢 boat.txt",
        "no.dot.left.behind.tar.gz",
    ];
    for name in strange {
        let at = RemotePath::root().join(name).unwrap();
        let written = place.remote.write(&at, Content::from_bytes(name), IfExists::Fail).await;
        let written = written.unwrap_or_else(|error| panic!("{name:?}: {}", wharf_connectors::chain(&error)));
        assert_eq!(written.path, at);
        assert_eq!(place.remote.stat(&at).await.unwrap().size, Some(name.len() as u64), "{name:?}");
        assert_eq!(get(&place.remote, at.as_str()).await, name);
    }
    assert_eq!(names(&place.remote, "/").await, set(strange));
    for name in strange {
        place.remote.delete(&RemotePath::root().join(name).unwrap()).await.unwrap();
    }
    // Folders have names too, and other commands are used on them.
    for name in strange {
        let folder = RemotePath::root().join(name).unwrap();
        place.remote.make_directory(&folder).await.unwrap();
        put(&place.remote, folder.join("inside").unwrap().as_str(), "x").await;
        assert_eq!(names(&place.remote, folder.as_str()).await, set(["inside"]), "{name:?}");
    }
    assert_eq!(names(&place.remote, "/").await, set(strange));
}

pub(crate) async fn a_name_as_long_as_can_be_is_kept(place: &Place) {
    for name in ["n".repeat(255), format!("{}.csv", "ü".repeat(125))] {
        let at = RemotePath::root().join(&name).unwrap();
        place.remote.write(&at, Content::from_bytes("1"), IfExists::Fail).await.unwrap();
        place.remote.write(&at, Content::from_bytes("2"), IfExists::Replace).await.unwrap();
        assert_eq!(names(&place.remote, "/").await, set([name.as_str()]));
        assert_eq!(get(&place.remote, at.as_str()).await, "2");
        place.remote.delete(&at).await.unwrap();
    }
}

pub(crate) async fn the_root_is_a_folder(place: &Place) {
    let root = place.remote.stat(&RemotePath::root()).await.unwrap();
    assert_eq!((root.path, root.kind, root.size), (RemotePath::root(), EntryKind::Directory, None));
    assert_eq!(place.remote.list(&RemotePath::root()).await.unwrap(), []);
}

pub(crate) async fn a_listing_tells_kinds_and_sizes(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    put(&place.remote, "/folder/inner", "12").await;
    put(&place.remote, "/file", "12345").await;
    let mut entries = place.remote.list(&RemotePath::root()).await.unwrap();
    entries.sort_by(|a, b| a.path.cmp(&b.path));
    let told: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.kind, entry.size)).collect();
    assert_eq!(told, [("/file", EntryKind::File, Some(5)), ("/folder", EntryKind::Directory, None)]);
    let inner = place.remote.list(&path("/folder")).await.unwrap();
    assert_eq!(inner[0].path, path("/folder/inner"));
    fails(place.remote.list(&path("/missing")).await, ErrorKind::NotFound);
    fails(place.remote.list(&path("/missing/deeper")).await, ErrorKind::NotFound);
    fails(place.remote.list(&path("/file")).await, ErrorKind::Conflict);
    fails(place.remote.stat(&path("/missing")).await, ErrorKind::NotFound);
    fails(place.remote.stat(&path("/missing/deeper")).await, ErrorKind::NotFound);
}

/// Makes files by the shortest way.
async fn fill(place: &Place, count: usize) -> BTreeSet<String> {
    let names: BTreeSet<String> = (0..count).map(|number| format!("file {number:04}")).collect();
    match &place.folder {
        Some(folder) => {
            let (folder, names) = (folder.clone(), names.clone());
            let write = move || names.iter().for_each(|name| std::fs::write(folder.join(name), "x").unwrap());
            tokio::task::spawn_blocking(write).await.unwrap();
        }
        None => {
            stream::iter(&names)
                .for_each_concurrent(OPERATIONS_MAX, async |name| {
                    put(&place.remote, &format!("/{name}"), "x").await;
                })
                .await;
        }
    }
    names
}

pub(crate) async fn a_listing_of_more_than_a_thousand_is_complete(place: &Place) {
    let wanted = fill(place, 1201).await;
    assert!(names(&place.remote, "/").await == wanted, "the listing differs");
    let pages: Vec<Vec<Entry>> =
        place.remote.list_pages(&RemotePath::root()).await.unwrap().try_collect().await.unwrap();
    assert!(pages.len() > 1 && pages.iter().all(|page| !page.is_empty()));
    assert_eq!(pages.iter().map(Vec::len).sum::<usize>(), 1201);
}

pub(crate) async fn a_listing_that_is_not_read_to_its_end_holds_nothing_up(place: &Place) {
    fill(place, 600).await;
    for _ in 0..2 * OPERATIONS_MAX {
        let pages = place.remote.list_pages(&RemotePath::root()).await.unwrap();
        futures::pin_mut!(pages);
        assert!(pages.next().await.unwrap().is_ok());
    }
    place.remote.stat(&path("/file 0007")).await.unwrap();
}

pub(crate) async fn a_range_is_read(place: &Place) {
    let content = bytes(300_000);
    let stream = Content::from_bytes(content.clone());
    place.remote.write(&path("/file"), stream, IfExists::Fail).await.unwrap();
    let cases = [
        (0, Some(1)),
        (0, Some(300_000)),
        (0, Some(300_001)),
        (1, None),
        (65_536, Some(65_536)),
        (150_000, Some(100_000)),
        (299_999, None),
        (299_999, Some(5)),
        (300_000, None),
        (300_001, None),
        (1 << 40, Some(7)),
        (5, Some(0)),
    ];
    for (offset, length) in cases {
        let range = ByteRange { offset, length };
        let read = place.remote.read(&path("/file"), range).await.unwrap();
        let size = read.size();
        let read = read.collect(1 << 20).await.unwrap_or_else(|error| panic!("{range:?}: {error}"));
        let from = content.len().min(usize::try_from(offset).unwrap());
        let wanted = content.slice(from..);
        let wanted = wanted.slice(..wanted.len().min(length.unwrap_or(u64::MAX).try_into().unwrap()));
        assert!(read == wanted, "{range:?} is {} bytes instead of {}", read.len(), wanted.len());
        assert!(size.is_none_or(|size| size == wanted.len() as u64), "{range:?} announced as {size:?} bytes");
    }
    assert!(get(&place.remote, "/file").await == content);
}

pub(crate) async fn reading_what_is_not_there_or_no_file_fails(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    let read = |at: &str| {
        let (remote, at) = (place.remote.clone(), path(at));
        async move { remote.read(&at, ByteRange::ALL).await?.collect(100).await }
    };
    fails(read("/missing").await, ErrorKind::NotFound);
    fails(read("/folder/missing").await, ErrorKind::NotFound);
    fails(read("/missing/missing").await, ErrorKind::NotFound);
    fails(read("/folder").await, ErrorKind::Conflict);
    fails(read("/").await, ErrorKind::Conflict);
}

pub(crate) async fn content_that_is_not_read_to_its_end_holds_nothing_up(place: &Place) {
    let content = Content::from_bytes(bytes(LARGE_BYTES));
    place.remote.write(&path("/large"), content, IfExists::Fail).await.unwrap();
    for _ in 0..2 * OPERATIONS_MAX {
        let mut stream = place.remote.read(&path("/large"), ByteRange::ALL).await.unwrap().into_stream();
        assert!(stream.next().await.unwrap().is_ok());
    }
    for _ in 0..2 * OPERATIONS_MAX {
        drop(place.remote.read(&path("/large"), ByteRange::ALL).await.unwrap());
    }
    assert_eq!(get(&place.remote, "/large").await.len(), LARGE_BYTES);
}

pub(crate) async fn a_file_is_copied_within_the_connection(place: &Place) {
    let content = bytes(500_000);
    place.remote.write(&path("/a"), Content::from_bytes(content.clone()), IfExists::Fail).await.unwrap();
    let read = place.remote.read(&path("/a"), ByteRange::ALL).await.unwrap();
    place.remote.write(&path("/b"), read, IfExists::Fail).await.unwrap();
    assert!(get(&place.remote, "/b").await == content);
}

pub(crate) async fn an_existing_file_is_kept_replaced_or_evaded_as_asked(place: &Place) {
    let write = |text: &'static str, if_exists| {
        let remote = place.remote.clone();
        async move { remote.write(&path("/report.csv"), Content::from_bytes(text), if_exists).await }
    };
    write("first", IfExists::Fail).await.unwrap();
    fails(write("second", IfExists::Fail).await, ErrorKind::AlreadyExists);
    assert_eq!(get(&place.remote, "/report.csv").await, "first");
    let replaced = write("third one", IfExists::Replace).await.unwrap();
    assert_eq!((replaced.path, replaced.size), (path("/report.csv"), Some(9)));
    assert_eq!(get(&place.remote, "/report.csv").await, "third one");
    assert_eq!(write("fourth", IfExists::Rename).await.unwrap().path, path("/report (1).csv"));
    assert_eq!(write("fifth", IfExists::Rename).await.unwrap().path, path("/report (2).csv"));
    assert_eq!(get(&place.remote, "/report (2).csv").await, "fifth");
    assert_eq!(get(&place.remote, "/report.csv").await, "third one");
    assert_eq!(names(&place.remote, "/").await, set(["report.csv", "report (1).csv", "report (2).csv"]));
}

pub(crate) async fn a_file_cannot_take_the_place_of_a_folder(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    let write = place.remote.write(&path("/folder"), Content::from_bytes("x"), IfExists::Replace).await;
    fails(write, ErrorKind::Conflict);
    let root = place.remote.write(&RemotePath::root(), Content::from_bytes("x"), IfExists::Replace).await;
    assert!(matches!(root.unwrap_err().kind(), ErrorKind::Conflict | ErrorKind::Invalid));
    assert_eq!(names(&place.remote, "/").await, set(["folder"]));
}

pub(crate) async fn a_missing_folder_is_made_or_reported(place: &Place) {
    let write = place.remote.write(&path("/a/b/file"), Content::from_bytes("x"), IfExists::Fail).await;
    if place.makes_folders {
        write.unwrap();
        assert_eq!(get(&place.remote, "/a/b/file").await, "x");
    } else {
        fails(write, ErrorKind::NotFound);
        fails(place.remote.make_directory(&path("/a/b")).await, ErrorKind::NotFound);
        put(&place.remote, "/file", "x").await;
        fails(place.remote.rename(&path("/file"), &path("/a/file"), IfExists::Fail).await, ErrorKind::NotFound);
        assert_eq!(names(&place.remote, "/").await, set(["file"]));
    }
}

pub(crate) async fn content_that_fails_leaves_nothing_and_changes_nothing(place: &Place) {
    put(&place.remote, "/kept", "before").await;
    for (at, size) in [("/new", None), ("/new", Some(LARGE_BYTES as u64)), ("/kept", None)] {
        let failure = stream::once(async { Err(Error::new(ErrorKind::RateLimited, "the source gave up")) });
        let content = Content::from_stream(size, chunked(&bytes(400_000)).chain(failure));
        let error = fails(place.remote.write(&path(at), content, IfExists::Replace).await, ErrorKind::RateLimited);
        assert!(wharf_connectors::chain(&error).contains("the source gave up"), "{error}");
        assert_eq!(names(&place.remote, "/").await, set(["kept"]));
    }
    assert_eq!(get(&place.remote, "/kept").await, "before");
}

pub(crate) async fn content_that_is_too_short_leaves_nothing_and_changes_nothing(place: &Place) {
    put(&place.remote, "/kept", "before").await;
    let content = Content::from_stream(Some(400_001), chunked(&bytes(400_000)));
    fails(place.remote.write(&path("/kept"), content, IfExists::Replace).await, ErrorKind::Interrupted);
    assert_eq!(get(&place.remote, "/kept").await, "before");
    assert_eq!(names(&place.remote, "/").await, set(["kept"]));
}

pub(crate) async fn a_dropped_write_leaves_nothing_and_changes_nothing(place: &Place) {
    put(&place.remote, "/kept", "before").await;
    for at in ["/new", "/kept"] {
        let (reached, mut news) = tokio::sync::mpsc::channel::<()>(1);
        let endless = stream::once(async move {
            reached.send(()).await.unwrap();
            std::future::pending::<()>().await;
            unreachable!()
        });
        let content = Content::from_stream(None, chunked(&bytes(400_000)).chain(endless));
        let target = path(at);
        let write = place.remote.write(&target, content, IfExists::Replace);
        tokio::select! {
            written = write => panic!("an endless file ended: {written:?}"),
            _ = news.recv() => {}
        }
        comes_to(&place.remote, set(["kept"])).await;
    }
    assert_eq!(get(&place.remote, "/kept").await, "before");
    for delay_ms in [0, 1, 2, 3, 5, 8, 13, 21] {
        let content = Content::from_bytes(bytes(LARGE_BYTES));
        let target = path("/sometimes");
        let write = place.remote.write(&target, content, IfExists::Replace);
        let _whole_or_not_at_all = tokio::time::timeout(Duration::from_millis(delay_ms), write).await;
    }
    if place.remote.stat(&path("/sometimes")).await.is_ok() {
        assert!(get(&place.remote, "/sometimes").await == bytes(LARGE_BYTES));
        comes_to(&place.remote, set(["kept", "sometimes"])).await;
    } else {
        comes_to(&place.remote, set(["kept"])).await;
    }
}

pub(crate) async fn the_mark_of_a_revision_changes_with_the_content(place: &Place) {
    let first = put(&place.remote, "/file", "one").await;
    assert_eq!(place.remote.stat(&path("/file")).await.unwrap().revision, first.revision);
    let second = put(&place.remote, "/file", "two").await;
    if let Some(revision) = second.revision {
        assert_ne!(Some(revision), first.revision);
    }
}

pub(crate) async fn a_file_is_deleted(place: &Place) {
    put(&place.remote, "/file", "x").await;
    place.remote.delete(&path("/file")).await.unwrap();
    assert_eq!(names(&place.remote, "/").await, set([]));
    fails(place.remote.delete(&path("/file")).await, ErrorKind::NotFound);
    fails(place.remote.delete(&path("/missing/file")).await, ErrorKind::NotFound);
}

pub(crate) async fn only_an_empty_folder_is_deleted(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    put(&place.remote, "/folder/.hidden", "x").await;
    fails(place.remote.delete(&path("/folder")).await, ErrorKind::Conflict);
    assert_eq!(get(&place.remote, "/folder/.hidden").await, "x");
    place.remote.delete(&path("/folder/.hidden")).await.unwrap();
    place.remote.delete(&path("/folder")).await.unwrap();
    assert_eq!(names(&place.remote, "/").await, set([]));
}

pub(crate) async fn a_file_is_renamed(place: &Place) {
    put(&place.remote, "/old name", "x").await;
    place.remote.make_directory(&path("/folder")).await.unwrap();
    place.remote.rename(&path("/old name"), &path("/folder/new name"), IfExists::Fail).await.unwrap();
    assert_eq!(names(&place.remote, "/").await, set(["folder"]));
    assert_eq!(get(&place.remote, "/folder/new name").await, "x");
    let missing = place.remote.rename(&path("/old name"), &path("/other"), IfExists::Replace).await;
    fails(missing, ErrorKind::NotFound);
}

pub(crate) async fn a_rename_replaces_only_when_asked(place: &Place) {
    put(&place.remote, "/a", "a").await;
    put(&place.remote, "/b", "b").await;
    let rename = |if_exists| {
        let remote = place.remote.clone();
        async move { remote.rename(&path("/a"), &path("/b"), if_exists).await }
    };
    fails(rename(IfExists::Fail).await, ErrorKind::AlreadyExists);
    fails(rename(IfExists::Rename).await, ErrorKind::Unsupported);
    assert_eq!((get(&place.remote, "/a").await, get(&place.remote, "/b").await), ("a".into(), "b".into()));
    rename(IfExists::Replace).await.unwrap();
    assert_eq!(names(&place.remote, "/").await, set(["b"]));
    assert_eq!(get(&place.remote, "/b").await, "a");
}

pub(crate) async fn a_folder_is_renamed_with_what_is_in_it(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    put(&place.remote, "/folder/file", "x").await;
    put(&place.remote, "/in the way", "x").await;
    place.remote.rename(&path("/folder"), &path("/moved"), IfExists::Fail).await.unwrap();
    assert_eq!(get(&place.remote, "/moved/file").await, "x");
    let onto_folder = place.remote.rename(&path("/in the way"), &path("/moved"), IfExists::Replace).await;
    fails(onto_folder, ErrorKind::Conflict);
    let into_itself = place.remote.rename(&path("/moved"), &path("/moved/deeper"), IfExists::Fail).await;
    assert!(into_itself.is_err());
    assert_eq!(names(&place.remote, "/").await, set(["moved", "in the way"]));
}

pub(crate) async fn a_folder_is_made_once(place: &Place) {
    place.remote.make_directory(&path("/folder")).await.unwrap();
    assert_eq!(place.remote.stat(&path("/folder")).await.unwrap().kind, EntryKind::Directory);
    fails(place.remote.make_directory(&path("/folder")).await, ErrorKind::AlreadyExists);
    put(&place.remote, "/file", "x").await;
    fails(place.remote.make_directory(&path("/file")).await, ErrorKind::AlreadyExists);
}

pub(crate) async fn the_root_stays(place: &Place) {
    let root = RemotePath::root();
    fails(place.remote.delete(&root).await, ErrorKind::Invalid);
    fails(place.remote.rename(&root, &path("/a"), IfExists::Fail).await, ErrorKind::Invalid);
    fails(place.remote.rename(&path("/a"), &root, IfExists::Replace).await, ErrorKind::Invalid);
    place.remote.stat(&root).await.unwrap();
}

pub(crate) async fn many_operations_at_once_wait_for_their_turn(place: &Place) {
    let names: Vec<String> = (0..6 * OPERATIONS_MAX).map(|number| format!("/{number}")).collect();
    let written = futures::future::join_all(names.iter().map(async |name| {
        let content = Content::from_stream(None, chunked(&bytes(100_000)));
        place.remote.write(&path(name), content, IfExists::Fail).await.unwrap();
        get(&place.remote, name).await == bytes(100_000)
    }))
    .await;
    assert!(written.iter().all(|is_same| *is_same));
    assert_eq!(place.remote.list(&RemotePath::root()).await.unwrap().len(), names.len());
}
