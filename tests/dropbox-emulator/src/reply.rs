//! Answers in the forms Dropbox gives them: results, endpoint errors by tag, and the errors every route shares.
//!
//! Knows status codes, content types and JSON shapes. Knows neither routes nor the store. A `Reply` is plain data until
//! `into_response`, so that a fault can still change it.

use std::io;

use bytes::Bytes;
use futures::stream;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use serde_json::{Value, json};

/// The body type of every response.
pub(crate) type ResponseBody = UnsyncBoxBody<Bytes, io::Error>;

/// Carries the result of a content-download route, whose body is the content.
const API_RESULT: HeaderName = HeaderName::from_static("dropbox-api-result");

/// Exactly so, without a charset: clients compare it for equality.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Empty,
    Json(Value),
    Text(String),
    Content {
        /// The metadata for the `Dropbox-API-Result` header.
        result: Value,
        blocks: Vec<Bytes>,
        /// Break the connection after this many bytes.
        cut_after: Option<u64>,
    },
}

impl Reply {
    pub(crate) fn json(value: Value) -> Self {
        Self::json_with_status(StatusCode::OK, value)
    }

    pub(crate) fn json_with_status(status: StatusCode, value: Value) -> Self {
        Self { status, headers: Vec::new(), body: Body::Json(value) }
    }

    pub(crate) fn text(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Text(text.into()) }
    }

    pub(crate) fn with_retry_after(mut self, seconds: u64) -> Self {
        self.headers.push((RETRY_AFTER, HeaderValue::from(seconds)));
        self
    }

    /// Every `content_hash` in the answer, changed in its first digit.
    pub(crate) fn falsify_content_hashes(&mut self) {
        match &mut self.body {
            Body::Json(value) | Body::Content { result: value, .. } => falsify(value),
            Body::Empty | Body::Text(_) => {}
        }
    }

    /// The first byte of downloaded content, inverted.
    pub(crate) fn corrupt_content(&mut self) {
        if let Body::Content { blocks, .. } = &mut self.body
            && let Some(first) = blocks.first_mut()
        {
            let mut changed = first.to_vec();
            if let Some(byte) = changed.first_mut() {
                *byte = !*byte;
            }
            *first = changed.into();
        }
    }

    pub(crate) fn into_response(self) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::default());
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.extend(self.headers);
        match self.body {
            Body::Empty => {}
            Body::Json(value) => {
                headers.insert(CONTENT_TYPE, JSON);
                *response.body_mut() = whole(value.to_string());
            }
            Body::Text(text) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
                *response.body_mut() = whole(text);
            }
            Body::Content { result, blocks, cut_after } => {
                if let Ok(result) = HeaderValue::try_from(header_safe_json(&result)) {
                    headers.insert(API_RESULT, result);
                }
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                let length: u64 = blocks.iter().map(|block| block.len() as u64).sum();
                headers.insert(CONTENT_LENGTH, length.into());
                *response.body_mut() = content_body(blocks, cut_after);
            }
        }
        response
    }
}

fn whole(text: String) -> ResponseBody {
    Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync()
}

fn content_body(mut blocks: Vec<Bytes>, cut_after: Option<u64>) -> ResponseBody {
    if let Some(mut left) = cut_after {
        for block in &mut blocks {
            let keep = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
            block.truncate(keep);
            left -= keep as u64;
        }
    }
    let cut = cut_after.is_some();
    let frames = stream::unfold((blocks.into_iter(), cut), |(mut blocks, cut)| async move {
        match blocks.next() {
            Some(block) => Some((Ok(Frame::data(block)), (blocks, cut))),
            None if cut => {
                // Being not ready once lets what was written so far go out before the connection breaks.
                tokio::task::yield_now().await;
                let error = io::Error::new(io::ErrorKind::ConnectionAborted, "cut by a fault");
                Some((Err(error), (blocks, false)))
            }
            None => None,
        }
    });
    StreamBody::new(frames).boxed_unsync()
}

fn falsify(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match (name.as_str(), &mut *field) {
                    ("content_hash", Value::String(hash)) => {
                        let first = if hash.starts_with('0') { "1" } else { "0" };
                        hash.replace_range(..1, first);
                    }
                    _ => falsify(field),
                }
            }
        }
        Value::Array(values) => values.iter_mut().for_each(falsify),
        _ => {}
    }
}

/// `value` as JSON in printable ASCII: everything else is `\uXXXX` by UTF-16 code unit (Dropbox, "JSON encoding").
fn header_safe_json(value: &Value) -> String {
    let mut safe = String::new();
    for character in value.to_string().chars() {
        if (' '..='~').contains(&character) {
            safe.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                safe.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    safe
}

/// Why a call has no result. Becomes one of the error forms every client knows.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Failure {
    /// 400: the request is wrong in itself. Plain text, prefixed with the name of the function.
    BadInput(String),
    /// 401 with this tag of `AuthError`.
    Unauthorized(&'static str),
    /// 409: this route's own error union, and its tags from the outside in.
    Endpoint { tags: Vec<&'static str>, error: Value },
    /// 422: the `Dropbox-API-Path-Root` header names a root this account does not have.
    PathRoot(Value),
    /// 416: no byte of the content is in the asked range.
    UnsatisfiableRange { size: u64 },
}

impl Failure {
    /// An endpoint error of nested tags, outermost first.
    pub(crate) fn endpoint(tags: &[&'static str]) -> Self {
        Self::Endpoint { tags: tags.to_vec(), error: tagged(tags) }
    }

    pub(crate) fn bad_input(message: impl Into<String>) -> Self {
        Self::BadInput(message.into())
    }

    pub(crate) fn into_reply(self, function: &str) -> Reply {
        match self {
            Self::BadInput(message) => {
                Reply::text(StatusCode::BAD_REQUEST, format!("Error in call to API function \"{function}\": {message}"))
            }
            Self::Unauthorized(tag) => error_reply(StatusCode::UNAUTHORIZED, &[tag], &tagged(&[tag])),
            Self::Endpoint { tags, error } => error_reply(StatusCode::CONFLICT, &tags, &error),
            Self::PathRoot(error) => error_reply(StatusCode::UNPROCESSABLE_ENTITY, &["invalid_root"], &error),
            Self::UnsatisfiableRange { size } => {
                let mut reply = Reply::text(StatusCode::RANGE_NOT_SATISFIABLE, "");
                if let Ok(range) = HeaderValue::try_from(format!("bytes */{size}")) {
                    reply.headers.push((http::header::CONTENT_RANGE, range));
                }
                reply
            }
        }
    }
}

/// `{".tag": "a", "a": {".tag": "b"}}` for `["a", "b"]`.
pub(crate) fn tagged(tags: &[&'static str]) -> Value {
    match tags {
        [] => Value::Null,
        [tag] => json!({ ".tag": tag }),
        [tag, inner @ ..] => {
            let mut value = json!({ ".tag": tag });
            value[*tag] = tagged(inner);
            value
        }
    }
}

/// The common frame of JSON errors. The summary ends in a random number of dots, which is Dropbox's way to keep clients
/// from comparing it.
pub(crate) fn error_reply(status: StatusCode, tags: &[&str], error: &Value) -> Reply {
    let dots = ".".repeat(rand::random_range(1..=3));
    let summary = format!("{}/{dots}", tags.join("/"));
    Reply::json_with_status(status, json!({ "error_summary": summary, "error": error }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_json_is_printable_ascii_by_utf16_unit() {
        let text = header_safe_json(&json!("é😀\u{7f}\n\""));
        assert_eq!(text, r#""\u00e9\ud83d\ude00\u007f\n\"""#);
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), json!("é😀\u{7f}\n\""));
    }

    #[test]
    fn an_endpoint_error_nests_its_tags_and_summarises_them() {
        let reply = Failure::endpoint(&["path", "not_found"]).into_reply("files/download");
        let Body::Json(body) = reply.body else { panic!("not JSON") };
        assert_eq!(body["error"], json!({ ".tag": "path", "path": { ".tag": "not_found" } }));
        let summary = body["error_summary"].as_str().unwrap();
        assert_eq!(summary.trim_end_matches('.'), "path/not_found/");
        assert!(summary.ends_with('.'));
    }

    #[test]
    fn falsified_hashes_differ_wherever_they_are() {
        let mut reply =
            Reply::json(json!({ "entries": [{ "content_hash": "0a" }, { "content_hash": "ff" }], "other": "0a" }));
        reply.falsify_content_hashes();
        let Body::Json(body) = reply.body else { panic!("not JSON") };
        assert_eq!(body, json!({ "entries": [{ "content_hash": "1a" }, { "content_hash": "0f" }], "other": "0a" }));
    }
}
