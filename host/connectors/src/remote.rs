//! The operations of a file-like connection, as its users call them: the path jail around the backend's verbs, and what
//! is made of several of them.
//!
//! Knows no protocol. What holds for every operation is in `operation`.

use std::time::{Duration, Instant, SystemTime};

use futures::stream::{Stream, StreamExt, TryStreamExt};

use crate::backend::{
    Backend, ByteRange, Checksum, Entry, EntryKind, Facts, IfExists, Location, Pages, Resume, ResumeKey, WriteOptions,
};
use crate::content::Content;
use crate::error::{Error, ErrorKind, Step};
use crate::operation::{Effect, Operation};
use crate::path::RemotePath;
use crate::{Protocol, Remote, Shared};

/// Entries that [`Remote::list`] returns at most; beyond that memory is at the mercy of the server.
pub const LIST_ENTRIES_MAX: usize = 10_000;

/// What a ping found out.
#[derive(Debug, Clone)]
pub struct Ping {
    /// How long it took.
    pub took: Duration,
    /// What the remote told of itself.
    pub facts: Facts,
}

impl Remote {
    /// Opens, authenticates and does the smallest real operation.
    ///
    /// # Errors
    /// Whatever failed, with its [`Error::step`]: the name, the connection, TLS, the host key, the login or the command.
    pub async fn ping(&self) -> Result<Ping, Error> {
        let started = Instant::now();
        let root = RemotePath::root();
        let facts = match &self.shared.protocol {
            Protocol::Http(origin) => self.once("ping", &root, Effect::None, origin.ping()).await,
            Protocol::Local(_) | Protocol::Ftp(_) | Protocol::Sftp(_) | Protocol::Dropbox(_) => {
                let backend = self.backend("ping")?;
                let outside = self.outside(&root);
                let ping = || async {
                    let facts = backend.ping().await?;
                    // Dropbox makes its root with the first file; the others have it, or nothing works.
                    if !outside.is_root() && !backend.makes_parents() {
                        backend.stat(&outside).await?;
                    }
                    Ok(facts)
                };
                self.repeatably("ping", &root, Effect::None, ping).await
            }
        };
        let facts = facts.map_err(|error| error.at(Step::Command))?;
        Ok(Ping { took: started.elapsed(), facts })
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// `NotFound` when nothing is; otherwise what the remote reports.
    pub async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let (backend, outside) = (self.backend("stat")?, self.outside(path));
        let entry = self.repeatably("stat", path, Effect::None, || backend.stat(&outside)).await?;
        self.inside(entry)
    }

    /// What `path` leads to: symbolic links are followed as [`Remote::read`] follows them.
    ///
    /// # Errors
    /// `NotFound` when nothing is there, or a link leads to nothing; `Denied` for a link that leads out of the root.
    pub async fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        let (backend, outside) = (self.backend("stat")?, self.outside(path));
        let entry = self.repeatably("stat", path, Effect::None, || backend.follow(&outside)).await?;
        self.inside(entry)
    }

    /// Whether something is at `path`.
    ///
    /// # Errors
    /// What the remote reports, other than that nothing is there.
    pub async fn exists(&self, path: &RemotePath) -> Result<bool, Error> {
        match self.stat(path).await {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The entries of a folder, page by page.
    ///
    /// # Errors
    /// `NotFound`, `Conflict` when it is not a folder.
    pub async fn list_pages(
        &self,
        path: &RemotePath,
    ) -> Result<impl Stream<Item = Result<Vec<Entry>, Error>> + Send + use<>, Error> {
        let (backend, outside) = (self.backend("list")?, self.outside(path));
        let (operation, permit) = Operation::begin(self, "list", path, Effect::None).await?;
        let pages: Pages = operation.end(self.retried("list", || backend.list(&outside)).await)?;
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
        let (backend, outside) = (self.backend("read")?, self.outside(path));
        let (operation, permit) = Operation::begin(self, "read", path, Effect::None).await?;
        match self.retried("read", || backend.read(&outside, range)).await {
            Ok(content) => Ok(operation.with_content(content, permit)),
            Err(error) => operation.end(Err(error)),
        }
    }

    /// Writes a file: whole under its name, or not at all.
    ///
    /// # Errors
    /// `AlreadyExists`, `NotFound` for a missing folder, `Conflict` when the target is a folder, `Invalid` for the root,
    /// and what `content` or the remote reports.
    pub async fn write(&self, path: &RemotePath, content: Content, if_exists: IfExists) -> Result<Entry, Error> {
        self.write_with(path, content, &WriteOptions::new(if_exists)).await
    }

    /// As [`Remote::write`], with more to say.
    ///
    /// # Errors
    /// As [`Remote::write`]; `Conflict` while another write continues the same partial content.
    pub async fn write_with(
        &self,
        path: &RemotePath,
        content: Content,
        options: &WriteOptions,
    ) -> Result<Entry, Error> {
        self.not_the_root("write", path)?;
        if options.parents {
            self.make_parents_of(path).await?;
        }
        let _alone = options.resume.as_ref().map(|resume| self.resume(path, resume)).transpose()?;
        let (backend, outside) = (self.backend("write")?, self.outside(path));
        let (operation, _permit) = Operation::begin(self, "write", path, Effect::WholeOrNot).await?;
        let content = operation.measured(content);
        let entry = operation.end(backend.write(&outside, content, options).await)?;
        self.inside(entry)
    }

    /// How many bytes an earlier write to `path` with this key has left for [`WriteOptions::resume`].
    ///
    /// # Errors
    /// What the remote reports.
    pub async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let (backend, outside) = (self.backend("stat")?, self.outside(path));
        self.repeatably("stat", path, Effect::None, || backend.partial(&outside, key)).await
    }

    /// Puts content behind the end of a file, which is made when it is missing. Not atomic.
    ///
    /// # Errors
    /// `Conflict` for a folder, `Unsupported` where the remote cannot; what arrived before a failure stays.
    pub async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error> {
        self.not_the_root("append to", path)?;
        let (backend, outside) = (self.backend("append")?, self.outside(path));
        let (operation, _permit) = Operation::begin(self, "append", path, Effect::Partial).await?;
        let content = operation.measured(content);
        let entry = operation.end(backend.append(&outside, content).await)?;
        self.inside(entry)
    }

    /// Copies a file within the connection, on the remote itself where it can, otherwise through this host.
    ///
    /// # Errors
    /// As [`Remote::read`] and [`Remote::write`].
    pub async fn copy(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<Entry, Error> {
        self.not_the_root("copy", source)?;
        self.not_the_root("copy to", target)?;
        if source == target {
            let message = format!("cannot copy {source} to itself");
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        if let Some(entry) = self.copy_there(source, target, if_exists).await? {
            return Ok(entry);
        }
        self.check_room_to_copy()?;
        let modified = self.stat(source).await?.modified;
        let content = self.read(source, ByteRange::ALL).await?;
        self.write_with(target, content, &WriteOptions { modified, ..WriteOptions::new(if_exists) }).await
    }

    /// Copies a file within the connection on the remote itself; `None` where it cannot.
    pub(crate) async fn copy_there(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let (backend, from, to) = (self.backend("copy")?, self.outside(source), self.outside(target));
        let copy = backend.copy(&from, &to, if_exists);
        let copied = self.once("copy", source, Effect::WholeOrNot, copy).await?;
        copied.map(|entry| self.inside(entry)).transpose()
    }

    /// Deletes a file or an empty folder.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when the folder is not empty; `Invalid` for the root.
    pub async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        self.not_the_root("delete", path)?;
        let (backend, outside) = (self.backend("delete")?, self.outside(path));
        self.once("delete", path, Effect::Unknown, backend.delete(&outside)).await
    }

    /// Renames within the connection.
    ///
    /// # Errors
    /// `NotFound` for the source, `AlreadyExists` for the target with [`IfExists::Fail`], `Unsupported` with
    /// [`IfExists::Rename`], `Invalid` for the root.
    pub async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        self.not_the_root("rename", source)?;
        self.not_the_root("rename", target)?;
        let (backend, from, to) = (self.backend("rename")?, self.outside(source), self.outside(target));
        self.once("rename", source, Effect::Unknown, backend.rename(&from, &to, if_exists)).await
    }

    /// Makes one folder.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for a missing parent, unless the remote makes it.
    pub async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let (backend, outside) = (self.backend("make-directory")?, self.outside(path));
        self.once("make-directory", path, Effect::Unknown, backend.make_directory(&outside)).await
    }

    /// Makes a folder and the missing folders on the way to it. One that is there already is a success.
    ///
    /// # Errors
    /// `Conflict` when something that is not a folder is in the way.
    pub async fn make_directories(&self, path: &RemotePath) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut next = Some(path.clone());
        while let Some(folder) = next.take() {
            match self.stat(&folder).await {
                Ok(entry) if entry.kind == EntryKind::Directory => {}
                // A link may well lead to a folder; on the way to others the next step says so if it does not.
                Ok(entry) if entry.kind == EntryKind::Symlink && folder != *path => {}
                Ok(entry) if entry.kind == EntryKind::Symlink && self.leads_to_folder(&folder).await => {}
                Ok(_) => {
                    let message = format!("cannot make folder {path}: {folder} is there and is no folder");
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    next = folder.parent();
                    missing.push(folder);
                }
                Err(error) => return Err(error),
            }
        }
        for folder in missing.iter().rev() {
            match self.make_directory(folder).await {
                // Somebody else made it meanwhile.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                made => made?,
            }
        }
        Ok(())
    }

    async fn leads_to_folder(&self, path: &RemotePath) -> bool {
        self.follow(path).await.is_ok_and(|entry| entry.kind == EntryKind::Directory)
    }

    /// Sets the time of the last change, to the precision of the remote.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` where the remote cannot.
    pub async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let (backend, outside) = (self.backend("set-modified")?, self.outside(path));
        let set = || backend.set_modified(&outside, time);
        self.repeatably("set-modified", path, Effect::Unknown, set).await
    }

    /// A checksum of a file that the remote knows or computes itself; `None` where it cannot.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a folder.
    pub async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let (backend, outside) = (self.backend("checksum")?, self.outside(path));
        self.repeatably("checksum", path, Effect::None, || backend.checksum(&outside)).await
    }

    /// Makes the folder that a path is about to be put into, unless the remote does that by itself.
    pub(crate) async fn make_parents_of(&self, path: &RemotePath) -> Result<(), Error> {
        match path.parent() {
            Some(folder) if !folder.is_root() && !self.backend("make-directory")?.makes_parents() => {
                self.make_directories(&folder).await
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn backend(&self, operation: &str) -> Result<&dyn Backend, Error> {
        match &self.shared.protocol {
            Protocol::Local(local) => Ok(local.as_ref()),
            Protocol::Ftp(ftp) => Ok(ftp.as_ref()),
            Protocol::Sftp(server) => Ok(server.as_ref()),
            Protocol::Dropbox(dropbox) => Ok(dropbox.as_ref()),
            Protocol::Http(_) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("connection {} is of type http, which has no {operation}: it holds no files", self.name()),
            )),
        }
    }

    /// A path as the remote knows it.
    pub(crate) fn outside(&self, path: &RemotePath) -> RemotePath {
        path.below(&self.shared.common.root)
    }

    /// Where a path is, to be compared with those of other connections, where that can be told.
    pub(crate) async fn location(&self, path: &RemotePath) -> Option<Location> {
        self.backend("location").ok()?.location(&self.outside(path)).await
    }

    /// An entry as users of the connection know it.
    pub(crate) fn inside(&self, mut entry: Entry) -> Result<Entry, Error> {
        let path = entry.path.relative_to(&self.shared.common.root).ok_or_else(|| {
            Error::new(
                ErrorKind::Internal,
                format!("connection {} answered with {}, outside of its root", self.name(), entry.path),
            )
        })?;
        entry.path = path;
        Ok(entry)
    }

    pub(crate) fn not_the_root(&self, operation: &str, path: &RemotePath) -> Result<(), Error> {
        if path.is_root() {
            let name = self.name();
            return Err(Error::new(ErrorKind::Invalid, format!("cannot {operation} the root of connection {name}")));
        }
        Ok(())
    }

    fn resume(&self, path: &RemotePath, resume: &Resume) -> Result<Resuming, Error> {
        let what = (path.clone(), resume.key.clone());
        if !self.shared.resuming().insert(what.clone()) {
            let message = format!("another write of the same content to {path} on {} is under way", self.name());
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        Ok(Resuming { remote: self.clone(), what })
    }
}

impl Shared {
    fn resuming(&self) -> std::sync::MutexGuard<'_, std::collections::HashSet<(RemotePath, ResumeKey)>> {
        self.resuming.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A partial content that one write works on.
struct Resuming {
    remote: Remote,
    what: (RemotePath, ResumeKey),
}

impl Drop for Resuming {
    fn drop(&mut self) {
        self.remote.shared.resuming().remove(&self.what);
    }
}
