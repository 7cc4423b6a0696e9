//! Content from and to a server, in many requests at once so that latency does not matter, and how a file gets there
//! whole or not at all: a temporary name beside the target, the size checked, a rename.
//!
//! A transfer that nobody wants any more puts everything in order before it ends.

use std::collections::VecDeque;
use std::time::SystemTime;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::client::{Client, Failure, Ticket};
use super::tree::{self, NotReplaced, Tree, entry, exists, is_a_folder, wire_path};
use super::wire::{Attributes, kind, open, status};
use crate::backend::{
    ALTERNATIVE_NAMES_MAX, ByteRange, Entry, EntryKind, IfExists, Permissions, Resume, ResumeKey, WriteOptions,
    alternative_name,
};
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use crate::temporary;

/// Bytes on their way at once, asked for or sent and not acknowledged: 160 MiB/s at a latency of 50 ms.
pub(super) const IN_FLIGHT_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Chunks between a session and the consumer or source of content, each at most as long as a packet.
pub(super) const CHUNKS_WAITING_MAX: usize = 4;

/// Smaller pieces of content are put together into one request, as far as they are there.
const GATHERED_BYTES: usize = 64 * 1024;

/// Waits for a file to be on the disk (PROTOCOL of OpenSSH, section 4.6).
const FSYNC: &str = "fsync@openssh.com";

/// Copies on the server (PROTOCOL of OpenSSH, section 4.11).
const COPY_DATA: &str = "copy-data";

/// Bytes of one request to copy: a disk takes a second for as many.
const COPY_BYTES: u64 = 64 * 1024 * 1024;

/// What a source of content hands over.
pub(super) enum Piece {
    Bytes(Bytes),
    /// That was all of it. A source that goes away without saying so has failed.
    End,
}

/// A file that is to be removed by somebody else, because the conversation broke.
pub(super) struct Leftover(pub(super) RemotePath);

impl Tree {
    // ---- Reading ---------------------------------------------------------------------------------------------------

    /// Sends a file's content in chunks, as long as somebody takes them. `opened` hears how much will come, where the
    /// server says so.
    pub(super) async fn read(
        &mut self,
        path: &RemotePath,
        range: ByteRange,
        opened: oneshot::Sender<Option<u64>>,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<(), Error> {
        let handle = self.open_file(path).await?;
        let mut download = Download { asked: VecDeque::new(), next: range.offset, end: None };
        let attributes = self.client.request(kind::FSTAT, |request| request.string(&handle));
        // On the way with the question: small files are read at once.
        let first = u64::from(self.client.can.read_bytes).min(range.length.unwrap_or(u64::MAX));
        if first > 0 {
            download.ask(&mut self.client, &handle, first);
        }
        let told = self.client.attributes(attributes).await;
        let result = match told.map_err(|failure| self.client.error(&format!("read {path}"), failure)) {
            Ok(attributes) if attributes.is_directory() => Err(is_a_folder("read", path)),
            Ok(attributes) => {
                let wanted =
                    attributes.size.map(|size| size.saturating_sub(range.offset).min(range.length.unwrap_or(u64::MAX)));
                download.end = wanted.or(range.length).map(|wanted| range.offset.saturating_add(wanted));
                match opened.send(wanted) {
                    Ok(()) => download.run(&mut self.client, &handle, path, wanted.is_some(), chunks).await,
                    // Nobody waits for it any more.
                    Err(_) => Ok(()),
                }
            }
            Err(error) => Err(error),
        };
        download.abandon(&mut self.client);
        self.close(&handle).await;
        result
    }

    async fn open_file(&mut self, path: &RemotePath) -> Result<Bytes, Error> {
        let place = self.ask_where(path).await?;
        let wire = wire_path(path);
        let ticket = self
            .client
            .request(kind::OPEN, |request| request.string(&wire).u32(open::READ).attributes(&Attributes::default()));
        let inside = self.is_inside(place, path).await;
        match (inside, self.client.handle(ticket).await) {
            (Ok(()), Ok(handle)) => Ok(handle),
            (Ok(()), Err(failure)) => {
                if failure.is_refusal() && self.look(path).await?.is_some_and(|found| found.is_directory()) {
                    return Err(is_a_folder("read", path));
                }
                if failure.is_not_found() {
                    return Err(tree::not_there("read", path));
                }
                Err(self.client.error(&format!("read {path}"), failure))
            }
            (Err(error), Ok(handle)) => {
                self.close(&handle).await;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    // ---- Writing ---------------------------------------------------------------------------------------------------

    /// Writes a file and gives it its name if that is still wanted; otherwise removes what there is of it, or says what
    /// could not be removed.
    ///
    /// What can be continued is left where it is.
    pub(super) async fn write(
        &mut self,
        path: &RemotePath,
        options: &WriteOptions,
        pieces: &mut mpsc::Receiver<Piece>,
        is_wanted: impl Fn() -> bool,
    ) -> (Result<Entry, Error>, Option<Leftover>) {
        let (temporary, handle) = match self.open_temporary(path, options).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error), None),
        };
        let written = self.fill(&handle, path, options, pieces).await;
        // Nobody is to wait for a place to put more.
        pieces.close();
        let named = match written {
            Ok(sent) if !is_wanted() => Err((given_up(path, sent), true)),
            Ok(sent) => self.give_name(&temporary, path, sent, options.if_exists).await,
            Err(error) => {
                self.close(&handle).await;
                Err((error, true))
            }
        };
        match named {
            Ok(entry) => (Ok(entry), None),
            Err((error, false)) => (Err(error), None),
            Err((error, true)) if options.resume.is_some() => (Err(error), None),
            Err((error, true)) => (Err(error), self.remove_leftover(temporary).await),
        }
    }

    async fn remove_leftover(&mut self, temporary: RemotePath) -> Option<Leftover> {
        let ticket = self.ask(kind::REMOVE, &temporary);
        match self.client.done(ticket).await {
            Err(failure) if !failure.is_refusal() => Some(Leftover(temporary)),
            _ => None,
        }
    }

    /// Removes what another session has left.
    pub(super) async fn remove(&mut self, leftover: &Leftover) -> Result<(), Failure> {
        let ticket = self.ask(kind::REMOVE, &leftover.0);
        match self.client.done(ticket).await {
            Err(failure) if !failure.is_not_found() => Err(failure),
            _ => Ok(()),
        }
    }

    async fn open_temporary(
        &mut self,
        path: &RemotePath,
        options: &WriteOptions,
    ) -> Result<(RemotePath, Bytes), Error> {
        let Some(folder) = path.parent().filter(|_| !self.is_root(path)) else {
            return Err(is_a_folder("write", path));
        };
        let temporary = temporary_for(path, options.resume.as_ref().map(|resume| &resume.key))?;
        self.confine(&folder).await?;
        let target = self.ask(kind::LSTAT, path);
        let opened = match &options.resume {
            None => Ok(self.ask_new(&temporary, options.mode.and_then(Permissions::at_most))),
            Some(resume) => Err(resume),
        };
        let target = self.client.attributes(target).await;
        let refusal = match self.found(target, &format!("look at {path}")) {
            Ok(Some(found)) if found.is_directory() => Some(is_a_folder("write", path)),
            Ok(Some(_)) if options.if_exists == IfExists::Fail => Some(exists("write", path)),
            Ok(_) => None,
            Err(error) => Some(error),
        };
        let opened = match (opened, &refusal) {
            (Ok(ticket), _) => match self.client.handle(ticket).await {
                Ok(handle) => Ok(handle),
                Err(failure) => Err(self.not_put("write", path, failure).await),
            },
            (Err(resume), None) => self.reopen(&temporary, path, resume).await,
            (Err(_), Some(_)) => return Err(refusal.unwrap_or_else(|| exists("write", path))),
        };
        match (refusal, opened) {
            (None, opened) => Ok((temporary, opened?)),
            (Some(refusal), Ok(handle)) => {
                self.close(&handle).await;
                // It is empty, and its name is not one that anybody looks for.
                drop(self.remove_leftover(temporary).await);
                Err(refusal)
            }
            (Some(refusal), Err(_)) => Err(refusal),
        }
    }

    fn ask_new(&mut self, path: &RemotePath, mode: Option<u32>) -> Ticket {
        let wire = wire_path(path);
        let flags = open::WRITE | open::CREATE | open::EXCLUSIVE;
        let attributes = Attributes { mode, ..Attributes::default() };
        self.client.request(kind::OPEN, |request| request.string(&wire).u32(flags).attributes(&attributes))
    }

    /// Opens content that an earlier write has left, and drops what lies beyond the offset.
    async fn reopen(&mut self, temporary: &RemotePath, path: &RemotePath, resume: &Resume) -> Result<Bytes, Error> {
        let held = self.partial_bytes(temporary).await?;
        if held < resume.offset {
            let offset = resume.offset;
            let message = format!("cannot go on writing {path} at byte {offset}: only {held} bytes are left of it");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let wire = wire_path(temporary);
        let ticket = self.client.request(kind::OPEN, |request| {
            request.string(&wire).u32(open::WRITE | open::CREATE).attributes(&Attributes::default())
        });
        let handle = match self.client.handle(ticket).await {
            Ok(handle) => handle,
            Err(failure) => return Err(self.not_put("write", path, failure).await),
        };
        if held > resume.offset {
            let size = Attributes { size: Some(resume.offset), ..Attributes::default() };
            let ticket = self.client.request(kind::FSETSTAT, |request| request.string(&handle).attributes(&size));
            if let Err(failure) = self.client.done(ticket).await {
                self.close(&handle).await;
                return Err(self.client.error(&format!("shorten what is there of {path}"), failure));
            }
        }
        Ok(handle)
    }

    /// How many bytes an earlier write has left.
    pub(super) async fn partial(&mut self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        self.confine_parent(path).await?;
        self.partial_bytes(&temporary_for(path, Some(key))?).await
    }

    async fn partial_bytes(&mut self, temporary: &RemotePath) -> Result<u64, Error> {
        Ok(match self.look(temporary).await? {
            None => 0,
            Some(found) if found.is_file() => found.size.unwrap_or(0),
            Some(_) => {
                let message = format!("cannot go on writing to {temporary}: it is no file");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
        })
    }

    // ---- Appending and copying -------------------------------------------------------------------------------------

    /// Puts content behind the end of a file, which is made when it is missing.
    pub(super) async fn append(
        &mut self,
        path: &RemotePath,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<Entry, Error> {
        // What the path leads to is written, so that must be inside.
        self.confine_parent(path).await?;
        self.confine(path).await?;
        if self.is_root(path) || self.look_through(path).await?.is_some_and(|found| found.is_directory()) {
            return Err(is_a_folder("append to", path));
        }
        let wire = wire_path(path);
        let flags = open::WRITE | open::CREATE | open::APPEND;
        let ticket = self
            .client
            .request(kind::OPEN, |request| request.string(&wire).u32(flags).attributes(&Attributes::default()));
        let handle = match self.client.handle(ticket).await {
            Ok(handle) => handle,
            Err(failure) => return Err(self.not_put("append to", path, failure).await),
        };
        let appended = self.append_to(&handle, path, pieces).await;
        pieces.close();
        self.close(&handle).await;
        appended?;
        self.stat(path).await
    }

    async fn append_to(
        &mut self,
        handle: &Bytes,
        path: &RemotePath,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<(), Error> {
        let ticket = self.client.request(kind::FSTAT, |request| request.string(handle));
        let told = self.client.attributes(ticket).await;
        let before = told.map_err(|failure| self.client.error(&format!("append to {path}"), failure))?;
        let offset = before.size.unwrap_or(0);
        let mut upload = Upload { sent: VecDeque::new(), in_flight: 0, offset };
        let sent = upload.run(&mut self.client, handle, pieces).await;
        for (ticket, _) in upload.sent {
            self.client.abandon(ticket);
        }
        let what_stays = format!("what arrived of up to {} bytes stays", upload.offset - offset);
        match sent {
            Ok(true) => Ok(()),
            Ok(false) => {
                let message = format!("appending to {path} was given up; {what_stays}");
                Err(Error::new(ErrorKind::Interrupted, message))
            }
            Err(failure) => Err(self.client.interrupted(&format!("append to {path}; {what_stays}"), failure)),
        }
    }

    /// Copies a file on the server (PROTOCOL of OpenSSH, section 4.11); `None` where it cannot.
    pub(super) async fn copy(
        &mut self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        if !self.client.can.has(COPY_DATA) {
            return Ok(None);
        }
        let from = self.open_file(source).await?;
        let ticket = self.client.request(kind::FSTAT, |request| request.string(&from));
        let told = self.client.attributes(ticket).await;
        let copied = match told.map_err(|failure| self.client.error(&format!("copy {source}"), failure)) {
            Ok(found) if found.is_directory() => Err(is_a_folder("copy", source)),
            Ok(found) => self.copy_from(&from, &found, source, target, if_exists).await,
            Err(error) => Err(error),
        };
        self.close(&from).await;
        copied
    }

    async fn copy_from(
        &mut self,
        from: &Bytes,
        found: &Attributes,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let (temporary, to) = self.open_temporary(target, &WriteOptions::new(if_exists)).await?;
        let size = found.size.unwrap_or(0);
        let mut result = Ok(());
        let mut offset = 0;
        while offset < size && result.is_ok() {
            // A part at a time, so that no answer takes long.
            let length = (size - offset).min(COPY_BYTES);
            let ticket = self
                .client
                .extended(COPY_DATA, |request| request.string(from).u64(offset).u64(length).string(&to).u64(offset));
            if let Err(failure) = self.client.done(ticket).await {
                result = Err(self.client.error(&format!("copy {source} to {target}"), failure));
            }
            offset += length;
        }
        let modified = found.times.and_then(|(_, modified)| super::posix::time(modified));
        let finished = match result {
            Ok(()) => self.finish(&to, target, size, kept(modified, None)).await,
            Err(error) => Err(error),
        };
        let copied = match finished {
            Ok(size) => self.give_name(&temporary, target, size, if_exists).await,
            Err(error) => {
                self.close(&to).await;
                Err((error, true))
            }
        };
        match copied {
            Ok(entry) => Ok(Some(entry)),
            Err((error, is_leftover)) => {
                if is_leftover && self.remove_leftover(temporary).await.is_some() {
                    tracing::warn!(%target, "the temporary file of a copy may be left");
                }
                Err(error)
            }
        }
    }

    /// Sends the content and sees that all of it arrived; the number of bytes. The file is closed when this succeeds.
    async fn fill(
        &mut self,
        handle: &Bytes,
        path: &RemotePath,
        options: &WriteOptions,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<u64, Error> {
        let offset = options.resume.as_ref().map_or(0, |resume| resume.offset);
        let mut upload = Upload { sent: VecDeque::new(), in_flight: 0, offset };
        let filled = upload.run(&mut self.client, handle, pieces).await;
        let result = match filled {
            Ok(true) => {
                let mode = options.mode.and_then(Permissions::exact);
                self.finish(handle, path, upload.offset, kept(options.modified, mode)).await
            }
            Ok(false) => Err(given_up(path, upload.offset)),
            Err(failure) => Err(self.not_filled(handle, path, failure).await),
        };
        for (ticket, _) in upload.sent {
            self.client.abandon(ticket);
        }
        result
    }

    /// Gives a file what it keeps of its source, sees that it is as long as it should be, and closes it.
    async fn finish(
        &mut self,
        handle: &Bytes,
        path: &RemotePath,
        sent: u64,
        kept: Option<Attributes>,
    ) -> Result<u64, Error> {
        if let Some(kept) = kept {
            let ticket = self.client.request(kind::FSETSTAT, |request| request.string(handle).attributes(&kept));
            // A server that records none keeps its own, which is no error.
            self.client.abandon(ticket);
        }
        let attributes = self.client.request(kind::FSTAT, |request| request.string(handle));
        let synced = self.client.can.has(FSYNC).then(|| self.client.extended(FSYNC, |request| request.string(handle)));
        let closed = self.client.request(kind::CLOSE, |request| request.string(handle));
        let attributes = self.client.attributes(attributes).await;
        // A file system that cannot do this says so here; the content is as safe as it gets.
        let synced = match synced {
            Some(ticket) => self.client.done(ticket).await,
            None => Ok(()),
        };
        let closed = self.client.done(closed).await;
        let checked = attributes.and_then(|attributes| match synced {
            Err(failure) if !failure.is_refusal() => Err(failure),
            _ => closed.map(|()| attributes),
        });
        let attributes = checked.map_err(|failure| self.client.interrupted(&format!("take all of {path}"), failure))?;
        match attributes.size {
            Some(stored) if stored != sent => Err(Error::new(
                ErrorKind::Interrupted,
                format!("the SFTP server kept {stored} of the {sent} bytes of {path}; nothing was replaced"),
            )),
            _ => Ok(sent),
        }
    }

    async fn not_filled(&mut self, handle: &Bytes, path: &RemotePath, failure: Failure) -> Error {
        if failure.has_code(status::FAILURE) && self.is_disk_full(handle).await {
            return Error::new(
                ErrorKind::Unavailable,
                format!("the disk of the SFTP server {} is full: {path} was not written", self.client.server()),
            )
            .lasting();
        }
        match failure {
            Failure::Refused(_) => self.client.error(&format!("take all of {path}"), failure),
            failure => self.client.interrupted(&format!("write {path}, of which nothing was replaced"), failure),
        }
    }

    /// Whether no block is free for the user (PROTOCOL of OpenSSH, section 4.4).
    async fn is_disk_full(&mut self, handle: &Bytes) -> bool {
        const FSTATVFS: &str = "fstatvfs@openssh.com";
        if !self.client.can.has(FSTATVFS) {
            return false;
        }
        let ticket = self.client.extended(FSTATVFS, |request| request.string(handle));
        let Ok(reply) = self.client.extension_reply(ticket).await else { return false };
        super::status::FileSystem::read(reply).is_ok_and(|told| told.blocks_available == 0)
    }

    /// Gives the file its name. The error says whether the temporary one is still to be removed.
    async fn give_name(
        &mut self,
        temporary: &RemotePath,
        path: &RemotePath,
        sent: u64,
        if_exists: IfExists,
    ) -> Result<Entry, (Error, bool)> {
        let target = match if_exists {
            IfExists::Replace => {
                if let Err(NotReplaced { failure, is_deleted }) = self.replace(temporary, path).await {
                    if is_deleted {
                        let name = temporary.name();
                        let attempt = format!("rename to {path}, which was deleted to be replaced by {name}");
                        return Err((self.client.error(&attempt, failure), false));
                    }
                    return Err((self.not_put("write", path, failure).await, true));
                }
                path.clone()
            }
            IfExists::Fail | IfExists::Rename => {
                self.give_free_name(temporary, path, if_exists).await.map_err(|error| (error, true))?
            }
        };
        // The file is there whatever this answers.
        let seen = self.look(&target).await.ok().flatten().map(|found| entry(target.clone(), &found));
        let known =
            Entry { path: target, kind: EntryKind::File, size: Some(sent), modified: None, mode: None, revision: None };
        Ok(seen.unwrap_or(known))
    }

    async fn give_free_name(
        &mut self,
        temporary: &RemotePath,
        path: &RemotePath,
        if_exists: IfExists,
    ) -> Result<RemotePath, Error> {
        let folder = path.parent().unwrap_or_else(RemotePath::root);
        let alternatives = if if_exists == IfExists::Rename { ALTERNATIVE_NAMES_MAX } else { 0 };
        for number in 0..=alternatives {
            let candidate = match number {
                0 => path.clone(),
                number => folder.join(&alternative_name(path.name(), number))?,
            };
            if self.look(&candidate).await?.is_some() {
                continue;
            }
            match self.rename_to_new(temporary, &candidate).await {
                Ok(()) => return Ok(candidate),
                Err(failure) if failure.is_refusal() && self.look(&candidate).await?.is_some() => {}
                Err(failure) => return Err(self.not_put("write", path, failure).await),
            }
        }
        Err(exists("write", path))
    }
}

/// What a file keeps of its source, if anything.
fn kept(modified: Option<SystemTime>, mode: Option<u32>) -> Option<Attributes> {
    let times = modified.and_then(super::posix::seconds).map(|modified| (modified, modified));
    if times.is_none() && mode.is_none() {
        return None;
    }
    Some(Attributes { times, mode, ..Attributes::default() })
}

/// The name under which content waits until it is complete.
fn temporary_for(path: &RemotePath, key: Option<&ResumeKey>) -> Result<RemotePath, Error> {
    let folder = path.parent().unwrap_or_else(RemotePath::root);
    folder.join(&match key {
        Some(key) => temporary::name_for_key(path.name(), key),
        None => temporary::name_for(path.name()),
    })
}

fn given_up(path: &RemotePath, sent: u64) -> Error {
    let message = format!("writing {path} was given up after {sent} bytes; nothing was replaced");
    Error::new(ErrorKind::Interrupted, message)
}

/// Requests for content on their way.
struct Download {
    asked: VecDeque<Asked>,
    /// Where the next request begins.
    next: u64,
    /// Where the content ends, if that is known.
    end: Option<u64>,
}

struct Asked {
    ticket: Ticket,
    offset: u64,
    length: u64,
}

impl Download {
    fn ask(&mut self, client: &mut Client, handle: &Bytes, length: u64) {
        let asked = Self::request(client, handle, self.next, length);
        self.next += length;
        self.asked.push_back(asked);
    }

    fn request(client: &mut Client, handle: &Bytes, offset: u64, length: u64) -> Asked {
        let ticket = client.request(kind::READ, |request| request.string(handle).u64(offset).u32(length as u32));
        Asked { ticket, offset, length }
    }

    async fn run(
        &mut self,
        client: &mut Client,
        handle: &Bytes,
        path: &RemotePath,
        is_exact: bool,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<(), Error> {
        loop {
            self.ask_ahead(client, handle);
            let Some(Asked { ticket, offset, length }) = self.asked.pop_front() else { return Ok(()) };
            let data =
                client.data(ticket).await.map_err(|failure| client.interrupted(&format!("read {path}"), failure))?;
            let data = data.filter(|data| !data.is_empty());
            let wanted = self.end.map_or(length, |end| end.saturating_sub(offset).min(length));
            let Some(data) = data else {
                if is_exact && wanted > 0 {
                    let message = format!("{path} ended after {offset} bytes, earlier than the SFTP server had said");
                    return Err(Error::new(ErrorKind::Interrupted, message));
                }
                return Ok(());
            };
            let got = data.len() as u64;
            if got > length {
                let message = format!("the SFTP server {} sent more of {path} than was asked for", client.server());
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
            if got < wanted {
                // Less than asked for is no end: what is missing is asked for at once.
                self.asked.push_front(Self::request(client, handle, offset + got, length - got));
                client.can.read_bytes = client.can.read_bytes.min(got.max(1024) as u32);
            }
            if wanted > 0 && chunks.send(data.slice(..got.min(wanted) as usize)).await.is_err() {
                return Ok(());
            }
        }
    }

    fn ask_ahead(&mut self, client: &mut Client, handle: &Bytes) {
        loop {
            let left = self.end.map_or(u64::MAX, |end| end.saturating_sub(self.next));
            let length = u64::from(client.can.read_bytes).min(left);
            let in_flight: u64 = self.asked.iter().map(|asked| asked.length).sum();
            if length == 0 || in_flight + length > IN_FLIGHT_BYTES_MAX as u64 && !self.asked.is_empty() {
                return;
            }
            self.ask(client, handle, length);
        }
    }

    fn abandon(self, client: &mut Client) {
        for asked in self.asked {
            client.abandon(asked.ticket);
        }
    }
}

/// Writes that are not acknowledged yet.
struct Upload {
    sent: VecDeque<(Ticket, usize)>,
    in_flight: usize,
    offset: u64,
}

impl Upload {
    /// Sends all pieces; `false` when their source failed.
    async fn run(
        &mut self,
        client: &mut Client,
        handle: &Bytes,
        pieces: &mut mpsc::Receiver<Piece>,
    ) -> Result<bool, Failure> {
        let mut gathered = Vec::new();
        let mut is_complete = false;
        while !is_complete {
            match pieces.recv().await {
                Some(Piece::Bytes(bytes)) => gathered.push(bytes),
                Some(Piece::End) => is_complete = true,
                None => return Ok(false),
            }
            let mut length: usize = gathered.iter().map(Bytes::len).sum();
            while !is_complete && length < GATHERED_BYTES {
                match pieces.try_recv() {
                    Ok(Piece::Bytes(bytes)) => {
                        length += bytes.len();
                        gathered.push(bytes);
                    }
                    Ok(Piece::End) => is_complete = true,
                    Err(_) => break,
                }
            }
            self.send(client, handle, &mut gathered).await?;
        }
        while let Some((ticket, _)) = self.sent.pop_front() {
            client.done(ticket).await?;
        }
        Ok(true)
    }

    async fn send(&mut self, client: &mut Client, handle: &Bytes, gathered: &mut Vec<Bytes>) -> Result<(), Failure> {
        let mut left: VecDeque<Bytes> = gathered.drain(..).filter(|bytes| !bytes.is_empty()).collect();
        while !left.is_empty() {
            let mut packet = Vec::new();
            let mut length = 0;
            let room = client.can.write_bytes as usize;
            while length < room
                && let Some(mut bytes) = left.pop_front()
            {
                let part = bytes.split_to(bytes.len().min(room - length));
                length += part.len();
                packet.push(part);
                if !bytes.is_empty() {
                    left.push_front(bytes);
                }
            }
            let offset = self.offset;
            let ticket = client.request(kind::WRITE, |request| request.string(handle).u64(offset).parts(&packet));
            self.offset += length as u64;
            self.in_flight += length;
            self.sent.push_back((ticket, length));
            client.send().await?;
            while self.in_flight > IN_FLIGHT_BYTES_MAX
                && let Some((ticket, length)) = self.sent.pop_front()
            {
                self.in_flight -= length;
                client.done(ticket).await?;
            }
        }
        Ok(())
    }
}
