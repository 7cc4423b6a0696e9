//! One logged-in control connection, kept in step with its server, and the data connections that it opens.
//!
//! Every wait has an end: after a timeout, a broken connection or an answer that fits no question the session is out
//! of step and is not used again. A reply that refuses is not an error here but a value, because what it means depends
//! on the operation. Knows no pool and no contract.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use secrecy::ExposeSecret;
use suppaftp::tokio::{AsyncRustlsFtpStream, AsyncRustlsStream, TransferStream};
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, Mode, Status};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::Passive;
use super::dialer::{DataPort, Dialer, Stage};
use super::listing::{self, Line, Listed};
use super::reply::Reply;
use super::secure::Handshakes;
use crate::backend::{Entry, EntryKind};
use crate::content::CHUNK_BYTES;
use crate::error::{Error, ErrorKind};
use crate::path::{PATH_BYTES_MAX, RemotePath};

/// An open data connection.
pub(super) type Transfer = TransferStream<AsyncRustlsStream>;

/// Longest line of a listing: a path as long as can be and as much again for what is told of it.
const LINE_BYTES_MAX: usize = 2 * PATH_BYTES_MAX;

/// A connection that was idle for so long is asked whether it is still there before it is used: when a firewall has
/// forgotten it, the first command would wait for its timeout.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// How long that question may take; then a new connection is quicker.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server may take to say why it ended the handshake of a data connection.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a farewell may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the server told in reply to `FEAT` (RFC 2389) and `SYST`.
#[derive(Default)]
struct Abilities {
    /// `MLST` and `MLSD` (RFC 3659, section 7).
    machine_listings: bool,
    /// `LIST` takes the options of `ls`.
    unix_options: bool,
}

/// A control connection that is logged in.
pub(super) struct Session {
    dialer: Arc<Dialer>,
    stream: AsyncRustlsFtpStream,
    data_port: Arc<DataPort>,
    /// Of the connection and its data connections, when they are encrypted.
    handshakes: Option<Arc<Handshakes>>,
    can: Abilities,
    may_fall_back: bool,
    /// The reply to everything that was sent has been read.
    in_step: bool,
    is_suspect: bool,
    /// Since the session was taken.
    replies: u64,
    /// The connection was found closed.
    is_closed: bool,
}

/// What to open a data connection for.
#[derive(Clone, Copy)]
pub(super) enum Open<'a> {
    Retrieve { path: &'a RemotePath, offset: u64 },
    Store { path: &'a RemotePath },
    Lines { command: &'a str },
}

/// What became of a request that the server may refuse.
pub(super) type Answer<T> = Result<Result<T, Reply>, Error>;

impl Session {
    /// A session on a connection that was greeted; to be prepared before anything else.
    pub(super) fn new(
        dialer: Arc<Dialer>,
        stream: AsyncRustlsFtpStream,
        data_port: Arc<DataPort>,
        handshakes: Option<Arc<Handshakes>>,
    ) -> Self {
        let may_fall_back = dialer.config.passive == Passive::Auto;
        Self {
            dialer,
            stream,
            data_port,
            handshakes,
            can: Abilities::default(),
            may_fall_back,
            in_step: true,
            is_suspect: false,
            replies: 0,
            is_closed: false,
        }
    }

    /// Logs in and learns what the server can do.
    pub(super) async fn prepare(&mut self, deadline: Instant) -> Result<(), Error> {
        let dialer = Arc::clone(&self.dialer);
        let login = self.stream.login(dialer.config.user.as_str(), dialer.config.password.expose_secret());
        login.await.map_err(|error| dialer.not_logged_in(error))?;
        // Text is the default of the protocol and would change line ends.
        let binary = self.stream.transfer_type(FileType::Binary);
        binary.await.map_err(|error| match error {
            FtpError::UnexpectedResponse(response) => {
                dialer.refused("switch to binary transfers", &Reply::new(response))
            }
            error => dialer.broken("switching to binary transfers", error),
        })?;
        let limit = deadline.saturating_duration_since(Instant::now());
        let features = self.command_within(limit, "FEAT").await?;
        let has = |name: &str| features.is_positive() && features.lists(name);
        let (has_utf8, has_listings) = (has("UTF8"), has("MLST") || has("MLSD"));
        self.can.machine_listings = has_listings;
        if has_utf8 {
            // Many servers speak UTF-8 in any case and refuse the option (RFC 2640 has none); either is fine.
            self.command_within(limit, "OPTS UTF8 ON").await?;
        }
        if !has_listings {
            let system = self.command_within(limit, "SYST").await?;
            self.can.unix_options = system.text().to_ascii_uppercase().contains("UNIX");
        }
        self.stream.set_mode(match dialer.config.passive {
            Passive::Auto | Passive::Epsv => Mode::ExtendedPassive,
            Passive::Pasv | Passive::PasvSameHost => Mode::Passive,
        });
        self.stream.set_passive_nat_workaround(dialer.config.passive == Passive::PasvSameHost);
        Ok(())
    }

    /// Sends a command that needs no data connection. Every final reply is a value, whatever its class.
    pub(super) async fn command(&mut self, command: &str) -> Result<Reply, Error> {
        self.command_within(self.dialer.read_timeout, command).await
    }

    async fn command_within(&mut self, limit: Duration, command: &str) -> Result<Reply, Error> {
        self.in_step = false;
        // No reply is expected, so that each comes back as it is.
        match timeout(limit, self.stream.custom_command(command, &[])).await {
            Ok(Ok(response) | Err(FtpError::UnexpectedResponse(response))) => {
                self.replied(Reply::new(response), &format!("sending {command}"))
            }
            Ok(Err(error)) => Err(self.lost(&format!("sending {command}"), error)),
            Err(_) => Err(self.dialer.late(&format!("waiting for the reply to {command}"), limit)),
        }
    }

    fn replied(&mut self, reply: Reply, step: &str) -> Result<Reply, Error> {
        match reply.code {
            // "Service not available, closing control connection": may come instead of any reply.
            421 => {
                self.is_closed = true;
                let message =
                    format!("the FTP server {} closed the connection, {step}: {}", self.dialer.server(), reply.text());
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            200..=599 => {
                self.in_step = true;
                self.replies += 1;
                Ok(reply)
            }
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!("the FTP server {} is out of step, {step}: {}", self.dialer.server(), reply.text()),
            )),
        }
    }

    fn lost(&mut self, step: &str, error: FtpError) -> Error {
        self.is_closed = true;
        match error {
            FtpError::ConnectionError(error) => self.dialer.broken(step, error),
            error => self.dialer.broken(step, error),
        }
    }

    /// Opens a data connection. The session is out of step until [`Session::finish`].
    pub(super) async fn open(&mut self, what: Open<'_>) -> Answer<Transfer> {
        let step = what.step();
        // The address, the connection, REST and the command itself.
        let limit = self.dialer.connect_timeout + 3 * self.dialer.read_timeout;
        loop {
            self.in_step = false;
            self.data_port.reset();
            let opened = timeout(limit, open_on(&mut self.stream, what)).await;
            let stage = self.data_port.stage();
            let error = match opened {
                Ok(Ok(transfer)) => return Ok(Ok(transfer)),
                Ok(Err(error)) => error,
                Err(_) => return Err(self.dialer.late(&step, limit)),
            };
            let failure = match error {
                FtpError::UnexpectedResponse(response) => {
                    let reply = self.replied(Reply::new(response), &step)?;
                    if stage != Stage::Asked {
                        return Ok(Err(reply));
                    }
                    let server = self.dialer.server();
                    let message =
                        format!("the FTP server {server} offers no passive data connection: {}", reply.text());
                    Error::new(ErrorKind::Unavailable, message)
                }
                // What the data port itself reports; the control connection is as it was.
                FtpError::ConnectionError(error) if stage == Stage::Dialled => {
                    self.in_step = true;
                    match error.downcast::<Error>() {
                        Ok(error) if error.kind() == ErrorKind::Denied => return Err(error),
                        Ok(error) => error,
                        Err(error) => self.dialer.broken(&step, error),
                    }
                }
                FtpError::SecureError(text) => return Err(self.not_secured(&step, &text).await),
                error => return Err(self.lost(&step, error)),
            };
            if !self.may_fall_back {
                return Err(failure);
            }
            tracing::debug!(server = self.dialer.server(), %failure, "EPSV failed; trying PASV");
            self.may_fall_back = false;
            self.stream.set_mode(Mode::Passive);
        }
    }

    /// Why a data connection could not be secured: what the server says of it, should it say anything, tells more.
    async fn not_secured(&mut self, step: &str, text: &str) -> Error {
        let server = self.dialer.server();
        let failure = self.handshakes.as_ref().and_then(|handshakes| handshakes.failure());
        let answer = timeout(VERDICT_TIMEOUT, self.stream.read_response_in(&[])).await;
        let said = match answer {
            Ok(Err(FtpError::UnexpectedResponse(response))) => format!(": {}", Reply::new(response).text()),
            _ => String::new(),
        };
        let message = format!("the data connection to the FTP server {server} cannot be secured, {step}{said}");
        match failure {
            Some(failure) => Error::new(failure.kind(), message).with_source(failure),
            None => Error::new(ErrorKind::Unavailable, format!("{message} ({text})")),
        }
    }

    /// Whether an end of data that TLS did not announce (`close_notify`) may be an end all the same: many servers do
    /// not care to announce it.
    pub(super) fn is_unannounced_end(&self, error: &std::io::Error) -> bool {
        self.handshakes.is_some() && error.kind() == std::io::ErrorKind::UnexpectedEof
    }

    /// Closes a data connection and reads what the server says of the transfer: only `226` or `250` is a success.
    pub(super) async fn finish(&mut self, transfer: Transfer) -> Answer<()> {
        let limit = self.dialer.read_timeout;
        match timeout(limit, transfer.finish()).await {
            Ok(Ok(())) => {
                self.in_step = true;
                self.replies += 1;
                Ok(Ok(()))
            }
            Ok(Err(FtpError::UnexpectedResponse(response))) => {
                self.replied(Reply::new(response), "ending a transfer").map(Err)
            }
            Ok(Err(error)) => Err(self.lost("ending a transfer", error)),
            Err(_) => Err(self.dialer.late("waiting for the end of a transfer", limit)),
        }
    }

    /// What is at `path`; `None` when nothing is, or nothing that this user may see.
    pub(super) async fn stat(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        if self.can.machine_listings {
            let reply = self.command(&format!("MLST {path}")).await?;
            match reply.code {
                200..=299 => return self.facts(&reply, path).map(Some),
                500 | 502 | 504 => self.can.machine_listings = false,
                501 | 550 | 551 | 553 if !reply.speaks_of_permission() => return Ok(None),
                _ => return Err(self.refused(&format!("look at {path}"), &reply)),
            }
        }
        self.stat_by_commands(path).await
    }

    fn facts(&self, reply: &Reply, path: &RemotePath) -> Result<Entry, Error> {
        reply
            .lines()
            .find_map(listing::facts)
            .map(|listed| listed.at(path.clone()))
            .ok_or_else(|| self.refused(&format!("look at {path}: its answer to MLST tells nothing"), reply))
    }

    /// For servers without `MLST`. A link looks like what it leads to, for no command tells.
    async fn stat_by_commands(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        let entry = |kind| Entry { path: path.clone(), kind, size: None, modified: None, revision: None };
        if self.command(&format!("CWD {path}")).await?.is_positive() {
            return Ok(Some(entry(EntryKind::Directory)));
        }
        let mut found = match self.size(path).await? {
            Some(size) => Entry { size: Some(size), ..entry(EntryKind::File) },
            None => match self.find_in_parent(path).await? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        if found.kind == EntryKind::File {
            let reply = self.command(&format!("MDTM {path}")).await?;
            if reply.code == 213 {
                found.modified = reply.argument().and_then(listing::timestamp);
            }
        }
        Ok(Some(found))
    }

    /// The size by `SIZE` (RFC 3659, section 4); `None` when the server does not tell it.
    pub(super) async fn size(&mut self, path: &RemotePath) -> Result<Option<u64>, Error> {
        let reply = self.command(&format!("SIZE {path}")).await?;
        Ok(if reply.code == 213 { reply.argument().and_then(|size| size.parse().ok()) } else { None })
    }

    async fn find_in_parent(&mut self, path: &RemotePath) -> Result<Option<Entry>, Error> {
        let Some(parent) = path.parent() else { return Ok(None) };
        let Ok(mut lines) = self.open_listing(&parent).await? else { return Ok(None) };
        let mut found = None;
        while let Some(line) = lines.next(self.dialer.read_timeout).await? {
            if let Line::Entry(listed) = lines.read(&line)
                && listed.name == path.name()
            {
                found = Some(listed.at(path.clone()));
            }
        }
        match self.finish(lines.into_transfer()).await? {
            Ok(()) => Ok(found),
            Err(reply) => Err(self.refused(&format!("list {parent}"), &reply)),
        }
    }

    /// Opens the listing of a folder. Refused when it is not a folder or cannot be listed.
    pub(super) async fn open_listing(&mut self, folder: &RemotePath) -> Answer<Lines> {
        if self.can.machine_listings {
            match self.open(Open::Lines { command: &format!("MLSD {folder}") }).await? {
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Machine))),
                Err(reply) if matches!(reply.code, 500 | 502 | 504) => self.can.machine_listings = false,
                Err(reply) => return Ok(Err(reply)),
            }
        }
        // LIST takes patterns and options in its argument, so the folder is entered instead.
        let entered = self.command(&format!("CWD {folder}")).await?;
        if !entered.is_positive() {
            return Ok(Err(entered));
        }
        if self.can.unix_options {
            match self.open(Open::Lines { command: "LIST -a ." }).await? {
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Human))),
                Err(_) => self.can.unix_options = false,
            }
        }
        let opened = self.open(Open::Lines { command: "LIST" }).await?;
        Ok(opened.map(|transfer| Lines::new(transfer, Form::Human)))
    }

    /// `RNFR` and `RNTO`.
    pub(super) async fn rename(&mut self, source: &RemotePath, target: &RemotePath) -> Answer<()> {
        let from = self.command(&format!("RNFR {source}")).await?;
        if from.code != 350 {
            return Ok(Err(from));
        }
        let to = self.command(&format!("RNTO {target}")).await?;
        Ok(if to.is_positive() { Ok(()) } else { Err(to) })
    }

    /// Why something could not be put at `path`: by what its folder is, or else what the server said.
    pub(super) async fn not_put(&mut self, operation: &str, path: &RemotePath, reply: &Reply) -> Error {
        let Some(folder) = path.parent() else { return self.refused(&format!("{operation} {path}"), reply) };
        let (kind, what) = match self.stat(&folder).await {
            Ok(None) => (ErrorKind::NotFound, "is not there"),
            Ok(Some(entry)) if entry.kind == EntryKind::File => (ErrorKind::Conflict, "is not a folder"),
            _ => return self.refused(&format!("{operation} {path}"), reply),
        };
        Error::new(kind, format!("cannot {operation} {path}: {folder} {what}"))
    }

    /// A refusal that nothing more is known of.
    pub(super) fn refused(&self, attempt: &str, reply: &Reply) -> Error {
        self.dialer.refused(attempt, reply)
    }

    pub(super) fn late(&self, step: &str) -> Error {
        self.dialer.late(step, self.dialer.read_timeout)
    }

    pub(super) fn read_timeout(&self) -> Duration {
        self.dialer.read_timeout
    }

    /// Whether the next command will get its own reply.
    pub(super) fn is_in_step(&self) -> bool {
        self.in_step
    }

    /// Whether another operation can begin here.
    pub(super) fn is_reusable(&self) -> bool {
        if !self.in_step {
            return false;
        }
        let is_spent = self.handshakes.as_ref().is_some_and(|handshakes| handshakes.is_spent());
        if is_spent {
            self.dialer.prefer_older_tls();
        }
        !is_spent
    }

    /// Whether the connection was found closed before it answered anything since it was taken.
    pub(super) fn is_closed_unanswered(&self) -> bool {
        self.is_closed && self.replies == 0
    }

    /// After an aborted transfer some servers send one reply and some two.
    pub(super) fn check_before_reuse(&mut self) {
        self.is_suspect = true;
    }

    /// Whether a connection from the pool can be used, as far as can be told. It begins to count replies anew.
    pub(super) async fn is_usable(&mut self, idle_for: Duration) -> bool {
        if self.is_suspect || idle_for > CHECK_AFTER {
            let limit = CHECK_TIMEOUT.min(self.dialer.read_timeout);
            match self.command_within(limit, "NOOP").await {
                Ok(reply) if matches!(reply.code, 200 | 250) => self.is_suspect = false,
                _ => return false,
            }
        }
        self.replies = 0;
        true
    }

    /// Says farewell, as far as the server listens.
    pub(super) async fn quit(mut self) {
        if self.command_within(QUIT_TIMEOUT, "QUIT").await.is_err() {
            tracing::trace!(server = self.dialer.server(), "an idle FTP connection was closed without a farewell");
        }
    }
}

impl Open<'_> {
    fn step(&self) -> String {
        match self {
            Open::Retrieve { path, .. } => format!("opening a data connection for RETR {path}"),
            Open::Store { path } => format!("opening a data connection for STOR {path}"),
            Open::Lines { command } => format!("opening a data connection for {command}"),
        }
    }
}

async fn open_on(stream: &mut AsyncRustlsFtpStream, what: Open<'_>) -> FtpResult<Transfer> {
    match what {
        Open::Retrieve { path, offset } => {
            let offset =
                usize::try_from(offset).map_err(|error| FtpError::ConnectionError(std::io::Error::other(error)))?;
            stream.resume_transfer(offset).await?;
            stream.retr_as_stream(path.as_str()).await
        }
        Open::Store { path } => stream.put_with_stream(path.as_str()).await,
        Open::Lines { command } => {
            let preliminary = [Status::AboutToSend, Status::AlreadyOpen];
            stream.custom_data_command(command, &preliminary).await.map(|(_, transfer)| transfer)
        }
    }
}

/// The two forms of a listing.
#[derive(Clone, Copy)]
enum Form {
    Machine,
    Human,
}

/// The lines of a listing as they arrive.
pub(super) struct Lines {
    reader: BufReader<Transfer>,
    form: Form,
    now: SystemTime,
}

impl Lines {
    fn new(transfer: Transfer, form: Form) -> Self {
        Self { reader: BufReader::with_capacity(CHUNK_BYTES, transfer), form, now: SystemTime::now() }
    }

    /// The next line without its end; `None` after the last.
    pub(super) async fn next(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        loop {
            let available = match timeout(limit, self.reader.fill_buf()).await {
                Ok(Ok(available)) => available,
                // An end that TLS did not announce: between two lines the server's verdict decides.
                Ok(Err(error)) if line.is_empty() && error.kind() == std::io::ErrorKind::UnexpectedEof => &[],
                Ok(Err(error)) => {
                    return Err(Error::new(ErrorKind::Interrupted, "an FTP listing broke off").with_source(error));
                }
                Err(_) => {
                    let message = format!("an FTP listing did not go on within {limit:?}");
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
            };
            if available.is_empty() {
                return Ok((!line.is_empty()).then_some(line));
            }
            let (length, used) = match available.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, end + 1),
                None => (available.len(), available.len()),
            };
            if line.len() + length > LINE_BYTES_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("an FTP listing has a line of more than {LINE_BYTES_MAX} bytes"),
                ));
            }
            line.extend_from_slice(&available[..length]);
            self.reader.consume(used);
            if used > length {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
        }
    }

    /// What a line says.
    pub(super) fn read(&self, line: &[u8]) -> Line {
        let Ok(line) = std::str::from_utf8(line) else { return Line::Unreadable };
        match self.form {
            Form::Machine => listing::machine_line(line),
            Form::Human => listing::human_line(line, self.now),
        }
    }

    pub(super) fn into_transfer(self) -> Transfer {
        self.reader.into_inner()
    }
}

impl Listed {
    pub(super) fn at(self, path: RemotePath) -> Entry {
        Entry { path, kind: self.kind, size: self.size, modified: self.modified, revision: None }
    }
}
