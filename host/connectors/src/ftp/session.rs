//! One logged-in control connection, kept in step with its server, and the data connections that it opens.
//!
//! Every wait has an end: after a timeout, a broken connection or an answer that fits no question the session is out
//! of step and is not used again. A reply that refuses is not an error here but a value, because what it means depends
//! on the operation. Which commands the server knows is in `commands`, what keeps a path in its
//! folder in `confine`. Knows no pool and no contract.

mod commands;
mod confine;

use std::io::ErrorKind as ErrorKindOfIo;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use secrecy::ExposeSecret;
use suppaftp::tokio::TransferStream;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, Mode, Status};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::Passive;
use super::dialer::{DataPort, Dialer, Stage};
use super::encoding::Encoding;
use super::reply::Reply;
use super::secure::{ControlStream, Handshakes, Secured};
use crate::border::Borders;
use crate::error::{Error, ErrorKind, Step};
use crate::idle;
use crate::path::RemotePath;
use commands::Abilities;
use confine::Snapshot;

/// An open data connection.
pub(super) type Transfer = TransferStream<Secured>;

/// A connection that was idle for so long is asked whether it is still there before it is used: when a firewall has
/// forgotten it, the first command would wait for its timeout.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// How long that question may take; then a new connection is quicker.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// During a transfer the answer to a `NOOP` is waited for so long and no longer, for the transfer waits meanwhile.
const NOOP_GLANCE: Duration = Duration::from_millis(20);

/// After a transfer, for an answer that has not come during it.
const NOOP_WAIT: Duration = Duration::from_secs(1);

/// Unanswered ones in one transfer: more do not keep anything alive.
const NOOPS_OWED_MAX: u32 = 100;

/// How long a server may take to say why it ended the handshake of a data connection.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(1);

/// How long a farewell may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A control connection that is logged in.
pub(super) struct Session {
    dialer: Arc<Dialer>,
    stream: ControlStream,
    data_port: Arc<DataPort>,
    /// Of the connection and its data connections, when they are encrypted.
    handshakes: Option<Arc<Handshakes>>,
    /// What the server can do, once it was asked.
    can: Option<Abilities>,
    borders: Borders,
    /// What is known of the folder that was listed last, for the borders.
    snapshot: Option<Snapshot>,
    /// It is in another folder than `/`.
    is_elsewhere: bool,
    may_fall_back: bool,
    born: Instant,
    /// When something was last said or heard.
    spoke: Instant,
    /// Replies to `NOOP` that may still come.
    owed: u32,
    /// The server's verdict on a transfer, heard before its end.
    verdict: Option<Reply>,
    /// The reply to everything that was sent has been read.
    in_step: bool,
    is_suspect: bool,
    /// It was used before by another operation.
    is_reused: bool,
    /// Since the session was taken.
    replies: u64,
    /// The connection was found closed.
    is_closed: bool,
}

/// What to open a data connection for.
#[derive(Clone, Copy)]
pub(super) enum Open<'a> {
    Retrieve {
        path: &'a RemotePath,
        offset: u64,
    },
    /// What is there is cut off at the offset, or replaced when that is 0.
    Store {
        path: &'a RemotePath,
        offset: u64,
    },
    Append {
        path: &'a RemotePath,
    },
    Lines {
        command: &'a str,
    },
}

/// What became of a request that the server may refuse.
pub(super) type Answer<T> = Result<Result<T, Reply>, Error>;

/// What a server answered.
pub(super) type Answered = Result<(), Reply>;

impl Session {
    /// A session on a connection that was greeted; to be prepared before anything else.
    pub(super) fn new(
        dialer: Arc<Dialer>,
        stream: ControlStream,
        data_port: Arc<DataPort>,
        handshakes: Option<Arc<Handshakes>>,
    ) -> Self {
        let may_fall_back = dialer.config.passive == Passive::Auto;
        let root = dialer.root.clone();
        Self {
            dialer,
            stream,
            data_port,
            handshakes,
            can: None,
            borders: Borders::new(root),
            snapshot: None,
            is_elsewhere: false,
            may_fall_back,
            born: Instant::now(),
            spoke: Instant::now(),
            owed: 0,
            verdict: None,
            in_step: true,
            is_suspect: false,
            is_reused: false,
            replies: 0,
            is_closed: false,
        }
    }

    /// Logs in. What the server can do is asked when it matters.
    pub(super) async fn prepare(&mut self) -> Result<(), Error> {
        let dialer = Arc::clone(&self.dialer);
        self.stream.set_encoding(dialer.config.encoding).await;
        self.log_in().await.map_err(|error| dialer.not_logged_in(error).at(Step::Login))?;
        // Text is the default of the protocol and would change line ends.
        let binary = self.stream.transfer_type(FileType::Binary);
        binary.await.map_err(|error| match error {
            FtpError::UnexpectedResponse(response) => {
                dialer.refused("switch to binary transfers", &Reply::new(response))
            }
            error => dialer.broken("switching to binary transfers", error),
        })?;
        self.stream.set_mode(match dialer.config.passive {
            Passive::Auto | Passive::Epsv => Mode::ExtendedPassive,
            Passive::Pasv | Passive::PasvSameHost => Mode::Passive,
            Passive::Never => Mode::Active,
        });
        self.stream.set_passive_nat_workaround(dialer.config.passive == Passive::PasvSameHost);
        Ok(())
    }

    /// `USER`, `PASS` and `ACCT`, as far as the server asks for them (RFC 959, section 5.4).
    async fn log_in(&mut self) -> FtpResult<()> {
        let dialer = Arc::clone(&self.dialer);
        let config = &dialer.config;
        let answer = self.stream.login(config.user.as_str(), config.password.expose_secret()).await;
        match (answer, &config.account) {
            (Err(FtpError::UnexpectedResponse(response)), Some(account)) if response.status.code() == 332 => {
                let command = format!("ACCT {}", account.expose_secret());
                // 202: an account is not needed here.
                let accepted = [Status::LoggedIn, Status::CommandOk, Status::CommandNotImplemented];
                self.stream.custom_command(command, &accepted).await.map(drop)
            }
            (answer, _) => answer,
        }
    }

    /// Sends a command that needs no data connection. Every final reply is a value, whatever its class.
    pub(super) async fn command(&mut self, command: &str) -> Result<Reply, Error> {
        self.agree_on(command).await?;
        self.command_within(self.dialer.read_timeout, command).await
    }

    async fn command_within(&mut self, limit: Duration, command: &str) -> Result<Reply, Error> {
        self.in_step = false;
        self.spoke = Instant::now();
        // No reply is expected, so that each comes back as it is.
        match timeout(limit, self.stream.custom_command(command, &[])).await {
            Ok(Ok(response) | Err(FtpError::UnexpectedResponse(response))) => {
                self.replied(Reply::new(response), &format!("sending {command}"))
            }
            Ok(Err(FtpError::ConnectionError(error))) if error.kind() == ErrorKindOfIo::InvalidInput => {
                Err(self.not_sent(command, error))
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

    /// Of a command that cannot be written in the encoding of the connection.
    fn not_sent(&mut self, command: &str, error: std::io::Error) -> Error {
        self.in_step = true;
        let encoding = self.dialer.config.encoding;
        let message = format!("cannot send {command} in {encoding}, the encoding of this connection");
        Error::new(ErrorKind::Invalid, message).with_source(error)
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
        self.agree_on(what.argument()).await?;
        let step = what.step();
        loop {
            self.in_step = false;
            self.data_port.reset();
            let opened = self.open_in_time(what).await;
            let stage = self.data_port.stage();
            let error = match opened {
                Ok(Ok(transfer)) => return Ok(Ok(transfer)),
                Ok(Err(error)) => error,
                Err(limit) => return Err(self.dialer.late(&format!("{step}, {}", self.how_far(stage)), limit)),
            };
            let failure = match error {
                FtpError::UnexpectedResponse(response) => {
                    let reply = self.replied(Reply::new(response), &step)?;
                    // Whether PORT or the command itself is refused, the library does not tell.
                    if stage != Stage::Asked || self.dialer.config.passive == Passive::Never {
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
                FtpError::ConnectionError(error) if error.kind() == ErrorKindOfIo::InvalidInput => {
                    return Err(self.not_sent(&step, error));
                }
                FtpError::ConnectionError(error) if error.kind() == ErrorKindOfIo::TimedOut => {
                    let server = self.dialer.server();
                    let message = format!(
                        "the FTP server {server} did not connect to this host for data, {step}; \
                         if a firewall or a NAT is in between, leave out passive = \"never\""
                    );
                    return Err(Error::new(ErrorKind::Timeout, message).with_source(error));
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

    /// What the library makes of an attempt at a data connection, of which each stage has its time; or the limit of the one
    /// that was late.
    async fn open_in_time(&mut self, what: Open<'_>) -> Result<FtpResult<Transfer>, Duration> {
        let (connect, read) = (self.dialer.connect_timeout, self.dialer.read_timeout);
        let is_active = self.dialer.config.passive == Passive::Never;
        // Of the command, and before and after it.
        let answers = 1 + u32::from(what.offset() > 0) + u32::from(self.handshakes.is_some());
        let limit_of = |stage| match stage {
            // The library tells no stage: PORT, the connection, and what follows.
            Stage::Asked if is_active => connect + (1 + answers) * read,
            Stage::Asked => read,
            // Behind the limit of the data port itself, which tells more.
            Stage::Dialled => connect + read,
            Stage::Connected => answers * read,
        };
        let mut opening = pin!(open_on(&mut self.stream, what));
        loop {
            let stage = self.data_port.stage();
            let limit = limit_of(stage);
            match timeout(limit, &mut opening).await {
                Ok(opened) => return Ok(opened),
                Err(_) if self.data_port.stage() != stage => {}
                Err(_) => return Err(limit),
            }
        }
    }

    /// How far an attempt at a data connection came that took too long.
    fn how_far(&self, stage: Stage) -> &'static str {
        let is_securing = self.handshakes.as_ref().is_some_and(|handshakes| handshakes.is_under_way());
        match stage {
            Stage::Asked => "which has not said to which port",
            Stage::Dialled => "which cannot be reached",
            Stage::Connected if is_securing => "which does not go on with TLS",
            Stage::Connected => "which is there, but the transfer does not begin",
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
    pub(super) async fn finish(&mut self, transfer: Transfer) -> Answer<Reply> {
        let limit = self.dialer.read_timeout;
        let mut heard = match timeout(limit, transfer.finish()).await {
            Ok(Ok(())) => Some(Reply::complete()),
            Ok(Err(FtpError::UnexpectedResponse(response))) => Some(Reply::new(response)),
            Ok(Err(error)) => return Err(self.lost("ending a transfer", error)),
            Err(_) => None,
        };
        let mut verdict = self.verdict.take();
        // Answers to NOOP come before the verdict, behind it, or never.
        loop {
            match heard.take() {
                Some(reply) if self.owed > 0 && is_answer_to_noop(&reply) => self.owed -= 1,
                Some(reply) => verdict = Some(reply),
                None if verdict.is_some() => break,
                None => return Err(self.dialer.late("waiting for the end of a transfer", limit)),
            }
            let limit = match (&verdict, self.owed) {
                (Some(_), 0) => break,
                (Some(_), _) => NOOP_WAIT,
                (None, _) => limit,
            };
            heard = match timeout(limit, self.stream.read_response_in(&[])).await {
                Ok(Ok(response) | Err(FtpError::UnexpectedResponse(response))) => Some(Reply::new(response)),
                Ok(Err(error)) => return Err(self.lost("ending a transfer", error)),
                Err(_) => None,
            };
        }
        let Some(reply) = verdict else { return Err(self.dialer.late("waiting for the end of a transfer", limit)) };
        let reply = self.replied(reply, "ending a transfer")?;
        self.in_step = self.owed == 0;
        Ok(if matches!(reply.code, 226 | 250) { Ok(reply) } else { Err(reply) })
    }

    /// Like [`Self::finish`] after everything was read, with what the server says of a success, too.
    ///
    /// The library keeps those words to itself. Here they are read as if they were the answer to a command, whose own
    /// answer the library reads in their place.
    pub(super) async fn finish_heard(&mut self, mut transfer: Transfer) -> Answer<Reply> {
        let limit = self.dialer.read_timeout;
        // Some servers say nothing before this; what cannot be shut down is closed already.
        let _ended = timeout(limit, transfer.shutdown()).await;
        self.say_something(limit).await?;
        self.finish(transfer).await
    }

    /// During a transfer: says something on the control connection when nothing was said for long, if that is wanted.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Error> {
        let is_due = self.dialer.config.noop_interval.is_some_and(|interval| self.spoke.elapsed() >= interval);
        if !is_due || self.owed >= NOOPS_OWED_MAX {
            return Ok(());
        }
        self.say_something(NOOP_GLANCE).await
    }

    /// Sends a command that does nothing, and looks for an answer, which may be the one about the transfer.
    async fn say_something(&mut self, limit: Duration) -> Result<(), Error> {
        self.spoke = Instant::now();
        match timeout(limit, self.stream.custom_command("NOOP", &[])).await {
            Ok(Ok(response) | Err(FtpError::UnexpectedResponse(response))) => {
                let reply = Reply::new(response);
                if !is_answer_to_noop(&reply) {
                    self.verdict = Some(reply);
                    self.owed += 1;
                }
                Ok(())
            }
            Ok(Err(error)) => Err(self.lost("keeping the connection alive", error)),
            // Many servers answer only when the transfer is over.
            Err(_) => {
                self.owed += 1;
                Ok(())
            }
        }
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

    pub(super) fn encoding(&self) -> Encoding {
        self.dialer.config.encoding
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

    /// Whether the connection was taken from the pool and found closed before it answered anything: then nothing has
    /// happened, and another one can be asked.
    pub(super) fn is_closed_unanswered(&self) -> bool {
        self.is_reused && self.is_closed && self.replies == 0
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
        self.is_reused = true;
        self.replies = 0;
        true
    }
}

impl idle::Session for Session {
    fn age(&self) -> Duration {
        self.born.elapsed()
    }

    /// Says farewell, as far as the server listens.
    async fn close(mut self) {
        if self.command_within(QUIT_TIMEOUT, "QUIT").await.is_err() {
            tracing::trace!(server = self.dialer.server(), "an idle FTP connection was closed without a farewell");
        }
    }
}

/// Servers that mind it during a transfer refuse it as a command they do not take now.
fn is_answer_to_noop(reply: &Reply) -> bool {
    matches!(reply.code, 200 | 500..=503)
}

impl Open<'_> {
    /// Where the transfer begins.
    fn offset(&self) -> u64 {
        match self {
            Open::Retrieve { offset, .. } | Open::Store { offset, .. } => *offset,
            Open::Append { .. } | Open::Lines { .. } => 0,
        }
    }

    fn argument(&self) -> &str {
        match self {
            Open::Retrieve { path, .. } | Open::Store { path, .. } | Open::Append { path } => path.as_str(),
            Open::Lines { command } => command,
        }
    }

    fn step(&self) -> String {
        match self {
            Open::Retrieve { path, .. } => format!("opening a data connection for RETR {path}"),
            Open::Store { path, .. } => format!("opening a data connection for STOR {path}"),
            Open::Append { path } => format!("opening a data connection for APPE {path}"),
            Open::Lines { command } => format!("opening a data connection for {command}"),
        }
    }
}

async fn open_on(stream: &mut ControlStream, what: Open<'_>) -> FtpResult<Transfer> {
    let restart =
        |offset: u64| usize::try_from(offset).map_err(|error| FtpError::ConnectionError(std::io::Error::other(error)));
    match what {
        Open::Retrieve { path, offset } => {
            stream.resume_transfer(restart(offset)?).await?;
            stream.retr_as_stream(path.as_str()).await
        }
        Open::Store { path, offset } => {
            stream.resume_transfer(restart(offset)?).await?;
            stream.put_with_stream(path.as_str()).await
        }
        Open::Append { path } => stream.append_with_stream(path.as_str()).await,
        Open::Lines { command } => {
            let preliminary = [Status::AboutToSend, Status::AlreadyOpen];
            stream.custom_data_command(command, &preliminary).await.map(|(_, transfer)| transfer)
        }
    }
}
