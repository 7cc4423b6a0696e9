//! The one HTTP client of this crate: its TLS, its pool, its timeouts, and the outgoing policy at every connect.
//!
//! One request in, the head of one answer out; bodies stream both ways. Follows no redirect, uses no proxy, retries
//! nothing. Knows neither what an origin covers nor what Dropbox is.

use std::error::Error as StdError;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{Stream, StreamExt};
use http_body::{Body, Frame, SizeHint};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::time::{Instant, Sleep};

use crate::Common;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};

/// The head of an answer, all fields together: twice what Dropbox sends for a path of the longest kind, written as
/// escapes in a header.
const ANSWER_HEAD_BYTES_MAX: u32 = 64 * 1024;

/// How often an HTTP/2 connection in use is asked whether its peer is still there; well within a read timeout.
const HTTP2_KEEP_ALIVE: Duration = Duration::from_secs(15);

/// How long an idle TCP connection goes unprobed: less than the few minutes after which firewalls forget it.
const TCP_KEEP_ALIVE: Duration = Duration::from_secs(60);

/// What this host calls itself, unless it is told otherwise.
const USER_AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// A pool of connections, HTTP/1.1 and HTTP/2, that the outgoing policy governs.
pub(crate) struct Client {
    client: reqwest::Client,
    egress: Arc<Egress>,
    connect_timeout: Duration,
    read_timeout: Duration,
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
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls(authority)?)
            .dns_resolver(Resolver(Arc::clone(&egress)))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .user_agent(user_agent.unwrap_or(USER_AGENT))
            .connect_timeout(common.connect_timeout)
            .pool_idle_timeout(common.idle_timeout)
            .pool_max_idle_per_host(common.operations_max)
            .tcp_keepalive(TCP_KEEP_ALIVE)
            .http2_max_header_list_size(ANSWER_HEAD_BYTES_MAX)
            .http2_keep_alive_interval(HTTP2_KEEP_ALIVE)
            .http2_keep_alive_timeout(common.read_timeout)
            .build()
            .map_err(|error| {
                Error::new(ErrorKind::Invalid, "the settings do not make an HTTP client").with_source(error)
            })?;
        Ok(Self { client, egress, connect_timeout: common.connect_timeout, read_timeout: common.read_timeout })
    }

    /// Sends a request and waits for the head of the answer. The read timeout runs while the remote owes something:
    /// not while the request's own content is what everything waits for. It then holds for each chunk of the answer.
    ///
    /// # Errors
    /// `Denied` by the outgoing policy; `Unavailable` when there is no connection; `Timeout`; `Interrupted` when the
    /// connection broke before the head of the answer, or the request's content failed.
    pub(crate) async fn send(&self, mut request: reqwest::Request) -> Result<::http::Response<reqwest::Body>, Error> {
        let host = request.url().host_str().unwrap_or_default().to_owned();
        // The resolver is never asked about an address.
        match request.url().host() {
            Some(url::Host::Ipv4(address)) => self.egress.check(address.into())?,
            Some(url::Host::Ipv6(address)) => self.egress.check(address.into())?,
            _ => {}
        }
        let progress = Arc::new(Progress::starting_within(self.connect_timeout));
        if let Some(body) = request.body_mut().take() {
            // Content in memory stays as it is, so that the pool may send it again on a fresh connection.
            let body = match body.as_bytes() {
                Some(_) => body,
                None => reqwest::Body::wrap(Watched { body, progress: Arc::clone(&progress) }),
            };
            *request.body_mut() = Some(body);
        }
        let answer = tokio::select! {
            answer = self.client.execute(request) => answer.map_err(|error| failed(&host, error))?,
            () = progress.stalled(self.read_timeout) => {
                return Err(Error::new(
                    ErrorKind::Timeout,
                    format!("{host} neither took nor sent anything for {} s", self.read_timeout.as_secs_f32()),
                ));
            }
        };
        let (head, body) = ::http::Response::<reqwest::Body>::from(answer).into_parts();
        Ok(::http::Response::from_parts(head, reqwest::Body::wrap(Timed::new(body, host, self.read_timeout))))
    }
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

/// What went wrong with a request or the body of an answer, in the terms of this crate. An [`Error`] of this crate
/// that travelled through the HTTP library comes out again.
pub(crate) fn failed(host: &str, error: reqwest::Error) -> Error {
    // The query of a URL may hold what does not belong in a log.
    let error = error.without_url();
    let mut cause: Option<&(dyn StdError + 'static)> = Some(&error);
    while let Some(current) = cause {
        if let Some(own) = current.downcast_ref::<Error>() {
            return Error::new(own.kind(), own.to_string());
        }
        cause = current.source();
    }
    let (kind, what) = if error.is_timeout() {
        (ErrorKind::Timeout, format!("{host} did not answer in time"))
    } else if error.is_connect() {
        (ErrorKind::Unavailable, format!("cannot connect to {host}"))
    } else if error.is_builder() {
        (ErrorKind::Invalid, format!("the request to {host} is malformed"))
    } else {
        (ErrorKind::Interrupted, format!("the connection to {host} broke"))
    };
    Error::new(kind, what).with_source(error)
}

fn tls(authority: Option<&[u8]>) -> Result<rustls::ClientConfig, Error> {
    let invalid = |error: rustls::Error| {
        Error::new(ErrorKind::Invalid, "the certificate authority is not usable").with_source(error)
    };
    let builder = || {
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::new(ErrorKind::Internal, "no TLS version is usable").with_source(error))
    };
    let mut config = match authority {
        Some(pem) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(pem) {
                let certificate = certificate.map_err(|error| {
                    Error::new(ErrorKind::Invalid, "the certificate authority is not PEM").with_source(error)
                })?;
                roots.add(certificate).map_err(invalid)?;
            }
            if roots.is_empty() {
                return Err(Error::new(ErrorKind::Invalid, "the certificate authority has no certificate in it"));
            }
            builder()?.with_root_certificates(roots).with_no_client_auth()
        }
        None => match builder()?.with_platform_verifier() {
            Ok(verifying) => verifying.with_no_client_auth(),
            Err(error) => {
                // A machine without certificate authorities still reaches origins that need none.
                tracing::warn!(
                    error = %error,
                    "this system has no certificate authorities, so no https connection will be trusted; install them \
                     (ca-certificates) or set SSL_CERT_FILE"
                );
                builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth()
            }
        },
    };
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// Resolves names to the addresses that the outgoing policy allows, at the time of the connect.
struct Resolver(Arc<Egress>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let egress = Arc::clone(&self.0);
        Box::pin(async move {
            // The port is put in by the caller.
            let addresses = egress.resolve(name.as_str(), 0).await?;
            let addresses: Addrs = Box::new(addresses.into_iter());
            Ok(addresses)
        })
    }
}

/// When something of a request moved last, and who has to move next.
struct Progress(Mutex<Movement>);

struct Movement {
    last: Instant,
    source_owes: bool,
}

impl Progress {
    /// The first movement may come as late as a connection.
    fn starting_within(connect_timeout: Duration) -> Self {
        Self(Mutex::new(Movement { last: Instant::now() + connect_timeout, source_owes: false }))
    }

    fn moved(&self) {
        let mut movement = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        movement.last = Instant::now().max(movement.last);
        movement.source_owes = false;
    }

    fn waits_for_source(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).source_owes = true;
    }

    /// Ends when nothing moved for so long although the remote should have.
    async fn stalled(&self, timeout: Duration) {
        loop {
            let (last, source_owes) = {
                let movement = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                (movement.last, movement.source_owes)
            };
            let now = Instant::now();
            let deadline = if source_owes { now } else { last } + timeout;
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
            Poll::Pending => self.progress.waits_for_source(),
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
