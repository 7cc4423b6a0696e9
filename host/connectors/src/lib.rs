//! Bytes to and from remote places: local folders, FTP, SFTP, Dropbox, HTTP origins.
//!
//! A [`Remote`] is an open handle on one configured connection. What holds for all of them is here, once: the path
//! jail, the limit of operations at once, the log line. Each protocol is one module behind a private trait.
//! Knows no WebAssembly, no configuration file, no listener.

mod error;
mod path;
mod content;
mod egress;
mod backend;
mod temporary;
pub mod tls;
pub mod local;
pub mod ftp;
pub mod sftp;
pub mod dropbox;
pub mod http;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

pub use backend::{ByteRange, Entry, EntryKind, IfExists};
pub use content::{CHUNK_BYTES, Content};
pub use egress::Egress;
pub use error::{Error, ErrorKind, chain};
pub use path::{PATH_BYTES_MAX, RemotePath};

use backend::{Backend, Pages};

/// Entries that [`Remote::list`] returns at most; beyond that memory is at the mercy of the server.
pub const LIST_ENTRIES_MAX: usize = 10_000;

/// How long an operation waits for a place among the operations of its connection: as long as a busy remote takes
/// for a few operations, and shorter than what a caller waits for an answer.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// What every connection has, whatever its protocol.
#[derive(Debug, Clone)]
pub struct Common {
    /// The folder that the connection is confined to; its paths are told relative to it.
    pub root: RemotePath,
    /// Operations at once; also the size of the connection pool. Further ones wait.
    pub operations_max: usize,
    /// For connecting and logging in.
    pub connect_timeout: Duration,
    /// For each answer of the remote and each chunk of a transfer; not for a transfer as a whole.
    pub read_timeout: Duration,
    /// After so long without use a pooled connection is closed.
    pub idle_timeout: Duration,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            root: RemotePath::root(),
            operations_max: 8,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// A connection's own settings, by protocol.
#[derive(Debug, Clone)]
pub enum Config {
    /// A folder of this machine.
    Local(local::Config),
    /// A server that speaks FTP.
    Ftp(ftp::Config),
    /// A server that speaks SFTP.
    Sftp(sftp::Config),
    /// A Dropbox account.
    Dropbox(dropbox::Config),
    /// An HTTP origin.
    Http(http::Config),
}

/// A handle on one configured connection; cheap to clone.
#[derive(Clone)]
pub struct Remote {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    common: Common,
    protocol: Protocol,
    permits: Arc<Semaphore>,
}

enum Protocol {
    Files { kind: &'static str, backend: Box<dyn Backend> },
    Dropbox(Arc<dropbox::Dropbox>),
    Http(Arc<http::Origin>),
}

impl Remote {
    /// A handle on a connection. Nothing is opened before the first operation.
    ///
    /// # Errors
    /// `Invalid` for settings that contradict each other or lead nowhere, such as a local folder that does not exist.
    pub fn new(name: &str, common: Common, config: Config, egress: &Arc<Egress>) -> Result<Self, Error> {
        let protocol = match config {
            Config::Local(config) => Protocol::Files { kind: "local", backend: Box::new(local::Local::new(&config)?) },
            Config::Ftp(config) => {
                Protocol::Files { kind: "ftp", backend: Box::new(ftp::Ftp::new(config, &common, Arc::clone(egress))?) }
            }
            Config::Sftp(config) => Protocol::Files {
                kind: "sftp",
                backend: Box::new(sftp::Sftp::new(config, &common, Arc::clone(egress))?),
            },
            Config::Dropbox(config) => {
                Protocol::Dropbox(Arc::new(dropbox::Dropbox::new(config, &common, Arc::clone(egress))?))
            }
            Config::Http(config) => Protocol::Http(Arc::new(http::Origin::new(config, &common, Arc::clone(egress))?)),
        };
        let permits = Arc::new(Semaphore::new(common.operations_max.max(1)));
        Ok(Self { shared: Arc::new(Shared { name: name.to_owned(), common, protocol, permits }) })
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The `type` of the configuration: `local`, `ftp`, `sftp`, `dropbox` or `http`.
    pub fn kind(&self) -> &'static str {
        match &self.shared.protocol {
            Protocol::Files { kind, .. } => kind,
            Protocol::Dropbox(_) => "dropbox",
            Protocol::Http(_) => "http",
        }
    }

    /// The account behind a connection of type `dropbox`, for what only Dropbox has.
    pub fn dropbox(&self) -> Option<dropbox::Account> {
        match &self.shared.protocol {
            Protocol::Dropbox(client) => {
                Some(dropbox::Account::new(self.clone(), Arc::clone(client), self.shared.common.root.clone()))
            }
            _ => None,
        }
    }

    /// The origin behind a connection of type `http`.
    pub fn http(&self) -> Option<Arc<http::Origin>> {
        match &self.shared.protocol {
            Protocol::Http(origin) => Some(Arc::clone(origin)),
            _ => None,
        }
    }

    /// Opens, authenticates and does the smallest real operation; the time that this took.
    ///
    /// # Errors
    /// What failed: the name, the connection, the login or the command.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let started = Instant::now();
        let _permit = self.permit().await?;
        self.logged("ping", &RemotePath::root(), self.backend("ping")?.ping()).await?;
        Ok(started.elapsed())
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// `NotFound` when nothing is; otherwise what the remote reports.
    pub async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let _permit = self.permit().await?;
        let outside = self.outside(path);
        let entry = self.logged("stat", path, self.backend("stat")?.stat(&outside)).await?;
        self.inside(entry)
    }

    /// The entries of a folder, page by page.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it is not a folder.
    pub async fn list_pages(
        &self,
        path: &RemotePath,
    ) -> Result<impl Stream<Item = Result<Vec<Entry>, Error>> + Send + use<>, Error> {
        let permit = self.permit().await?;
        let outside = self.outside(path);
        let pages: Pages = self.logged("list", path, self.backend("list")?.list(&outside)).await?;
        let remote = self.clone();
        Ok(pages.map(move |page| {
            let _held_until_the_end_of_the_listing = &permit;
            page?.into_iter().map(|entry| remote.inside(entry)).collect()
        }))
    }

    /// All entries of a folder.
    ///
    /// # Errors
    /// `NotFound`, `Conflict`; `TooLarge` with more than [`LIST_ENTRIES_MAX`] entries.
    pub async fn list(&self, path: &RemotePath) -> Result<Vec<Entry>, Error> {
        let pages = self.list_pages(path).await?;
        futures::pin_mut!(pages);
        let mut entries = Vec::new();
        while let Some(page) = pages.try_next().await? {
            entries.extend(page);
            if entries.len() > LIST_ENTRIES_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("{path} on {} has more than {LIST_ENTRIES_MAX} entries; list it page by page", self.name()),
                ));
            }
        }
        Ok(entries)
    }

    /// A file's content, pulled from the remote as it is consumed.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` for a folder; a transfer that breaks off is an error item of the content.
    pub async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let permit = self.permit().await?;
        let outside = self.outside(path);
        let content = self.logged("read", path, self.backend("read")?.read(&outside, range)).await?;
        Ok(held_with(content, permit))
    }

    /// Writes a file: whole under its name, or not at all.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for a missing folder, `Conflict` when the target is a folder, and what `content`
    /// or the remote reports.
    pub async fn write(&self, path: &RemotePath, content: Content, if_exists: IfExists) -> Result<Entry, Error> {
        let _permit = self.permit().await?;
        let outside = self.outside(path);
        let write = self.backend("write")?.write(&outside, content, if_exists);
        let entry = self.logged("write", path, write).await?;
        self.inside(entry)
    }

    /// Deletes a file or an empty folder.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the folder is not empty; `Invalid` for the root.
    pub async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        self.not_the_root("delete", path)?;
        let _permit = self.permit().await?;
        let outside = self.outside(path);
        self.logged("delete", path, self.backend("delete")?.delete(&outside)).await
    }

    /// Renames within the connection.
    ///
    /// # Errors
    /// `NotFound` for the source, `AlreadyExists` for the target with [`IfExists::Fail`], `Unsupported` with
    /// [`IfExists::Rename`], `Invalid` for the root.
    pub async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        self.not_the_root("rename", source)?;
        self.not_the_root("rename", target)?;
        let _permit = self.permit().await?;
        let (from, to) = (self.outside(source), self.outside(target));
        self.logged("rename", source, self.backend("rename")?.rename(&from, &to, if_exists)).await
    }

    /// Makes one folder.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for a missing parent, unless the remote makes it.
    pub async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let _permit = self.permit().await?;
        let outside = self.outside(path);
        self.logged("make-directory", path, self.backend("make-directory")?.make_directory(&outside)).await
    }

    fn backend(&self, operation: &str) -> Result<&dyn Backend, Error> {
        match &self.shared.protocol {
            Protocol::Files { backend, .. } => Ok(backend.as_ref()),
            Protocol::Dropbox(dropbox) => Ok(dropbox.as_ref()),
            Protocol::Http(_) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("connection {} is of type http, which has no {operation}: it holds no files", self.name()),
            )),
        }
    }

    /// Waits for a place among the operations of this connection. The wait is bounded, because operations that each
    /// hold one place and wait for a second one (a copy within the connection) would wait for each other for ever.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned();
        match tokio::time::timeout(PERMIT_WAIT_MAX, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(closed)) => {
                Err(Error::new(ErrorKind::Internal, format!("connection {} was closed", self.name()))
                    .with_source(closed))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {} operations that connection {} allows at once were busy for {} s; raise operations-max",
                    self.shared.common.operations_max,
                    self.name(),
                    PERMIT_WAIT_MAX.as_secs()
                ),
            )),
        }
    }

    fn outside(&self, path: &RemotePath) -> RemotePath {
        path.below(&self.shared.common.root)
    }

    fn inside(&self, mut entry: Entry) -> Result<Entry, Error> {
        let path = entry.path.relative_to(&self.shared.common.root).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("connection {} answered with {}, outside of its root", self.name(), entry.path),
            )
        })?;
        entry.path = path;
        Ok(entry)
    }

    fn not_the_root(&self, operation: &str, path: &RemotePath) -> Result<(), Error> {
        if path.is_root() {
            let name = self.name();
            return Err(Error::new(ErrorKind::Invalid, format!("cannot {operation} the root of connection {name}")));
        }
        Ok(())
    }

    async fn logged<T>(
        &self,
        operation: &'static str,
        path: &RemotePath,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let result = work.await;
        tracing::debug!(
            connection = self.name(),
            operation,
            path = path.as_str(),
            duration_ms = started.elapsed().as_millis() as u64,
            outcome = result.as_ref().err().map_or("ok".to_owned(), |error| format!("{:?}", error.kind())),
            "connection operation"
        );
        result
    }
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remote").field("name", &self.name()).field("kind", &self.kind()).finish()
    }
}

/// Content in chunks of at most [`CHUNK_BYTES`] that keeps a place among the connection's operations until it is
/// consumed or dropped.
fn held_with(content: Content, permit: OwnedSemaphorePermit) -> Content {
    let size = content.size();
    let chunks = content.into_stream().map_ok(|chunk| stream::iter(content::pieces(chunk)).map(Ok)).try_flatten();
    Content::from_stream(
        size,
        chunks.map(move |chunk| {
            let _held_until_the_content_is_dropped = &permit;
            chunk
        }),
    )
}
