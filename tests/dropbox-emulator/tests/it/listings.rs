//! Listings, their pages and cursors.

use dropbox_emulator::Options;
use serde_json::{Value, json};

use crate::client::{Client, entries, start, start_with};

/// Follows a page to the end of its walk: all entries, its own first, and the last cursor.
async fn follow(client: &Client, mut page: Value) -> (Vec<String>, Value) {
    let mut all = entries(&page);
    while page["has_more"] == true {
        page = client.rpc("files/list_folder/continue", json!({ "cursor": page["cursor"] })).await.result();
        all.extend(entries(&page));
    }
    (all, page["cursor"].clone())
}

#[tokio::test]
async fn pages_tile_a_folder_exactly() {
    let emulator = start_with(Options { page_entries: 3, ..Options::default() }).await;
    let client = Client::of(&emulator);
    for index in 0..10 {
        emulator.put(&format!("/in/{index}/deep"), b"").unwrap();
        emulator.put(&format!("/in/{index} file"), b"").unwrap();
    }
    let first = client.rpc("files/list_folder", json!({ "path": "/IN" })).await.result();
    assert_eq!((entries(&first).len(), &first["has_more"]), (3, &json!(true)));
    let (mut all, _) = follow(&client, first).await;
    all.sort();
    let mut expected: Vec<_> =
        (0..10).flat_map(|index| [format!("folder /in/{index}"), format!("file /in/{index} file")]).collect();
    expected.sort();
    assert_eq!(all, expected);

    let limited =
        client.rpc("files/list_folder", json!({ "path": "", "recursive": true, "limit": 2000 })).await.result();
    assert_eq!((entries(&limited).len(), &limited["has_more"]), (1 + 10 * 3, &json!(false)));
    for limit in [0, 2001] {
        let refused = client.rpc("files/list_folder", json!({ "path": "", "limit": limit })).await;
        assert_eq!(refused.status, 400);
    }
}

#[tokio::test]
async fn a_recursive_listing_names_the_folder_itself_first() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/d/e/a", b"").unwrap();
    let page = client.rpc("files/list_folder", json!({ "path": "/d", "recursive": true })).await.result();
    assert_eq!(entries(&page), ["folder /d", "folder /d/e", "file /d/e/a"]);
    let flat = client.rpc("files/list_folder", json!({ "path": "/d" })).await.result();
    assert_eq!(entries(&flat), ["folder /d/e"]);
}

#[tokio::test]
async fn a_cursor_tells_what_changed_since_even_during_the_walk() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    for name in ["a", "b", "c"] {
        emulator.put(&format!("/{name}"), b"1").unwrap();
    }
    let page = client.rpc("files/list_folder", json!({ "path": "", "limit": 2 })).await.result();
    assert_eq!(entries(&page), ["file /a", "file /b"]);
    emulator.put("/a", b"2").unwrap();
    assert!(emulator.remove("/b"));
    let (walked, cursor) = follow(&client, page).await;
    assert_eq!(walked, ["file /a", "file /b", "file /c"]);
    let changes = client.rpc("files/list_folder/continue", json!({ "cursor": cursor })).await.result();
    assert_eq!(entries(&changes), ["file /a", "deleted /b"]);
    let nothing = client.rpc("files/list_folder/continue", json!({ "cursor": changes["cursor"] })).await.result();
    assert!(entries(&nothing).is_empty() && nothing["has_more"] == false);

    emulator.put("/sub/x", b"").unwrap();
    emulator.put("/d", b"").unwrap();
    let flat = client.rpc("files/list_folder/continue", json!({ "cursor": nothing["cursor"] })).await.result();
    assert_eq!(entries(&flat), ["folder /sub", "file /d"]);
}

#[tokio::test]
async fn the_latest_cursor_tells_future_changes_only() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/in/old", b"").unwrap();
    let latest =
        client.rpc("files/list_folder/get_latest_cursor", json!({ "path": "/in", "recursive": true })).await.result();
    emulator.put("/in/new", b"").unwrap();
    emulator.put("/elsewhere", b"").unwrap();
    let changes = client.rpc("files/list_folder/continue", json!({ "cursor": latest["cursor"] })).await.result();
    assert_eq!(entries(&changes), ["file /in/new"]);
}

#[tokio::test]
async fn deleted_entries_are_listed_on_demand() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/a", b"").unwrap();
    emulator.put("/b", b"").unwrap();
    emulator.remove("/a");
    let with = client.rpc("files/list_folder", json!({ "path": "", "include_deleted": true })).await.result();
    assert_eq!(entries(&with), ["deleted /a", "file /b"]);
    let without = client.rpc("files/list_folder", json!({ "path": "" })).await.result();
    assert_eq!(entries(&without), ["file /b"]);
}

#[tokio::test]
async fn what_cannot_be_listed_is_an_error_by_tag() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/file", b"").unwrap();
    emulator.put("/folder/x", b"").unwrap();
    let list = async |path: &str| client.rpc("files/list_folder", json!({ "path": path })).await;
    assert_eq!(list("/nowhere").await.error(), "409 path/not_found");
    assert_eq!(list("/file").await.error(), "409 path/not_folder");
    assert_eq!(list("ns:77/x").await.error(), "409 path/not_found");
    let shared = client.rpc("files/list_folder", json!({ "path": "", "shared_link": { "url": "https://x" } })).await;
    assert!(shared.text().contains("shared_link: the emulator does not support this field"));
    assert!(list("/").await.text().contains("Specify the root folder as an empty string"));
    let cursor = list("/folder").await.result()["cursor"].clone();
    emulator.remove("/folder");
    let gone = client.rpc("files/list_folder/continue", json!({ "cursor": cursor })).await;
    assert_eq!(gone.error(), "409 path/not_found");
}

#[tokio::test]
async fn a_foreign_cursor_is_reset_and_a_senseless_one_refused() {
    let (emulator, other) = (start().await, start().await);
    let foreign = Client::of(&other).rpc("files/list_folder", json!({ "path": "" })).await.result();
    let client = Client::of(&emulator);
    let reset = client.rpc("files/list_folder/continue", json!({ "cursor": foreign["cursor"] })).await;
    assert_eq!(reset.error(), "409 reset");
    for cursor in ["", "xyz", "7b7d", "é"] {
        let refused = client.rpc("files/list_folder/continue", json!({ "cursor": cursor })).await;
        assert_eq!((refused.status.as_u16(), refused.text().contains("Invalid \"cursor\"")), (400, true), "{cursor}");
    }
}
