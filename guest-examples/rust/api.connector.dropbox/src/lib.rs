//! Receives data and uploads it to Dropbox, whatever it came from.
//!
//! Parameter `file_name` says under which name; the body is the content. The answer is JSON:
//! `{"path", "size", "content_hash", "revision"}`, with the path that Dropbox chose in the end.
//!
//! The body is handed from the request to Dropbox without being read here: the host moves the bytes, and a file of
//! any size needs no memory of this service. This service knows no secret and no address, only a connection's name.

wit_bindgen::generate!({ world: "service", path: "../../../wit", generate_all });

use exports::wharf::host::handler::Guest;
use serde_json::json;
use wharf::host::dropbox::{Account, Metadata, UploadOptions, WriteMode};
use wharf::host::files::{IfExists, Remote};
use wharf::host::types::{Body, Error, ErrorCode, Request, Response};

/// The connection that the operator granted to this service.
const CONNECTION: &str = "team";
/// The folder that files go to, with a `/` at its end.
const FOLDER: &str = "/";
/// The largest file that Dropbox takes in one request. Larger ones, and those whose size is unknown, go in parts.
const SINGLE_REQUEST_MAX_BYTES: u64 = 150 * 1024 * 1024;
/// The longest file name that Dropbox takes.
const FILE_NAME_MAX_CHARACTERS: usize = 255;

struct Connector;
export!(Connector);

impl Guest for Connector {
    fn handle(request: Request) -> Result<Response, Error> {
        let path = format!("{FOLDER}{}", file_name(&request)?);
        let stored = upload(&path, request.body)?;
        let answer = json!({
            "path": stored.path,
            "size": stored.size,
            "content_hash": stored.content_hash,
            "revision": stored.revision,
        });
        Ok(Response {
            status: 200,
            headers: vec![("content-type".into(), "application/json".into())],
            body: Body::new(answer.to_string().as_bytes()),
        })
    }
}

/// The parameter `file_name`: one plain name, no path.
fn file_name(request: &Request) -> Result<&str, Error> {
    let (_, name) = request.params.iter().find(|(key, _)| key == "file_name").ok_or_else(|| {
        invalid("the parameter file_name is missing: add ?file_name=report.csv to the address".into())
    })?;
    let forbidden = |character: char| matches!(character, '/' | '\\') || character.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(invalid(format!(
            "file_name {name:?} is not a plain file name: give one without slashes, such as report.csv"
        )));
    }
    if name.chars().count() > FILE_NAME_MAX_CHARACTERS {
        return Err(invalid(format!(
            "file_name is longer than {FILE_NAME_MAX_CHARACTERS} characters: give a shorter one"
        )));
    }
    Ok(name)
}

/// Uploads so that nothing that was accepted is ever lost, and so that the caller may try again.
///
/// `overwrite` would lose the older of two files that a partner sends under one name. `add` never replaces; where the
/// same content is there already, from an attempt whose answer got lost, it succeeds and makes no second copy. Where
/// other content has the name, `autorename` keeps both, the new one as `report (1).csv`.
fn upload(path: &str, content: Body) -> Result<Metadata, Error> {
    let account = Account::open(CONNECTION)?;
    if content.size().is_some_and(|size| size <= SINGLE_REQUEST_MAX_BYTES) {
        let options = UploadOptions { mode: WriteMode::Add, autorename: true, client_modified: None, mute: false };
        return account.upload(path, content, &options);
    }
    let entry = Remote::open(CONNECTION)?.write(path, content, IfExists::Rename)?;
    account.get_metadata(&entry.path)
}

fn invalid(message: String) -> Error {
    Error { code: ErrorCode::Invalid, message }
}
