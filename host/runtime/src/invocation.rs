//! What an invocation is, seen from outside of any guest: its id, what started it, its request and response, and the
//! ways in which it can fail. Knows no WebAssembly.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wharf_connectors::ErrorKind;

use crate::body::Body;

/// Longest id that is taken over from a caller: room for a UUID or a trace id with a prefix.
pub const INVOCATION_ID_BYTES_MAX: usize = 128;

/// The id of an invocation, in every log line, response and record of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InvocationId(Arc<str>);

impl InvocationId {
    /// A new id: a UUID of version 7 (RFC 9562), so that ids sort by time.
    pub fn generate() -> Self {
        Self(uuid::Uuid::now_v7().as_hyphenated().encode_lower(&mut uuid::Uuid::encode_buffer()).into())
    }

    /// Takes over an id that a caller chose: 1 to [`INVOCATION_ID_BYTES_MAX`] letters, digits, `.`, `_`, `-`, `:`.
    /// `None` for any other, which could forge a log line or a header.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b':');
        let well_formed = (1..=INVOCATION_ID_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
        well_formed.then(|| Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What started an invocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trigger {
    /// A request to the public listener.
    Http,
    /// Another service, by this name.
    Service(String),
}

/// One invocation's input. The URI is the part behind the service's name: path and query, with the authority where
/// the caller gave one.
#[derive(Debug)]
pub struct Request {
    /// Its id.
    pub id: InvocationId,
    /// What started it.
    pub trigger: Trigger,
    /// Method, URI, headers and body.
    pub http: http::Request<Body>,
}

/// One invocation's output.
pub type Response = http::Response<Body>;

/// Why an invocation gave no response, for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// No service has this name.
    UnknownService,
    /// The service is known, but its first version is still being prepared.
    NotReady,
    /// The service or the host is at a limit; try again after the given time.
    Overloaded,
    /// The deadline passed.
    Deadline,
    /// The guest trapped, ended without an answer, or gave an answer that HTTP does not allow.
    Trap,
    /// The chain of services calls itself in a ring, or is too deep.
    Ring,
    /// The guest answered with an error of the contract.
    Guest(ErrorKind),
    /// The request cannot be given to a service.
    Invalid,
    /// The version that served it was replaced, and the time for requests in flight is over.
    Drained,
    /// The host failed.
    Internal,
}

/// Why an invocation gave no response.
#[derive(Debug, Clone)]
pub struct Failure {
    /// For programs.
    pub kind: FailureKind,
    /// For people, what to do included. Safe to show to the caller.
    pub message: String,
    /// For the log and the status only: backtrace, last lines of standard error.
    pub details: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// A failure without details.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), details: None, retry_after: None }
    }

    /// Adds what only the operator may see.
    #[must_use]
    pub fn with_details(mut self, details: impl Into<String>) -> Self {
        self.details = Some(details.into());
        self
    }

    /// Adds when to try again.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}
