//! The space of a file system, as a server tells it (PROTOCOL of OpenSSH, section 4.4).
//!
//! Knows no conversation.

use bytes::Bytes;

use super::wire::{Fields, Malformed};

/// What `statvfs` of POSIX tells of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileSystem {
    /// Bytes that are transferred best at once.
    pub block_bytes: u64,
    /// Bytes that the numbers of blocks are counted in.
    pub fragment_bytes: u64,
    /// Blocks altogether.
    pub blocks: u64,
    /// Blocks that are free.
    pub blocks_free: u64,
    /// Blocks that are free for users without privileges.
    pub blocks_available: u64,
    /// Files that there can be altogether.
    pub files: u64,
    /// Files that there can be besides those that there are.
    pub files_free: u64,
    /// The same for users without privileges.
    pub files_available: u64,
    /// Bytes of the longest name.
    pub name_bytes_max: u64,
    /// Whether nothing can be written.
    pub is_read_only: bool,
}

impl FileSystem {
    pub(super) fn read(reply: Bytes) -> Result<Self, Malformed> {
        const READ_ONLY: u64 = 1;
        let mut fields = Fields(reply);
        let mut next = || fields.u64();
        let (block_bytes, fragment_bytes) = (next()?, next()?);
        let (blocks, blocks_free, blocks_available) = (next()?, next()?, next()?);
        let (files, files_free, files_available) = (next()?, next()?, next()?);
        let (_id, flags, name_bytes_max) = (next()?, next()?, next()?);
        Ok(Self {
            block_bytes,
            fragment_bytes,
            blocks,
            blocks_free,
            blocks_available,
            files,
            files_free,
            files_available,
            name_bytes_max,
            is_read_only: flags & READ_ONLY != 0,
        })
    }
}
