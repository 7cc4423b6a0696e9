//! Answers that say what went wrong: `application/problem+json` (RFC 9457) with the request's id.

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use wharf_connectors::ErrorKind;
use wharf_runtime::{Body, Failure, FailureKind, InvocationId, Response};

/// The header that carries the id of a request, both ways.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// One answer of this form.
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    headers: Vec<(HeaderName, HeaderValue)>,
}

#[derive(Serialize)]
struct Document<'a> {
    r#type: &'static str,
    title: &'a str,
    status: u16,
    detail: &'a str,
    request_id: &'a str,
}

impl Problem {
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), headers: Vec::new() }
    }

    pub(crate) fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 405, with the methods that are allowed (RFC 9110, section 15.5.6).
    pub(crate) fn method_not_allowed(method: &http::Method, allowed: &'static str) -> Self {
        let mut problem = Self::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("the method {method} is not allowed here; allowed: {allowed}"),
        );
        problem.headers.push((header::ALLOW, HeaderValue::from_static(allowed)));
        problem
    }

    pub(crate) fn of_failure(failure: &Failure) -> Self {
        let mut problem = Self::new(status_of(failure.kind), failure.message.clone());
        if let Some(wait) = failure.retry_after {
            problem.headers.push((header::RETRY_AFTER, HeaderValue::from(wait.as_secs().max(1))));
        }
        problem
    }

    pub(crate) fn into_response(self, id: &InvocationId) -> Response {
        let document = Document {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Error"),
            status: self.status.as_u16(),
            detail: &self.detail,
            request_id: id.as_str(),
        };
        let mut response = json(self.status, &document, "application/problem+json");
        response.headers_mut().extend(self.headers);
        response
    }
}

/// An answer in JSON.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T, content_type: &'static str) -> Response {
    // Only maps with keys that are not text cannot be written; no answer has one.
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    let mut response = plain(text, content_type);
    *response.status_mut() = status;
    response
}

/// An answer in text of some form.
pub(crate) fn text(text: String, content_type: &'static str) -> Response {
    plain(text.into_bytes(), content_type)
}

fn plain(content: Vec<u8>, content_type: &'static str) -> Response {
    let mut response = Response::new(Body::from_bytes(content));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

fn status_of(kind: FailureKind) -> StatusCode {
    match kind {
        FailureKind::UnknownService => StatusCode::NOT_FOUND,
        FailureKind::NotReady | FailureKind::Overloaded | FailureKind::Drained => StatusCode::SERVICE_UNAVAILABLE,
        FailureKind::Deadline => StatusCode::GATEWAY_TIMEOUT,
        FailureKind::Trap => StatusCode::BAD_GATEWAY,
        FailureKind::Ring => StatusCode::LOOP_DETECTED,
        FailureKind::Invalid => StatusCode::BAD_REQUEST,
        FailureKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        FailureKind::Guest(kind) => match kind {
            ErrorKind::NotFound => StatusCode::NOT_FOUND,
            ErrorKind::AlreadyExists | ErrorKind::Conflict => StatusCode::CONFLICT,
            ErrorKind::Denied => StatusCode::FORBIDDEN,
            ErrorKind::Invalid => StatusCode::BAD_REQUEST,
            ErrorKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorKind::Timeout => StatusCode::GATEWAY_TIMEOUT,
            ErrorKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorKind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            ErrorKind::Unsupported => StatusCode::NOT_IMPLEMENTED,
            ErrorKind::Interrupted => StatusCode::BAD_GATEWAY,
            ErrorKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        },
    }
}
