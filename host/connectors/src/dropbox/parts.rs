//! Content cut into parts that stay in memory until Dropbox has them: what is sent again when a request was lost.
//!
//! A part is hashed and complete before any of it is sent, so that Dropbox can refuse it damaged, and so that content
//! that fails never leaves half of itself behind. Knows no request.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::hash::{BLOCK_BYTES, ContentHasher, PartHasher};
use crate::content::{Content, pieces};
use crate::error::{Error, ErrorKind};

/// Chunks below this are copied together: a small slice may keep a large buffer of its source alive.
const CHUNK_BYTES_KEPT: usize = 32 * 1024;

/// What small chunks are gathered in.
const GATHERED_BYTES: usize = 256 * 1024;

/// Parts of all uploads of one account together that are in memory, in blocks of 4 MiB: four uploads at full speed.
/// Beyond that, uploads make do with smaller parts or wait for each other.
const BLOCKS_IN_MEMORY_MAX: usize = 48;

/// The largest part in blocks: Dropbox takes 150 MiB in one request (files.stone, `upload_session/append`).
const PART_BLOCKS_MAX: usize = 37;

/// The memory that the uploads of one account share.
#[derive(Clone)]
pub(super) struct Memory(Arc<Semaphore>);

impl Memory {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(BLOCKS_IN_MEMORY_MAX)))
    }

    /// Room for one block, and then for more as long as there is some: who holds a part can always send it, so
    /// nobody waits for ever.
    async fn first(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.0)
            .acquire_owned()
            .await
            .map_err(|closed| Error::new(ErrorKind::Internal, "the memory for uploads is closed").with_source(closed))
    }

    fn more(&self, held: &mut OwnedSemaphorePermit) -> bool {
        match Arc::clone(&self.0).try_acquire_owned() {
            Ok(permit) => {
                held.merge(permit);
                true
            }
            Err(_) => false,
        }
    }
}

/// Consecutive bytes of content, complete and hashed.
pub(super) struct Part {
    /// Where it begins in the content; a multiple of 4 MiB.
    pub(super) offset: u64,
    pub(super) length: u64,
    /// The content hash of this part alone.
    pub(super) hash: String,
    /// In the last part: the hash of the content as a whole.
    pub(super) whole: Option<String>,
    chunks: Vec<Bytes>,
    _memory: OwnedSemaphorePermit,
}

impl Part {
    pub(super) fn is_last(&self) -> bool {
        self.whole.is_some()
    }

    /// Where the content goes on behind it.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.length
    }

    /// The bytes behind the first `skip`, in pieces whose progress can be seen.
    pub(super) fn bytes_from(&self, skip: u64) -> impl Iterator<Item = Bytes> + Send + use<> {
        let mut skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let chunks: Vec<Bytes> = self
            .chunks
            .iter()
            .map(|chunk| {
                let skipped = skip.min(chunk.len());
                skip -= skipped;
                chunk.slice(skipped..)
            })
            .collect();
        chunks.into_iter().flat_map(pieces)
    }

    /// The content hash of the bytes behind the first `skip`.
    pub(super) fn hash_from(&self, skip: u64) -> String {
        if skip == 0 {
            return self.hash.clone();
        }
        let mut hasher = ContentHasher::new();
        self.bytes_from(skip).for_each(|piece| hasher.update(&piece));
        hasher.finish()
    }
}

/// Content on its way into parts.
pub(super) struct Parts {
    source: BoxStream<'static, Result<Bytes, Error>>,
    /// Came behind the last part.
    ahead: Bytes,
    hasher: PartHasher,
    offset: u64,
    part_bytes: usize,
    memory: Memory,
}

impl Parts {
    /// Cuts content into parts of at most `part_bytes`, which is rounded down to blocks, and is one at least.
    pub(super) fn new(content: Content, part_bytes: u64, memory: Memory) -> Self {
        let blocks = usize::try_from(part_bytes).unwrap_or(usize::MAX) / BLOCK_BYTES;
        Self {
            source: content.into_stream(),
            ahead: Bytes::new(),
            hasher: PartHasher::new(),
            offset: 0,
            part_bytes: blocks.clamp(1, PART_BLOCKS_MAX) * BLOCK_BYTES,
            memory,
        }
    }

    /// The first part, or the one after a part that was not the last; empty only when all of the content is.
    pub(super) async fn next(mut self) -> Result<(Part, Option<Self>), Error> {
        let mut memory = self.memory.first().await?;
        let mut room = BLOCK_BYTES;
        let mut length = 0;
        let mut gathered = Gathered::default();
        let mut ended = false;
        loop {
            if self.ahead.is_empty() {
                match self.source.try_next().await? {
                    Some(chunk) => self.ahead = chunk,
                    None => {
                        ended = true;
                        break;
                    }
                }
                continue;
            }
            if length == room {
                if room == self.part_bytes || !self.memory.more(&mut memory) {
                    break;
                }
                room += BLOCK_BYTES;
            }
            let now = self.ahead.split_to(self.ahead.len().min(room - length));
            length += now.len();
            self.hasher.update(&now);
            gathered.push(now);
        }
        let (offset, length) = (self.offset, length as u64);
        self.offset += length;
        let hash = self.hasher.end_part();
        let part = |whole| Part { offset, length, hash, whole, chunks: gathered.finish(), _memory: memory };
        if ended {
            return Ok((part(Some(self.hasher.finish())), None));
        }
        Ok((part(None), Some(self)))
    }
}

/// Chunks, the small ones copied together.
#[derive(Default)]
struct Gathered {
    chunks: Vec<Bytes>,
    small: BytesMut,
}

impl Gathered {
    fn push(&mut self, chunk: Bytes) {
        if chunk.len() >= CHUNK_BYTES_KEPT {
            self.end_small();
            self.chunks.push(chunk);
            return;
        }
        if self.small.len() + chunk.len() > GATHERED_BYTES {
            self.end_small();
        }
        self.small.extend_from_slice(&chunk);
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.chunks.push(self.small.split().freeze());
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.end_small();
        self.chunks
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;

    use super::*;

    fn content(bytes: &Bytes, chunk: usize) -> Content {
        let bytes = bytes.clone();
        let chunks = (0..bytes.len()).step_by(chunk).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + chunk))));
        Content::from_stream(None, stream::iter(chunks.collect::<Vec<_>>()))
    }

    async fn cut(content: Content, part_bytes: u64, memory: &Memory, hold: bool) -> Vec<(u64, Bytes, bool)> {
        let mut next = Some(Parts::new(content, part_bytes, memory.clone()));
        let (mut seen, mut held) = (Vec::new(), Vec::new());
        while let Some(parts) = next {
            let (part, rest) = parts.next().await.unwrap();
            let bytes = part.bytes_from(0).collect::<Vec<_>>().concat();
            let mut hasher = ContentHasher::new();
            hasher.update(&bytes);
            assert_eq!((part.hash.clone(), part.length), (hasher.finish(), bytes.len() as u64));
            seen.push((part.offset, Bytes::from(bytes), part.is_last()));
            held.push(part);
            if !hold {
                held.clear();
            }
            next = rest;
        }
        seen
    }

    #[tokio::test]
    async fn content_is_cut_at_blocks_whatever_its_chunks() {
        let bytes: Bytes = (0..3 * BLOCK_BYTES + 5).map(|index| (index % 251) as u8).collect::<Vec<_>>().into();
        for chunk in [1_000_003, 10_007, BLOCK_BYTES, 100 * BLOCK_BYTES] {
            let parts = cut(content(&bytes, chunk), 9_000_000, &Memory::new(), false).await;
            let told: Vec<_> = parts.iter().map(|(offset, bytes, last)| (*offset, bytes.len(), *last)).collect();
            assert_eq!(told, [(0, 2 * BLOCK_BYTES, false), (2 * BLOCK_BYTES as u64, BLOCK_BYTES + 5, true)]);
            assert!(parts.into_iter().map(|(_, bytes, _)| bytes).collect::<Vec<_>>().concat() == bytes);
        }
    }

    #[tokio::test]
    async fn content_that_ends_with_a_part_has_no_empty_part_behind_it() {
        let bytes = Bytes::from(vec![7; BLOCK_BYTES]);
        let parts = cut(content(&bytes, 65_536), 1, &Memory::new(), false).await;
        assert_eq!(parts.len(), 1);
        assert!(parts[0].2);
        let parts = cut(content(&Bytes::new(), 1), 1, &Memory::new(), false).await;
        assert_eq!(parts, [(0, Bytes::new(), true)]);
    }

    #[tokio::test]
    async fn parts_become_smaller_when_memory_is_short() {
        let memory = Memory(Arc::new(Semaphore::new(3)));
        let bytes = Bytes::from(vec![7; 3 * BLOCK_BYTES]);
        let parts = cut(content(&bytes, 65_536), 2 * BLOCK_BYTES as u64, &memory, true).await;
        let lengths: Vec<_> = parts.iter().map(|(_, bytes, _)| bytes.len() / BLOCK_BYTES).collect();
        assert_eq!(lengths, [2, 1]);
        assert_eq!(memory.0.available_permits(), 3);
    }

    #[tokio::test]
    async fn the_rest_of_a_part_has_its_own_hash() {
        let bytes: Bytes = (0..100_000_u32).map(|index| (index % 251) as u8).collect::<Vec<_>>().into();
        let (part, rest) = Parts::new(content(&bytes, 33_000), 1, Memory::new()).next().await.unwrap();
        assert!(rest.is_none());
        assert_eq!(part.bytes_from(40_001).collect::<Vec<_>>().concat(), bytes[40_001..]);
        let mut hasher = ContentHasher::new();
        hasher.update(&bytes[40_001..]);
        assert_eq!(part.hash_from(40_001), hasher.finish());
    }
}
