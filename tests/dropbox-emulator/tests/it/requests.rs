//! The forms of requests and answers that every route shares.

use reqwest::RequestBuilder;
use serde_json::{Value, json};

use crate::client::{Answer, Client, start};

async fn send(request: RequestBuilder) -> Answer {
    Answer::read(request.send().await.unwrap()).await
}

/// Asserts a plain text 400 with this text in it.
#[track_caller]
fn assert_bad(answer: &Answer, text: &str) {
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    assert!(answer.text().contains(text), "{}", answer.text());
}

#[tokio::test]
async fn unknown_functions_are_bad_requests() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    assert_bad(&send(client.route("files/uplaod").body("x")).await, "Unknown API function: \"files/uplaod\"");
    assert_eq!(send(client.post("/elsewhere")).await.status, 404);
    let requests: Vec<_> = emulator.requests().into_iter().map(|request| (request.route, request.status)).collect();
    assert_eq!(requests, [("/2/files/uplaod".to_owned(), Some(400)), ("/elsewhere".to_owned(), Some(404))]);
}

#[tokio::test]
async fn every_route_wants_a_known_token() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let post = || client.post("/2/users/get_current_account");
    assert_bad(&send(post()).await, "Must provide HTTP header \"Authorization\"");
    assert_bad(&send(post().header("Authorization", "Basic eDp5")).await, "Invalid authorization value");
    let unknown = send(post().bearer_auth("unknown")).await;
    assert_eq!(unknown.error(), "401 invalid_access_token");
    assert_eq!(unknown.json()["error"], json!({ ".tag": "invalid_access_token" }));
    // The body of a refused upload is read to its end, so that the client sees the answer.
    let upload = client.post("/2/files/upload").body(vec![0; 3_000_000]);
    assert_bad(&send(upload).await, "Must provide HTTP header \"Authorization\"");
}

#[tokio::test]
async fn routes_without_argument_take_null_or_nothing() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let account = client.rpc("users/get_current_account", Value::Null).await.result();
    assert_eq!(account["account_id"].as_str().unwrap().len(), 40);
    assert_eq!(send(client.route("users/get_current_account")).await.result(), account);
    assert_bad(&client.rpc("users/get_current_account", json!({})).await, "expected null");
    let echo = client.rpc("check/user", json!({ "query": "hello" })).await.result();
    assert_eq!(echo, json!({ "result": "hello" }));
}

#[tokio::test]
async fn malformed_arguments_are_bad_requests_that_name_their_source() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let rpc =
        |body: &'static str| client.route("files/get_metadata").header("Content-Type", "application/json").body(body);
    assert_bad(
        &send(rpc("{")).await,
        "Error in call to API function \"files/get_metadata\": request body: could not decode input as JSON",
    );
    assert_bad(&send(rpc("[]")).await, "expected object, got list");
    assert_bad(&send(rpc("{}")).await, "missing required field 'path'");
    assert_bad(&send(rpc(r#"{"path":7}"#)).await, "path: expected string, got number");
    assert_bad(&send(rpc(r#"{"path":"a"}"#)).await, "path: 'a' did not match pattern");
    assert_bad(&send(rpc(r#"{"path":"/a","pth":1}"#)).await, "unknown field 'pth'");
    assert_bad(&send(rpc(r#"{"path":""}"#)).await, "The root folder is unsupported");
    assert_bad(
        &send(client.route("files/get_metadata").header("Content-Type", "text/xml").body("{}")).await,
        "Bad HTTP \"Content-Type\" header: \"text/xml\"",
    );

    let without = client.route("files/upload").header("Content-Type", "application/octet-stream").body("x");
    assert_bad(&send(without).await, "Must provide HTTP header \"Dropbox-API-Arg\" or URL parameter \"arg\"");
    let source = "HTTP header \"Dropbox-API-Arg\"";
    for (argument, problem) in [
        (json!({ "path": "/a", "mode": "rename" }), "mode: unknown or malformed tag 'rename'"),
        (json!({ "path": "/a", "mode": "update" }), "mode: unknown or malformed tag 'update'"),
        (
            json!({ "path": "/a", "client_modified": "yesterday" }),
            "client_modified: time data 'yesterday' does not match",
        ),
        (json!({ "path": "/a", "content_hash": "abc" }), "content_hash: 'abc' must have exactly 64 characters"),
    ] {
        assert_bad(&client.upload(argument, "x").await, &format!("{source}: {problem}"));
    }
    let get = client.http.get(format!("{}/2/files/get_metadata", client.url)).bearer_auth(&client.token);
    assert_bad(&send(get).await, "Your request method is \"GET\"");
    assert!(emulator.files().is_empty());
}

#[tokio::test]
async fn an_argument_comes_escaped_raw_or_in_the_url() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let upload = |client: &Client| client.route("files/upload").header("Content-Type", "application/octet-stream");
    let escaped = r#"{"path":"/1\u00e9\ud83d\ude00"}"#;
    assert_eq!(send(upload(&client).header("Dropbox-API-Arg", escaped).body("x")).await.status, 200);
    let raw = r#"{"path":"/2é😀"}"#;
    assert_eq!(send(upload(&client).header("Dropbox-API-Arg", raw.as_bytes()).body("x")).await.status, 200);
    let in_url = client.post("/2/files/upload?arg=%7B%22path%22%3A+%22%2F3%C3%A9%F0%9F%98%80%22%7D");
    let in_url = in_url.bearer_auth(&client.token).header("Content-Type", "application/octet-stream").body("x");
    assert_eq!(send(in_url).await.status, 200);
    let paths: Vec<_> = emulator.files().into_iter().map(|file| file.path).collect();
    assert_eq!(paths, ["/1é😀", "/2é😀", "/3é😀"]);
}

#[tokio::test]
async fn only_the_accounts_own_path_root_is_known() {
    let emulator = start().await;
    let client = Client::of(&emulator);
    let list = |root: &'static str| {
        client.route("files/list_folder").header("Dropbox-API-Path-Root", root).json(&json!({ "path": "" }))
    };
    assert_eq!(send(list(r#"{".tag":"root","root":"1234567890"}"#)).await.status, 200);
    assert_eq!(send(list(r#"{".tag":"home"}"#)).await.status, 200);
    let unknown = send(list(r#"{".tag":"namespace_id","namespace_id":"5"}"#)).await;
    assert_eq!(unknown.error(), "422 invalid_root");
    assert_eq!(unknown.json()["error"]["invalid_root"]["root_namespace_id"], "1234567890");
    assert_bad(&send(list("{}")).await, "Dropbox-API-Path-Root");
}
