//! `wharf:host/files`: what every file-like connection can do.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{DynOutputStream, OutputStream, StreamError, StreamResult};
use wharf_connectors::{ByteRange, CHUNK_BYTES, Content, Entry, EntryKind, Error, ErrorKind, IfExists, RemotePath};

use super::bindings::wharf::host::files as wit;
use super::bindings::wharf::host::types as wit_types;
use super::{refused, told};
use crate::body::Body;
use crate::grant::{self, Granted};
use crate::guest::Guest;
use crate::settings::Access;

/// Chunks of an upload that wait for the connection: with [`CHUNK_BYTES`] each, enough to keep it busy.
const UPLOAD_CHUNKS_MAX: usize = 4;

/// A connection that a guest holds.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GrantedRemote(Granted);

/// A folder being listed.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct OpenListing(BoxStream<'static, Result<Vec<Entry>, Error>>);

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

impl Guest {
    fn granted(&self, remote: &Resource<GrantedRemote>) -> wasmtime::Result<Granted> {
        Ok(self.table.get(remote)?.0.clone())
    }
}

impl wit::Host for Guest {}

impl wit::HostRemote for Guest {
    async fn open(
        &mut self,
        connection: String,
    ) -> wasmtime::Result<Result<Resource<GrantedRemote>, wit_types::Error>> {
        match grant::open(&self.surroundings.settings, &self.surroundings.service, &connection) {
            Ok(granted) => Ok(Ok(self.table.push(GrantedRemote(granted))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn ping(&mut self, remote: Resource<GrantedRemote>) -> wasmtime::Result<Result<u64, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let ping = granted.remote.ping().await;
        Ok(ping.map(|ping| u64::try_from(ping.took.as_millis()).unwrap_or(u64::MAX)).map_err(|error| told(&error)))
    }

    async fn stat(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<wit::Entry, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let path = granted.allow(Access::Read, &path)?;
            granted.remote.stat(&path).await
        };
        Ok(work.await.map(guest_entry).map_err(|error| told(&error)))
    }

    async fn list(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<Vec<wit::Entry>, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let path = granted.allow(Access::Read, &path)?;
            granted.remote.list(&path).await
        };
        Ok(work.await.map(|entries| entries.into_iter().map(guest_entry).collect()).map_err(|error| told(&error)))
    }

    async fn open_listing(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<Resource<OpenListing>, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let path = granted.allow(Access::Read, &path)?;
            granted.remote.list_pages(&path).await
        };
        match work.await {
            Ok(pages) => Ok(Ok(self.table.push(OpenListing(pages.boxed()))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn read(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<Resource<Body>, wit_types::Error>> {
        self.read_part(&remote, &path, ByteRange::ALL).await
    }

    async fn read_range(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> wasmtime::Result<Result<Resource<Body>, wit_types::Error>> {
        self.read_part(&remote, &path, ByteRange { offset, length }).await
    }

    async fn write(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        body: Resource<Body>,
        if_exists: wit::IfExists,
    ) -> wasmtime::Result<Result<wit::Entry, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let content = self.table.delete(body)?.into_content();
        let work = async {
            let path = granted.allow(Access::Write, &path)?;
            granted.remote.write(&path, content, host_if_exists(if_exists)).await
        };
        Ok(work.await.map(guest_entry).map_err(|error| told(&error)))
    }

    async fn create(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        if_exists: wit::IfExists,
    ) -> wasmtime::Result<Result<Resource<GuestUpload>, wit_types::Error>> {
        let granted = self.granted(&remote)?;
        match granted.allow(Access::Write, &path) {
            Ok(path) => Ok(Ok(self.table.push(GuestUpload::start(granted, path, host_if_exists(if_exists)))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn delete(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<(), wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let path = granted.allow(Access::Write, &path)?;
            granted.remote.delete(&path).await
        };
        Ok(work.await.map_err(|error| told(&error)))
    }

    async fn rename(
        &mut self,
        remote: Resource<GrantedRemote>,
        source: String,
        target: String,
        if_exists: wit::IfExists,
    ) -> wasmtime::Result<Result<(), wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let source = granted.allow(Access::Write, &source)?;
            let target = granted.allow(Access::Write, &target)?;
            granted.remote.rename(&source, &target, host_if_exists(if_exists)).await
        };
        Ok(work.await.map_err(|error| told(&error)))
    }

    async fn make_directory(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
    ) -> wasmtime::Result<Result<(), wit_types::Error>> {
        let granted = self.granted(&remote)?;
        let work = async {
            let path = granted.allow(Access::Write, &path)?;
            granted.remote.make_directory(&path).await
        };
        Ok(work.await.map_err(|error| told(&error)))
    }

    async fn drop(&mut self, remote: Resource<GrantedRemote>) -> wasmtime::Result<()> {
        self.table.delete(remote)?;
        Ok(())
    }
}

impl Guest {
    async fn read_part(
        &mut self,
        remote: &Resource<GrantedRemote>,
        path: &str,
        range: ByteRange,
    ) -> wasmtime::Result<Result<Resource<Body>, wit_types::Error>> {
        let granted = self.granted(remote)?;
        let work = async {
            let path = granted.allow(Access::Read, path)?;
            granted.remote.read(&path, range).await
        };
        match work.await {
            Ok(content) => Ok(Ok(self.table.push(Body::Content(content))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }
}

impl wit::HostListing for Guest {
    async fn next(
        &mut self,
        listing: Resource<OpenListing>,
    ) -> wasmtime::Result<Result<Vec<wit::Entry>, wit_types::Error>> {
        let pages = &mut self.table.get_mut(&listing)?.0;
        Ok(match pages.try_next().await {
            Ok(page) => Ok(page.unwrap_or_default().into_iter().map(guest_entry).collect()),
            Err(error) => Err(told(&error)),
        })
    }

    async fn drop(&mut self, listing: Resource<OpenListing>) -> wasmtime::Result<()> {
        self.table.delete(listing)?;
        Ok(())
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
    fn start(granted: Granted, path: RemotePath, if_exists: IfExists) -> Self {
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
        let write =
            tokio::spawn(
                async move { granted.remote.write(&path, Content::from_stream(None, content), if_exists).await },
            );
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

fn host_if_exists(if_exists: wit::IfExists) -> IfExists {
    match if_exists {
        wit::IfExists::Fail => IfExists::Fail,
        wit::IfExists::Replace => IfExists::Replace,
        wit::IfExists::Rename => IfExists::Rename,
    }
}

fn guest_entry(entry: Entry) -> wit::Entry {
    wit::Entry {
        name: entry.path.name().to_owned(),
        path: entry.path.as_str().to_owned(),
        kind: match entry.kind {
            EntryKind::File => wit::EntryKind::File,
            EntryKind::Directory => wit::EntryKind::Directory,
            EntryKind::Symlink => wit::EntryKind::Symlink,
            EntryKind::Other => wit::EntryKind::Other,
        },
        size: entry.size,
        modified: entry.modified.map(guest_time),
        revision: entry.revision,
    }
}

/// A time as guests see it; what lies before 1970 becomes 1970, which is all that the type can say.
pub(crate) fn guest_time(time: SystemTime) -> Datetime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}
