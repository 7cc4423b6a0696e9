//! The other sides of a transfer, each test its own: a real FTP server and an emulated Dropbox account.
//!
//! Knows how they are started and how they are written into a configuration. Knows nothing of services.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use dropbox_emulator::{Emulator, Options, Running};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::host::Builder;

/// A server that a script of `tests/servers` started in a temporary folder. It ends with the thread that started it, so
/// that must be the thread of the test.
struct Started {
    script: Child,
    folder: TempDir,
    /// What the script told, such as `port`.
    told: BTreeMap<String, String>,
}

impl Started {
    fn start(name: &str) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let start = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/servers").join(name).join("start");
        let mut script = Command::new(start)
            .arg(folder.path().join("server"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the script that starts the server is there");
        let output = BufReader::new(script.stdout.take().expect("it is piped"));
        let mut told = BTreeMap::new();
        for line in output.lines().map_while(Result::ok) {
            let Some((key, value)) = line.split_once('=') else { continue };
            told.insert(key.to_owned(), value.to_owned());
            // The last line.
            if key == "pid" {
                break;
            }
        }
        assert!(told.contains_key("pid"), "the server {name} does not start; type make setup");
        // Some serve files as another user, who must get through to them.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self { script, folder, told }
    }

    fn told(&self, key: &str) -> &str {
        self.told.get(key).unwrap_or_else(|| panic!("the script told no {key}"))
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // TERM and not KILL, so that the script ends the server. Both fail when it has ended already.
        let _ = kill_process(Pid::from_child(&self.script), Signal::TERM);
        let _ = self.script.wait();
    }
}

/// A running OpenSSH server with the user `alice`, whose password is `secret`.
pub(crate) struct SftpServer {
    server: Started,
}

impl SftpServer {
    pub(crate) fn start() -> Self {
        Self { server: Started::start("openssh") }
    }

    /// The folder that a connection by [`SftpServer::connection`] is confined to.
    pub(crate) fn home(&self) -> PathBuf {
        PathBuf::from(self.server.told("home"))
    }

    /// The table of a connection confined to its home; its password is in the file `sftp-password`.
    pub(crate) fn connection(&self, name: &str) -> String {
        format!(
            "[connections.{name}]\ntype = 'sftp'\nhost = '127.0.0.1'\nport = {}\nuser = 'alice'\n\
             password = {{ file = 'sftp-password' }}\nhost-keys = ['{}']\nroot = '{}'\n",
            self.server.told("port"),
            self.server.told("fingerprint"),
            self.server.told("home"),
        )
    }
}

/// A running ProFTPD with the user `alice`, whose password is `secret`.
pub(crate) struct FtpServer {
    server: Started,
    port: u16,
}

impl FtpServer {
    pub(crate) fn start() -> Self {
        let server = Started::start("proftpd");
        let port = server.told("port").parse().expect("a port");
        Self { server, port }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What the user sees as `/`.
    pub(crate) fn home(&self) -> PathBuf {
        self.server.folder.path().join("server/home")
    }

    /// Puts a file there in one step.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let temporary = self.server.folder.path().join("incoming");
        std::fs::write(&temporary, content).expect("the folder can be written");
        std::fs::rename(&temporary, self.home().join(name)).expect("a file can be renamed");
    }

    /// The names of what is there.
    pub(crate) fn names(&self) -> BTreeSet<String> {
        names_in(&self.home())
    }
}

/// The names of what is in a folder.
pub(crate) fn names_in(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name in UTF-8")).collect()
}

/// An FTP server, configured as the connection `partner`, and a Dropbox account, configured as `team`.
pub(crate) struct Partners {
    pub(crate) ftp: FtpServer,
    pub(crate) dropbox: Running,
}

impl Partners {
    pub(crate) async fn start() -> Self {
        let ftp = FtpServer::start();
        let dropbox = Emulator::start(Options::default()).await.expect("the emulator starts");
        Self { ftp, dropbox }
    }

    /// The tables of both connections, for the configuration of a host equipped by [`Partners::equip`].
    pub(crate) fn connections(&self) -> String {
        self.connections_by(&self.dropbox.url())
    }

    /// As [`Partners::connections`], with another way to the Dropbox account.
    pub(crate) fn connections_by(&self, dropbox_url: &str) -> String {
        format!(
            r#"
            [connections.partner]
            type = "ftp"
            host = "127.0.0.1"
            port = {}
            user = "alice"
            password = {{ file = "ftp-password" }}

            [connections.team]
            type = "dropbox"
            access-token = {{ file = "dropbox-token" }}
            api-url = "{dropbox_url}"
            certificate-authority = "dropbox-ca.pem"
            "#,
            self.ftp.port
        )
    }

    /// A host with the files that the connections refer to.
    pub(crate) fn equip(&self, host: Builder) -> Builder {
        host.file("ftp-password", "secret")
            .file("dropbox-token", Options::default().access_token)
            .file("dropbox-ca.pem", self.dropbox.ca_pem())
    }

    /// The names of the files in the root of the Dropbox account.
    pub(crate) fn stored(&self) -> BTreeSet<String> {
        self.dropbox.files().into_iter().map(|file| file.path.trim_start_matches('/').to_owned()).collect()
    }
}
