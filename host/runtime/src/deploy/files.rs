//! The file system's side of the deploy folder: listing, reading whole, and the events of the operating system.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;

/// Events that wait to be handled. When there are more, a scan finds what they would have said.
const EVENTS_MAX: usize = 4096;

/// Longest name of a service: file names have 255 bytes at most, and a name is part of addresses and log lines.
const NAME_BYTES_MAX: usize = 128;

/// What tells that a file changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    bytes: u64,
    modified: Option<SystemTime>,
    /// Seconds and nanoseconds of the last change of the inode, which no program can set: a copy that keeps the time
    /// of its source is noticed, and so is a change of permissions.
    changed: (i64, i64),
    inode: u64,
}

impl Stamp {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            bytes: metadata.len(),
            modified: metadata.modified().ok(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
        }
    }

    /// How long ago the file changed in any way. `None` for a time in the future.
    pub(super) fn age(&self) -> Option<Duration> {
        let (seconds, nanoseconds) = self.changed;
        let changed = Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?);
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH.checked_add(changed)?).ok()
    }
}

/// The deploy folder.
#[derive(Clone)]
pub(super) struct Folder {
    path: PathBuf,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The services in the folder, by name.
    pub(super) async fn list(&self) -> io::Result<BTreeMap<String, Stamp>> {
        let path = self.path.clone();
        let listed = tokio::task::spawn_blocking(move || {
            let mut found = BTreeMap::new();
            for entry in std::fs::read_dir(path)? {
                let entry = entry?;
                let Some(name) = service_name(&entry.file_name()) else { continue };
                // A link is followed: containers publish files that way. What vanished meanwhile is not there.
                if let Ok(metadata) = std::fs::metadata(entry.path())
                    && metadata.is_file()
                {
                    found.insert(name, Stamp::of(&metadata));
                }
            }
            Ok(found)
        });
        listed.await.map_err(io::Error::other)?
    }

    async fn inode(&self) -> Option<u64> {
        tokio::fs::metadata(&self.path).await.ok().map(|metadata| metadata.ino())
    }
}

/// The name of the service that a file is, if it is one: `api.connector.dropbox.wasm` is `api.connector.dropbox`.
fn service_name(file_name: &OsStr) -> Option<String> {
    let name = file_name.to_str()?.strip_suffix(".wasm")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let well_formed = !name.starts_with('.') && (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed);
    well_formed.then(|| name.to_owned())
}

/// Reads a file that has this stamp; `None` when it changed meanwhile.
///
/// # Errors
/// Why it can never be read, as a sentence.
pub(super) async fn read_whole(path: &Path, stamp: Stamp, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
    if stamp.bytes > bytes_max {
        return Err(format!(
            "it has {} bytes, more than the limit of {bytes_max}; raise component-max under [host]",
            stamp.bytes
        ));
    }
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || -> io::Result<Option<Vec<u8>>> {
        let file = std::fs::File::open(&path)?;
        let mut bytes = Vec::with_capacity(usize::try_from(stamp.bytes).unwrap_or(0));
        (&file).take(bytes_max + 1).read_to_end(&mut bytes)?;
        // Of the path, not of the open file: it may have been replaced by renaming.
        let unchanged = Stamp::of(&std::fs::metadata(&path)?) == stamp && bytes.len() as u64 == stamp.bytes;
        Ok(unchanged.then_some(bytes))
    });
    match read.await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Ok(Err(error)) => Err(format!("it cannot be read: {error}")),
        Err(error) => Err(format!("it cannot be read: {error}")),
    }
}

/// What the operating system says of a service's file.
pub(super) enum FileEvent {
    /// Its writer closed it, or it was renamed in.
    Closed(String),
    /// Somebody writes it.
    Written(String),
    /// Something else happened, or events were lost.
    Rescan,
}

/// The watch on the folder.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    /// The folder that is being watched; another of the same name needs a new watch.
    inode: Option<u64>,
}

impl Watch {
    /// Watches the folder from now on, if it is there: what is put into it after this returned is reported.
    pub(super) fn new(folder: &Folder) -> (Self, mpsc::Receiver<FileEvent>) {
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let Ok(event) = event else { return };
            // A full channel is no loss: handling what is in it ends with a scan.
            for event in translate(&event) {
                let _ = sender.try_send(event);
            }
        });
        let watcher = watcher
            .inspect_err(|error| {
                tracing::warn!(
                    %error,
                    folder = %folder.path.display(),
                    "the operating system reports no changes of files: the folder of services is scanned instead"
                );
            })
            .ok();
        let mut watch = Self { watcher, inode: None };
        watch.begin(folder, std::fs::metadata(&folder.path).ok().map(|metadata| metadata.ino()));
        (watch, receiver)
    }

    /// Watches the folder as it is now, if it is not the one being watched.
    pub(super) async fn renew(&mut self, folder: &Folder) {
        let inode = folder.inode().await;
        if inode != self.inode {
            self.begin(folder, inode);
        }
    }

    fn begin(&mut self, folder: &Folder, inode: Option<u64>) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.inode.is_some() {
            // Fails when the folder is gone, which has ended the watch already.
            let _ = watcher.unwatch(&folder.path);
        }
        self.inode = None;
        if inode.is_some() {
            match watcher.watch(&folder.path, RecursiveMode::NonRecursive) {
                Ok(()) => self.inode = inode,
                Err(error) => tracing::warn!(%error, "the folder of services cannot be watched, only scanned"),
            }
        }
    }
}

fn translate(event: &notify::Event) -> Vec<FileEvent> {
    let names = || event.paths.iter().filter_map(|path| service_name(path.file_name()?));
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => names().map(FileEvent::Closed).collect(),
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => names().map(FileEvent::Written).collect(),
        EventKind::Create(_) => event
            .paths
            .iter()
            .filter_map(|path| {
                let name = service_name(path.file_name()?)?;
                // Nobody writes a link, so nobody will close it.
                let is_link = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_symlink());
                Some(if is_link { FileEvent::Closed(name) } else { FileEvent::Written(name) })
            })
            .collect(),
        EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)) => Vec::new(),
        _ => vec![FileEvent::Rescan],
    }
}
