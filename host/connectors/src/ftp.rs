//! A server that speaks FTP (RFC 959, with RFC 2428, 2640 and 3659 where the server knows them) as a connection.
//!
//! This file says which commands an operation is made of and what their replies mean. How a connection comes about is
//! in `dialer`, how it keeps in step with its server in `session`, which ones are open in `pool`, how a file gets its
//! name in `upload`, what a line of a listing says in `listing`.
//!
//! Replies of class 5 are nearly always `550`, whatever happened: what a refusal means is found out by looking, not by
//! its text.

mod dialer;
mod listing;
mod pool;
mod reply;
mod secure;
mod session;
mod upload;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use secrecy::{ExposeSecret, SecretString};
use tokio::io::AsyncReadExt;

use crate::Common;
use crate::backend::{Backend, ByteRange, Checksum, Entry, EntryKind, Facts, IfExists, Pages, ResumeKey, WriteOptions};
use crate::content::{CHUNK_BYTES, Content};
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use crate::temporary;
use crate::tls;
use dialer::{Dialer, Secure};
use listing::Line;
use pool::Pool;
use reply::Reply;
use session::{Lines, Open, Session, Transfer};
use upload::Upload;

/// Where FTP servers listen (RFC 959, section 5.2).
pub const PORT: u16 = 21;

/// Where FTP servers listen that begin with TLS (IANA, `ftps`).
pub const PORT_IMPLICIT: u16 = 990;

/// Entries of one page of a listing.
const PAGE_ENTRIES: usize = 256;

/// Lines of one listing, those that are left out included: far more than a folder that anybody works with, and an end
/// for a server that has none.
const LISTING_LINES_MAX: usize = 1_000_000;

/// Entries left out of one listing that are told one by one in the log; beyond that only their number is.
const LEFT_OUT_TOLD_MAX: usize = 5;

/// The free part of a read buffer below which a new one is taken: a smaller rest would make for tiny reads.
const READ_BYTES_MIN: usize = 8 * 1024;

/// Settings of an FTP server.
#[derive(Debug, Clone)]
pub struct Config {
    /// Name or address.
    pub host: String,
    /// Port of the control connection; 21 by custom.
    pub port: u16,
    /// Who logs in.
    pub user: String,
    /// With which password.
    pub password: SecretString,
    /// Whether the connections are encrypted.
    pub security: Security,
    /// How data connections come about.
    pub passive: Passive,
}

impl Config {
    /// A server at its usual port that is talked to in the clear.
    pub fn new(host: &str, user: &str, password: SecretString) -> Self {
        Self {
            host: host.to_owned(),
            port: PORT,
            user: user.to_owned(),
            password,
            security: Security::None,
            passive: Passive::Auto,
        }
    }
}

/// Whether commands and data are encrypted: both, or neither.
#[derive(Debug, Clone, Default)]
pub enum Security {
    /// Everything in the clear, the password too.
    #[default]
    None,
    /// TLS is asked for right after the greeting, by `AUTH TLS` (RFC 4217). Where it is refused, nothing is sent.
    Explicit(tls::Config),
    /// TLS from the first byte on, usually at port 990.
    Implicit(tls::Config),
}

/// How the server tells where it awaits a data connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Passive {
    /// `EPSV`, and `PASV` where that fails.
    #[default]
    Auto,
    /// `EPSV` only (RFC 2428): the server names a port and no address.
    Epsv,
    /// `PASV` only (RFC 959). The address must be the one of the control connection.
    Pasv,
    /// `PASV` only, and the address is ignored: for servers behind a NAT that announce their inner address.
    PasvSameHost,
}

/// An FTP server.
pub(crate) struct Ftp {
    pool: Arc<Pool>,
    read_timeout: Duration,
}

impl Ftp {
    pub(crate) fn new(config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the FTP connection {why}")));
        if config.host.is_empty() || config.port == 0 {
            return invalid("has no host or no port");
        }
        if [config.user.as_str(), config.password.expose_secret()].iter().any(|text| text.contains(char::is_control)) {
            return invalid("has a control character in its user or password, which FTP cannot send");
        }
        let secure = match &config.security {
            Security::None => None,
            Security::Explicit(tls) | Security::Implicit(tls) => Some(Secure::new(tls)?),
        };
        let dialer = Dialer {
            config,
            secure,
            egress,
            connect_timeout: common.connect_timeout,
            read_timeout: common.read_timeout,
        };
        let pool = Pool::new(dialer, common.operations_max, common.idle_timeout);
        Ok(Self { pool, read_timeout: common.read_timeout })
    }

    /// Begins an operation: takes a connection and asks what is at `path`.
    async fn look(&self, path: &RemotePath) -> Result<(Session, Option<Entry>), Error> {
        self.first(path, |session, path| Box::pin(session.stat(path))).await
    }

    /// Begins an operation with a question that changes nothing. When a connection from the pool turns out to be
    /// closed, the question is asked once more on a new one.
    async fn first<T>(&self, path: &RemotePath, ask: Question<T>) -> Result<(Session, T), Error> {
        let (mut session, is_reused) = self.pool.take().await?;
        let mut answer = ask(&mut session, path).await;
        if answer.is_err() && is_reused && session.is_closed_unanswered() {
            session = self.pool.connect().await?;
            answer = ask(&mut session, path).await;
        }
        match answer {
            Ok(answer) => Ok((session, answer)),
            Err(error) => {
                self.pool.put(session);
                Err(error)
            }
        }
    }
}

/// A question to the server that changes nothing there.
type Question<T> = for<'a> fn(&'a mut Session, &'a RemotePath) -> BoxFuture<'a, Result<T, Error>>;

#[async_trait]
impl Backend for Ftp {
    fn makes_parents(&self) -> bool {
        false
    }

    fn repeats_by_itself(&self) -> bool {
        false
    }

    async fn ping(&self) -> Result<Facts, Error> {
        let root = RemotePath::root();
        let (session, ()) = self.first(&root, |session, _| Box::pin(noop(session))).await?;
        self.pool.put(session);
        Ok(Vec::new())
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let (session, found) = self.look(path).await?;
        self.pool.put(session);
        found.ok_or_else(|| not_there("stat", path))
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        let (mut session, opened) = self.first(path, |session, path| Box::pin(session.open_listing(path))).await?;
        let lines = match opened {
            Ok(lines) => lines,
            Err(reply) => {
                let error = not_listed(&mut session, path, &reply).await;
                self.pool.put(session);
                return Err(error);
            }
        };
        let listing = Listing {
            pool: Arc::clone(&self.pool),
            open: Some((session, lines)),
            folder: path.clone(),
            lines: 0,
            left_out: 0,
        };
        Ok(stream::try_unfold(listing, Listing::next_page).boxed())
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let (mut session, size) = self.first(path, |session, path| Box::pin(session.size(path))).await?;
        let wanted = size.map(|size| size.saturating_sub(range.offset).min(range.length.unwrap_or(u64::MAX)));
        if wanted == Some(0) {
            self.pool.put(session);
            return Ok(Content::from_bytes(Bytes::new()));
        }
        let transfer = match session.open(Open::Retrieve { path, offset: range.offset }).await? {
            Ok(transfer) => transfer,
            Err(reply) => {
                let error = not_read(&mut session, path, &reply).await;
                self.pool.put(session);
                return Err(error);
            }
        };
        let reaches_end = match (size, wanted) {
            (Some(size), Some(wanted)) => range.offset.saturating_add(wanted) == size,
            _ => range.length.is_none(),
        };
        let download = Download {
            pool: Arc::clone(&self.pool),
            path: path.clone(),
            open: Some((session, transfer)),
            buffer: BytesMut::new(),
            left: wanted.or(range.length),
            is_exact: wanted.is_some(),
            reaches_end,
            read_timeout: self.read_timeout,
        };
        Ok(Content::from_stream(wanted, stream::try_unfold(download, Download::next_chunk)))
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let if_exists = options.if_exists;
        let Some(folder) = path.parent() else { return Err(is_a_folder("write", path)) };
        let temporary = folder.join(&temporary::name_for(path.name()))?;
        let (session, target) = self.look(path).await?;
        let refusal = match target.map(|entry| entry.kind) {
            Some(EntryKind::Directory) => is_a_folder("write", path),
            Some(_) if if_exists == IfExists::Fail => upload::exists("write", path),
            _ => return Upload::new(Arc::clone(&self.pool), session, temporary).run(path, content, if_exists).await,
        };
        self.pool.put(session);
        Err(refusal)
    }

    async fn partial(&self, _: &RemotePath, _: &ResumeKey) -> Result<u64, Error> {
        Ok(0)
    }

    async fn append(&self, path: &RemotePath, _: Content) -> Result<Entry, Error> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot append to {path}: connections of type ftp cannot append"),
        ))
    }

    async fn copy(&self, _: &RemotePath, _: &RemotePath, _: IfExists) -> Result<Option<Entry>, Error> {
        Ok(None)
    }

    async fn delete_tree(&self, _: &RemotePath) -> Result<bool, Error> {
        Ok(false)
    }

    async fn set_modified(&self, path: &RemotePath, _: SystemTime) -> Result<(), Error> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot set the time of {path}: connections of type ftp cannot"),
        ))
    }

    async fn checksum(&self, _: &RemotePath) -> Result<Option<Checksum>, Error> {
        Ok(None)
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let (mut session, found) = self.look(path).await?;
        let deleted = match found {
            Some(entry) => delete(&mut session, &entry).await,
            None => Err(not_there("delete", path)),
        };
        self.pool.put(session);
        deleted
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose another name by itself"));
        }
        let (mut session, found) = self.look(source).await?;
        let renamed = match found {
            Some(_) => rename(&mut session, source, target, if_exists).await,
            None => Err(not_there("rename", source)),
        };
        self.pool.put(session);
        renamed
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let (mut session, found) = self.look(path).await?;
        let made = match found {
            Some(_) => Err(upload::exists("make folder", path)),
            None => make_directory(&mut session, path).await,
        };
        self.pool.put(session);
        made
    }
}

async fn noop(session: &mut Session) -> Result<(), Error> {
    let reply = session.command("NOOP").await?;
    if reply.is_positive() { Ok(()) } else { Err(session.refused("answer NOOP", &reply)) }
}

async fn not_listed(session: &mut Session, path: &RemotePath, reply: &Reply) -> Error {
    match session.stat(path).await {
        Ok(None) => not_there("list", path),
        Ok(Some(entry)) if entry.kind != EntryKind::Directory => {
            Error::new(ErrorKind::Conflict, format!("cannot list {path}: it is not a folder"))
        }
        _ => session.refused(&format!("list {path}"), reply),
    }
}

async fn not_read(session: &mut Session, path: &RemotePath, reply: &Reply) -> Error {
    match session.stat(path).await {
        Ok(None) => not_there("read", path),
        Ok(Some(entry)) if entry.kind == EntryKind::Directory => is_a_folder("read", path),
        _ => session.refused(&format!("read {path}"), reply),
    }
}

async fn delete(session: &mut Session, entry: &Entry) -> Result<(), Error> {
    let path = &entry.path;
    let attempt = format!("delete {path}");
    let as_file = format!("DELE {path}");
    if entry.kind != EntryKind::Directory {
        let reply = session.command(&as_file).await?;
        return if reply.is_positive() { Ok(()) } else { Err(session.refused(&attempt, &reply)) };
    }
    let reply = session.command(&format!("RMD {path}")).await?;
    // A link to a folder may look like one; a folder itself is never deleted by DELE.
    if reply.is_positive() || session.command(&as_file).await?.is_positive() {
        return Ok(());
    }
    let Ok(mut lines) = session.open_listing(path).await? else { return Err(session.refused(&attempt, &reply)) };
    let mut is_empty = true;
    while let Some(line) = lines.next(session.read_timeout()).await? {
        match lines.read(&line) {
            Line::Entry(listed) if listed.name != "." && listed.name != ".." => {
                // The rest of the listing does not matter, so neither does the connection.
                is_empty = false;
                break;
            }
            _ => {}
        }
    }
    if is_empty {
        return match session.finish(lines.into_transfer()).await? {
            Ok(()) => Err(session.refused(&attempt, &reply)),
            Err(_) => Err(session.refused(&attempt, &reply)),
        };
    }
    Err(Error::new(ErrorKind::Conflict, format!("cannot delete {path}: the folder is not empty")))
}

async fn rename(
    session: &mut Session,
    source: &RemotePath,
    target: &RemotePath,
    if_exists: IfExists,
) -> Result<(), Error> {
    let existing = session.stat(target).await?;
    match &existing {
        None => {}
        Some(_) if if_exists == IfExists::Fail => return Err(upload::exists("rename to", target)),
        Some(_) if source == target => return Ok(()),
        Some(entry) if entry.kind == EntryKind::Directory => return Err(is_a_folder("rename to", target)),
        Some(_) => {}
    }
    let Err(reply) = session.rename(source, target).await? else { return Ok(()) };
    if existing.is_none() {
        return Err(session.not_put("rename to", target, &reply).await);
    }
    // A server that renames onto nothing that exists. The source stays under its name until the second rename.
    let deleted = session.command(&format!("DELE {target}")).await?;
    if !deleted.is_positive() {
        return Err(session.refused(&format!("replace {target}"), &deleted));
    }
    let renamed = session.rename(source, target).await?;
    renamed.map_err(|reply| session.refused(&format!("rename {source} to {target}, which was deleted for it"), &reply))
}

async fn make_directory(session: &mut Session, path: &RemotePath) -> Result<(), Error> {
    let reply = session.command(&format!("MKD {path}")).await?;
    if reply.is_positive() {
        return Ok(());
    }
    // Somebody may have been quicker.
    match session.stat(path).await? {
        Some(_) => Err(upload::exists("make folder", path)),
        None => Err(session.not_put("make folder", path, &reply).await),
    }
}

fn not_there(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("cannot {operation} {path}: nothing is there"))
}

fn is_a_folder(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::Conflict, format!("cannot {operation} {path}: it is a folder"))
}

/// A listing on its way. Dropped before its end, its connection is closed.
struct Listing {
    pool: Arc<Pool>,
    open: Option<(Session, Lines)>,
    folder: RemotePath,
    lines: usize,
    left_out: usize,
}

impl Listing {
    async fn next_page(mut self) -> Result<Option<(Vec<Entry>, Self)>, Error> {
        let Some((session, mut lines)) = self.open.take() else { return Ok(None) };
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES {
            let Some(line) = lines.next(session.read_timeout()).await? else {
                self.end(session, lines).await?;
                return Ok((!page.is_empty()).then_some((page, self)));
            };
            self.lines += 1;
            if self.lines > LISTING_LINES_MAX {
                let message = format!("the listing of {} has more than {LISTING_LINES_MAX} lines", self.folder);
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
            match lines.read(&line) {
                Line::Entry(listed) if listed.name == "." || listed.name == ".." => {}
                Line::Entry(listed) => match self.folder.join(&listed.name) {
                    Ok(path) => page.push(listed.at(path)),
                    Err(_) => self.leave_out(&listed.name),
                },
                Line::Nothing => {}
                Line::Unreadable => self.leave_out(&String::from_utf8_lossy(&line)),
            }
        }
        self.open = Some((session, lines));
        Ok(Some((page, self)))
    }

    async fn end(&self, mut session: Session, lines: Lines) -> Result<(), Error> {
        if self.left_out > LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, entries = self.left_out, "left entries out of a listing");
        }
        let finished = session.finish(lines.into_transfer()).await?;
        let ended = finished.map_err(|reply| {
            let message = format!("the listing of {} was broken off by the FTP server: {}", self.folder, reply.text());
            Error::new(ErrorKind::Interrupted, message)
        });
        self.pool.put(session);
        ended
    }

    fn leave_out(&mut self, line: &str) {
        self.left_out += 1;
        if self.left_out <= LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, line, "left an entry out of a listing: it has no valid name");
        }
    }
}

/// A file on its way. Dropped before its end, its connection is closed.
struct Download {
    pool: Arc<Pool>,
    path: RemotePath,
    open: Option<(Session, Transfer)>,
    buffer: BytesMut,
    /// Bytes to come, where that is known or limited.
    left: Option<u64>,
    /// What the server has of the file is `left`, so less is a failure.
    is_exact: bool,
    /// The end of the range is the end of the file, where the server says whether all of it was sent.
    reaches_end: bool,
    read_timeout: Duration,
}

impl Download {
    async fn next_chunk(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let Some((session, mut transfer)) = self.open.take() else { return Ok(None) };
        if self.left == Some(0) && !self.reaches_end {
            self.abort(session, transfer).await;
            return Ok(None);
        }
        if self.buffer.capacity() < READ_BYTES_MIN {
            self.buffer.reserve(CHUNK_BYTES);
        }
        let read = tokio::time::timeout(self.read_timeout, transfer.read_buf(&mut self.buffer)).await;
        let read = match read {
            Ok(Ok(read)) => read as u64,
            // Only the size tells then whether it was all.
            Ok(Err(error)) if session.is_unannounced_end(&error) && self.left == Some(0) => 0,
            Ok(Err(error)) => return Err(self.interrupted("the data connection broke").with_source(error)),
            Err(_) => return Err(session.late(&format!("sending more of {}", self.path))),
        };
        if read == 0 {
            self.end(session, transfer).await?;
            return Ok(None);
        }
        let mut chunk = self.buffer.split();
        if let Some(left) = self.left {
            if read > left && self.reaches_end {
                return Err(self.interrupted("the FTP server sent more than it said there is"));
            }
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.left = Some(left - chunk.len() as u64);
        }
        self.open = Some((session, transfer));
        Ok(Some((chunk.freeze(), self)))
    }

    /// The end of the data is the end of the file only if the server says so, and if it is where it should be: a
    /// connection that was cut looks the same.
    async fn end(&mut self, mut session: Session, transfer: Transfer) -> Result<(), Error> {
        let finished = session
            .finish(transfer)
            .await
            .map_err(|error| self.interrupted("the FTP server did not confirm the end").with_source(error))?;
        self.pool.put(session);
        match finished {
            Err(reply) => Err(self.interrupted(&reply.text())),
            Ok(()) if self.is_exact && self.left.is_some_and(|left| left > 0) => {
                Err(self.interrupted("the FTP server ended it before the size that it had told"))
            }
            Ok(()) => Ok(()),
        }
    }

    /// Ends a transfer of which the rest is not wanted.
    async fn abort(&self, mut session: Session, transfer: Transfer) {
        if session.finish(transfer).await.is_ok() {
            session.check_before_reuse();
            self.pool.put(session);
        }
    }

    fn interrupted(&self, why: &str) -> Error {
        Error::new(ErrorKind::Interrupted, format!("reading {} broke off: {why}", self.path))
    }
}
