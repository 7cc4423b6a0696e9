//! What the program does with connections from the command line, beside running the host: `wharf ping`, `ls`, `cp`,
//! `sftp`, `dropbox login`.
//!
//! This file knows how a place is named, how a connection is opened, and what the outcome of a command is. Each command
//! is in a file of its own. Knows no service and no listener.

mod copy;
mod list;
mod login;
mod ping;
mod sftp;

use std::fmt;
use std::io::{IsTerminal, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use wharf_connectors::{Common, Config, Egress, Error, ErrorKind, Remote, RemotePath, chain, local, name_of};

use crate::config::{Configuration, ConfigurationError};

pub(crate) use copy::Copy;
pub(crate) use list::List;
pub(crate) use login::Dropbox;
pub(crate) use ping::Ping;
pub(crate) use sftp::Sftp;

/// How a command ended; the numbers are documented and stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All of it was done.
    Done,
    /// It failed.
    Failed,
    /// The configuration is wrong, or has no such connection.
    Misconfigured,
    /// A part of it was done: some files failed.
    Partial,
    /// It was interrupted (SIGINT or SIGTERM).
    Interrupted,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(match outcome {
            Outcome::Done => 0,
            Outcome::Failed => 1,
            // 2 is what a wrong command line ends with.
            Outcome::Misconfigured => 3,
            Outcome::Partial => 4,
            Outcome::Interrupted => 130,
        })
    }
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Configuration(#[from] ConfigurationError),
    /// No connection has this name.
    #[error("no connection is named {name:?}{}", listed(.known))]
    UnknownConnection { name: String, known: Vec<String> },
    /// An operation failed.
    #[error("{}", chain(.0))]
    Operation(#[from] Error),
    /// Nobody reads the result any more, as with `| head -1`: nothing that a person must be told.
    #[error("standard output is closed")]
    OutputClosed,
    /// SIGINT or SIGTERM came before the end.
    #[error("interrupted")]
    Interrupted,
    /// The result could not be printed, or a local path not be used.
    #[error("{what}: {source}")]
    Machine { what: String, source: std::io::Error },
}

fn listed(names: &[String]) -> String {
    match names {
        [] => "; connections are configured under [connections.NAME]".to_owned(),
        names => format!("; there are {}", names.join(", ")),
    }
}

impl CommandError {
    pub(crate) fn outcome(&self) -> Outcome {
        match self {
            Self::Configuration(_) | Self::UnknownConnection { .. } => Outcome::Misconfigured,
            Self::Operation(_) | Self::OutputClosed | Self::Machine { .. } => Outcome::Failed,
            Self::Interrupted => Outcome::Interrupted,
        }
    }

    /// For `--json`.
    fn json(&self) -> Value {
        let kind = match self {
            Self::Operation(error) => return operation_json(error),
            Self::Configuration(error) => {
                let mut document = error_json(ErrorKind::Invalid, &self.to_string());
                document["problems"] = json!(error.problems());
                return document;
            }
            Self::UnknownConnection { .. } => ErrorKind::NotFound,
            Self::Interrupted => ErrorKind::Interrupted,
            Self::OutputClosed | Self::Machine { .. } => ErrorKind::Internal,
        };
        error_json(kind, &self.to_string())
    }
}

/// An error of a connector for programs: the words are those of the contract with guests.
fn operation_json(error: &Error) -> Value {
    let mut document = error_json(error.kind(), &chain(error));
    document["step"] = json!(error.step().map(|step| step.to_string()));
    document["retry_after_seconds"] = json!(error.retry_after_seconds());
    document
}

/// An error that has neither a step nor a time to wait.
fn error_json(kind: ErrorKind, message: &str) -> Value {
    json!({ "kind": kind.word(), "step": null, "retry_after_seconds": null, "message": message })
}

/// Tells what is wrong with the command line, or the help that it asks for.
pub(crate) fn misused(error: &clap::Error) -> ExitCode {
    let mut arguments = std::env::args_os().skip(1).take_while(|argument| argument != "--");
    if error.use_stderr() && arguments.any(|argument| argument == "--json") {
        // What follows the first paragraph is for people.
        let text = error.to_string();
        let first = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        let message = first.split_whitespace().collect::<Vec<_>>().join(" ");
        // Nobody is left to be told when standard output is closed.
        let _ = print(&json!({ "error": error_json(ErrorKind::Invalid, &message) }));
    } else {
        let _ = error.print();
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// What every command on connections takes.
#[derive(Args)]
pub(crate) struct Setting {
    /// The configuration file [default: wharf.toml, where there is one].
    #[arg(long, value_name = "FILE", env = "WHARF_CONFIG", global = true)]
    config: Option<PathBuf>,
    /// Print JSON, one object per line, errors included.
    #[arg(long, global = true)]
    json: bool,
}

impl Setting {
    fn open(&self, name: &str) -> Result<Remote, CommandError> {
        let configuration = Configuration::find_for(name, self.config.as_deref())?;
        configuration.live.connections.get(name).cloned().ok_or_else(|| CommandError::UnknownConnection {
            name: name.to_owned(),
            known: configuration.connection_names().to_vec(),
        })
    }

    /// An error about a place, with what was probably meant where a connection has the name of what is missing.
    fn hinted(&self, place: &Place, error: CommandError) -> CommandError {
        let (Place::Machine { path, .. }, CommandError::Operation(missing)) = (place, &error) else { return error };
        let name = path.to_string_lossy();
        let name = name.trim_end_matches('/');
        let is_connection = || {
            let configuration = Configuration::find_for(name, self.config.as_deref());
            configuration.is_ok_and(|configuration| configuration.connection_names().iter().any(|known| known == name))
        };
        if missing.kind() != ErrorKind::NotFound || !is_connection() {
            return error;
        }
        let message = format!("{error}; for the connection {name}, write {name}:");
        Error::new(ErrorKind::NotFound, message).into()
    }

    /// Tells how a command ended.
    pub(crate) fn tell(&self, done: Result<Outcome, CommandError>) -> Outcome {
        told(self.json, done)
    }
}

/// Tells how a command ended, to people on standard error, to programs on standard output.
pub(crate) fn told(json: bool, done: Result<Outcome, CommandError>) -> Outcome {
    done.unwrap_or_else(|error| {
        // Nobody is left to be told when standard output or standard error is closed.
        match &error {
            CommandError::OutputClosed => {}
            error if json => drop(print(&json!({ "error": error.json() }))),
            error => drop(writeln!(std::io::stderr(), "wharf: {error}")),
        }
        error.outcome()
    })
}

/// A path on a connection, or on this machine: `NAME:/path`, or what begins with `/` or `.` or has no `:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Connection { name: String, path: RemotePath, ends_with_slash: bool },
    Machine { path: PathBuf, ends_with_slash: bool },
}

impl std::str::FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("write NAME:/path for a connection, or a path of this machine".to_owned());
        }
        let ends_with_slash = text.ends_with('/');
        match text.split_once(':') {
            Some((name, path)) if !name.contains('/') && !name.starts_with('.') => {
                let path = RemotePath::parse(path).map_err(|error| error.to_string())?;
                Ok(Self::Connection { name: name.to_owned(), path, ends_with_slash })
            }
            _ => Ok(Self::Machine { path: PathBuf::from(text), ends_with_slash }),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connection { name, path, .. } => write!(formatter, "{name}:{path}"),
            Self::Machine { path, .. } => write!(formatter, "{}", path.display()),
        }
    }
}

/// A place, opened.
struct Opened {
    remote: Remote,
    path: RemotePath,
    ends_with_slash: bool,
}

impl Setting {
    fn open_place(&self, place: &Place) -> Result<Opened, CommandError> {
        match place {
            Place::Connection { name, path, ends_with_slash } => {
                Ok(Opened { remote: self.open(name)?, path: path.clone(), ends_with_slash: *ends_with_slash })
            }
            Place::Machine { path, ends_with_slash } => {
                let (remote, path) = (machine()?, machine_path(path)?);
                Ok(Opened { remote, path, ends_with_slash: *ends_with_slash })
            }
        }
    }
}

/// A path of this machine as one below `/`. A symbolic link that is named is followed, as everywhere on a command line.
fn machine_path(path: &Path) -> Result<RemotePath, CommandError> {
    let failed = |source| CommandError::Machine { what: format!("cannot use {}", path.display()), source };
    let mut absolute = std::path::absolute(path).map_err(failed)?;
    if absolute.is_symlink() || absolute.file_name().is_none() {
        absolute = absolute.canonicalize().map_err(failed)?;
    }
    let there = absolute.ancestors().skip(1).find(|folder| folder.is_dir()).unwrap_or(Path::new("/"));
    let rest = absolute.strip_prefix(there).unwrap_or(Path::new(""));
    let real = there.canonicalize().map_err(failed)?.join(rest);
    Ok(RemotePath::parse(&name_of(real.as_os_str().as_bytes()))?)
}

/// A folder of this machine as a path below `/`.
fn folder_path(folder: &Path) -> Result<RemotePath, CommandError> {
    let failed = |source| CommandError::Machine { what: format!("cannot begin in {}", folder.display()), source };
    let real = folder.canonicalize().map_err(failed)?;
    if !real.is_dir() {
        return Err(failed(std::io::ErrorKind::NotADirectory.into()));
    }
    Ok(RemotePath::parse(&name_of(real.as_os_str().as_bytes()))?)
}

/// All of this machine as a connection: whoever types a command is trusted with it.
fn machine() -> Result<Remote, CommandError> {
    let config = Config::Local(local::Config { folder: PathBuf::from("/") });
    Ok(Remote::new("this machine", Common::default(), config, &Arc::new(Egress::default()))?)
}

/// Prints one JSON document on a line.
pub(crate) fn print(document: &impl Serialize) -> Result<(), CommandError> {
    let line = serde_json::to_string(document).map_err(std::io::Error::other);
    line.and_then(|line| writeln!(std::io::stdout(), "{line}")).map_err(unprinted)
}

/// Prints a line for people.
pub(crate) fn say(line: impl fmt::Display) -> Result<(), CommandError> {
    writeln!(std::io::stdout(), "{line}").map_err(unprinted)
}

/// How long an interrupted command waits for its temporary files to be removed.
const CLEAN_UP: Duration = Duration::from_secs(2);

/// How something ended.
enum Ended<T> {
    Done(T),
    /// SIGINT or SIGTERM came first: it was dropped, and what it leaves is being removed.
    Signalled(SignalKind),
}

/// Does something unless a signal says that it is no longer wanted.
async fn until_signal<T>(work: impl Future<Output = T>) -> Result<Ended<T>, CommandError> {
    let listen = |kind| {
        signal(kind).map_err(|source| CommandError::Machine { what: "cannot listen for signals".to_owned(), source })
    };
    let (interrupt, terminate) = (SignalKind::interrupt(), SignalKind::terminate());
    let (mut interrupted, mut terminated) = (listen(interrupt)?, listen(terminate)?);
    Ok(tokio::select! {
        done = work => Ended::Done(done),
        _ = interrupted.recv() => Ended::Signalled(interrupt),
        _ = terminated.recv() => Ended::Signalled(terminate),
    })
}

/// Runs a command that a signal ends, and then waits for it to be cleaned up.
async fn interruptible(work: impl Future<Output = Result<Outcome, CommandError>>) -> Result<Outcome, CommandError> {
    match until_signal(work).await? {
        Ended::Done(done) => done,
        Ended::Signalled(_) => {
            tokio::time::sleep(CLEAN_UP).await;
            Err(CommandError::Interrupted)
        }
    }
}

fn unprinted(source: std::io::Error) -> CommandError {
    match source.kind() {
        std::io::ErrorKind::BrokenPipe => CommandError::OutputClosed,
        _ => CommandError::Machine { what: "cannot print".to_owned(), source },
    }
}

fn is_terminal() -> bool {
    std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_on_a_connection_or_on_this_machine() {
        let connection = |path: &str, ends_with_slash| Place::Connection {
            name: "partner".to_owned(),
            path: RemotePath::parse(path).unwrap(),
            ends_with_slash,
        };
        assert_eq!(place("partner:/a/b"), connection("/a/b", false));
        assert_eq!(place("partner:a/b/"), connection("/a/b", true));
        assert_eq!(place("partner:"), connection("/", false));
        for text in ["/a/b:c", "./a:b", "../a:b", "report.csv", "a/b:c"] {
            assert!(matches!(place(text), Place::Machine { .. }), "{text}");
        }
        assert!("partner:/a/../b".parse::<Place>().is_err());
        assert!("".parse::<Place>().is_err());
    }
}
