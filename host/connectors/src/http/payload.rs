//! The body of a request: in memory, so that it can be sent again, or a stream, which cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::{TryStreamExt, stream};

use super::client::streamed;
use crate::content::{CHUNK_BYTES, Content, pieces};
use crate::error::Error;
use crate::operation::Flow;

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

    /// The body for one try, counted and within the bandwidth; `None` for a stream that was sent already.
    pub(super) async fn next(&mut self, flow: &Flow) -> Option<reqwest::Body> {
        match self {
            Self::Memory(bytes) => {
                flow.pass(bytes.len()).await;
                if bytes.len() <= CHUNK_BYTES {
                    return Some(bytes.clone().into());
                }
                // A slow remote is seen to take one piece after the other.
                let pieces = stream::iter(pieces(bytes.clone()).map(Ok::<_, Error>));
                Some(streamed(Some(bytes.len() as u64), pieces))
            }
            Self::Stream { content, source_failed } => {
                let content = content.take()?;
                let source_failed = Arc::clone(source_failed);
                let size = content.size();
                let chunks = content.into_stream().inspect_err(move |_| source_failed.store(true, Ordering::Relaxed));
                let flow = flow.clone();
                let chunks = chunks.and_then(move |chunk| {
                    let flow = flow.clone();
                    async move {
                        flow.pass(chunk.len()).await;
                        Ok(chunk)
                    }
                });
                Some(streamed(size, chunks))
            }
        }
    }
}
