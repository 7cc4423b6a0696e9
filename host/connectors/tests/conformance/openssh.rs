//! An OpenSSH server of one's own: a free port, an empty home, gone when dropped.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use tempfile::TempDir;
use wharf_connectors::sftp;

/// Its usage is told in the script.
const START: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/servers/openssh/start");

/// A running server with the user `alice`, whose password is `secret`.
pub(crate) struct Openssh {
    script: Child,
    folder: TempDir,
    told: Vec<String>,
}

impl Openssh {
    /// Starts a server with these directives besides the usual ones. To be called on the thread of the test, for the
    /// server ends with the thread that started it.
    pub(crate) fn start(directives: &[&str]) -> Self {
        Self::start_with(directives, &[])
    }

    /// The same with variables of the script.
    pub(crate) fn start_with(directives: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), directives, variables)
    }

    /// The same in a folder in which there may be a home with files.
    pub(crate) fn start_in(folder: TempDir, directives: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(START);
        command.arg(folder.path()).args(directives).stdin(Stdio::null()).stdout(Stdio::piped());
        command.envs(variables.iter().copied());
        let mut script = command.spawn().unwrap();
        let mut told = Vec::new();
        // To the last line: the script would not survive to write to nobody.
        for line in BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok) {
            told.push(line);
            if told.last().is_some_and(|line| line.starts_with("pid=")) {
                break;
            }
        }
        assert!(told.len() > 1, "the OpenSSH server did not start; if it is missing, type: scripts/setup servers");
        Self { script, folder, told }
    }

    fn told(&self, name: &str) -> &str {
        self.told.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).unwrap()
    }

    pub(crate) fn port(&self) -> u16 {
        self.told("port").parse().unwrap()
    }

    /// The folder that `alice` is in after her login. It is the name of a path on the server, too.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The file that knows this server; what else the server has lies beside it.
    pub(crate) fn known_hosts(&self) -> PathBuf {
        self.told("known_hosts").into()
    }

    pub(crate) fn fingerprint(&self) -> sftp::Fingerprint {
        sftp::Fingerprint::parse(self.told("fingerprint")).unwrap()
    }

    /// Settings that log in with the password and know the server by its fingerprint.
    pub(crate) fn config(&self) -> sftp::Config {
        sftp::Config {
            port: self.port(),
            login: vec![sftp::Login::Password(SecretString::from("secret"))],
            host_keys: sftp::HostKeys { pinned: vec![self.fingerprint()], ..sftp::HostKeys::default() },
            ..sftp::Config::new("127.0.0.1", "alice")
        }
    }

    /// What the server has logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Openssh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.log());
        }
        // TERM and not KILL, so that the script ends the server.
        let Some(script) = rustix::process::Pid::from_raw(self.script.id().cast_signed()) else { return };
        if rustix::process::kill_process(script, rustix::process::Signal::TERM).is_ok() {
            let _ended = self.script.wait();
        }
    }
}
