//! The one error of this crate: a kind for programs, a message for people, and the cause.
//!
//! Knows nothing of any protocol. Backends turn what their library or server says into an [`Error`] where it happens.

use crate::path::RemotePath;
use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

/// Why an operation failed. The same words as `error-code` of the contract with guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Nothing is there.
    NotFound,
    /// Something is there already, and the caller asked not to replace it.
    AlreadyExists,
    /// The account, the file system or a policy refuses it.
    Denied,
    /// An argument or a setting is malformed.
    Invalid,
    /// A limit was exceeded; the message names it.
    TooLarge,
    /// Time ran out; the effect is unknown unless the message says otherwise.
    Timeout,
    /// The remote cannot be reached or refuses work for now. Where the answer to a change was lost, the message says what
    /// is known of its effect.
    Unavailable,
    /// Too many operations; see [`Error::retry_after`].
    RateLimited,
    /// The state of the target does not allow it.
    Conflict,
    /// The connection has no such operation.
    Unsupported,
    /// The connection broke in the middle; nothing is visible under a final name.
    Interrupted,
    /// A defect of the host.
    Internal,
}

impl ErrorKind {
    /// The word for it in the contract with services, also in records and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not-found",
            Self::AlreadyExists => "already-exists",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::TooLarge => "too-large",
            Self::Timeout => "timeout",
            Self::Unavailable => "unavailable",
            Self::RateLimited => "rate-limited",
            Self::Conflict => "conflict",
            Self::Unsupported => "unsupported",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// How far the way to a remote was gone when an operation failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Looking up the name, or checking the addresses against the outgoing policy.
    Name,
    /// Reaching the address.
    Connect,
    /// The TLS handshake, and checking the server's certificate.
    Tls,
    /// Checking the SSH host key.
    HostKey,
    /// Logging in, or getting a token.
    Login,
    /// The operation itself.
    Command,
}

impl fmt::Display for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Name => "name",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::HostKey => "host-key",
            Self::Login => "login",
            Self::Command => "command",
        })
    }
}

/// A failed operation on a remote.
///
/// `Display` tells this layer only: what was attempted, on what, what happened and what to do. The cause is in
/// [`StdError::source`]; [`chain`] prints both.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    step: Option<Step>,
    retry_after: Option<Duration>,
    tells_effect: bool,
    is_lasting: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause below it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            step: None,
            retry_after: None,
            tells_effect: false,
            is_lasting: false,
            source: None,
        }
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Adds the step of the way to the remote that failed, unless it is known already.
    #[must_use]
    pub fn at(mut self, step: Step) -> Self {
        self.step.get_or_insert(step);
        self
    }

    /// The same error as one of another kind.
    #[must_use]
    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.kind = kind;
        self
    }

    /// Notes that the message tells what the operation has done, as far as that is known.
    #[must_use]
    pub(crate) fn telling_effect(mut self) -> Self {
        self.tells_effect = true;
        self
    }

    /// Adds what is known of what the operation has done, unless the message tells that already.
    #[must_use]
    pub(crate) fn with_effect(mut self, effect: &str) -> Self {
        if !self.tells_effect {
            self.message = format!("{}; {effect}", self.message);
            self.tells_effect = true;
        }
        self
    }

    /// Tells paths as they are seen from inside of a folder.
    #[must_use]
    pub(crate) fn seen_from(mut self, folder: &RemotePath) -> Self {
        if folder.is_root() {
            return self;
        }
        let prefix = format!("{folder}/");
        let mut seen = String::new();
        let mut rest = self.message.as_str();
        while let Some(at) = rest.find(&prefix) {
            let (before, found) = rest.split_at(at);
            seen.push_str(before);
            // In the middle of a path it is a part of that path.
            let is_whole = before.chars().next_back().or(seen.chars().next_back());
            let is_whole = is_whole.is_none_or(|before| before.is_whitespace() || "\"'([".contains(before));
            seen.push_str(if is_whole { "/" } else { &prefix });
            rest = &found[prefix.len()..];
        }
        seen.push_str(rest);
        self.message = seen;
        self
    }

    /// Puts what was attempted before the message.
    #[must_use]
    pub(crate) fn during(mut self, attempt: &str) -> Self {
        self.message = format!("{attempt}: {}", self.message);
        self
    }

    /// Notes that trying again is of no use until somebody mends it, such as a disk that is full.
    #[must_use]
    pub(crate) fn lasting(mut self) -> Self {
        self.is_lasting = true;
        self
    }

    /// Adds the time that the remote asked to wait.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// The kind, for programs.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Which step of the way to the remote failed, where that is known.
    pub fn step(&self) -> Option<Step> {
        self.step
    }

    /// Whether trying again is of no use until somebody mends it.
    pub(crate) fn is_lasting(&self) -> bool {
        self.is_lasting
    }

    /// How long the remote asked to wait before the next try, where it said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// The same in whole seconds, of which none is too early.
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after.map(|wait| wait.as_secs() + u64::from(wait.subsec_nanos() > 0))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// An error for people on one line: `outer: cause: cause`, and how long to wait where the remote said so.
pub fn chain(error: &(dyn StdError + 'static)) -> String {
    let line = layers(error);
    match error.downcast_ref::<Error>().and_then(Error::retry_after_seconds) {
        Some(seconds) => format!("{line} (try again in {seconds} s)"),
        None => line,
    }
}

/// An error and its causes, leaving out a cause that its parent already says.
pub(crate) fn layers(error: &dyn StdError) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(current) = cause {
        let text = current.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = current.source();
    }
    line
}
