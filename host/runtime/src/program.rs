//! Input and output of a guest that is a plain program (`wasi:cli/run`): the request's body is its standard input, its
//! standard output the response's body.

use std::sync::{Arc, Mutex as StdMutex, MutexGuard, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::stream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, Notify};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};
use wharf_connectors::{CHUNK_BYTES, Content};

use crate::body::{Body, ContentInput};

/// Bytes of output that wait for the program's exit code, which decides the status of the response. A larger answer
/// begins before its end is known.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Standard input. A program may ask for it several times; all of them read on from where the last one was.
pub(crate) struct ProgramInput {
    content: Arc<Mutex<ContentInput>>,
}

impl ProgramInput {
    pub(crate) fn new(body: Body) -> Self {
        Self { content: Arc::new(Mutex::new(ContentInput::new(body.into_content()))) }
    }
}

impl IsTerminal for ProgramInput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdinStream for ProgramInput {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        // Asked for by WASI 0.3 alone, which programs of this form do not use.
        Box::new(tokio::io::empty())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(Self { content: Arc::clone(&self.content) })
    }
}

#[async_trait::async_trait]
impl Pollable for ProgramInput {
    async fn ready(&mut self) {
        self.content.lock().await.ready().await;
    }
}

#[async_trait::async_trait]
impl InputStream for ProgramInput {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        match self.content.try_lock() {
            Ok(mut content) => content.read(size),
            Err(_) => Ok(Bytes::new()),
        }
    }
}

/// Standard output: a pipe of bounded size.
pub(crate) struct ProgramOutput(Arc<Pipe>);

/// The other end of standard output.
pub(crate) struct ProgramAnswer(Arc<Pipe>);

struct Pipe {
    state: StdMutex<PipeState>,
    /// Something to read, or the end.
    readable: Notify,
    /// Room to write, or nobody left who reads.
    writable: Notify,
    /// The program waits for room.
    full: Notify,
}

#[derive(Default)]
struct PipeState {
    bytes: BytesMut,
    writers: usize,
    reader_gone: bool,
}

impl Pipe {
    fn state(&self) -> MutexGuard<'_, PipeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgramAnswer {
    pub(crate) fn channel() -> (ProgramOutput, Self) {
        let pipe = Arc::new(Pipe {
            state: StdMutex::new(PipeState { writers: 1, ..PipeState::default() }),
            readable: Notify::new(),
            writable: Notify::new(),
            full: Notify::new(),
        });
        (ProgramOutput(Arc::clone(&pipe)), Self(pipe))
    }

    /// Ends when the program waits for somebody to read its output.
    pub(crate) async fn full(&self) {
        self.0.full.notified().await;
    }

    /// The output as a body; it ends when the program's store is gone.
    pub(crate) fn into_body(self) -> Body {
        let chunks = stream::unfold(self, |answer| async { Some((Ok(answer.next().await?), answer)) });
        Body::Content(Content::from_stream(None, chunks))
    }

    async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut state = self.0.state();
                if !state.bytes.is_empty() {
                    let chunk = state.bytes.split().freeze();
                    self.0.writable.notify_one();
                    return Some(chunk);
                }
                if state.writers == 0 {
                    return None;
                }
            }
            self.0.readable.notified().await;
        }
    }
}

impl Drop for ProgramAnswer {
    fn drop(&mut self) {
        self.0.state().reader_gone = true;
        self.0.writable.notify_one();
    }
}

impl Clone for ProgramOutput {
    fn clone(&self) -> Self {
        self.0.state().writers += 1;
        Self(Arc::clone(&self.0))
    }
}

impl Drop for ProgramOutput {
    fn drop(&mut self) {
        self.0.state().writers -= 1;
        self.0.readable.notify_one();
    }
}

impl IsTerminal for ProgramOutput {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for ProgramOutput {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Asked for by WASI 0.3 alone, which programs of this form do not use.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for ProgramOutput {
    async fn ready(&mut self) {
        loop {
            {
                let state = self.0.state();
                if state.reader_gone || state.bytes.len() < ANSWER_BYTES_MAX {
                    return;
                }
            }
            self.0.full.notify_one();
            self.0.writable.notified().await;
        }
    }
}

#[async_trait::async_trait]
impl OutputStream for ProgramOutput {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.state().bytes.extend_from_slice(&bytes);
        self.0.readable.notify_one();
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let state = self.0.state();
        if state.reader_gone {
            return Err(StreamError::Closed);
        }
        Ok(ANSWER_BYTES_MAX.saturating_sub(state.bytes.len()).min(CHUNK_BYTES))
    }
}
