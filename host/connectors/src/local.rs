//! A folder of this machine as a connection.
//!
//! This file turns the blocking operations of [`Folder`] into the asynchronous contract: every system call runs on
//! the blocking pool, one call per batch of bytes or page of entries, so that a slow consumer holds no thread. Knows
//! nothing of how the folder is confined.

mod folder;
mod write;

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};

use crate::backend::{
    Backend, ByteRange, Checksum, ChecksumAlgorithm, Entry, Facts, IfExists, Location, Pages, ResumeKey, WriteOptions,
    hexadecimal,
};
use crate::content::{CHUNK_BYTES, Content};
use crate::error::{Error, ErrorKind, Step};
use crate::path::RemotePath;
use folder::Folder;
use write::Temporary;

/// What one trip to the blocking pool reads or writes: the trip costs about as much as copying a tenth of this.
const BATCH_BYTES: usize = 4 * CHUNK_BYTES;

/// What one trip to the blocking pool copies from file to file: long enough not to matter, short enough to be given up.
const COPY_BYTES: usize = 64 * 1024 * 1024;

/// Settings of a local folder.
#[derive(Debug, Clone)]
pub struct Config {
    /// The folder; nothing outside of it can be reached, symbolic links included. With `/`, that is the whole machine.
    pub folder: PathBuf,
}

/// A folder of this machine.
pub(crate) struct Local {
    folder: Arc<Folder>,
}

impl Local {
    pub(crate) fn new(config: &Config, root: &RemotePath) -> Result<Self, Error> {
        Ok(Self { folder: Arc::new(Folder::new(&config.folder, vec![root.clone()])?) })
    }

    /// The same folder, where no link leads out of these folders in it either.
    pub(crate) fn within(&self, borders: Vec<RemotePath>) -> Self {
        Self { folder: Arc::new(self.folder.within(borders)) }
    }

    /// Runs one blocking operation. It ends by itself when the caller goes away; what it returns is dropped then.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folder) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let folder = Arc::clone(&self.folder);
        blocking(move || work(&folder)).await
    }
}

#[async_trait]
impl Backend for Local {
    fn makes_parents(&self) -> bool {
        false
    }

    /// A file system does not come and go.
    fn repeats_by_itself(&self) -> bool {
        true
    }

    async fn location(&self, path: &RemotePath) -> Option<Location> {
        let path = path.clone();
        let path = self.blocking(move |folder| Ok(folder.location(&path))).await.ok()?;
        Some(Location { server: "this machine".to_owned(), path })
    }

    async fn ping(&self) -> Result<Facts, Error> {
        let folder = self.blocking(|folder| folder.stat(&RemotePath::root())).await;
        folder.map_err(|error| error.at(Step::Command))?;
        Ok(Vec::new())
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.stat(&path)).await
    }

    async fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.follow(&path)).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        let path = path.clone();
        let listing = self.blocking(move |folder| folder.list(&path)).await?;
        let pages = stream::try_unfold(listing, |mut listing| {
            blocking(move || Ok(listing.next_page()?.map(|page| (page, listing))))
        });
        Ok(pages.boxed())
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        let named = path.clone();
        let (file, size) = self.blocking(move |folder| folder.read(&named, range)).await?;
        let path = path.clone();
        let batches = stream::try_unfold((file, size), move |(file, left)| {
            let path = path.clone();
            async move {
                if left == 0 {
                    return Ok(None);
                }
                let (file, batch) = blocking(move || read_batch(file, left, &path)).await?;
                let read = batch.len() as u64;
                // A file that was truncated meanwhile ends early; the content is held to its announced size.
                Ok::<_, Error>((read > 0).then_some((batch, (file, left - read))))
            }
        });
        Ok(Content::from_stream(Some(size), batches))
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let (path, options) = (path.clone(), options.clone());
        let temporary = self.blocking(move |folder| folder.create(&path, &options)).await?;
        let (temporary, filled) = fill(temporary, content, Temporary::append).await?;
        // Either way nothing is left under the temporary name when this is answered.
        blocking(move || match filled {
            Ok(()) => temporary.commit(),
            Err(error) => {
                temporary.discard();
                Err(error)
            }
        })
        .await
    }

    async fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let (path, key) = (path.clone(), key.clone());
        self.blocking(move |folder| folder.partial(&path, &key)).await
    }

    async fn append(&self, path: &RemotePath, content: Content) -> Result<Entry, Error> {
        let named = path.clone();
        let file = self.blocking(move |folder| folder.open_end(&named)).await?;
        let named = path.clone();
        let (file, filled) = fill(file, content, move |file, chunks| {
            chunks.iter().try_for_each(|chunk| file.write_all(chunk)).map_err(|error| {
                let message = format!("appending to {named} broke off; what arrived before stays");
                Error::new(ErrorKind::Interrupted, message).with_source(error)
            })
        })
        .await?;
        filled?;
        let named = path.clone();
        self.blocking(move |folder| {
            file.sync_all().map_err(|error| {
                Error::new(ErrorKind::Interrupted, format!("what was appended to {named} may not be on the disk"))
                    .with_source(error)
            })?;
            folder.stat(&named)
        })
        .await
    }

    async fn copy(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        let (from, to) = (source.clone(), target.clone());
        let begin = move |folder: &Folder| {
            let (file, size) = folder.read(&from, ByteRange::ALL)?;
            let modified = file.metadata().and_then(|metadata| metadata.modified()).ok();
            let temporary = folder.create(&to, &WriteOptions { modified, ..WriteOptions::new(if_exists) })?;
            Ok((file, size, temporary))
        };
        let (file, size, temporary) = self.blocking(begin).await?;
        let (temporary, copied) = fill_from(temporary, file, size, source).await?;
        blocking(move || match copied {
            Ok(true) => temporary.commit().map(Some),
            unfinished => {
                temporary.discard();
                unfinished.map(|_| None)
            }
        })
        .await
    }

    async fn delete_tree(&self, path: &RemotePath) -> Result<bool, Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.delete_tree(&path)).await.map(|()| true)
    }

    async fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.set_modified(&path, time)).await
    }

    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let mut chunks = self.read(path, ByteRange::ALL).await?.into_stream();
        let mut hash = Sha256::new();
        while let Some(chunk) = chunks.try_next().await? {
            hash.update(&chunk);
        }
        let value = hexadecimal(&hash.finalize());
        Ok(Some(Checksum { algorithm: ChecksumAlgorithm::Sha256, value }))
    }

    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.delete(&path)).await
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        let (source, target) = (source.clone(), target.clone());
        self.blocking(move |folder| folder.rename(&source, &target, if_exists)).await
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let path = path.clone();
        self.blocking(move |folder| folder.make_directory(&path)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(ErrorKind::Internal, "a file operation was not finished").with_source(error)),
    }
}

/// Hands content to `append` in batches, each on the blocking pool while the next one arrives, until it ends, breaks
/// off, or cannot be appended; gives the target back with that.
async fn fill<T: Send + 'static>(
    target: T,
    content: Content,
    append: impl Fn(&mut T, &[Bytes]) -> Result<(), Error> + Send + Sync + 'static,
) -> Result<(T, Result<(), Error>), Error> {
    let append = Arc::new(append);
    let mut chunks = content.into_stream();
    let mut written = (target, Ok(()));
    let (mut batch, mut is_more) = next_batch(&mut chunks).await;
    // What came before the source broke off is written, too: a write that is continued later begins behind it.
    while written.1.is_ok() && !batch.is_empty() {
        let append = Arc::clone(&append);
        let mut target = written.0;
        let writing = blocking(move || {
            let appended = append(&mut target, &batch);
            Ok((target, appended))
        });
        if matches!(is_more, Ok(true)) {
            let next;
            (written, next) = tokio::try_join!(writing, async { Ok(next_batch(&mut chunks).await) })?;
            (batch, is_more) = next;
        } else {
            written = writing.await?;
            batch = Vec::new();
        }
    }
    let (target, appended) = written;
    Ok((target, appended.and(is_more.map(drop))))
}

/// Fills a file with all of another, in parts on the blocking pool; gives it back with whether the kernel can do that.
async fn fill_from(
    mut target: Temporary,
    mut source: File,
    mut left: u64,
    named: &RemotePath,
) -> Result<(Temporary, Result<bool, Error>), Error> {
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(COPY_BYTES);
        let appended;
        (target, source, appended) = blocking(move || {
            let appended = target.append_of(&source, most);
            Ok((target, source, appended))
        })
        .await?;
        match appended {
            Ok(Some(0)) => {
                let message = format!("{named} became shorter while it was copied");
                return Ok((target, Err(Error::new(ErrorKind::Conflict, message))));
            }
            Ok(Some(bytes)) => left -= bytes as u64,
            Ok(None) => return Ok((target, Ok(false))),
            Err(error) => return Ok((target, Err(error))),
        }
    }
    Ok((target, Ok(true)))
}

/// Some chunks, and whether there may be more, or why there are no more.
async fn next_batch(chunks: &mut BoxStream<'static, Result<Bytes, Error>>) -> (Vec<Bytes>, Result<bool, Error>) {
    let mut batch = Vec::new();
    let mut batch_bytes = 0;
    let mut is_more = Ok(true);
    while batch_bytes < BATCH_BYTES && matches!(is_more, Ok(true)) {
        is_more = chunks.try_next().await.map(|chunk| {
            let is_there = chunk.is_some();
            batch_bytes += chunk.as_ref().map_or(0, Bytes::len);
            batch.extend(chunk);
            is_there
        });
    }
    (batch, is_more)
}

fn read_batch(file: File, left: u64, path: &RemotePath) -> Result<(File, Bytes), Error> {
    let wanted = left.min(BATCH_BYTES as u64);
    let mut batch = Vec::with_capacity(wanted as usize);
    (&file)
        .take(wanted)
        .read_to_end(&mut batch)
        .map_err(|error| Error::new(ErrorKind::Interrupted, format!("reading {path} broke off")).with_source(error))?;
    Ok((file, Bytes::from(batch)))
}
