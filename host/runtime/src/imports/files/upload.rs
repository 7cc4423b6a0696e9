//! A file that a guest produces itself, chunk by chunk, into an [`UploadStream`].

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tracing::Instrument;
use wasmtime::component::Resource;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynOutputStream, OutputStream, StreamError, StreamResult};
use wharf_connectors::{CHUNK_BYTES, Content, Entry, Error, ErrorKind, RemotePath, WriteOptions, deadline};

use super::{guest_entry, wit, wit_types};
use crate::grant::Granted;
use crate::guest::Guest;
use crate::imports::{refused, told};

/// Chunks of an upload that wait for the connection: with [`CHUNK_BYTES`] each, enough to keep it busy.
const UPLOAD_CHUNKS_MAX: usize = 4;

/// A file that a guest produces.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GuestUpload {
    output: Option<UploadStream>,
    /// Held by the stream as well, for as long as it is open.
    open: Arc<()>,
    /// Sent when the guest finishes. Dropped unsent, the content breaks off and nothing is written.
    finished: oneshot::Sender<()>,
    write: AbortOnDrop<Result<Entry, Error>>,
}

struct AbortOnDrop<T>(JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl wit::HostUpload for Guest {
    async fn content(&mut self, upload: Resource<GuestUpload>) -> wasmtime::Result<Resource<DynOutputStream>> {
        let stream = self.table.get_mut(&upload)?.output.take();
        let Some(stream) = stream else {
            return Err(wasmtime::Error::msg("the content of an upload was taken twice"));
        };
        let stream: DynOutputStream = Box::new(stream);
        Ok(self.table.push(stream)?)
    }

    async fn finish(
        &mut self,
        content: Resource<GuestUpload>,
    ) -> wasmtime::Result<Result<wit::Entry, wit_types::Error>> {
        let upload = self.table.delete(content)?;
        Ok(upload.finish().await.map(guest_entry))
    }

    async fn drop(&mut self, upload: Resource<GuestUpload>) -> wasmtime::Result<()> {
        self.table.delete(upload)?;
        Ok(())
    }
}

impl GuestUpload {
    pub(super) fn start(granted: Granted, path: RemotePath, options: WriteOptions) -> Self {
        let (chunks, received) = mpsc::channel::<Bytes>(UPLOAD_CHUNKS_MAX);
        let (finished, confirmed) = oneshot::channel::<()>();
        let content = futures::stream::try_unfold((received, confirmed), |(mut received, confirmed)| async {
            if let Some(chunk) = received.recv().await {
                return Ok(Some((chunk, (received, confirmed))));
            }
            // The stream was dropped: the end, if the guest says so, otherwise it gave up.
            confirmed
                .await
                .map(|()| None)
                .map_err(|_| Error::new(ErrorKind::Interrupted, "the upload was dropped unfinished"))
        });
        let open = Arc::new(());
        let content = Content::from_stream(None, content);
        let write = async move { granted.remote.write_with(&path, content, &options).await };
        let write = tokio::spawn(deadline::kept(write).in_current_span());
        Self {
            output: Some(UploadStream { chunks, _open: Arc::clone(&open) }),
            open,
            finished,
            write: AbortOnDrop(write),
        }
    }

    async fn finish(mut self) -> Result<Entry, wit_types::Error> {
        drop(self.output.take());
        if Arc::strong_count(&self.open) > 1 {
            return Err(refused(
                wit_types::ErrorCode::Invalid,
                "finishing an upload: its content stream is still open; drop the stream first",
            ));
        }
        // The write may have ended by itself, with an error that is told below.
        let _ = self.finished.send(());
        match (&mut self.write.0).await {
            Ok(result) => result.map_err(|error| told(&error)),
            Err(_) => Err(refused(wit_types::ErrorCode::Internal, "finishing an upload: the write was aborted")),
        }
    }
}

/// Where the guest writes the content of an upload.
struct UploadStream {
    chunks: mpsc::Sender<Bytes>,
    _open: Arc<()>,
}

#[async_trait::async_trait]
impl Pollable for UploadStream {
    async fn ready(&mut self) {
        // Room, or nobody left to write for; `check_write` tells which.
        let _ = self.chunks.reserve().await;
    }
}

#[async_trait::async_trait]
impl OutputStream for UploadStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.chunks.try_send(bytes) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(StreamError::Closed),
            Err(mpsc::error::TrySendError::Full(_)) => Err(StreamError::trap("more was written than was permitted")),
        }
    }

    fn flush(&mut self) -> StreamResult<()> {
        if self.chunks.is_closed() { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.chunks.is_closed() {
            return Err(StreamError::Closed);
        }
        Ok(if self.chunks.capacity() > 0 { CHUNK_BYTES } else { 0 })
    }
}
