//! What a local folder promises beyond the contract: nothing leads out of it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use wharf_connectors::{
    ByteRange, Common, Config, Content, Egress, EntryKind, Error, ErrorKind, IfExists, Remote, RemotePath, local,
};

/// A folder with a secret beside it, and a connection to the folder.
struct Jail {
    above: TempDir,
    remote: Remote,
}

impl Jail {
    fn new() -> Self {
        let above = tempfile::tempdir().unwrap();
        fs::create_dir(above.path().join("inside")).unwrap();
        fs::create_dir(above.path().join("outside")).unwrap();
        fs::write(above.path().join("outside/secret"), "secret").unwrap();
        let config = local::Config { folder: above.path().join("inside") };
        let egress = Arc::new(Egress::default());
        let remote = Remote::new("jail", Common::default(), Config::Local(config), &egress).unwrap();
        Self { above, remote }
    }

    fn inside(&self, path: &str) -> std::path::PathBuf {
        self.above.path().join("inside").join(path)
    }

    async fn read(&self, at: &str) -> Result<String, Error> {
        let content = self.remote.read(&path(at), ByteRange::ALL).await?;
        Ok(String::from_utf8(content.collect(1000).await?.to_vec()).unwrap())
    }
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

fn untouched(folder: &Path) -> bool {
    fs::read_to_string(folder.join("outside/secret")).unwrap() == "secret"
        && fs::read_dir(folder.join("outside")).unwrap().count() == 1
}

#[tokio::test]
async fn a_link_that_leads_out_of_the_root_of_a_connection_is_denied() {
    let jail = Jail::new();
    symlink("../outside", jail.inside("link")).unwrap();
    fs::write(jail.inside("file"), "inside").unwrap();
    let config = Config::Local(local::Config { folder: jail.above.path().to_owned() });
    let common = Common { root: path("/inside"), ..Common::default() };
    let remote = Remote::new("rooted", common, config, &Arc::new(Egress::default())).unwrap();
    assert!(remote.read(&path("/file"), ByteRange::ALL).await.is_ok());
    for at in ["/link/secret", "/link"] {
        let error = remote.read(&path(at), ByteRange::ALL).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{at}: {error}");
    }
    assert_eq!(remote.delete(&path("/link/secret")).await.unwrap_err().kind(), ErrorKind::Denied);
    assert!(untouched(jail.above.path()));
}

#[tokio::test]
async fn a_link_that_leads_out_is_denied_whatever_is_done_with_it() {
    let jail = Jail::new();
    symlink("../outside", jail.inside("relative")).unwrap();
    symlink(jail.above.path().join("outside"), jail.inside("absolute")).unwrap();
    symlink("/", jail.inside("all")).unwrap();
    symlink("../outside/secret", jail.inside("file")).unwrap();
    symlink("/proc/self/root", jail.inside("magic")).unwrap();
    for at in ["/relative/secret", "/absolute/secret", "/file", "/all/etc/passwd", "/magic/etc/passwd"] {
        let error = jail.read(at).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{at}: {error}");
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    for folder in ["/relative", "/absolute", "/all", "/magic"] {
        let at = path(folder).join("secret").unwrap();
        let new = path(folder).join("new").unwrap();
        let write = |at: &RemotePath| {
            let (remote, at) = (jail.remote.clone(), at.clone());
            async move { remote.write(&at, Content::from_bytes("x"), IfExists::Replace).await }
        };
        let outcomes = [
            jail.remote.stat(&at).await.map(drop),
            jail.remote.list(&path(folder)).await.map(drop),
            write(&at).await.map(drop),
            write(&new).await.map(drop),
            jail.remote.delete(&at).await,
            jail.remote.make_directory(&new).await,
            jail.remote.rename(&at, &path("/stolen"), IfExists::Fail).await,
        ];
        for (number, outcome) in outcomes.into_iter().enumerate() {
            assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Denied, "{folder}, operation {number}");
        }
    }
    assert!(untouched(jail.above.path()));
}

#[tokio::test]
async fn a_link_within_the_folder_is_followed() {
    let jail = Jail::new();
    fs::create_dir(jail.inside("releases")).unwrap();
    fs::write(jail.inside("releases/7"), "seven").unwrap();
    symlink("releases", jail.inside("current")).unwrap();
    symlink("../releases/7", jail.inside("releases/latest")).unwrap();
    assert_eq!(jail.read("/current/latest").await.unwrap(), "seven");
    assert_eq!(jail.remote.list(&path("/current")).await.unwrap().len(), 2);
    let link = jail.remote.stat(&path("/current")).await.unwrap();
    assert_eq!((link.kind, link.size), (EntryKind::Symlink, None));
}

#[tokio::test]
async fn nothing_is_outside_of_the_whole_machine() {
    let jail = Jail::new();
    let config = Config::Local(local::Config { folder: "/".into() });
    let machine = Remote::new("machine", Common::default(), config, &Arc::new(Egress::default())).unwrap();
    symlink(jail.above.path().join("outside"), jail.inside("absolute")).unwrap();
    let at = path(jail.inside("absolute/secret").to_str().unwrap());
    let content = machine.read(&at, ByteRange::ALL).await.unwrap().collect(1000).await.unwrap();
    assert_eq!(content, "secret");
    machine.write(&at, Content::from_bytes("new"), IfExists::Replace).await.unwrap();
    assert_eq!(fs::read_to_string(jail.above.path().join("outside/secret")).unwrap(), "new");

    // A folder in it that links do not lead out of is one all the same.
    let inside = path(jail.inside("").to_str().unwrap());
    let common = Common { root: inside.clone(), ..Common::default() };
    let config = Config::Local(local::Config { folder: "/".into() });
    let rooted = Remote::new("rooted", common, config, &Arc::new(Egress::default())).unwrap();
    for (remote, at) in [(rooted, path("/absolute/secret")), (machine.within(&[inside]), at)] {
        let error = remote.read(&at, ByteRange::ALL).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    }
}

#[tokio::test]
async fn a_link_is_deleted_and_replaced_itself_never_what_it_leads_to() {
    let jail = Jail::new();
    for name in ["deleted", "replaced", "over"] {
        symlink("../outside/secret", jail.inside(name)).unwrap();
    }
    symlink("../outside", jail.inside("folder")).unwrap();
    jail.remote.delete(&path("/deleted")).await.unwrap();
    jail.remote.delete(&path("/folder")).await.unwrap();
    jail.remote.write(&path("/replaced"), Content::from_bytes("new"), IfExists::Replace).await.unwrap();
    assert_eq!(jail.read("/replaced").await.unwrap(), "new");
    jail.remote.rename(&path("/replaced"), &path("/over"), IfExists::Replace).await.unwrap();
    assert_eq!(jail.read("/over").await.unwrap(), "new");
    assert!(untouched(jail.above.path()));
    assert_eq!(fs::read_dir(jail.inside("")).unwrap().count(), 1);
}

#[tokio::test]
async fn links_in_a_circle_are_denied() {
    let jail = Jail::new();
    symlink("b", jail.inside("a")).unwrap();
    symlink("a", jail.inside("b")).unwrap();
    assert_eq!(jail.read("/a").await.unwrap_err().kind(), ErrorKind::Denied);
}

#[tokio::test]
async fn what_is_no_regular_file_is_not_read_and_not_waited_for() {
    let jail = Jail::new();
    let pipe = std::process::Command::new("mkfifo").arg(jail.inside("pipe")).status().unwrap();
    assert!(pipe.success());
    let _socket = std::os::unix::net::UnixListener::bind(jail.inside("socket")).unwrap();
    for at in ["/pipe", "/socket"] {
        assert_eq!(jail.read(at).await.unwrap_err().kind(), ErrorKind::Conflict, "{at}");
        assert_eq!(jail.remote.stat(&path(at)).await.unwrap().kind, EntryKind::Other);
    }
}

#[tokio::test]
async fn names_that_no_path_could_hold_are_listed_read_and_deleted() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let jail = Jail::new();
    for (name, told) in [(b"line\nbreak".as_slice(), "/line\u{ef0a}break"), (b"back\\slash", "/back\u{ef5c}slash")] {
        fs::write(jail.above.path().join("inside").join(OsStr::from_bytes(name)), "content").unwrap();
        let entries = jail.remote.list(&RemotePath::root()).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), [told]);
        assert_eq!(jail.read(told).await.unwrap(), "content");
        jail.remote.delete(&entries[0].path).await.unwrap();
    }
    fs::write(jail.inside("up\\..\\x"), "").unwrap();
    assert!(jail.remote.list(&RemotePath::root()).await.unwrap().is_empty(), "it may lead up on Windows");
}

#[tokio::test]
async fn a_name_that_is_not_utf8_is_listed_read_renamed_and_deleted() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let jail = Jail::new();
    let inside = jail.above.path().join("inside");
    fs::create_dir(inside.join(OsStr::from_bytes(b"\xe4"))).unwrap();
    fs::write(inside.join(OsStr::from_bytes(b"\xe4/gr\xfc\xdfe")), "hello").unwrap();
    let folder = jail.remote.list(&RemotePath::root()).await.unwrap().remove(0).path;
    let file = jail.remote.list(&folder).await.unwrap().remove(0).path;
    assert_eq!(jail.read(file.as_str()).await.unwrap(), "hello");
    let other = folder.join("\u{efff}").unwrap();
    jail.remote.rename(&file, &other, IfExists::Fail).await.unwrap();
    assert_eq!(fs::read(inside.join(OsStr::from_bytes(b"\xe4/\xff"))).unwrap(), b"hello");
    jail.remote.write(&other, Content::from_bytes("new"), IfExists::Replace).await.unwrap();
    assert_eq!(fs::read_dir(inside.join(OsStr::from_bytes(b"\xe4"))).unwrap().count(), 1);
    jail.remote.delete_tree(&folder).await.unwrap();
    assert_eq!(fs::read_dir(inside).unwrap().count(), 0);
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_no_setting() {
    let config = local::Config { folder: "/does/not/exist".into() };
    let egress = Arc::new(Egress::default());
    let error = Remote::new("x", Common::default(), Config::Local(config), &egress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("/does/not/exist"), "{error}");
}

#[tokio::test]
async fn the_folder_may_be_replaced_while_the_host_runs() {
    let jail = Jail::new();
    jail.remote.ping().await.unwrap();
    fs::remove_dir(jail.inside("")).unwrap();
    assert_eq!(jail.remote.ping().await.unwrap_err().kind(), ErrorKind::NotFound);
    fs::create_dir(jail.inside("")).unwrap();
    jail.remote.ping().await.unwrap();
}

#[tokio::test]
async fn a_file_that_shrinks_while_it_is_read_is_an_error_and_no_early_end() {
    let jail = Jail::new();
    fs::write(jail.inside("file"), vec![7; 3_000_000]).unwrap();
    let content = jail.remote.read(&path("/file"), ByteRange::ALL).await.unwrap();
    fs::File::options().write(true).open(jail.inside("file")).unwrap().set_len(1_000_000).unwrap();
    assert_eq!(content.collect(1 << 30).await.unwrap_err().kind(), ErrorKind::Interrupted);
}

#[tokio::test]
async fn what_the_user_of_the_host_may_not_do_is_denied() {
    if rustix::process::getuid().is_root() {
        // Nothing is denied to root by permissions; an immutable mount such as /proc is.
        let config = local::Config { folder: "/proc".into() };
        let remote = Remote::new("x", Common::default(), Config::Local(config), &Arc::new(Egress::default())).unwrap();
        let made = remote.make_directory(&path("/new")).await.unwrap_err();
        assert!(matches!(made.kind(), ErrorKind::Denied | ErrorKind::NotFound), "{made}");
        return;
    }
    let jail = Jail::new();
    fs::set_permissions(jail.inside(""), fs::Permissions::from_mode(0o500)).unwrap();
    let written = jail.remote.write(&path("/new"), Content::from_bytes("x"), IfExists::Fail).await;
    assert_eq!(written.unwrap_err().kind(), ErrorKind::Denied);
    fs::set_permissions(jail.inside(""), fs::Permissions::from_mode(0o700)).unwrap();
}
