//! `wharf:host/services`: other services by name, and the translation of requests and responses between the contract
//! and HTTP that the export `wharf:host/handler` needs, too.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use wasmtime::component::ResourceTable;

use super::bindings::wharf::host::services::Host;
use super::bindings::wharf::host::types as wit;
use super::{code_of, refused};
use crate::body::Body;
use crate::guest::Guest;
use crate::invocation::{Failure, FailureKind, Request, Response, Trigger};

/// What is written as it is in a path: the unreserved characters of RFC 3986, section 2.3, and the separator.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// What is written as it is in a query's name or value.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Headers that concern one connection (RFC 9110, section 7.6.1) or the framing that the host does itself.
const OWN_HEADERS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

impl Host for Guest {
    async fn invoke(
        &mut self,
        service: String,
        request: wit::Request,
    ) -> wasmtime::Result<Result<wit::Response, wit::Error>> {
        let body = self.table.delete(request.body)?;
        let caller = self.surroundings.service.to_string();
        let http = match http_request(&request.method, &request.path, &request.params, &request.headers, body) {
            Ok(http) => http,
            Err(error) => return Ok(Err(error)),
        };
        let request = Request { id: self.surroundings.id.clone(), trigger: Trigger::Service(caller), http };
        let shared = self.surroundings.shared.clone();
        match shared.invoke(&service, request, Some(&self.surroundings)).await {
            Ok(response) => Ok(Ok(guest_response(&mut self.table, response)?)),
            Err(failure) => Ok(Err(failure_for_caller(&service, &failure))),
        }
    }
}

/// What the caller of a service is told when it gave no response.
fn failure_for_caller(service: &str, failure: &Failure) -> wit::Error {
    let code = match failure.kind {
        FailureKind::Guest(kind) => return refused(code_of(kind), failure.message.clone()),
        FailureKind::UnknownService => wit::ErrorCode::NotFound,
        FailureKind::Ring => wit::ErrorCode::Conflict,
        FailureKind::Deadline => wit::ErrorCode::Timeout,
        FailureKind::Invalid => wit::ErrorCode::Invalid,
        FailureKind::NotReady | FailureKind::Overloaded | FailureKind::Trap | FailureKind::Drained => {
            wit::ErrorCode::Unavailable
        }
        FailureKind::Internal => wit::ErrorCode::Internal,
    };
    refused(code, format!("invoking {service}: {}", failure.message))
}

/// A request as a guest wrote it, as HTTP.
fn http_request(
    method: &str,
    path: &str,
    params: &[(String, String)],
    headers: &[(String, String)],
    body: Body,
) -> Result<http::Request<Body>, wit::Error> {
    let invalid = |message: String| refused(wit::ErrorCode::Invalid, message);
    let method =
        Method::from_bytes(method.as_bytes()).map_err(|_| invalid(format!("{method:?} is not an HTTP method")))?;
    let mut target = String::with_capacity(path.len() + 1);
    if !path.starts_with('/') {
        target.push('/');
    }
    target.extend(utf8_percent_encode(path, PATH));
    for (index, (name, value)) in params.iter().enumerate() {
        target.push(if index == 0 { '?' } else { '&' });
        target.extend(utf8_percent_encode(name, QUERY));
        target.push('=');
        target.extend(utf8_percent_encode(value, QUERY));
    }
    let uri: Uri = target.parse().map_err(|_| invalid(format!("path {path:?} and its parameters are too long")))?;
    let mut request = http::Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = header_map(headers).map_err(invalid)?;
    Ok(request)
}

/// Headers that a guest wrote, without those of the connection; what is wrong with them otherwise.
pub(crate) fn header_map(headers: &[(String, String)]) -> Result<HeaderMap, String> {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is not the name of an HTTP header"))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| format!("the value of header {name} has characters that HTTP forbids"))?;
        if !OWN_HEADERS.contains(&name.as_str()) {
            map.append(name, value);
        }
    }
    Ok(map)
}

/// Headers as a guest reads them: names in lower case, values as UTF-8, invalid bytes replaced.
pub(crate) fn attributes(headers: &HeaderMap) -> Vec<(String, String)> {
    let decoded = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), decoded(value))).collect()
}

/// A request on its way into a guest that exports `wharf:host/handler`.
///
/// # Errors
/// `Invalid` for a path that is not UTF-8 after decoding.
pub(crate) fn guest_request(table: &mut ResourceTable, request: Request) -> Result<wit::Request, Failure> {
    let (parts, body) = request.http.into_parts();
    let path = percent_decode_str(parts.uri.path())
        .decode_utf8()
        .map_err(|_| Failure::new(FailureKind::Invalid, "the path is not UTF-8 after percent-decoding"))?;
    if path.contains('\0') {
        return Err(Failure::new(FailureKind::Invalid, "the path contains a NUL character"));
    }
    let headers = attributes(&parts.headers);
    let body = table.push(body).map_err(|error| {
        Failure::new(FailureKind::Internal, "the request could not be given to the service")
            .with_details(error.to_string())
    })?;
    Ok(wit::Request {
        id: request.id.as_str().to_owned(),
        trigger: match request.trigger {
            Trigger::Http => wit::Trigger::Http,
            Trigger::Service(name) => wit::Trigger::Service(name),
        },
        method: parts.method.as_str().to_owned(),
        path: if path == "/" { String::new() } else { path.into_owned() },
        params: parts.uri.query().map(query_parameters).unwrap_or_default(),
        headers,
        body,
    })
}

/// The parameters of a query, decoded as forms are (`+` is a space), invalid UTF-8 replaced.
fn query_parameters(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decoded(name), decoded(value))
        })
        .collect()
}

/// A callee's response on its way into the guest that called.
fn guest_response(table: &mut ResourceTable, response: Response) -> wasmtime::Result<wit::Response> {
    let (parts, body) = response.into_parts();
    let headers = attributes(&parts.headers);
    Ok(wit::Response { status: parts.status.as_u16(), headers, body: table.push(body)? })
}

/// A guest's response on its way out.
///
/// # Errors
/// `Trap` for a status or a header that HTTP does not allow.
pub(crate) fn http_response(table: &mut ResourceTable, response: wit::Response) -> Result<Response, Failure> {
    let trap = |message: String| Failure::new(FailureKind::Trap, message);
    let body: Body = table.delete(response.body).map_err(|error| {
        trap("the service answered with a body that it does not have".into()).with_details(error.to_string())
    })?;
    let mut answer = http::Response::new(body);
    *answer.status_mut() = match response.status {
        200..=599 => http::StatusCode::from_u16(response.status)
            .map_err(|_| trap(format!("the service answered with status {}", response.status)))?,
        status => return Err(trap(format!("the service answered with status {status}, which is not 200 to 599"))),
    };
    for (name, value) in response.headers {
        let header = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| trap(format!("the service answered with {name:?}, which is not the name of a header")))?;
        let value = HeaderValue::from_bytes(value.as_bytes())
            .map_err(|_| trap(format!("the service answered with a value of header {name} that HTTP forbids")))?;
        if !OWN_HEADERS.contains(&header.as_str()) {
            answer.headers_mut().append(header, value);
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attributes(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_request_survives_the_way_from_one_guest_to_another() {
        let params = attributes(&[("file_name", "ä ö&=+%.txt"), ("empty", "")]);
        let headers = attributes(&[("content-type", "text/plain"), ("connection", "close")]);
        let http = http_request("PUT", "/a b/ü", &params, &headers, Body::empty()).unwrap();
        assert_eq!(http.headers().len(), 1, "a header of the connection is not passed on");
        let request = Request { id: crate::InvocationId::generate(), trigger: Trigger::Service("caller".into()), http };
        let mut table = ResourceTable::new();
        let seen = guest_request(&mut table, request).unwrap();
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("PUT", "/a b/ü"));
        assert_eq!(seen.params, params);
    }

    #[test]
    fn what_http_forbids_is_refused_with_a_name() {
        for (method, headers, part) in [
            ("GE T", attributes(&[]), "method"),
            ("GET", attributes(&[("na me", "v")]), "name"),
            ("GET", attributes(&[("name", "v\r\nx: y")]), "value of header name"),
        ] {
            let error = http_request(method, "/", &[], &headers, Body::empty()).unwrap_err();
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
