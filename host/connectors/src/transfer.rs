//! Files and whole trees from one connection to another, on this host: the bytes pass through in chunks.
//!
//! A file of the target appears whole or not at all, a source is deleted only after the target was verified, and every
//! file has a result of its own. Knows no protocol; what a write does to be atomic is the backend's concern.

mod hash;
mod same_place;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use futures::stream::{self, FuturesUnordered, StreamExt, TryStreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::Instrument;

use crate::backend::{ByteRange, Entry, EntryKind, IfExists, Permissions, Resume, ResumeKey, WriteOptions};
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use crate::walk::Filter;
use crate::{Remote, chain, deadline, operation};
use hash::{Hash, hash_of};
use same_place::{Names, is_within};

/// Files at once when nothing is said: enough to hide the delay of a line, few enough for a partner's server.
pub const PARALLEL_DEFAULT: usize = 4;

/// Files at once at most, whatever is asked.
pub const PARALLEL_MAX: usize = 64;

/// Results that wait to be taken; the transfer pauses when nobody takes them.
const RESULTS_MAX: usize = 1024;

/// Files from this size on, and those of unknown size, are not sent before it is known whether their target exists, where
/// that is an error: a look costs less than this much content on most lines, and smaller files come by the thousands.
const LOOK_BYTES_MIN: u64 = 4 * 1024 * 1024;

/// Times that two systems tell of the same file differ by so much: FAT and Dropbox know seconds, some servers even ones.
const TIME_PRECISION: Duration = Duration::from_secs(2);

/// What to do with a file whose target exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfPresent {
    /// The file fails with `AlreadyExists`.
    #[default]
    Fail,
    /// It is replaced.
    Replace,
    /// The file gets the first free name of the form `name (1).ext`.
    Rename,
    /// The file is left out.
    Skip,
    /// It is replaced unless it has the same size and is not older.
    Update,
}

/// How a file is verified before its source may be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verify {
    /// By its size; Dropbox verifies its content hash in any case.
    #[default]
    Size,
    /// By its content: the checksum that the target computes, or reading it back where it computes none.
    Content,
}

/// How a transfer is done.
#[derive(Debug, Clone)]
pub struct TransferOptions {
    /// What to do with a file whose target exists.
    pub if_present: IfPresent,
    /// Which files of a tree are meant. It does not apply to a single file.
    pub filter: Filter,
    /// How each file is verified.
    pub verify: Verify,
    /// Delete each source after its target was verified, and the folders that are empty then, unless there is a filter.
    pub delete_source: bool,
    /// Go on where an earlier transfer of the same file broke off, and leave what arrived when this one does. To Dropbox
    /// every transfer begins anew.
    pub resume: bool,
    /// Give the targets the sources' times of last change, where the target can.
    pub keep_modified: bool,
    /// Give the targets the sources' permissions where both have them, and how: as [`Permissions::Exactly`] or
    /// [`Permissions::AtMost`].
    pub keep_mode: Option<fn(u32) -> Permissions>,
    /// Files at once; [`PARALLEL_DEFAULT`] when 0, [`PARALLEL_MAX`] at most.
    pub parallel: usize,
}

impl Default for TransferOptions {
    fn default() -> Self {
        Self {
            if_present: IfPresent::Fail,
            filter: Filter::default(),
            verify: Verify::Size,
            delete_source: false,
            resume: false,
            keep_modified: true,
            keep_mode: None,
            parallel: 0,
        }
    }
}

/// What became of one file.
#[derive(Debug)]
pub struct FileResult {
    /// Where it was.
    pub source: RemotePath,
    /// Where it is now, or would be.
    pub target: RemotePath,
    /// What happened.
    pub outcome: Result<Outcome, Error>,
    /// How long it took.
    pub took: Duration,
}

/// A file that did not fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is there.
    Transferred {
        /// Its size.
        bytes: u64,
        /// How much of it an earlier transfer had brought.
        resumed_at: u64,
    },
    /// It was left out, and why.
    Skipped(&'static str),
}

/// How far a transfer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// Files found so far.
    pub files_found: u64,
    /// Files that are there now.
    pub files_transferred: u64,
    /// Files left out.
    pub files_skipped: u64,
    /// Files that failed.
    pub files_failed: u64,
    /// Bytes of the files found so far, as far as their sizes are known.
    pub bytes_found: u64,
    /// Bytes of content that were moved, or were there from an earlier transfer.
    pub bytes_transferred: u64,
    /// Whether all files have been found.
    pub is_counted: bool,
}

#[derive(Default)]
struct Counters {
    files_found: AtomicU64,
    files_transferred: AtomicU64,
    files_skipped: AtomicU64,
    files_failed: AtomicU64,
    bytes_found: AtomicU64,
    bytes_transferred: AtomicU64,
    is_counted: AtomicBool,
}

/// A transfer under way. Dropped, it ends where it is; no file is left half-written under its name.
pub struct Transfer {
    results: mpsc::Receiver<FileResult>,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Transfer {
    /// The next result; `None` when all is done. The order is that of completion.
    pub async fn next(&mut self) -> Option<FileResult> {
        self.results.recv().await
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Progress {
            files_found: of(&self.counters.files_found),
            files_transferred: of(&self.counters.files_transferred),
            files_skipped: of(&self.counters.files_skipped),
            files_failed: of(&self.counters.files_failed),
            bytes_found: of(&self.counters.bytes_found),
            bytes_transferred: of(&self.counters.bytes_transferred),
            is_counted: self.counters.is_counted.load(Ordering::Relaxed),
        }
    }
}

impl Drop for Transfer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Begins to transfer a file, or what is in a folder, from one connection to another.
///
/// The target of a file is the path that it gets; missing folders on the way are made. The target of a folder is the
/// folder that takes its content. A symbolic link that is the source itself is followed, those below it are left out.
/// Within one connection a file is renamed or copied by the remote itself, where that can.
///
/// # Errors
/// What looking at the source reports; `Invalid` when a folder would be transferred into itself, or when a link would be
/// followed and then deleted. What happens afterwards is in the results.
pub async fn transfer(
    source: &Remote,
    from: &RemotePath,
    target: &Remote,
    to: &RemotePath,
    options: TransferOptions,
) -> Result<Transfer, Error> {
    let mut top = source.stat(from).await?;
    let is_link = top.kind == EntryKind::Symlink;
    if is_link {
        top = source.follow(from).await?;
    }
    target.backend("write")?;
    let is_same = source.is_same_connection(target);
    if is_link && options.delete_source {
        let message = format!("cannot move {from} on connection {}: it is a symbolic link", source.name());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if is_link && is_same && top.kind == EntryKind::Directory {
        let message =
            format!("cannot transfer {from}, a symbolic link: the folder it leads to may be on the way to {to}");
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    if is_same && to.is_within(from) || top.kind == EntryKind::Directory && is_within(target, to, source, from).await {
        let where_to = match (is_same, to == from) {
            (true, true) => "itself".to_owned(),
            (true, false) => format!("{to}, which is within it"),
            (false, _) => format!("{to} on connection {}, which is the same folder or within it", target.name()),
        };
        let message = format!("cannot transfer {from} on connection {} to {where_to}", source.name());
        return Err(Error::new(ErrorKind::Invalid, message));
    }
    let (sender, results) = mpsc::channel(RESULTS_MAX);
    let counters = Arc::new(Counters::default());
    let work = Work {
        source: source.clone(),
        target: target.clone(),
        from: from.clone(),
        to: to.clone(),
        is_same,
        options,
        counters: Arc::clone(&counters),
        results: sender,
    };
    // A task of its own: files are moved while the caller does something else.
    let task = tokio::spawn(deadline::kept(async move { work.run(top).await }).in_current_span());
    Ok(Transfer { results, counters, task })
}

struct Work {
    source: Remote,
    target: Remote,
    from: RemotePath,
    to: RemotePath,
    is_same: bool,
    options: TransferOptions,
    counters: Arc<Counters>,
    results: mpsc::Sender<FileResult>,
}

impl Work {
    async fn run(&self, top: Entry) {
        match top.kind {
            EntryKind::Directory => self.tree().await,
            _ => {
                self.found(&top);
                self.counters.is_counted.store(true, Ordering::Relaxed);
                self.file(top, self.to.clone(), true).await;
            }
        }
    }

    async fn tree(&self) {
        if let Err(error) = self.target.make_directories(&self.to).await {
            return self.failed(self.from.clone(), self.to.clone(), error).await;
        }
        let mut folders = vec![self.from.clone()];
        let moved = self.files(&mut folders).await;
        self.counters.is_counted.store(true, Ordering::Relaxed);
        if let Err(error) = moved {
            return self.failed(self.from.clone(), self.to.clone(), error).await;
        }
        if !self.options.delete_source || !self.options.filter.is_everything() {
            return;
        }
        // From the innermost on. What is not empty holds a file that was left out, failed, or came meanwhile.
        for folder in folders.iter().rev().filter(|folder| !folder.is_root()) {
            match self.source.delete(folder).await {
                Err(error) if !matches!(error.kind(), ErrorKind::Conflict | ErrorKind::NotFound) => {
                    self.failed(folder.clone(), self.to.clone(), error).await;
                }
                _ => {}
            }
        }
    }

    /// Transfers the files of the tree, some at once; tells its folders, outer ones first. A listing that fails ends it
    /// after the files that were found.
    async fn files(&self, folders: &mut Vec<RemotePath>) -> Result<(), Error> {
        let mut walk = std::pin::pin!(self.source.walk(&self.from, self.options.filter.clone()));
        let mut running = FuturesUnordered::new();
        let mut names = Names::default();
        let mut listed = Ok(false);
        while matches!(listed, Ok(false)) || !running.is_empty() {
            let has_room = running.len() < self.parallel() && matches!(listed, Ok(false));
            tokio::select! {
                Some(()) = running.next(), if !running.is_empty() => {}
                found = walk.next(), if has_room => match found {
                    Some(Ok(entry)) => match self.is_taken(&mut names, &entry).await {
                        Ok(false) if entry.kind == EntryKind::Directory => {
                            let made = self.target.make_directories(&self.target_of(&entry)).await;
                            listed = made.map(|()| false);
                            folders.push(entry.path);
                        }
                        // What is in it is told.
                        Ok(true) if entry.kind == EntryKind::Directory => {}
                        Ok(is_taken) => {
                            self.found(&entry);
                            let target = self.target_of(&entry);
                            match is_taken {
                                true => self.collides(entry, target).await,
                                false => running.push(self.file(entry, target, false)),
                            }
                        }
                        Err(error) => listed = Err(error),
                    },
                    Some(Err(error)) => listed = Err(error),
                    None => listed = Ok(true),
                },
            }
        }
        listed.map(drop)
    }

    fn target_of(&self, entry: &Entry) -> RemotePath {
        entry.path.relative_to(&self.from).unwrap_or_else(|| entry.path.clone()).below(&self.to)
    }

    fn parallel(&self) -> usize {
        let asked = if self.options.parallel == 0 { PARALLEL_DEFAULT } else { self.options.parallel };
        let places = |remote: &Remote| remote.shared.common.operations_max;
        // Each file holds one place for reading and one for writing.
        let room = if self.is_same { places(&self.source) / 2 } else { places(&self.source).min(places(&self.target)) };
        asked.min(PARALLEL_MAX).min(room).max(1)
    }

    fn found(&self, entry: &Entry) {
        self.counters.files_found.fetch_add(1, Ordering::Relaxed);
        self.counters.bytes_found.fetch_add(entry.size.unwrap_or_default(), Ordering::Relaxed);
    }

    async fn failed(&self, source: RemotePath, target: RemotePath, error: Error) {
        self.counters.files_failed.fetch_add(1, Ordering::Relaxed);
        // Nobody is there any more to be told.
        let _ = self.results.send(FileResult { source, target, outcome: Err(error), took: Duration::ZERO }).await;
    }

    /// Moves one file, and tells what became of it.
    async fn file(&self, entry: Entry, target: RemotePath, parents: bool) {
        let started = Instant::now();
        let (mut tried, source) = (0, entry.path.clone());
        let retries = self.source.shared.common.retries.min(self.target.shared.common.retries);
        let (target, outcome) = loop {
            let counted = Arc::new(AtomicU64::new(0));
            match self.attempt(&entry, &target, parents, &counted).await {
                Err(error) if tried < retries && is_broken_off(&error) => {
                    self.counters.bytes_transferred.fetch_sub(counted.load(Ordering::Relaxed), Ordering::Relaxed);
                    let pause = operation::pause(tried);
                    tried += 1;
                    let (error, path) = (chain(&error), source.as_str());
                    tracing::info!(tried, path, error, "a file is transferred again");
                    tokio::time::sleep(pause).await;
                }
                Err(error) => break (target, Err(error)),
                Ok((target, outcome)) => break (target, Ok(outcome)),
            }
        };
        let counter = match &outcome {
            Ok(Outcome::Transferred { .. }) => &self.counters.files_transferred,
            Ok(Outcome::Skipped(_)) => &self.counters.files_skipped,
            Err(_) => &self.counters.files_failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        let _ = self.results.send(FileResult { source, target, outcome, took: started.elapsed() }).await;
    }

    async fn attempt(
        &self,
        entry: &Entry,
        target: &RemotePath,
        parents: bool,
        counted: &Arc<AtomicU64>,
    ) -> Result<(RemotePath, Outcome), Error> {
        if entry.kind == EntryKind::Symlink {
            return Ok((target.clone(), Outcome::Skipped("it is a symbolic link")));
        }
        if let Some(reason) = self.reason_to_skip(entry, target).await? {
            return Ok((target.clone(), Outcome::Skipped(reason)));
        }
        let if_exists = match self.options.if_present {
            IfPresent::Fail | IfPresent::Skip => IfExists::Fail,
            IfPresent::Replace | IfPresent::Update => IfExists::Replace,
            IfPresent::Rename => IfExists::Rename,
        };
        if self.is_same && self.options.delete_source && if_exists != IfExists::Rename {
            match self.rename(entry, target, if_exists, parents).await {
                // Across file systems, say.
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                renamed => return renamed.map(|outcome| (target.clone(), outcome)),
            }
        }
        if self.options.delete_source && if_exists == IfExists::Replace {
            self.check_is_another(entry, target).await?;
        }
        // A listing may tell less of a file than asking for it does: what it is compared with later must be as precise.
        let asked;
        let entry = match entry.revision {
            Some(_) => entry,
            None => {
                asked = self.source.follow(&entry.path).await?;
                &asked
            }
        };
        self.refuse_early(entry, target).await?;
        let (written, resumed_at, hash) = match self.copy(entry, target, if_exists, parents, counted).await? {
            Some(written) => (written, 0, None),
            None => self.write(entry, target, if_exists, parents, counted).await?,
        };
        self.verify(entry, &written, resumed_at, hash).await?;
        if self.options.delete_source {
            self.source.delete(&entry.path).await.map_err(|error| {
                let message = format!("{} is transferred, but its source could not be deleted", entry.path);
                Error::new(error.kind(), message).with_source(error)
            })?;
        }
        let bytes = written.size.or(entry.size).unwrap_or_default();
        Ok((written.path, Outcome::Transferred { bytes, resumed_at }))
    }

    /// Fails before much content is sent that has no place to go. Whether the target may be written is still for the
    /// write to say: another one may come meanwhile.
    async fn refuse_early(&self, entry: &Entry, target: &RemotePath) -> Result<(), Error> {
        let is_large = entry.size.is_none_or(|size| size >= LOOK_BYTES_MIN);
        if self.options.if_present != IfPresent::Fail || !is_large || !self.target.exists(target).await? {
            return Ok(());
        }
        let name = self.target.name();
        Err(Error::new(ErrorKind::AlreadyExists, format!("cannot write {target} on {name}: it exists already")))
    }

    async fn reason_to_skip(&self, entry: &Entry, target: &RemotePath) -> Result<Option<&'static str>, Error> {
        if !matches!(self.options.if_present, IfPresent::Skip | IfPresent::Update) {
            return Ok(None);
        }
        let there = match self.target.stat(target).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        Ok(match self.options.if_present {
            IfPresent::Skip => Some("its target exists"),
            _ if there.size == entry.size && !is_older(there.modified, self.precise_time(entry).await?) => {
                Some("its target is as large and not older")
            }
            _ => None,
        })
    }

    /// When a source was changed. Some listings tell the minute, or only the day; asking for the file tells the second.
    async fn precise_time(&self, entry: &Entry) -> Result<Option<SystemTime>, Error> {
        let since = entry.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        match since {
            Some(since) if entry.revision.is_none() && since.as_secs().is_multiple_of(60) => {
                Ok(self.source.stat(&entry.path).await?.modified)
            }
            _ => Ok(entry.modified),
        }
    }

    async fn rename(
        &self,
        entry: &Entry,
        target: &RemotePath,
        if_exists: IfExists,
        parents: bool,
    ) -> Result<Outcome, Error> {
        if parents {
            self.target.make_parents_of(target).await?;
        }
        self.source.rename(&entry.path, target, if_exists).await?;
        let bytes = entry.size.unwrap_or_default();
        self.counters.bytes_transferred.fetch_add(bytes, Ordering::Relaxed);
        Ok(Outcome::Transferred { bytes, resumed_at: 0 })
    }

    /// Has the remote itself copy within the connection; `None` where it cannot, or not as it is wanted.
    async fn copy(
        &self,
        entry: &Entry,
        target: &RemotePath,
        if_exists: IfExists,
        parents: bool,
        counted: &Arc<AtomicU64>,
    ) -> Result<Option<Entry>, Error> {
        // A copy has the time of its source, and permissions that its server chooses.
        if !self.is_same || !self.options.keep_modified || self.options.keep_mode.is_some() {
            return Ok(None);
        }
        if parents {
            self.target.make_parents_of(target).await?;
        }
        let Some(mut written) = self.source.copy_there(&entry.path, target, if_exists).await? else {
            self.source.check_room_to_copy()?;
            return Ok(None);
        };
        if let Some(time) = entry.modified
            && written.modified != entry.modified
        {
            match self.target.set_modified(&written.path, time).await {
                Ok(()) => written.modified = Some(time),
                Err(error) => {
                    tracing::debug!(path = %written.path, error = chain(&error), "a copy has a time of its own")
                }
            }
        }
        let bytes = written.size.or(entry.size).unwrap_or_default();
        counted.fetch_add(bytes, Ordering::Relaxed);
        self.counters.bytes_transferred.fetch_add(bytes, Ordering::Relaxed);
        Ok(Some(written))
    }

    /// Writes the target; the entry, the offset that it was continued at, and the hash of what was read if wanted.
    async fn write(
        &self,
        entry: &Entry,
        target: &RemotePath,
        if_exists: IfExists,
        parents: bool,
        counted: &Arc<AtomicU64>,
    ) -> Result<(Entry, u64, Option<String>), Error> {
        let resume = if self.options.resume { Some(self.resume(entry, target).await?) } else { None };
        let offset = resume.as_ref().map_or(0, |resume| resume.offset);
        let range = ByteRange { offset, length: None };
        let content = self.source.read(&entry.path, range).await?;
        let (told, hash) = tokio::sync::oneshot::channel();
        let size = content.size();
        let passing = Passing {
            source: self.source.clone(),
            entry: entry.clone(),
            // The hash of a part says nothing of the whole.
            hash: (self.options.verify == Verify::Content && offset == 0).then(|| Hash::for_target(&self.target)),
            told: Some(told),
            counters: Arc::clone(&self.counters),
            counted: Arc::clone(counted),
        };
        passing.count(offset);
        let chunks = stream::try_unfold((content.into_stream(), passing), |(mut chunks, mut passing)| async move {
            match chunks.try_next().await? {
                Some(chunk) => {
                    passing.pass(&chunk);
                    Ok(Some((chunk, (chunks, passing))))
                }
                None => {
                    drop(chunks);
                    passing.end().await?;
                    Ok(None)
                }
            }
        });
        let modified = if self.options.keep_modified { entry.modified } else { None };
        let mode = self.options.keep_mode.zip(entry.mode).map(|(keep, mode)| keep(mode));
        let options = WriteOptions { if_exists, parents, modified, mode, resume };
        let written = self.target.write_with(target, Content::from_stream(size, chunks), &options).await?;
        Ok((written, offset, hash.await.ok().flatten()))
    }

    /// The key of this source in its present state, and how much of it is at the target.
    async fn resume(&self, entry: &Entry, target: &RemotePath) -> Result<Resume, Error> {
        let modified = entry.modified.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok());
        let key = ResumeKey::of(&format!(
            "{}\n{}\n{:?}\n{modified:?}\n{:?}",
            self.source.name(),
            entry.path,
            entry.size,
            entry.revision
        ));
        let there = self.target.partial(target, &key).await?;
        // More than there is cannot be of it.
        let offset = if entry.size.is_some_and(|size| there <= size) { there } else { 0 };
        Ok(Resume { key, offset })
    }

    /// Holds what was written against what was read.
    async fn verify(&self, entry: &Entry, written: &Entry, resumed_at: u64, hash: Option<String>) -> Result<(), Error> {
        let differs = |what: &str| {
            Error::new(
                ErrorKind::Interrupted,
                format!("{} on {} differs from its source in its {what}", written.path, self.target.name()),
            )
        };
        let written_size = match written.size {
            Some(size) => Some(size),
            None => self.target.stat(&written.path).await?.size,
        };
        if let (Some(size), Some(wanted)) = (written_size, entry.size)
            && size != wanted
        {
            return Err(differs("size"));
        }
        if self.options.verify == Verify::Size {
            return Ok(());
        }
        let algorithm = Hash::for_target(&self.target).algorithm();
        let read = match hash {
            Some(hash) if resumed_at == 0 => hash,
            _ => hash_of(&self.source, &entry.path, algorithm).await?,
        };
        if hash_of(&self.target, &written.path, algorithm).await? != read {
            return Err(differs("content"));
        }
        Ok(())
    }
}

/// Content on its way from source to target.
struct Passing {
    source: Remote,
    entry: Entry,
    hash: Option<Hash>,
    told: Option<tokio::sync::oneshot::Sender<Option<String>>>,
    counters: Arc<Counters>,
    counted: Arc<AtomicU64>,
}

impl Passing {
    fn count(&self, bytes: u64) {
        self.counted.fetch_add(bytes, Ordering::Relaxed);
        self.counters.bytes_transferred.fetch_add(bytes, Ordering::Relaxed);
    }

    fn pass(&mut self, chunk: &[u8]) {
        if let Some(hash) = &mut self.hash {
            hash.update(chunk);
        }
        self.count(chunk.len() as u64);
    }

    /// Fails, before the target gets its name, when the source changed meanwhile: parts of two states make no file.
    async fn end(&mut self) -> Result<(), Error> {
        let now = self.source.follow(&self.entry.path).await?;
        let before = &self.entry;
        if now.size != before.size || now.modified != before.modified || now.revision != before.revision {
            return Err(Error::new(
                ErrorKind::Conflict,
                format!("{} on {} changed while it was read", before.path, self.source.name()),
            ));
        }
        if let Some(told) = self.told.take() {
            // Whoever does not wait for it does not need it.
            let _ = told.send(self.hash.take().map(Hash::finish));
        }
        Ok(())
    }
}

fn is_older(time: Option<SystemTime>, than: Option<SystemTime>) -> bool {
    match (time, than) {
        (Some(time), Some(than)) => time + TIME_PRECISION < than,
        // What is not known may be older.
        _ => true,
    }
}

fn is_broken_off(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Unavailable | ErrorKind::Timeout)
        && !error.is_lasting()
        // Whoever asked for a pause was given all the time there is.
        && error.retry_after().is_none()
}
