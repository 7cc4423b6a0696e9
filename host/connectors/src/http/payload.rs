//! The body of a request: in memory, so that it can be sent again, or a stream, which cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::TryStreamExt;

use super::client::streamed;
use crate::content::Content;

/// What is left to send.
pub(super) enum Payload {
    Memory(Bytes),
    Stream { content: Option<Content>, source_failed: Arc<AtomicBool> },
}

impl Payload {
    pub(super) fn new(content: Content) -> Self {
        match content.in_memory() {
            Some(bytes) => Self::Memory(bytes.clone()),
            None => Self::Stream { content: Some(content), source_failed: Arc::default() },
        }
    }

    pub(super) fn empty() -> Self {
        Self::Memory(Bytes::new())
    }

    /// Whether it can be sent once more.
    pub(super) fn is_repeatable(&self) -> bool {
        matches!(self, Self::Memory(_))
    }

    /// Whether a request failed because of where its body comes from, and not because of the origin.
    pub(super) fn source_failed(&self) -> bool {
        matches!(self, Self::Stream { source_failed, .. } if source_failed.load(Ordering::Relaxed))
    }

    /// The body for one try; `None` for a stream that was sent already.
    pub(super) fn next(&mut self) -> Option<reqwest::Body> {
        match self {
            Self::Memory(bytes) => Some(bytes.clone().into()),
            Self::Stream { content, source_failed } => {
                let content = content.take()?;
                let source_failed = Arc::clone(source_failed);
                let size = content.size();
                let chunks = content.into_stream().inspect_err(move |_| source_failed.store(true, Ordering::Relaxed));
                Some(streamed(size, chunks))
            }
        }
    }
}
