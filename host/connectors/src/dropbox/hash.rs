//! Dropbox's content hash, computed while content passes by.
//!
//! The SHA-256 of each block of 4 MiB, joined, and the SHA-256 of that, in lower-case hexadecimal
//! (<https://www.dropbox.com/developers/reference/content-hash>). Knows no request.

use sha2::{Digest, Sha256};

use crate::backend::hexadecimal;

/// The size of a block.
pub(super) const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// A content hash in the making.
pub(crate) struct ContentHasher {
    blocks: Sha256,
    block: Sha256,
    filled: usize,
}

impl ContentHasher {
    pub(crate) fn new() -> Self {
        Self { blocks: Sha256::new(), block: Sha256::new(), filled: 0 }
    }

    pub(crate) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_BYTES {
                self.end_block();
            }
            bytes = later;
        }
    }

    fn end_block(&mut self) -> [u8; 32] {
        let digest = self.block.finalize_reset();
        self.blocks.update(digest);
        self.filled = 0;
        digest.into()
    }

    pub(crate) fn finish(mut self) -> String {
        if self.filled > 0 {
            self.end_block();
        }
        hexadecimal(&self.blocks.finalize())
    }
}

/// The content hashes of content and of each of its parts, all but the last of which have whole blocks: every byte is
/// hashed once.
pub(super) struct PartHasher {
    whole: ContentHasher,
    part: Sha256,
}

impl PartHasher {
    pub(super) fn new() -> Self {
        Self { whole: ContentHasher::new(), part: Sha256::new() }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.whole.filled));
            self.whole.block.update(now);
            self.whole.filled += now.len();
            if self.whole.filled == BLOCK_BYTES {
                self.part.update(self.whole.end_block());
            }
            bytes = later;
        }
    }

    /// The hash of what came since the last part ended. A part that ends within a block must be the last one.
    pub(super) fn end_part(&mut self) -> String {
        if self.whole.filled > 0 {
            self.part.update(self.whole.end_block());
        }
        hexadecimal(&self.part.finalize_reset())
    }

    /// The hash of everything.
    pub(super) fn finish(self) -> String {
        self.whole.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(chunks: impl IntoIterator<Item = Vec<u8>>) -> String {
        let mut hasher = ContentHasher::new();
        chunks.into_iter().for_each(|chunk| hasher.update(&chunk));
        hasher.finish()
    }

    #[test]
    fn hashes_are_those_of_other_implementations() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hash([]), empty);
        assert_eq!(hash([Vec::new()]), empty);
        let hello = "ecb65bb98f9d905b70458986c39fcbad7715e5f2fcc3b1f07767d7c83e2438cc";
        assert_eq!(hash([b"hello\n".to_vec()]), hello);
        assert_eq!(hash([b"hel".to_vec(), Vec::new(), b"lo\n".to_vec()]), hello);
        let block = "c7e946d101855255d919ef0c70718633adf77d3dfb3adeeecf5d0cb4e951be58";
        assert_eq!(hash([vec![0; BLOCK_BYTES]]), block);
        let block_and_one = "14a4d47f23a30177885d9820122f17d2d3a55fe63f7f5c27b95f689e0b2accd6";
        assert_eq!(hash([vec![0; BLOCK_BYTES + 1]]), block_and_one);
        assert_eq!(hash([vec![0; BLOCK_BYTES - 1], vec![0; 2]]), block_and_one);
    }

    #[test]
    fn parts_and_the_whole_have_the_hashes_that_they_have_alone() {
        let mut hasher = PartHasher::new();
        let parts = [vec![1; 2 * BLOCK_BYTES], vec![2; BLOCK_BYTES], vec![3; 17]];
        for part in &parts {
            part.chunks(1_000_003).for_each(|chunk| hasher.update(chunk));
            assert_eq!(hasher.end_part(), hash([part.clone()]));
        }
        assert_eq!(hasher.finish(), hash(parts));
        assert_eq!(PartHasher::new().end_part(), hash([]));
        assert_eq!(PartHasher::new().finish(), hash([]));
    }
}
