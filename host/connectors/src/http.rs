//! An HTTP origin as a connection: one request to a URL below its base, with the connection's credentials, streamed
//! both ways.
//!
//! [`Origin::send`] is for callers that name a path; [`Origin::forward`] for those that have a request with a whole
//! URL, as a language's own client makes it. Both are retried where that is safe, held to the breaker and the limits;
//! only the first follows redirects, because a client of its own decides about them itself.
//!
//! Credentials of any kind go to the connection's own origin and to no other place. How bytes travel is in
//! [`client`], which URLs are covered in [`place`].

mod answer;
mod breaker;
pub(crate) mod client;
mod credentials;
mod payload;
mod ping;
mod place;
mod redirect;
mod retry;
mod token;

use std::sync::Arc;
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{Method, StatusCode};
use http_body::Body as _;
use reqwest::Body;
use secrecy::SecretString;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use url::Url;

pub use breaker::Breaker;
pub use client::Proxy;
pub use credentials::{Credentials, DefaultHeader, DefaultValue};
pub use place::is_within;
pub use redirect::Redirects;
pub use token::{ClientAuthentication, ClientCredentials};

use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::operation::{CUT_OFF, Effect, Flow, Meter, Throttle, was_lost};
use crate::{Common, chain, tls};

use answer::{Bounded, Bounds, out_of_time};
use breaker::Circuit;
use client::{Client, Settings, failed};
use credentials::Authorizer;
use payload::Payload;
use place::Base;
use retry::{Patience, is_idempotent, is_passing, is_passing_failure, retry_after};

/// Headers of one hop, which are not the caller's to set (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2), and `Host`,
/// which would name another origin on the same server.
const HOP_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// How long a request waits for a place among those of its connection: as long as a busy origin takes for a few
/// requests, and shorter than what a caller waits for an answer.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// The settings of a connection of type `http`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The origin, with an optional base path that confines the connection: `https://api.example.com/v1`.
    pub url: Url,
    /// Who the connection is.
    pub credentials: Credentials,
    /// Headers of every request to the origin.
    pub headers: Vec<DefaultHeader>,
    /// Whom to trust, and the client certificate. Only the authorities hold for other origins, too.
    pub tls: tls::Config,
    /// What every connection is made through.
    pub proxy: Option<Proxy>,
    /// Which redirects are followed.
    pub redirects: Redirects,
    /// No further try begins so long after the first one; how many there are is in [`Common::retries`].
    pub retry_budget: Duration,
    /// When the origin is left alone.
    pub breaker: Breaker,
    /// For a request with all of its tries, and its answer to the last byte; no limit when absent.
    pub total_timeout: Option<Duration>,
    /// The longest body of an answer in bytes; no limit when absent, because bodies are streamed.
    pub answer_bytes_max: Option<u64>,
    /// Whether HTTP/2 is offered.
    pub http2: bool,
    /// Unused connections that are kept; as many as there are operations at once when absent.
    pub idle_max: Option<usize>,
    /// What the host calls itself.
    pub user_agent: Option<String>,
    /// The request of a ping.
    pub ping: Ping,
}

impl Config {
    /// The settings of an origin that wants no credentials.
    pub fn new(url: Url) -> Self {
        Self {
            url,
            credentials: Credentials::None,
            headers: Vec::new(),
            tls: tls::Config::default(),
            proxy: None,
            redirects: Redirects::default(),
            retry_budget: retry::BUDGET,
            breaker: Breaker::default(),
            total_timeout: None,
            answer_bytes_max: None,
            http2: true,
            idle_max: None,
            user_agent: None,
            ping: Ping::default(),
        }
    }
}

/// The request of a ping: the smallest that the origin answers with the credentials at hand.
#[derive(Debug, Clone)]
pub struct Ping {
    /// `HEAD`, `GET` or `OPTIONS`.
    pub method: Method,
    /// Below the base, as in [`Request::path`].
    pub path: String,
}

impl Default for Ping {
    fn default() -> Self {
        Self { method: Method::HEAD, path: String::new() }
    }
}

/// A request to a path of the origin.
#[derive(Debug)]
pub struct Request {
    /// Any method but `CONNECT` and `TRACE`, of which one leaves the origin and the other tells the credentials.
    pub method: Method,
    /// Below the base URL, percent-encoded as in a URL (what is not is encoded); empty, or beginning with `/`.
    pub path: String,
    /// Parameters of the query in order, not encoded.
    pub query: Vec<(String, String)>,
    /// Headers. Those of one hop and the length of the body are the host's own to set, and left out.
    pub headers: HeaderMap,
    /// The body. One in memory can be sent again, a stream cannot.
    pub content: Content,
}

/// The answer to a [`Request`].
#[derive(Debug)]
pub struct Response {
    /// Whatever it says: 404 and 503 are answers, too.
    pub status: StatusCode,
    /// Headers as they came.
    pub headers: HeaderMap,
    /// The body, pulled from the origin as it is consumed.
    pub content: Content,
}

/// Whether a caller may send this method to this path below the base; asked again for each redirect.
pub type Permitted<'p> = dyn Fn(&Method, &str) -> Result<(), Error> + Send + Sync + 'p;

/// One HTTP origin that requests may be sent to.
pub struct Origin {
    connection: String,
    base: Base,
    authorizer: Authorizer,
    /// To the origin itself.
    own: Client,
    /// To other places: without client certificate, and with the usual trust.
    other: Client,
    tls: Arc<rustls::ClientConfig>,
    egress: Arc<Egress>,
    common: Common,
    redirects: Redirects,
    retry_budget: Duration,
    circuit: Circuit,
    total_timeout: Option<Duration>,
    answer_bytes_max: Option<u64>,
    proxied: bool,
    token_url: Option<Url>,
    ping: Ping,
    permits: Arc<Semaphore>,
    throttle: Option<Arc<Throttle>>,
}

/// One request on its way through its tries.
struct Outgoing {
    method: Method,
    url: Url,
    headers: HeaderMap,
    payload: Payload,
    /// Whether it goes to the connection's own origin, and has not been elsewhere before.
    own: bool,
    /// The answer to a try was lost, so it may have been carried out, whatever became of later ones.
    may_be_done: bool,
    flow: Flow,
}

/// A request, from its beginning to its one log line at the head of its answer.
struct Record<'o> {
    origin: &'o Origin,
    method: Method,
    /// Below the base.
    path: String,
    started: Instant,
    is_over: bool,
}

impl<'o> Record<'o> {
    fn new(origin: &'o Origin, outgoing: &Outgoing) -> Self {
        let (method, path) = (outgoing.method.clone(), origin.base.below(&outgoing.url).to_owned());
        Self { origin, method, path, started: Instant::now(), is_over: false }
    }

    fn effect(&self) -> Effect {
        if self.method.is_safe() { Effect::None } else { Effect::Unknown }
    }

    /// Ends it with a status, or the kind of an error.
    fn end(mut self, outcome: &str) {
        self.is_over = true;
        self.tell(outcome, None, "connection operation");
    }

    fn tell(&self, outcome: &str, effect: Option<&str>, what: &str) {
        self.origin.meter("send").ended(self.started.elapsed(), outcome);
        tracing::info!(
            connection = self.origin.connection,
            operation = "send",
            method = %self.method,
            path = self.path,
            duration_ms = self.started.elapsed().as_millis() as u64,
            outcome = effect.is_none().then_some(outcome),
            effect,
            "{what}"
        );
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.tell(CUT_OFF, Some(self.effect().when_cut_off()), "connection operation was cut off");
        }
    }
}

impl Origin {
    /// An origin by its settings. Nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not `http` or `https`, has no host, or has a user name, a query or a fragment, and
    /// for settings that cannot be used or contradict each other.
    pub fn new(connection: &str, config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let base = Base::new(config.url, &common.root)?;
        let settings = Settings {
            tls: &config.tls,
            user_agent: config.user_agent.as_deref(),
            proxy: config.proxy.as_ref(),
            http2: config.http2,
            idle_max: config.idle_max.unwrap_or(common.operations_max),
        };
        let own = Client::with_settings(common, Arc::clone(&egress), &settings)?;
        // Neither a client certificate nor a pin is for others.
        let tls = tls::Config { identity: None, pin: None, is_unpinnable: true, ..config.tls.clone() };
        let other = Client::with_settings(common, Arc::clone(&egress), &Settings { tls: &tls, ..settings })?;
        let mut tls = config.tls.client()?;
        tls.alpn_protocols = client::alpn(config.http2);
        if !matches!(config.ping.method, Method::GET | Method::HEAD | Method::OPTIONS) {
            return Err(Error::new(ErrorKind::Invalid, "the method of a ping is HEAD, GET or OPTIONS"));
        }
        base.join(&config.ping.path, &[])?;
        let token_url = match &config.credentials {
            Credentials::ClientCredentials(client) => Some(client.token_url.clone()),
            _ => None,
        };
        Ok(Self {
            connection: connection.to_owned(),
            base,
            authorizer: Authorizer::new(config.credentials, config.headers)?,
            own,
            other,
            tls: Arc::new(tls),
            egress,
            common: common.clone(),
            redirects: config.redirects,
            retry_budget: config.retry_budget,
            circuit: Circuit::new(connection, config.breaker),
            total_timeout: config.total_timeout,
            answer_bytes_max: config.answer_bytes_max,
            proxied: config.proxy.is_some(),
            token_url,
            ping: config.ping,
            permits: Arc::new(Semaphore::new(common.operations_max.max(1))),
            throttle: common.bandwidth.map(|rate| Arc::new(Throttle::new(rate))),
        })
    }

    /// The path of a URL below the base, when it lies within this origin: same scheme, host and port, no user name,
    /// and a path at or below the base path, however the server may decode it.
    pub fn path_of(&self, uri: &::http::Uri) -> Option<String> {
        self.base.covered(uri).map(|url| self.base.below(&url).to_owned())
    }

    /// Sends a request and waits for the head of the answer, following redirects as they are configured.
    ///
    /// `permitted` is asked before anything is sent to a place of the origin. A redirect to another origin goes on
    /// without credentials and with harmless headers only, and never from `https` to `http`. A request whose body is
    /// a stream is sent once: a redirect that would repeat it is an error.
    ///
    /// # Errors
    /// `Invalid` for a malformed request; `Denied` for a place that is not permitted, that the outgoing policy
    /// refuses or that is not trusted, and by the token endpoint; `Unavailable` when there is no connection or the
    /// breaker is open; `Timeout`; `Interrupted` when the connection broke before the head of the answer; `Conflict`
    /// for redirects without end. An answer that breaks off is an error item of its content.
    pub async fn send(&self, request: Request, permitted: &Permitted<'_>) -> Result<Response, Error> {
        let url = self.base.join(&request.path, &request.query)?;
        let mut headers = request.headers;
        headers.remove(header::CONTENT_LENGTH);
        permitted(&request.method, self.base.below(&url))?;
        let (payload, flow) = (Payload::new(request.content), self.flow("send"));
        let outgoing = Outgoing { method: request.method, url, headers, payload, own: true, may_be_done: false, flow };
        let (head, body) = self.carry_out(outgoing, Some(permitted)).await?.into_parts();
        let host = self.host().to_owned();
        let size = body.size_hint().exact();
        let chunks = reqwest::Response::from(::http::Response::new(body)).bytes_stream();
        let chunks = futures::TryStreamExt::map_err(chunks, move |error| failed(&host, error));
        Ok(Response { status: head.status, headers: head.headers, content: Content::from_stream(size, chunks) })
    }

    /// Sends a request that names its whole URL. Redirects are answers like any other.
    ///
    /// Headers that concern one hop, and `Host`, are left out: the connection sets its own. The connection's
    /// credentials take the place of what the request has under the same name.
    ///
    /// # Errors
    /// `Denied` for a URL that this origin does not cover, otherwise as [`Origin::send`]; `Invalid` for contradicting
    /// lengths. Errors within the body of the answer carry an [`Error`] as a source.
    pub async fn forward(&self, request: ::http::Request<Content>) -> Result<::http::Response<Body>, Error> {
        let (head, content) = request.into_parts();
        let Some(url) = self.base.covered(&head.uri) else {
            let base = self.base.url();
            return Err(Error::new(
                ErrorKind::Denied,
                format!("the connection does not cover that URL; it covers {base} and what is below it"),
            ));
        };
        let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
        let one_number = match (lengths.next(), lengths.next()) {
            (None, _) => true,
            (Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
            (Some(_), Some(_)) => false,
        };
        if !one_number {
            return Err(Error::new(ErrorKind::Invalid, "the request's content-length is not one number"));
        }
        let (payload, flow) = (Payload::new(content), self.flow("send"));
        let outgoing =
            Outgoing { method: head.method, url, headers: head.headers, payload, own: true, may_be_done: false, flow };
        self.carry_out(outgoing, None).await
    }

    /// From the first try to the head of the last answer: a place among the requests, the total timeout, the log line.
    /// Redirects are followed for those who say what is permitted.
    async fn carry_out(
        &self,
        mut outgoing: Outgoing,
        permitted: Option<&Permitted<'_>>,
    ) -> Result<::http::Response<Body>, Error> {
        if matches!(outgoing.method, Method::CONNECT | Method::TRACE) {
            let method = &outgoing.method;
            return Err(Error::new(ErrorKind::Invalid, format!("the method {method} is not sent to a connection")));
        }
        for name in HOP_HEADERS {
            outgoing.headers.remove(name);
        }
        let record = Record::new(self, &outgoing);
        let deadline = self.total_timeout.map(|limit| record.started + limit);
        let attempt = self.attempt_at(&outgoing.method, &outgoing.url);
        let work = async {
            let permit = self.permit().await?;
            let answer = match permitted {
                Some(permitted) => self.follow(&mut outgoing, permitted).await?,
                None => self.exchange(&mut outgoing).await?,
            };
            Ok((answer, permit))
        };
        let outcome = match deadline {
            None => work.await,
            Some(deadline) => match tokio::time::timeout_at(deadline, work).await {
                Ok(outcome) => outcome,
                Err(_) => Err(out_of_time()),
            },
        };
        let outcome = outcome.map_err(|error| match outgoing.payload.source_failed() {
            // That is another place's failure, and has its own words.
            true => error,
            false if outgoing.may_be_done => record.effect().told_with(error).during(&attempt),
            false => record.effect().told_in(error).during(&attempt),
        });
        match &outcome {
            Ok((answer, _)) => record.end(answer.status().as_str()),
            Err(error) => record.end(error.kind().word()),
        }
        let (answer, permit) = outcome?;
        let (bytes_max, flow) = (self.answer_bytes_max, self.flow("receive"));
        let bounds = Bounds { attempt, deadline, bytes_max, flow, _permit: permit };
        let (head, body) = answer.into_parts();
        Ok(::http::Response::from_parts(head, Body::wrap(Bounded::new(body, bounds)?)))
    }

    /// What is attempted, as messages name it: without the query, which may hold secrets.
    fn attempt_at(&self, method: &Method, url: &Url) -> String {
        let (place, path) = (url.origin().ascii_serialization(), url.path());
        format!("{method} {place}{path} on connection {}", self.connection)
    }

    /// As for the operations of every connection; the outcome is the status where there is one.
    fn meter(&self, operation: &'static str) -> Meter {
        Meter::new(&self.connection, "http", operation)
    }

    /// Content one way: `send` for that of a request, each try of it, and `receive` for that of an answer.
    fn flow(&self, way: &'static str) -> Flow {
        Flow::new(&self.meter(way), self.throttle.clone())
    }

    /// Goes where the answers send it. The first place is permitted already.
    async fn follow(
        &self,
        outgoing: &mut Outgoing,
        permitted: &Permitted<'_>,
    ) -> Result<::http::Response<Body>, Error> {
        let mut seen: Vec<(Method, Url)> = Vec::new();
        loop {
            let answer = self.exchange(outgoing).await?;
            let Some(target) = redirect::target(answer.status(), answer.headers(), &outgoing.url)? else {
                return Ok(answer);
            };
            if self.redirects.max == 0 {
                return Ok(answer);
            }
            let status = answer.status();
            drop(answer);
            let method = redirect::method_after(status, &outgoing.method);
            seen.push((outgoing.method.clone(), outgoing.url.clone()));
            if seen.contains(&(method.clone(), target.clone())) {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("{} redirects in a loop, {} in all", self.host(), seen.len()),
                ));
            }
            if seen.len() > self.redirects.max {
                return Err(Error::new(
                    ErrorKind::Conflict,
                    format!("{} redirects more than the {} times of redirects-max", self.host(), self.redirects.max),
                ));
            }
            self.judge(outgoing, &method, &target, permitted)?;
            if method != outgoing.method {
                redirect::without_body(&mut outgoing.headers);
                outgoing.payload = Payload::empty();
            } else if !outgoing.payload.is_repeatable() {
                return Err(Error::new(
                    ErrorKind::Unsupported,
                    format!(
                        "{} redirects ({}) a request whose body is a stream, which cannot be sent a second time; \
                         send it from memory, or to the place that it redirects to",
                        self.host(),
                        status.as_u16()
                    ),
                ));
            }
            if outgoing.own && !self.base.is_origin_of(&target) {
                outgoing.own = false;
                outgoing.headers = redirect::for_strangers(&outgoing.headers);
            }
            outgoing.method = method;
            outgoing.url = target;
        }
    }

    /// Whether a redirect may be followed; the outgoing policy judges besides, when it is.
    fn judge(
        &self,
        outgoing: &Outgoing,
        method: &Method,
        target: &Url,
        permitted: &Permitted<'_>,
    ) -> Result<(), Error> {
        let denied = |why: String| Err(Error::new(ErrorKind::Denied, format!("{} redirects {why}", self.host())));
        if self.base.is_origin_of(target) {
            // Also for a request that has been elsewhere: the origin may know this host by its address.
            if !self.base.covers(target) {
                return denied(format!("to a place outside of {}", self.base.url()));
            }
            return permitted(method, self.base.below(target));
        }
        // Only the origin is told: a path may hold secrets of the place that is redirected to.
        let place = target.origin().ascii_serialization();
        if outgoing.url.scheme() == "https" && target.scheme() == "http" {
            return denied(format!("from https to {place}, where everybody could read along"));
        }
        if !self.redirects.other_origins {
            return denied(format!(
                "to {place}, another origin; to follow there, without credentials, set redirect-other-origins = true"
            ));
        }
        Ok(())
    }

    /// One request to one place, with all of its tries.
    async fn exchange(&self, outgoing: &mut Outgoing) -> Result<::http::Response<Body>, Error> {
        let mut patience = Patience::new(self.common.retries, self.retry_budget);
        let mut token_renewed = false;
        loop {
            let (outcome, token) = self.attempt(outgoing).await?;
            if let (Ok(answer), Some(token)) = (&outcome, &token)
                && answer.status() == StatusCode::UNAUTHORIZED
                && !token_renewed
            {
                self.authorizer.reject(token).await;
                if outgoing.payload.is_repeatable() {
                    token_renewed = true;
                    continue;
                }
                return Err(Error::new(
                    ErrorKind::Interrupted,
                    format!(
                        "{} no longer takes the access token, and the body of the request was a stream, which cannot \
                         be sent a second time; send the request again, it will have a fresh token",
                        self.host()
                    ),
                ));
            }
            let asked = match &outcome {
                Ok(answer) if is_passing(answer.status()) => retry_after(answer.headers()),
                Err(error) if is_passing_failure(error.kind()) && !outgoing.payload.source_failed() => {
                    error.retry_after()
                }
                Ok(_) | Err(_) => return outcome,
            };
            if !is_idempotent(&outgoing.method) || !outgoing.payload.is_repeatable() {
                return outcome;
            }
            let Some(wait) = patience.next_try(asked) else { return outcome };
            outgoing.may_be_done |= outcome.as_ref().is_err_and(was_lost);
            tracing::info!(
                connection = self.connection,
                next_try = patience.tries(),
                wait_ms = wait.as_millis() as u64,
                why = match &outcome {
                    Ok(answer) => format!("status {}", answer.status().as_u16()),
                    Err(error) => chain(error),
                },
                "a request is sent again"
            );
            drop(outcome);
            tokio::time::sleep(wait).await;
        }
    }

    /// One try; the access token that it used. The outer error is one that no further try would change.
    async fn attempt(
        &self,
        outgoing: &mut Outgoing,
    ) -> Result<(Result<::http::Response<Body>, Error>, Option<SecretString>), Error> {
        let mut request = reqwest::Request::new(outgoing.method.clone(), outgoing.url.clone());
        *request.headers_mut() = outgoing.headers.clone();
        if !outgoing.own {
            *request.body_mut() = outgoing.payload.next(&outgoing.flow).await;
            return Ok((self.other.send(request).await, None));
        }
        let admission = self.circuit.admit()?;
        let token = match self.authorizer.authorize(&mut request, self.token_client()).await {
            Ok(token) => token,
            Err(error) => return Ok((Err(error), None)),
        };
        let Some(body) = outgoing.payload.next(&outgoing.flow).await else {
            return Err(Error::new(ErrorKind::Internal, "the body of a request is gone"));
        };
        *request.body_mut() = Some(body);
        let outcome = self.own.send(request).await;
        match &outcome {
            Ok(answer) if answer.status().is_server_error() && is_passing(answer.status()) => {
                admission.failed(&format!("status {}", answer.status().as_u16()));
            }
            Ok(_) => admission.succeeded(),
            // Neither what the policy refuses nor what the source of the body did says anything of the origin.
            Err(error) if is_passing_failure(error.kind()) && !outgoing.payload.source_failed() => {
                admission.failed(&error.to_string());
            }
            Err(_) => drop(admission),
        }
        Ok((outcome, token))
    }

    /// The client certificate is for the origin alone, so a token endpoint elsewhere is not shown it.
    fn token_client(&self) -> &Client {
        match &self.token_url {
            Some(url) if !self.base.is_origin_of(url) => &self.other,
            _ => &self.own,
        }
    }

    /// Waits for a place among the requests of this connection, which an answer keeps until it is consumed.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        match tokio::time::timeout(PERMIT_WAIT_MAX, Arc::clone(&self.permits).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(closed)) => Err(Error::new(ErrorKind::Internal, "the connection was closed").with_source(closed)),
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {} requests that connection {} allows at once were busy for {} s; raise operations-max",
                    self.common.operations_max,
                    self.connection,
                    PERMIT_WAIT_MAX.as_secs()
                ),
            )),
        }
    }

    fn host(&self) -> &str {
        self.base.url().host_str().unwrap_or_default()
    }
}

/// For the fuzz targets: two bytes of status, a line of a header, the rest the body of a token endpoint.
pub(crate) fn read_any_answer(input: &[u8]) {
    let Some((status, rest)) = input.split_first_chunk::<2>() else { return };
    let Ok(status) = StatusCode::from_u16(100 + u16::from_be_bytes(*status) % 500) else { return };
    let (line, body) = match rest.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let Ok(value) = header::HeaderValue::from_bytes(line) else { return };
    let headers = HeaderMap::from_iter([(header::RETRY_AFTER, value.clone()), (header::LOCATION, value)]);
    let wait = retry_after(&headers);
    let _time_or_none = Patience::new(1, retry::BUDGET).next_try(wait);
    let Ok(from) = Url::parse("https://example.com/folder/file?query") else { return };
    if let Ok(Some(place)) = redirect::target(status, &headers, &from) {
        assert!(place.has_host() && place.username().is_empty() && place.fragment().is_none(), "{place}");
    }
    let _granted_or_not = token::granted("example.com", body);
    let _error = token::refused("example.com", status, wait, body, &[]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_the_policy_refuses_is_denied_as_a_literal_and_as_a_name() {
        for url in ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/"] {
            let config = Config::new(url.parse().unwrap());
            let origin = Origin::new("test", config, &Common::default(), Arc::new(Egress::default())).unwrap();
            let request = ::http::Request::get(url).body(Content::from_bytes("")).unwrap();
            let error = origin.forward(request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{url}: {error}");
            assert!(error.to_string().contains("egress-allow"), "{error}");
        }
    }
}
