//! The contract between [`crate::Remote`] and the protocols: one trait with the verbs of a file-like remote.
//!
//! It is private and has no default methods, so no backend can forget one. The conformance suite checks every promise
//! written here on each of them. Paths come already below the connection's root; results are told in those terms.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::SystemTime;

use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::content::Content;
use crate::error::Error;
use crate::path::RemotePath;
use sha2::{Digest, Sha256};

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
    /// Permissions as POSIX has them, nine bits, where the remote says.
    pub mode: Option<u32>,
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

/// Of the mode of a file, the permissions that are told and given: nobody is made somebody else by copying (set-user-ID).
pub(crate) const PERMISSIONS: u32 = 0o777;

/// Permissions for a file, nine bits as POSIX has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permissions {
    /// These, whatever new files get there.
    Exactly(u32),
    /// Those that it is made with: what no new file gets there (umask) is taken away.
    AtMost(u32),
}

impl Permissions {
    /// What is given to a file that is there.
    pub(crate) fn exact(self) -> Option<u32> {
        match self {
            Self::Exactly(mode) => Some(mode & PERMISSIONS),
            Self::AtMost(_) => None,
        }
    }

    /// What a file is made with, where that matters.
    pub(crate) fn at_most(self) -> Option<u32> {
        match self {
            Self::Exactly(_) => None,
            Self::AtMost(mode) => Some(mode & PERMISSIONS),
        }
    }
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

/// How a file is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WriteOptions {
    /// What to do when the target exists.
    pub if_exists: IfExists,
    /// Whether missing folders on the way to the target are made.
    pub parents: bool,
    /// The time of last change to record, to the precision of the remote. A remote that cannot record one keeps the
    /// time of the write; that is no error.
    pub modified: Option<SystemTime>,
    /// The permissions to give. A remote that has none leaves them out, which is no error.
    pub mode: Option<Permissions>,
    /// For a write that may be continued after it broke off.
    pub resume: Option<Resume>,
}

impl WriteOptions {
    /// Nothing but what to do when the target exists.
    pub fn new(if_exists: IfExists) -> Self {
        Self { if_exists, parents: false, modified: None, mode: None, resume: None }
    }
}

/// Names the partial content of a write, so that a later one can go on where it broke off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resume {
    /// What the content is: the same for the same source in the same state, different otherwise.
    pub key: ResumeKey,
    /// Where the content that is handed over begins: bytes that an earlier write with this key has brought already,
    /// as [`crate::Remote::partial`] told. What lies beyond is dropped.
    pub offset: u64,
}

/// The mark of some content in 16 hexadecimal digits, made from whatever identifies it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ResumeKey(String);

impl ResumeKey {
    /// The key of content that `identity` describes, such as connection, path, size and time of a source.
    pub fn of(identity: &str) -> Self {
        let digest = Sha256::digest(identity.as_bytes());
        Self(hexadecimal(&digest[..8]))
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A checksum that a remote knows or computes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    /// How it is computed.
    pub algorithm: ChecksumAlgorithm,
    /// Its value in lower-case hexadecimal digits.
    pub value: String,
}

/// Bytes as checksums are written: in lower-case hexadecimal digits.
pub(crate) fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// How a checksum is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChecksumAlgorithm {
    /// SHA-256 of the content.
    Sha256,
    /// SHA-1 of the content.
    Sha1,
    /// MD5 of the content.
    Md5,
    /// CRC-32 (ISO 3309) of the content.
    Crc32,
    /// Dropbox's content hash: SHA-256 over the SHA-256 of each block of 4 MiB.
    Dropbox,
}

impl ChecksumAlgorithm {
    /// Its usual name: `sha256`, `sha1`, `md5`, `crc32`, `dropbox`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha1 => "sha1",
            Self::Md5 => "md5",
            Self::Crc32 => "crc32",
            Self::Dropbox => "dropbox",
        }
    }
}

/// What a remote tells of itself when it is pinged: names such as `server`, `tls`, `user`, and their values.
pub type Facts = Vec<(&'static str, String)>;

/// A folder's entries, page by page; no page is empty, their order is the remote's.
pub(crate) type Pages = BoxStream<'static, Result<Vec<Entry>, Error>>;

#[async_trait]
pub(crate) trait Backend: Send + Sync {
    /// Whether a write or a new folder makes the folders on the way to it.
    fn makes_parents(&self) -> bool;

    /// Whether it tries again by itself, so that nobody else has to.
    fn repeats_by_itself(&self) -> bool;

    /// Where `path` is, in words that other connections to the same files have for it, too; `None` where that cannot be
    /// told. The remote is not asked.
    async fn location(&self, path: &RemotePath) -> Option<Location>;

    /// Opens, authenticates and does the smallest real operation. Tells what is worth knowing of the remote. A failure
    /// carries its [`crate::Step`]. Safe to repeat.
    async fn ping(&self) -> Result<Facts, Error>;

    /// What is at `path`: `NotFound` when nothing is. Symbolic links are not followed. Safe to repeat.
    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error>;

    /// What a path leads to: as [`Backend::stat`] of what [`Backend::read`] would read. `NotFound` for a symbolic link
    /// to nothing, `Denied` for one that leads out. Safe to repeat.
    async fn follow(&self, path: &RemotePath) -> Result<Entry, Error>;

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
    ///
    /// With [`WriteOptions::resume`] the temporary name is made from its key, what is there beyond its offset is
    /// dropped, `content` is put behind it, and a write that breaks off leaves it there. A remote that keeps no
    /// partial content answers [`Backend::partial`] with 0 and ignores the key. `parents` is not its concern.
    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error>;

    /// How many bytes an earlier write to `path` with this key has left; 0 when there are none. Safe to repeat.
    async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error>;

    /// Puts content behind the end of a file, which is made when it is missing. Not atomic: what arrived before a
    /// failure stays, and the error says so. `Conflict` for a folder, `Unsupported` where the remote cannot.
    async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error>;

    /// Copies a file within the remote, which moves the bytes itself; `None` where it cannot, and nothing happened.
    /// Otherwise as [`Backend::write`].
    async fn copy(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists)
    -> Result<Option<Entry>, Error>;

    /// Deletes a folder with all that is in it, when the remote can do that at once: `false`, and nothing happened,
    /// where it cannot. Symbolic links are deleted themselves, never what they lead to.
    async fn delete_tree(&self, path: &RemotePath) -> Result<bool, Error>;

    /// Sets the time of the last change, to the precision of the remote. `NotFound`; `Unsupported` where it cannot.
    /// Safe to repeat.
    async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error>;

    /// A checksum of a file that the remote knows or computes itself; `None` where it cannot. `NotFound`; `Conflict`
    /// for a folder. Safe to repeat.
    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error>;

    /// Deletes a file or an empty folder. `NotFound`; `Conflict` when the folder is not empty. A symbolic link is
    /// deleted itself, never what it leads to.
    async fn delete(&self, path: &RemotePath) -> Result<(), Error>;

    /// Renames. `NotFound` for the source; `AlreadyExists` for the target with [`IfExists::Fail`]; `Unsupported` with
    /// [`IfExists::Rename`].
    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error>;

    /// Makes one folder. `AlreadyExists`; `NotFound` when its parent is missing, unless the remote makes it.
    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error>;
}

/// A place on a machine, a server or in an account, by whatever connection it is reached.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// What tells one machine, server or account from others.
    pub(crate) server: String,
    /// The path there. Where case makes no difference, it makes none here.
    pub(crate) path: PathBuf,
}

impl Location {
    /// Whether it is this folder or lies below it. Not so, too, where it is not known to.
    pub(crate) fn is_within(&self, folder: &Self) -> bool {
        self.server == folder.server && self.path.starts_with(&folder.path)
    }
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
