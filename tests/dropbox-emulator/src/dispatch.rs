//! From an HTTP request to a reply: routing, faults, authorization, argument, body.
//!
//! Knows the order of these steps and the limits on bodies. Does not know what any route does, nor how connections are
//! accepted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{AUTHORIZATION, CONTENT_TYPE, EXPECT};
use http::request::Parts;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::account::{Account, MEMBER_ID, ROOT_NAMESPACE, root_info};
use crate::control;
use crate::faults::{FaultKind, Faults, Target};
use crate::form;
use crate::oauth::Tokens;
use crate::reply::{Failure, Reply, ResponseBody};
use crate::request_log::RequestLog;
use crate::routes::sharing::answer_temporary;
use crate::routes::{self, Call, Handler, Route};
use crate::store::WriteError;
use crate::store::content::{Content, ContentWriter};
use crate::store::listing::ContinueError;

/// The most content of one request (files.stone, `upload`).
const MAX_CONTENT_BYTES: u64 = 150 * 1024 * 1024;

/// The most JSON or form of one request; no argument comes near it.
const MAX_ARGUMENT_BYTES: u64 = 1024 * 1024;

/// What is read and thrown away of a body past its limit, so that a client that is a little over it gets an answer
/// rather than a broken connection.
const MAX_EXCESS_BYTES: u64 = 16 * 1024 * 1024;

/// The longest silence within a body.
const BODY_SILENCE: Duration = Duration::from_secs(120);

/// How often a long poll looks.
const POLL_PAUSE: Duration = Duration::from_millis(20);

/// The longest unknown path that is put on record.
const MAX_RECORDED_PATH_CHARACTERS: usize = 200;

const API_ARGUMENT: HeaderName = HeaderName::from_static("dropbox-api-arg");
const PATH_ROOT: HeaderName = HeaderName::from_static("dropbox-api-path-root");
const SELECT_USER: HeaderName = HeaderName::from_static("dropbox-api-select-user");
const SELECT_ADMIN: HeaderName = HeaderName::from_static("dropbox-api-select-admin");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-dropbox-request-id");

/// Everything a request can touch.
pub(crate) struct Emulation {
    pub(crate) account: Account,
    pub(crate) turns: Turns,
    /// After so long a long poll is answered, whatever it asked for.
    pub(crate) longest_poll: Duration,
    pub(crate) tokens: Tokens,
    pub(crate) faults: Faults,
    pub(crate) log: Arc<RequestLog>,
}

/// The lock of the namespace, which Dropbox gives to one change at a time.
pub(crate) struct Turns {
    lock: Semaphore,
    change_time: Duration,
    waiting: AtomicUsize,
    waiting_max: usize,
}

impl Turns {
    pub(crate) fn new(change_time: Duration, waiting_max: usize) -> Self {
        Self { lock: Semaphore::new(1), change_time, waiting: AtomicUsize::new(0), waiting_max }
    }

    /// Waits for the lock and for as long as a change takes; false when too many wait already.
    async fn take(&self) -> bool {
        if self.change_time.is_zero() {
            return true;
        }
        /// Counts itself among those that wait, until it is dropped.
        struct Place<'a>(&'a AtomicUsize);
        impl Drop for Place<'_> {
            fn drop(&mut self) {
                self.0.fetch_sub(1, Ordering::Relaxed);
            }
        }
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let _place = Place(&self.waiting);
        if before > self.waiting_max {
            return false;
        }
        let Ok(_lock) = self.lock.acquire().await else { return false };
        tokio::time::sleep(self.change_time).await;
        true
    }
}

/// The connection ends without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection ends without an answer")]
pub(crate) struct Dropped;

impl Emulation {
    /// Answers one request.
    pub(crate) async fn answer(&self, request: Request<Incoming>) -> Result<Response<ResponseBody>, Dropped> {
        let (parts, body) = request.into_parts();
        let mut body = RequestBody::new(body, &parts);
        let path = parts.uri.path();
        if let Some(name) = path.strip_prefix("/emulator/") {
            let form = body.read_argument().await?;
            return Ok(control::answer(self, &parts.method, name, &form).into_response());
        }
        if let Some(name) = path.strip_prefix("/temporary/") {
            let reply = match body.read_content(&self.account).await? {
                Ok(content) => answer_temporary(&self.account, name, content),
                Err(_) => Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large"),
            };
            return Ok(with_request_id(reply.into_response()));
        }
        if path == "/oauth2/authorize" {
            let reply = self.tokens.authorize_page(parts.uri.query().unwrap_or_default().as_bytes());
            return Ok(with_request_id(reply.into_response()));
        }
        let target = match path.strip_prefix("/2/").map(routes::find) {
            Some(Some(route)) => Target::Api(route),
            _ if path == "/oauth2/token" => Target::Token,
            unknown => {
                let recorded: String = path.chars().take(MAX_RECORDED_PATH_CHARACTERS).collect();
                let record = self.log.begin(parts.method.as_str(), &recorded);
                body.discard().await?;
                let reply = match unknown {
                    Some(_) => {
                        Reply::text(StatusCode::BAD_REQUEST, format!("Unknown API function: \"{}\"", &path[3..]))
                    }
                    None => Reply::text(StatusCode::NOT_FOUND, "Not Found"),
                };
                record.answered(reply.status.as_u16());
                return Ok(with_request_id(reply.into_response()));
            }
        };
        let mut record = self.log.begin(parts.method.as_str(), target.name());
        let strike = self.faults.strike(target);
        if !strike.latency.is_zero() {
            record.fault("latency");
            tokio::time::sleep(strike.latency).await;
        }
        if let Some(kind) = &strike.kind {
            record.fault(kind.name());
        }
        let reply = self.reply(target, strike.kind.as_ref(), &parts, &mut body).await?;
        record.answered(reply.status.as_u16());
        Ok(with_request_id(reply.into_response()))
    }

    async fn reply(
        &self,
        target: Target,
        fault: Option<&FaultKind>,
        parts: &Parts,
        body: &mut RequestBody,
    ) -> Result<Reply, Dropped> {
        if let Some(reply) = fault.and_then(|fault| fault.instead(target)) {
            body.discard().await?;
            return Ok(reply);
        }
        if fault == Some(&FaultKind::DropBeforeEffect) {
            body.discard().await?;
            return Err(Dropped);
        }
        let mut reply = match target {
            Target::Token => self.token(parts, body).await?,
            Target::Api(route) => match self.call(route, fault, parts, body).await? {
                Ok(reply) => reply,
                Err(failure) => {
                    body.discard().await?;
                    failure.into_reply(route.name)
                }
            },
        };
        match fault {
            Some(FaultKind::DropAfterCommit | FaultKind::KeepPartOfContent { .. }) => return Err(Dropped),
            Some(fault) => fault.spoil(&mut reply),
            None => {}
        }
        Ok(reply)
    }

    async fn token(&self, parts: &Parts, body: &mut RequestBody) -> Result<Reply, Dropped> {
        let form = body.read_argument().await?;
        if parts.method != Method::POST {
            return Ok(Reply::text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed"));
        }
        let basic = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        Ok(match form {
            Ok(form) => self.tokens.exchange(basic, &form),
            Err(TooLarge) => Reply::text(StatusCode::PAYLOAD_TOO_LARGE, "Payload Too Large"),
        })
    }

    /// Runs a route. The outer error is a lost connection, the inner one an answer.
    async fn call(
        &self,
        route: &Route,
        fault: Option<&FaultKind>,
        parts: &Parts,
        body: &mut RequestBody,
    ) -> Result<Result<Reply, Failure>, Dropped> {
        if let Err(failure) = self.admit(route, parts) {
            return Ok(Err(failure));
        }
        let call =
            |(source, argument)| Call { account: &self.account, headers: &parts.headers, fault, source, argument };
        Ok(match route.handler {
            Handler::Rpc(handler) => {
                let argument = body.read_argument().await?;
                if !self.turn_of(route).await {
                    return Ok(Err(turned_away(route)));
                }
                body_argument(argument).and_then(|argument| handler(&call(argument)).map(Reply::json))
            }
            Handler::Poll(handler) => {
                let argument = body.read_argument().await?;
                match body_argument(argument).and_then(|argument| handler(&call(argument))) {
                    Ok((cursor, seconds)) => self.poll(&cursor, seconds).await,
                    Err(failure) => Err(failure),
                }
            }
            Handler::Download(handler) => {
                body.discard().await?;
                header_argument(parts).and_then(|argument| handler(&call(argument)))
            }
            Handler::Upload(handler) => {
                let argument = match header_argument(parts) {
                    Ok(argument) => argument,
                    Err(failure) => return Ok(Err(failure)),
                };
                let content = body.read_content(&self.account).await?;
                if !self.turn_of(route).await {
                    return Ok(Err(turned_away(route)));
                }
                content
                    .map_err(|problem| problem.failure(route))
                    .and_then(|content| handler(&call(argument), content).map(Reply::json))
            }
        })
    }

    /// Waits until something behind the cursor can be told.
    async fn poll(&self, cursor: &str, seconds: u64) -> Result<Reply, Failure> {
        let longest = Duration::from_secs(seconds).min(self.longest_poll);
        let deadline = tokio::time::Instant::now() + longest;
        loop {
            let page = self.account.namespace().continue_listing(cursor);
            let changes = match page {
                Ok(page) => !page.entries.is_empty() || page.has_more,
                Err(ContinueError::Invalid) => return Err(Failure::bad_input("Invalid \"cursor\" parameter")),
                Err(_) => return Err(Failure::endpoint(&["reset"])),
            };
            if changes || tokio::time::Instant::now() >= deadline {
                return Ok(Reply::json(json!({ "changes": changes })));
            }
            tokio::time::sleep(POLL_PAUSE).await;
        }
    }

    async fn turn_of(&self, route: &Route) -> bool {
        let changes = route.write_failure.is_some() || route.name == routes::FINISH_BATCH_ROUTE;
        !changes || self.turns.take().await
    }

    /// What every API route checks before it looks at its argument.
    fn admit(&self, route: &Route, parts: &Parts) -> Result<(), Failure> {
        let download = matches!(route.handler, Handler::Download(_));
        if parts.method != Method::POST && !(download && parts.method == Method::GET) {
            return Err(Failure::BadInput(format!(
                "Your request method is \"{}\". This function only accepts \"POST\" requests.",
                parts.method
            )));
        }
        if let Handler::Poll(_) = route.handler {
            return match header_text(parts, &AUTHORIZATION) {
                None => Ok(()),
                Some(_) => Err(Failure::bad_input("This endpoint does not support the \"Authorization\" header.")),
            };
        }
        self.tokens.authorize(header_text(parts, &AUTHORIZATION))?;
        for name in [SELECT_USER, SELECT_ADMIN] {
            match header_text(parts, &name) {
                Some(member) if member != MEMBER_ID => {
                    let tag = if name == SELECT_USER { "invalid_select_user" } else { "invalid_select_admin" };
                    return Err(Failure::Unauthorized(tag));
                }
                _ => {}
            }
        }
        check_path_root(parts)?;
        let accepted: &[&str] = match route.handler {
            Handler::Rpc(_) => {
                &["application/json", "application/json; charset=utf-8", "text/plain; charset=dropbox-cors-hack"]
            }
            Handler::Upload(_) => &["application/octet-stream", "text/plain; charset=dropbox-cors-hack"],
            Handler::Download(_) | Handler::Poll(_) => return Ok(()),
        };
        match header_text(parts, &CONTENT_TYPE) {
            Some(given) if !accepted.iter().any(|accepted| accepted.eq_ignore_ascii_case(given)) => {
                Err(Failure::BadInput(format!(
                    "Bad HTTP \"Content-Type\" header: \"{given}\". Expecting one of {}",
                    accepted.iter().map(|accepted| format!("\"{accepted}\"")).collect::<Vec<_>>().join(", ")
                )))
            }
            None if matches!(route.handler, Handler::Upload(_)) => {
                Err(Failure::bad_input("Missing HTTP \"Content-Type\" header. Expecting \"application/octet-stream\""))
            }
            _ => Ok(()),
        }
    }
}

fn turned_away(route: &Route) -> Failure {
    match route.write_failure {
        Some(failure) => failure(WriteError::TooManyWriteOperations),
        None => Failure::endpoint(&["too_many_write_operations"]),
    }
}

fn header_text<'parts>(parts: &'parts Parts, name: &HeaderName) -> Option<&'parts str> {
    parts.headers.get(name).and_then(|value| value.to_str().ok())
}

fn with_request_id(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let id = format!("{:032x}", rand::random::<u128>());
    if let Ok(id) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

/// common.stone: PathRoot. Only the account's own root is known.
fn check_path_root(parts: &Parts) -> Result<(), Failure> {
    let Some(header) = parts.headers.get(PATH_ROOT) else {
        return Ok(());
    };
    let malformed = || Failure::bad_input("HTTP header \"Dropbox-API-Path-Root\": could not decode input as JSON");
    let root: Value = serde_json::from_slice(header.as_bytes()).map_err(|_| malformed())?;
    let known = match root[".tag"].as_str() {
        Some("home") => true,
        Some("root") => root["root"] == ROOT_NAMESPACE,
        Some("namespace_id") => root["namespace_id"] == ROOT_NAMESPACE,
        _ => return Err(malformed()),
    };
    let error = || json!({ ".tag": "invalid_root", "invalid_root": root_info() });
    if known { Ok(()) } else { Err(Failure::PathRoot(error())) }
}

/// Where an argument came from, and the argument.
type Argument = (&'static str, Value);

fn body_argument(body: Result<Bytes, TooLarge>) -> Result<Argument, Failure> {
    const SOURCE: &str = "request body";
    let body = body.map_err(|TooLarge| Failure::BadInput(format!("{SOURCE}: too large")))?;
    if body.is_empty() {
        return Ok((SOURCE, Value::Null));
    }
    decode(SOURCE, &body)
}

/// From the `Dropbox-API-Arg` header, whose bytes are taken as UTF-8 because some clients do not escape, or from the
/// `arg` parameter of the URL.
fn header_argument(parts: &Parts) -> Result<Argument, Failure> {
    if let Some(header) = parts.headers.get(API_ARGUMENT) {
        return decode("HTTP header \"Dropbox-API-Arg\"", header.as_bytes());
    }
    let query = form::pairs(parts.uri.query().unwrap_or_default().as_bytes());
    let argument = form::value(&query, "arg")
        .ok_or_else(|| Failure::bad_input("Must provide HTTP header \"Dropbox-API-Arg\" or URL parameter \"arg\"."))?;
    decode("URL parameter \"arg\"", argument.as_bytes())
}

fn decode(source: &'static str, text: &[u8]) -> Result<Argument, Failure> {
    let argument = serde_json::from_slice(text);
    argument
        .map(|argument| (source, argument))
        .map_err(|_| Failure::BadInput(format!("{source}: could not decode input as JSON")))
}

/// The body is over its limit.
#[derive(Debug)]
pub(crate) struct TooLarge;

/// Why a request's content was not kept.
enum ContentProblem {
    TooLarge,
    NoSpace,
}

impl ContentProblem {
    fn failure(&self, route: &Route) -> Failure {
        match (self, route.write_failure) {
            (Self::NoSpace, Some(failure)) => failure(WriteError::InsufficientSpace),
            _ => Failure::endpoint(&["payload_too_large"]),
        }
    }
}

/// A request's body, read at most once.
struct RequestBody {
    body: Incoming,
    /// The client waits for a sign before it sends the body: reading it would be that sign.
    awaits_sign: bool,
    read: u64,
}

impl RequestBody {
    fn new(body: Incoming, parts: &Parts) -> Self {
        Self { body, awaits_sign: parts.headers.contains_key(EXPECT), read: 0 }
    }

    /// The next piece, or that there is none. A body that ends early or stands still loses the connection.
    async fn next(&mut self) -> Result<Option<Bytes>, Dropped> {
        loop {
            self.awaits_sign = false;
            let frame = tokio::time::timeout(BODY_SILENCE, self.body.frame()).await.map_err(|_| Dropped)?;
            match frame.transpose().map_err(|_| Dropped)? {
                None => return Ok(None),
                Some(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.read += data.len() as u64;
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    async fn read_argument(&mut self) -> Result<Result<Bytes, TooLarge>, Dropped> {
        let mut collected = BytesMut::new();
        while let Some(data) = self.next().await? {
            if self.read > MAX_ARGUMENT_BYTES {
                self.discard().await?;
                return Ok(Err(TooLarge));
            }
            collected.extend_from_slice(&data);
        }
        Ok(Ok(collected.freeze()))
    }

    async fn read_content(&mut self, account: &Account) -> Result<Result<Arc<Content>, ContentProblem>, Dropped> {
        let mut writer = ContentWriter::new(account.quota());
        while let Some(data) = self.next().await? {
            if self.read > MAX_CONTENT_BYTES {
                return Ok(Err(ContentProblem::TooLarge));
            }
            if writer.push(&data).is_err() {
                return Ok(Err(ContentProblem::NoSpace));
            }
        }
        Ok(Ok(writer.finish()))
    }

    /// Reads and forgets what is left: many clients see no answer before they have sent everything.
    async fn discard(&mut self) -> Result<(), Dropped> {
        if self.awaits_sign {
            return Ok(());
        }
        while self.read <= MAX_CONTENT_BYTES + MAX_EXCESS_BYTES && self.next().await?.is_some() {}
        Ok(())
    }
}
