//! Faults on demand: which one strikes which call, and what it does to it.
//!
//! A fault names a route, lets `after` calls of it pass, strikes `times` calls, and is used up. Of several for one route
//! the first that is ready strikes; latency combines with any. A fault that could never strike its route is refused when
//! it is injected, so that no test passes because its fault did nothing.

use std::sync::Mutex;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::account::{lock, root_info};
use crate::oauth;
use crate::reply::{Body, Failure, Reply, error_reply, tagged};
use crate::routes::{self, Handler, Route};
use crate::store::WriteError;

/// Faults waiting at a time.
const MAX_FAULTS: usize = 1000;

/// The longest latency, so that a mistyped number cannot hold connections for days.
const MAX_LATENCY: Duration = Duration::from_secs(600);

/// The name of the token route in [`Fault::route`].
pub(crate) const TOKEN_ROUTE: &str = "oauth2/token";

/// In [`Fault::route`]: every route where the fault can strike.
const ANY_ROUTE: &str = "*";

/// Something that goes wrong, as `POST /emulator/faults` takes it:
/// `{"route": "files/upload", "kind": {"rate_limit_json": {"retry_after_seconds": 1}}, "times": 2}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// `files/upload`, `oauth2/token`, …, or `*` for every route where the fault can strike.
    pub route: String,
    /// What goes wrong.
    pub kind: FaultKind,
    /// How many calls it strikes; [`Fault::EVERY_TIME`] for all.
    #[serde(default = "once")]
    pub times: u32,
    /// How many calls pass unharmed first.
    #[serde(default)]
    pub after: u32,
}

fn once() -> u32 {
    1
}

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultKind {
    /// 429 with a JSON body of reason `too_many_requests`, and `Retry-After`.
    RateLimitJson {
        /// In the body and in the header.
        retry_after_seconds: u64,
    },
    /// 429 with a plain text body and `Retry-After`.
    RateLimitText {
        /// In the header.
        retry_after_seconds: u64,
    },
    /// 429 with a plain text body and nothing that says how long to wait.
    RateLimitBare,
    /// 409 `too_many_write_operations`, in the shape of the route's own error; in the answer of a batch, as the failure
    /// of each entry. Write routes only.
    TooManyWriteOperations,
    /// 409 `insufficient_space`, in the shape of the route's own error. Write routes only.
    InsufficientSpace,
    /// 500 with a plain text body.
    InternalError,
    /// 503 with a plain text body, without `Retry-After`.
    ServiceUnavailable,
    /// 401 `expired_access_token`. API routes only.
    ExpiredAccessToken,
    /// 401 `invalid_access_token`. API routes only.
    InvalidAccessToken,
    /// 401 `missing_scope`. API routes only.
    MissingScope {
        /// The permission that is asked for.
        scope: String,
    },
    /// 422 `invalid_root`, as after a change of the account's team. API routes only.
    ChangedRoot,
    /// 400 `invalid_grant`. Token route only.
    InvalidGrant,
    /// 409 `reset`. Only `files/list_folder/continue`.
    ResetCursor,
    /// The request is read and the connection closed: nothing happens, nothing is answered.
    DropBeforeEffect,
    /// The request takes effect, but the connection is closed instead of an answer.
    DropAfterCommit,
    /// Only so many bytes of the content are taken, and the connection is closed instead of an answer. Only
    /// `files/upload_session/append_v2`.
    KeepPartOfContent {
        /// From the beginning of the request's content.
        bytes: u64,
    },
    /// The connection breaks after this many bytes of content, or one short of the end if the content is no longer than
    /// that. Empty content arrives whole. Download routes only.
    CutDownload {
        /// Content bytes sent before the break.
        after_bytes: u64,
    },
    /// The first byte of the content is inverted. Download routes only.
    CorruptDownload,
    /// Every `content_hash` in the answer is wrong. API routes only.
    WrongContentHash,
    /// The call begins this much later.
    Latency {
        /// At most ten minutes.
        milliseconds: u64,
    },
}

/// Why a fault was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FaultError {
    /// The emulator has no such route.
    #[error("there is no route {0:?}; the token route is \"oauth2/token\", \"*\" is every route")]
    UnknownRoute(String),
    /// The route never gives this kind of answer.
    #[error("the fault {kind} can never strike the route {route:?}")]
    NeverStrikes {
        /// The name of the fault.
        kind: &'static str,
        /// The route asked for.
        route: String,
    },
    /// `times` is zero, or the latency is over ten minutes.
    #[error("a fault strikes at least once, and latency is at most ten minutes")]
    OutOfRange,
    /// Too many faults are waiting.
    #[error("{MAX_FAULTS} faults are waiting already; clear them first")]
    TooMany,
}

impl Fault {
    /// For [`Fault::times`]: strikes until cleared.
    pub const EVERY_TIME: u32 = u32::MAX;

    /// A fault that strikes the next call of `route`, once.
    #[must_use]
    pub fn on(route: &str, kind: FaultKind) -> Self {
        Self { route: route.to_owned(), kind, times: 1, after: 0 }
    }

    /// The same, striking this many calls.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        Self { times, ..self }
    }

    /// The same, after this many calls passed unharmed.
    #[must_use]
    pub fn after(self, after: u32) -> Self {
        Self { after, ..self }
    }

    fn check(&self) -> Result<(), FaultError> {
        let too_slow = matches!(self.kind, FaultKind::Latency { milliseconds } if Duration::from_millis(milliseconds) > MAX_LATENCY);
        if self.times == 0 || too_slow {
            return Err(FaultError::OutOfRange);
        }
        let target = match self.route.as_str() {
            ANY_ROUTE => return Ok(()),
            TOKEN_ROUTE => Target::Token,
            name => Target::Api(routes::find(name).ok_or_else(|| FaultError::UnknownRoute(name.to_owned()))?),
        };
        if self.kind.can_strike(target) {
            Ok(())
        } else {
            Err(FaultError::NeverStrikes { kind: self.kind.name(), route: self.route.clone() })
        }
    }

    fn concerns(&self, target: Target) -> bool {
        (self.route == ANY_ROUTE || self.route == target.name()) && self.kind.can_strike(target)
    }
}

/// What a call is addressed to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    Token,
    Api(&'static Route),
}

impl Target {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Token => TOKEN_ROUTE,
            Self::Api(route) => route.name,
        }
    }
}

impl FaultKind {
    /// The name in `POST /emulator/faults` and in the request log.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::RateLimitJson { .. } => "rate_limit_json",
            Self::RateLimitText { .. } => "rate_limit_text",
            Self::RateLimitBare => "rate_limit_bare",
            Self::TooManyWriteOperations => "too_many_write_operations",
            Self::InsufficientSpace => "insufficient_space",
            Self::InternalError => "internal_error",
            Self::ServiceUnavailable => "service_unavailable",
            Self::ExpiredAccessToken => "expired_access_token",
            Self::InvalidAccessToken => "invalid_access_token",
            Self::MissingScope { .. } => "missing_scope",
            Self::ChangedRoot => "changed_root",
            Self::InvalidGrant => "invalid_grant",
            Self::ResetCursor => "reset_cursor",
            Self::DropBeforeEffect => "drop_before_effect",
            Self::DropAfterCommit => "drop_after_commit",
            Self::KeepPartOfContent { .. } => "keep_part_of_content",
            Self::CutDownload { .. } => "cut_download",
            Self::CorruptDownload => "corrupt_download",
            Self::WrongContentHash => "wrong_content_hash",
            Self::Latency { .. } => "latency",
        }
    }

    fn can_strike(&self, target: Target) -> bool {
        match (self, target) {
            (Self::TooManyWriteOperations, Target::Api(route)) if route.name == routes::FINISH_BATCH_ROUTE => true,
            (Self::TooManyWriteOperations | Self::InsufficientSpace, Target::Api(route)) => {
                route.write_failure.is_some()
            }
            (Self::KeepPartOfContent { .. }, Target::Api(route)) => route.name == routes::APPEND_ROUTE,
            (Self::CutDownload { .. } | Self::CorruptDownload, Target::Api(route)) => {
                matches!(route.handler, Handler::Download(_))
            }
            (Self::ResetCursor, Target::Api(route)) => route.name == routes::CONTINUE_ROUTE,
            (
                Self::ExpiredAccessToken
                | Self::InvalidAccessToken
                | Self::MissingScope { .. }
                | Self::ChangedRoot
                | Self::WrongContentHash,
                Target::Api(_),
            ) => true,
            (Self::InvalidGrant, Target::Token) => true,
            (
                Self::RateLimitJson { .. }
                | Self::RateLimitText { .. }
                | Self::RateLimitBare
                | Self::InternalError
                | Self::ServiceUnavailable
                | Self::DropBeforeEffect
                | Self::DropAfterCommit
                | Self::Latency { .. },
                _,
            ) => true,
            _ => false,
        }
    }

    /// The answer that this fault gives in place of the call, if it does.
    pub(crate) fn instead(&self, target: Target) -> Option<Reply> {
        let write_failure = |error| match target {
            Target::Api(route) => route.write_failure.map(|failure| failure(error).into_reply(route.name)),
            Target::Token => None,
        };
        let limited = |text: &str| Reply::text(StatusCode::TOO_MANY_REQUESTS, text);
        match self {
            Self::RateLimitJson { retry_after_seconds } => {
                let error = json!({ "reason": tagged(&["too_many_requests"]), "retry_after": retry_after_seconds });
                let reply = error_reply(StatusCode::TOO_MANY_REQUESTS, &["too_many_requests"], &error);
                Some(reply.with_retry_after(*retry_after_seconds))
            }
            Self::RateLimitText { retry_after_seconds } => {
                Some(limited("too_many_requests").with_retry_after(*retry_after_seconds))
            }
            Self::RateLimitBare => Some(limited("too_many_requests")),
            Self::TooManyWriteOperations => write_failure(WriteError::TooManyWriteOperations),
            Self::InsufficientSpace => write_failure(WriteError::InsufficientSpace),
            Self::InternalError => Some(Reply::text(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")),
            Self::ServiceUnavailable => Some(Reply::text(StatusCode::SERVICE_UNAVAILABLE, "Service Unavailable")),
            Self::ExpiredAccessToken => Some(Failure::Unauthorized("expired_access_token").into_reply(target.name())),
            Self::InvalidAccessToken => Some(Failure::Unauthorized("invalid_access_token").into_reply(target.name())),
            Self::MissingScope { scope } => {
                let error = json!({ ".tag": "missing_scope", "required_scope": scope });
                Some(error_reply(StatusCode::UNAUTHORIZED, &["missing_scope"], &error))
            }
            Self::ChangedRoot => {
                let error = json!({ ".tag": "invalid_root", "invalid_root": root_info() });
                Some(Failure::PathRoot(error).into_reply(target.name()))
            }
            Self::InvalidGrant => Some(oauth::refuse("invalid_grant", "refresh token is invalid or revoked")),
            Self::ResetCursor => Some(Failure::endpoint(&["reset"]).into_reply(target.name())),
            Self::DropBeforeEffect
            | Self::DropAfterCommit
            | Self::KeepPartOfContent { .. }
            | Self::CutDownload { .. }
            | Self::CorruptDownload
            | Self::WrongContentHash
            | Self::Latency { .. } => None,
        }
    }

    /// Changes the answer of a call that took effect.
    pub(crate) fn spoil(&self, reply: &mut Reply) {
        match self {
            Self::CutDownload { after_bytes } => {
                if let Body::Content { blocks, cut_after, .. } = &mut reply.body {
                    let length: u64 = blocks.iter().map(|block| block.len() as u64).sum();
                    *cut_after = length.checked_sub(1).map(|last| last.min(*after_bytes));
                }
            }
            Self::CorruptDownload => reply.corrupt_content(),
            Self::WrongContentHash => reply.falsify_content_hashes(),
            _ => {}
        }
    }
}

/// The faults that are waiting.
#[derive(Default)]
pub(crate) struct Faults {
    waiting: Mutex<Vec<Fault>>,
}

/// What strikes one call.
#[derive(Default)]
pub(crate) struct Strike {
    pub(crate) latency: Duration,
    pub(crate) kind: Option<FaultKind>,
}

impl Faults {
    pub(crate) fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        fault.check()?;
        let mut waiting = lock(&self.waiting);
        if waiting.len() == MAX_FAULTS {
            return Err(FaultError::TooMany);
        }
        waiting.push(fault);
        Ok(())
    }

    pub(crate) fn clear(&self) {
        lock(&self.waiting).clear();
    }

    /// What strikes this call. Every waiting fault that concerns it counts it, unless an earlier one struck.
    pub(crate) fn strike(&self, target: Target) -> Strike {
        let mut strike = Strike::default();
        let mut waiting = lock(&self.waiting);
        for fault in waiting.iter_mut().filter(|fault| fault.concerns(target)) {
            let latency = match fault.kind {
                FaultKind::Latency { milliseconds } => Some(Duration::from_millis(milliseconds)),
                _ if strike.kind.is_some() => continue,
                _ => None,
            };
            if fault.after > 0 {
                fault.after -= 1;
                continue;
            }
            if fault.times != Fault::EVERY_TIME {
                fault.times -= 1;
            }
            match latency {
                Some(latency) => strike.latency += latency,
                None => strike.kind = Some(fault.kind.clone()),
            }
        }
        waiting.retain(|fault| fault.times > 0);
        strike
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upload() -> Target {
        Target::Api(routes::find("files/upload").unwrap())
    }

    #[test]
    fn a_fault_lets_calls_pass_strikes_and_is_used_up() {
        let faults = Faults::default();
        faults.inject(Fault::on("files/upload", FaultKind::InternalError).after(1).times(2)).unwrap();
        let struck: Vec<bool> = (0..4).map(|_| faults.strike(upload()).kind.is_some()).collect();
        assert_eq!(struck, [false, true, true, false]);
    }

    #[test]
    fn faults_for_one_route_strike_in_turn_and_latency_combines() {
        let faults = Faults::default();
        faults.inject(Fault::on("files/upload", FaultKind::InternalError)).unwrap();
        faults.inject(Fault::on("*", FaultKind::RateLimitBare)).unwrap();
        faults.inject(Fault::on("files/upload", FaultKind::Latency { milliseconds: 7 })).unwrap();
        let first = faults.strike(upload());
        assert_eq!((first.kind, first.latency), (Some(FaultKind::InternalError), Duration::from_millis(7)));
        assert_eq!(faults.strike(upload()).kind, Some(FaultKind::RateLimitBare));
        assert_eq!(faults.strike(upload()).kind, None);
    }

    #[test]
    fn a_fault_that_can_never_strike_is_refused() {
        let faults = Faults::default();
        let refused = |route, kind| faults.inject(Fault::on(route, kind)).unwrap_err();
        assert!(matches!(refused("files/uplaod", FaultKind::InternalError), FaultError::UnknownRoute(_)));
        assert!(matches!(refused("files/upload", FaultKind::CorruptDownload), FaultError::NeverStrikes { .. }));
        assert!(matches!(refused("files/upload", FaultKind::InvalidGrant), FaultError::NeverStrikes { .. }));
        assert!(matches!(refused("oauth2/token", FaultKind::ExpiredAccessToken), FaultError::NeverStrikes { .. }));
        assert!(matches!(refused("files/list_folder", FaultKind::InsufficientSpace), FaultError::NeverStrikes { .. }));
        assert_eq!(refused("files/upload", FaultKind::Latency { milliseconds: 600_001 }), FaultError::OutOfRange);
        assert_eq!(faults.inject(Fault::on("*", FaultKind::InternalError).times(0)), Err(FaultError::OutOfRange));
    }

    #[test]
    fn every_time_means_until_cleared() {
        let faults = Faults::default();
        faults.inject(Fault::on("*", FaultKind::InternalError).times(Fault::EVERY_TIME)).unwrap();
        assert!((0..50).all(|_| faults.strike(upload()).kind.is_some()));
        faults.clear();
        assert!(faults.strike(upload()).kind.is_none());
    }
}
