//! The files that a configuration is made of: itself, and those that secrets and certificates are read from.
//!
//! Every file is read once and remembered by the hash of its content, so that a later look can tell whether anything
//! changed. Knows nothing of what the files hold. Reads block: not for an async worker.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

/// Largest file that is read. A configuration of ten thousand services has about a tenth of it; a secret or a
/// certificate is far smaller.
pub(super) const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Others may write the file: whoever does chooses the secret.
const WRITABLE_BY_OTHERS: u32 = 0o002;
/// Others may read the file.
const READABLE_BY_OTHERS: u32 = 0o004;

/// The SHA-256 of a content. It cannot print itself: from the hash of a short secret the secret can be guessed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct ContentHash([u8; 32]);

impl From<Sha256> for ContentHash {
    fn from(hash: Sha256) -> Self {
        Self(hash.finalize().into())
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("ContentHash")
    }
}

/// Files with the hash of the content that was read; `None` for one that could not be read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Files {
    hashes: BTreeMap<PathBuf, Option<ContentHash>>,
}

impl Files {
    /// The content of a file, remembered by its hash.
    ///
    /// # Errors
    /// What the operating system says; a file that is not a regular one, or larger than [`FILE_BYTES_MAX`].
    pub(super) fn read(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let content = read_bounded(path);
        let hash = content.as_ref().ok().map(|content| Sha256::new_with_prefix(content).into());
        self.hashes.insert(path.to_owned(), hash);
        content
    }

    /// The same files as they are now.
    pub(super) fn again(&self) -> Self {
        let mut now = Self::default();
        for path in self.hashes.keys() {
            // What cannot be read is remembered as such; the error itself belongs to whoever needs the content.
            let _ = now.read(path);
        }
        now
    }

    /// The folders that hold the files, each once.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = self.hashes.keys().map(|path| folder_of(path)).collect();
        folders.sort();
        folders.dedup();
        folders
    }

    /// Whether there is no file at all.
    pub(super) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// The folder that holds a file; `.` for a bare name.
pub(super) fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// What other users of the machine may do with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exposure {
    /// Nothing.
    None,
    /// Read it.
    Read,
    /// Change it.
    Write,
}

/// What other users of the machine may do with a file, by its mode.
///
/// # Errors
/// What the operating system says.
pub(super) fn exposure(path: &Path) -> io::Result<Exposure> {
    let mode = std::fs::metadata(path)?.permissions().mode();
    Ok(if mode & WRITABLE_BY_OTHERS != 0 {
        Exposure::Write
    } else if mode & READABLE_BY_OTHERS != 0 {
        Exposure::Read
    } else {
        Exposure::None
    })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a named pipe would wait for a writer, and a device has no end.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut content = Vec::new();
    File::open(path)?.take(FILE_BYTES_MAX + 1).read_to_end(&mut content)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(io::Error::other(format!("it is larger than {} MiB", FILE_BYTES_MAX / (1024 * 1024))));
    }
    Ok(content)
}
