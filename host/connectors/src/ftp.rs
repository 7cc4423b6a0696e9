//! A server that speaks FTP (RFC 959, with RFC 2428, 2640 and 3659 where the server knows them) as a connection.
//!
//! This file says which commands an operation is made of and what their replies mean. How a connection comes about is
//! in `dialer`, how it keeps in step with its server in `session`, which ones are open in `pool`, how a file gets its
//! name in `upload`, what a line of a listing says in `listing`.
//!
//! Replies of class 5 are nearly always `550`, whatever happened: what a refusal means is found out by looking, not by
//! its text.

mod dialer;
mod download;
mod encoding;
mod hashes;
mod list;
mod listing;
mod pool;
mod reply;
mod secure;
mod server;
mod session;
mod upload;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use secrecy::{ExposeSecret, SecretString};

use crate::Common;
use crate::backend::{
    Backend, ByteRange, Checksum, Entry, EntryKind, Facts, IfExists, Location, Pages, ResumeKey, WriteOptions,
};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::idle::Session as _;
use crate::path::RemotePath;
use crate::temporary;
use crate::tls;
use dialer::{Dialer, Secure};
use download::Download;
use list::Listing;
use listing::Line;
use pool::Pool;
use reply::Reply;
use session::{Open, Session};
use upload::{Source, Upload};

pub use encoding::{Encoding, NoEncoding};
pub use server::{RawReply, Server};

/// Where FTP servers listen (RFC 959, section 5.2).
pub const PORT: u16 = 21;

/// Where FTP servers listen that begin with TLS (IANA, `ftps`).
pub const PORT_IMPLICIT: u16 = 990;

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
    /// For servers that ask for one after the password (`ACCT`).
    pub account: Option<SecretString>,
    /// How names are written.
    pub encoding: Encoding,
    /// During a transfer `NOOP` is sent so often, for a firewall that forgets a control connection in spite of the
    /// probes of TCP, which are sent in any case. Not every server bears it.
    pub noop_interval: Option<Duration>,
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
            account: None,
            encoding: Encoding::default(),
            noop_interval: None,
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
    /// The server connects to this host (`PORT`, and `EPRT` for IPv6). Connections of others are not accepted.
    Never,
}

/// An FTP server.
pub(crate) struct Ftp {
    pool: Arc<Pool>,
    /// User and server.
    place: String,
    read_timeout: Duration,
}

impl Ftp {
    pub(crate) fn new(config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the FTP connection {why}")));
        if config.host.is_empty() || config.port == 0 {
            return invalid("has no host or no port");
        }
        let account = config.account.as_ref().map_or("", |account| account.expose_secret());
        let texts = [config.user.as_str(), config.password.expose_secret(), account];
        if texts.iter().any(|text| text.contains(char::is_control)) {
            return invalid("has a control character in its user, password or account, which FTP cannot send");
        }
        let secure = match &config.security {
            Security::None => None,
            Security::Explicit(tls) | Security::Implicit(tls) => Some(Secure::new(tls)?),
        };
        let place = format!("ftp {}@{}:{}", config.user, config.host, config.port);
        let dialer = Dialer {
            config,
            root: common.root.clone(),
            secure,
            egress,
            connect_timeout: common.connect_timeout,
            read_timeout: common.read_timeout,
        };
        let pool = Pool::new(dialer, common);
        Ok(Self { pool, place, read_timeout: common.read_timeout })
    }

    /// The same server, where no link leads out of these folders either.
    pub(crate) fn within(&self, borders: Vec<RemotePath>) -> Self {
        let pool = Arc::new(self.pool.within(borders));
        Self { pool, place: self.place.clone(), read_timeout: self.read_timeout }
    }

    /// Begins an operation: takes a connection and asks what is at `path`.
    async fn look(&self, path: &RemotePath) -> Result<(Session, Option<Entry>), Error> {
        self.first(path, |session, path| Box::pin(session.stat(path))).await
    }

    /// The same for an operation on what a link leads to, which must be inside.
    async fn look_through(&self, path: &RemotePath) -> Result<(Session, Option<Entry>), Error> {
        self.first(path, |session, path| Box::pin(stat_inside(session, path))).await
    }

    /// Sends a command that a caller has written. Afterwards the session is kept only if it is as it was before.
    pub(crate) async fn raw(&self, command: &str, is_harmless: bool) -> Result<RawReply, Error> {
        let mut session = self.pool.take().await?;
        // Its reply may have names.
        session.features().await?;
        let reply = session.command(command).await?;
        let raw = RawReply { code: reply.code, lines: reply.lines(session.encoding()) };
        if is_harmless {
            self.pool.put(session);
        } else {
            session.close().await;
        }
        Ok(raw)
    }

    /// What the server lists in reply to `FEAT`.
    pub(crate) async fn features(&self) -> Result<Vec<String>, Error> {
        let root = RemotePath::root();
        let (mut session, ()) = self.first(&root, |session, _| Box::pin(noop(session))).await?;
        let features = session.features().await?.to_vec();
        self.pool.put(session);
        Ok(features)
    }

    /// Begins an operation that puts a file at `path`: fails early where it is in the way.
    async fn target(&self, operation: &str, path: &RemotePath, if_exists: IfExists) -> Result<Session, Error> {
        let (session, found) = self.look(path).await?;
        let refusal = match found.map(|entry| entry.kind) {
            Some(EntryKind::Directory) => is_a_folder(operation, path),
            Some(_) if if_exists == IfExists::Fail => upload::exists(operation, path),
            _ => return Ok(session),
        };
        self.pool.put(session);
        Err(refusal)
    }

    /// Begins an operation with a question that changes nothing. When a connection from the pool turns out to be
    /// closed, the question is asked once more on a new one.
    async fn first<T>(&self, path: &RemotePath, ask: Question<T>) -> Result<(Session, T), Error> {
        let mut session = self.pool.take().await?;
        let mut answer = ask(&mut session, path).await;
        if answer.is_err() && session.is_closed_unanswered() {
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

    async fn location(&self, path: &RemotePath) -> Option<Location> {
        Some(Location { server: self.place.clone(), path: path.as_str().into() })
    }

    async fn ping(&self) -> Result<Facts, Error> {
        let root = RemotePath::root();
        let (mut session, ()) = self.first(&root, |session, _| Box::pin(noop(session))).await?;
        let facts = session.about().await?;
        self.pool.put(session);
        Ok(facts)
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let (session, found) = self.look(path).await?;
        self.pool.put(session);
        found.ok_or_else(|| not_there("stat", path))
    }

    async fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        let (session, found) = self.first(path, |session, path| Box::pin(followed(session, path))).await?;
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
        Ok(Listing::pages(Arc::clone(&self.pool), session, lines, path))
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let (mut session, size) = self.first(path, |session, path| Box::pin(size_inside(session, path))).await?;
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
        let Some(folder) = path.parent() else { return Err(is_a_folder("write", path)) };
        let name = match &options.resume {
            Some(resume) => temporary::name_for_key(path.name(), &resume.key),
            None => temporary::name_for(path.name()),
        };
        let temporary = folder.join(&name)?;
        let session = match options.if_exists {
            // What is in the way of a rename that replaces is told by the rename.
            IfExists::Replace => self.pool.take().await?,
            if_exists => self.target("write", path, if_exists).await?,
        };
        let upload = Upload::new(Arc::clone(&self.pool), session, temporary);
        upload.run(path, Source::Content(content), options).await
    }

    async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let Some(folder) = path.parent() else { return Ok(0) };
        let temporary = folder.join(&temporary::name_for_key(path.name(), key))?;
        let (session, size) = self.first(&temporary, |session, path| Box::pin(size_inside(session, path))).await?;
        self.pool.put(session);
        Ok(size.unwrap_or(0))
    }

    async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error> {
        let (mut session, found) = self.look_through(path).await?;
        if found.is_some_and(|entry| entry.kind == EntryKind::Directory) {
            self.pool.put(session);
            return Err(is_a_folder("append to", path));
        }
        let mut transfer = match session.open(Open::Append { path }).await? {
            Ok(transfer) => Some(transfer),
            Err(reply) => {
                let error = session.not_put("append to", path, &reply).await;
                self.pool.put(session);
                return Err(error);
            }
        };
        let sent = upload::send(&mut session, &mut transfer, path, content).await;
        // The end of what has arrived, for what is there stays.
        if let Some(transfer) = transfer.take()
            && session.finish(transfer).await.is_ok()
        {
            session.check_before_reuse();
        }
        let appended = match sent {
            Ok(_) => session.stat(path).await.and_then(|entry| entry.ok_or_else(|| not_there("append to", path))),
            Err(error) => {
                let message = format!("appending to {path} broke off; a part of it may have been appended");
                Err(Error::new(error.kind(), message).with_source(error))
            }
        };
        self.pool.put(session);
        appended
    }

    async fn copy(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let Some(folder) = target.parent() else { return Err(is_a_folder("copy to", target)) };
        let (mut session, found) = self.look_through(source).await?;
        let can_copy = session.has("SITE COPY").await?;
        self.pool.put(session);
        match found.map(|entry| entry.kind) {
            None => return Err(not_there("copy", source)),
            Some(EntryKind::Directory) => return Err(is_a_folder("copy", source)),
            Some(_) if !can_copy => return Ok(None),
            Some(_) => {}
        }
        let temporary = folder.join(&temporary::name_for(target.name()))?;
        let session = self.target("copy to", target, if_exists).await?;
        let upload = Upload::new(Arc::clone(&self.pool), session, temporary);
        upload.run(target, Source::File(source), &WriteOptions::new(if_exists)).await.map(Some)
    }

    async fn delete_tree(&self, _: &RemotePath) -> Result<bool, Error> {
        Ok(false)
    }

    async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let (mut session, found) = self.look_through(path).await?;
        let set = match found {
            None => Err(not_there("set the time of", path)),
            Some(_) => match session.set_modified(path, time).await? {
                Some(Ok(())) => Ok(()),
                Some(Err(reply)) => Err(session.refused(&format!("set the time of {path}"), &reply)),
                None => {
                    let message = format!("cannot set the time of {path}: its FTP server has no MFMT");
                    Err(Error::new(ErrorKind::Unsupported, message))
                }
            },
        };
        self.pool.put(session);
        set
    }

    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let (mut session, found) = self.look_through(path).await?;
        let checksum = match found.map(|entry| entry.kind) {
            None => Err(not_there("compute the checksum of", path)),
            Some(EntryKind::Directory) => Err(is_a_folder("compute the checksum of", path)),
            Some(_) => session.checksum(path).await,
        };
        self.pool.put(session);
        checksum
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let (mut session, found) = self.look(path).await?;
        let deleted = match found {
            Some(entry) => delete(&mut session, &entry).await,
            None => Err(not_there("delete", path)),
        };
        // What is still there may be a link as before.
        if deleted.is_ok() {
            session.forget(path);
        }
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
        session.forget_both(source, target);
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

/// What a path leads to.
async fn followed(session: &mut Session, path: &RemotePath) -> Result<Option<Entry>, Error> {
    session.confine(path).await?;
    let found = session.stat(path).await?;
    match found {
        Some(Entry { kind: EntryKind::Symlink, .. }) => session.stat_by_commands(path).await,
        found => Ok(found),
    }
}

async fn stat_inside(session: &mut Session, path: &RemotePath) -> Result<Option<Entry>, Error> {
    session.confine(path).await?;
    session.stat(path).await
}

async fn size_inside(session: &mut Session, path: &RemotePath) -> Result<Option<u64>, Error> {
    session.confine(path).await?;
    session.size(path).await
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
        let _to_its_end = session.finish(lines.into_transfer()).await?;
        return Err(session.refused(&attempt, &reply));
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

/// For fuzzing: whatever a server may send as a listing.
pub(crate) fn read_any_listing(bytes: &[u8]) {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for encoding in ["utf-8", "iso-8859-1", "shift_jis", "gb18030"] {
        let Ok(encoding) = encoding.parse::<Encoding>() else { continue };
        for line in bytes.split(|byte| *byte == b'\n') {
            let text = encoding.text(line);
            let name = encoding.name(&text);
            assert!(encoding.bytes(&name).is_some_and(|again| again == line), "a name would not come back");
            for read in [listing::machine_line(&text), listing::human_line(&text, now)] {
                if let Line::Entry(listed) = read
                    && let Ok(path) = RemotePath::root().join(&encoding.name(&listed.name))
                {
                    assert!(!path.is_root() && path.parent().is_some_and(|parent| parent.is_root()), "it leads out");
                }
            }
        }
    }
}

/// For fuzzing: whatever a server may send as a reply.
pub(crate) fn read_any_reply(bytes: &[u8]) {
    let reply = Reply::new(suppaftp::types::Response::new(suppaftp::Status::Unknown, bytes.to_vec()));
    let _answers = (reply.is_positive(), reply.is_transient(), reply.text(), reply.argument(), reply.hash(64));
    let _ways_of_speaking = (reply.speaks_of_encryption(), reply.speaks_of_permission());
    let _checksum = hashes::best(&reply.features());
    for line in reply.lines(Encoding::default()) {
        let _facts = (listing::facts(&line), listing::timestamp(&line));
    }
    let _without_password = reply.without("secret");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn no_reply_and_no_listing_is_too_strange(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            super::read_any_reply(&bytes);
            super::read_any_listing(&bytes);
        }

        #[test]
        fn no_reply_of_several_lines_is_too_strange(
            text in "[1-5][0-9]{2}[- ].{0,30}(\r\n (HASH|XMD5|MLST|type=|size=).{0,30}){0,4}\r\n[1-5][0-9]{2} .{0,30}"
        ) {
            super::read_any_reply(text.as_bytes());
        }
    }
}
