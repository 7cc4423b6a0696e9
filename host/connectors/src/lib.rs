//! Bytes to and from remote places: local folders, FTP, SFTP, Dropbox, HTTP origins.
//!
//! A [`Remote`] is an open handle on one configured connection; its operations are in `remote`, what holds for each of
//! them (a place among those at once, retries, bandwidth, log line, metrics) in `operation`, whole trees in `walk` and
//! `transfer`. Each protocol is one module behind a private trait. Knows no WebAssembly, no configuration file, no
//! listener.

mod error;
mod path;
mod content;
pub mod deadline;
mod egress;
mod backend;
mod border;
mod idle;
mod temporary;
pub mod tls;
mod operation;
mod remote;
mod walk;
mod transfer;
pub mod local;
pub mod ftp;
pub mod sftp;
pub mod dropbox;
#[doc(hidden)]
pub mod fuzzing;
pub mod http;

use std::collections::HashSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use backend::{
    ByteRange, Checksum, ChecksumAlgorithm, Entry, EntryKind, Facts, IfExists, Permissions, Resume, ResumeKey,
    WriteOptions,
};
pub use content::{CHUNK_BYTES, Content};
pub use egress::Egress;
pub use error::{Error, ErrorKind, Step, chain};
pub use path::{PATH_BYTES_MAX, RemotePath, bytes_of, name_of, text_of};
pub use remote::{LIST_ENTRIES_MAX, Ping};
pub use transfer::{
    FileResult, IfPresent, Outcome, PARALLEL_DEFAULT, PARALLEL_MAX, Progress, Transfer, TransferOptions, Verify,
    transfer,
};
pub use walk::{Filter, WALK_FOLDER_ENTRIES_MAX, WALK_FOLDERS_MAX};

use operation::Throttle;

/// What a connect timeout may be. A shorter one fails on a slow day; TCP itself gives up after about two minutes.
pub const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);

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
    /// After so long a pooled connection is not used again, however busy it is.
    pub life_time: Duration,
    /// How often an operation that is safe to repeat is tried again when the remote was out of reach or broke off.
    pub retries: u32,
    /// Bytes per second over all transfers of the connection, both ways together; as fast as it goes when absent.
    pub bandwidth: Option<u64>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            root: RemotePath::root(),
            operations_max: 8,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            life_time: Duration::from_secs(3600),
            retries: 2,
            bandwidth: None,
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
    throttle: Option<Arc<Throttle>>,
    /// Partial contents that are being continued, so that no two writes work on one.
    resuming: Arc<Mutex<HashSet<(RemotePath, ResumeKey)>>>,
}

enum Protocol {
    Local(Arc<local::Local>),
    Ftp(Arc<ftp::Ftp>),
    Sftp(Arc<sftp::Sftp>),
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
            Config::Local(config) => Protocol::Local(Arc::new(local::Local::new(&config, &common.root)?)),
            Config::Ftp(config) => Protocol::Ftp(Arc::new(ftp::Ftp::new(config, &common, Arc::clone(egress))?)),
            Config::Sftp(config) => Protocol::Sftp(Arc::new(sftp::Sftp::new(config, &common, Arc::clone(egress))?)),
            Config::Dropbox(config) => {
                Protocol::Dropbox(Arc::new(dropbox::Dropbox::new(config, &common, Arc::clone(egress))?))
            }
            Config::Http(config) => {
                Protocol::Http(Arc::new(http::Origin::new(name, config, &common, Arc::clone(egress))?))
            }
        };
        let permits = Arc::new(Semaphore::new(common.operations_max.max(1)));
        let throttle = common.bandwidth.map(|bandwidth| Arc::new(Throttle::new(bandwidth)));
        let (name, resuming) = (name.to_owned(), Arc::default());
        Ok(Self { shared: Arc::new(Shared { name, common, protocol, permits, throttle, resuming }) })
    }

    /// The same connection, on which no symbolic link leads out of any of these folders: what lies in one of them is in
    /// the innermost.
    #[must_use]
    pub fn within(&self, folders: &[RemotePath]) -> Self {
        let Shared { name, common, protocol, permits, throttle, resuming } = &*self.shared;
        let borders: Vec<RemotePath> =
            folders.iter().chain([&RemotePath::root()]).map(|folder| self.outside(folder)).collect();
        let protocol = match protocol {
            Protocol::Local(local) => Protocol::Local(Arc::new(local.within(borders))),
            Protocol::Sftp(server) => Protocol::Sftp(Arc::new(server.within(borders))),
            Protocol::Ftp(server) => Protocol::Ftp(Arc::new(server.within(borders))),
            Protocol::Dropbox(_) | Protocol::Http(_) => return self.clone(),
        };
        let shared = Shared {
            name: name.clone(),
            common: common.clone(),
            protocol,
            permits: Arc::clone(permits),
            throttle: throttle.clone(),
            resuming: Arc::clone(resuming),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Whether both are handles on one connection.
    pub(crate) fn is_same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared.permits, &other.shared.permits)
    }

    /// The configured name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// The `type` of the configuration: `local`, `ftp`, `sftp`, `dropbox` or `http`.
    pub fn kind(&self) -> &'static str {
        match &self.shared.protocol {
            Protocol::Local(_) => "local",
            Protocol::Ftp(_) => "ftp",
            Protocol::Sftp(_) => "sftp",
            Protocol::Dropbox(_) => "dropbox",
            Protocol::Http(_) => "http",
        }
    }

    /// The server behind a connection of type `ftp`, for what only FTP has.
    pub fn ftp(&self) -> Option<ftp::Server> {
        match &self.shared.protocol {
            Protocol::Ftp(ftp) => Some(ftp::Server::new(self.clone(), Arc::clone(ftp))),
            _ => None,
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

    /// The server behind a connection of type `sftp`, for what only SFTP has.
    pub fn sftp(&self) -> Option<sftp::Handle> {
        match &self.shared.protocol {
            Protocol::Sftp(server) => Some(sftp::Handle::new(self.clone(), Arc::clone(server))),
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
}

impl fmt::Debug for Remote {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Remote").field("name", &self.name()).field("kind", &self.kind()).finish()
    }
}
