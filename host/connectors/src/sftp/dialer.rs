//! Opens sessions: name, connection, handshake, host key, login, and the subsystem for files, each with errors of its
//! own.
//!
//! Knows no pool and no operation. What is agreed on is in `ssh`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use russh::client;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::channel::Channel;
use super::client::{Client, Failure};
use super::session::{Closing, Session};
use super::ssh::{self, Agreed, Failed, Farewell, Heard, Verifier};
use super::tree::Tree;
use super::{AddressFamily, Config, LogLevel, login};
use crate::egress::Egress;
use crate::error::{Error, ErrorKind, Step};
use crate::path::RemotePath;

/// Without traffic for so long, the kernel asks the other side whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// What is known of a session, for a ping and the log.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    agreed: Agreed,
    user: String,
    login: &'static str,
}

impl Facts {
    /// In the words of a ping.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        let agreed = &self.agreed;
        vec![
            ("server", agreed.software.clone()),
            ("host-key", format!("{} {}", agreed.host_key_type, agreed.fingerprint)),
            ("key-exchange", agreed.key_exchange.clone()),
            ("cipher", agreed.cipher.clone()),
            ("user", self.user.clone()),
            ("login", self.login.to_owned()),
        ]
    }
}

/// Opens sessions with one server.
pub(super) struct Dialer {
    pub(super) config: Arc<Config>,
    pub(super) root: RemotePath,
    pub(super) egress: Arc<Egress>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

impl Dialer {
    /// Connects and logs in, all within the connect timeout.
    pub(super) async fn connect(&self) -> Result<Session, Error> {
        let deadline = Instant::now() + self.connect_timeout;
        let resolved = self.egress.resolve(&self.config.host, self.config.port);
        let addresses = match timeout_at(deadline, resolved).await {
            Ok(addresses) => addresses.and_then(|addresses| self.of_the_family(addresses)),
            Err(_) => Err(self.late("resolving its name")),
        };
        let addresses = addresses.map_err(|error| error.at(Step::Name))?;
        let socket = self.dial(&addresses, deadline).await.map_err(|error| error.at(Step::Connect))?;
        let closing = prepare(&socket).map_err(|error| self.broken("connecting", error).at(Step::Connect))?;

        let mut at = Stage { step: Step::Connect, what: "agreeing on how to encrypt" };
        let opened = timeout_at(deadline, self.open(socket, &mut at)).await;
        let (tree, connection, facts) = opened.unwrap_or_else(|_| Err(self.late(at.what).at(at.step)))?;
        if self.config.log_level >= LogLevel::Verbose {
            let Facts { agreed, login, .. } = &facts;
            tracing::info!(
                server = self.server(),
                software = agreed.software,
                host_key_type = agreed.host_key_type,
                fingerprint = %agreed.fingerprint,
                key_exchange = agreed.key_exchange,
                cipher = agreed.cipher,
                login,
                "SFTP session opened"
            );
        }
        Ok(Session::new(tree, connection, facts, closing))
    }

    fn of_the_family(&self, mut addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
        let family = self.config.address_family;
        addresses.retain(|address| match family {
            AddressFamily::Any => true,
            AddressFamily::Inet => address.is_ipv4(),
            AddressFamily::Inet6 => address.is_ipv6(),
        });
        if addresses.is_empty() {
            let message = format!("the SFTP server {} has no address of the family {family:?}", self.server());
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        Ok(addresses)
    }

    async fn dial(&self, addresses: &[SocketAddr], deadline: Instant) -> Result<TcpStream, Error> {
        let mut last = None;
        for (index, address) in addresses.iter().enumerate() {
            // What is left is shared among the addresses, so that one which swallows packets leaves time for the rest.
            let share = deadline.saturating_duration_since(Instant::now()) / (addresses.len() - index) as u32;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => {
                    let message = format!("the SFTP server {} cannot be reached at {address}", self.server());
                    last = Some(Error::new(ErrorKind::Unavailable, message).with_source(error));
                }
                Err(_) => last = Some(self.late(&format!("connecting to {address}"))),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Unavailable, format!("the SFTP server {} has no address", self.server()))
        }))
    }

    /// From the socket to the conversation. `at` tells how far that is.
    async fn open(&self, socket: TcpStream, at: &mut Stage) -> Result<(Tree, client::Handle<Verifier>, Facts), Error> {
        let config = Arc::clone(&self.config);
        let settings = tokio::task::spawn_blocking(move || ssh::settings(&config)).await;
        let settings = settings.map_err(|error| self.broken(at.what, error).at(at.step))?;
        // What can fail there is reading the known hosts.
        let settings = settings.map_err(|error| error.at(Step::HostKey))?;
        let heard = Arc::new(Heard::default());
        let verifier = Verifier::new(&self.config, &heard);
        let connection = client::connect_stream(Arc::new(settings), socket, verifier).await;
        let mut connection = connection.map_err(|failed| match failed {
            Failed::HostKey(error) => error.at(Step::HostKey),
            Failed::Ssh(error) => match heard.farewell() {
                Some(farewell) => self.ended(at.what, farewell).at(at.step),
                None => self.broken(at.what, error).at(at.step),
            },
        })?;

        let server = self.server();
        *at = Stage { step: Step::Login, what: "logging in" };
        let way = login::log_in(&mut connection, &heard, &server, &self.config.user, &self.config.login).await;
        let way = way.map_err(|error| error.at(Step::Login))?;

        *at = Stage { step: Step::Command, what: "opening a channel" };
        let channel = connection.channel_open_session().await;
        let channel = channel.map_err(|error| self.broken(at.what, error).at(at.step))?;
        at.what = "starting SFTP";
        let channel = Channel::start(channel, "sftp").await;
        let Some(channel) = channel.map_err(|error| self.broken(at.what, error).at(at.step))? else {
            let message = format!("the server {server} lets {:?} use no SFTP", self.config.user);
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        at.what = "beginning to speak SFTP";
        let client = match Client::begin(channel, self.read_timeout, server).await {
            Ok(client) => client,
            Err(Failure::Late) => return Err(self.late(at.what)),
            Err(Failure::Broken(error)) => return Err(self.broken(at.what, error)),
            Err(failure) => {
                let message = format!("the server {} does not begin to speak SFTP: {failure:?}", self.server());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        };
        let agreed = heard.agreed().cloned().ok_or_else(|| {
            Error::new(ErrorKind::Internal, format!("nothing is known of what was agreed on with {}", self.server()))
        })?;
        let facts = Facts { agreed, user: self.config.user.clone(), login: way };
        Ok((Tree::new(client, self.root.clone()), connection, facts))
    }

    /// For messages.
    pub(super) fn server(&self) -> String {
        format!("{}:{}", self.config.host, self.config.port)
    }

    fn late(&self, step: &str) -> Error {
        let message =
            format!("the SFTP server {} did not answer within {:?}: {step}", self.server(), self.connect_timeout);
        Error::new(ErrorKind::Timeout, message)
    }

    fn ended(&self, step: &str, farewell: &Farewell) -> Error {
        let kind = if farewell.is_refusal { ErrorKind::Denied } else { ErrorKind::Unavailable };
        let (server, words) = (self.server(), &farewell.words);
        Error::new(kind, format!("the SFTP server {server} ended the connection with the words {words:?}: {step}"))
    }

    fn broken(&self, step: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message = format!("the connection to the SFTP server {} broke: {step}", self.server());
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }
}

/// How far the opening of a session is.
struct Stage {
    step: Step,
    what: &'static str,
}

fn prepare(socket: &TcpStream) -> std::io::Result<Closing> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    socket.try_clone().map(Closing)
}
