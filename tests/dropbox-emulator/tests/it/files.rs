//! Files: upload, download, metadata, deletion, folders, moves.

use std::sync::Arc;

use dropbox_emulator::{Options, Running, content_hash};
use futures::stream;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::client::{Answer, Client, start, start_with, until};

const MIB: usize = 1024 * 1024;

#[tokio::test]
async fn an_uploaded_file_comes_back_as_it_was() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let content: Vec<u8> = (0..5 * MIB + 17).map(|index| (index % 253) as u8).collect();
    let argument = json!({ "path": "/Ordner/Übersicht 😀.bin", "client_modified": "2020-02-29T12:00:00Z", "mute": true,
        "content_hash": content_hash(&content) });
    let uploaded = client.upload(argument, content.clone()).await.result();
    assert_eq!(uploaded["size"], content.len());
    assert_eq!(uploaded["content_hash"], content_hash(&content));
    assert_eq!(uploaded["client_modified"], "2020-02-29T12:00:00Z");
    assert_eq!(uploaded["path_lower"], "/ordner/übersicht 😀.bin");

    let downloaded = client.download("/Ordner/Übersicht 😀.bin").await;
    assert_eq!(downloaded.bytes, content);
    let result = downloaded.header("dropbox-api-result").unwrap();
    assert!(result.contains(r"\u00dcbersicht \ud83d\ude00.bin"), "{result}");
    assert_eq!(serde_json::from_str::<Value>(result).unwrap(), uploaded);
    assert!(downloaded.header("x-dropbox-request-id").is_some());

    let mut metadata = client.rpc("files/get_metadata", json!({ "path": "/ORDNER/übersicht 😀.BIN" })).await.result();
    assert_eq!(metadata.as_object_mut().unwrap().remove(".tag").unwrap(), "file");
    assert_eq!(metadata, uploaded);
    for path in [
        &uploaded["id"],
        &json!(format!("rev:{}", uploaded["rev"].as_str().unwrap())),
        &json!("ns:1234567890/ordner/übersicht 😀.bin"),
    ] {
        assert_eq!(client.download(path.as_str().unwrap()).await.bytes, content, "{path}");
    }
    assert_eq!(emulator.content("/ordner/Übersicht 😀.bin").unwrap(), content);
}

#[tokio::test]
async fn chunked_and_empty_bodies_are_accepted() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let pieces = ["one ", "two ", "three"].map(|piece| Ok::<_, std::io::Error>(piece.as_bytes()));
    let body = reqwest::Body::wrap_stream(stream::iter(pieces));
    client.upload(json!({ "path": "/chunked" }), body).await.result();
    let empty = client.upload(json!({ "path": "/empty" }), "").await.result();
    assert_eq!(empty["content_hash"], content_hash(b""));
    assert_eq!(emulator.content("/chunked").unwrap(), b"one two three");
    let downloaded = client.download("/empty").await;
    assert_eq!((downloaded.status.as_u16(), downloaded.bytes.len()), (200, 0));
}

/// Writes `head` and a part of a body, then goes away.
async fn send_and_leave(emulator: &Running, framing: &str, part: &[u8]) {
    let mut stream = connect(emulator).await;
    let head = format!(
        "POST /2/files/upload HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
         Content-Type: application/octet-stream\r\nDropbox-API-Arg: {{\"path\":\"/half\"}}\r\n{framing}\r\n\r\n",
        Options::default().access_token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(part).await.unwrap();
    stream.shutdown().await.unwrap();
}

async fn connect(emulator: &Running) -> TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(emulator.ca_pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let name = ServerName::try_from("content.dropboxapi.com").unwrap();
    let tcp = TcpStream::connect(emulator.address()).await.unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
}

#[tokio::test]
async fn a_truncated_upload_leaves_nothing_behind() {
    let emulator = start().await;
    send_and_leave(&emulator, "Content-Length: 2000", &[b'x'; 1000]).await;
    send_and_leave(&emulator, "Transfer-Encoding: chunked", b"3\r\nabc\r\n").await;
    send_and_leave(&emulator, "Transfer-Encoding: chunked", b"3\r\nabc\r\n0\r\n").await;
    until("three requests on record", || emulator.requests().len() == 3).await;
    assert!(emulator.requests().iter().all(|request| request.status.is_none()), "{:?}", emulator.requests());
    assert!(emulator.files().is_empty());
    let usage = Client::of(&emulator).rpc("users/get_space_usage", Value::Null).await.result();
    assert_eq!(usage["used"], 0);
}

#[tokio::test]
async fn a_wrong_content_hash_commits_nothing() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let refused = client.upload(json!({ "path": "/a", "content_hash": content_hash(b"other") }), "content").await;
    assert_eq!(refused.error(), "409 content_hash_mismatch");
    assert!(emulator.files().is_empty());
}

#[tokio::test]
async fn add_is_idempotent_for_identical_content_and_a_conflict_otherwise() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let first = client.upload(json!({ "path": "/a.txt", "mode": "add" }), "one").await.result();
    let again = client.upload(json!({ "path": "/A.TXT", "mode": { ".tag": "add" } }), "one").await.result();
    assert_eq!(first, again);
    let strict = client.upload(json!({ "path": "/a.txt", "strict_conflict": true }), "one").await;
    assert_eq!(strict.error(), "409 path/conflict/file");
    let other = client.upload(json!({ "path": "/a.txt" }), "two").await;
    assert_eq!(other.error(), "409 path/conflict/file");
    let error = &other.json()["error"];
    assert_eq!(error["reason"], json!({ ".tag": "conflict", "conflict": { ".tag": "file" } }));
    assert!(error["upload_session_id"].is_string());
    let renamed = client.upload(json!({ "path": "/a.txt", "autorename": true }), "two").await.result();
    assert_eq!(renamed["path_display"], "/a (1).txt");
    assert_eq!(emulator.content("/a.txt").unwrap(), b"one");
}

#[tokio::test]
async fn update_needs_the_current_revision() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let first = client.upload(json!({ "path": "/a.txt" }), "one").await.result();
    let update = |rev: &Value| json!({ "path": "/a.txt", "mode": { ".tag": "update", "update": rev } });
    let second = client.upload(update(&first["rev"]), "two").await.result();
    assert_eq!(second["id"], first["id"]);
    assert_ne!(second["rev"], first["rev"]);
    assert_eq!(client.upload(update(&first["rev"]), "three").await.error(), "409 path/conflict/file");
    let mut rename = update(&first["rev"]);
    rename["autorename"] = true.into();
    assert_eq!(client.upload(rename, "three").await.result()["name"], "a (conflicted copy).txt");
    assert_eq!(emulator.content("/a.txt").unwrap(), b"two");

    assert!(emulator.remove("/a.txt"));
    let mut strict = update(&second["rev"]);
    strict["strict_conflict"] = true.into();
    assert_eq!(client.upload(strict, "four").await.error(), "409 path/conflict/file");
    client.upload(update(&second["rev"]), "four").await.result();
}

#[tokio::test]
async fn overwrite_replaces_files_but_not_folders() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let first = client.upload(json!({ "path": "/d/a" }), "one").await.result();
    let second = client.upload(json!({ "path": "/D/A", "mode": "overwrite" }), "two").await.result();
    assert_eq!((&second["id"], &second["path_display"]), (&first["id"], &json!("/d/a")));
    let folder = client.upload(json!({ "path": "/d", "mode": "overwrite" }), "x").await;
    assert_eq!(folder.error(), "409 path/conflict/folder");
    let below_a_file = client.upload(json!({ "path": "/d/a/b", "mode": "overwrite" }), "x").await;
    assert_eq!(below_a_file.error(), "409 path/conflict/file_ancestor");
    assert_eq!(emulator.content("/d/a").unwrap(), b"two");
}

#[tokio::test]
async fn an_upload_over_150_mib_is_refused_whole() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let block = vec![0_u8; MIB];
    let pieces = std::iter::repeat_n(block, 150).chain([vec![0]]).map(Ok::<_, std::io::Error>);
    let body = reqwest::Body::wrap_stream(stream::iter(pieces));
    assert_eq!(client.upload(json!({ "path": "/big" }), body).await.error(), "409 payload_too_large");
    assert!(emulator.files().is_empty());
}

#[tokio::test]
async fn space_is_bounded_and_given_back() {
    let emulator = start_with(Options { max_bytes: 1000, ..Options::default() }).await;
    let client = Client::of(&emulator);
    client.upload(json!({ "path": "/a" }), vec![b'a'; 600]).await.result();
    let refused = client.upload(json!({ "path": "/b" }), vec![b'b'; 600]).await;
    assert_eq!(refused.error(), "409 path/insufficient_space");
    let usage = client.rpc("users/get_space_usage", Value::Null).await.result();
    assert_eq!((&usage["used"], &usage["allocation"]["allocated"]), (&json!(600), &json!(1000)));
    client.rpc("files/delete_v2", json!({ "path": "/a" })).await.result();
    client.upload(json!({ "path": "/b" }), vec![b'b'; 600]).await.result();
}

#[tokio::test]
async fn ranges_and_known_etags_save_content() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    emulator.put("/a", b"0123456789").unwrap();
    let get = async |header: &str, value: &str| {
        Answer::read(client.download_request("/a").header(header, value).send().await.unwrap()).await
    };
    let middle = get("Range", "bytes=2-4").await;
    assert_eq!((middle.status.as_u16(), middle.text().as_str()), (206, "234"));
    assert_eq!(middle.header("content-range"), Some("bytes 2-4/10"));
    assert_eq!(get("Range", "bytes=7-").await.text(), "789");
    let beyond = get("Range", "bytes=10-").await;
    assert_eq!((beyond.status.as_u16(), beyond.header("content-range")), (416, Some("bytes */10")));
    let etag = middle.header("etag").unwrap();
    assert_eq!(get("If-None-Match", etag).await.status, 304);
    assert_eq!(get("If-None-Match", "\"other\"").await.status, 200);
    let by_get = client.http.get(format!("{}/2/files/download?arg=%7B%22path%22%3A%22%2Fa%22%7D", client.url));
    let by_get = by_get.bearer_auth(&client.token).send().await.unwrap();
    assert_eq!(by_get.text().await.unwrap(), "0123456789");
}

#[tokio::test]
async fn deletion_takes_whole_folders_and_respects_revisions() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let file = client.upload(json!({ "path": "/d/e/a" }), "one").await.result();
    emulator.put("/d/b", b"two").unwrap();
    emulator.put("/d e", b"not below /d").unwrap();
    let stale = client.rpc("files/delete_v2", json!({ "path": "/d/e/a", "parent_rev": "0123456789" })).await;
    assert_eq!(stale.error(), "409 path_write/conflict/file");
    let deleted = client.rpc("files/delete_v2", json!({ "path": "/d/e/a", "parent_rev": file["rev"] })).await.result();
    assert_eq!((&deleted["metadata"][".tag"], &deleted["metadata"]["rev"]), (&json!("file"), &file["rev"]));
    let folder = client.rpc("files/delete_v2", json!({ "path": "/D" })).await.result();
    assert_eq!((&folder["metadata"][".tag"], &folder["metadata"]["path_display"]), (&json!("folder"), &json!("/d")));
    assert_eq!(client.rpc("files/delete_v2", json!({ "path": "/d" })).await.error(), "409 path_lookup/not_found");
    assert_eq!(client.download("/d/b").await.error(), "409 path/not_found");
    assert_eq!(client.rpc("files/get_metadata", json!({ "path": "/d/b" })).await.error(), "409 path/not_found");
    let remembered =
        client.rpc("files/get_metadata", json!({ "path": "/d/b", "include_deleted": true })).await.result();
    assert_eq!(remembered[".tag"], "deleted");
    assert_eq!(emulator.files().iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/d e"]);
}

#[tokio::test]
async fn a_folder_is_created_once_with_the_folders_above_it() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let create = async |argument: Value| client.rpc("files/create_folder_v2", argument).await;
    let created = create(json!({ "path": "/a/B" })).await.result();
    assert!(created["metadata"].get(".tag").is_none() && created["metadata"]["id"].is_string(), "{created}");
    assert_eq!(create(json!({ "path": "/A/b" })).await.error(), "409 path/conflict/folder");
    let renamed = create(json!({ "path": "/a/b", "autorename": true })).await.result();
    assert_eq!(renamed["metadata"]["path_display"], "/a/B (1)");
    emulator.put("/a/file", b"").unwrap();
    assert_eq!(create(json!({ "path": "/a/file" })).await.error(), "409 path/conflict/file");
    assert_eq!(create(json!({ "path": "/a/file/x" })).await.error(), "409 path/conflict/file_ancestor");
    assert_eq!(client.download("/a/b").await.error(), "409 path/not_file");
    let below = create(json!({ "path": "/A/b/C" })).await.result();
    assert_eq!(below["metadata"]["path_display"], "/a/B/C");
}

#[tokio::test]
async fn a_move_keeps_identities_and_a_copy_makes_new_ones() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let file = client.upload(json!({ "path": "/d/Sub/a" }), "one").await.result();
    let relocate = async |kind: &str, from: &str, to: &str| {
        client.rpc(&format!("files/{kind}_v2"), json!({ "from_path": from, "to_path": to })).await
    };
    assert_eq!(relocate("move", "/d", "/x/y").await.result()["metadata"][".tag"], "folder");
    let moved = client.rpc("files/get_metadata", json!({ "path": file["id"] })).await.result();
    assert_eq!(moved["path_display"], "/x/y/Sub/a");
    assert_eq!(client.rpc("files/get_metadata", json!({ "path": "/d/sub/a" })).await.error(), "409 path/not_found");

    relocate("copy", "/x/y", "/z").await.result();
    let copied = client.rpc("files/get_metadata", json!({ "path": "/z/sub/a" })).await.result();
    assert_ne!(copied["id"], file["id"]);
    assert_eq!(copied["content_hash"], file["content_hash"]);
    assert_eq!(relocate("move", "/x", "/z").await.error(), "409 to/conflict/folder");
    assert_eq!(relocate("move", "/x", "/X").await.error(), "409 to/conflict/folder");
    assert_eq!(relocate("move", "/x", "/x/y/z").await.error(), "409 cant_move_folder_into_itself");
    assert_eq!(relocate("move", "/nowhere", "/q").await.error(), "409 from_lookup/not_found");
    assert_eq!(relocate("copy", "/x", "/z/sub/a/b").await.error(), "409 to/conflict/file_ancestor");
    assert_eq!(emulator.files().len(), 2);
}

#[tokio::test]
async fn unfit_names_are_errors_by_tag() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    for (path, tag) in [
        ("/a/", "malformed_path"),
        ("/a//b", "malformed_path"),
        ("/a/../b", "malformed_path"),
        ("/Thumbs.db", "disallowed_name"),
    ] {
        assert_eq!(client.upload(json!({ "path": path }), "x").await.error(), format!("409 path/{tag}"), "{path}");
    }
    assert_eq!(client.download("/a//b").await.error(), "409 path/malformed_path");
    assert_eq!(client.rpc("files/delete_v2", json!({ "path": "/a/" })).await.error(), "409 path_lookup/malformed_path");
    assert!(emulator.put("relative", b"").is_err() && emulator.put("/desktop.ini", b"").is_err());
}
