//! A request by `wasi:http`, by URL. The crates that offer more comfort do the same below.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;

const STREAM_BYTES: usize = 4096;

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) text: String,
}

/// Asks for a URL, by POST when there is something to send.
///
/// # Errors
/// `denied`, or what else `wasi:http` says, as a text.
pub(crate) fn request(url: &str, content: Option<&str>) -> Result<Answer, String> {
    let (scheme, rest) = url.split_once("://").ok_or("the URL has no scheme")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let headers = Fields::new();
    headers.append("x-own", b"mine").map_err(|error| error.to_string())?;
    let request = OutgoingRequest::new(headers);
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let set = [
        request.set_method(if content.is_some() { &Method::Post } else { &Method::Get }),
        request.set_scheme(Some(&scheme)),
        request.set_authority(Some(authority)),
        request.set_path_with_query(Some(path)),
    ];
    if set.iter().any(Result::is_err) {
        return Err(format!("{url} is not an address"));
    }
    let sent = content.map(|content| (request.body(), content));
    let pending = outgoing_handler::handle(request, None).map_err(reason)?;
    if let Some((Ok(body), content)) = sent {
        write(body, content)?;
    }
    pending.subscribe().block();
    match pending.get() {
        Some(Ok(Ok(response))) => read(&response),
        Some(Ok(Err(code))) => Err(reason(code)),
        _ => Err("the answer was taken already".into()),
    }
}

fn write(body: OutgoingBody, content: &str) -> Result<(), String> {
    let stream = body.write().map_err(|()| "the body was taken already")?;
    for chunk in content.as_bytes().chunks(STREAM_BYTES) {
        stream.blocking_write_and_flush(chunk).map_err(|error| error.to_string())?;
    }
    drop(stream);
    OutgoingBody::finish(body, None).map_err(reason)
}

fn read(response: &IncomingResponse) -> Result<Answer, String> {
    let content_type = response.headers().get("content-type").into_iter().next().unwrap_or_default();
    let body = response.consume().map_err(|()| "the body was taken already")?;
    let stream = body.stream().map_err(|()| "the body was taken already")?;
    let mut content = Vec::new();
    loop {
        match stream.blocking_read(STREAM_BYTES as u64) {
            Ok(chunk) => content.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(Answer {
        status: response.status(),
        content_type: String::from_utf8_lossy(&content_type).into_owned(),
        text: String::from_utf8_lossy(&content).into_owned(),
    })
}

fn reason(code: ErrorCode) -> String {
    match code {
        ErrorCode::HttpRequestDenied => "denied".into(),
        other => other.to_string(),
    }
}
