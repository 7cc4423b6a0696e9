//! The one HTTP client of this crate: its TLS, its pool, its timeouts, and the outgoing policy at every connect.
//!
//! One request in, the head of one answer out; bodies stream both ways. Follows no redirect, retries nothing, and uses
//! a proxy only when it is told one: those of the environment never. Knows neither what an origin covers nor what
//! Dropbox is.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::{Instant, Sleep};
use tower::Service;
use url::{Host, Url};

use crate::Common;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind, Step};
use crate::tls;

/// The head of an answer, all fields together: twice what Dropbox sends for a path of the longest kind, written as
/// escapes in a header. For HTTP/2; for HTTP/1.1 the library has its own limit of 408 KiB.
const ANSWER_HEAD_BYTES_MAX: u32 = 64 * 1024;

/// How often an HTTP/2 connection in use is asked whether its peer is still there; well within a read timeout.
const HTTP2_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long an idle TCP connection goes unprobed: less than the few minutes after which firewalls forget it.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What this host calls itself, unless it is told otherwise.
const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// A proxy that all requests of a connection go through.
#[derive(Debug, Clone)]
pub struct Proxy {
    /// `http://proxy.example.com:3128`. Requests to `https` go through a tunnel (`CONNECT`), so it sees none of them.
    pub url: Url,
    /// User and password, sent to the proxy alone.
    pub credentials: Option<(String, SecretString)>,
}

/// What a client is made of.
pub(crate) struct Settings<'s> {
    pub(crate) tls: &'s tls::Config,
    pub(crate) user_agent: Option<&'s str>,
    pub(crate) proxy: Option<&'s Proxy>,
    pub(crate) http2: bool,
    /// Unused connections that are kept.
    pub(crate) idle_max: usize,
}

/// A pool of connections, HTTP/1.1 and HTTP/2, that the outgoing policy governs.
#[derive(Clone)]
pub(crate) struct Client {
    recipe: Arc<Recipe>,
    pool: Arc<Mutex<Pool>>,
}

/// What a pool is made from, again and again.
struct Recipe {
    egress: Arc<Egress>,
    tls: rustls::ClientConfig,
    user_agent: String,
    proxy: Option<Proxy>,
    http2: bool,
    idle_max: usize,
    common: Common,
}

/// The library's pool knows no life time of a connection, so a pool as a whole has one: none of its connections is
/// older. Requests under way end on the connections they have; what is unused is closed with the pool.
struct Pool {
    client: reqwest::Client,
    made: Instant,
}

impl Client {
    /// A client that trusts the certificate authorities in `authority` (PEM) and no others, or those of the operating
    /// system when absent: the operator keeps that list up to date and adds a company's own, for every program alike.
    ///
    /// # Errors
    /// `Invalid` for PEM without a certificate or a user agent that is not a header value.
    pub(crate) fn new(
        common: &Common,
        egress: Arc<Egress>,
        authority: Option<&[u8]>,
        user_agent: Option<&str>,
    ) -> Result<Self, Error> {
        let authority = authority.map(<[u8]>::to_vec);
        let tls = tls::Config { authority, is_unpinnable: true, ..tls::Config::default() };
        let idle_max = common.operations_max;
        Self::with_settings(common, egress, &Settings { tls: &tls, user_agent, proxy: None, http2: true, idle_max })
    }

    /// A client by all of its settings.
    ///
    /// # Errors
    /// `Invalid` for settings that cannot be used.
    pub(crate) fn with_settings(common: &Common, egress: Arc<Egress>, settings: &Settings<'_>) -> Result<Self, Error> {
        let mut tls = settings.tls.client()?;
        tls.alpn_protocols = alpn(settings.http2);
        let recipe = Recipe {
            egress,
            tls,
            user_agent: settings.user_agent.unwrap_or(USER_AGENT).to_owned(),
            proxy: settings.proxy.cloned(),
            http2: settings.http2,
            idle_max: settings.idle_max,
            common: common.clone(),
        };
        let pool = Mutex::new(Pool { client: recipe.client()?, made: Instant::now() });
        Ok(Self { recipe: Arc::new(recipe), pool: Arc::new(pool) })
    }

    /// The pool in use, or a new one when that has lived for its time.
    fn pool(&self) -> reqwest::Client {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.made.elapsed() >= self.recipe.common.life_time {
            match self.recipe.client() {
                Ok(client) => *pool = Pool { client, made: Instant::now() },
                // The same settings made one before.
                Err(error) => tracing::error!(error = crate::chain(&error), "a pool outlives its life time"),
            }
        }
        pool.client.clone()
    }

    /// Sends a request and waits for the head of the answer. The read timeout runs while the remote owes something:
    /// not while a connection is made, which has its own timeout, and not while the request's own content is what
    /// everything waits for. It then holds for each chunk of the answer.
    ///
    /// # Errors
    /// `Denied` by the outgoing policy, or when one side does not trust the other's certificate; `Unavailable` when
    /// there is no connection; `Timeout`; `TooLarge` for a head beyond any measure; `Interrupted` when the connection
    /// broke before the head of the answer, or the request's content failed.
    pub(crate) async fn send(&self, mut request: reqwest::Request) -> Result<::http::Response<reqwest::Body>, Error> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        self.check(request.url()).await.map_err(|error| error.at(Step::Name))?;
        let read_timeout = self.recipe.common.read_timeout;
        let progress = Arc::new(Progress::new());
        if let Some(body) = request.body_mut().take() {
            // Content in memory stays as it is, so that the pool may send it again on a fresh connection.
            let body = match body.as_bytes() {
                Some(_) => body,
                None => reqwest::Body::wrap(Watched { body, progress: Arc::clone(&progress) }),
            };
            *request.body_mut() = Some(body);
        }
        let answer = tokio::select! {
            answer = REQUEST.scope(Arc::clone(&progress), self.pool().execute(request)) => {
                answer.map_err(|error| self.recipe.failed(&host, error))?
            }
            () = progress.stalled(read_timeout) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{host} neither took nor sent anything for {} s", read_timeout.as_secs_f32()),
                ));
            }
        };
        let (head, body) = ::http::Response::<reqwest::Body>::from(answer).into_parts();
        Ok(::http::Response::from_parts(head, reqwest::Body::wrap(Timed::new(body, host, read_timeout))))
    }

    /// Asks the outgoing policy about the addresses that the resolver is never asked about: those that are written
    /// into a URL, and those behind a proxy. The proxy resolves names by itself, and where this host knows none for a
    /// name, it is the proxy's to judge.
    async fn check(&self, url: &Url) -> Result<(), Error> {
        self.check_literal(url)?;
        let Some(proxy) = &self.recipe.proxy else { return Ok(()) };
        self.check_literal(&proxy.url)?;
        let Some(name) = url.domain() else { return Ok(()) };
        match self.recipe.egress.resolve(name, url.port_or_known_default().unwrap_or_default()).await {
            Err(error) if error.kind() == ErrorKind::Denied => Err(error),
            _ => Ok(()),
        }
    }

    fn check_literal(&self, url: &Url) -> Result<(), Error> {
        match url.host() {
            Some(Host::Ipv4(address)) => self.recipe.egress.check(address.into()),
            Some(Host::Ipv6(address)) => self.recipe.egress.check(address.into()),
            _ => Ok(()),
        }
    }
}

impl Recipe {
    fn client(&self) -> Result<reqwest::Client, Error> {
        let invalid = |what: &str, error: reqwest::Error| Error::new(ErrorKind::Invalid, what).with_source(error);
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            .dns_resolver(Resolver(Arc::clone(&self.egress)))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(self.user_agent.as_str())
            .connect_timeout(self.common.connect_timeout)
            .connector_layer(tower::layer::layer_fn(Connector))
            .pool_idle_timeout(self.common.idle_timeout)
            .pool_max_idle_per_host(self.idle_max)
            .tcp_keepalive(TCP_KEEP_ALIVE)
            .http2_max_header_list_size(ANSWER_HEAD_BYTES_MAX)
            .http2_keep_alive_interval(HTTP2_KEEP_ALIVE)
            .http2_keep_alive_timeout(self.common.read_timeout);
        if !self.http2 {
            builder = builder.http1_only();
        }
        if let Some(proxy) = &self.proxy {
            // To a proxy over TLS the client certificate would be shown, too, and that is not its business.
            if proxy.url.scheme() != "http" || !proxy.url.has_host() {
                return Err(Error::new(ErrorKind::Invalid, "the url of a proxy must begin with http://"));
            }
            let mut all = reqwest::Proxy::all(proxy.url.clone())
                .map_err(|error| invalid("the url of the proxy is not usable", error.without_url()))?;
            if let Some((user, password)) = &proxy.credentials {
                all = all.basic_auth(user, password.expose_secret());
            }
            builder = builder.proxy(all);
        }
        builder.build().map_err(|error| invalid("the settings do not make an HTTP client", error))
    }

    /// As the function [`failed`]; where a proxy is the reason, that is told.
    fn failed(&self, host: &str, error: reqwest::Error) -> Error {
        let Some(proxy) = self.proxy.as_ref().filter(|_| error.is_connect()) else { return failed(host, error) };
        let proxy = format!("the proxy {}", proxy.url.origin().ascii_serialization());
        if error.is_timeout() {
            return failed(&format!("{host} through {proxy}"), error);
        }
        let of_tunnel = causes(&error).find_map(|cause| cause.to_string().strip_prefix(OF_TUNNEL).map(str::to_owned));
        let is_tunnelled = error.url().is_some_and(|url| url.scheme() == "https");
        let (kind, what) = match of_tunnel.as_deref() {
            Some(PROXY_UNREACHABLE) => return failed(&proxy, error),
            Some(PROXY_WANTS_CREDENTIALS) => {
                (ErrorKind::Denied, format!("{proxy} wants other credentials; set proxy-user and proxy-password"))
            }
            Some(_) => (ErrorKind::Unavailable, format!("{proxy} makes no connection to {host}")),
            // Without a tunnel there is no connection but that to the proxy.
            None => return failed(if is_tunnelled { host } else { &proxy }, error),
        };
        Error::new(kind, what).with_source(error.without_url()).at(Step::Connect)
    }
}

/// The protocols that are offered to a server.
pub(super) fn alpn(http2: bool) -> Vec<Vec<u8>> {
    let protocols: &[&[u8]] = if http2 { &[b"h2", b"http/1.1"] } else { &[b"http/1.1"] };
    protocols.iter().map(|protocol| protocol.to_vec()).collect()
}

/// A request body from a stream, with its length where it is known.
pub(crate) fn streamed<E>(
    size: Option<u64>,
    stream: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
) -> reqwest::Body
where
    E: Into<Box<dyn StdError + Send + Sync>> + 'static,
{
    reqwest::Body::wrap(Streamed { size, stream: Mutex::new(stream.map(|chunk| chunk.map_err(Into::into)).boxed()) })
}

/// How the HTTP library words what is wrong with a tunnel through a proxy; its type for that is private.
const OF_TUNNEL: &str = "tunnel error: ";
const PROXY_WANTS_CREDENTIALS: &str = "proxy authorization required";
const PROXY_UNREACHABLE: &str = "failed to create underlying connection";

/// What went wrong with a request or the body of an answer, in the terms of this crate. An [`Error`] of this crate
/// that travelled through the HTTP library comes out again.
pub(crate) fn failed(host: &str, error: reqwest::Error) -> Error {
    // The query of a URL may hold what does not belong in a log.
    let error = error.without_url();
    for cause in causes(&error) {
        if let Some(own) = cause.downcast_ref::<Error>() {
            let mut again = Error::new(own.kind(), own.to_string());
            if let Some(step) = own.step() {
                again = again.at(step);
            }
            return match own.retry_after() {
                Some(wait) => again.with_retry_after(wait),
                None => again,
            };
        }
        if let Some(tls_error) = cause.downcast_ref::<rustls::Error>() {
            let told = tls::failed(host, std::io::Error::other(tls_error.clone())).at(Step::Tls);
            // In TLS 1.3 a server may refuse a certificate after the handshake; any other trouble there is its own.
            if told.kind() == ErrorKind::Denied || error.is_connect() {
                return told;
            }
        }
    }
    let named = causes(&error).find_map(|cause| {
        let hyper: &hyper::Error = cause.downcast_ref()?;
        if hyper.is_parse_too_large() {
            Some((ErrorKind::TooLarge, format!("the head of the answer of {host} is larger than any should be")))
        } else if hyper.is_parse() {
            Some((ErrorKind::Interrupted, format!("what {host} answers is not HTTP")))
        } else if hyper.is_incomplete_message() {
            Some((ErrorKind::Interrupted, format!("{host} closed the connection before the end of its answer")))
        } else {
            None
        }
    });
    let (kind, what) = named.unwrap_or_else(|| {
        if error.is_timeout() && error.is_connect() {
            (ErrorKind::Timeout, format!("connecting to {host} took longer than connect-timeout allows"))
        } else if error.is_timeout() {
            (ErrorKind::Timeout, format!("{host} did not answer in time"))
        } else if error.is_connect() {
            (ErrorKind::Unavailable, format!("cannot connect to {host}"))
        } else if error.is_builder() {
            (ErrorKind::Invalid, format!("the request to {host} is malformed"))
        } else if error.is_body() || error.is_decode() {
            (ErrorKind::Interrupted, format!("the answer of {host} broke off before its end"))
        } else {
            (ErrorKind::Interrupted, format!("the connection to {host} broke"))
        }
    });
    let is_connect = error.is_connect();
    let told = Error::new(kind, what).with_source(error);
    if is_connect { told.at(Step::Connect) } else { told }
}

/// An error and everything below it, also what an error of input and output is about.
fn causes<'e>(error: &'e (dyn StdError + 'static)) -> impl Iterator<Item = &'e (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error: &&'e (dyn StdError + 'static)| {
        match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        }
    })
}

/// Resolves names to the addresses that the outgoing policy allows, at the time of the connect.
struct Resolver(Arc<Egress>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.0);
        Box::pin(async move {
            // The port is put in by the caller.
            let addresses = egress.resolve(name.as_str(), 0).await.map_err(|error| error.at(Step::Name))?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

tokio::task_local! {
    /// The request that is on its way in this task, for the connection that is made for it.
    static REQUEST: Arc<Progress>;
}

/// Makes the connections of a pool, and notes that the request in question waits for one.
#[derive(Clone)]
struct Connector<S>(S);

impl<T, S> Service<T> for Connector<S>
where
    S: Service<T>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, target: T) -> Self::Future {
        let waiting = REQUEST.try_with(|request| Waiting::begin(Arc::clone(request)));
        let connected = self.0.call(target);
        Box::pin(async move {
            let _waiting = waiting;
            connected.await
        })
    }
}

/// While it lives, a request waits for its connection, or would if no other had become free.
struct Waiting(Arc<Progress>);

impl Waiting {
    fn begin(request: Arc<Progress>) -> Self {
        request.waits_for_others();
        Self(request)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.moved();
    }
}

/// When something of a request moved last, and who has to move next.
struct Progress(Mutex<Movement>);

struct Movement {
    last: Instant,
    remote_owes: bool,
}

impl Progress {
    fn new() -> Self {
        Self(Mutex::new(Movement { last: Instant::now(), remote_owes: true }))
    }

    fn moved(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Movement { last: Instant::now(), remote_owes: true };
    }

    fn waits_for_others(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remote_owes = false;
    }

    /// Ends when nothing moved for so long although the remote should have.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let (last, remote_owes) = {
                let movement = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                (movement.last, movement.remote_owes)
            };
            let now = Instant::now();
            let deadline = if remote_owes { last } else { now } + timeout;
            if deadline <= now {
                return;
            }
            tokio::time::sleep_until(deadline).await;
        }
    }
}

/// A request's body that notes its progress.
struct Watched {
    body: reqwest::Body,
    progress: Arc<Progress>,
}

impl Body for Watched {
    type Data = Bytes;
    type Error = reqwest::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, reqwest::Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        match frame {
            Poll::Ready(_) => self.progress.moved(),
            Poll::Pending => self.progress.waits_for_others(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A request's body from a stream. The mutex is never locked: it stands for exclusive access, which is all that is
/// ever asked for, and makes a stream that is only `Send` fit for a body.
struct Streamed<S> {
    size: Option<u64>,
    stream: Mutex<S>,
}

impl<S> Body for Streamed<S>
where
    S: Stream<Item = Result<Bytes, Box<dyn StdError + Send + Sync>>> + Unpin,
{
    type Data = Bytes;
    type Error = Box<dyn StdError + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let chunk = ready!(self.stream.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context));
        Poll::Ready(chunk.map(|chunk| chunk.map(Frame::data)))
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// An answer's body with a limit on the wait for each chunk. The clock runs only while someone waits.
struct Timed {
    body: reqwest::Body,
    host: String,
    timeout: Duration,
    timer: Pin<Box<Sleep>>,
    waiting: bool,
}

impl Timed {
    fn new(body: reqwest::Body, host: String, timeout: Duration) -> Self {
        Self { body, host, timeout, timer: Box::pin(tokio::time::sleep(timeout)), waiting: false }
    }
}

impl Body for Timed {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| failed(&this.host, error))));
        }
        if !this.waiting {
            this.waiting = true;
            this.timer.as_mut().reset(Instant::now() + this.timeout);
        }
        ready!(this.timer.as_mut().poll(context));
        this.waiting = false;
        Poll::Ready(Some(Err(Error::new(
            ErrorKind::Timeout,
            format!("{} sent nothing more for {} s", this.host, this.timeout.as_secs_f32()),
        ))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
