//! A server that speaks SFTP (SSH File Transfer Protocol, version 3) as a connection.
//!
//! This file takes a session and gives it something to do. How a session comes about is in `dialer`, `ssh`, `host_key` and
//! `login`; which ones are open in `pool`; what is done in `tree` and `transfer`, in the words of `client` and `wire`.
//!
//! SSH is spoken by a library, SFTP by our own codec on one of its channels: what requests are on their way at once, what
//! names are made of and which extensions are used is ours to say.

mod algorithms;
mod channel;
mod client;
mod dialer;
mod handle;
mod host_key;
mod login;
mod pool;
mod posix;
mod script;
mod session;
mod ssh;
mod ssh_config;
mod status;
mod transfer;
mod tree;
mod wire;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{self, BoxFuture, Either};
use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, oneshot};
use tracing::Instrument;

use crate::Common;
use crate::backend::{Backend, ByteRange, Checksum, Entry, Facts, IfExists, Location, Pages, ResumeKey, WriteOptions};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
pub use algorithms::{Algorithms, Purpose};
use dialer::Dialer;
pub use handle::{Handle, INFOS_MAX};
pub use host_key::{Fingerprint, HostKeys, PORT};
pub use login::Login;
use pool::Pool;
pub use posix::{Info, Owner};
pub use script::{CommandResult, Script, Shell};
use session::Session;
pub use ssh_config::{Agent, SshOptions};
pub use status::FileSystem;
use transfer::{CHUNKS_WAITING_MAX, Leftover, Piece};

/// Pages of a listing that wait for their consumer.
const PAGES_WAITING_MAX: usize = 4;

/// How often the removal of a leftover is tried on other sessions.
const REMOVE_TRIES: u32 = 3;

/// The pause before each further try.
const REMOVE_PAUSE: Duration = Duration::from_millis(500);

/// What the pause between two keep-alives may be. Shorter ones fill the line, longer ones come after firewalls have forgotten
/// it.
pub const KEEPALIVE: RangeInclusive<Duration> = Duration::from_secs(2)..=Duration::from_secs(60 * 60);

/// Settings of an SFTP server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address.
    pub host: String,
    /// Port; 22 by custom.
    pub port: u16,
    /// Which addresses of the server are used.
    pub address_family: AddressFamily,
    /// Who logs in.
    pub user: String,
    /// In which ways, in the order in which they are tried.
    pub login: Vec<Login>,
    /// What vouches for the server.
    pub host_keys: HostKeys,
    /// What is offered to the server.
    pub algorithms: Algorithms,
    /// Whether to compress, where the server does.
    pub compression: bool,
    /// The folder in which scripts begin, a path of the connection; without one, the folder that the server opens after
    /// the login.
    pub directory: Option<RemotePath>,
    /// Without traffic for so long, the server is asked whether it is still there.
    pub keepalive: Option<Duration>,
    /// Whether `get` and `put` of scripts keep times of last change and permissions without being told so (`-p`).
    pub preserve: bool,
    /// What is told of the connection in the log of the host.
    pub log_level: LogLevel,
}

impl Config {
    /// Usual settings for what must be said. Nothing vouches for the server yet, and nothing logs in.
    pub fn new(host: &str, user: &str) -> Self {
        Self {
            host: host.to_owned(),
            port: PORT,
            address_family: AddressFamily::Any,
            user: user.to_owned(),
            login: Vec::new(),
            host_keys: HostKeys::default(),
            algorithms: Algorithms::default(),
            compression: false,
            directory: None,
            keepalive: None,
            preserve: false,
            log_level: LogLevel::Info,
        }
    }
}

/// What is told of a connection in the log of the host, besides the line of each operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Nothing more.
    #[default]
    Info,
    /// Each session that is opened, with what was agreed on.
    Verbose,
    /// Each command of a script, too.
    Debug,
}

impl LogLevel {
    /// From the words of `ssh`: those below `INFO` tell nothing more either.
    ///
    /// # Errors
    /// `Invalid` for any other word.
    pub fn parse(text: &str) -> Result<Self, Error> {
        match text.to_ascii_lowercase().as_str() {
            "quiet" | "fatal" | "error" | "info" => Ok(Self::Info),
            "verbose" => Ok(Self::Verbose),
            "debug" | "debug1" | "debug2" | "debug3" => Ok(Self::Debug),
            _ => Err(Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is no log level: quiet, fatal, error, info, verbose, debug, debug1, debug2, debug3"),
            )),
        }
    }
}

/// Which addresses of a server are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AddressFamily {
    /// All of them.
    #[default]
    Any,
    /// Those of IPv4.
    Inet,
    /// Those of IPv6.
    Inet6,
}

/// An SFTP server.
pub(crate) struct Sftp {
    pool: Arc<Pool>,
    /// User and server.
    place: String,
    directory: Option<RemotePath>,
    preserve: bool,
    log_level: LogLevel,
}

impl Sftp {
    pub(crate) fn new(config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the SFTP connection {why}")));
        if config.host.is_empty() || config.port == 0 {
            return invalid("has no host or no port");
        }
        let secrets = config.login.iter().flat_map(|way| match way {
            Login::Password(secret) | Login::KeyboardInteractive(secret) => vec![secret],
            Login::PrivateKey { key, passphrase } => std::iter::once(key).chain(passphrase).collect(),
            Login::Agent { .. } => Vec::new(),
        });
        if config.user.contains('\0') || secrets.into_iter().any(|secret| secret.expose_secret().contains('\0')) {
            return invalid("has a zero character in its user or a secret");
        }
        if config.login.is_empty() {
            return invalid("has nothing to log in with: set password, private-key or agent");
        }
        if config.host_keys.is_empty() {
            return invalid(
                "has nothing that vouches for the server: set host-keys to its fingerprint, as ssh-keygen -l prints it, \
                 or known-hosts",
            );
        }
        let place = format!("sftp {}@{}:{}", config.user, config.host, config.port);
        let (directory, preserve, log_level) = (config.directory.clone(), config.preserve, config.log_level);
        let dialer = Dialer {
            config: Arc::new(config),
            root: common.root.clone(),
            egress,
            connect_timeout: common.connect_timeout,
            read_timeout: common.read_timeout,
        };
        Ok(Self { pool: Pool::new(dialer, common), place, directory, preserve, log_level })
    }

    /// The same server, where no link leads out of these folders.
    pub(crate) fn within(&self, borders: Vec<RemotePath>) -> Self {
        let pool = Arc::new(self.pool.within(borders));
        let (place, directory) = (self.place.clone(), self.directory.clone());
        Self { pool, place, directory, preserve: self.preserve, log_level: self.log_level }
    }

    fn directory(&self) -> Option<&RemotePath> {
        self.directory.as_ref()
    }

    /// Does something on one of the sessions.
    async fn run<T: Send + 'static>(
        &self,
        job: impl for<'session> FnOnce(&'session mut Session) -> BoxFuture<'session, Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        ended(self.pool.start(job).await?.await)
    }

    /// Does something on one of the sessions with the content that it is handed over.
    async fn run_with<T: Send + 'static>(
        &self,
        content: Content,
        job: impl for<'session> FnOnce(&'session mut Session, Handed) -> BoxFuture<'session, Result<T, Error>>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let (sender, pieces) = mpsc::channel(CHUNKS_WAITING_MAX);
        // Dropped with this call, whether it ends or is given up.
        let (interest, _caller) = oneshot::channel();
        let handed = Handed { pieces, interest };
        let job = self.pool.start(move |session| job(session, handed)).await?;
        let job = job.map(ended);
        let fed = feed(content, sender);
        futures::pin_mut!(job, fed);
        match future::select(job, fed).await {
            Either::Left((result, _)) => result,
            Either::Right((Ok(()), job)) => job.await,
            Either::Right((Err(error), job)) => {
                // What there is of it is removed meanwhile.
                let _given_up = job.await;
                Err(error)
            }
        }
    }
}

/// What a job that takes content is handed.
struct Handed {
    pieces: mpsc::Receiver<Piece>,
    /// Closed when nobody waits for the job any more.
    interest: oneshot::Sender<()>,
}

/// The result of a job, unless it came to no end.
fn ended<T>(result: Result<Result<T, Error>, tokio::task::JoinError>) -> Result<T, Error> {
    result.map_err(|error| Error::new(ErrorKind::Internal, "work on an SFTP session did not end").with_source(error))?
}

#[async_trait]
impl Backend for Sftp {
    fn makes_parents(&self) -> bool {
        false
    }

    fn repeats_by_itself(&self) -> bool {
        false
    }

    async fn location(&self, path: &RemotePath) -> Option<Location> {
        Some(Location { server: self.place.clone(), path: path.as_str().into() })
    }

    async fn ping(&self) -> Result<Facts, Error> {
        self.run(|session| {
            async {
                session.ping().await?;
                Ok(session.facts().told().into_iter().chain(session.told()).collect())
            }
            .boxed()
        })
        .await
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.run(move |session| async move { session.stat(&path).await }.boxed()).await
    }

    async fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.run(move |session| async move { session.follow(&path).await }.boxed()).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        let path = path.clone();
        let begun = begin(&self.pool, PAGES_WAITING_MAX, move |session, opened, pages| {
            async move { session.list(&path, opened, &pages).await }.boxed()
        });
        begun.await.map(|((), pages)| pages)
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let path = path.clone();
        let begun = begin(&self.pool, CHUNKS_WAITING_MAX, move |session, opened, chunks| {
            async move { session.read(&path, range, opened, &chunks).await }.boxed()
        });
        begun.await.map(|(size, chunks)| Content::from_stream(size, chunks))
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let (path, options, pool) = (path.clone(), options.clone(), Arc::clone(&self.pool));
        self.run_with(content, move |session, Handed { mut pieces, interest }| {
            async move {
                let (written, leftover) = session.write(&path, &options, &mut pieces, || !interest.is_closed()).await;
                if let Some(leftover) = leftover {
                    tokio::spawn(remove(pool, leftover).in_current_span());
                }
                written
            }
            .boxed()
        })
        .await
    }

    async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let (path, key) = (path.clone(), key.clone());
        self.run(move |session| async move { session.partial(&path, &key).await }.boxed()).await
    }

    async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error> {
        let path = path.clone();
        self.run_with(content, move |session, mut handed| {
            async move { session.append(&path, &mut handed.pieces).await }.boxed()
        })
        .await
    }

    async fn copy(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let (source, target) = (source.clone(), target.clone());
        self.run(move |session| async move { session.copy(&source, &target, if_exists).await }.boxed()).await
    }

    async fn delete_tree(&self, path: &RemotePath) -> Result<bool, Error> {
        let path = path.clone();
        self.run(move |session| async move { session.delete_all(&path).await.map(|()| true) }.boxed()).await
    }

    async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |session| async move { session.change_times(&path, None, Some(time)).await }.boxed()).await
    }

    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let path = path.clone();
        self.run(move |session| async move { session.checksum(&path).await }.boxed()).await
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |session| async move { session.delete(&path).await }.boxed()).await
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose another name by itself"));
        }
        let (source, target) = (source.clone(), target.clone());
        self.run(move |session| async move { session.rename(&source, &target, if_exists).await }.boxed()).await
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |session| async move { session.make_directory(&path).await }.boxed()).await
    }
}

/// What a job tells once it is open, and what it sends from then on.
type Begun<T, I> = (T, stream::BoxStream<'static, Result<I, Error>>);

/// Begins a job that sends items for as long as somebody takes them. How it ended is told last, when its session is no
/// longer in use: whoever hears that it broke gets none that broke with it.
async fn begin<T: Send + 'static, I: Send + 'static>(
    pool: &Arc<Pool>,
    waiting_max: usize,
    job: impl for<'session> FnOnce(
        &'session mut Session,
        oneshot::Sender<T>,
        mpsc::Sender<I>,
    ) -> BoxFuture<'session, Result<(), Error>>
    + Send
    + 'static,
) -> Result<Begun<T, I>, Error> {
    let (opened, answer) = oneshot::channel();
    let (sender, items) = mpsc::channel(waiting_max);
    let job = pool.start(move |session| job(session, opened, sender)).await?;
    let Ok(told) = answer.await else {
        ended(job.await)?;
        return Err(Error::new(ErrorKind::Internal, "work on an SFTP session ended before it began"));
    };
    let items = stream::unfold((items, Some(job)), |(mut items, job)| async move {
        if let Some(item) = items.recv().await {
            return Some((Ok(item), (items, job)));
        }
        let error = ended(job?.await).err()?;
        Some((Err(error), (items, None)))
    });
    Ok((told, items.boxed()))
}

/// Hands content over to the job that writes it; ends early when that takes no more.
async fn feed(content: Content, pieces: mpsc::Sender<Piece>) -> Result<(), Error> {
    let mut chunks = content.into_stream();
    while let Some(chunk) = chunks.try_next().await? {
        if pieces.send(Piece::Bytes(chunk)).await.is_err() {
            return Ok(());
        }
    }
    // The source may hold a place on a remote that somebody waits for.
    drop(chunks);
    // Whoever takes no more has told why.
    let _taken = pieces.send(Piece::End).await;
    Ok(())
}

/// Removes a temporary file whose session broke, on another session.
async fn remove(pool: Arc<Pool>, leftover: Leftover) {
    let leftover = Arc::new(leftover);
    for attempt in 0..REMOVE_TRIES {
        tokio::time::sleep(REMOVE_PAUSE * attempt).await;
        let path = Arc::clone(&leftover);
        let begun = pool.start_on_new(move |session| async move { session.remove(&path).await }.boxed());
        let Ok(removing) = begun.await else { continue };
        if let Ok(Ok(())) = removing.await {
            return;
        }
    }
    tracing::warn!(path = %leftover.0, "a temporary file may be left: its SFTP server cannot be reached");
}

/// For the fuzz targets.
pub(crate) fn read_any_packet(input: &[u8]) {
    let _refused_or_not = wire::packet_length(input);
    let packet = bytes::Bytes::copy_from_slice(input);
    let _refused_or_not = wire::read_version(packet.clone());
    let _refused_or_not = FileSystem::read(packet.clone());
    if let Ok((_, wire::Reply::Names(names))) = wire::read_reply(packet) {
        let mut left_out = 0;
        for name in &names {
            tree::entry_of(&RemotePath::root(), name, &mut left_out);
        }
    }
}

/// For the fuzz targets.
pub(crate) fn read_any_text(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    host_key::read_any_known_hosts(&text);
    let _refused_or_not = SshOptions::read("partner", Some("alice"), &[], &text, Some("/"));
    for line in text.lines() {
        script::read_any_line(line);
    }
}
