//! One logged-in control connection, kept in step with its server, and the data connections that it opens.
//!
//! Every wait has an end: after a timeout, a broken connection or an answer that fits no question the session is out
//! of step and is not used again. A reply that refuses is not an error here but a value, because what it means depends
//! on the operation. Knows no pool and no contract.

use std::io::ErrorKind as ErrorKindOfIo;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use secrecy::ExposeSecret;
use suppaftp::tokio::TransferStream;
use suppaftp::types::FileType;
use suppaftp::{FtpError, FtpResult, Mode, Status};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::Passive;
use super::dialer::{DataPort, Dialer, Stage};
use super::encoding::Encoding;
use super::hashes;
use super::listing::{self, Line, Listed};
use super::reply::Reply;
use super::secure::{ControlStream, Handshakes, Secured};
use crate::backend::{Checksum, Entry, EntryKind, Facts};
use crate::content::CHUNK_BYTES;
use crate::error::{Error, ErrorKind, Step};
use crate::path::{PATH_BYTES_MAX, RemotePath};

/// An open data connection.
pub(super) type Transfer = TransferStream<Secured>;

/// Longest line of a listing: a path as long as can be and as much again for what is told of it.
const LINE_BYTES_MAX: usize = 2 * PATH_BYTES_MAX;

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

/// What one fact about a server may take in a log line or an answer.
const FACT_CHARS_MAX: usize = 500;

/// How long a farewell may take.
const QUIT_TIMEOUT: Duration = Duration::from_secs(1);

/// What the server told in reply to `FEAT` (RFC 2389) and `SYST`.
#[derive(Default)]
struct Abilities {
    /// As the server lists them.
    features: Vec<String>,
    /// `MLST` and `MLSD` (RFC 3659, section 7).
    machine_listings: bool,
    /// `LIST` takes the options of `ls`.
    unix_options: bool,
    /// What the server says it is, where it was asked.
    system: Option<String>,
}

impl Abilities {
    fn has(&self, name: &str) -> bool {
        self.features
            .iter()
            .any(|feature| feature.split([' ', ';']).next().is_some_and(|word| word.eq_ignore_ascii_case(name)))
    }
}

/// A control connection that is logged in.
pub(super) struct Session {
    dialer: Arc<Dialer>,
    stream: ControlStream,
    data_port: Arc<DataPort>,
    /// Of the connection and its data connections, when they are encrypted.
    handshakes: Option<Arc<Handshakes>>,
    can: Abilities,
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
        Self {
            dialer,
            stream,
            data_port,
            handshakes,
            can: Abilities::default(),
            may_fall_back,
            born: Instant::now(),
            spoke: Instant::now(),
            owed: 0,
            verdict: None,
            in_step: true,
            is_suspect: false,
            replies: 0,
            is_closed: false,
        }
    }

    /// Logs in and learns what the server can do.
    pub(super) async fn prepare(&mut self, deadline: Instant) -> Result<(), Error> {
        let dialer = Arc::clone(&self.dialer);
        let encoding = dialer.config.encoding;
        self.stream.set_encoding(encoding).await;
        self.log_in().await.map_err(|error| dialer.not_logged_in(error).at(Step::Login))?;
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
        if features.is_positive() {
            self.can.features = features.features();
        }
        self.can.machine_listings = self.can.has("MLST") || self.can.has("MLSD");
        if self.can.has("UTF8") {
            // Many servers speak UTF-8 in any case and refuse the option (RFC 2640 has none); either is fine.
            let option = if encoding.is_utf8() { "OPTS UTF8 ON" } else { "OPTS UTF8 OFF" };
            self.command_within(limit, option).await?;
        }
        if !self.can.machine_listings {
            let system = self.command_within(limit, "SYST").await?;
            self.can.unix_options = system.text().to_ascii_uppercase().contains("UNIX");
            self.can.system = system.is_positive().then(|| system.argument().unwrap_or_default().to_owned());
        }
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
                Err(_) => return Err(self.dialer.late(&format!("{step}, {}", self.how_far(stage)), limit)),
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
    pub(super) async fn finish(&mut self, transfer: Transfer) -> Answer<()> {
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
        Ok(if matches!(reply.code, 226 | 250) { Ok(()) } else { Err(reply) })
    }

    /// During a transfer: says something on the control connection when nothing was said for long, if that is wanted.
    pub(super) async fn keep_alive(&mut self) -> Result<(), Error> {
        let is_due = self.dialer.config.noop_interval.is_some_and(|interval| self.spoke.elapsed() >= interval);
        if !is_due || self.owed >= NOOPS_OWED_MAX {
            return Ok(());
        }
        self.spoke = Instant::now();
        match timeout(NOOP_GLANCE, self.stream.custom_command("NOOP", &[])).await {
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
            .lines(self.dialer.config.encoding)
            .iter()
            .find_map(|line| listing::facts(line))
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
        let encoding = self.dialer.config.encoding;
        if self.can.machine_listings {
            match self.open(Open::Lines { command: &format!("MLSD {folder}") }).await? {
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Machine, encoding))),
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
                Ok(transfer) => return Ok(Ok(Lines::new(transfer, Form::Human, encoding))),
                Err(_) => self.can.unix_options = false,
            }
        }
        let opened = self.open(Open::Lines { command: "LIST" }).await?;
        Ok(opened.map(|transfer| Lines::new(transfer, Form::Human, encoding)))
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

    /// Sets the time of the last change: by `MFMT` (draft-somers-ftp-mfxx), or by the `MDTM` with a time that some
    /// servers take instead (vsftpd, Serv-U). `None` when the server has neither.
    pub(super) async fn set_modified(
        &mut self,
        path: &RemotePath,
        time: SystemTime,
    ) -> Result<Option<Answered>, Error> {
        let Some(stamp) = listing::time_stamp(time) else {
            return Err(Error::new(ErrorKind::Invalid, format!("cannot set the time of {path}: FTP cannot write it")));
        };
        if self.can.has("MFMT") {
            let reply = self.command(&format!("MFMT {stamp} {path}")).await?;
            return Ok(Some(if reply.is_positive() { Ok(()) } else { Err(reply) }));
        }
        if !self.can.has("MDTM") {
            return Ok(None);
        }
        let reply = self.command(&format!("MDTM {stamp} {path}")).await?;
        // Others take it all for a name, of which they may even know the time.
        let now = self.command(&format!("MDTM {path}")).await?;
        let is_set = reply.is_positive() && now.argument().is_some_and(|time| time.starts_with(&stamp));
        Ok(is_set.then_some(Ok(())))
    }

    /// A checksum that the server computes, which may take it long.
    pub(super) async fn checksum(&mut self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        let Some(request) = hashes::best(&self.can.features) else { return Ok(None) };
        if let Some(option) = request.option
            && !self.command(&format!("OPTS HASH {option}")).await?.is_positive()
        {
            return Ok(None);
        }
        let reply = self.command(&format!("{} {path}", request.verb)).await?;
        if !reply.is_positive() {
            return Err(self.refused(&format!("compute the checksum of {path}"), &reply));
        }
        let value = reply.hash(request.digits);
        Ok(value.map(|value| Checksum { algorithm: request.algorithm, value }))
    }

    /// Whether the server lists a feature in reply to `FEAT`.
    pub(super) fn has(&self, feature: &str) -> bool {
        self.can.features.iter().any(|listed| listed.eq_ignore_ascii_case(feature))
    }

    /// What the server lists in reply to `FEAT`.
    pub(super) fn features(&self) -> &[String] {
        &self.can.features
    }

    /// What is worth knowing of the server.
    pub(super) fn about(&self) -> Facts {
        let mut facts = vec![("address", self.data_port.peer())];
        let greeting = self.stream.get_welcome_msg().unwrap_or_default();
        // The last line has the server's name, if any has; the code stands before it.
        let name = greeting.lines().next_back().and_then(|line| line.get(4..)).unwrap_or_default();
        facts.push(("server", name.chars().filter(|character| !character.is_control()).take(FACT_CHARS_MAX).collect()));
        if let Some(system) = &self.can.system {
            facts.push(("system", system.chars().take(FACT_CHARS_MAX).collect()));
        }
        if let Some(tls) = self.handshakes.as_ref().and_then(|handshakes| handshakes.protocol()) {
            facts.push(("tls", tls));
        }
        let features: Vec<&str> = self.can.features.iter().filter_map(|feature| feature.split(' ').next()).collect();
        facts.push(("features", features.join(" ").chars().take(FACT_CHARS_MAX).collect()));
        facts
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

    /// How long ago it was opened.
    pub(super) fn age(&self) -> Duration {
        self.born.elapsed()
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

/// Servers that mind it during a transfer refuse it as a command they do not take now.
fn is_answer_to_noop(reply: &Reply) -> bool {
    matches!(reply.code, 200 | 500..=503)
}

impl Open<'_> {
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
    encoding: Encoding,
    now: SystemTime,
}

impl Lines {
    fn new(transfer: Transfer, form: Form, encoding: Encoding) -> Self {
        let reader = BufReader::with_capacity(CHUNK_BYTES, transfer);
        Self { reader, form, encoding, now: SystemTime::now() }
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
        let line = self.encoding.text(line);
        match self.form {
            Form::Machine => listing::machine_line(&line),
            Form::Human => listing::human_line(&line, self.now),
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
