//! Opens sessions: name, connection, handshake, host key, login, and the subsystem for files, each with errors of its
//! own.
//!
//! The name is resolved and the socket opened by the runtime; from then on everything of libssh2 happens on the
//! thread of the session, to its end. Knows no pool and no operation.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use socket2::{SockRef, TcpKeepalive};
use ssh2::{MethodType, Session as Ssh};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::client::Client;
use super::host_key::{self, Fingerprint, Shown};
use super::session::{self, Session};
use super::tree::Tree;
use super::watch::Watch;
use super::{AddressFamily, Config, LogLevel, login, wire};
use crate::egress::Egress;
use crate::error::{Error, ErrorKind, Step};
use crate::path::RemotePath;

/// Without traffic for so long, the kernel asks the other side whether it is still there.
const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a farewell may take.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// So long after every deadline the library itself gives up, should nobody watch over it any more.
const LIBRARY_TIMEOUT_EXTRA: Duration = Duration::from_secs(10);

/// Bytes that the server may send before they are taken: what is asked for at once, and room for the rest.
const WINDOW_BYTES: u32 = (super::transfer::IN_FLIGHT_BYTES_MAX + 1024 * 1024) as u32;

/// Bytes of one packet of SSH: what every implementation takes (RFC 4253, section 6.1).
const PACKET_BYTES: u32 = 32 * 1024;

/// What is fast on processors with instructions for AES, and safe everywhere, first.
const CIPHERS_FIRST: [&str; 3] = ["aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com"];

/// What is known of a session, for a ping and the log.
#[derive(Debug, Clone)]
pub(super) struct Facts {
    pub(super) software: String,
    pub(super) host_key_type: String,
    pub(super) fingerprint: Fingerprint,
    pub(super) key_exchange: String,
    pub(super) cipher: String,
    pub(super) user: String,
    pub(super) login: &'static str,
}

impl Facts {
    /// In the words of a ping.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        vec![
            ("server", self.software.clone()),
            ("host-key", format!("{} {}", self.host_key_type, self.fingerprint)),
            ("key-exchange", self.key_exchange.clone()),
            ("cipher", self.cipher.clone()),
            ("user", self.user.clone()),
            ("login", self.login.to_owned()),
        ]
    }
}

/// Opens sessions with one server.
pub(super) struct Dialer {
    pub(super) config: Config,
    pub(super) root: RemotePath,
    pub(super) egress: Arc<Egress>,
    pub(super) connect_timeout: Duration,
    pub(super) read_timeout: Duration,
}

impl Dialer {
    /// Connects and logs in, all within the connect timeout.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Session, Error> {
        let deadline = Instant::now() + self.connect_timeout;
        let resolved = self.egress.resolve(&self.config.host, self.config.port);
        let addresses = match tokio::time::timeout_at(deadline.into(), resolved).await {
            Ok(addresses) => addresses.and_then(|addresses| self.of_the_family(addresses)),
            Err(_) => Err(self.late("resolving its name")),
        };
        let addresses = addresses.map_err(|error| error.at(Step::Name))?;
        let socket = self.dial(&addresses, deadline).await.map_err(|error| error.at(Step::Connect))?;
        let prepared = prepare(socket).and_then(|socket| socket.try_clone().map(|clone| (socket, clone)));
        let (socket, clone) = prepared.map_err(|error| self.broken("connecting", error).at(Step::Connect))?;
        let watch = Watch::over(clone);
        // Should nobody wait for the session any more, it is not opened to its end.
        let unless_wanted = CutUnlessWanted(Some(Arc::clone(&watch)));
        let (ready, opened) = oneshot::channel();
        let (queue, jobs) = session::queue();
        let dialer = Arc::clone(self);
        let watched = Arc::clone(&watch);
        let thread = std::thread::Builder::new().name("sftp".to_owned());
        let spawned = thread.spawn(move || {
            let guard = watched.within(deadline.saturating_duration_since(Instant::now()));
            let opened = dialer.open(socket, &watched);
            drop(guard);
            match opened {
                Ok((ssh, client, facts)) => {
                    let mut tree = Tree::new(client, dialer.root.clone());
                    if ready.send(Ok(facts)).is_ok() {
                        session::work(&mut tree, jobs);
                    }
                    end(ssh, tree.client, &watched);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        spawned.map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread could be started for an SFTP session").with_source(error)
        })?;
        let facts = opened
            .await
            .map_err(|_| Error::new(ErrorKind::Internal, "the thread of an SFTP session ended before it was open"))??;
        unless_wanted.keep();
        if self.config.log_level >= LogLevel::Verbose {
            tracing::info!(
                server = self.server(),
                software = facts.software,
                host_key_type = facts.host_key_type,
                fingerprint = %facts.fingerprint,
                key_exchange = facts.key_exchange,
                cipher = facts.cipher,
                login = facts.login,
                "SFTP session opened"
            );
        }
        Ok(Session::new(queue, watch, facts))
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

    /// From the socket to the conversation; blocks.
    fn open(&self, socket: std::net::TcpStream, watch: &Arc<Watch>) -> Result<(Ssh, Client, Facts), Error> {
        let stage = |step: Step, what: &'static str| {
            move |error: ssh2::Error| {
                let error = if watch.is_cut() { self.late(what) } else { self.broken(what, error) };
                error.at(step)
            }
        };
        let mut ssh = Ssh::new().map_err(stage(Step::Connect, "preparing"))?;
        self.choose_algorithms(&ssh)?;
        let limit = self.connect_timeout.max(self.read_timeout) + LIBRARY_TIMEOUT_EXTRA;
        ssh.set_timeout(limit.as_millis() as u32);
        ssh.set_compress(self.config.compression);
        if let Some(interval) = self.config.keepalive {
            ssh.set_keepalive(true, interval.as_secs() as u32);
        }
        ssh.set_tcp_stream(socket);
        ssh.handshake().map_err(stage(Step::Connect, "agreeing on how to encrypt"))?;

        let host_key = ssh.host_key().map(|(key, _)| key.to_vec()).unwrap_or_default();
        let shown = Shown { host: &self.config.host, port: self.config.port, key: &host_key };
        self.config.host_keys.check(&shown).map_err(|error| error.at(Step::HostKey))?;

        let server = self.server();
        let way = login::log_in(&ssh, &server, &self.config.user, &self.config.login)
            .map_err(|error| if watch.is_cut() { self.late("logging in") } else { error })
            .map_err(|error| error.at(Step::Login))?;

        let mut channel = ssh
            .channel_open("session", WINDOW_BYTES, PACKET_BYTES, None)
            .map_err(stage(Step::Command, "opening a channel"))?;
        channel.subsystem("sftp").map_err(|error| {
            if watch.is_cut() {
                return self.late("starting SFTP");
            }
            Error::new(ErrorKind::Unsupported, format!("the server {server} lets {:?} use no SFTP", self.config.user))
                .with_source(error)
        })?;
        let client = match Client::begin(Box::new(channel), Arc::clone(watch), self.read_timeout, server) {
            Ok(client) => client,
            Err(_) if watch.is_cut() => return Err(self.late("beginning to speak SFTP")),
            Err(failure) => {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the server {} does not begin to speak SFTP: {failure:?}", self.server()),
                ));
            }
        };
        let method = |kind| ssh.methods(kind).unwrap_or_default().to_owned();
        let facts = Facts {
            software: wire::printable(ssh.banner_bytes().unwrap_or_default()),
            host_key_type: host_key::key_type(&host_key),
            fingerprint: Fingerprint::of(&host_key),
            key_exchange: method(MethodType::Kex),
            cipher: method(MethodType::CryptCs),
            user: self.config.user.clone(),
            login: way,
        };
        Ok((ssh, client, facts))
    }

    fn choose_algorithms(&self, ssh: &Ssh) -> Result<(), Error> {
        let wanted = &self.config.algorithms;
        let ciphers = if wanted.ciphers.is_empty() {
            first(&CIPHERS_FIRST.map(str::to_owned), supported(ssh, MethodType::CryptCs))
        } else {
            wanted.ciphers.clone()
        };
        let host_keys = if wanted.host_keys.is_empty() {
            // To be shown the key that is known, where a server has several.
            let known = self.config.host_keys.known_types(&self.config.host, self.config.port)?;
            let known: Vec<String> = known.iter().flat_map(|kind| signatures(kind)).collect();
            first(&known, supported(ssh, MethodType::HostKey))
        } else {
            wanted.host_keys.clone()
        };
        let preferences: [(&str, &[MethodType], &[String]); 4] = [
            ("key-exchanges", &[MethodType::Kex], &wanted.key_exchanges),
            ("host-key-algorithms", &[MethodType::HostKey], &host_keys),
            ("ciphers", &[MethodType::CryptCs, MethodType::CryptSc], &ciphers),
            ("macs", &[MethodType::MacCs, MethodType::MacSc], &wanted.macs),
        ];
        for (setting, kinds, names) in preferences {
            for kind in kinds.iter().filter(|_| !names.is_empty()) {
                let can = supported(ssh, *kind);
                if let Some(unknown) = names.iter().find(|name| !can.contains(name)) {
                    let message = format!("{unknown:?} is none of the supported {setting}: {}", can.join(", "));
                    return Err(Error::new(ErrorKind::Invalid, message));
                }
                ssh.method_pref(*kind, &names.join(",")).map_err(|error| {
                    Error::new(ErrorKind::Invalid, format!("{setting} cannot be set")).with_source(error)
                })?;
            }
        }
        Ok(())
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

    fn broken(&self, step: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        let message = format!("the connection to the SFTP server {} broke: {step}", self.server());
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    }
}

fn prepare(socket: TcpStream) -> std::io::Result<std::net::TcpStream> {
    socket.set_nodelay(true)?;
    SockRef::from(&socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE))?;
    let socket = socket.into_std()?;
    socket.set_nonblocking(false)?;
    Ok(socket)
}

/// Says farewell where that makes sense, and frees what the library holds.
fn end(ssh: Ssh, client: Client, watch: &Watch) {
    let guard = watch.within(END_TIMEOUT);
    if client.is_in_step() {
        drop(client);
        // Whether it hears that or not, it is over.
        let _told = ssh.disconnect(None, "done", None);
    } else {
        watch.cut();
        drop(client);
    }
    drop(ssh);
    drop(guard);
}

/// Ends the opening of a session that nobody waits for any more.
struct CutUnlessWanted(Option<Arc<Watch>>);

impl CutUnlessWanted {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for CutUnlessWanted {
    fn drop(&mut self) {
        if let Some(watch) = self.0.take() {
            watch.cut();
        }
    }
}

fn supported(ssh: &Ssh, kind: MethodType) -> Vec<String> {
    // Without the list of what there is, everything counts as unknown, and is told as that.
    let names = ssh.supported_algs(kind).unwrap_or_default();
    names.into_iter().map(str::to_owned).collect()
}

/// All names, with those that are wanted first.
fn first(wanted: &[String], names: Vec<String>) -> Vec<String> {
    let (mut chosen, rest): (Vec<String>, Vec<String>) = names.into_iter().partition(|name| wanted.contains(name));
    chosen.sort_by_key(|name| wanted.iter().position(|other| other == name));
    chosen.extend(rest);
    chosen
}

/// The algorithms with which a key of a type signs (RFC 8332: one type of key, several algorithms).
fn signatures(key_type: &str) -> Vec<String> {
    match key_type {
        "ssh-rsa" => ["rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"].map(str::to_owned).to_vec(),
        other => vec![other.to_owned()],
    }
}
