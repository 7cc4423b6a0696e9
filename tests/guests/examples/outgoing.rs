//! Requests the address `url` by `wasi:http` 0.2 and passes on its status and body. Headers are parameters `header`, each
//! a name and a value with a colon between. A request that failed is an error with the host's reason.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, IncomingBody, OutgoingRequest, Scheme};
use wasip2::io::streams::StreamError;
use wharf_test_guests::{Body, Error, ErrorCode, Request, Response, invalid, required, service};

/// More than any test answers with.
const BODY_MAX_BYTES: usize = 1024 * 1024;

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let url = required(&request, "url")?;
    let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid(format!("{url} has no scheme")))?;
    let (authority, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, "/"),
    };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let headers = Fields::new();
    for (_, header) in request.params.iter().filter(|(name, _)| name == "header") {
        let (name, value) = header.split_once(':').ok_or_else(|| invalid(format!("{header} has no colon")))?;
        headers.append(name, value.as_bytes()).map_err(|error| failed(url, &error))?;
    }
    let outgoing = OutgoingRequest::new(headers);
    let settings = [
        outgoing.set_scheme(Some(&scheme)),
        outgoing.set_authority(Some(authority)),
        outgoing.set_path_with_query(Some(path)),
    ];
    if settings.iter().any(Result::is_err) {
        return Err(invalid(format!("{url} is not an address")));
    }
    let pending = outgoing_handler::handle(outgoing, None).map_err(|code| failed(url, &code))?;
    pending.subscribe().block();
    let response = match pending.get() {
        Some(Ok(Ok(response))) => response,
        Some(Ok(Err(code))) => return Err(failed(url, &code)),
        other => return Err(failed(url, &other)),
    };
    let status = response.status();
    let body = response.consume().map_err(|()| failed(url, &"no body"))?;
    let content = read(url, &body)?;
    Ok(Response { status, headers: Vec::new(), body: Body::new(&content) })
}

fn read(url: &str, body: &IncomingBody) -> Result<Vec<u8>, Error> {
    let stream = body.stream().map_err(|()| failed(url, &"no stream"))?;
    let mut content = Vec::new();
    while content.len() < BODY_MAX_BYTES {
        match stream.blocking_read(64 * 1024) {
            Ok(chunk) => content.extend(chunk),
            Err(StreamError::Closed) => break,
            Err(error) => return Err(failed(url, &error)),
        }
    }
    Ok(content)
}

fn failed(url: &str, reason: &dyn std::fmt::Debug) -> Error {
    Error { code: ErrorCode::Unavailable, message: format!("GET {url}: {reason:?}") }
}
