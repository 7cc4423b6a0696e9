//! What guests write to standard output and standard error: lines in the log with the invocation's id, bounded, and
//! the last lines of standard error kept for the record of a trap.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{OutputStream, StreamResult};

use crate::invocation::InvocationId;

/// What one invocation may write to each of its outputs before the rest is dropped: enough for any diagnosis, too
/// little to fill a disk.
const BYTES_PER_INVOCATION_MAX: usize = 64 * 1024;

/// Longer lines are cut into several.
const LINE_BYTES_MAX: usize = 4 * 1024;

/// What is kept of standard error for the record of a trap.
const TAIL_BYTES_MAX: usize = 2 * 1024;

/// What a guest may write at once.
const WRITE_BYTES_MAX: usize = 64 * 1024;

/// Which output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Channel {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// The outputs of one instance.
#[derive(Clone)]
pub(crate) struct GuestOutput {
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    service: Arc<str>,
    invocation: InvocationId,
    output: Lines,
    error: Lines,
    tail: VecDeque<u8>,
}

#[derive(Default)]
struct Lines {
    written: usize,
    unfinished: Vec<u8>,
}

impl GuestOutput {
    pub(crate) fn new(service: Arc<str>, invocation: InvocationId) -> Self {
        let shared =
            Shared { service, invocation, output: Lines::default(), error: Lines::default(), tail: VecDeque::new() };
        Self { shared: Arc::new(Mutex::new(shared)) }
    }

    /// A stream for a guest to write to.
    pub(crate) fn stream(&self, channel: Channel) -> GuestStream {
        GuestStream { output: self.clone(), channel }
    }

    /// Ends one invocation on a reused instance and begins the next.
    pub(crate) fn begin(&self, invocation: InvocationId) {
        let mut shared = self.lock();
        shared.flush();
        shared.invocation = invocation;
        shared.output.written = 0;
        shared.error.written = 0;
        shared.tail.clear();
    }

    /// Logs what is left without a line end.
    pub(crate) fn flush(&self) {
        self.lock().flush();
    }

    /// The last lines of standard error.
    pub(crate) fn tail(&self) -> Option<String> {
        let mut shared = self.lock();
        let tail: &[u8] = shared.tail.make_contiguous();
        let text = String::from_utf8_lossy(tail).trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    fn write(&mut self, channel: Channel, bytes: &[u8]) {
        if channel == Channel::Error {
            self.tail.extend(bytes);
            let surplus = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
            self.tail.drain(..surplus);
        }
        let lines = match channel {
            Channel::Output => &mut self.output,
            Channel::Error => &mut self.error,
        };
        let room = BYTES_PER_INVOCATION_MAX.saturating_sub(lines.written);
        let was_full = room == 0;
        lines.written += bytes.len();
        lines.unfinished.extend_from_slice(&bytes[..bytes.len().min(room)]);
        let text = std::mem::take(&mut lines.unfinished);
        let mut rest = text.as_slice();
        while let Some(end) = line_end(rest) {
            let line = &rest[..end];
            self.log(channel, &String::from_utf8_lossy(line.strip_suffix(b"\r").unwrap_or(line)));
            rest = &rest[end..];
            rest = rest.strip_prefix(b"\n").unwrap_or(rest);
        }
        let lines = match channel {
            Channel::Output => &mut self.output,
            Channel::Error => &mut self.error,
        };
        lines.unfinished = rest.to_vec();
        if bytes.len() > room && !was_full {
            self.log(channel, &format!("(more than {BYTES_PER_INVOCATION_MAX} bytes: the rest is dropped)"));
        }
    }

    fn flush(&mut self) {
        for channel in [Channel::Output, Channel::Error] {
            let lines = match channel {
                Channel::Output => &mut self.output,
                Channel::Error => &mut self.error,
            };
            let rest = std::mem::take(&mut lines.unfinished);
            if !rest.is_empty() {
                self.log(channel, &String::from_utf8_lossy(&rest));
            }
        }
    }

    fn log(&self, channel: Channel, line: &str) {
        let stream = match channel {
            Channel::Output => "stdout",
            Channel::Error => "stderr",
        };
        let line = on_one_line(line);
        tracing::info!(target: "wharf::guest", service = %self.service, invocation = %self.invocation, stream, "{line}");
    }
}

/// A guest's text as it may stand in the log: control characters, with which it could forge lines or take over the
/// terminal of whoever reads them, are written as escapes.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if character.is_control() && character != '\t' {
            escaped.extend(character.escape_default());
        } else {
            escaped.push(character);
        }
    }
    Cow::Owned(escaped)
}

/// Where the first line ends: before a line feed, or where it becomes too long.
fn line_end(bytes: &[u8]) -> Option<usize> {
    let within = &bytes[..bytes.len().min(LINE_BYTES_MAX)];
    match within.iter().position(|&byte| byte == b'\n') {
        Some(end) => Some(end),
        None if bytes.len() > LINE_BYTES_MAX => Some(LINE_BYTES_MAX),
        None => None,
    }
}

/// One output as WASI wants it. Writing never waits.
pub(crate) struct GuestStream {
    output: GuestOutput,
    channel: Channel,
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(Self { output: self.output.clone(), channel: self.channel })
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(Self { output: self.output.clone(), channel: self.channel })
    }
}

#[async_trait::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.lock().write(self.channel, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.output.lock().write(self.channel, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
