//! A ProFTPD of one's own: a free port, an empty home, gone when dropped.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The password `secret`, as `crypt` stores it.
const PASSWORD_HASH: &str = "$1$wharf$08gOTT7scVNKIWLzWvDoX0";

/// Started by root, the server serves files as this user, for it refuses to serve them as root.
const NOBODY: u32 = 65534;

/// How long a start may take on a machine that is busy with other tests.
const START_MAX: Duration = Duration::from_secs(20);

/// A running server with the user `alice`, whose password is `secret`.
pub(crate) struct Proftpd {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Proftpd {
    /// Starts a server with these directives besides the usual ones.
    pub(crate) async fn start(directives: &str) -> Self {
        let directives = directives.to_owned();
        tokio::task::spawn_blocking(move || Self::start_blocking(&directives)).await.unwrap()
    }

    fn start_blocking(directives: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid();
        let (uid, gid, user, group) = if uid.is_root() {
            (NOBODY, NOBODY, "nobody".to_owned(), "nogroup".to_owned())
        } else {
            (uid.as_raw(), rustix::process::getgid().as_raw(), own_name("-un"), own_name("-gn"))
        };
        let home = folder.path().join("home");
        fs::create_dir(&home).unwrap();
        for path in [folder.path(), &home] {
            chown(path, Some(uid), Some(gid)).unwrap();
        }
        let passwords = folder.path().join("passwd");
        fs::write(&passwords, format!("alice:{PASSWORD_HASH}:{uid}:{gid}::{}:/bin/sh\n", home.display())).unwrap();
        fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let configuration = folder.path().join("proftpd.conf");
        fs::write(&configuration, directives_for(folder.path(), port, &user, &group) + directives + "\n").unwrap();
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let process = program().arg("-n").arg("-q").arg("-c").arg(&configuration).stderr(log).spawn();
        let mut server = Self { process: process.unwrap(), folder, port };
        server.await_start();
        server
    }

    fn await_start(&mut self) {
        let deadline = Instant::now() + START_MAX;
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "ProFTPD did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What `alice` sees as `/`.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Proftpd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            print!("{}", self.log());
        }
        // TERM and not KILL, so that the server ends its sessions too.
        let Some(process) = rustix::process::Pid::from_raw(self.process.id().cast_signed()) else { return };
        if rustix::process::kill_process(process, rustix::process::Signal::TERM).is_ok() {
            let _ended = self.process.wait();
        }
    }
}

/// ProFTPD as `make setup` brings it: unpacked, not installed.
fn program() -> Command {
    let cache = std::env::var_os("WHARF_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let caches = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        caches.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap()).join(".cache")).join("wharf")
    });
    let debian = cache.join("debian");
    let program = debian.join("usr/sbin/proftpd");
    assert!(program.exists(), "{} is missing; type: make setup", program.display());
    let mut command = Command::new(program);
    let libraries = [debian.join("usr/lib/x86_64-linux-gnu"), debian.join("usr/lib")];
    command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries).unwrap());
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// The name of the user or group that runs the tests; ProFTPD takes no numbers.
fn own_name(which: &str) -> String {
    let output = Command::new("id").arg(which).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn directives_for(folder: &Path, port: u16, user: &str, group: &str) -> String {
    let folder = folder.display();
    format!(
        "ServerType standalone
ServerName test
DefaultAddress 127.0.0.1
Port {port}
SocketBindTight on
UseReverseDNS off
User {user}
Group {group}
PidFile {folder}/pid
ScoreboardFile {folder}/scoreboard
SystemLog {folder}/log
TransferLog none
WtmpLog off
DelayEngine off
AuthUserFile {folder}/passwd
AuthOrder mod_auth_file.c
RequireValidShell off
DefaultRoot ~
AllowOverwrite on
AllowStoreRestart on
AllowRetrieveRestart on
MaxInstances 50
"
    )
}
