//! How a file gets into a local folder whole or not at all: a temporary name beside the target, then a rename.
//!
//! Blocking, like all of the folder. Knows no tokio, except that a temporary file given up on an async worker is removed
//! on the blocking pool.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::folder::{entry, exists, failed, rename_to_free_name, timestamps, write_failed};
use crate::backend::{ALTERNATIVE_NAMES_MAX, Entry, IfExists, Permissions, WriteOptions, alternative_name};
use crate::error::{Error, ErrorKind};
use crate::path::{RemotePath, wire_name_of};

/// A file on its way to its name. Dropped before it was committed or discarded, it is removed on a thread that may
/// wait for the disk, a moment later.
pub(super) struct Temporary {
    file: File,
    leftover: Option<Leftover>,
    folder: Arc<OwnedFd>,
    path: RemotePath,
    options: WriteOptions,
}

impl Temporary {
    /// A file that was opened under a temporary name of this folder.
    pub(super) fn new(
        file: File,
        folder: Arc<OwnedFd>,
        name: String,
        path: &RemotePath,
        options: &WriteOptions,
    ) -> Self {
        let leftover = Leftover { folder: Arc::clone(&folder), name, is_kept: options.resume.is_some() };
        Self { file, leftover: Some(leftover), folder, path: path.clone(), options: options.clone() }
    }

    /// Puts what comes next of another file behind what there is, without a detour through this process; how many bytes,
    /// 0 at its end. `None` where the kernel cannot, as between some file systems.
    pub(super) fn append_of(&mut self, source: &File, bytes_max: usize) -> Result<Option<usize>, Error> {
        match rustix::fs::copy_file_range(source, None, &self.file, None, bytes_max) {
            Ok(copied) => Ok(Some(copied)),
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::PERM) => Ok(None),
            Err(error) => Err(failed("write", &self.path, error)),
        }
    }

    pub(super) fn append(&mut self, chunks: &[Bytes]) -> Result<(), Error> {
        for chunk in chunks {
            self.file.write_all(chunk).map_err(|error| write_failed(&self.path, error))?;
        }
        Ok(())
    }

    /// Gives it up; it is removed when this returns, unless it is kept to be continued.
    pub(super) fn discard(mut self) {
        drop(self.leftover.take());
    }

    /// Puts the file under its name, on the disk itself and not only in the cache. Where that fails, it is discarded.
    pub(super) fn commit(mut self) -> Result<Entry, Error> {
        let committed = self.put_under_its_name();
        self.discard();
        committed
    }

    fn put_under_its_name(&mut self) -> Result<Entry, Error> {
        if let Some(mode) = self.options.mode.and_then(Permissions::exact) {
            rustix::fs::fchmod(&self.file, Mode::from_raw_mode(mode))
                .map_err(|error| failed("write", &self.path, error))?;
        }
        if let Some(time) = self.options.modified {
            rustix::fs::futimens(&self.file, &timestamps(time)).map_err(|error| failed("write", &self.path, error))?;
        }
        self.file.sync_all().map_err(|error| write_failed(&self.path, error))?;
        let path = match &self.leftover {
            Some(leftover) => self.rename(leftover, self.options.if_exists)?,
            None => self.path.clone(),
        };
        if let Some(mut leftover) = self.leftover.take() {
            leftover.name.clear();
        }
        // The name is durable once the folder is on the disk. A folder that may be written to but not read cannot be
        // opened for that; the file is complete there all the same.
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if let Ok(folder) = rustix::fs::openat(&self.folder, ".", flags, Mode::empty()) {
            rustix::fs::fsync(folder).map_err(|error| failed("write", &path, error))?;
        }
        let stat = rustix::fs::fstat(&self.file).map_err(|error| failed("stat", &path, error))?;
        Ok(entry(path, &stat))
    }

    fn rename(&self, leftover: &Leftover, if_exists: IfExists) -> Result<RemotePath, Error> {
        let target = &self.path;
        let failed = |error| failed("write", target, error);
        match if_exists {
            IfExists::Replace => {
                rustix::fs::renameat(
                    &self.folder,
                    wire_name_of(&leftover.name),
                    &self.folder,
                    wire_name_of(target.name()),
                )
                .map_err(failed)?;
                Ok(target.clone())
            }
            IfExists::Fail => match self.rename_to_free(leftover, target.name()) {
                Err(Errno::EXIST) => Err(exists("write", target)),
                other => other.map_err(failed).map(|()| target.clone()),
            },
            IfExists::Rename => {
                let folder = target.parent().unwrap_or_else(RemotePath::root);
                for number in 0..=ALTERNATIVE_NAMES_MAX {
                    let path = match number {
                        0 => target.clone(),
                        _ => folder.join(&alternative_name(target.name(), number))?,
                    };
                    match self.rename_to_free(leftover, path.name()) {
                        Err(Errno::EXIST) => {}
                        other => return other.map_err(failed).map(|()| path),
                    }
                }
                Err(Error::new(
                    ErrorKind::AlreadyExists,
                    format!("cannot write {target}: it and {ALTERNATIVE_NAMES_MAX} alternative names are taken"),
                ))
            }
        }
    }

    fn rename_to_free(&self, leftover: &Leftover, name: &str) -> Result<(), Errno> {
        rename_to_free_name(&self.folder, &leftover.name, &self.folder, name)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(leftover) = self.leftover.take() else { return };
        // Without a runtime, or when it refuses the task, the leftover is dropped and so removed right here.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn_blocking(move || drop(leftover));
        }
    }
}

/// The name of a temporary file, removed when this is dropped; empty when it has become the file itself.
struct Leftover {
    folder: Arc<OwnedFd>,
    name: String,
    /// Whether what there is of the content may be continued later.
    is_kept: bool,
}

impl Drop for Leftover {
    fn drop(&mut self) {
        if self.name.is_empty() || self.is_kept {
            return;
        }
        if let Err(error) = rustix::fs::unlinkat(&self.folder, wire_name_of(&self.name), AtFlags::empty()) {
            tracing::warn!(name = self.name, %error, "a temporary file could not be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::local::folder::Folder;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).unwrap()
    }

    #[test]
    fn a_temporary_file_that_is_given_up_is_removed_without_a_runtime_too() {
        let above = tempfile::tempdir().unwrap();
        let folder = Folder::new(above.path(), Vec::new()).unwrap();
        let mut temporary = folder.create(&path("/file"), &WriteOptions::new(IfExists::Fail)).unwrap();
        temporary.append(&[Bytes::from_static(b"half")]).unwrap();
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 1);
        drop(temporary);
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_name_that_was_taken_meanwhile_is_not_replaced() {
        let above = tempfile::tempdir().unwrap();
        let folder = Folder::new(above.path(), Vec::new()).unwrap();
        let first = folder.create(&path("/file"), &WriteOptions::new(IfExists::Fail)).unwrap();
        let second = folder.create(&path("/file"), &WriteOptions::new(IfExists::Rename)).unwrap();
        fs::write(above.path().join("file"), "mine").unwrap();
        assert_eq!(first.commit().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(second.commit().unwrap().path, path("/file (1)"));
        assert_eq!(fs::read_to_string(above.path().join("file")).unwrap(), "mine");
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 2);
    }
}
