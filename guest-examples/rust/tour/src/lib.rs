//! Uses every function of every interface once: the place to look how a call is written in Rust.
//!
//! It wants the connections `disk` (local), `partner` (FTP), `vault` (SFTP), `team` (Dropbox) and `api` (HTTP), the
//! service `hello`, and the parameter `url`, something at the origin of `api`. The parameter `only` names one of the
//! chapters. The answer is a JSON list of steps: what each got. A chapter ends with the first step that fails, and its
//! error.

wit_bindgen::generate!({ world: "service", path: "../../../wit", generate_all });

mod account;
mod client;
mod tree;
mod web;

use exports::wharf::host::handler::Guest;
use serde_json::{Value, json};
use wharf::host::types::{Body, Error, ErrorCode, Request, Response};

/// What a chapter does, in order.
const CHAPTERS: [(&str, fn(&mut Tour) -> Result<(), Stopped>); 7] = [
    ("services", web::use_services),
    ("files", tree::use_files),
    ("dropbox", account::use_dropbox),
    ("http", web::use_http),
    ("client", web::use_client),
    ("ftp", tree::use_ftp),
    ("sftp", tree::use_sftp),
];

struct Service;
export!(Service);

impl Guest for Service {
    fn handle(request: Request) -> Result<Response, Error> {
        let parameter = |name| request.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        let only = parameter("only");
        let mut tour = Tour { url: parameter("url").unwrap_or_default().to_owned(), steps: Vec::new() };
        let mut status = 200;
        for (name, chapter) in CHAPTERS {
            if only.is_none_or(|only| only == name) && chapter(&mut tour).is_err() {
                status = 502;
            }
        }
        let headers = vec![("content-type".into(), "application/json".into())];
        Ok(Response { status, headers, body: body(&Value::Array(tour.steps).to_string()) })
    }
}

/// A step failed; the error is among the steps.
struct Stopped;

struct Tour {
    url: String,
    steps: Vec<Value>,
}

impl Tour {
    /// Keeps what there is to show of what a step got, or its error.
    fn step<T>(&mut self, name: &str, got: Result<T, Error>, show: impl FnOnce(&T) -> Value) -> Result<T, Stopped> {
        self.steps.push(match &got {
            Ok(got) => json!({ "step": name, "got": show(got) }),
            Err(error) => {
                json!({ "step": name, "error": { "code": name_of(error.code), "message": error.message } })
            }
        });
        got.map_err(|_| Stopped)
    }

    /// As `step`, for what is shown as it is.
    fn got<T: Into<Value>>(&mut self, name: &str, got: Result<T, Error>) -> Result<(), Stopped> {
        self.step(name, got.map(Into::into), Value::clone)?;
        Ok(())
    }

    /// As `step`, for what has no result.
    fn done(&mut self, name: &str, got: Result<(), Error>) -> Result<(), Stopped> {
        self.step(name, got, nothing)
    }
}

/// What there is to show of a resource.
fn nothing<T>(_: &T) -> Value {
    Value::Null
}

/// The code as the contract names it.
fn name_of(code: ErrorCode) -> &'static str {
    match code {
        ErrorCode::NotFound => "not-found",
        ErrorCode::AlreadyExists => "already-exists",
        ErrorCode::Denied => "denied",
        ErrorCode::Invalid => "invalid",
        ErrorCode::TooLarge => "too-large",
        ErrorCode::Timeout => "timeout",
        ErrorCode::Unavailable => "unavailable",
        ErrorCode::RateLimited => "rate-limited",
        ErrorCode::Conflict => "conflict",
        ErrorCode::Unsupported => "unsupported",
        ErrorCode::Interrupted => "interrupted",
        ErrorCode::Internal => "internal",
    }
}

fn text(body: Body) -> Result<String, Error> {
    Ok(String::from_utf8_lossy(&Body::bytes(body)?).into_owned())
}

fn body(content: &str) -> Body {
    Body::new(content.as_bytes())
}

fn sorted(names: impl IntoIterator<Item = String>) -> Vec<String> {
    let mut names: Vec<String> = names.into_iter().collect();
    names.sort();
    names
}
