//! Bytes on their way from one place to another: a stream, with its size where it is known.
//!
//! Knows nothing of where the bytes come from. A source that breaks off is an error item, never an early end, so a
//! consumer that saw the end saw all of it.

use std::fmt;

use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};

use crate::error::{Error, ErrorKind};

/// What [`crate::Remote::read`] puts into one chunk at most: large enough that system calls do not matter, small enough
/// that a thousand transfers at once stay within memory.
pub const CHUNK_BYTES: usize = 64 * 1024;

/// Content that is read once.
pub struct Content {
    size: Option<u64>,
    source: Source,
}

enum Source {
    Memory(Bytes),
    Stream(BoxStream<'static, Result<Bytes, Error>>),
}

impl Content {
    /// Content that is in memory already.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self { size: Some(bytes.len() as u64), source: Source::Memory(bytes) }
    }

    /// Content from a stream. `size` is a promise of the source: [`Content::into_stream`] holds it to it.
    pub fn from_stream(size: Option<u64>, stream: impl Stream<Item = Result<Bytes, Error>> + Send + 'static) -> Self {
        Self { size, source: Source::Stream(stream.boxed()) }
    }

    /// The size in bytes, where it is known.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// All of it, when it is in memory: then it can be sent more than once.
    pub(crate) fn in_memory(&self) -> Option<&Bytes> {
        match &self.source {
            Source::Memory(bytes) => Some(bytes),
            Source::Stream(_) => None,
        }
    }

    /// The chunks. A stream that ends before or runs past the promised size yields an `Interrupted` error.
    pub fn into_stream(self) -> BoxStream<'static, Result<Bytes, Error>> {
        let stream = match self.source {
            Source::Memory(bytes) => return stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed(),
            Source::Stream(stream) => stream,
        };
        let Some(size) = self.size else { return stream };
        stream::try_unfold((stream, 0_u64), move |(mut stream, seen)| async move {
            match stream.try_next().await? {
                Some(chunk) if seen + chunk.len() as u64 > size => Err(Error::new(
                    ErrorKind::Interrupted,
                    format!("the content ran past its announced size of {size} bytes"),
                )),
                Some(chunk) => {
                    let seen = seen + chunk.len() as u64;
                    Ok(Some((chunk, (stream, seen))))
                }
                None if seen < size => {
                    Err(Error::new(ErrorKind::Interrupted, format!("the content ended after {seen} of {size} bytes")))
                }
                None => Ok(None),
            }
        })
        .boxed()
    }

    /// As [`Content::into_stream`], but the chunk that completes the promised size comes only when the source has ended
    /// well: who knows the size takes no more, and would not hear of an error at the end.
    pub(crate) fn into_stream_that_ends_well(self) -> BoxStream<'static, Result<Bytes, Error>> {
        let Some(size) = self.size else { return self.into_stream() };
        let state = (self.into_stream().fuse(), size);
        stream::try_unfold(state, |(mut stream, left)| async move {
            let Some(chunk) = stream.try_next().await? else { return Ok(None) };
            let left = left.saturating_sub(chunk.len() as u64);
            if left == 0 {
                // Nothing but empty chunks can come.
                while stream.try_next().await?.is_some() {}
            }
            Ok(Some((chunk, (stream, left))))
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

/// A chunk in pieces of at most [`CHUNK_BYTES`]; nothing is copied.
pub(crate) fn pieces(mut chunk: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let length = chunk.len().min(CHUNK_BYTES);
        (length > 0).then(|| chunk.split_to(length))
    })
}

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Content").field("size", &self.size).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(parts: &[&'static [u8]]) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
        stream::iter(parts.iter().map(|part| Ok(Bytes::from_static(part))).collect::<Vec<_>>())
    }

    async fn outcome(size: Option<u64>, parts: &[&'static [u8]]) -> Result<Vec<u8>, ErrorKind> {
        let collected = Content::from_stream(size, chunks(parts)).into_stream().try_collect::<Vec<_>>().await;
        collected.map(|chunks| chunks.concat()).map_err(|error| error.kind())
    }

    #[tokio::test]
    async fn content_is_held_to_its_announced_size() {
        assert_eq!(outcome(Some(4), &[b"ab", b"cd"]).await, Ok(b"abcd".to_vec()));
        assert_eq!(outcome(Some(5), &[b"ab", b"cd"]).await, Err(ErrorKind::Interrupted));
        assert_eq!(outcome(Some(3), &[b"ab", b"cd"]).await, Err(ErrorKind::Interrupted));
        assert_eq!(outcome(Some(0), &[]).await, Ok(Vec::new()));
        assert_eq!(outcome(None, &[b"ab", b"cd"]).await, Ok(b"abcd".to_vec()));
    }

    #[tokio::test]
    async fn what_is_collected_is_limited() {
        let collect = |size, limit| Content::from_stream(size, chunks(&[b"ab", b"cd"])).collect(limit);
        assert_eq!(collect(None, 4).await.unwrap(), "abcd");
        assert_eq!(collect(None, 3).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(collect(None, 1).await.unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(collect(Some(4), 3).await.unwrap_err().kind(), ErrorKind::TooLarge);
    }

    #[tokio::test]
    async fn what_is_announced_as_too_large_is_not_even_pulled() {
        let never = stream::poll_fn(|_| -> std::task::Poll<Option<Result<Bytes, Error>>> { panic!("it was pulled") });
        let error = Content::from_stream(Some(1 << 40), never).collect(1 << 20).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TooLarge);
    }

    #[tokio::test]
    async fn an_error_of_the_source_comes_through() {
        let broken = Err(Error::new(ErrorKind::RateLimited, "slower"));
        let source = stream::iter([Ok(Bytes::from_static(b"ab")), broken]);
        let error = Content::from_stream(Some(4), source).collect(100).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::RateLimited);
    }

    #[tokio::test]
    async fn the_last_byte_comes_only_when_the_source_has_ended_well() {
        let arrived = async |size, end: Option<ErrorKind>| {
            let end = end.map(|kind| Err(Error::new(kind, "damaged")));
            let source = stream::iter([b"ab", b"cd"].map(|part| Ok(Bytes::from_static(part))).into_iter().chain(end));
            let arrived = Content::from_stream(size, source).into_stream_that_ends_well().collect::<Vec<_>>().await;
            arrived.into_iter().map(|chunk| chunk.map_err(|error| error.kind())).collect::<Vec<_>>()
        };
        let (first, second) = (Ok(Bytes::from("ab")), Ok(Bytes::from("cd")));
        assert_eq!(arrived(Some(4), None).await, [first.clone(), second.clone()]);
        assert_eq!(arrived(Some(4), Some(ErrorKind::Interrupted)).await, [first.clone(), Err(ErrorKind::Interrupted)]);
        // Where no size is known, the end is waited for in any case.
        assert_eq!(arrived(None, None).await, [first, second]);
    }

    #[tokio::test]
    async fn empty_bytes_are_no_chunk() {
        assert_eq!(Content::from_bytes("").into_stream().count().await, 0);
        assert_eq!(Content::from_bytes("").size(), Some(0));
        assert_eq!(Content::from_bytes("a").into_stream().count().await, 1);
    }
}
