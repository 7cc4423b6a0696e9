//! A server that speaks SFTP (SSH File Transfer Protocol, version 3) as a connection.
//!
//! This file is the runtime's side: it takes a session and gives its thread something to do. How a session comes about
//! is in `dialer`, `host_key` and `login`; which ones are open in `pool`; what the thread does in `tree` and `transfer`,
//! in the words of `client` and `wire`; what ends a wait in `watch`.
//!
//! SSH is spoken by libssh2, which blocks: nothing of it is made, used or dropped outside of the session's thread.

mod client;
mod dialer;
mod host_key;
mod login;
mod pool;
mod session;
mod status;
mod transfer;
mod tree;
mod watch;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{self, Either};
use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, oneshot};

use crate::Common;
use crate::backend::{Backend, ByteRange, Checksum, Entry, Facts, IfExists, Pages, ResumeKey, WriteOptions};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use dialer::Dialer;
pub use host_key::{Fingerprint, HostKeys};
pub use login::Login;
use pool::{Lease, Pool};
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
        let dialer = Dialer {
            config,
            root: common.root.clone(),
            egress,
            connect_timeout: common.connect_timeout,
            read_timeout: common.read_timeout,
        };
        Ok(Self { pool: Pool::new(dialer, common.operations_max, common.idle_timeout) })
    }

    /// Does something that may be done twice. When a session from the pool turns out to be dead, it is done once more
    /// on a new one.
    async fn safely<T: Send + 'static>(
        &self,
        work: impl Fn(&mut Tree) -> Result<T, Error> + Clone + Send + 'static,
    ) -> Result<T, Error> {
        let lease = self.pool.take().await?;
        let again = work.clone();
        let done = lease.run(move |tree| work(tree)).await.and_then(|done| done);
        if !lease.is_reused() || !done.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unavailable) {
            return done;
        }
        drop(lease);
        self.pool.connect().await?.run(move |tree| again(tree)).await?
    }

    /// Does something that may not be done twice.
    async fn once<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tree) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.pool.take().await?.run(work).await?
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
        self.safely(Tree::ping).await?;
        Ok(Vec::new())
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.safely(move |tree| tree.stat(&path)).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        begin(
            &self.pool,
            |opened, sender: mpsc::Sender<Result<Vec<Entry>, Error>>| {
                let path = path.clone();
                move |tree: &mut Tree| tree.list(&path, opened, &sender)
            },
            PAGES_WAITING_MAX,
        )
        .await
        .map(|((), pages)| pages)
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        begin(
            &self.pool,
            |opened, sender: mpsc::Sender<Result<Bytes, Error>>| {
                let path = path.clone();
                move |tree: &mut Tree| tree.read(&path, range, opened, &sender)
            },
            CHUNKS_WAITING_MAX,
        )
        .await
        .map(|(size, chunks)| Content::from_stream(size, chunks))
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let if_exists = options.if_exists;
        let lease = self.pool.take().await?;
        let (sender, mut pieces) = mpsc::channel(CHUNKS_WAITING_MAX);
        let target = path.clone();
        let remover = Remover::new(&self.pool);
        let (done, written) = oneshot::channel();
        let begun = lease.start(move |tree| {
            let (written, leftover) = tree.write(&target, if_exists, &mut pieces, || !done.is_closed());
            if let Some(leftover) = leftover {
                remover.remove(leftover);
            }
            // Nobody may be there any more to hear of it.
            let _heard = done.send(written);
        });
        let job = async {
            begun.await?;
            written.await.map_err(|_| session::ended())?
        };
        let fed = feed(content, sender);
        futures::pin_mut!(job, fed);
        match future::select(job, fed).await {
            Either::Left((written, _)) => written,
            Either::Right((Ok(()), job)) => job.await,
            Either::Right((Err(error), job)) => {
                // What there is of it is removed meanwhile.
                let _given_up = job.await;
                Err(error)
            }
        }
    }

    async fn partial(&self, _: &RemotePath, _: &ResumeKey) -> Result<u64, Error> {
        Ok(0)
    }

    async fn append(&self, path: &RemotePath, _: Content) -> Result<Entry, Error> {
        Err(Error::new(ErrorKind::Unsupported, format!("cannot append to {path}: connections of type sftp cannot")))
    }

    async fn copy(&self, _: &RemotePath, _: &RemotePath, _: IfExists) -> Result<Option<Entry>, Error> {
        Ok(None)
    }

    async fn delete_tree(&self, _: &RemotePath) -> Result<bool, Error> {
        Ok(false)
    }

    async fn set_modified(&self, path: &RemotePath, _: SystemTime) -> Result<(), Error> {
        Err(Error::new(ErrorKind::Unsupported, format!("cannot set the time of {path} over sftp")))
    }

    async fn checksum(&self, _: &RemotePath) -> Result<Option<Checksum>, Error> {
        Ok(None)
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.once(move |tree| tree.delete(&path)).await
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose another name by itself"));
        }
        let (source, target) = (source.clone(), target.clone());
        self.once(move |tree| tree.rename(&source, &target, if_exists)).await
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.once(move |tree| tree.make_directory(&path)).await
    }
}

/// What a job tells once it is open, and what it sends from then on.
type Begun<T, I> = (T, stream::BoxStream<'static, Result<I, Error>>);

/// Begins a job that sends items for as long as somebody takes them. When a session from the pool turns out to be dead,
/// it is begun once more on a new one.
async fn begin<T, I, J>(
    pool: &Arc<Pool>,
    job: impl Fn(oneshot::Sender<Result<T, Error>>, mpsc::Sender<Result<I, Error>>) -> J,
    waiting_max: usize,
) -> Result<Begun<T, I>, Error>
where
    T: Send + 'static,
    I: Send + 'static,
    J: FnOnce(&mut Tree) + Send + 'static,
{
    let mut lease = pool.take().await?;
    loop {
        let (opened, answer) = oneshot::channel();
        let (sender, items) = mpsc::channel(waiting_max);
        let work = job(opened, sender);
        let begun = match lease.start(work).await {
            Ok(()) => answer.await.map_err(|_| session::ended()).and_then(|answer| answer),
            Err(error) => Err(error),
        };
        match begun {
            Ok(told) => return Ok((told, items_of(lease, items))),
            Err(error) if lease.is_reused() && error.kind() == ErrorKind::Unavailable => {
                drop(lease);
                lease = pool.connect().await?;
            }
            Err(error) => return Err(error),
        }
    }
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
