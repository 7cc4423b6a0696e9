//! Opens the connections to an FTP server: the control connection with its login, and the sockets for data.
//!
//! Every address is checked against the outgoing policy, and the one that the server names for data against the server's
//! own. What all FTP errors look like is here too. Knows no command beyond the login.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use secrecy::ExposeSecret;
use socket2::{SockRef, TcpKeepalive};
use suppaftp::{FtpError, FtpResult, Status};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::reply::Reply;
use super::secure::{Connector, ControlStream, Handshakes};
use super::session::Session;
use super::{Config, Passive, Security};
use crate::egress::Egress;
use crate::error::{Error, ErrorKind, Step};
use crate::path::RemotePath;
use crate::tls::{self, Version};

/// Without traffic for so long, the kernel asks the other side whether it is still there, so that firewalls do not
/// forget a control connection during a long transfer (the usual limit is five minutes).
const KEEPALIVE: Duration = Duration::from_secs(60);

/// A connection whose server said that it is ready, and its TLS.
type Greeted = (ControlStream, Option<Arc<Handshakes>>);

/// How connections are encrypted.
pub(super) struct Secure {
    /// As configured.
    client: ClientConfig,
    /// The same without TLS 1.3.
    older_client: Option<ClientConfig>,
    /// The server runs out of sessions to resume in TLS 1.3, which in 1.2 it cannot.
    is_older_better: AtomicBool,
}

impl Secure {
    pub(super) fn new(config: &tls::Config) -> Result<Self, Error> {
        let older_client = match config.version_max {
            Version::Tls12 => None,
            Version::Tls13 => Some(tls::Config { version_max: Version::Tls12, ..config.clone() }.client()?),
        };
        Ok(Self { client: config.client()?, older_client, is_older_better: AtomicBool::new(false) })
    }
}

/// Opens sessions.
pub(super) struct Dialer {
    pub(super) config: Config,
    /// That of the connection.
    pub(super) root: RemotePath,
    pub(super) secure: Option<Secure>,
    pub(super) egress: Arc<Egress>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

impl Dialer {
    /// Connects, secures the connection and logs in, all within the connect timeout.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Session, Error> {
        let deadline = Instant::now() + self.connect_timeout;
        let resolved = self.egress.resolve(&self.config.host, self.config.port);
        let addresses = self.by(deadline, "resolving its name", resolved).await.and_then(|resolved| resolved);
        let addresses = addresses.map_err(|error| error.at(Step::Name))?;
        let (stream, handshakes) = self.greeted(&addresses, deadline).await?;
        let peer = {
            let control = stream.get_ref().await;
            prepare_socket(&control).and_then(|()| control.peer_addr())
        };
        let data_port = Arc::new(DataPort {
            server: self.server(),
            peer: peer.map_err(|error| self.broken("connecting", error))?.ip(),
            passive: self.config.passive,
            egress: Arc::clone(&self.egress),
            connect_timeout: self.connect_timeout,
            stage: AtomicU8::new(Stage::Asked as u8),
        });
        let opener = Arc::clone(&data_port);
        let stream = stream.passive_stream_builder(move |address| {
            let opener = Arc::clone(&opener);
            Box::pin(async move { opener.open(address).await })
        });
        let stream = stream.active_mode(self.connect_timeout);
        let mut session = Session::new(Arc::clone(self), stream, data_port, handshakes);
        let prepared = session.prepare();
        let prepared = self.by(deadline, "logging in", prepared).await.map_err(|error| error.at(Step::Login))?;
        prepared.map_err(|error| error.at(Step::Command))?;
        Ok(session)
    }

    /// A connection on which the server has said that it is ready, secured if it shall be.
    async fn greeted(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<Greeted, Error> {
        let Some(secure) = &self.secure else {
            let greeted = self.greeted_in_the_clear(addresses, deadline).await;
            return Ok((greeted.map_err(|error| error.at(Step::Connect))?, None));
        };
        if secure.is_older_better.load(Ordering::Relaxed)
            && let Some(older) = &secure.older_client
        {
            match self.greeted_by(older, addresses, deadline).await {
                Ok(greeted) => return Ok(greeted),
                Err(error) => {
                    tracing::debug!(server = self.server(), %error, "the FTP server takes no TLS 1.2");
                    secure.is_older_better.store(false, Ordering::Relaxed);
                }
            }
        }
        self.greeted_by(&secure.client, addresses, deadline).await
    }

    async fn greeted_by(
        &self,
        client: &ClientConfig,
        addresses: &[SocketAddr],
        deadline: Instant,
    ) -> Result<Greeted, Error> {
        if matches!(self.config.security, Security::Implicit(_)) {
            let greeted = self.greeted_in_secret(addresses, client, deadline).await;
            // What is not about the connection says so itself.
            return greeted.map_err(|error| error.at(Step::Connect));
        }
        let stream = self.greeted_in_the_clear(addresses, deadline).await.map_err(|error| error.at(Step::Connect))?;
        let (connector, handshakes) = Connector::new(client);
        let secured = stream.into_secure(connector, &self.config.host);
        let secured =
            self.by(deadline, "securing the connection", secured).await.map_err(|error| error.at(Step::Tls))?;
        let stream = secured.map_err(|error| self.not_secured(error, &handshakes).at(Step::Tls))?;
        Ok((stream, Some(handshakes)))
    }

    /// To be told when a server ran out of sessions to resume.
    pub(super) fn prefer_older_tls(&self) {
        if let Some(secure) = &self.secure
            && !secure.is_older_better.swap(true, Ordering::Relaxed)
        {
            tracing::info!(
                server = self.server(),
                "the FTP server gives no new session of TLS 1.3 with each data connection; going on with TLS 1.2"
            );
        }
    }

    async fn greeted_in_secret(
        &self,
        addresses: &[SocketAddr],
        client: &ClientConfig,
        deadline: Instant,
    ) -> Result<Greeted, Error> {
        let mut last = None;
        for (index, address) in addresses.iter().enumerate() {
            let (connector, handshakes) = Connector::new(client);
            let greeting = ControlStream::connect_secure_implicit(address, connector, &self.config.host);
            match timeout(share(deadline, addresses.len() - index), greeting).await {
                Ok(Ok(mut stream)) => {
                    for command in ["PBSZ 0", "PROT P"] {
                        let protected = self.by(
                            deadline,
                            "securing the connection",
                            stream.custom_command(command, &[Status::CommandOk]),
                        );
                        let protected = protected.await.map_err(|error| error.at(Step::Tls))?;
                        protected.map_err(|error| self.not_secured(error, &handshakes).at(Step::Tls))?;
                    }
                    return Ok((stream, Some(handshakes)));
                }
                Ok(Err(FtpError::ConnectionError(error))) if !handshakes.is_begun() => {
                    last = Some(self.unreachable(*address, error));
                }
                Ok(Err(error)) if handshakes.is_done() => return Err(self.not_greeted(error)),
                Ok(Err(error)) => return Err(self.not_secured(error, &handshakes).at(Step::Tls)),
                Err(_) if handshakes.is_done() => {
                    return Err(self.late("waiting for its greeting", self.connect_timeout));
                }
                Err(_) if handshakes.is_begun() => {
                    return Err(self.late("securing the connection", self.connect_timeout).at(Step::Tls));
                }
                Err(_) => last = Some(self.late(&format!("connecting to {address}"), self.connect_timeout)),
            }
        }
        Err(last.unwrap_or_else(|| self.no_address()))
    }

    async fn greeted_in_the_clear(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<ControlStream, Error> {
        let control = self.dial(addresses, deadline).await?;
        let greeting = ControlStream::connect_with_stream(control);
        // Silence is what a server does that waits for TLS to begin.
        let step = "waiting for its greeting (a server of implicit TLS does not greet before TLS)";
        let stream = self.by(deadline, step, greeting).await?;
        stream.map_err(|error| self.not_greeted(error))
    }

    async fn dial(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Error> {
        let mut last = None;
        for (index, address) in addresses.iter().enumerate() {
            match timeout(share(deadline, addresses.len() - index), TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(self.unreachable(*address, error)),
                Err(_) => last = Some(self.late(&format!("connecting to {address}"), self.connect_timeout)),
            }
        }
        Err(last.unwrap_or_else(|| self.no_address()))
    }

    async fn by<T>(&self, deadline: Instant, step: &str, work: impl Future<Output = T>) -> Result<T, Error> {
        tokio::time::timeout_at(deadline.into(), work).await.map_err(|_| self.late(step, self.connect_timeout))
    }

    fn unreachable(&self, address: SocketAddr, error: std::io::Error) -> Error {
        let message = format!("the FTP server {} cannot be reached at {address}", self.server());
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }

    fn no_address(&self) -> Error {
        Error::new(ErrorKind::Unavailable, format!("the FTP server {} has no address", self.server()))
    }

    /// For messages.
    pub(super) fn server(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }

    pub(super) fn late(&self, step: &str, limit: Duration) -> Error {
        let message = format!("the FTP server {} did not answer within {limit:?}: {step}", self.server());
        Error::new(ErrorKind::Timeout, message)
    }

    pub(super) fn broken(&self, step: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message = format!("the connection to the FTP server {} broke: {step}", self.server());
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }

    /// A refusal that nothing more is known of.
    pub(super) fn refused(&self, attempt: &str, reply: &Reply) -> Error {
        let kind = match reply.code {
            430 | 530 | 532 | 534 => ErrorKind::Denied,
            425 | 426 => ErrorKind::Interrupted,
            500 | 502 | 504 => ErrorKind::Unsupported,
            501 => ErrorKind::Invalid,
            // Both speak of storage, for now and for good.
            452 | 552 => ErrorKind::Unavailable,
            // Pure-FTPd says so to a rename that its file system forbids.
            400..=499 if reply.speaks_of_permission() => ErrorKind::Denied,
            400..=499 => ErrorKind::Unavailable,
            _ => ErrorKind::Denied,
        };
        let error =
            Error::new(kind, format!("the FTP server {} refused to {attempt}: {}", self.server(), reply.text()));
        if matches!(reply.code, 452 | 552) { error.lasting() } else { error }
    }

    fn not_secured(&self, error: FtpError, handshakes: &Handshakes) -> Error {
        let is_done = handshakes.is_done();
        match error {
            FtpError::UnexpectedResponse(response) => {
                let what = if is_done { "protect data connections" } else { "speak TLS" };
                self.refused(what, &Reply::new(response))
            }
            FtpError::ConnectionError(error) if is_done => {
                // In TLS 1.3 the server looks at our certificate when we believe to be done.
                tls::failed(&format!("cannot secure the connection to the FTP server {}", self.server()), error)
            }
            error => handshakes.failure().unwrap_or_else(|| self.broken("securing the connection", error)),
        }
    }

    fn not_greeted(&self, error: FtpError) -> Error {
        match error {
            FtpError::UnexpectedResponse(response) => Error::new(
                ErrorKind::Unavailable,
                format!("the FTP server {} takes no connection now: {}", self.server(), Reply::new(response).text()),
            ),
            FtpError::ConnectionError(error) => self.broken("waiting for its greeting", error),
            _ => Error::new(
                ErrorKind::Unavailable,
                format!("{} does not greet like an FTP server; check host and port", self.server()),
            ),
        }
    }

    pub(super) fn not_logged_in(&self, error: FtpError) -> Error {
        let FtpError::UnexpectedResponse(response) = error else { return self.broken("logging in", error) };
        let reply = Reply::new(response).without(self.config.password.expose_secret());
        let kind = if reply.is_transient() { ErrorKind::Unavailable } else { ErrorKind::Denied };
        let text = reply.text();
        let wants_tls = self.secure.is_none() && reply.speaks_of_encryption();
        let hint = if wants_tls { "; to encrypt the connection, set tls = \"explicit\"" } else { "" };
        let user = &self.config.user;
        let message = format!("the FTP server {} refused the login of {user:?}: {text}{hint}", self.server());
        Error::new(kind, message)
    }
}

/// How far an attempt at a data connection came; the library does not tell which command a refusal belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// The server was asked where to connect to and has not answered, or has refused.
    Asked,
    /// It answered; the connection is being opened, or failed.
    Dialled,
    /// The data connection is there.
    Connected,
}

/// What a data connection is opened by.
pub(super) struct DataPort {
    server: String,
    peer: IpAddr,
    passive: Passive,
    egress: Arc<Egress>,
    connect_timeout: Duration,
    stage: AtomicU8,
}

impl DataPort {
    /// Begins another attempt.
    pub(super) fn reset(&self) {
        self.reached(Stage::Asked);
    }

    /// The address of the server.
    pub(super) fn peer(&self) -> String {
        self.peer.to_canonical().to_string()
    }

    /// How far the latest attempt came.
    pub(super) fn stage(&self) -> Stage {
        match self.stage.load(Ordering::Relaxed) {
            stage if stage == Stage::Asked as u8 => Stage::Asked,
            stage if stage == Stage::Dialled as u8 => Stage::Dialled,
            _ => Stage::Connected,
        }
    }

    fn reached(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// Connects to where the server says, if it names itself: a hostile one could send the host anywhere else
    /// (the bounce attack of RFC 2577, turned around).
    async fn open(&self, address: SocketAddr) -> FtpResult<TcpStream> {
        self.reached(Stage::Dialled);
        let stream =
            self.dial(address).await.map_err(|error| FtpError::ConnectionError(std::io::Error::other(error)))?;
        self.reached(Stage::Connected);
        Ok(stream)
    }

    async fn dial(&self, address: SocketAddr) -> Result<TcpStream, Error> {
        let (server, peer) = (&self.server, self.peer.to_canonical());
        if self.passive != Passive::PasvSameHost && address.ip().to_canonical() != peer {
            return Err(Error::new(
                ErrorKind::Denied,
                format!(
                    "the FTP server {server} at {peer} wants its data connection opened to {}, another machine; \
                     if it is behind a NAT, set passive = \"pasv-same-host\" for this connection",
                    address.ip()
                ),
            ));
        }
        self.egress.check(address.ip())?;
        let unreachable = format!("the data port {address} of the FTP server {server} cannot be reached");
        match timeout(self.connect_timeout, TcpStream::connect(address)).await {
            Ok(stream) => stream.and_then(|stream| prepare_socket(&stream).map(|()| stream)).map_err(|error| {
                Error::new(ErrorKind::Unavailable, format!("{unreachable}; check that its passive ports are open"))
                    .with_source(error)
            }),
            Err(_) => Err(Error::new(
                ErrorKind::Timeout,
                format!("{unreachable} within {:?}; check that its passive ports are open", self.connect_timeout),
            )),
        }
    }
}

/// What is left is shared among the addresses, so that one which swallows packets leaves time for the rest.
fn share(deadline: Instant, addresses: usize) -> Duration {
    deadline.saturating_duration_since(Instant::now()) / u32::try_from(addresses).unwrap_or(u32::MAX)
}

fn prepare_socket(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))
}
