//! What only FTP has: raw commands, and what the server says it can do.
//!
//! They take their place among the connection's operations like those of [`Remote`]. A raw command knows no root and no
//! grant: paths in it are the server's.

use std::sync::Arc;

use super::Ftp;
use crate::Remote;
use crate::error::{Error, ErrorKind};
use crate::operation::Effect;
use crate::path::{PATH_BYTES_MAX, RemotePath};

/// Longest raw command: two paths as long as can be, and a verb.
const COMMAND_BYTES_MAX: usize = 2 * PATH_BYTES_MAX + 100;

/// Commands that need a data connection, or that take the session from the connection: they log in anew, end it,
/// change what it is encrypted by or how data is sent.
const REFUSED: [&str; 32] = [
    "ABOR", "ACCT", "ADAT", "APPE", "AUTH", "CCC", "CONF", "ENC", "EPRT", "EPSV", "HOST", "LIST", "LPRT", "LPSV",
    "MIC", "MLSD", "MODE", "NLST", "PASS", "PASV", "PBSZ", "PORT", "PROT", "QUIT", "REIN", "REST", "RETR", "STOR",
    "STOU", "STRU", "TYPE", "USER",
];

/// Commands after which a session is as it was before.
const HARMLESS: [&str; 17] = [
    "DELE", "FEAT", "HELP", "MDTM", "MFMT", "MFF", "MKD", "MLST", "NOOP", "PWD", "RMD", "SITE", "SIZE", "STAT", "SYST",
    "XCRC", "XMD5",
];

/// The answer of a server to a raw command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawReply {
    /// Its code (RFC 959, section 4.2): 2 at the beginning is a success, 3 wants more, 4 and 5 are refusals.
    pub code: u32,
    /// Its lines as they came, the code among them, without their ends. A server sends 256 KiB at most.
    pub lines: Vec<String>,
}

/// The server behind a connection of type `ftp`; cheap to clone.
#[derive(Clone)]
pub struct Server {
    remote: Remote,
    ftp: Arc<Ftp>,
}

impl Server {
    pub(crate) fn new(remote: Remote, ftp: Arc<Ftp>) -> Self {
        Self { remote, ftp }
    }

    /// Sends one command as it is, and tells the reply, whatever its code. It is sent once: what became of it when the
    /// connection broke is not known.
    ///
    /// # Errors
    /// `Denied` when the connection has another root than `/`, which a raw command would not know. `Invalid` for a
    /// command that is empty, too long, has a control character, needs a data connection (`RETR`, `LIST`), or takes
    /// the session from the connection (`USER`, `QUIT`, `TYPE`).
    pub async fn command(&self, text: &str) -> Result<RawReply, Error> {
        if !self.remote.outside(&RemotePath::root()).is_root() {
            let name = self.remote.name();
            let message = format!("connection {name} has a root, and a raw command does not keep to it");
            return Err(Error::new(ErrorKind::Denied, message));
        }
        let verb = text.split(' ').next().unwrap_or_default().to_ascii_uppercase();
        let refused = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        if verb.is_empty() || text.len() > COMMAND_BYTES_MAX || text.contains(char::is_control) {
            return refused(format!(
                "a raw command is one line of at most {COMMAND_BYTES_MAX} bytes that begins with its verb"
            ));
        }
        // The X of the time before RFC 959 changes nothing about what a command does.
        if REFUSED.contains(&verb.as_str()) {
            return refused(format!(
                "{verb} cannot be sent as a raw command: it is part of what the connection does itself"
            ));
        }
        let is_harmless = HARMLESS.contains(&verb.as_str());
        let work = self.ftp.raw(text, is_harmless);
        self.remote.once("ftp-command", &RemotePath::root(), Effect::Unknown, work).await
    }

    /// Sends a command of the server's own (`SITE`), such as `CHMOD 640 /a`.
    ///
    /// # Errors
    /// As [`Server::command`].
    pub async fn site(&self, text: &str) -> Result<RawReply, Error> {
        self.command(&format!("SITE {text}")).await
    }

    /// What the server lists in reply to `FEAT` (RFC 2389), a line each: `MLST type*;size*;modify*;`, `UTF8`. Empty when
    /// it does not know that command.
    ///
    /// # Errors
    /// What the remote reports.
    pub async fn features(&self) -> Result<Vec<String>, Error> {
        let work = || self.ftp.features();
        self.remote.repeatably("ftp-features", &RemotePath::root(), Effect::None, work).await
    }
}
