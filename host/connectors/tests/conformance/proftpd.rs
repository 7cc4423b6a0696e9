//! A ProFTPD of one's own: a free port, an empty home, gone when dropped.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

/// Its usage is told in the script.
const START: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/servers/proftpd/start");

/// A running server with the user `alice`, whose password is `secret`.
pub(crate) struct Proftpd {
    script: Child,
    folder: TempDir,
    port: u16,
}

impl Proftpd {
    /// Starts a server with these directives besides the usual ones. To be called on the thread of the test, for the
    /// server ends with the thread that started it.
    pub(crate) fn start(directives: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(START);
        command.arg(folder.path()).args(directives).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut script = command.spawn().unwrap();
        let lines = BufReader::new(script.stdout.take().unwrap()).lines().map_while(Result::ok);
        // To the last line: the script would not survive to write to nobody.
        let told: Vec<String> = lines.take_while(|line| !line.starts_with("pid=")).collect();
        let port = told.iter().find_map(|line| line.strip_prefix("port=")?.parse().ok());
        let port = port.unwrap_or_else(|| panic!("ProFTPD did not start; if it is missing, type: make setup"));
        Self { script, folder, port }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// What `alice` sees as `/`.
    pub(crate) fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }
}

impl Drop for Proftpd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", read(&self.folder.path().join("log")));
        }
        // TERM and not KILL, so that the script ends the server.
        let Some(script) = rustix::process::Pid::from_raw(self.script.id().cast_signed()) else { return };
        if rustix::process::kill_process(script, rustix::process::Signal::TERM).is_ok() {
            let _ended = self.script.wait();
        }
    }
}

fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}
