//! The contract between [`crate::Remote`] and the protocols: one trait with the verbs of a file-like remote.
//!
//! It is private and has no default methods, so no backend can forget one. The conformance suite checks every promise
//! written here on each of them. Paths come already below the connection's root; results are told in those terms.

use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::content::Content;
use crate::error::Error;
use crate::path::RemotePath;

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Directory,
    /// A symbolic link, not followed.
    Symlink,
    /// Anything else, or unknown.
    Other,
}

/// One file or folder of a remote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it is.
    pub path: RemotePath,
    /// What it is.
    pub kind: EntryKind,
    /// Bytes, for files, where the remote says.
    pub size: Option<u64>,
    /// Time of the last change, where the remote says.
    pub modified: Option<SystemTime>,
    /// A mark that changes with the content, where the remote has one.
    pub revision: Option<String>,
}

/// What to do when the target of a write or rename exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IfExists {
    /// Fail with `AlreadyExists` and leave the target as it is.
    Fail,
    /// Replace it, at once, when the new content is complete.
    Replace,
    /// Take the first free name of the form `name (1).ext`.
    Rename,
}

/// Which part of a file to read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ByteRange {
    /// First byte. Past the end of the file the content is empty.
    pub offset: u64,
    /// At most so many bytes; to the end when absent.
    pub length: Option<u64>,
}

impl ByteRange {
    /// The whole file.
    pub const ALL: Self = Self { offset: 0, length: None };
}

/// A folder's entries, page by page; no page is empty, their order is the remote's.
pub(crate) type Pages = BoxStream<'static, Result<Vec<Entry>, Error>>;

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Opens, authenticates and does the smallest real operation. Safe to repeat.
    async fn ping(&self) -> Result<(), Error>;

    /// What is at `path`: `NotFound` when nothing is. Symbolic links are not followed. Safe to repeat.
    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error>;

    /// The entries of a folder. `NotFound` when nothing is there, `Conflict` when it is not a folder; both before the
    /// first page. Entries whose names [`RemotePath::join`] refuses are left out with a warning in the log: no
    /// listing of a hostile server leads out of its folder. Safe to repeat.
    async fn list(&self, path: &RemotePath) -> Result<Pages, Error>;

    /// A file's content, pulled from the remote as it is consumed. `NotFound`; `Conflict` for a folder. Where the
    /// remote breaks off, or what arrived fails verification, the stream ends with an error item. Dropping the
    /// content releases the connection.
    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error>;

    /// Writes a file so that it appears whole under its name or not at all: a temporary name beside it, verified by
    /// size or hash, then renamed, or the protocol's own atomic commit. When `content` fails, or the future is
    /// dropped, the temporary file is removed as far as the remote can be reached. `NotFound` when the folder is
    /// missing, unless the remote makes it by itself; `AlreadyExists` with [`IfExists::Fail`]; `Conflict` when the
    /// target is a folder. The returned entry is the file as it is now. Safe to repeat with [`IfExists::Replace`].
    async fn write(&self, path: &RemotePath, content: Content, if_exists: IfExists) -> Result<Entry, Error>;

    /// Deletes a file or an empty folder. `NotFound`; `Conflict` when the folder is not empty. A symbolic link is
    /// deleted itself, never what it leads to.
    async fn delete(&self, path: &RemotePath) -> Result<(), Error>;

    /// Renames. `NotFound` for the source; `AlreadyExists` for the target with [`IfExists::Fail`]; `Unsupported` with
    /// [`IfExists::Rename`].
    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error>;

    /// Makes one folder. `AlreadyExists`; `NotFound` when its parent is missing, unless the remote makes it.
    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error>;
}

/// The `number`-th alternative to `name`, for [`IfExists::Rename`]: `report (1).csv`, `archive (2)`, `.profile (1)`.
pub(crate) fn alternative_name(name: &str, number: u32) -> String {
    match name.rfind('.') {
        Some(dot) if dot > 0 => format!("{} ({number}){}", &name[..dot], &name[dot..]),
        _ => format!("{name} ({number})"),
    }
}

/// How many names [`IfExists::Rename`] tries before it gives up with `AlreadyExists`: more means that something makes
/// copies without end.
pub(crate) const ALTERNATIVE_NAMES_MAX: u32 = 100;
