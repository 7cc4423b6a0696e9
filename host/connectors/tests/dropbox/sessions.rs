//! Files of any size, and many of them, against the emulator: upload sessions, and the commits that writers share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dropbox_emulator::{Emulator, Fault, FaultKind, Options, Running};
use futures::{StreamExt, stream};
use wharf_connectors::dropbox::Config;
use wharf_connectors::{Common, Content, Egress, Error, ErrorKind, IfExists, Remote};

use crate::{common, path};

const MEBIBYTE: usize = 1024 * 1024;
const APPEND: &str = "files/upload_session/append_v2";
const START: &str = "files/upload_session/start";
const FINISH: &str = "files/upload_session/finish";
const FINISH_BATCH: &str = "files/upload_session/finish_batch_v2";

/// A connection that uploads in parts of 4 MiB.
fn remote(running: &Running, operations_max: usize) -> Remote {
    let base: url::Url = running.url().parse().unwrap();
    let token = wharf_connectors::dropbox::Credentials::AccessToken(Options::default().access_token.into());
    let config = Config {
        api_url: base.clone(),
        content_url: base.clone(),
        token_url: base.join("/oauth2/token").unwrap(),
        certificate_authority: Some(running.ca_pem().as_bytes().to_vec()),
        window_bytes: 12 * MEBIBYTE as u64,
        ..Config::new(token).unwrap()
    };
    let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    let common = Common { operations_max, ..common() };
    Remote::new("team", common, wharf_connectors::Config::Dropbox(config), &egress).unwrap()
}

async fn emulator() -> Running {
    Emulator::start(Options::default()).await.unwrap()
}

/// Bytes of which no two blocks are alike.
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

fn content(bytes: &Bytes, size: Option<u64>) -> Content {
    let bytes = bytes.clone();
    let pieces = (0..bytes.len()).step_by(60_000).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + 60_000))));
    Content::from_stream(size, stream::iter(pieces.collect::<Vec<_>>()))
}

/// Of a known and of an unknown size.
fn sizes(bytes: &Bytes) -> [Option<u64>; 2] {
    [Some(bytes.len() as u64), None]
}

fn count(running: &Running, route: &str) -> usize {
    running.requests().iter().filter(|request| request.route == route).count()
}

#[tokio::test]
async fn a_file_of_several_parts_is_uploaded_in_a_session() {
    // Within a part, and at the end of one.
    for length in [11 * MEBIBYTE + 5, 8 * MEBIBYTE] {
        let bytes = bytes(length);
        for size in sizes(&bytes) {
            let running = emulator().await;
            let written = remote(&running, 8).write(&path("/large"), content(&bytes, size), IfExists::Fail).await;
            assert_eq!(written.unwrap().size, Some(length as u64), "{size:?}");
            assert!(running.content("/large").unwrap() == bytes, "{size:?}: the bytes differ");
            let parts = length.div_ceil(4 * MEBIBYTE);
            assert_eq!((count(&running, START), count(&running, APPEND), count(&running, FINISH)), (1, parts, 1));
            assert_eq!(running.open_sessions(), 0);
        }
    }
}

#[tokio::test]
async fn a_part_that_was_lost_is_sent_again() {
    let bytes = bytes(9 * MEBIBYTE);
    let faults = [
        Fault::on(APPEND, FaultKind::DropBeforeEffect).times(2),
        Fault::on(APPEND, FaultKind::DropAfterCommit).times(2),
        Fault::on(APPEND, FaultKind::DropAfterCommit).after(2),
        Fault::on(APPEND, FaultKind::InternalError),
        Fault::on(APPEND, FaultKind::RateLimitJson { retry_after_seconds: 1 }),
        Fault::on(START, FaultKind::DropAfterCommit),
    ];
    for fault in faults {
        for size in sizes(&bytes) {
            let running = emulator().await;
            running.inject(fault.clone()).unwrap();
            let written = remote(&running, 8).write(&path("/large"), content(&bytes, size), IfExists::Fail).await;
            written.unwrap_or_else(|error| panic!("{fault:?} {size:?}: {}", wharf_connectors::chain(&error)));
            assert!(running.content("/large").unwrap() == bytes, "{fault:?} {size:?}: the bytes differ");
        }
    }
}

#[tokio::test]
async fn an_upload_goes_on_where_dropbox_says() {
    let bytes = bytes(9 * MEBIBYTE);
    for kept in [0, 1_000_003, 4 * MEBIBYTE as u64] {
        let running = emulator().await;
        running.inject(Fault::on(APPEND, FaultKind::KeepPartOfContent { bytes: kept }).after(1)).unwrap();
        remote(&running, 8).write(&path("/large"), content(&bytes, None), IfExists::Fail).await.unwrap();
        assert!(running.content("/large").unwrap() == bytes, "{kept}: the bytes differ");
        let refused = running.requests().iter().filter(|request| request.status == Some(409)).count();
        assert_eq!(refused, usize::from(kept > 0), "{kept}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_leaves_no_doubt() {
    let bytes = bytes(9 * MEBIBYTE);
    for kind in [FaultKind::DropAfterCommit, FaultKind::DropBeforeEffect, FaultKind::InternalError] {
        for size in sizes(&bytes) {
            let running = emulator().await;
            running.inject(Fault::on(FINISH, kind.clone())).unwrap();
            let written = remote(&running, 8).write(&path("/large"), content(&bytes, size), IfExists::Fail).await;
            assert_eq!(written.unwrap().revision, Some(running.files()[0].rev.clone()), "{kind:?}");
            assert_eq!(running.files().len(), 1);
        }
    }
}

#[tokio::test]
async fn a_line_that_stays_broken_is_told() {
    let bytes = bytes(9 * MEBIBYTE);
    let running = emulator().await;
    running.inject(Fault::on(APPEND, FaultKind::DropBeforeEffect).times(Fault::EVERY_TIME)).unwrap();
    let error = remote(&running, 8).write(&path("/large"), content(&bytes, None), IfExists::Fail).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(running.files().is_empty());
}

#[tokio::test]
async fn content_that_fails_in_a_later_part_changes_nothing() {
    let bytes = bytes(9 * MEBIBYTE);
    for size in [Some(20 * MEBIBYTE as u64), None] {
        let running = emulator().await;
        running.put("/large", b"old").unwrap();
        let failure = stream::iter([Err(Error::new(ErrorKind::Denied, "the source was locked"))]);
        let failing = Content::from_stream(size, content(&bytes, None).into_stream().chain(failure));
        let error = remote(&running, 8).write(&path("/large"), failing, IfExists::Replace).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::Denied, "the source was locked"));
        assert_eq!(running.content("/large").unwrap(), b"old");
        assert_eq!(count(&running, FINISH), 0);
    }
}

#[tokio::test]
async fn a_session_keeps_the_way_to_write() {
    let bytes = bytes(9 * MEBIBYTE);
    let running = emulator().await;
    running.put("/taken", b"old").unwrap();
    running.put("/folder/file", b"old").unwrap();
    let remote = remote(&running, 8);
    let write = async |at: &str, if_exists| {
        let written = remote.write(&path(at), content(&bytes, None), if_exists).await;
        written.map(|entry| entry.path.to_string()).map_err(|error| error.kind())
    };
    assert_eq!(write("/taken", IfExists::Fail).await, Err(ErrorKind::AlreadyExists));
    assert_eq!(write("/folder", IfExists::Replace).await, Err(ErrorKind::Conflict));
    assert_eq!(write("/taken", IfExists::Rename).await.as_deref(), Ok("/taken (1)"));
    assert_eq!(write("/taken", IfExists::Replace).await.as_deref(), Ok("/taken"));
    assert!(running.content("/taken").unwrap() == bytes);
}

/// Writes that many small files by that many writers.
async fn write_many(remote: &Remote, files: usize, writers: usize) {
    let written = stream::iter(0..files).map(|number| async move {
        let content = Content::from_bytes(format!("{number:05}").repeat(800));
        remote.write(&path(&format!("/in/{number}")), content, IfExists::Fail).await
    });
    let written: Vec<_> = written.buffer_unordered(writers).collect().await;
    for entry in written {
        entry.unwrap_or_else(|error| panic!("{}", wharf_connectors::chain(&error)));
    }
}

fn all_are_there(running: &Running, files: usize) {
    assert_eq!(running.files().len(), files);
    for number in 0..files {
        let content = running.content(&format!("/in/{number}")).unwrap();
        assert_eq!(content, format!("{number:05}").repeat(800).as_bytes());
    }
    assert_eq!(running.open_sessions(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_writers_share_their_commits_and_are_not_turned_away() {
    let options = Options { change_time: Duration::from_millis(10), ..Options::default() };
    let running = Emulator::start(options).await.unwrap();
    running.inject(Fault::on("*", FaultKind::Latency { milliseconds: 20 }).times(Fault::EVERY_TIME)).unwrap();
    write_many(&remote(&running, 64), 500, 64).await;
    all_are_there(&running, 500);
    let refused = running.requests().iter().filter(|request| request.status != Some(200)).count();
    assert_eq!(refused, 0);
    assert!(count(&running, FINISH_BATCH) < 40, "{}", count(&running, FINISH_BATCH));
}

#[tokio::test]
async fn one_writer_alone_writes_without_a_detour() {
    let running = emulator().await;
    write_many(&remote(&running, 8), 20, 1).await;
    assert_eq!((running.requests().len(), count(&running, "files/upload")), (20, 20));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_was_lost_or_turned_away_is_committed_again() {
    for kind in [
        FaultKind::DropAfterCommit,
        FaultKind::DropBeforeEffect,
        FaultKind::InternalError,
        FaultKind::TooManyWriteOperations,
        FaultKind::RateLimitText { retry_after_seconds: 1 },
    ] {
        let running = emulator().await;
        running.inject(Fault::on("files/upload", FaultKind::Latency { milliseconds: 200 }).times(10)).unwrap();
        running.inject(Fault::on(FINISH_BATCH, kind.clone())).unwrap();
        write_many(&remote(&running, 16), 40, 16).await;
        all_are_there(&running, 40);
        let struck =
            running.requests().iter().any(|request| request.route == FINISH_BATCH && !request.faults.is_empty());
        assert!(struck, "{kind:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_turned_away_often_is_committed_when_there_is_room() {
    let running = emulator().await;
    running.inject(Fault::on("files/upload", FaultKind::Latency { milliseconds: 200 }).times(10)).unwrap();
    running.inject(Fault::on(FINISH_BATCH, FaultKind::TooManyWriteOperations).times(5)).unwrap();
    write_many(&remote(&running, 16), 40, 16).await;
    all_are_there(&running, 40);
    let struck = running.requests().into_iter().filter(|request| !request.faults.is_empty());
    assert_eq!(struck.filter(|request| request.route == FINISH_BATCH).count(), 5);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_of_one_new_name_one_wins() {
    let running = emulator().await;
    let remote = remote(&running, 16);
    let at = path("/contested");
    let writes = (0..16).map(|number| remote.write(&at, Content::from_bytes(format!("{number}")), IfExists::Fail));
    let outcomes = futures::future::join_all(writes).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    let lost = outcomes.iter().filter_map(|outcome| outcome.as_ref().err());
    assert!(lost.into_iter().all(|error| error.kind() == ErrorKind::AlreadyExists));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_writer_that_goes_away_before_its_turn_leaves_nothing() {
    let running = emulator().await;
    running.inject(Fault::on("files/upload", FaultKind::Latency { milliseconds: 1500 }).times(2)).unwrap();
    running.inject(Fault::on(FINISH_BATCH, FaultKind::Latency { milliseconds: 1000 })).unwrap();
    let remote = remote(&running, 16);
    let (first, second, third, fourth) = (path("/1"), path("/2"), path("/3"), path("/4"));
    let write = |at| remote.write(at, Content::from_bytes("x"), IfExists::Fail);
    let sessions = async |count| {
        while running.open_sessions() != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let leaving = async {
        // The first two commit for themselves; the third one's session is there, and its commit on its way.
        sessions(1).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        tokio::select! {
            written = write(&fourth) => panic!("{written:?}"),
            () = sessions(2) => {}
        }
    };
    let (first, second, third, ()) = tokio::join!(write(&first), write(&second), write(&third), leaving);
    for written in [first, second, third] {
        written.unwrap_or_else(|error| panic!("{}", wharf_connectors::chain(&error)));
    }
    let files: Vec<_> = running.files().into_iter().map(|file| file.path).collect();
    assert_eq!(files, ["/1", "/2", "/3"]);
    assert_eq!(running.open_sessions(), 1);
}
