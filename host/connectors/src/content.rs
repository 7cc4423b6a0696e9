//! Bytes on their way from one place to another: a stream, with its size where it is known.
//!
//! Knows nothing of where the bytes come from. A source that breaks off is an error item, never an early end, so a
//! consumer that saw the end saw all of it.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use crate::error::{Error, ErrorKind};

/// What a backend puts into one chunk at most: large enough that system calls do not matter, small enough that a
/// thousand transfers at once stay within memory.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Content that is read once.
pub struct Content {
    size: Option<u64>,
    stream: BoxStream<'static, Result<Bytes, Error>>,
}

impl Content {
    /// Content that is in memory already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let size = Some(bytes.len() as u64);
        let chunks = if bytes.is_empty() { None } else { Some(Ok(bytes)) };
        Self { size, stream: stream::iter(chunks).boxed() }
    }

    /// Content from a stream. `size` is a promise of the source: [`Content::into_stream`] holds it to it.
    pub fn from_stream(
        size: Option<u64>,
        stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static,
    ) -> Self {
        Self { size, stream: stream.boxed() }
    }

    /// The size in bytes, where it is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// The chunks. A stream that ends before or runs past the promised size yields an `Interrupted` error.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        let Some(size) = self.size else { return self.stream };
        stream::try_unfold((self.stream, 0_u64), move |(mut stream, seen)| async move {
            match stream.try_next().await? {
                Some(chunk) if seen + chunk.len() as u64 > size => Err(Error::new(
                    ErrorKind::Interrupted,
                    format!("the content ran past its announced size of {size} bytes"),
                )),
                Some(chunk) => {
                    let seen = seen + chunk.len() as u64;
                    Ok(Some((chunk, (stream, seen))))
                }
                None if seen < size => Err(Error::new(
                    ErrorKind::Interrupted,
                    format!("the content ended after {seen} of {size} bytes"),
                )),
                None => Ok(None),
            }
        })
        .boxed()
    }

    /// All of it in memory.
    ///
    /// # Errors
    /// `TooLarge` when there are more than `limit` bytes; otherwise what the source reports.
    pub async fn collect(self, limit: u64) -> Result<Bytes, Error> {
        let too_large =
            || Error::new(ErrorKind::TooLarge, format!("the content is larger than the limit of {limit} bytes"));
        if self.size.is_some_and(|size| size > limit) {
            return Err(too_large());
        }
        let mut stream = self.into_stream();
        let Some(first) = stream.try_next().await? else { return Ok(Bytes::new()) };
        if first.len() as u64 > limit {
            return Err(too_large());
        }
        let Some(second) = stream.try_next().await? else { return Ok(first) };
        let mut all = BytesMut::from(first);
        let mut next = Some(second);
        while let Some(chunk) = next {
            if (all.len() + chunk.len()) as u64 > limit {
                return Err(too_large());
            }
            all.extend_from_slice(&chunk);
            next = stream.try_next().await?;
        }
        Ok(all.freeze())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Content").field("size", &self.size).finish_non_exhaustive()
    }
}
