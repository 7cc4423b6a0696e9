//! The files below the root of a connection, over one conversation: what each operation is made of, and the border that
//! no symbolic link leads across.
//!
//! Version 3 tells hardly more than "failure": what a refusal means is found out by looking. Content is in
//! `transfer`.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::client::{Client, Failure, Ticket};
use super::wire::{Attributes, Name, kind};
use crate::backend::{Entry, EntryKind, IfExists, PERMISSIONS};
use crate::border::Borders;
use crate::error::{Error, ErrorKind};
use crate::path::{RemotePath, name_of, text_of, wire_name_of};

/// Renames onto a file that exists, at once (PROTOCOL of OpenSSH, section 4.3).
pub(super) const POSIX_RENAME: &str = "posix-rename@openssh.com";

/// Requests for names on their way at once, for a listing that turns out to be long.
const LISTING_AHEAD_MAX: usize = 16;

/// Names of one listing: far more than a folder that anybody works with, and an end for a server that has none.
pub(super) const LISTING_NAMES_MAX: usize = 1_000_000;

/// Names left out of one listing that are told one by one in the log; beyond that only their number is.
const LEFT_OUT_TOLD_MAX: usize = 5;

/// The files of one connection, seen over one conversation.
pub(super) struct Tree {
    pub(super) client: Client,
    pub(super) borders: Borders,
    /// Until the server says that it computes no checksums, which it need not announce.
    pub(super) may_check_files: bool,
}

/// What became of a file that was not replaced.
pub(super) struct NotReplaced {
    pub(super) failure: Failure,
    /// It was deleted to make room.
    pub(super) is_deleted: bool,
}

/// A path as it goes over the wire.
pub(super) fn wire_path(path: &RemotePath) -> Bytes {
    wire_name_of(path.as_str()).into()
}

impl Tree {
    pub(super) fn new(client: Client, root: RemotePath) -> Self {
        Self { client, borders: Borders::new(root), may_check_files: true }
    }

    /// The smallest real operation.
    pub(super) async fn ping(&mut self) -> Result<(), Error> {
        let root = self.root().clone();
        let ticket = self.ask(kind::STAT, &root);
        self.client
            .attributes(ticket)
            .await
            .map_err(|failure| self.client.error(&format!("look at {root}"), failure))?;
        Ok(())
    }

    pub(super) fn root(&self) -> &RemotePath {
        self.borders.root()
    }

    pub(super) fn is_root(&self, path: &RemotePath) -> bool {
        path == self.root()
    }

    /// What the server can do, in the words of a ping.
    pub(super) fn told(&self) -> Vec<(&'static str, String)> {
        let extensions: Vec<&str> = self.client.can.extensions.iter().map(|(name, _)| name.as_str()).collect();
        vec![("login-folder", text_of(&self.client.login_folder)), ("extensions", extensions.join(" "))]
    }

    /// The folder after the login, as seen from outside; `None` when it is nothing that a path can hold.
    pub(super) fn login_folder(&self) -> Option<RemotePath> {
        RemotePath::parse(&name_of(&self.client.login_folder)).ok()
    }

    /// A request with a path and nothing else.
    pub(super) fn ask(&mut self, kind: u8, path: &RemotePath) -> Ticket {
        let path = wire_path(path);
        self.client.request(kind, |request| request.string(&path))
    }

    // ---- The border ------------------------------------------------------------------------------------------------

    /// Asks where a path leads, unless that does not matter.
    pub(super) async fn ask_where(&mut self, path: &RemotePath) -> Result<Option<Ticket>, Error> {
        if !self.borders.is_in_doubt(path) {
            return Ok(None);
        }
        while let Some(border) = self.borders.unsurveyed(path) {
            let ticket = self.ask(kind::REALPATH, &border);
            match self.client.one_name(ticket).await {
                Ok(real) => self.borders.survey(&border, real)?,
                // Nothing is in it that could lead out.
                Err(failure) if failure.is_not_found() && border != *self.root() => return Ok(None),
                Err(failure) => return Err(self.client.error(&format!("find {border}"), failure)),
            }
        }
        Ok(Some(self.ask(kind::REALPATH, path)))
    }

    /// Takes the answer. What does not exist is inside: the operation itself will tell.
    pub(super) async fn is_inside(&mut self, ticket: Option<Ticket>, path: &RemotePath) -> Result<(), Error> {
        let Some(ticket) = ticket else { return Ok(()) };
        let real = match self.client.one_name(ticket).await {
            Ok(real) => real,
            Err(failure) if failure.is_not_found() => return Ok(()),
            Err(failure) => return Err(self.client.error(&format!("find {path}"), failure)),
        };
        self.borders.check(path, &real)
    }

    /// Makes sure that a folder is inside before anything in it is changed.
    pub(super) async fn confine(&mut self, folder: &RemotePath) -> Result<(), Error> {
        let ticket = self.ask_where(folder).await?;
        self.is_inside(ticket, folder).await
    }

    /// The same for the folder that holds a path.
    pub(super) async fn confine_parent(&mut self, path: &RemotePath) -> Result<(), Error> {
        if self.is_root(path) {
            return Ok(());
        }
        self.confine(&path.parent().unwrap_or_else(RemotePath::root)).await
    }

    /// What the server says is the real name of a path, as seen from outside.
    pub(super) async fn below_the_root(&mut self, real: &Bytes, path: &RemotePath) -> Result<RemotePath, Error> {
        if self.root().is_root() {
            return RemotePath::parse(&name_of(real));
        }
        let root = self.root().clone();
        self.confine(&root).await?;
        self.confine(path).await?;
        match self.borders.rest(&root, real) {
            Some(rest) => Ok(RemotePath::parse(&name_of(rest))?.below(&root)),
            None => Err(self.borders.leads_out(path)),
        }
    }

    // ---- Looking ---------------------------------------------------------------------------------------------------

    /// The attributes of what is at a path, a link not followed; `None` when nothing is.
    pub(super) async fn look(&mut self, path: &RemotePath) -> Result<Option<Attributes>, Error> {
        let folder = path.parent().unwrap_or_else(RemotePath::root);
        // The root itself lies in a folder that is outside of it.
        let place = if self.is_root(path) { None } else { self.ask_where(&folder).await? };
        let ticket = self.ask(kind::LSTAT, path);
        let inside = self.is_inside(place, &folder).await;
        let found = self.client.attributes(ticket).await;
        inside?;
        self.found(found, &format!("look at {path}"))
    }

    /// Attributes, or that nothing is there.
    pub(super) fn found(
        &self,
        answer: Result<Attributes, Failure>,
        attempt: &str,
    ) -> Result<Option<Attributes>, Error> {
        match answer {
            Ok(attributes) => Ok(Some(attributes)),
            Err(failure) if failure.is_not_found() => Ok(None),
            Err(failure) => Err(self.client.error(attempt, failure)),
        }
    }

    /// An entry; the root may be a link itself, and is what it leads to.
    pub(super) async fn stat(&mut self, path: &RemotePath) -> Result<Entry, Error> {
        if self.is_root(path) {
            let ticket = self.ask(kind::STAT, path);
            let found = self.client.attributes(ticket).await;
            let found = self.found(found, &format!("look at {path}"))?.ok_or_else(|| not_there("stat", path))?;
            return Ok(entry(path.clone(), &found));
        }
        let found = self.look(path).await?.ok_or_else(|| not_there("stat", path))?;
        Ok(entry(path.clone(), &found))
    }

    /// What a path leads to, as an entry.
    pub(super) async fn follow(&mut self, path: &RemotePath) -> Result<Entry, Error> {
        let found = self.look_through(path).await?.ok_or_else(|| not_there("stat", path))?;
        Ok(entry(path.clone(), &found))
    }

    /// What the server says no to, said better when a look at the path tells why.
    async fn explained(&mut self, attempt: &str, path: &RemotePath, failure: Failure) -> Error {
        if failure.is_refusal()
            && let Ok(found) = self.look(path).await
        {
            match found {
                None => return not_there(attempt, path),
                Some(found) if failure.is_not_found() && !found.is_directory() && !found.is_link() => {
                    return not_a_folder(attempt, path);
                }
                Some(_) => {}
            }
        }
        self.client.error(&format!("{attempt} {path}"), failure)
    }

    // ---- Listing ---------------------------------------------------------------------------------------------------

    /// Sends the entries of a folder, page by page, as long as somebody takes them.
    pub(super) async fn list(
        &mut self,
        path: &RemotePath,
        opened: oneshot::Sender<()>,
        pages: &mpsc::Sender<Vec<Entry>>,
    ) -> Result<(), Error> {
        let handle = self.open_folder(path).await?;
        let result = match opened.send(()) {
            Ok(()) => self.send_pages(path, &handle, pages).await,
            // Nobody waits for it any more.
            Err(()) => Ok(()),
        };
        self.close(&handle).await;
        result
    }

    pub(super) async fn open_folder(&mut self, path: &RemotePath) -> Result<Bytes, Error> {
        let place = self.ask_where(path).await?;
        let ticket = self.ask(kind::OPENDIR, path);
        let inside = self.is_inside(place, path).await;
        let opened = self.client.handle(ticket).await;
        match (inside, opened) {
            (Ok(()), Ok(handle)) => Ok(handle),
            (Ok(()), Err(failure)) => {
                if path != self.root()
                    && failure.is_refusal()
                    && self.look(path).await?.is_some_and(|found| found.is_file())
                {
                    return Err(not_a_folder("list", path));
                }
                Err(self.explained("list", path, failure).await)
            }
            (Err(error), Ok(handle)) => {
                self.close(&handle).await;
                Err(error)
            }
            (Err(error), Err(_)) => Err(error),
        }
    }

    async fn send_pages(
        &mut self,
        path: &RemotePath,
        handle: &Bytes,
        pages: &mpsc::Sender<Vec<Entry>>,
    ) -> Result<(), Error> {
        let mut names_seen = 0;
        let mut left_out = 0_usize;
        let mut ahead = std::collections::VecDeque::new();
        let mut wanted = 2;
        let result = loop {
            while ahead.len() < wanted {
                ahead.push_back(self.client.request(kind::READDIR, |request| request.string(handle)));
            }
            let Some(ticket) = ahead.pop_front() else { break Ok(()) };
            let names = match self.client.names(ticket).await {
                Ok(Some(names)) => names,
                Ok(None) => break Ok(()),
                Err(failure) => break Err(self.client.error(&format!("list {path}"), failure)),
            };
            wanted = (wanted + 1).min(LISTING_AHEAD_MAX);
            names_seen += names.len();
            if names_seen > LISTING_NAMES_MAX {
                break Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("the listing of {path} has more than {LISTING_NAMES_MAX} names"),
                ));
            }
            let page: Vec<Entry> = names.into_iter().filter_map(|name| entry_of(path, &name, &mut left_out)).collect();
            if !page.is_empty() && pages.send(page).await.is_err() {
                break Ok(());
            }
        };
        for ticket in ahead {
            self.client.abandon(ticket);
        }
        if left_out > 0 {
            tracing::warn!(folder = %path, left_out, "names that no path can hold were left out of a listing");
        }
        result
    }

    /// Closes what was opened. A refusal changes nothing.
    pub(super) async fn close(&mut self, handle: &Bytes) {
        let ticket = self.client.request(kind::CLOSE, |request| request.string(handle));
        self.client.abandon(ticket);
        self.settle().await;
    }

    /// Waits for what nobody wants to hear. When that breaks the conversation, the session is over anyway.
    pub(super) async fn settle(&mut self) {
        if let Err(failure) = self.client.settle().await {
            tracing::debug!(?failure, "an SFTP session broke while it was put in order");
        }
    }

    // ---- Changing --------------------------------------------------------------------------------------------------

    pub(super) async fn delete(&mut self, path: &RemotePath) -> Result<(), Error> {
        self.confine_parent(path).await?;
        let found = self.look(path).await?.ok_or_else(|| not_there("delete", path))?;
        self.borders.forget(path);
        let kind = if found.is_directory() { kind::RMDIR } else { kind::REMOVE };
        let ticket = self.ask(kind, path);
        let Err(failure) = self.client.done(ticket).await else { return Ok(()) };
        if found.is_directory() && failure.is_refusal() && self.has_entries(path).await? {
            return Err(Error::new(ErrorKind::Conflict, format!("cannot delete {path}: the folder is not empty")));
        }
        Err(self.explained("delete", path, failure).await)
    }

    async fn has_entries(&mut self, path: &RemotePath) -> Result<bool, Error> {
        let Ok(handle) = self.open_folder(path).await else { return Ok(false) };
        let mut found = false;
        while !found {
            let ticket = self.client.request(kind::READDIR, |request| request.string(&handle));
            match self.client.names(ticket).await {
                Ok(Some(names)) => found = names.iter().any(|name| !is_self_or_parent(name)),
                _ => break,
            }
        }
        self.close(&handle).await;
        Ok(found)
    }

    pub(super) async fn rename(
        &mut self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<(), Error> {
        for path in [source, target] {
            self.confine_parent(path).await?;
        }
        self.look(source).await?.ok_or_else(|| not_there("rename", source))?;
        match self.look(target).await? {
            None => {}
            Some(_) if if_exists == IfExists::Fail => return Err(exists("rename to", target)),
            Some(_) if source == target => return Ok(()),
            Some(found) if found.is_directory() => return Err(is_a_folder("rename to", target)),
            Some(_) => {}
        }
        self.borders.forget(source);
        if if_exists == IfExists::Replace {
            let Err(NotReplaced { failure, is_deleted }) = self.replace(source, target).await else { return Ok(()) };
            if is_deleted {
                let attempt = format!("rename {source} to {target}, which was deleted for it");
                return Err(self.client.error(&attempt, failure));
            }
            return Err(self.not_put("rename to", target, failure).await);
        }
        let Err(failure) = self.rename_to_new(source, target).await else { return Ok(()) };
        if failure.is_refusal() && self.look(target).await?.is_some() {
            return Err(exists("rename to", target));
        }
        Err(self.not_put("rename to", target, failure).await)
    }

    /// Renames to a name that nothing has (section 6.5 of the draft: anything else is an error).
    pub(super) async fn rename_to_new(&mut self, source: &RemotePath, target: &RemotePath) -> Result<(), Failure> {
        let (from, to) = (wire_path(source), wire_path(target));
        let ticket = self.client.request(kind::RENAME, |request| request.string(&from).string(&to));
        self.client.done(ticket).await
    }

    /// Renames, at once where the server can. Where it cannot, what is there is deleted right before.
    pub(super) async fn replace(&mut self, source: &RemotePath, target: &RemotePath) -> Result<(), NotReplaced> {
        let kept = |failure| NotReplaced { failure, is_deleted: false };
        if self.client.can.has(POSIX_RENAME) {
            let (from, to) = (wire_path(source), wire_path(target));
            let ticket = self.client.extended(POSIX_RENAME, |request| request.string(&from).string(&to));
            return self.client.done(ticket).await.map_err(kept);
        }
        let Err(failure) = self.rename_to_new(source, target).await else { return Ok(()) };
        if !failure.is_refusal() {
            return Err(kept(failure));
        }
        let ticket = self.ask(kind::REMOVE, target);
        if self.client.done(ticket).await.is_err() {
            return Err(kept(failure));
        }
        self.rename_to_new(source, target).await.map_err(|failure| NotReplaced { failure, is_deleted: true })
    }

    /// Why nothing could be put to a path: its folder may be missing.
    pub(super) async fn not_put(&mut self, attempt: &str, path: &RemotePath, failure: Failure) -> Error {
        if failure.is_refusal()
            && let Some(folder) = path.parent()
        {
            match self.look(&folder).await {
                Ok(None) => {
                    return Error::new(
                        ErrorKind::NotFound,
                        format!("cannot {attempt} {path}: the folder {folder} does not exist"),
                    );
                }
                Ok(Some(found)) if !found.is_directory() && !found.is_link() && folder != *self.root() => {
                    return not_a_folder(attempt, &folder);
                }
                _ => {}
            }
        }
        self.client.error(&format!("{attempt} {path}"), failure)
    }

    pub(super) async fn make_directory(&mut self, path: &RemotePath) -> Result<(), Error> {
        self.confine_parent(path).await?;
        let wire = wire_path(path);
        let ticket =
            self.client.request(kind::MKDIR, |request| request.string(&wire).attributes(&Attributes::default()));
        let Err(failure) = self.client.done(ticket).await else { return Ok(()) };
        if failure.is_refusal() && self.look(path).await?.is_some() {
            return Err(exists("make folder", path));
        }
        Err(self.not_put("make folder", path, failure).await)
    }
}

/// Whether a path that a server says is real has steps upwards all the same.
pub(super) fn is_self_or_parent(name: &Name) -> bool {
    matches!(name.name.as_ref(), b"." | b"..")
}

/// One name of a listing as an entry; `None` for one that no path can hold.
pub(super) fn entry_of(folder: &RemotePath, name: &Name, left_out: &mut usize) -> Option<Entry> {
    if is_self_or_parent(name) {
        return None;
    }
    let path = folder.join(&name_of(&name.name)).ok();
    if path.is_none() {
        *left_out += 1;
        if *left_out <= LEFT_OUT_TOLD_MAX {
            tracing::warn!(%folder, name = super::wire::printable(&name.name), "a name is left out of a listing");
        }
    }
    path.map(|path| entry(path, &name.attributes))
}

/// What attributes say, in the terms of every connection.
pub(super) fn entry(path: RemotePath, attributes: &Attributes) -> Entry {
    let kind = entry_kind(attributes);
    let modified = attributes.times.and_then(|(_, modified)| super::posix::time(modified));
    let size = attributes.size.filter(|_| kind == EntryKind::File);
    Entry { path, kind, size, modified, mode: attributes.mode.map(|mode| mode & PERMISSIONS), revision: None }
}

pub(super) fn entry_kind(attributes: &Attributes) -> EntryKind {
    match attributes {
        found if found.is_directory() => EntryKind::Directory,
        found if found.is_link() => EntryKind::Symlink,
        found if found.is_file() => EntryKind::File,
        // A server that tells no kind, but how long something is.
        Attributes { mode: None, size: Some(_), .. } => EntryKind::File,
        _ => EntryKind::Other,
    }
}

pub(super) fn not_there(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::NotFound, format!("cannot {operation} {path}: nothing is there"))
}

pub(super) fn exists(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("cannot {operation} {path}: it exists already"))
}

pub(super) fn is_a_folder(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::Conflict, format!("cannot {operation} {path}: it is a folder"))
}

pub(super) fn not_a_folder(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::Conflict, format!("cannot {operation} {path}: it is not a folder"))
}
