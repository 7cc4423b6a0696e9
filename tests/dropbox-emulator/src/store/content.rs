//! The bytes of one file, their Dropbox content hash, and the quota that bounds all bytes held.
//!
//! Knows nothing of paths or HTTP. A `Content` is immutable and shared; the quota is given back when the last holder
//! lets go, so an overwritten file still being downloaded counts until that download ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};

/// The content hash is built from blocks of this size (Dropbox reference, "Content hash").
const HASH_BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// Received data is copied into blocks of at most this size: network buffers are not kept alive by a few bytes in
/// them, and a large file never needs one contiguous allocation.
const STORAGE_BLOCK_BYTES: usize = 1024 * 1024;

/// The Dropbox content hash of `bytes`: SHA-256 over the SHA-256 digests of its 4 MiB blocks, in lower-case hex.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> String {
    let mut hasher = ContentHasher::default();
    hasher.update(bytes);
    hasher.finish()
}

#[derive(Default)]
struct ContentHasher {
    block: Sha256,
    block_bytes: usize,
    digests: Vec<[u8; 32]>,
}

impl ContentHasher {
    fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let take = bytes.len().min(HASH_BLOCK_BYTES - self.block_bytes);
            let (now, later) = bytes.split_at(take);
            self.block.update(now);
            self.block_bytes += take;
            bytes = later;
            if self.block_bytes == HASH_BLOCK_BYTES {
                self.close_block();
            }
        }
    }

    fn close_block(&mut self) {
        self.digests.push(self.block.finalize_reset().into());
        self.block_bytes = 0;
    }

    /// The digests of the blocks, the last of which may be a short one.
    fn into_digests(mut self) -> Vec<[u8; 32]> {
        if self.block_bytes > 0 {
            self.close_block();
        }
        self.digests
    }

    fn finish(self) -> String {
        hash_of_digests(&self.into_digests())
    }
}

fn hash_of_digests(digests: &[[u8; 32]]) -> String {
    lower_hex(&Sha256::digest(digests.as_flattened()))
}

/// `bytes` in lower-case hexadecimal.
pub(crate) fn lower_hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// No more bytes may be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QuotaExceeded;

/// The bound on all bytes held, files and uploads under way together.
pub(crate) struct Quota {
    limit: u64,
    used: AtomicU64,
}

impl Quota {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicU64::new(0) })
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> Result<(), QuotaExceeded> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .map(|_| ())
            .map_err(|_| QuotaExceeded)
    }
}

/// A share of the quota, given back on drop.
struct Reservation {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Reservation {
    fn grow(&mut self, bytes: u64) -> Result<(), QuotaExceeded> {
        self.quota.take(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The bytes of one file.
pub(crate) struct Content {
    blocks: Vec<Bytes>,
    size: u64,
    digests: Vec<[u8; 32]>,
    hash: String,
    reservations: Vec<Arc<Reservation>>,
}

impl Content {
    /// The contents one after the other, sharing their bytes. Nothing is hashed again as long as all but the last end
    /// with a block of the content hash.
    pub(crate) fn join(parts: &[Arc<Self>]) -> Arc<Self> {
        let blocks: Vec<Bytes> = parts.iter().flat_map(|part| part.blocks.iter().cloned()).collect();
        let aligned = parts.split_last().is_none_or(|(_, all_but_last)| {
            all_but_last.iter().all(|part| part.size.is_multiple_of(HASH_BLOCK_BYTES as u64))
        });
        let digests = if aligned {
            parts.iter().flat_map(|part| part.digests.iter().copied()).collect()
        } else {
            let mut hasher = ContentHasher::default();
            blocks.iter().for_each(|block| hasher.update(block));
            hasher.into_digests()
        };
        Arc::new(Self {
            size: parts.iter().map(|part| part.size).sum(),
            hash: hash_of_digests(&digests),
            digests,
            blocks,
            reservations: parts.iter().flat_map(|part| part.reservations.iter().cloned()).collect(),
        })
    }

    /// The same content, which the quota no longer counts.
    pub(crate) fn beside_the_quota(&self) -> Arc<Self> {
        Arc::new(Self {
            blocks: self.blocks.clone(),
            size: self.size,
            digests: self.digests.clone(),
            hash: self.hash.clone(),
            reservations: Vec::new(),
        })
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// The Dropbox content hash.
    pub(crate) fn hash(&self) -> &str {
        &self.hash
    }

    /// The bytes from `start` up to but not including `end`, as shared blocks.
    pub(crate) fn range(&self, start: u64, end: u64) -> Vec<Bytes> {
        let mut offset = 0;
        let mut found = Vec::new();
        for block in &self.blocks {
            let length = block.len() as u64;
            let from = start.clamp(offset, offset + length) - offset;
            let to = end.clamp(offset, offset + length) - offset;
            if from < to {
                // Both are at most the length of a block, which is a usize.
                found.push(block.slice(from as usize..to as usize));
            }
            offset += length;
        }
        found
    }

    pub(crate) fn to_vec(&self) -> Vec<u8> {
        self.blocks.concat()
    }
}

/// Collects the bytes of one file as they arrive. Dropped unfinished, it leaves nothing behind.
pub(crate) struct ContentWriter {
    reservation: Reservation,
    blocks: Vec<Bytes>,
    last: BytesMut,
    size: u64,
    hasher: ContentHasher,
}

impl ContentWriter {
    pub(crate) fn new(quota: &Arc<Quota>) -> Self {
        Self {
            reservation: Reservation { quota: Arc::clone(quota), bytes: 0 },
            blocks: Vec::new(),
            last: BytesMut::new(),
            size: 0,
            hasher: ContentHasher::default(),
        }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) -> Result<(), QuotaExceeded> {
        self.reservation.grow(bytes.len() as u64)?;
        self.size += bytes.len() as u64;
        self.hasher.update(bytes);
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(STORAGE_BLOCK_BYTES - self.last.len()));
            self.last.extend_from_slice(now);
            bytes = later;
            if self.last.len() == STORAGE_BLOCK_BYTES {
                // Sparse and repeating content, of which tests have gigabytes, is held once.
                match self.blocks.last().filter(|previous| **previous == self.last) {
                    Some(same) => {
                        let same = same.clone();
                        self.last.clear();
                        self.blocks.push(same);
                    }
                    None => self.blocks.push(std::mem::take(&mut self.last).freeze()),
                }
            }
        }
        Ok(())
    }

    pub(crate) fn finish(mut self) -> Arc<Content> {
        if !self.last.is_empty() {
            self.blocks.push(self.last.freeze());
        }
        self.blocks.shrink_to_fit();
        let digests = self.hasher.into_digests();
        Arc::new(Content {
            blocks: self.blocks,
            size: self.size,
            hash: hash_of_digests(&digests),
            digests,
            reservations: vec![Arc::new(self.reservation)],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_hashes_match_the_published_algorithm() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(content_hash(b""), empty);
        let hello = "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc";
        assert_eq!(content_hash(b"hello\n"), hello);
        let one_block = "c7e946d101855255d919ef0c70718633adf77d3dfb3adeeecf5d0cb4e951be58";
        assert_eq!(content_hash(&vec![0; HASH_BLOCK_BYTES]), one_block);
        let one_block_and_a_byte = "14a4d47f23a30177885d9820122f17d2d3a55fe63f7f5c27b95f689e0b2accd6";
        assert_eq!(content_hash(&vec![0; HASH_BLOCK_BYTES + 1]), one_block_and_a_byte);
    }

    #[test]
    fn the_quota_is_given_back_when_the_last_holder_lets_go() {
        let quota = Quota::new(10);
        let mut writer = ContentWriter::new(&quota);
        writer.push(b"12345678").unwrap();
        assert_eq!(writer.push(b"abc"), Err(QuotaExceeded));
        writer.push(b"90").unwrap();
        let content = writer.finish();
        assert_eq!((quota.used(), content.to_vec().as_slice()), (10, b"1234567890".as_slice()));
        drop(content);
        assert_eq!(quota.used(), 0);
    }

    #[test]
    fn ranges_cross_storage_blocks() {
        let quota = Quota::new(u64::MAX);
        let bytes: Vec<u8> = (0..2 * STORAGE_BLOCK_BYTES + 5).map(|index| (index % 251) as u8).collect();
        let mut writer = ContentWriter::new(&quota);
        for piece in bytes.chunks(300_007) {
            writer.push(piece).unwrap();
        }
        let content = writer.finish();
        let (start, end) = (STORAGE_BLOCK_BYTES - 3, 2 * STORAGE_BLOCK_BYTES + 2);
        assert_eq!(content.range(start as u64, end as u64).concat(), bytes[start..end]);
        assert_eq!(content.to_vec(), bytes);
        assert_eq!(content.hash(), content_hash(&bytes));
    }
}
