//! Uploads and downloads, and what breaks on their way.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::{StreamExt, stream};
use serde_json::json;
use wharf_connectors::dropbox::{UploadOptions, WriteMode};
use wharf_connectors::{ByteRange, Content, Error, ErrorKind, IfExists};

use crate::scripted::{Reply, Scripted};
use crate::{account, file_metadata, path, remote};

const HELLO: &[u8] = b"hello\n";
const MEBIBYTE: usize = 1024 * 1024;

fn download(content: &[u8]) -> Reply {
    Reply::Answer { status: 200, headers: Vec::new(), body: content.to_vec(), length: None }
        .with("dropbox-api-result", &file_metadata("/a", content).to_string())
}

/// Content of a size that is not known, too large to be held in memory first.
fn large_stream(mebibytes: usize) -> Content {
    let chunk = Bytes::from(vec![7; MEBIBYTE]);
    Content::from_stream(None, stream::repeat_with(move || Ok(chunk.clone())).take(mebibytes))
}

fn options(mode: WriteMode) -> UploadOptions {
    UploadOptions { mode, autorename: false, client_modified: None, mute: false }
}

#[tokio::test]
async fn a_name_beyond_ascii_arrives_as_it_is() {
    let name = "/größe \u{1f600}.txt";
    let server = Scripted::start(|call, _| {
        let at = call.argument["path"].as_str().unwrap();
        Reply::ok(&file_metadata(at, HELLO))
    })
    .await;
    let entry = remote(&server).write(&path(name), Content::from_bytes(HELLO), IfExists::Fail).await.unwrap();
    assert_eq!(entry.path.as_str(), name);
    let call = &server.calls()[0];
    assert_eq!(call.argument["path"], name);
    assert!(call.header("dropbox-api-arg").unwrap().contains("\\ud83d\\ude00"));
    assert!(call.header("dropbox-api-arg").unwrap().is_ascii());
}

#[tokio::test]
async fn each_way_to_write_has_its_mode() {
    let server = Scripted::start(|_, _| Reply::ok(&file_metadata("/a", HELLO))).await;
    let (remote, path) = (remote(&server), path("/a"));
    for if_exists in [IfExists::Fail, IfExists::Replace, IfExists::Rename] {
        remote.write(&path, Content::from_bytes(HELLO), if_exists).await.unwrap();
    }
    let account = account(&server, "/inbox");
    let modified = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(1_431_445_838_900));
    let update = UploadOptions { client_modified: modified, ..options(WriteMode::Update("abc".to_owned())) };
    account.upload(&path, Content::from_bytes(HELLO), options(WriteMode::Add)).await.unwrap();
    account.upload(&path, Content::from_bytes(HELLO), update).await.unwrap();
    let calls = server.calls();
    let seen = |index: usize| {
        let argument = &calls[index].argument;
        (argument["mode"].clone(), argument["autorename"].clone(), argument["strict_conflict"].clone())
    };
    assert_eq!(seen(0), (json!("add"), json!(false), json!(true)));
    assert_eq!(seen(1), (json!("overwrite"), json!(false), json!(false)));
    assert_eq!(seen(2), (json!("add"), json!(true), json!(true)));
    assert_eq!(seen(3), (json!("add"), json!(false), json!(false)));
    assert_eq!(seen(4), (json!({ ".tag": "update", "update": "abc" }), json!(false), json!(true)));
    assert_eq!(calls[4].argument["client_modified"], "2015-05-12T15:50:38Z");
    assert_eq!(calls[4].argument["path"], "/inbox/a");
    assert_eq!(calls[0].header("content-length"), Some("6"));
}

#[tokio::test]
async fn conflicts_are_told_apart() {
    let server = Scripted::start(|call, _| {
        let conflict = call.argument["path"].as_str().unwrap().trim_start_matches('/').to_owned();
        Reply::refusal(&json!({ ".tag": "path", "reason": { ".tag": "conflict", "conflict": { ".tag": conflict } } }))
    })
    .await;
    let remote = remote(&server);
    for (at, kind) in
        [("/file", ErrorKind::AlreadyExists), ("/folder", ErrorKind::Conflict), ("/file_ancestor", ErrorKind::Conflict)]
    {
        let error = remote.write(&path(at), Content::from_bytes(HELLO), IfExists::Fail).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
    let account = remote.dropbox().unwrap();
    for (mode, kind) in
        [(WriteMode::Add, ErrorKind::AlreadyExists), (WriteMode::Update("abc".to_owned()), ErrorKind::Conflict)]
    {
        let error = account.upload(&path("/file"), Content::from_bytes(HELLO), options(mode)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
    }
}

#[tokio::test]
async fn content_of_a_known_size_is_announced_and_streamed() {
    let server = Scripted::start(|_, _| Reply::refusal(&json!({ ".tag": "other" }))).await;
    let chunk = Bytes::from(vec![7; MEBIBYTE]);
    let chunks = stream::repeat_with(move || Ok(chunk.clone())).take(3);
    let content = Content::from_stream(Some(3 * MEBIBYTE as u64), chunks);
    remote(&server).write(&path("/a"), content, IfExists::Replace).await.unwrap_err();
    let call = &server.calls()[0];
    assert_eq!((call.header("content-length"), call.bytes), (Some("3145728"), 3 * MEBIBYTE as u64));
    assert_eq!(call.header("transfer-encoding"), None);
}

#[tokio::test]
async fn an_empty_file_is_a_file() {
    for size in [None, Some(0)] {
        let server = Scripted::start(|_, _| Reply::ok(&file_metadata("/a", b""))).await;
        let content = Content::from_stream(size, stream::empty());
        let entry = remote(&server).write(&path("/a"), content, IfExists::Replace).await.unwrap();
        assert_eq!(entry.size, Some(0));
        assert_eq!(server.calls()[0].header("content-length"), Some("0"));
    }
}

#[tokio::test]
async fn content_is_sent_again_as_it_was() {
    let server = Scripted::start(|_, n| match n {
        0 => Reply::text(503, "").with("Retry-After", "1"),
        _ => Reply::refusal(&json!({ ".tag": "other" })),
    })
    .await;
    remote(&server).write(&path("/a"), large_stream(2), IfExists::Replace).await.unwrap_err();
    assert_eq!(server.routes(), ["files/upload", "files/upload"]);
    let calls = server.calls();
    assert!(calls[0].body == calls[1].body && calls[0].argument == calls[1].argument);
    assert_eq!(calls[1].bytes, 2 * MEBIBYTE as u64);
}

#[tokio::test]
async fn content_that_nobody_asked_for_yet_survives_a_wait() {
    let server = Scripted::start(|call, n| match (call.route.as_str(), n) {
        ("oauth2/token", 0) => Reply::text(429, "").with("Retry-After", "1"),
        ("oauth2/token", _) => Reply::ok(&json!({ "access_token": "A", "expires_in": 14400 })),
        _ => Reply::refusal(&json!({ ".tag": "other" })),
    })
    .await;
    let remote = crate::connect(&server, crate::common(), crate::refresh_token());
    remote.write(&path("/a"), large_stream(2), IfExists::Replace).await.unwrap_err();
    assert_eq!(server.routes(), ["oauth2/token", "oauth2/token", "files/upload"]);
    assert_eq!(server.calls()[2].bytes, 2 * MEBIBYTE as u64);
}

#[tokio::test]
async fn content_that_fails_sends_nothing_and_its_own_error_is_told() {
    // In the middle, and behind the last byte.
    for size in [None, Some(3 * MEBIBYTE as u64), Some(2 * MEBIBYTE as u64)] {
        let server = Scripted::start(|_, _| Reply::ok(&file_metadata("/a", HELLO))).await;
        let chunks = stream::iter((0..32).map(|_| Ok(Bytes::from(vec![7; MEBIBYTE / 16]))));
        let failure = stream::iter([Err(Error::new(ErrorKind::NotFound, "the source vanished"))]);
        let content = Content::from_stream(size, chunks.chain(failure));
        let error = remote(&server).write(&path("/a"), content, IfExists::Replace).await.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (ErrorKind::NotFound, "the source vanished"));
        assert!(server.calls().is_empty(), "{size:?}");
    }
}

#[tokio::test]
async fn an_upload_that_is_dropped_before_its_end_sends_nothing() {
    let server = Scripted::start(|_, _| Reply::Break).await;
    let first = Bytes::from(vec![7; 2 * MEBIBYTE]);
    let content = Content::from_stream(None, stream::iter([Ok(first)]).chain(stream::pending()));
    let (remote, path) = (remote(&server), path("/a"));
    let upload = remote.write(&path, content, IfExists::Replace);
    assert!(tokio::time::timeout(Duration::from_millis(500), upload).await.is_err());
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn content_beyond_the_largest_file_is_too_large_before_it_is_sent() {
    let server = Scripted::start(|_, _| Reply::ok(&file_metadata("/a", HELLO))).await;
    let announced = Content::from_stream(Some(1 << 41), stream::pending());
    let error = remote(&server).write(&path("/a"), announced, IfExists::Replace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    assert!(server.calls().is_empty());
}

#[tokio::test]
async fn a_lost_answer_is_a_success_when_the_file_is_there() {
    let server = Scripted::start(|call, _| match call.route.as_str() {
        "files/upload" => Reply::Break,
        _ => Reply::ok(&file_metadata("/a", HELLO)),
    })
    .await;
    let entry = remote(&server).write(&path("/a"), Content::from_bytes(HELLO), IfExists::Replace).await.unwrap();
    assert_eq!(entry.size, Some(6));
    assert_eq!(server.routes(), ["files/upload", "files/get_metadata"]);
}

#[tokio::test]
async fn a_lost_answer_is_an_interruption_when_the_file_is_not_there() {
    for elsewise in [Reply::not_found(), Reply::ok(&file_metadata("/a", b"of old"))] {
        let server = Scripted::start(move |call, _| match call.route.as_str() {
            "files/upload" => Reply::Break,
            _ => elsewise.clone(),
        })
        .await;
        let written = remote(&server).write(&path("/a"), Content::from_bytes(HELLO), IfExists::Replace).await;
        let error = written.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
        assert_eq!(server.routes()[0], "files/upload");
        assert!(server.routes()[1..].iter().all(|route| route == "files/get_metadata"));
    }
}

#[tokio::test]
async fn a_damaged_upload_is_deleted_by_its_revision() {
    let server = Scripted::start(|call, _| match call.route.as_str() {
        "files/upload" => Reply::ok(&file_metadata("/a", b"jello\n")),
        _ => Reply::ok(&json!({ "metadata": file_metadata("/a", b"jello\n") })),
    })
    .await;
    let error = remote(&server).write(&path("/a"), Content::from_bytes(HELLO), IfExists::Replace).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    assert!(error.to_string().contains("damaged"), "{error}");
    assert_eq!(server.routes(), ["files/upload", "files/delete_v2"]);
    assert_eq!(server.calls()[1].argument, json!({ "path": "/a", "parent_rev": "0123456789" }));
}

#[tokio::test]
async fn a_download_is_whole_and_verified() {
    let server = Scripted::start(|_, _| download(HELLO)).await;
    let remote = remote(&server);
    let content = remote.read(&path("/a"), ByteRange::ALL).await.unwrap();
    assert_eq!(content.size(), Some(6));
    assert_eq!(content.collect(100).await.unwrap(), HELLO);
    let (metadata, content) = remote.dropbox().unwrap().download(&path("/a")).await.unwrap();
    assert_eq!((metadata.size, metadata.name.as_str()), (Some(6), "a"));
    assert_eq!(content.collect(100).await.unwrap(), HELLO);
    assert_eq!(server.calls()[0].argument, json!({ "path": "/a" }));
}

#[tokio::test]
async fn a_damaged_or_truncated_download_ends_with_an_error() {
    let described = file_metadata("/a", HELLO).to_string();
    for (body, announced) in [("jello\n", 6), ("hell", 6), ("hell", 4), ("hello\nhello\n", 12)] {
        let reply = Reply::text(200, body).announcing(announced).with("dropbox-api-result", &described);
        let server = Scripted::start(move |_, _| reply.clone()).await;
        let content = remote(&server).read(&path("/a"), ByteRange::ALL).await.unwrap();
        let items: Vec<_> = content.into_stream().collect().await;
        let last = items.last().unwrap().as_ref().unwrap_err();
        assert_eq!(last.kind(), ErrorKind::Interrupted, "{body:?}: {last}");
    }
}

#[tokio::test]
async fn a_download_without_usable_metadata_is_refused() {
    for result in ["", "[]", "{\"name\":\"a\"}"] {
        let server = Scripted::start(move |_, _| Reply::text(200, "x").with("dropbox-api-result", result)).await;
        let error = remote(&server).read(&path("/a"), ByteRange::ALL).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}");
    }
}

#[tokio::test]
async fn a_part_is_asked_for_as_a_range_and_checked() {
    let part = |body: &str, range: &str| Reply::text(206, body).with("content-range", range);
    let asked = ByteRange { offset: 2, length: Some(3) };
    let server = Scripted::start(move |_, n| match n {
        0 => part("llo", "bytes 2-4/6"),
        1 => part("lo\n", "bytes 3-5/6"),
        2 => Reply::text(416, ""),
        // Another part, the whole file, more than was asked for.
        3 => part("ell", "bytes 1-3/6"),
        4 => download(HELLO),
        _ => part("llo\n", "bytes 2-5/6"),
    })
    .await;
    let (remote, path) = (remote(&server), path("/a"));
    let read = async |range| remote.read(&path, range).await?.collect(100).await;
    assert_eq!(read(asked).await.unwrap(), "llo");
    assert_eq!(read(ByteRange { offset: 3, length: None }).await.unwrap(), "lo\n");
    assert_eq!(read(ByteRange { offset: 6, length: None }).await.unwrap(), "");
    for _ in 0..3 {
        assert_eq!(read(asked).await.unwrap_err().kind(), ErrorKind::Interrupted);
    }
    let ranges: Vec<_> = server.calls().iter().map(|call| call.header("range").unwrap().to_owned()).collect();
    assert_eq!(ranges[..3], ["bytes=2-4", "bytes=3-", "bytes=6-"]);
}
