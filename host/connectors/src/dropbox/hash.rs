//! Dropbox's content hash, computed while content passes by.
//!
//! The SHA-256 of each block of 4 MiB, joined, and the SHA-256 of that, in lower-case hexadecimal
//! (<https://www.dropbox.com/developers/reference/content-hash>). Knows no request.

use std::fmt::Write;

use sha2::{Digest, Sha256};

/// The size of a block.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

/// A content hash in the making.
pub(super) struct ContentHasher {
    blocks: Sha256,
    block: Sha256,
    filled: usize,
}

impl ContentHasher {
    pub(super) fn new() -> Self {
        Self { blocks: Sha256::new(), block: Sha256::new(), filled: 0 }
    }

    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK_BYTES - self.filled));
            self.block.update(now);
            self.filled += now.len();
            if self.filled == BLOCK_BYTES {
                self.blocks.update(self.block.finalize_reset());
                self.filled = 0;
            }
            bytes = later;
        }
    }

    pub(super) fn finish(mut self) -> String {
        if self.filled > 0 {
            self.blocks.update(self.block.finalize());
        }
        self.blocks.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
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
}
