//! The hash by which a transfer verifies content: of the kind that the target can tell, so that it need not be read back.

use futures::stream::TryStreamExt;
use sha2::{Digest, Sha256};

use crate::Remote;
use crate::backend::{ByteRange, ChecksumAlgorithm, hexadecimal};
use crate::dropbox::ContentHasher;
use crate::error::Error;
use crate::path::RemotePath;

/// A hash in the making, of the kind that the target can tell, if it can tell any.
pub(super) enum Hash {
    Sha256(Sha256),
    Dropbox(ContentHasher),
}

impl Hash {
    pub(super) fn for_target(target: &Remote) -> Self {
        if target.kind() == "dropbox" {
            Self::of(ChecksumAlgorithm::Dropbox)
        } else {
            Self::of(ChecksumAlgorithm::Sha256)
        }
    }

    fn of(algorithm: ChecksumAlgorithm) -> Self {
        match algorithm {
            ChecksumAlgorithm::Dropbox => Self::Dropbox(ContentHasher::new()),
            _ => Self::Sha256(Sha256::new()),
        }
    }

    pub(super) fn algorithm(&self) -> ChecksumAlgorithm {
        match self {
            Self::Sha256(_) => ChecksumAlgorithm::Sha256,
            Self::Dropbox(_) => ChecksumAlgorithm::Dropbox,
        }
    }

    pub(super) fn update(&mut self, chunk: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(chunk),
            Self::Dropbox(hash) => hash.update(chunk),
        }
    }

    pub(super) fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => hexadecimal(&hash.finalize()),
            Self::Dropbox(hash) => hash.finish(),
        }
    }
}

/// The hash of a file: as the remote tells it, or by reading it.
pub(super) async fn hash_of(remote: &Remote, path: &RemotePath, algorithm: ChecksumAlgorithm) -> Result<String, Error> {
    if let Some(checksum) = remote.checksum(path).await?
        && checksum.algorithm == algorithm
    {
        return Ok(checksum.value);
    }
    let mut hash = Hash::of(algorithm);
    let mut chunks = remote.read(path, ByteRange::ALL).await?.into_stream();
    while let Some(chunk) = chunks.try_next().await? {
        hash.update(&chunk);
    }
    Ok(hash.finish())
}
