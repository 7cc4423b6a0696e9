//! A real FTP server of one's own: a free port, an empty home, gone when dropped.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use secrecy::SecretString;
use tempfile::TempDir;
use wharf_connectors::{ftp, tls};

/// The start scripts, which tell their usage.
const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/servers");

/// A running server.
pub(crate) struct FtpServer {
    script: Child,
    folder: TempDir,
    told: HashMap<String, String>,
}

impl FtpServer {
    /// Starts `proftpd`, `vsftpd` or `pure-ftpd` with the arguments of its script. To be called on the thread of the
    /// test, for the server ends with the thread that started it.
    pub(crate) fn start(software: &str, arguments: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), software, arguments)
    }

    /// Starts a server in a folder in which there may be certificates.
    pub(crate) fn start_in(folder: TempDir, software: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new(format!("{SERVERS}/{software}/start"));
        command.arg(folder.path()).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut script = command.spawn().unwrap();
        let mut told = HashMap::new();
        for line in BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok) {
            let (key, value) = line.split_once('=').unwrap_or((&line, ""));
            told.insert(key.to_owned(), value.to_owned());
            // The last line: the script would not survive to write to nobody.
            if key == "pid" {
                break;
            }
        }
        assert!(told.contains_key("pid"), "{software} did not start; if it is missing, type: scripts/setup servers");
        Self { script, folder, told }
    }

    pub(crate) fn port(&self) -> u16 {
        self.told["port"].parse().unwrap()
    }

    /// What the user sees as `/`.
    pub(crate) fn home(&self) -> PathBuf {
        self.told["home"].as_str().into()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.told["log"]).unwrap_or_default()
    }

    /// A connection in the clear.
    pub(crate) fn config(&self) -> ftp::Config {
        let password = SecretString::from(self.told["password"].clone());
        ftp::Config { port: self.port(), ..ftp::Config::new("127.0.0.1", &self.told["user"], password) }
    }

    /// TLS that trusts the authority of this server.
    pub(crate) fn tls(&self) -> tls::Config {
        let authority = std::fs::read(self.folder.path().join("tls/ca.pem")).unwrap();
        tls::Config { authority: Some(authority), ..tls::Config::default() }
    }
}

impl Drop for FtpServer {
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
