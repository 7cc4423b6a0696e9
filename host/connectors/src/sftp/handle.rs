//! What a connection of type `sftp` offers beyond the files of every connection.
//!
//! Paths are those of the connection, below the folder that the handle is confined to. What the requests are is in
//! `posix`, scripts are in `script`.

use std::sync::Arc;
use std::time::SystemTime;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::posix::{Info, Owner};
use super::script::{Script, Shell};
use super::session::Session;
use super::status::FileSystem;
use super::{LogLevel, Sftp};
use crate::Remote;
use crate::backend::{ByteRange, EntryKind};
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::operation::Effect;
use crate::path::RemotePath;

/// Entries that [`Handle::list`] returns at most; beyond that memory is at the mercy of the server.
pub const INFOS_MAX: usize = 10_000;

/// The server behind a connection, confined to a folder; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    remote: Remote,
    server: Arc<Sftp>,
    /// Within the connection.
    folder: RemotePath,
}

impl Handle {
    pub(crate) fn new(remote: Remote, server: Arc<Sftp>) -> Self {
        Self { remote, server, folder: RemotePath::root() }
    }

    /// The same server, confined to a folder of this handle: paths are then told relative to it.
    #[must_use]
    pub fn within(&self, folder: &RemotePath) -> Self {
        Self { folder: folder.below(&self.folder), ..self.clone() }
    }

    /// Runs a script of sftp batch commands, see [`Shell::run_line`]; it stops at the first command that fails and does
    /// not begin with `-`. `local` is what `get` and `put` move files from and to; without it they fail.
    pub async fn execute(&self, script: &str, local: Option<&Remote>) -> Script {
        self.shell(local).execute(script).await
    }

    /// An interpreter of sftp batch commands that keeps its state from line to line.
    pub fn shell(&self, local: Option<&Remote>) -> Shell {
        Shell::new(self.clone(), local.cloned())
    }

    /// What is at a path; a symbolic link is told as that.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_info(&self, path: &RemotePath) -> Result<Info, Error> {
        let info = self
            .run("sftp-get-info", path, Effect::None, |session, path| {
                async move { session.info(&path, false).await }.boxed()
            })
            .await?;
        self.told(info)
    }

    /// What a path leads to: symbolic links are followed, within the root.
    ///
    /// # Errors
    /// `NotFound`, also for a link to nothing; `Denied` for one that leads out.
    pub async fn follow_info(&self, path: &RemotePath) -> Result<Info, Error> {
        let info = self
            .run("sftp-follow-info", path, Effect::None, |session, path| {
                async move { session.info(&path, true).await }.boxed()
            })
            .await?;
        self.told(info)
    }

    /// The entries of a folder with everything that is told of them.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not a folder; `TooLarge` with more than [`INFOS_MAX`].
    pub async fn list(&self, path: &RemotePath) -> Result<Vec<Info>, Error> {
        self.list_where(path, INFOS_MAX, |_| true).await
    }

    /// The same for those entries whose names are meant, at most so many.
    pub(super) async fn list_where(
        &self,
        path: &RemotePath,
        entries_max: usize,
        is_meant: impl Fn(&str) -> bool + Send + Sync + 'static,
    ) -> Result<Vec<Info>, Error> {
        let infos = self
            .run("sftp-list", path, Effect::None, move |session, path| {
                async move { session.infos(&path, entries_max, is_meant).await }.boxed()
            })
            .await?;
        infos.into_iter().map(|info| self.told(info)).collect()
    }

    /// Whether a folder is at a path. A link to one is none.
    ///
    /// # Errors
    /// What the server reports, other than that nothing is there.
    pub async fn is_directory(&self, path: &RemotePath) -> Result<bool, Error> {
        Ok(self.kind(path).await? == Some(EntryKind::Directory))
    }

    /// Whether a regular file is at a path. A link to one is none.
    ///
    /// # Errors
    /// What the server reports, other than that nothing is there.
    pub async fn is_file(&self, path: &RemotePath) -> Result<bool, Error> {
        Ok(self.kind(path).await? == Some(EntryKind::File))
    }

    /// Whether a symbolic link is at a path.
    ///
    /// # Errors
    /// What the server reports, other than that nothing is there.
    pub async fn is_symlink(&self, path: &RemotePath) -> Result<bool, Error> {
        Ok(self.kind(path).await? == Some(EntryKind::Symlink))
    }

    /// Whether anything is at a path.
    ///
    /// # Errors
    /// What the server reports, other than that nothing is there.
    pub async fn exists(&self, path: &RemotePath) -> Result<bool, Error> {
        Ok(self.kind(path).await?.is_some())
    }

    async fn kind(&self, path: &RemotePath) -> Result<Option<EntryKind>, Error> {
        match self.get_info(path).await {
            Ok(info) => Ok(Some(info.kind)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a symbolic link that says `target`: as it is when relative, a path of this handle when absolute.
    ///
    /// # Errors
    /// `AlreadyExists`; `NotFound` for the folder; `Denied` for a target outside of the root.
    pub async fn symlink(&self, target: &str, link: &RemotePath) -> Result<(), Error> {
        let target = if target.starts_with('/') {
            RemotePath::parse(target)?.below(&self.folder).as_str().to_owned()
        } else {
            target.to_owned()
        };
        self.run("sftp-symlink", link, Effect::Unknown, move |session, link| {
            async move { session.symlink(&target, &link).await }.boxed()
        })
        .await
    }

    /// Gives a file a second name.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists`; `Conflict` for a folder; `Unsupported`.
    pub async fn hard_link(&self, existing: &RemotePath, link: &RemotePath) -> Result<(), Error> {
        let existing = self.outside(existing);
        self.run("sftp-hard-link", link, Effect::Unknown, move |session, link| {
            async move { session.hard_link(&existing, &link).await }.boxed()
        })
        .await
    }

    /// What a symbolic link says, as it is.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for what is no link.
    pub async fn read_link(&self, path: &RemotePath) -> Result<String, Error> {
        self.run("sftp-read-link", path, Effect::None, |session, path| {
            async move { session.read_link(&path).await }.boxed()
        })
        .await
    }

    /// Changes permissions: a mode such as `0o640`. Links are followed within the root.
    ///
    /// # Errors
    /// `NotFound`; `Denied`; `Invalid` beyond `0o7777`.
    pub async fn chmod(&self, path: &RemotePath, mode: u32) -> Result<(), Error> {
        self.run("sftp-chmod", path, Effect::Unknown, move |session, path| {
            async move { session.change_mode(&path, mode, true).await }.boxed()
        })
        .await
    }

    /// The same for a link itself.
    ///
    /// # Errors
    /// As [`Handle::chmod`]; `Unsupported`.
    pub async fn chmod_link(&self, path: &RemotePath, mode: u32) -> Result<(), Error> {
        self.run("sftp-chmod", path, Effect::Unknown, move |session, path| {
            async move { session.change_mode(&path, mode, false).await }.boxed()
        })
        .await
    }

    /// Changes the user, the group, or both. Links are followed within the root unless `follow` is false.
    ///
    /// # Errors
    /// `NotFound`; `Denied`; `Invalid` for a name whose number the server does not tell; `Unsupported`.
    pub async fn chown(
        &self,
        path: &RemotePath,
        user: Option<Owner>,
        group: Option<Owner>,
        follow: bool,
    ) -> Result<(), Error> {
        self.run("sftp-chown", path, Effect::Unknown, move |session, path| {
            async move { session.change_owner(&path, user.as_ref(), group.as_ref(), follow).await }.boxed()
        })
        .await
    }

    /// Sets the times of the last access and the last change, to the second; what is not given stays.
    ///
    /// # Errors
    /// `NotFound`; `Denied`; `Invalid` for a time before 1970 or after 2106-02-07.
    pub async fn set_times(
        &self,
        path: &RemotePath,
        accessed: Option<SystemTime>,
        modified: Option<SystemTime>,
    ) -> Result<(), Error> {
        self.run("sftp-set-times", path, Effect::Unknown, move |session, path| {
            async move { session.change_times(&path, accessed, modified).await }.boxed()
        })
        .await
    }

    /// The space of the file system that a path is on.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported`.
    pub async fn statvfs(&self, path: &RemotePath) -> Result<FileSystem, Error> {
        self.run("sftp-statvfs", path, Effect::None, |session, path| {
            async move { session.file_system(&path).await }.boxed()
        })
        .await
    }

    /// Waits for what was written to a file to be on the server's disk.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported`.
    pub async fn fsync(&self, path: &RemotePath) -> Result<(), Error> {
        self.run("sftp-fsync", path, Effect::None, |session, path| async move { session.sync(&path).await }.boxed())
            .await
    }

    /// Where a path truly is, links resolved.
    ///
    /// # Errors
    /// `NotFound`; `Denied` when that is outside of the root.
    pub async fn realpath(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        let real = self
            .run("sftp-realpath", path, Effect::None, |session, path| {
                async move { session.real_path(&path).await }.boxed()
            })
            .await?;
        self.inside(&real)
    }

    /// The folder that the server opens after the login; `None` when it is outside of this handle.
    ///
    /// # Errors
    /// When no session can be opened.
    pub async fn login_folder(&self) -> Result<Option<RemotePath>, Error> {
        let root = RemotePath::root();
        let folder = self
            .run("sftp-login-folder", &root, Effect::None, |session, _| async { Ok(session.login_folder()) }.boxed())
            .await?;
        Ok(folder.and_then(|folder| self.inside(&folder).ok()))
    }

    /// Deletes a regular file and nothing else.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for anything else.
    pub async fn delete_file(&self, path: &RemotePath) -> Result<(), Error> {
        self.delete_only(path, EntryKind::File).await
    }

    /// Deletes an empty folder and nothing else.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for anything else, and for a folder that is not empty.
    pub async fn delete_directory(&self, path: &RemotePath) -> Result<(), Error> {
        self.delete_only(path, EntryKind::Directory).await
    }

    /// Deletes a symbolic link and nothing else.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for anything else.
    pub async fn delete_symlink(&self, path: &RemotePath) -> Result<(), Error> {
        self.delete_only(path, EntryKind::Symlink).await
    }

    async fn delete_only(&self, path: &RemotePath, kind: EntryKind) -> Result<(), Error> {
        self.not_the_root(path)?;
        self.run("sftp-delete", path, Effect::Unknown, move |session, path| {
            async move { session.delete_only(&path, kind).await }.boxed()
        })
        .await
    }

    /// Deletes whatever is at a path, a folder with all that is in it. Links are deleted, never followed.
    ///
    /// # Errors
    /// `NotFound`; what was deleted before a failure stays so.
    pub async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        self.not_the_root(path)?;
        self.run("sftp-delete", path, Effect::Partial, |session, path| {
            async move { session.delete_all(&path).await }.boxed()
        })
        .await
    }

    /// The content of a regular file; a link is followed within the root.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for anything else.
    pub async fn download_file(&self, path: &RemotePath) -> Result<Content, Error> {
        if self.follow_info(path).await?.kind != EntryKind::File {
            return Err(Error::new(ErrorKind::Conflict, format!("cannot download {path}: it is no file")));
        }
        self.remote.read(&path.below(&self.folder), ByteRange::ALL).await
    }

    /// The connection itself.
    pub(super) fn remote(&self) -> &Remote {
        &self.remote
    }

    /// A path of this handle as one of the connection.
    pub(super) fn on_the_connection(&self, path: &RemotePath) -> RemotePath {
        path.below(&self.folder)
    }

    /// The folder in which scripts begin, as it was configured.
    pub(super) fn directory(&self) -> Option<&RemotePath> {
        self.server.directory()
    }

    /// Whether files keep their times without being told so.
    pub(super) fn preserves(&self) -> bool {
        self.server.preserve
    }

    /// Whether each command of a script is told in the log.
    pub(super) fn tells_commands(&self) -> bool {
        self.server.log_level >= LogLevel::Debug
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        path: &RemotePath,
        effect: Effect,
        job: impl for<'session> FnOnce(&'session mut Session, RemotePath) -> BoxFuture<'session, Result<T, Error>>
        + Send
        + 'static,
    ) -> Result<T, Error> {
        let outside = self.outside(path);
        let work = self.server.run(move |session| job(session, outside));
        self.remote.once(name, &path.below(&self.folder), effect, work).await
    }

    fn outside(&self, path: &RemotePath) -> RemotePath {
        self.remote.outside(&path.below(&self.folder))
    }

    fn inside(&self, path: &RemotePath) -> Result<RemotePath, Error> {
        path.relative_to(&self.outside(&RemotePath::root())).ok_or_else(|| {
            let message = format!("a symbolic link on the way to {path} leads out of the folder of this handle");
            Error::new(ErrorKind::Denied, message)
        })
    }

    fn told(&self, mut info: Info) -> Result<Info, Error> {
        info.path = self.inside(&info.path)?;
        Ok(info)
    }

    fn not_the_root(&self, path: &RemotePath) -> Result<(), Error> {
        if path.is_root() {
            return Err(Error::new(ErrorKind::Invalid, "the root of a connection is not deleted"));
        }
        Ok(())
    }
}
