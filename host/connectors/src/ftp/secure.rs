//! TLS for one control connection and the data connections that belong to it (RFC 4217).
//!
//! Servers want a data connection to resume the session of its control connection, and no other: each control
//! connection has a cache of its own. The library tells a failed handshake as text; the error itself is kept here.
//! Knows no command.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use async_trait::async_trait;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::{ClientConfig, NamedGroup};
use rustls_pki_types::ServerName;
use suppaftp::tokio::{AsyncTlsConnector, ImplAsyncFtpStream, TokioTlsStream};
use suppaftp::{FtpError, FtpResult};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::error::Error;
use crate::tls;

/// Sessions kept for one control connection, as many as rustls keeps for one server.
const SESSIONS_MAX: usize = 8;

/// Fewer tickets of TLS 1.3 than this are not enough for one operation: the two listings and the transfer of a write,
/// of which at least the listings usually bring another.
const TICKETS_MIN: usize = 2;

/// A control connection of the library, in the clear or secured.
pub(super) type ControlStream = ImplAsyncFtpStream<Secured>;

/// A secured connection that sends what was written before it waits for an answer.
///
/// The library writes its commands and does not flush them. TLS takes all of a command at once, also when the socket
/// takes nothing at that moment, as when the task that writes has used up its turn: then both sides would wait for each
/// other.
#[derive(Debug)]
pub(super) struct Secured {
    stream: TlsStream<TcpStream>,
    /// Something was written and not flushed since.
    is_unsent: bool,
}

impl AsyncRead for Secured {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What cannot be sent is told by the read, which may still bring what the server said before.
        if self.is_unsent && Pin::new(&mut self.stream).poll_flush(context).is_ready() {
            self.is_unsent = false;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.is_unsent = true;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.is_unsent = false;
        }
        flushed
    }

    /// An end that the other side does not listen to any more is no failure: what became of a transfer the server says
    /// on the control connection, which the library reads only when this succeeds, and the size is compared.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context).map(|ended| match ended {
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            ended => ended,
        })
    }
}

impl TokioTlsStream for Secured {
    type InnerStream = TlsStream<TcpStream>;

    fn tcp_stream(self) -> FtpResult<TcpStream> {
        Ok(self.stream.into_inner().0)
    }

    fn get_ref(&self) -> &TcpStream {
        self.stream.get_ref().0
    }

    fn mut_ref(&mut self) -> &mut Self::InnerStream {
        &mut self.stream
    }
}

/// What the library connects with.
pub(super) struct Connector {
    connector: TlsConnector,
    handshakes: Arc<Handshakes>,
}

/// How the handshakes of a control connection go.
pub(super) struct Handshakes {
    latest: Mutex<Latest>,
    sessions: Arc<Sessions>,
}

#[derive(Default)]
enum Latest {
    #[default]
    None,
    Begun,
    /// With the version and the cipher.
    Done(String),
    Failed(Error),
}

impl Connector {
    /// A connector with an empty cache of sessions.
    pub(super) fn new(client: &ClientConfig) -> (Self, Arc<Handshakes>) {
        let mut client = client.clone();
        let sessions = Arc::new(Sessions {
            cache: ClientSessionMemoryCache::new(SESSIONS_MAX),
            tickets: AtomicUsize::new(0),
            had_tickets: AtomicBool::new(false),
        });
        client.resumption = Resumption::store(Arc::clone(&sessions) as Arc<dyn ClientSessionStore>);
        let handshakes = Arc::new(Handshakes { latest: Mutex::default(), sessions });
        (Self { connector: TlsConnector::from(Arc::new(client)), handshakes: Arc::clone(&handshakes) }, handshakes)
    }
}

impl Handshakes {
    /// Whether the connection was there and the latest handshake was at least begun.
    pub(super) fn is_begun(&self) -> bool {
        !matches!(*self.lock(), Latest::None)
    }

    /// Whether the latest handshake has begun and not ended.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(*self.lock(), Latest::Begun)
    }

    /// Whether the latest handshake was completed.
    pub(super) fn is_done(&self) -> bool {
        matches!(*self.lock(), Latest::Done(_))
    }

    /// Version and cipher of the latest handshake, when it was completed.
    pub(super) fn protocol(&self) -> Option<String> {
        match &*self.lock() {
            Latest::Done(protocol) => Some(protocol.clone()),
            _ => None,
        }
    }

    /// Why the latest handshake failed, once.
    pub(super) fn failure(&self) -> Option<Error> {
        match std::mem::take(&mut *self.lock()) {
            Latest::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether too few sessions are left to resume.
    ///
    /// ProFTPD 1.3.8 takes a ticket of TLS 1.3 as often as it is shown (sixty data connections of one session were seen),
    /// but rustls uses one once: the store hands out its value for good, and a value can neither be copied nor made. So
    /// tickets run out where a server gives two with the control connection and not another with each data connection.
    /// ProFTPD 1.3.8 and 1.3.9 give none with an upload and one with anything else, which is the one that it took; what
    /// comes after 1.3.9 gives none (`mod_tls.c`, the callbacks of `SSL_CTX_set_session_ticket_cb`). A client of rustls
    /// cannot ask for tickets either (RFC 9149).
    pub(super) fn is_spent(&self) -> bool {
        self.sessions.had_tickets.load(Ordering::Relaxed) && self.sessions.tickets.load(Ordering::Relaxed) < TICKETS_MIN
    }

    fn reached(&self, latest: Latest) {
        *self.lock() = latest;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Latest> {
        // It is replaced as a whole.
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The cache of one control connection. It counts its tickets.
struct Sessions {
    cache: ClientSessionMemoryCache,
    tickets: AtomicUsize,
    had_tickets: AtomicBool,
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server, group);
    }

    fn kx_hint(&self, server: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server)
    }

    fn set_tls12_session(&self, server: ServerName<'static>, session: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server, session);
    }

    fn tls12_session(&self, server: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(server)
    }

    fn remove_tls12_session(&self, server: &ServerName<'static>) {
        self.cache.remove_tls12_session(server);
    }

    fn insert_tls13_ticket(&self, server: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.cache.insert_tls13_ticket(server, ticket);
        // The control connection and one data connection insert at most at the same time: off by one at worst.
        let held = self.tickets.load(Ordering::Relaxed);
        self.tickets.store((held + 1).min(SESSIONS_MAX), Ordering::Relaxed);
        self.had_tickets.store(true, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, server: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        let ticket = self.cache.take_tls13_ticket(server)?;
        let held = self.tickets.load(Ordering::Relaxed);
        self.tickets.store(held.saturating_sub(1), Ordering::Relaxed);
        Some(ticket)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Sessions")
    }
}

#[async_trait]
impl AsyncTlsConnector for Connector {
    type Stream = Secured;

    async fn connect(&self, domain: &str, stream: TcpStream) -> FtpResult<Secured> {
        self.handshakes.reached(Latest::Begun);
        let bare = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(domain);
        let name = ServerName::try_from(bare.to_owned()).map_err(|error| FtpError::SecureError(error.to_string()))?;
        match self.connector.connect(name, stream).await {
            Ok(stream) => {
                let session = stream.get_ref().1;
                let version = session.protocol_version().and_then(|version| version.as_str());
                let suite = session.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
                let protocol = format!("{} {}", version.unwrap_or_default(), suite.unwrap_or_default());
                self.handshakes.reached(Latest::Done(protocol));
                Ok(Secured { stream, is_unsent: false })
            }
            Err(error) => {
                let text = error.to_string();
                self.handshakes
                    .reached(Latest::Failed(tls::failed(&format!("cannot secure the connection to {domain}"), error)));
                Err(FtpError::SecureError(text))
            }
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Connector")
    }
}
