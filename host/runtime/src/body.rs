//! The one place where content changes its form: bodies of HTTP, content of connectors, and the streams of WASI.
//!
//! Back-pressure passes through every form; nothing here holds more than one chunk.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::{BodyExt, BodyStream, StreamBody};
use wasmtime_wasi_http::WasiBody;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynInputStream, InputStream, StreamError, StreamResult};
use wharf_connectors::{CHUNK_BYTES, Content, Error, ErrorKind};

/// Content of a request or response in whichever form it came.
pub enum Body {
    /// From memory, a connection or a guest.
    Content(Content),
    /// From an HTTP message; may have trailers.
    Http(WasiBody),
}

impl Body {
    /// No bytes.
    pub fn empty() -> Self {
        Self::Content(Content::from_bytes(Bytes::new()))
    }

    /// Bytes in memory.
    pub fn from_bytes(bytes: impl Into<Bytes>) -> Self {
        Self::Content(Content::from_bytes(bytes))
    }

    /// The body of an HTTP message as a server received it.
    pub fn from_http<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: std::error::Error + Send + Sync + 'static,
    {
        if body.is_end_stream() {
            return Self::empty();
        }
        let body =
            body.map_err(|error| wasmtime_wasi_http::Error::InternalError(Some(wharf_connectors::chain(&error))));
        Self::Http(body.boxed_unsync())
    }

    /// The size in bytes, where it is known.
    pub fn size(&self) -> Option<u64> {
        match self {
            Self::Content(content) => content.size(),
            Self::Http(body) => body.size_hint().exact(),
        }
    }

    /// As content of the connectors. Trailers are dropped.
    pub fn into_content(self) -> Content {
        match self {
            Self::Content(content) => content,
            Self::Http(body) => {
                let size = body.size_hint().exact();
                let chunks = BodyStream::new(body).try_filter_map(|frame| async { Ok(frame.into_data().ok()) });
                Content::from_stream(
                    size,
                    chunks.map_err(|error| {
                        Error::new(ErrorKind::Interrupted, "the body broke off before its end").with_source(error)
                    }),
                )
            }
        }
    }

    /// As the body of an HTTP message.
    pub fn into_http(self) -> WasiBody {
        match self {
            Self::Http(body) => body,
            Self::Content(content) => {
                let size = content.size();
                let frames = content
                    .into_stream()
                    .map_ok(Frame::data)
                    .map_err(|error| wasmtime_wasi_http::Error::InternalError(Some(wharf_connectors::chain(&error))));
                SizedBody { body: StreamBody::new(frames), size, ended: size == Some(0) }.boxed_unsync()
            }
        }
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Body").field("size", &self.size()).finish()
    }
}

/// A body of known size, so that HTTP announces it.
struct SizedBody<B> {
    body: B,
    size: Option<u64>,
    ended: bool,
}

impl<B: HttpBody<Data = Bytes> + Unpin> HttpBody for SizedBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.ended
    }

    fn size_hint(&self) -> SizeHint {
        self.size.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

/// Content as a stream that a guest reads.
pub(crate) struct ContentInput {
    stream: BoxStream<'static, Result<Bytes, Error>>,
    state: InputState,
}

enum InputState {
    /// Nothing at hand: the next chunk must be waited for.
    Waiting,
    /// Bytes at hand, never empty.
    Chunk(Bytes),
    /// The source broke off; told once.
    Failed(Error),
    /// The end, or everything after a failure.
    Ended,
}

impl ContentInput {
    pub(crate) fn new(content: Content) -> Self {
        Self { stream: content.into_stream(), state: InputState::Waiting }
    }
}

#[async_trait::async_trait]
impl Pollable for ContentInput {
    async fn ready(&mut self) {
        while matches!(self.state, InputState::Waiting) {
            // Cancel-safe: a chunk is in the state as soon as the stream has given it.
            self.state = match self.stream.next().await {
                Some(Ok(chunk)) if chunk.is_empty() => InputState::Waiting,
                Some(Ok(chunk)) => InputState::Chunk(chunk),
                Some(Err(error)) => InputState::Failed(error),
                None => InputState::Ended,
            };
        }
    }
}

#[async_trait::async_trait]
impl InputStream for ContentInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match std::mem::replace(&mut self.state, InputState::Ended) {
            InputState::Ended => Err(StreamError::Closed),
            InputState::Failed(error) => {
                Err(StreamError::LastOperationFailed(wasmtime::Error::msg(wharf_connectors::chain(&error))))
            }
            InputState::Waiting => {
                self.state = InputState::Waiting;
                Ok(Bytes::new())
            }
            InputState::Chunk(mut chunk) => {
                let taken = chunk.split_to(size.min(chunk.len()));
                self.state = if chunk.is_empty() { InputState::Waiting } else { InputState::Chunk(chunk) };
                Ok(taken)
            }
        }
    }
}

/// How often a stream may say that it is ready and then have nothing: a stream that lies for ever must not spin.
const EMPTY_READS_MAX: u32 = 1000;

/// A stream of a guest, or one that a guest was given, as content.
pub(crate) fn content_of_stream(stream: DynInputStream) -> Content {
    let chunks = futures::stream::try_unfold(stream, |mut stream| async move {
        for _ in 0..EMPTY_READS_MAX {
            stream.ready().await;
            match stream.read(CHUNK_BYTES) {
                Ok(chunk) if chunk.is_empty() => tokio::task::yield_now().await,
                Ok(chunk) => return Ok(Some((chunk, stream))),
                Err(StreamError::Closed) => return Ok(None),
                Err(StreamError::LastOperationFailed(error) | StreamError::Trap(error)) => {
                    return Err(Error::new(ErrorKind::Interrupted, "the stream broke off before its end")
                        .with_source(std::io::Error::other(format!("{error:#}"))));
                }
            }
        }
        Err(Error::new(ErrorKind::Interrupted, "the stream announced content again and again, and gave none"))
    });
    Content::from_stream(None, chunks)
}
