//! One file into Dropbox, in one request, whole and verified or not at all.
//!
//! Content is hashed while it passes. Small content is held in memory, so that a call that was told to wait can be
//! tried again; anything larger is read once and sent once. Knows nothing of who uploads.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::http::{HeaderValue, header};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use serde_json::{Value, json};

use super::call::Caller;
use super::failure::{Call, Failure};
use super::hash::ContentHasher;
use super::wire::{Metadata, write_path};
use crate::content::{CHUNK_BYTES, Content};
use crate::error::{Error, ErrorKind};
use crate::http::client::streamed;
use crate::path::RemotePath;

/// The longest file that one request may carry: Dropbox's limit for `files/upload`.
pub(super) const UPLOAD_BYTES_MAX: u64 = 150 * 1024 * 1024;

/// Content up to this size is read into memory first: most messages and documents that are exchanged are smaller,
/// and one for each operation at once is little memory.
const IN_MEMORY_BYTES_MAX: usize = 1024 * 1024;

/// How often a file is looked for whose upload was not answered, and the pauses before: Dropbox may still be at
/// work on the last bytes when the connection breaks.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];

/// Where a file goes and what holds if something is there.
pub(super) struct Upload<'a> {
    pub(super) path: &'a RemotePath,
    /// Dropbox's `WriteMode`.
    pub(super) mode: Value,
    pub(super) autorename: bool,
    /// Whether identical content is a conflict, too.
    pub(super) strict_conflict: bool,
    /// As [`super::wire::write_time`] writes it.
    pub(super) client_modified: Option<String>,
    pub(super) mute: bool,
}

impl Caller {
    /// Uploads and verifies. When the answer is lost after everything was sent, the upload counts as done if the file
    /// is there with this content: a strict upload that lost its answer thus cannot tell an identical file that was
    /// there before.
    pub(super) async fn upload(&self, upload: &Upload<'_>, content: Content) -> Result<Metadata, Failure> {
        let path = upload.path;
        let too_large = |size| {
            let message = format!("{path} with {size} bytes is larger than {UPLOAD_BYTES_MAX}, the most in one upload");
            Error::new(ErrorKind::TooLarge, message)
        };
        if let Some(size) = content.size().filter(|size| *size > UPLOAD_BYTES_MAX) {
            return Err(too_large(size).into());
        }
        let outgoing = Outgoing::prepare(content).await?;
        let mut argument = json!({
            "path": write_path(path),
            "mode": upload.mode,
            "autorename": upload.autorename,
            "strict_conflict": upload.strict_conflict,
            "mute": upload.mute,
        });
        if let Some(time) = &upload.client_modified {
            argument["client_modified"] = json!(time);
        }
        if let Some(hash) = &outgoing.hash {
            // Dropbox then refuses damaged content by itself, before anything is replaced.
            argument["content_hash"] = json!(hash);
        }
        let call = Call { route: "files/upload", subject: path.as_str(), repeatable: false };
        // The head is made again for each try, but cannot fail differently.
        self.content_request(&call, &argument)?;
        let answered = async {
            let answer = self
                .send(&call, || {
                    let mut request = self.content_request(&call, &argument).ok()?;
                    let octets = HeaderValue::from_static("application/octet-stream");
                    request.headers_mut().insert(header::CONTENT_TYPE, octets);
                    *request.body_mut() = Some(outgoing.body()?);
                    Some(request)
                })
                .await?;
            answer.json::<Metadata>(&call).await
        };
        let answered = answered.await;
        let sent = std::mem::take(&mut *outgoing.state());
        match (answered, sent) {
            (Ok(metadata), Sent { whole, failed }) => {
                // An answer before the end of the content is to a file that has not all of it.
                let verified = self.verified(path, metadata, whole.as_deref().unwrap_or_default()).await;
                failed.map_or(verified, |error| Err(error.into()))
            }
            (Err(_), Sent { failed: Some(error), .. }) => Err(error.into()),
            (Err(failure), Sent { whole: Some(hash), .. }) => self.look_for(path, &hash, failure).await,
            (Err(failure), Sent { whole: None, .. }) => Err(failure),
        }
    }

    async fn verified(&self, path: &RemotePath, metadata: Metadata, hash: &str) -> Result<Metadata, Failure> {
        if metadata.content_hash.as_deref() == Some(hash) {
            return Ok(metadata);
        }
        let at = metadata.path_lower.as_deref().unwrap_or(path.as_str());
        let call = Call { route: "files/delete_v2", subject: at, repeatable: false };
        let removed = match &metadata.rev {
            Some(rev) => self.rpc::<Value>(&call, &json!({ "path": at, "parent_rev": rev })).await.map(|_| ()),
            None => Ok(()),
        };
        let what_became = match removed {
            Ok(()) => "was deleted again",
            Err(failure) => {
                tracing::warn!(path = at, ?failure, "a file that was damaged on its way could not be deleted");
                "could not be deleted; delete it"
            }
        };
        Err(Error::new(
            ErrorKind::Interrupted,
            format!("the content of {path} was damaged on its way: what arrived {what_became}, and upload it again"),
        )
        .into())
    }

    /// Everything was sent, but the answer did not come.
    async fn look_for(&self, path: &RemotePath, hash: &str, failure: Failure) -> Result<Metadata, Failure> {
        let lost = match failure {
            Failure::Other(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Timeout) => error,
            known => return Err(known),
        };
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            match self.get_metadata(path).await {
                Ok(metadata) if metadata.content_hash.as_deref() == Some(hash) => return Ok(metadata),
                Ok(_) => {}
                Err(failure) if failure.is("path/not_found") => {}
                Err(failure) => {
                    tracing::warn!(path = path.as_str(), ?failure, "cannot look whether the upload was done");
                    break;
                }
            }
        }
        Err(Error::new(
            lost.kind(),
            format!("all of {path} was sent, but the answer did not come, and the file is not there; upload it again"),
        )
        .with_source(lost)
        .into())
    }
}

/// Content as it comes.
type Chunks = BoxStream<'static, Result<Bytes, Error>>;

/// Content on its way out.
struct Outgoing {
    size: Option<u64>,
    source: Source,
    /// Of content in memory.
    hash: Option<String>,
    state: Arc<Mutex<Sent>>,
}

enum Source {
    Memory(Bytes),
    /// Taken when the first byte is asked for, so that a try that ended before costs nothing.
    Once(Arc<Mutex<Option<Chunks>>>),
}

/// What became of the latest try.
#[derive(Default)]
struct Sent {
    /// The hash, once everything was handed over.
    whole: Option<String>,
    /// The content's own error.
    failed: Option<Error>,
}

/// Aborts a request whose content failed; the content's own error is kept aside.
#[derive(Debug)]
struct ContentFailed;

impl fmt::Display for ContentFailed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the content of the upload failed")
    }
}

impl std::error::Error for ContentFailed {}

impl Outgoing {
    /// Reads small content into memory, and no more than that of larger content.
    async fn prepare(content: Content) -> Result<Self, Error> {
        let state = Arc::default();
        let size = content.size();
        let mut rest = content.into_stream();
        let mut read = Vec::new();
        let mut length = 0;
        if size.is_none_or(|size| size <= IN_MEMORY_BYTES_MAX as u64) {
            loop {
                let Some(chunk) = rest.try_next().await? else {
                    let bytes = Bytes::from(read.concat());
                    let mut hasher = ContentHasher::new();
                    hasher.update(&bytes);
                    let (size, hash) = (Some(bytes.len() as u64), Some(hasher.finish()));
                    return Ok(Self { size, source: Source::Memory(bytes), hash, state });
                };
                length += chunk.len();
                read.push(chunk);
                if length > IN_MEMORY_BYTES_MAX {
                    break;
                }
            }
        }
        let all = stream::iter(read.into_iter().map(Ok)).chain(rest).boxed();
        Ok(Self { size, source: Source::Once(Arc::new(Mutex::new(Some(all)))), hash: None, state })
    }

    fn state(&self) -> MutexGuard<'_, Sent> {
        lock(&self.state)
    }

    /// A body for one try, while there is something to make it from.
    fn body(&self) -> Option<reqwest::Body> {
        let chunks = match &self.source {
            Source::Memory(bytes) => stream::iter(pieces(bytes.clone()).map(Ok)).boxed(),
            Source::Once(slot) => {
                lock(slot).as_ref()?;
                let slot = Arc::clone(slot);
                stream::once(async move { lock(&slot).take() })
                    .flat_map(|taken| taken.unwrap_or_else(|| stream::empty().boxed()))
                    .boxed()
            }
        };
        // Nobody asks an empty body for its end.
        let whole = self.hash.clone().filter(|_| self.size == Some(0));
        *self.state() = Sent { whole, failed: None };
        Some(streamed(self.size, observed(chunks, Arc::clone(&self.state))))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes in memory, in pieces whose progress can be seen.
fn pieces(mut bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || (!bytes.is_empty()).then(|| bytes.split_to(bytes.len().min(CHUNK_BYTES))))
}

/// The chunks as they are, hashed and counted on their way, with the end and any failure noted in `state`.
///
/// Each chunk is held back until the next one is there, or the end. A sender stops asking once it has as many bytes as
/// it announced; a source that fails behind its last byte, as one does whose hash turns out wrong, must fail before
/// that.
fn observed(chunks: Chunks, state: Arc<Mutex<Sent>>) -> impl Stream<Item = Result<Bytes, ContentFailed>> + Send {
    let source = Some((chunks, ContentHasher::new(), 0_u64));
    stream::try_unfold((source, None), move |(source, mut held)| {
        let state = Arc::clone(&state);
        async move {
            let failed = |error| {
                lock(&state).failed = Some(error);
                ContentFailed
            };
            let Some((mut chunks, mut hasher, mut sent)) = source else { return Ok(None) };
            while let Some(chunk) = chunks.try_next().await.map_err(failed)? {
                sent += chunk.len() as u64;
                if sent > UPLOAD_BYTES_MAX {
                    let message = format!("the content has more than {UPLOAD_BYTES_MAX} bytes, the most in one upload");
                    return Err(failed(Error::new(ErrorKind::TooLarge, message)));
                }
                hasher.update(&chunk);
                if let Some(previous) = held.replace(chunk) {
                    return Ok(Some((previous, (Some((chunks, hasher, sent)), held))));
                }
            }
            lock(&state).whole = Some(hasher.finish());
            Ok(held.take().map(|last| (last, (None, None))))
        }
    })
}
