//! One call to Dropbox: token, pace, request, answer. Everything that all routes have in common.
//!
//! A call is tried again when Dropbox asks for a wait, as long as there is time; once when its token has expired; and,
//! where that does no harm and no content is sent, a few times when there was no usable answer. Knows no route's
//! arguments and no file.

use std::sync::Arc;
use std::time::Duration;

use ::http::{HeaderValue, Method, StatusCode, header};
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::accounts::Membership;
use super::commit::Commits;
use super::download::verified;
use super::failure::{Call, Failure, Problem, Refused, classify, presentable_id};
use super::longpoll::Polls;
use super::pace::{OutOfPatience, Patience, pause_between};
use super::parts::Memory;
use super::root::Standing;
use super::token::Tokens;
use super::wire::header_json;
use crate::content::Content;
use crate::deadline;
use crate::error::{Error, ErrorKind, Step};
use crate::http::client::{Client, failed, streamed};
use crate::path::RemotePath;

/// Longest JSON answer: a page of [`super::PAGE_ENTRIES`] entries with paths of the longest kind, and some.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest body of a refusal that is read: those of Dropbox have a few hundred bytes.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;

/// What all calls of one connection share; what those of the account share is in its membership.
pub(super) struct Caller {
    pub(super) client: Client,
    pub(super) tokens: Tokens,
    pub(super) membership: Membership,
    /// All waits of one call together; by the caller's deadline when absent.
    pub(super) wait_budget: Option<Duration>,
    /// How often a call that does no harm when it is done twice is tried again without an answer.
    pub(super) retries: u32,
    pub(super) commits: Arc<Commits>,
    pub(super) memory: Memory,
    /// The most of one upload that is in memory.
    pub(super) window_bytes: u64,
    pub(super) api_url: Url,
    pub(super) content_url: Url,
    pub(super) standing: Standing,
    pub(super) polls: Polls,
}

impl Caller {
    /// A call with its argument and its answer in JSON.
    pub(super) async fn rpc<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        argument: &(impl Serialize + Sync),
    ) -> Result<T, Failure> {
        let url = route_url(&self.api_url, call.route)?;
        let json: Bytes = serde_json::to_vec(argument)
            .map_err(|error| {
                Error::new(ErrorKind::Internal, format!("cannot write the argument of {}", call.route))
                    .with_source(error)
            })?
            .into();
        let answer = self
            .send_repeatably(call, || {
                let mut request = reqwest::Request::new(Method::POST, url.clone());
                request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *request.body_mut() = Some(json.clone().into());
                Some(request)
            })
            .await?;
        answer.json(call).await
    }

    /// A request of a route that carries content, with its argument in a header.
    pub(super) fn content_request(
        &self,
        call: &Call<'_>,
        argument: &impl Serialize,
    ) -> Result<reqwest::Request, Error> {
        let mut request = reqwest::Request::new(Method::POST, route_url(&self.content_url, call.route)?);
        request.headers_mut().insert("dropbox-api-arg", header_json(argument)?);
        Ok(request)
    }

    /// A call whose answer has its result in a header and content in its body.
    pub(super) async fn open_content<T: DeserializeOwned>(
        &self,
        call: &Call<'_>,
        argument: &(impl Serialize + Sync),
    ) -> Result<(T, Answer), Failure> {
        // The head is made again for each try, but cannot fail differently.
        self.content_request(call, argument)?;
        let answer = self.send_repeatably(call, || self.content_request(call, argument).ok()).await?;
        Ok((answer.result(call)?, answer))
    }

    /// A call that carries content, which is sent once.
    pub(super) async fn upload_call(
        &self,
        call: &Call<'_>,
        argument: &(impl Serialize + Sync),
        content: Content,
    ) -> Result<serde_json::Value, Failure> {
        self.content_request(call, argument)?;
        let size = content.size();
        let mut content = Some(content);
        let answer = self
            .send(call, || {
                let mut request = self.content_request(call, argument).ok()?;
                let octets = HeaderValue::from_static("application/octet-stream");
                request.headers_mut().insert(header::CONTENT_TYPE, octets);
                *request.body_mut() = Some(streamed(size, content.take()?.into_stream()));
                Some(request)
            })
            .await?;
        answer.json(call).await
    }

    /// Sends what `request` makes, a few times if there is no usable answer and doing it twice does no harm.
    pub(super) async fn send_repeatably(
        &self,
        call: &Call<'_>,
        mut request: impl FnMut() -> Option<reqwest::Request> + Send,
    ) -> Result<Answer, Failure> {
        let mut retries = 0;
        loop {
            match self.send(call, &mut request).await {
                Err(failure) if call.repeatable && retries < self.retries && failure.is_passing() => {
                    retries += 1;
                    tracing::info!(route = call.route, subject = call.subject, retries, ?failure, "trying again");
                    pause_between(retries).await;
                }
                done => return done,
            }
        }
    }

    /// Sends what `request` makes, once for each try; `None` from it means that there can be no further try. The
    /// answer is a success, or says that a range is not there.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        mut request: impl FnMut() -> Option<reqwest::Request> + Send,
    ) -> Result<Answer, Failure> {
        let standing = self.standing_headers(call).await?;
        let account = self.account(call.route).await;
        let mut patience = Patience::new(self.wait_budget, deadline::of_caller());
        let mut token_renewed = false;
        let mut last: Option<Error> = None;
        loop {
            let Some(mut request) = request() else {
                let nothing = || Error::new(ErrorKind::Internal, format!("{} has nothing to send", call.route));
                return Err(last.unwrap_or_else(nothing).into());
            };
            if let Err(OutOfPatience(wait)) = patience.turn(&account.calls).await {
                return Err(paused(call, wait).into());
            }
            request.headers_mut().extend(standing.clone());
            let mut used = None;
            let problem = match self.attempt(call, request, &mut used).await {
                Ok(answer) => return Ok(answer),
                Err(problem) => problem,
            };
            last = Some(match problem {
                Problem::Final(failure) => return Err(failure),
                Problem::Expired(error) => {
                    let another = match used {
                        Some(token) if !token_renewed => self.tokens.reject(&token).await,
                        _ => false,
                    };
                    if !another {
                        return Err(error.into());
                    }
                    token_renewed = true;
                    // For content that cannot be sent twice; otherwise the next try decides.
                    Error::new(
                        ErrorKind::Interrupted,
                        format!("{} of {}: the access token expired meanwhile; try again", call.route, call.subject),
                    )
                    .with_source(error)
                }
                Problem::Busy { asked, error } => {
                    tracing::warn!(route = call.route, asked_seconds = asked.map(|wait| wait.as_secs()), %error, "waiting");
                    match patience.told_to_wait(&account.calls, asked) {
                        Ok(wait) => error.with_retry_after(wait),
                        Err(OutOfPatience(wait)) => return Err(error.with_retry_after(wait).into()),
                    }
                }
            });
        }
    }

    /// One try. The token that it used is told even if it fails.
    async fn attempt(
        &self,
        call: &Call<'_>,
        mut request: reqwest::Request,
        used: &mut Option<SecretString>,
    ) -> Result<Answer, Problem> {
        let token = used.insert(self.tokens.get(&self.client).await.map_err(|problem| problem.at(Step::Login))?);
        let bearer = HeaderValue::from_str(&format!("Bearer {}", token.expose_secret()));
        // The cause would print what it was made from.
        let mut bearer = bearer
            .map_err(|_| Error::new(ErrorKind::Invalid, "the access token has characters that no access token has"))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
        let answer = Answer::new(call, self.client.send(request).await?);
        if answer.status().is_success() || answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(answer);
        }
        if answer.status() == StatusCode::UNPROCESSABLE_ENTITY {
            self.forget_root().await;
        }
        let refused = answer.status() == StatusCode::UNAUTHORIZED;
        let problem = answer.into_problem(call, |_| None).await;
        Err(if refused { problem.at(Step::Login) } else { problem })
    }
}

/// A call that does not wait until the account may be called again.
pub(super) fn paused(call: &Call<'_>, wait: Duration) -> Error {
    let message = format!("{} of {}: Dropbox asked for a pause of this account", call.route, call.subject);
    Error::new(ErrorKind::RateLimited, message).with_retry_after(wait)
}

fn route_url(base: &Url, route: &str) -> Result<Url, Error> {
    base.join(&format!("2/{route}"))
        .map_err(|error| Error::new(ErrorKind::Invalid, format!("no URL can be made from {base}")).with_source(error))
}

/// An answer of Dropbox whose body is still on its way.
pub(super) struct Answer {
    response: reqwest::Response,
    request_id: String,
}

impl Answer {
    pub(super) fn new(call: &Call<'_>, response: ::http::Response<reqwest::Body>) -> Self {
        let id = response.headers().get("x-dropbox-request-id").and_then(|id| id.to_str().ok());
        let request_id = presentable_id(id);
        tracing::debug!(route = call.route, status = response.status().as_u16(), request_id, "answer of Dropbox");
        Self { response: response.into(), request_id }
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &header::HeaderMap {
        self.response.headers()
    }

    /// The body as JSON.
    pub(super) async fn json<T: DeserializeOwned>(mut self, call: &Call<'_>) -> Result<T, Failure> {
        let body = self.body(ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|error| {
            Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the answer to {} of {} is not one of Dropbox (request {})",
                    call.route, call.subject, self.request_id
                ),
            )
            .with_source(error)
            .into()
        })
    }

    /// The result in the head of an answer with content. Its bytes are UTF-8, whether or not they are escaped.
    pub(super) fn result<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<T, Error> {
        let unusable = |what: &str| {
            let message = format!("the answer to {} of {} {what}; try again", call.route, call.subject);
            Error::new(ErrorKind::Interrupted, message)
        };
        let result = self.headers().get("dropbox-api-result").ok_or_else(|| unusable("has no result"))?;
        serde_json::from_slice(result.as_bytes())
            .map_err(|error| unusable("has a result that cannot be read").with_source(error))
    }

    /// The body as content of a size that is told or announced, verified by a content hash where there is one.
    pub(super) fn into_content(self, path: &RemotePath, size: Option<u64>, hash: Option<String>) -> Content {
        let announced =
            self.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let size = size.or(announced);
        match hash {
            Some(hash) => Content::from_stream(size, verified(path.clone(), self.into_stream(), hash)),
            None => Content::from_stream(size, self.into_stream()),
        }
    }

    /// The body as a stream.
    pub(super) fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        self.response.bytes_stream().map(|chunk| chunk.map_err(|error| failed("Dropbox", error))).boxed()
    }

    /// What a refusal asks for; `known` recognises bodies that are particular to an endpoint.
    pub(super) async fn into_problem(mut self, call: &Call<'_>, known: impl FnOnce(&[u8]) -> Option<Error>) -> Problem {
        // The status alone says enough where the body cannot be had.
        let body = self.body(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let status = self.status();
        if let Some(error) =
            known(&body).filter(|_| status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS)
        {
            return error.into();
        }
        let retry_after = self.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        classify(call, &Refused { status, retry_after, request_id: &self.request_id, body: &body })
    }

    async fn body(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut body = Vec::new();
        while let Some(chunk) = self.response.chunk().await.map_err(|error| failed("Dropbox", error))? {
            if body.len() + chunk.len() > limit {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("an answer of Dropbox is longer than {limit} bytes (request {})", self.request_id),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }
}
