//! Faults on demand, as a client sees them.

use std::time::{Duration, Instant};

use dropbox_emulator::{Fault, FaultKind, Running, content_hash};
use serde_json::json;

use crate::client::{Client, start};

fn inject(emulator: &Running, route: &str, kind: FaultKind) {
    emulator.inject(Fault::on(route, kind)).unwrap();
}

#[tokio::test]
async fn rate_limits_come_in_three_forms() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    inject(&emulator, "files/upload", FaultKind::RateLimitJson { retry_after_seconds: 7 });
    inject(&emulator, "files/upload", FaultKind::RateLimitText { retry_after_seconds: 8 });
    inject(&emulator, "files/upload", FaultKind::RateLimitBare);
    let upload = async || client.upload(json!({ "path": "/a" }), "x").await;
    let first = upload().await;
    assert_eq!((first.error().as_str(), first.header("retry-after")), ("429 too_many_requests", Some("7")));
    assert_eq!(first.json()["error"], json!({ "reason": { ".tag": "too_many_requests" }, "retry_after": 7 }));
    let second = upload().await;
    assert_eq!((second.status.as_u16(), second.header("retry-after")), (429, Some("8")));
    assert!(second.header("content-type").unwrap().starts_with("text/plain"));
    let third = upload().await;
    assert_eq!((third.status.as_u16(), third.header("retry-after")), (429, None));
    assert!(emulator.files().is_empty());
    upload().await.result();
    let faults: Vec<_> = emulator.requests().into_iter().flat_map(|request| request.faults).collect();
    assert_eq!(faults, ["rate_limit_json", "rate_limit_text", "rate_limit_bare"]);
}

#[tokio::test]
async fn write_errors_take_the_shape_of_their_route() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.inject(Fault::on("*", FaultKind::TooManyWriteOperations).times(4)).unwrap();
    // No write route: not struck.
    client.rpc("files/list_folder", json!({ "path": "" })).await.result();
    assert_eq!(client.upload(json!({ "path": "/a" }), "x").await.error(), "409 path/too_many_write_operations");
    let path = json!({ "path": "/a" });
    assert_eq!(client.rpc("files/create_folder_v2", path.clone()).await.error(), "409 path/too_many_write_operations");
    assert_eq!(client.rpc("files/delete_v2", path).await.error(), "409 too_many_write_operations");
    let paths = json!({ "from_path": "/a", "to_path": "/b" });
    assert_eq!(client.rpc("files/move_v2", paths).await.error(), "409 to/too_many_write_operations");
    inject(&emulator, "files/upload", FaultKind::InsufficientSpace);
    assert_eq!(client.upload(json!({ "path": "/a" }), "x").await.error(), "409 path/insufficient_space");
}

#[tokio::test]
async fn server_and_token_errors_strike_and_pass() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let account = async || client.rpc("users/get_current_account", json!(null)).await;
    inject(&emulator, "users/get_current_account", FaultKind::InternalError);
    assert_eq!(account().await.status, 500);
    inject(&emulator, "*", FaultKind::ServiceUnavailable);
    assert_eq!(account().await.status, 503);
    inject(&emulator, "*", FaultKind::ExpiredAccessToken);
    assert_eq!(account().await.error(), "401 expired_access_token");
    inject(&emulator, "*", FaultKind::InvalidAccessToken);
    assert_eq!(account().await.error(), "401 invalid_access_token");
    account().await.result();
    inject(&emulator, "oauth2/token", FaultKind::InvalidGrant);
    let token = client.post("/oauth2/token").form(&[("grant_type", "refresh_token")]).send().await.unwrap();
    assert_eq!(token.status(), 400);
    assert!(token.text().await.unwrap().contains("\"invalid_grant\""));
}

#[tokio::test]
async fn a_dropped_answer_follows_the_effect_or_prevents_it() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    inject(&emulator, "files/upload", FaultKind::DropBeforeEffect);
    client.upload_request(&json!({ "path": "/before" }), vec![b'x'; 500_000]).send().await.unwrap_err();
    inject(&emulator, "files/upload", FaultKind::DropAfterCommit);
    client.upload_request(&json!({ "path": "/after" }), vec![b'x'; 500_000]).send().await.unwrap_err();
    assert_eq!(emulator.files().iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/after"]);
    assert!(emulator.requests().iter().all(|request| request.status.is_none()));
    inject(&emulator, "oauth2/token", FaultKind::DropAfterCommit);
    client.post("/oauth2/token").form(&[("grant_type", "x")]).send().await.unwrap_err();
}

/// Everything of a body that arrives, and whether it was whole.
async fn read_all(mut response: reqwest::Response) -> (Vec<u8>, bool) {
    let mut received = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) => received.extend_from_slice(&chunk),
            Ok(None) => return (received, true),
            Err(_) => return (received, false),
        }
    }
}

#[tokio::test]
async fn a_download_breaks_off_after_exactly_so_many_bytes() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index % 249) as u8).collect();
    emulator.put("/a", &content).unwrap();
    for (after, arrives) in [(0, 0), (10, 10), (1_500_000, 1_500_000), (9_000_000, 2_999_999)] {
        inject(&emulator, "files/download", FaultKind::CutDownload { after_bytes: after });
        let response = client.download_request("/a").send().await.unwrap();
        assert_eq!(response.content_length(), Some(3_000_000));
        let (received, whole) = read_all(response).await;
        assert_eq!((received.len(), whole), (arrives, false));
        assert_eq!(received, content[..arrives]);
    }
    inject(&emulator, "files/download", FaultKind::CutDownload { after_bytes: 5 });
    let rest = client.download_request("/a").header("Range", "bytes=2999990-").send().await.unwrap();
    assert_eq!(read_all(rest).await, (content[2_999_990..2_999_995].to_vec(), false));
    assert_eq!(client.download("/a").await.bytes, content);
}

#[tokio::test]
async fn corrupted_content_and_wrong_hashes_show_in_a_comparison() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/a", b"content").unwrap();
    inject(&emulator, "files/download", FaultKind::CorruptDownload);
    let corrupted = client.download("/a").await;
    assert_eq!((corrupted.status.as_u16(), corrupted.bytes.len()), (200, 7));
    assert_ne!(corrupted.bytes, b"content");
    assert!(corrupted.header("dropbox-api-result").unwrap().contains(&content_hash(b"content")));

    inject(&emulator, "files/download", FaultKind::WrongContentHash);
    let misdescribed = client.download("/a").await;
    assert_eq!(misdescribed.bytes, b"content");
    assert!(!misdescribed.header("dropbox-api-result").unwrap().contains(&content_hash(b"content")));
    inject(&emulator, "files/upload", FaultKind::WrongContentHash);
    let uploaded = client.upload(json!({ "path": "/b" }), "content").await.result();
    assert_ne!(uploaded["content_hash"], content_hash(b"content"));
    inject(&emulator, "files/list_folder", FaultKind::WrongContentHash);
    let listed = client.rpc("files/list_folder", json!({ "path": "" })).await.result();
    assert_ne!(listed["entries"][0]["content_hash"], content_hash(b"content"));
    assert_eq!(emulator.files()[1].content_hash, content_hash(b"content"));
}

#[tokio::test]
async fn a_cursor_is_reset() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let cursor = client.rpc("files/list_folder", json!({ "path": "" })).await.result()["cursor"].clone();
    inject(&emulator, "files/list_folder/continue", FaultKind::ResetCursor);
    let reset = client.rpc("files/list_folder/continue", json!({ "cursor": cursor })).await;
    assert_eq!(reset.error(), "409 reset");
    client.rpc("files/list_folder/continue", json!({ "cursor": cursor })).await.result();
}

#[tokio::test]
async fn latency_delays_a_call_by_at_least_so_much() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    inject(&emulator, "check/user", FaultKind::Latency { milliseconds: 300 });
    let began = Instant::now();
    client.rpc("check/user", json!({})).await.result();
    assert!(began.elapsed() >= Duration::from_millis(300));
}

#[tokio::test]
async fn stopping_frees_the_port_and_breaks_connections() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    client.rpc("check/user", json!({})).await.result();
    let address = emulator.address();
    emulator.stop().await;
    client.route("check/user").send().await.unwrap_err();
    tokio::net::TcpListener::bind(address).await.unwrap();
}
