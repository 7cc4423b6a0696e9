//! Starting an emulator, and looking into a running one from the program that started it.
//!
//! The public face of the crate: wires account, tokens, faults, log, TLS and server. Knows no protocol detail.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use serde::Serialize;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::account::Account;
use crate::dispatch::{Emulation, Turns};
use crate::faults::{Fault, FaultError, Faults};
use crate::oauth::{Application, Tokens};
use crate::request_log::{RequestLog, RequestRecord};
use crate::server;
use crate::store::content::ContentWriter;
use crate::store::path::RemotePath;
use crate::store::{Commit, Locator, WriteError, WriteMode};
use crate::tls::{Identity, TlsError};

/// How an emulator is set up. None of the credentials is worth keeping secret: they open an account that exists in
/// memory only.
#[derive(Debug, Clone)]
pub struct Options {
    /// The address to listen on; port 0 for a free one.
    pub listen: SocketAddr,
    /// The most bytes held, of files and of uploads under way together; past it writes fail with `insufficient_space`.
    pub max_bytes: u64,
    /// The `client_id` of the one app.
    pub app_key: String,
    /// Its `client_secret`. A client may leave it out, but not give a wrong one.
    pub app_secret: String,
    /// The one refresh token, never rotated.
    pub refresh_token: String,
    /// The code that `authorization_code` exchanges for the refresh token, as often as asked.
    pub authorization_code: String,
    /// An access token that is valid from the start and does not expire by itself.
    pub access_token: String,
    /// How long an access token from the token route is valid, in whole seconds.
    pub access_token_lifetime: Duration,
    /// How long a change holds the lock of the namespace, which Dropbox gives to one call at a time. With zero there is
    /// no lock.
    pub change_time: Duration,
    /// Changes that may wait for the lock; further ones are refused with `too_many_write_operations`.
    pub changes_waiting_max: usize,
    /// After so long a long poll is answered, whatever it asked for: its shortest wait is half a minute.
    pub longest_poll: Duration,
    /// Entries per page of a listing whose request has no limit. Small values make clients page.
    pub page_entries: usize,
}

impl Default for Options {
    /// A free port on 127.0.0.1, 2 GiB, tokens valid for four hours, no lock, pages of 500 entries.
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            max_bytes: 2 * 1024 * 1024 * 1024,
            app_key: "emulator-app-key".into(),
            app_secret: "emulator-app-secret".into(),
            refresh_token: "emulator-refresh-token".into(),
            authorization_code: "emulator-authorization-code".into(),
            access_token: "emulator-access-token".into(),
            access_token_lifetime: Duration::from_secs(4 * 60 * 60),
            change_time: Duration::ZERO,
            changes_waiting_max: 2,
            longest_poll: Duration::from_secs(480),
            page_entries: 500,
        }
    }
}

/// Why an emulator did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is taken, not ours, or not allowed.
    #[error("the emulator cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// No certificate.
    #[error("the emulator has no TLS identity")]
    Tls(#[from] TlsError),
}

/// Why [`Running::put`] stored nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PutError {
    /// Not a path Dropbox would store: it starts with a slash and has only fit names.
    #[error("this is not a path that can be stored")]
    Path,
    /// A folder is at the path, or a file above it.
    #[error("a folder is at this path, or a file is above it")]
    Conflict,
    /// `max_bytes` is reached.
    #[error("there is no space left")]
    InsufficientSpace,
}

/// One stored file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileRecord {
    /// The path as it is shown.
    pub path: String,
    /// In bytes.
    pub size: u64,
    /// The Dropbox content hash, see [`content_hash`](crate::content_hash).
    pub content_hash: String,
    /// The current revision.
    pub rev: String,
}

/// An emulator that is not running yet.
#[derive(Debug)]
pub struct Emulator;

impl Emulator {
    /// Starts listening, on the current Tokio runtime. When this returns, connections are accepted.
    ///
    /// # Errors
    /// [`StartError`] if the address cannot be listened on or no certificate can be made.
    pub async fn start(options: Options) -> Result<Running, StartError> {
        let identity = Identity::generate()?;
        let listen = |source| StartError::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let application = Application {
            key: options.app_key,
            secret: options.app_secret,
            refresh_token: options.refresh_token,
            authorization_code: options.authorization_code,
            access_token_lifetime: options.access_token_lifetime,
        };
        let emulation = Arc::new(Emulation {
            account: Account::new(options.max_bytes, options.page_entries.max(1)),
            longest_poll: options.longest_poll,
            turns: Turns::new(options.change_time, options.changes_waiting_max),
            tokens: Tokens::new(application, options.access_token),
            faults: Faults::default(),
            log: Arc::new(RequestLog::default()),
        });
        let server = tokio::spawn(server::serve(listener, TlsAcceptor::from(identity.server), Arc::clone(&emulation)));
        Ok(Running { address, ca_pem: identity.ca_pem, emulation, server })
    }
}

/// An emulator that accepts connections until this is dropped.
pub struct Running {
    address: SocketAddr,
    ca_pem: String,
    emulation: Arc<Emulation>,
    server: JoinHandle<()>,
}

impl Running {
    /// Where it listens. One port serves what Dropbox spreads over its api, content and notify hosts.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`, without a slash at the end.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate authority a client must trust, in PEM. New at every start.
    #[must_use]
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// Every file, in path order.
    #[must_use]
    pub fn files(&self) -> Vec<FileRecord> {
        file_records(&self.emulation.account)
    }

    /// The bytes of the file at `path`; `None` if there is none.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let path = RemotePath::parse(path).ok()?;
        let found = self.emulation.account.namespace().find_file(&Locator::Path(path));
        found.ok().map(|(_, file)| file.content.to_vec())
    }

    /// Stores a file with the folders above it, or replaces it, as another client of the account would.
    ///
    /// # Errors
    /// [`PutError`] if the path is unfit or taken by a folder, or no space is left.
    pub fn put(&self, path: &str, bytes: &[u8]) -> Result<(), PutError> {
        let path = RemotePath::parse(path).map_err(|_| PutError::Path)?;
        let mut writer = ContentWriter::new(self.emulation.account.quota());
        writer.push(bytes).map_err(|_| PutError::InsufficientSpace)?;
        let commit =
            Commit { mode: WriteMode::Overwrite, autorename: false, strict_conflict: false, client_modified: None };
        let written = self.emulation.account.namespace().write(&Locator::Path(path), &commit, writer.finish());
        written.map(|_| ()).map_err(|error| match error {
            WriteError::MalformedPath | WriteError::DisallowedName => PutError::Path,
            WriteError::InsufficientSpace => PutError::InsufficientSpace,
            _ => PutError::Conflict,
        })
    }

    /// Deletes a file or a folder, as another client of the account would; false if nothing was there.
    pub fn remove(&self, path: &str) -> bool {
        let Ok(path) = RemotePath::parse(path) else {
            return false;
        };
        self.emulation.account.namespace().delete(&Locator::Path(path), None).is_ok()
    }

    /// Upload sessions that were neither committed nor given up.
    #[must_use]
    pub fn open_sessions(&self) -> usize {
        self.emulation.account.sessions().len()
    }

    /// The requests answered so far, oldest first; the last ten thousand.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.emulation.log.records()
    }

    /// Lets something go wrong.
    ///
    /// # Errors
    /// [`FaultError`] if the fault could never strike.
    pub fn inject(&self, fault: Fault) -> Result<(), FaultError> {
        self.emulation.faults.inject(fault)
    }

    /// Withdraws every fault that is not used up.
    pub fn clear_faults(&self) {
        self.emulation.faults.clear();
    }

    /// Makes every access token handed out so far an expired one.
    pub fn expire_access_tokens(&self) {
        self.emulation.tokens.expire_all();
    }

    /// Ends it: when this returns the port is free and every connection closed.
    pub async fn stop(mut self) {
        self.server.abort();
        // The only error is the cancellation just asked for.
        let _cancelled = (&mut self.server).await;
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Running").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Every file of an account.
pub(crate) fn file_records(account: &Account) -> Vec<FileRecord> {
    let namespace = account.namespace();
    let records = namespace.files().map(|(path, file)| FileRecord {
        path: path.as_str().to_owned(),
        size: file.content.size(),
        content_hash: file.content.hash().to_owned(),
        rev: file.rev.clone(),
    });
    records.collect()
}
