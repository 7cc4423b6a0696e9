//! Accepts TLS connections and hands each request to the emulation.
//!
//! Knows sockets, handshakes and their limits. Knows no route. One bad connection never ends the server.

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::dispatch::Emulation;

/// Connections at a time; further ones wait in the backlog. Far more than one client's pool, well under the usual limit
/// of 1024 open files.
const MAX_CONNECTIONS: usize = 512;

/// A client that has not finished its handshake by then is not going to.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a kept-alive connection may be idle: longer than clients keep them, so that it is the client who closes.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// The pause after a failed accept, which is most likely a shortage of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until it is dropped, and every connection with it.
pub(crate) async fn serve(listener: TcpListener, tls: TlsAcceptor, emulation: Arc<Emulation>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // Never closed, so this fails never.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let (tls, emulation) = (tls.clone(), Arc::clone(&emulation));
                connections.spawn(async move {
                    serve_connection(stream, &tls, emulation).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, tls: &TlsAcceptor, emulation: Arc<Emulation>) {
    // Answers are written in few pieces; waiting to fill packets would only delay the last one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "a TLS handshake failed"),
        Err(_) => return tracing::debug!("a TLS handshake took too long"),
    };
    let service = service_fn(move |request| {
        let emulation = Arc::clone(&emulation);
        async move { emulation.answer(request).await }
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}
