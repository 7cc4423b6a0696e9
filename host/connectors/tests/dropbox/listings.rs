//! Listings, deletions, renames: what is asked of Dropbox, and what is made of its answers.

use serde_json::{Value, json};
use wharf_connectors::dropbox::MetadataKind;
use wharf_connectors::{EntryKind, ErrorKind, IfExists, RemotePath};

use crate::scripted::{Reply, Scripted};
use crate::{account, file_metadata, path, remote};

fn folder(path: &str) -> Value {
    let name = path.rsplit('/').next();
    json!({ ".tag": "folder", "name": name, "path_display": path, "path_lower": path.to_lowercase(), "id": "id:f" })
}

fn page(entries: &[Value], has_more: bool) -> Reply {
    Reply::ok(&json!({ "entries": entries, "cursor": "next", "has_more": has_more }))
}

fn not_a_folder() -> Reply {
    Reply::refusal(&json!({ ".tag": "path", "path": { ".tag": "not_folder" } }))
}

fn changed(metadata: &Value) -> Reply {
    Reply::ok(&json!({ "metadata": metadata }))
}

#[tokio::test]
async fn pages_are_followed_and_odd_entries_are_left_out() {
    let server = Scripted::start(|_, n| {
        let named = |name: &str| json!({ ".tag": "file", "name": name, "rev": "1", "size": 1 });
        match n {
            0 => page(&[named("one"), named("../up"), named(".."), named(""), named("a\\b"), named("a\nb")], true),
            1 => page(&[], true),
            2 => page(&[json!({ ".tag": "deleted", "name": "gone" }), json!({ ".tag": "new", "name": "odd" })], true),
            _ => page(&[folder("/In/two")], false),
        }
    })
    .await;
    let entries = remote(&server).list(&path("/in")).await.unwrap();
    let seen: Vec<_> = entries.iter().map(|entry| (entry.path.as_str(), entry.kind)).collect();
    let expected = [("/in/one", EntryKind::File), ("/in/odd", EntryKind::Other), ("/in/two", EntryKind::Directory)];
    assert_eq!(seen, expected);
    assert_eq!(server.routes()[..2], ["files/list_folder", "files/list_folder/continue"]);
    assert_eq!(server.calls()[1].argument, json!({ "cursor": "next" }));
}

#[tokio::test]
async fn a_listing_of_empty_pages_ends() {
    let server = Scripted::start(|_, _| page(&[], true)).await;
    let error = remote(&server).list(&path("/in")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(server.calls().len() < 200);
}

#[tokio::test]
async fn a_file_and_a_missing_folder_are_told_before_the_first_page() {
    let server =
        Scripted::start(|call, _| if call.argument["path"] == "/file" { not_a_folder() } else { Reply::not_found() })
            .await;
    let remote = remote(&server);
    assert_eq!(remote.list_pages(&path("/file")).await.err().unwrap().kind(), ErrorKind::Conflict);
    assert_eq!(remote.list_pages(&path("/missing")).await.err().unwrap().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn only_empty_folders_and_files_are_deleted() {
    let server = Scripted::start(|call, _| match (call.route.as_str(), call.argument["path"].as_str()) {
        ("files/list_folder", Some("/full")) => page(&[folder("/full/x")], false),
        ("files/list_folder", Some("/perhaps")) => page(&[], true),
        ("files/list_folder", Some("/empty")) => page(&[], false),
        ("files/list_folder", Some("/file")) => not_a_folder(),
        ("files/list_folder", _) => Reply::not_found(),
        ("files/list_folder/continue", _) => page(&[folder("/perhaps/x")], false),
        _ => changed(&folder("/x")),
    })
    .await;
    let remote = remote(&server);
    for (at, expected) in [
        ("/full", Err(ErrorKind::Conflict)),
        ("/perhaps", Err(ErrorKind::Conflict)),
        ("/missing", Err(ErrorKind::NotFound)),
        ("/empty", Ok(())),
        ("/file", Ok(())),
    ] {
        let result = remote.delete(&path(at)).await;
        assert_eq!(result.map_err(|error| error.kind()), expected, "{at}");
    }
    let deleted: Vec<_> =
        server.calls().into_iter().filter(|call| call.route == "files/delete_v2").map(|call| call.argument).collect();
    assert_eq!(deleted, [json!({ "path": "/empty" }), json!({ "path": "/file" })]);
}

#[tokio::test]
async fn a_rename_that_replaces_deletes_that_very_revision_first() {
    let server = Scripted::start(|call, n| match (call.route.as_str(), n) {
        ("files/move_v2", 0) => {
            Reply::refusal(&json!({ ".tag": "to", "to": { ".tag": "conflict", "conflict": { ".tag": "file" } } }))
        }
        ("files/get_metadata", _) if call.argument["path"] == "/a" => Reply::ok(&json!({
            ".tag": "file", "name": "a", "id": "id:source", "rev": "source"
        })),
        ("files/get_metadata", _) => Reply::ok(&file_metadata("/b", b"x")),
        _ => changed(&file_metadata("/b", b"x")),
    })
    .await;
    remote(&server).rename(&path("/a"), &path("/b"), IfExists::Replace).await.unwrap();
    let routes = server.routes();
    let expected = ["files/move_v2", "files/get_metadata", "files/get_metadata", "files/delete_v2", "files/move_v2"];
    assert_eq!(routes, expected);
    assert_eq!(server.calls()[3].argument, json!({ "path": "/b", "parent_rev": "0123456789" }));
}

#[tokio::test]
async fn a_rename_that_would_delete_its_own_source_or_a_folder_is_refused() {
    let server = Scripted::start(|call, _| match (call.route.as_str(), call.argument["path"].as_str()) {
        ("files/move_v2", _) => {
            Reply::refusal(&json!({ ".tag": "to", "to": { ".tag": "conflict", "conflict": { ".tag": "file" } } }))
        }
        (_, Some("/folder")) => Reply::ok(&folder("/folder")),
        _ => Reply::ok(&file_metadata("/a", b"x")),
    })
    .await;
    let remote = remote(&server);
    let case_only = remote.rename(&path("/a"), &path("/A"), IfExists::Replace).await.unwrap_err();
    assert_eq!(case_only.kind(), ErrorKind::Unsupported, "{case_only}");
    let onto_folder = remote.rename(&path("/a"), &path("/folder"), IfExists::Replace).await.unwrap_err();
    assert_eq!(onto_folder.kind(), ErrorKind::Conflict, "{onto_folder}");
    let kept = remote.rename(&path("/a"), &path("/b"), IfExists::Fail).await.unwrap_err();
    assert_eq!(kept.kind(), ErrorKind::AlreadyExists, "{kept}");
    assert!(!server.routes().contains(&"files/delete_v2".to_owned()));
}

#[tokio::test]
async fn the_account_tells_only_what_is_within_its_root_and_relative_to_it() {
    let server = Scripted::start(|_, _| {
        page(
            &[
                folder("/Inbox"),
                folder("/INBOX/Sub"),
                file_metadata("/inbox/sub/Report.csv", b"x"),
                folder("/inbox2"),
                folder("/other/inbox/x"),
                json!({ ".tag": "deleted", "name": "old", "path_display": "/Inbox/old", "path_lower": "/inbox/old" }),
                json!({ ".tag": "file", "name": "unmounted", "rev": "1" }),
                json!({ ".tag": "folder", "name": "x", "path_display": "/inbox/../x" }),
            ],
            false,
        )
    })
    .await;
    let account = account(&server, "/inbox");
    for page in [
        account.list_folder(&RemotePath::root(), true).await.unwrap(),
        account.list_folder_continue("a cursor of another root").await.unwrap(),
    ] {
        let seen: Vec<_> = page.entries.iter().map(|entry| (entry.path.as_str(), entry.kind)).collect();
        let expected =
            [("/Sub", MetadataKind::Folder), ("/sub/Report.csv", MetadataKind::File), ("/old", MetadataKind::Deleted)];
        assert_eq!(seen, expected);
        assert_eq!((page.cursor.as_str(), page.has_more), ("next", false));
    }
    let within = account.within(&path("/sub"));
    let page = within.list_folder(&RemotePath::root(), true).await.unwrap();
    assert_eq!(page.entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["/Report.csv"]);
    let asked: Vec<_> = server.calls().into_iter().map(|call| call.argument["path"].clone()).collect();
    assert_eq!(asked, [json!("/inbox"), Value::Null, json!("/inbox/sub")]);
}

#[tokio::test]
async fn the_account_changes_what_is_within_its_root() {
    let server = Scripted::start(|call, _| match call.route.as_str() {
        "files/create_folder_v2" => {
            changed(&json!({ "name": "New", "path_display": "/Inbox/New", "path_lower": "/inbox/new", "id": "id:n" }))
        }
        "files/get_metadata" => Reply::ok(&file_metadata("/Inbox/a.txt", b"hello\n")),
        _ => changed(&folder("/Inbox/New")),
    })
    .await;
    let account = account(&server, "/inbox");
    let made = account.create_folder(&path("/new")).await.unwrap();
    assert_eq!((made.kind, made.path.as_str(), made.id.as_deref()), (MetadataKind::Folder, "/New", Some("id:n")));
    let found = account.get_metadata(&path("/a.txt")).await.unwrap();
    assert_eq!((found.path.as_str(), found.size, found.revision.as_deref()), ("/a.txt", Some(6), Some("0123456789")));
    assert!(found.server_modified.is_some() && found.content_hash.is_some());
    account.delete(&path("/new")).await.unwrap();
    let root = RemotePath::root();
    assert_eq!(account.delete(&root).await.unwrap_err().kind(), ErrorKind::Invalid);
    let asked: Vec<_> = server.calls().into_iter().map(|call| call.argument["path"].clone()).collect();
    assert_eq!(asked, ["/inbox/new", "/inbox/a.txt", "/inbox/new"]);
}

#[tokio::test]
async fn a_cursor_that_was_reset_is_a_conflict() {
    let server = Scripted::start(|_, _| Reply::refusal(&json!({ ".tag": "reset" }))).await;
    let account = account(&server, "/");
    let error = account.list_folder_continue("old").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.to_string().contains("list the folder anew"), "{error}");
    let error = account.list_folder_continue("").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
