//! The blocking operations of a local folder, confined to it by the kernel.
//!
//! Every path is opened below the folder with `openat2` and `RESOLVE_BENEATH`: a symbolic link may lead elsewhere
//! within the folder, but one that leads out, or that is absolute, is refused. Nothing is outside of the folder `/`, so
//! that there, where no other border is set, every link is followed. What changes names works on one component relative
//! to its opened parent, so no rename of somebody else can redirect it. How a file is written is in `write`. Knows no
//! tokio.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, ResolveFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;

use super::write::Temporary;
use crate::backend::{ByteRange, Entry, EntryKind, IfExists, PERMISSIONS, Permissions, ResumeKey, WriteOptions};
use crate::error::{Error, ErrorKind};
use crate::path::{RemotePath, name_of, wire_name_of};
use crate::temporary;

/// Entries of one page: enough that the trip to the blocking pool does not matter, few enough for little memory.
const PAGE_ENTRIES: usize = 256;

/// How often a path is resolved again after the kernel gave up because somebody renamed along it at that moment.
const RESOLVE_TRIES: usize = 16;

/// A path as an anchor for operations on names in it; needs no permission to read.
const ANCHOR: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// For reading. `NONBLOCK`, for opening a pipe without a writer would wait for one.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A folder that nothing leads out of.
pub(super) struct Folder {
    /// Opened anew for every operation: it may be mounted or replaced while the host runs.
    path: PathBuf,
    /// Folders in it that nothing leads out of either.
    borders: Vec<RemotePath>,
    /// Whether the kernel has `openat2` (Linux 5.6); without it no symbolic link is followed at all.
    has_openat2: AtomicBool,
}

impl Folder {
    pub(super) fn new(path: &Path, borders: Vec<RemotePath>) -> Result<Self, Error> {
        let folder = Self { path: path.to_owned(), borders, has_openat2: AtomicBool::new(true) };
        folder.root().map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                format!("{} cannot be used as the folder of a connection; it must exist", path.display()),
            )
            .with_source(std::io::Error::from(error))
        })?;
        Ok(folder)
    }

    /// The same folder with other borders.
    pub(super) fn within(&self, borders: Vec<RemotePath>) -> Self {
        let has_openat2 = AtomicBool::new(self.has_openat2.load(Ordering::Relaxed));
        Self { path: self.path.clone(), borders, has_openat2 }
    }

    pub(super) fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        let failed = |error| failed("stat", path, error);
        let stat = match self.parent(path) {
            None => rustix::fs::fstat(self.root().map_err(failed)?),
            Some(parent) => {
                rustix::fs::statat(parent.map_err(failed)?, wire_name_of(path.name()), AtFlags::SYMLINK_NOFOLLOW)
            }
        };
        Ok(entry(path.clone(), &stat.map_err(failed)?))
    }

    pub(super) fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        let failed = |error| failed("stat", path, error);
        let found = self.open(path, OFlags::PATH | OFlags::CLOEXEC).map_err(failed)?;
        Ok(entry(path.clone(), &rustix::fs::fstat(&found).map_err(failed)?))
    }

    pub(super) fn list(&self, path: &RemotePath) -> Result<Listing, Error> {
        let failed = |error| failed("list", path, error);
        let folder = self.open(path, READ | OFlags::DIRECTORY).map_err(failed)?;
        Ok(Listing { directory: Dir::new(folder).map_err(failed)?, path: path.clone() })
    }

    /// An open file at the beginning of the range, and how many bytes there are to read.
    pub(super) fn read(&self, path: &RemotePath, range: ByteRange) -> Result<(File, u64), Error> {
        let failed = |error| failed("read", path, error);
        let file = self.open(path, READ).map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(ErrorKind::Conflict, format!("cannot read {path}: it is not a regular file")));
        }
        let left = (stat.st_size.max(0) as u64).saturating_sub(range.offset);
        let mut file = File::from(file);
        if range.offset > 0 && left > 0 {
            file.seek(SeekFrom::Start(range.offset)).map_err(|error| {
                Error::new(ErrorKind::Internal, format!("cannot read {path} from byte {}", range.offset))
                    .with_source(error)
            })?;
        }
        Ok((file, left.min(range.length.unwrap_or(u64::MAX))))
    }

    /// Begins a write: a temporary file beside the target, or what an earlier write of the same content left there.
    pub(super) fn create(&self, path: &RemotePath, options: &WriteOptions) -> Result<Temporary, Error> {
        let failed = |error| failed("write", path, error);
        let folder = match self.parent(path) {
            None => return Err(is_a_folder("write", path)),
            Some(parent) => Arc::new(parent.map_err(failed)?),
        };
        match kind_in(&folder, path.name()) {
            Ok(FileType::Directory) => return Err(is_a_folder("write", path)),
            Ok(_) if options.if_exists == IfExists::Fail => return Err(exists("write", path)),
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(failed(error)),
        }
        let (name, is_new) = match &options.resume {
            Some(resume) => (temporary::name_for_key(path.name(), &resume.key), OFlags::empty()),
            None => (temporary::name_for(path.name()), OFlags::EXCL),
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | is_new | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Whoever writes a file may go on with it later.
        let mode = options.mode.and_then(Permissions::at_most).map_or(0o666, |mode| mode | 0o200);
        let file =
            rustix::fs::openat(&folder, wire_name_of(&name), flags, Mode::from_raw_mode(mode)).map_err(failed)?;
        let mut file = File::from(file);
        if let Some(resume) = &options.resume {
            file.set_len(resume.offset).map_err(|error| write_failed(path, error))?;
            file.seek(SeekFrom::Start(resume.offset)).map_err(|error| write_failed(path, error))?;
        }
        Ok(Temporary::new(file, folder, name, path, options))
    }

    /// How much of the content of this key is there.
    pub(super) fn partial(&self, path: &RemotePath, key: &ResumeKey) -> Result<u64, Error> {
        let failed = |error| failed("write", path, error);
        let Some(parent) = self.parent(path) else { return Err(is_a_folder("write", path)) };
        let name = temporary::name_for_key(path.name(), key);
        match parent.and_then(|parent| rustix::fs::statat(parent, wire_name_of(&name), AtFlags::SYMLINK_NOFOLLOW)) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile => {
                Ok(stat.st_size.max(0) as u64)
            }
            Ok(_) | Err(Errno::NOENT) => Ok(0),
            Err(error) => Err(failed(error)),
        }
    }

    /// Opens a file for more content at its end, making it when it is missing.
    pub(super) fn open_end(&self, path: &RemotePath) -> Result<File, Error> {
        let failed = |error| failed("append to", path, error);
        let Some(parent) = self.parent(path) else { return Err(is_a_folder("append to", path)) };
        let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = rustix::fs::openat(
            parent.map_err(failed)?,
            wire_name_of(path.name()),
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(0o666),
        )
        .map_err(failed)?;
        let stat = rustix::fs::fstat(&file).map_err(failed)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::new(ErrorKind::Conflict, format!("cannot append to {path}: it is not a regular file")));
        }
        Ok(File::from(file))
    }

    pub(super) fn set_modified(&self, path: &RemotePath, time: SystemTime) -> Result<(), Error> {
        let failed = |error| failed("set the time of", path, error);
        let times = timestamps(time);
        match self.parent(path) {
            None => {
                let root = self.open(path, READ | OFlags::DIRECTORY).map_err(failed)?;
                rustix::fs::futimens(root, &times).map_err(failed)
            }
            Some(parent) => rustix::fs::utimensat(
                parent.map_err(failed)?,
                wire_name_of(path.name()),
                &times,
                AtFlags::SYMLINK_NOFOLLOW,
            )
            .map_err(failed),
        }
    }

    /// Deletes whatever is there with all below it. Works on opened folders, one level at a time, so that no link is
    /// ever followed, not even one that is put there meanwhile.
    pub(super) fn delete_tree(&self, path: &RemotePath) -> Result<(), Error> {
        let failed = |error| failed("delete", path, error);
        let Some(parent) = self.parent(path) else {
            return Err(Error::new(ErrorKind::Invalid, "cannot delete the folder of the connection itself"));
        };
        let parent = parent.map_err(failed)?;
        let name = wire_name_of(path.name());
        if kind_in(&parent, path.name()).map_err(failed)? != FileType::Directory {
            return rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(failed);
        }
        empty(&parent, &name, 0).map_err(failed)?;
        rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR).map_err(failed)
    }

    pub(super) fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        let failed = |error| failed("delete", path, error);
        let parent = match self.parent(path) {
            None => return Err(Error::new(ErrorKind::Invalid, "cannot delete the folder of the connection itself")),
            Some(parent) => parent.map_err(failed)?,
        };
        let flags = match kind_in(&parent, path.name()).map_err(failed)? {
            FileType::Directory => AtFlags::REMOVEDIR,
            _ => AtFlags::empty(),
        };
        rustix::fs::unlinkat(parent, wire_name_of(path.name()), flags).map_err(failed)
    }

    /// Where a path is on this machine: links are resolved, as far as something is there.
    pub(super) fn location(&self, path: &RemotePath) -> PathBuf {
        let whole = self.path.join(OsStr::from_bytes(&relative(path)));
        let resolved = whole.ancestors().find_map(|there| {
            let rest = whole.strip_prefix(there).ok()?;
            Some(there.canonicalize().ok()?.join(rest))
        });
        resolved.unwrap_or(whole)
    }

    pub(super) fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose another name by itself"));
        }
        let from_failed = |error| failed("rename", source, error);
        let to_failed = |error| failed("rename to", target, error);
        let (Some(from), Some(to)) = (self.parent(source), self.parent(target)) else {
            return Err(Error::new(ErrorKind::Invalid, "cannot rename the folder of the connection itself"));
        };
        let (from, to) = (from.map_err(from_failed)?, to.map_err(to_failed)?);
        kind_in(&from, source.name()).map_err(from_failed)?;
        match (kind_in(&to, target.name()), if_exists) {
            (Err(Errno::NOENT), _) => {}
            (Err(error), _) => return Err(to_failed(error)),
            (Ok(_), IfExists::Fail) => return Err(exists("rename to", target)),
            (Ok(_), _) if source == target => return Ok(()),
            (Ok(FileType::Directory), _) => return Err(is_a_folder("rename to", target)),
            (Ok(_), _) => {}
        }
        let renamed = match if_exists {
            IfExists::Fail => rename_to_free_name(&from, source.name(), &to, target.name()),
            _ => rustix::fs::renameat(&from, wire_name_of(source.name()), &to, wire_name_of(target.name())),
        };
        match renamed {
            Err(Errno::XDEV) => Err(Error::new(
                ErrorKind::Unsupported,
                format!("cannot rename {source} to {target}: they are on different file systems; copy and delete"),
            )),
            Err(Errno::INVAL) => Err(Error::new(
                ErrorKind::Invalid,
                format!("cannot rename {source} to {target}: a folder cannot be moved into itself"),
            )),
            other => other.map_err(to_failed),
        }
    }

    pub(super) fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        let failed = |error| failed("make folder", path, error);
        match self.parent(path) {
            None => Err(exists("make folder", path)),
            Some(parent) => {
                let mode = Mode::from_raw_mode(0o777);
                rustix::fs::mkdirat(parent.map_err(failed)?, wire_name_of(path.name()), mode).map_err(failed)
            }
        }
    }

    fn root(&self) -> Result<OwnedFd, Errno> {
        rustix::fs::open(&self.path, ANCHOR, Mode::empty())
    }

    fn parent(&self, path: &RemotePath) -> Option<Result<OwnedFd, Errno>> {
        path.parent().map(|parent| self.open(&parent, ANCHOR))
    }

    /// Opens what is there already. `XDEV` for a link that leads out of the folder, or out of the border around the path.
    fn open(&self, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        let root = self.root()?;
        let border = path.innermost(&self.borders).filter(|border| !border.is_root());
        match border.and_then(|border| Some((border, path.relative_to(border)?))) {
            Some((border, rest)) => self.open_below(self.open_below(root, border, ANCHOR)?, &rest, flags),
            None if self.path == Path::new("/") => rustix::fs::openat(&root, relative(path), flags, Mode::empty()),
            None => self.open_below(root, path, flags),
        }
    }

    fn open_below(&self, root: OwnedFd, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Errno> {
        if self.has_openat2.load(Ordering::Relaxed) {
            match open_beneath(&root, path, flags) {
                // A kernel or a sandbox that does not know the call.
                Err(Errno::NOSYS) => self.has_openat2.store(false, Ordering::Relaxed),
                other => return other,
            }
        }
        open_without_links(root, path, flags)
    }
}

/// A path as seen from the folder.
fn relative(path: &RemotePath) -> Vec<u8> {
    if path.is_root() { b".".to_vec() } else { wire_name_of(&path.as_str()[1..]) }
}

fn open_beneath(root: &OwnedFd, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let relative = relative(path);
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut result = Err(Errno::AGAIN);
    for _ in 0..RESOLVE_TRIES {
        result = rustix::fs::openat2(root, &*relative, flags, Mode::empty(), resolve);
        if !matches!(result, Err(Errno::AGAIN)) {
            break;
        }
    }
    result
}

/// The walk for kernels without `openat2`: one component at a time, `LOOP` for any symbolic link.
fn open_without_links(root: OwnedFd, path: &RemotePath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut current = root;
    let mut components = path.components().peekable();
    if components.peek().is_none() {
        return rustix::fs::openat(&current, ".", flags, Mode::empty());
    }
    while let Some(name) = components.next() {
        let flags = if components.peek().is_some() { ANCHOR } else { flags };
        current = match rustix::fs::openat(&current, wire_name_of(name), flags | OFlags::NOFOLLOW, Mode::empty()) {
            // With O_DIRECTORY a link is reported as no directory.
            Err(Errno::NOTDIR) if kind_in(&current, name) == Ok(FileType::Symlink) => return Err(Errno::LOOP),
            other => other?,
        };
    }
    Ok(current)
}

/// How deep a tree is deleted: each level holds one descriptor, and a path has no more than 2,048 components.
const TREE_DEPTH_MAX: usize = 512;

/// Deletes what is in a folder.
fn empty(parent: &OwnedFd, name: &[u8], depth: usize) -> Result<(), Errno> {
    if depth == TREE_DEPTH_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    let folder = rustix::fs::openat(parent, name, READ | OFlags::DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
    for item in Dir::read_from(&folder)? {
        let item = item?;
        let name = item.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        match rustix::fs::unlinkat(&folder, name, AtFlags::empty()) {
            // Linux says ISDIR for a folder, POSIX allows PERM.
            Err(Errno::ISDIR | Errno::PERM) => {
                empty(&folder, name, depth + 1)?;
                rustix::fs::unlinkat(&folder, name, AtFlags::REMOVEDIR)?;
            }
            Err(Errno::NOENT) => {}
            other => other?,
        }
    }
    Ok(())
}

/// The entries of an open folder.
pub(super) struct Listing {
    directory: Dir,
    path: RemotePath,
}

impl Listing {
    /// The next entries; `None` at the end.
    pub(super) fn next_page(&mut self) -> Result<Option<Vec<Entry>>, Error> {
        let failed = |error| failed("list", &self.path, error);
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES {
            let Some(item) = self.directory.next() else { break };
            let item = item.map_err(failed)?;
            let name = item.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            let Ok(path) = self.path.join(&name_of(name.to_bytes())) else {
                tracing::warn!(folder = %self.path, ?name, "left an entry out of a listing: its name is not a valid path");
                continue;
            };
            let folder = self.directory.fd().map_err(failed)?;
            match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => page.push(entry(path, &stat)),
                // Deleted between the two calls.
                Err(Errno::NOENT) => {}
                Err(error) => return Err(failed(error)),
            }
        }
        Ok((!page.is_empty()).then_some(page))
    }
}

/// Renames, `EXIST` when the new name is taken, in one step where the file system can.
pub(super) fn rename_to_free_name(from: &OwnedFd, source: &str, to: &OwnedFd, target: &str) -> Result<(), Errno> {
    let (old, new) = (wire_name_of(source), wire_name_of(target));
    match rustix::fs::renameat_with(from, &*old, to, &*new, RenameFlags::NOREPLACE) {
        // File systems without the flag, such as NFS: a hard link never replaces anything either.
        Err(Errno::INVAL | Errno::NOSYS) if kind_in(from, source) != Ok(FileType::Directory) => {
            rustix::fs::linkat(from, &*old, to, &*new, AtFlags::empty())?;
            rustix::fs::unlinkat(from, &*old, AtFlags::empty())
        }
        other => other,
    }
}

fn kind_in(folder: &OwnedFd, name: &str) -> Result<FileType, Errno> {
    let stat = rustix::fs::statat(folder, wire_name_of(name), AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(FileType::from_raw_mode(stat.st_mode))
}

pub(super) fn entry(path: RemotePath, stat: &Stat) -> Entry {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    };
    let is_file = kind == EntryKind::File;
    let (seconds, nanoseconds) = (stat.st_mtime, stat.st_mtime_nsec as u32);
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let modified = if seconds >= 0 {
        SystemTime::UNIX_EPOCH.checked_add(whole)
    } else {
        SystemTime::UNIX_EPOCH.checked_sub(whole)
    };
    Entry {
        path,
        kind,
        size: is_file.then_some(stat.st_size.max(0) as u64),
        modified: modified.and_then(|time| time.checked_add(Duration::from_nanos(u64::from(nanoseconds)))),
        mode: Some(stat.st_mode & PERMISSIONS),
        revision: is_file.then(|| format!("{:x}-{:x}-{seconds:x}.{nanoseconds:09}", stat.st_ino, stat.st_size)),
    }
}

/// Times for the kernel; the time of last access stays as it is.
pub(super) fn timestamps(modified: SystemTime) -> Timestamps {
    let (seconds, nanoseconds) = match modified.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(since) => (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos()),
        // Whole seconds are enough for what was changed before 1970.
        Err(before) => (-i64::try_from(before.duration().as_secs()).unwrap_or(i64::MAX), 0),
    };
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

pub(super) fn exists(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("cannot {operation} {path}: it exists already"))
}

fn is_a_folder(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::Conflict, format!("cannot {operation} {path}: it is a folder"))
}

pub(super) fn write_failed(path: &RemotePath, error: std::io::Error) -> Error {
    match Errno::from_io_error(&error) {
        Some(errno) => failed("write", path, errno),
        None => Error::new(ErrorKind::Interrupted, format!("writing {path} broke off")).with_source(error),
    }
}

pub(super) fn failed(operation: &str, path: &RemotePath, error: Errno) -> Error {
    let (kind, what) = match error {
        Errno::NOENT => (ErrorKind::NotFound, "nothing is there"),
        Errno::EXIST => (ErrorKind::AlreadyExists, "it exists already"),
        Errno::ACCESS | Errno::PERM => (ErrorKind::Denied, "the host's user has no permission"),
        Errno::ROFS => (ErrorKind::Denied, "the file system is mounted read-only"),
        Errno::XDEV => (ErrorKind::Denied, "a symbolic link on the way is absolute or leads out of the folder"),
        Errno::LOOP => (ErrorKind::Denied, "a symbolic link on the way cannot be followed"),
        Errno::NOTEMPTY => (ErrorKind::Conflict, "the folder is not empty"),
        Errno::ISDIR => (ErrorKind::Conflict, "it is a folder"),
        Errno::NOTDIR => (ErrorKind::Conflict, "it, or what leads to it, is not a folder"),
        Errno::BUSY | Errno::TXTBSY => (ErrorKind::Conflict, "it is in use"),
        // A pipe, a socket or a device without anything behind it.
        Errno::NXIO | Errno::NODEV => (ErrorKind::Conflict, "it is not a regular file"),
        Errno::NAMETOOLONG => (ErrorKind::Invalid, "the name is too long for the file system"),
        Errno::INVAL => (ErrorKind::Invalid, "the file system does not take it"),
        Errno::FBIG => (ErrorKind::TooLarge, "the file system does not take files as large"),
        Errno::NOSPC | Errno::DQUOT => (ErrorKind::Unavailable, "the disk is full"),
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => (ErrorKind::Unavailable, "the host is out of resources"),
        _ => (ErrorKind::Unavailable, "the file system reports an error"),
    };
    let message = format!("cannot {operation} {path}: {what}");
    let told = Error::new(kind, message).with_source(std::io::Error::from(error));
    if matches!(error, Errno::NOSPC | Errno::DQUOT) { told.lasting() } else { told }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).unwrap()
    }

    /// A folder with a file, a folder and links, as a kernel without `openat2` sees it.
    fn without_openat2() -> (tempfile::TempDir, Folder) {
        let above = tempfile::tempdir().unwrap();
        fs::create_dir_all(above.path().join("inside/a/b")).unwrap();
        fs::write(above.path().join("inside/a/b/file"), "content").unwrap();
        fs::write(above.path().join("secret"), "secret").unwrap();
        symlink("a", above.path().join("inside/within")).unwrap();
        symlink("..", above.path().join("inside/out")).unwrap();
        symlink("../secret", above.path().join("inside/secret")).unwrap();
        let folder = Folder::new(&above.path().join("inside"), Vec::new()).unwrap();
        folder.has_openat2.store(false, Ordering::Relaxed);
        (above, folder)
    }

    #[test]
    fn without_openat2_paths_are_walked() {
        let (_above, folder) = without_openat2();
        assert_eq!(folder.read(&path("/a/b/file"), ByteRange::ALL).unwrap().1, 7);
        assert_eq!(folder.stat(&path("/")).unwrap().kind, EntryKind::Directory);
        assert_eq!(folder.list(&path("/")).unwrap().next_page().unwrap().unwrap().len(), 4);
        assert_eq!(folder.list(&path("/a/b")).unwrap().next_page().unwrap().unwrap().len(), 1);
        assert_eq!(folder.stat(&path("/a/missing")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(folder.stat(&path("/a/b/file/deeper")).unwrap_err().kind(), ErrorKind::Conflict);
        assert_eq!(folder.list(&path("/a/b/file")).err().unwrap().kind(), ErrorKind::Conflict);
    }

    #[test]
    fn without_openat2_no_link_is_followed_at_all() {
        let (above, folder) = without_openat2();
        for at in ["/within/b/file", "/out/secret", "/secret"] {
            let error = folder.read(&path(at), ByteRange::ALL).err().unwrap();
            assert_eq!(error.kind(), ErrorKind::Denied, "{at}: {error}");
        }
        for at in ["/within", "/out"] {
            assert_eq!(folder.list(&path(at)).err().unwrap().kind(), ErrorKind::Denied, "{at}");
            assert_eq!(folder.stat(&path(at)).unwrap().kind, EntryKind::Symlink);
        }
        assert_eq!(folder.delete(&path("/out/secret")).unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(folder.make_directory(&path("/out/new")).unwrap_err().kind(), ErrorKind::Denied);
        assert!(folder.create(&path("/out/new"), &WriteOptions::new(IfExists::Replace)).is_err());
        assert!(above.path().join("secret").exists());
        assert_eq!(fs::read_dir(above.path()).unwrap().count(), 2);
    }
}
