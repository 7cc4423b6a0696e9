//! Accepting connections and speaking HTTP/1.1 on them, for both listeners. Knows nothing of what is asked.
//!
//! Accepting never ends because of one bad connection; a permit is taken before a connection is accepted, so that what
//! is beyond the limit waits in the kernel. A connection whose client goes away drops the request in flight.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::TaskTracker;
use wharf_runtime::{InvocationId, Response};

use crate::problem::REQUEST_ID;

/// After the system refused a connection, such as for want of file descriptors, accepting pauses for so long: retrying
/// at once would only burn the processor until one is freed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Limits of a listener.
#[derive(Debug, Clone)]
pub(crate) struct ListenerSettings {
    /// Connections at once; further ones wait.
    pub(crate) connections_max: usize,
    /// For a request's head to arrive, from when the connection was opened or the answer before it ended.
    pub(crate) header_timeout: Duration,
    /// Bytes of a request's head.
    pub(crate) head_bytes_max: usize,
    /// How long a client may refuse to take any byte of an answer.
    pub(crate) write_timeout: Duration,
}

/// Answers requests. Must put no header of its own name for the request's id.
pub(crate) trait Answer: Send + Sync + 'static {
    fn answer(&self, request: http::Request<Incoming>, id: InvocationId) -> impl Future<Output = Response> + Send;
}

/// A bound address.
pub(crate) struct Listener {
    socket: TcpListener,
    settings: ListenerSettings,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot listen on {address} for {purpose}; if another program has this port, end it or choose another address \
     with {cure}"
)]
pub(crate) struct BindError {
    address: SocketAddr,
    purpose: &'static str,
    cure: &'static str,
    source: std::io::Error,
}

impl Listener {
    pub(crate) async fn bind(
        address: SocketAddr,
        settings: ListenerSettings,
        purpose: &'static str,
        cure: &'static str,
    ) -> Result<Self, BindError> {
        let bound = TcpListener::bind(address).await;
        let socket = bound.map_err(|source| BindError { address, purpose, cure, source })?;
        Ok(Self { socket, settings })
    }

    /// The address, with the port that the system chose where 0 was asked for.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Serves until `stop` becomes true; then waits until the requests in flight are answered.
    pub(crate) async fn serve<A: Answer>(self, answer: Arc<A>, mut stop: watch::Receiver<bool>) {
        let permits = Arc::new(Semaphore::new(self.settings.connections_max));
        let connections = TaskTracker::new();
        loop {
            let accepted = tokio::select! {
                () = told_to_stop(&mut stop) => break,
                accepted = self.accept(&permits) => accepted,
            };
            let Some((stream, permit)) = accepted else { continue };
            let connection = serve_connection(stream, Arc::clone(&answer), self.settings.clone(), stop.clone());
            connections.spawn(async move {
                connection.await;
                drop(permit);
            });
        }
        drop(self.socket);
        connections.close();
        connections.wait().await;
    }

    async fn accept(&self, permits: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
        // The semaphore is never closed.
        let permit = Arc::clone(permits).acquire_owned().await.ok()?;
        match self.socket.accept().await {
            Ok((stream, _)) => Some((stream, permit)),
            Err(error) => {
                let of_the_connection = matches!(
                    error.kind(),
                    std::io::ErrorKind::ConnectionAborted
                        | std::io::ErrorKind::ConnectionReset
                        | std::io::ErrorKind::ConnectionRefused
                );
                if !of_the_connection {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                None
            }
        }
    }
}

async fn serve_connection<A: Answer>(
    stream: TcpStream,
    answer: Arc<A>,
    settings: ListenerSettings,
    mut stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection's delay of small packets could not be turned off");
    }
    let mut stream = TimeoutStream::new(stream);
    stream.set_write_timeout(Some(settings.write_timeout));
    let service = service_fn(move |request| respond(Arc::clone(&answer), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(settings.head_bytes_max)
        .serve_connection(TokioIo::new(Box::pin(stream)), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told_to_stop(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing: it sent what is not HTTP, was too slow, or went away.
        tracing::debug!(error = wharf_connectors::chain(&error), "a connection ended early");
    }
}

async fn told_to_stop(stop: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = stop.wait_for(|stop| *stop).await.is_ok();
}

async fn respond<A: Answer>(
    answer: Arc<A>,
    request: http::Request<Incoming>,
) -> Result<
    http::Response<impl http_body::Body<Data = bytes::Bytes, Error = impl std::error::Error + Send + Sync>>,
    Infallible,
> {
    let taken_over = request.headers().get(REQUEST_ID).and_then(|value| InvocationId::parse(value.to_str().ok()?));
    let id = taken_over.unwrap_or_else(InvocationId::generate);
    let mut response = answer.answer(request, id.clone()).await;
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    Ok(response.map(wharf_runtime::Body::into_http))
}
