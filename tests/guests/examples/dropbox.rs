//! Does one operation of the interface `dropbox`, as its parameters say, and answers its result as JSON.
//!
//! `op` is upload, download, get-metadata, list-folder, list-folder-continue, delete or create-folder; further
//! parameters are `connection`, `path`, `mode` (add, overwrite, or a revision to update), `autorename`, `recursive`,
//! `cursor`. A download answers with the content itself and its metadata in the header `x-metadata`. An error is passed
//! on; with `errors=json` it is answered as `{"error": {"code", "message"}}`.

use serde_json::{Value, json};
use wharf_test_guests::bindings::wharf::host::dropbox::{Account, Metadata, Page, UploadOptions, WriteMode};
use wharf_test_guests::{Error, Request, Response, error_json, invalid, json, parameter, required, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let errors_as_json = parameter(&request, "errors") == Some("json");
    match operate(request) {
        Err(error) if errors_as_json => Ok(json(&error_json(&error))),
        outcome => outcome,
    }
}

fn operate(request: Request) -> Result<Response, Error> {
    let account = Account::open(required(&request, "connection")?)?;
    let path = parameter(&request, "path").unwrap_or("/").to_owned();
    let is_set = |name| parameter(&request, name).is_some();
    let answer = match required(&request, "op")? {
        "upload" => {
            let mode = match parameter(&request, "mode") {
                None | Some("add") => WriteMode::Add,
                Some("overwrite") => WriteMode::Overwrite,
                Some(revision) => WriteMode::Update(revision.into()),
            };
            let options = UploadOptions { mode, autorename: is_set("autorename"), client_modified: None, mute: false };
            metadata_json(&account.upload(&path, request.body, &options)?)
        }
        "download" => {
            let (metadata, body) = account.download(&path)?;
            let headers = vec![("x-metadata".into(), metadata_json(&metadata).to_string())];
            return Ok(Response { status: 200, headers, body });
        }
        "get-metadata" => metadata_json(&account.get_metadata(&path)?),
        "list-folder" => page_json(&account.list_folder(&path, is_set("recursive"))?),
        "list-folder-continue" => page_json(&account.list_folder_continue(required(&request, "cursor")?)?),
        "delete" => metadata_json(&account.delete(&path)?),
        "create-folder" => metadata_json(&account.create_folder(&path)?),
        other => return Err(invalid(format!("no operation has the name {other}"))),
    };
    Ok(json(&answer))
}

fn page_json(page: &Page) -> Value {
    let entries: Vec<Value> = page.entries.iter().map(metadata_json).collect();
    json!({ "entries": entries, "cursor": page.cursor, "has_more": page.has_more })
}

fn metadata_json(metadata: &Metadata) -> Value {
    json!({
        "kind": format!("{:?}", metadata.kind).trim_start_matches("MetadataKind::").to_lowercase(),
        "name": metadata.name,
        "path": metadata.path,
        "id": metadata.id,
        "revision": metadata.revision,
        "size": metadata.size,
        "content_hash": metadata.content_hash,
        "server_modified": metadata.server_modified.map(|time| time.seconds),
        "client_modified": metadata.client_modified.map(|time| time.seconds),
    })
}
