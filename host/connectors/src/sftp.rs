//! A server that speaks SFTP (SSH File Transfer Protocol, version 3) as a connection.
//!
//! This file is the runtime's side: it takes a session and gives its thread something to do. How a session comes about
//! is in `dialer`, `host_key` and `login`; which ones are open in `pool`; what the thread does in `tree` and `transfer`,
//! in the words of `client` and `wire`; what ends a wait in `watch`.
//!
//! SSH is spoken by libssh2, which blocks: nothing of it is made, used or dropped outside of the session's thread.

mod client;
mod dialer;
mod handle;
mod host_key;
mod login;
mod pool;
mod posix;
mod script;
mod session;
mod ssh_config;
mod status;
mod transfer;
mod tree;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures::future::{self, Either};
use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, oneshot};

use crate::Common;
use crate::backend::{Backend, ByteRange, Checksum, Entry, EntryKind, Facts, IfExists, Pages, ResumeKey, WriteOptions};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use dialer::Dialer;
pub use handle::{Handle, INFOS_MAX};
pub use host_key::{Fingerprint, HostKeys, PORT};
pub use login::Login;
use pool::{Lease, Pool};
pub use posix::{Info, Owner};
pub use script::{CommandResult, Script, Shell};
pub use ssh_config::SshOptions;
pub use status::FileSystem;
use transfer::{CHUNKS_WAITING_MAX, Leftover, Piece};
use tree::Tree;

/// Pages of a listing that wait for their consumer.
const PAGES_WAITING_MAX: usize = 4;

/// How often the removal of a leftover is tried on other sessions.
const REMOVE_TRIES: u32 = 3;

/// The pause before each further try.
const REMOVE_PAUSE: Duration = Duration::from_millis(500);

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
    /// Without traffic for so long, the server is asked whether it is still there while something waits for it.
    pub keepalive: Option<Duration>,
    /// Whether `get` and `put` of scripts keep the time of last change without being told so (`-p`).
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

/// The algorithms that are offered, best first, in the names of SSH. An empty list stands for all that are safe.
#[derive(Debug, Clone, Default)]
pub struct Algorithms {
    /// For encryption, both ways.
    pub ciphers: Vec<String>,
    /// For the agreement on keys.
    pub key_exchanges: Vec<String>,
    /// For authentication of packets, both ways.
    pub macs: Vec<String>,
    /// Of the server's key.
    pub host_keys: Vec<String>,
}

/// An SFTP server.
pub(crate) struct Sftp {
    pool: Arc<Pool>,
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
        let (directory, preserve, log_level) = (config.directory.clone(), config.preserve, config.log_level);
        let dialer = Dialer {
            config,
            root: common.root.clone(),
            egress,
            connect_timeout: common.connect_timeout,
            read_timeout: common.read_timeout,
        };
        Ok(Self { pool: Pool::new(dialer, common), directory, preserve, log_level })
    }

    fn directory(&self) -> Option<&RemotePath> {
        self.directory.as_ref()
    }

    /// Does something on one of the sessions.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tree) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.pool.take().await?.run(work).await?
    }

    /// Does something on one of the sessions with the content that it is handed over.
    async fn run_with<T: Send + 'static>(
        &self,
        content: Content,
        work: impl FnOnce(&mut Tree, &mut mpsc::Receiver<Piece>, &oneshot::Sender<Result<T, Error>>) -> Result<T, Error>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let lease = self.pool.take().await?;
        let (sender, mut pieces) = mpsc::channel(CHUNKS_WAITING_MAX);
        let (done, result) = oneshot::channel();
        let begun = lease.start(move |tree| {
            let result = work(tree, &mut pieces, &done);
            // Nobody may be there any more to hear of it.
            let _heard = done.send(result);
        });
        let job = async {
            begun.await?;
            result.await.map_err(|_| session::ended())?
        };
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

#[async_trait]
impl Backend for Sftp {
    fn makes_parents(&self) -> bool {
        false
    }

    fn repeats_by_itself(&self) -> bool {
        false
    }

    async fn ping(&self) -> Result<Facts, Error> {
        let lease = self.pool.take().await?;
        let known = lease.facts().told();
        lease.run(|tree| tree.ping().map(|()| tree.told())).await?.map(|told| known.into_iter().chain(told).collect())
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.run(move |tree| tree.stat(&path)).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        let path = path.clone();
        let begun =
            begin(&self.pool, PAGES_WAITING_MAX, move |tree, opened, pages| tree.list(&path, opened, &pages)).await;
        begun.map(|((), pages)| pages)
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let path = path.clone();
        let begun = begin(&self.pool, CHUNKS_WAITING_MAX, move |tree, opened, chunks| {
            tree.read(&path, range, opened, &chunks);
        });
        begun.await.map(|(size, chunks)| Content::from_stream(size, chunks))
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let (path, options, remover) = (path.clone(), options.clone(), Remover::new(&self.pool));
        self.run_with(content, move |tree, pieces, done| {
            let (written, leftover) = tree.write(&path, &options, pieces, || !done.is_closed());
            if let Some(leftover) = leftover {
                remover.remove(leftover);
            }
            written
        })
        .await
    }

    async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let (path, key) = (path.clone(), key.clone());
        self.run(move |tree| tree.partial(&path, &key)).await
    }

    async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error> {
        let path = path.clone();
        self.run_with(content, move |tree, pieces, _| tree.append(&path, pieces)).await
    }

    async fn copy(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let (source, target) = (source.clone(), target.clone());
        self.run(move |tree| tree.copy(&source, &target, if_exists)).await
    }

    async fn delete_tree(&self, path: &RemotePath) -> Result<bool, Error> {
        let path = path.clone();
        self.run(move |tree| tree.delete_all(&path).map(|()| true)).await
    }

    async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |tree| tree.change_times(&path, None, Some(time))).await
    }

    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let found = self.stat(path).await?;
        if found.kind == EntryKind::Directory {
            return Err(tree::is_a_folder("tell the checksum of", path));
        }
        Ok(None)
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |tree| tree.delete(&path)).await
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose another name by itself"));
        }
        let (source, target) = (source.clone(), target.clone());
        self.run(move |tree| tree.rename(&source, &target, if_exists)).await
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.run(move |tree| tree.make_directory(&path)).await
    }
}

/// What a job tells once it is open, and what it sends from then on.
type Begun<T, I> = (T, stream::BoxStream<'static, Result<I, Error>>);

/// Begins a job that sends items for as long as somebody takes them.
async fn begin<T: Send + 'static, I: Send + 'static>(
    pool: &Arc<Pool>,
    waiting_max: usize,
    job: impl FnOnce(&mut Tree, oneshot::Sender<Result<T, Error>>, mpsc::Sender<Result<I, Error>>) + Send + 'static,
) -> Result<Begun<T, I>, Error> {
    let lease = pool.take().await?;
    let (opened, answer) = oneshot::channel();
    let (sender, items) = mpsc::channel(waiting_max);
    lease.start(move |tree| job(tree, opened, sender)).await?;
    let told = answer.await.map_err(|_| session::ended())??;
    Ok((told, items_of(lease, items)))
}

/// The items of a job, which keep its session until they are dropped.
fn items_of<I: Send + 'static>(
    lease: Lease,
    items: mpsc::Receiver<Result<I, Error>>,
) -> stream::BoxStream<'static, Result<I, Error>> {
    stream::unfold(
        (lease, items),
        |(lease, mut items)| async move { items.recv().await.map(|item| (item, (lease, items))) },
    )
    .boxed()
}

/// Hands content over to the thread that writes it; ends early when that takes no more.
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

/// Removes temporary files whose session broke, in the background and on other sessions.
struct Remover {
    pool: Arc<Pool>,
    runtime: tokio::runtime::Handle,
}

impl Remover {
    fn new(pool: &Arc<Pool>) -> Self {
        Self { pool: Arc::clone(pool), runtime: tokio::runtime::Handle::current() }
    }

    fn remove(self, leftover: Leftover) {
        let Self { pool, runtime } = self;
        runtime.spawn(async move {
            let leftover = Arc::new(leftover);
            for attempt in 0..REMOVE_TRIES {
                tokio::time::sleep(REMOVE_PAUSE * attempt).await;
                let Ok(lease) = pool.connect().await else { continue };
                let removed = Arc::clone(&leftover);
                if let Ok(Ok(())) = lease.run(move |tree| tree.remove(&removed)).await {
                    return;
                }
            }
            tracing::warn!(path = %leftover.0, "a temporary file may be left: its SFTP server cannot be reached");
        });
    }
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
