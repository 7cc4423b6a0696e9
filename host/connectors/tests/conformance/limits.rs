//! The promises at the edges: files beyond 4 GiB, folders of ten thousand, files that are replaced while they are read,
//! folders that nobody may write to, full disks.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use futures::stream::TryStreamExt;
use rustix::fs::{IFlags, Mode, OFlags};
use wharf_connectors::{ByteRange, Content, Error, ErrorKind, IfExists, LIST_ENTRIES_MAX, Remote, RemotePath, chain};

use crate::places::{self, Place};

/// More than 32 bits can tell.
const LARGE_BYTES: u64 = 5 << 30;

/// In a process of its own, whose mounts nobody else sees.
const IS_APART: &str = "WHARF_TEST_IS_APART";

/// A disk that is soon full.
const DISK_BYTES: usize = 4 << 20;

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

fn folder(place: &Place) -> &Path {
    place.folder.as_deref().expect("only remotes whose files are on this machine are checked for this")
}

async fn put(remote: &Remote, at: &str, content: impl Into<bytes::Bytes>) -> Result<(), Error> {
    remote.write(&path(at), Content::from_bytes(content), IfExists::Replace).await.map(drop)
}

async fn get(remote: &Remote, at: &str) -> bytes::Bytes {
    remote.read(&path(at), ByteRange::ALL).await.unwrap().collect(1 << 28).await.unwrap()
}

async fn names(remote: &Remote) -> Vec<String> {
    let entries = remote.list(&RemotePath::root()).await.unwrap();
    let mut names: Vec<_> = entries.iter().map(|entry| entry.path.name().to_owned()).collect();
    names.sort();
    names
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kind: ErrorKind, what: &str) -> String {
    let Err(error) = result else { panic!("it succeeded instead of failing with {kind:?}: {what}") };
    assert_eq!(error.kind(), kind, "{what}: {}", chain(&error));
    chain(&error)
}

pub(crate) async fn a_file_beyond_4_gib_has_its_size_and_is_read_in_ranges(place: &Place) {
    let file = File::create(folder(place).join("large")).unwrap();
    file.set_len(LARGE_BYTES).unwrap();
    let at = (4 << 30) + 12_345;
    file.write_all_at(b"beyond 32 bits", at).unwrap();
    file.write_all_at(b"the end", LARGE_BYTES - 7).unwrap();
    assert_eq!(place.remote.stat(&path("/large")).await.unwrap().size, Some(LARGE_BYTES));
    assert_eq!(place.remote.list(&RemotePath::root()).await.unwrap()[0].size, Some(LARGE_BYTES));
    let read = async |offset, length| {
        let content = place.remote.read(&path("/large"), ByteRange { offset, length }).await.unwrap();
        content.collect(1000).await.unwrap()
    };
    assert_eq!(read(at - 1, Some(16)).await, "\0beyond 32 bits\0");
    assert_eq!(read(LARGE_BYTES - 7, None).await, "the end");
    assert_eq!(read(LARGE_BYTES - 3, Some(100)).await, "end");
    assert_eq!(read(LARGE_BYTES, None).await, "");
    assert_eq!(place.remote.read(&path("/large"), ByteRange::ALL).await.unwrap().size(), Some(LARGE_BYTES));
}

pub(crate) async fn a_folder_with_as_many_entries_as_may_be_listed_is_listed_whole(place: &Place) {
    let name = |number: usize| format!("entry {number:05}");
    for number in 0..LIST_ENTRIES_MAX {
        match (&place.folder, place.emulator()) {
            (Some(folder), _) => drop(File::create(folder.join(name(number))).unwrap()),
            (None, Some(emulator)) => emulator.put(&format!("/wharf/test 1/{}", name(number)), b"").unwrap(),
            (None, None) => panic!("there is no quick way to make files"),
        }
    }
    let found = names(&place.remote).await;
    assert_eq!(found.len(), LIST_ENTRIES_MAX);
    assert!(found.iter().enumerate().all(|(number, found)| *found == name(number)), "the names differ");
}

pub(crate) async fn a_file_that_is_replaced_while_it_is_read_is_the_old_one_or_an_error(place: &Place) {
    const BYTES: usize = 16 << 20;
    for size in [BYTES, BYTES / 2, 2 * BYTES] {
        put(&place.remote, "/file", vec![b'o'; BYTES]).await.unwrap();
        let mut chunks = place.remote.read(&path("/file"), ByteRange::ALL).await.unwrap().into_stream();
        let mut read = chunks.try_next().await.unwrap().unwrap().to_vec();
        put(&place.remote, "/file", vec![b'n'; size]).await.unwrap();
        let rest: Result<Vec<bytes::Bytes>, Error> = chunks.try_collect().await;
        match rest {
            Ok(rest) => {
                read.extend(rest.concat());
                assert!(read == vec![b'o'; BYTES], "a mix of two files is told to be one");
            }
            Err(error) => assert!(
                matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Conflict),
                "{:?}: {}",
                error.kind(),
                chain(&error)
            ),
        }
        assert!(get(&place.remote, "/file").await == vec![b'n'; size]);
    }
}

/// A folder that nothing can be written to, neither by its owner nor by root, until this is dropped.
struct Forbidden(PathBuf);

impl Forbidden {
    fn new(folder: &Path) -> Self {
        let forbidden = Self(folder.to_owned());
        forbidden.set(true);
        forbidden
    }

    fn set(&self, is_forbidden: bool) {
        if !rustix::process::geteuid().is_root() {
            let mode = Mode::from_raw_mode(if is_forbidden { 0o555 } else { 0o755 });
            return rustix::fs::chmod(&self.0, mode).unwrap();
        }
        // Modes do not hold root back.
        let opened = rustix::fs::open(&self.0, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
        let set = rustix::fs::ioctl_getflags(&opened).and_then(|flags| {
            let flags = if is_forbidden { flags | IFlags::IMMUTABLE } else { flags - IFlags::IMMUTABLE };
            rustix::fs::ioctl_setflags(&opened, flags)
        });
        set.expect("as root this test needs a temporary folder on a file system with immutable folders, such as ext4");
    }
}

impl Drop for Forbidden {
    fn drop(&mut self) {
        self.set(false);
    }
}

pub(crate) async fn what_the_server_may_not_change_is_denied(place: &Place) {
    put(&place.remote, "/kept", "before").await.unwrap();
    let forbidden = Forbidden::new(folder(place));
    fails(put(&place.remote, "/new", "x").await, ErrorKind::Denied, "a new file");
    fails(put(&place.remote, "/kept", "x").await, ErrorKind::Denied, "another file in its place");
    fails(place.remote.make_directory(&path("/folder")).await, ErrorKind::Denied, "a folder");
    fails(place.remote.delete(&path("/kept")).await, ErrorKind::Denied, "a deletion");
    let rename = place.remote.rename(&path("/kept"), &path("/other"), IfExists::Fail).await;
    fails(rename, ErrorKind::Denied, "a rename");
    assert_eq!(get(&place.remote, "/kept").await, "before");
    assert_eq!(names(&place.remote).await, ["kept"]);
    drop(forbidden);
    put(&place.remote, "/new", "x").await.unwrap();
}

/// Does a test again in a process that has a mount table of its own, and is root there; whether this is that process.
fn is_apart(test: &str) -> bool {
    if std::env::var_os(IS_APART).is_some() {
        return true;
    }
    let name_spaces: &[&str] = match rustix::process::geteuid().is_root() {
        true => &["--mount"],
        false => &["--mount", "--user", "--map-root-user"],
    };
    let this = std::env::current_exe().unwrap();
    let mut command = Command::new("unshare");
    command.args(name_spaces).arg(this).args(["--exact", test, "--nocapture"]).env(IS_APART, "yes");
    let ended = command.status().expect("this test needs unshare of util-linux");
    assert!(
        ended.success(),
        "the test failed as told above; if it did not begin: it needs root, or a kernel that lets users make name spaces"
    );
    false
}

/// A mounted disk, until this is dropped.
struct SmallDisk(PathBuf);

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status().unwrap();
        assert!(unmounted.success() || std::thread::panicking(), "{} stays mounted", self.0.display());
    }
}

/// Mounts a small disk at a folder that nobody else has.
fn mount_small_disk(folder: &Path) {
    let size = format!("size={DISK_BYTES},mode=0777");
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder).status().unwrap();
    assert!(mounted.success(), "a small disk cannot be mounted; this test needs root or a name space of its own");
}

/// One test for each remote.
macro_rules! on_full_disks {
    ($($remote:ident)+) => {
        $(
            #[test]
            fn $remote() {
                if !super::is_apart(concat!(module_path!(), "::", stringify!($remote)).split_once("::").unwrap().1) {
                    return;
                }
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
                runtime.block_on(async {
                    let place = super::small::$remote().await;
                    let _unmounted_before_the_folder_is_removed = super::SmallDisk(super::folder(&place).to_owned());
                    super::a_full_disk_is_an_error_and_changes_nothing(&place).await;
                });
            }
        )+
    };
}

mod a_full_disk_is_an_error_and_changes_nothing {
    on_full_disks!(local ftp vsftpd pure_ftpd sftp);
}

/// The remotes, with a small disk of their own.
mod small {
    use super::{Place, folder, mount_small_disk, places};

    pub(super) async fn local() -> Place {
        with_disk(places::local().await)
    }

    pub(super) async fn ftp() -> Place {
        with_disk(places::ftp().await)
    }

    pub(super) async fn vsftpd() -> Place {
        with_disk(places::vsftpd().await)
    }

    pub(super) async fn pure_ftpd() -> Place {
        with_disk(places::pure_ftpd().await)
    }

    /// Its server sees only what was mounted before.
    pub(super) async fn sftp() -> Place {
        places::sftp_prepared(mount_small_disk)
    }

    fn with_disk(place: Place) -> Place {
        mount_small_disk(folder(&place));
        place
    }
}

async fn a_full_disk_is_an_error_and_changes_nothing(place: &Place) {
    put(&place.remote, "/kept", "before").await.unwrap();
    let room = 256 * 1024;
    std::fs::write(folder(place).join("ballast"), vec![1; DISK_BYTES - room]).unwrap();
    for (at, bytes) in [("/new", 2 * room), ("/kept", DISK_BYTES)] {
        let told = fails(put(&place.remote, at, vec![2; bytes]).await, ErrorKind::Unavailable, "a full disk");
        assert!(told.contains(at), "{told}");
        assert_eq!(names(&place.remote).await, ["ballast", "kept"], "{told}");
        assert_eq!(get(&place.remote, "/kept").await, "before");
    }
    std::fs::remove_file(folder(place).join("ballast")).unwrap();
    put(&place.remote, "/kept", vec![2; 2 * room]).await.unwrap();
}
