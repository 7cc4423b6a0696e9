//! A conversation in SFTP over a channel: requests are sent without waiting, replies are found by their number.
//!
//! Every wait has an end. After anything but a refusal the conversation is over, and so it is when whoever waited went
//! away in the middle. Knows the requests, not what operations are made of them.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, timeout, timeout_at};

use super::channel::Channel;
use super::wire::{self, Attributes, Fields, Malformed, Name, Reply, Request, Status, kind, status};
use crate::error::{Error, ErrorKind};

/// Requests gathered before they are sent: several packets of SSH, so that none of them is small for nothing.
const OUTGOING_BYTES: usize = 256 * 1024;

/// Progress by which a wait in the middle of something long begins anew: what the slowest server takes or sends at once.
const PROGRESS_BYTES: usize = 32 * 1024;

/// Bytes of a read or write where the server tells no limits: what every server must take (section 3 of the draft).
const TRANSFER_BYTES: u32 = 32 * 1024;

/// Bytes of a read or write at most: a packet, without room for a handle and the rest of its head.
const TRANSFER_BYTES_MAX: u32 = wire::PACKET_BYTES_MAX as u32 - 1024;

/// Extensions that are noted; no server has as many.
const EXTENSIONS_MAX: usize = 64;

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Failure {
    /// The server said no; the conversation goes on.
    Refused(Status),
    /// The connection broke.
    Broken(io::Error),
    /// The server did not answer in time.
    Late,
    /// The server does not keep to the protocol.
    Malformed(Malformed),
}

impl Failure {
    /// Whether the server said that nothing is there.
    pub(super) fn is_not_found(&self) -> bool {
        self.has_code(status::NO_SUCH_FILE) || self.has_code(status::NO_SUCH_PATH)
    }

    /// Whether the server said no without a reason.
    pub(super) fn has_code(&self, code: u32) -> bool {
        matches!(self, Self::Refused(status) if status.code == code)
    }

    /// Whether the conversation goes on.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(_))
    }
}

/// A request whose reply is still to be taken.
#[derive(Debug)]
pub(super) struct Ticket(u32);

enum Slot {
    Waiting,
    Arrived(Reply),
    /// Nobody wants it any more.
    Abandoned,
}

/// What the server can do besides version 3.
#[derive(Debug, Clone, Default)]
pub(super) struct Abilities {
    /// Names of extensions, each with its version.
    pub(super) extensions: Vec<(String, String)>,
    /// Bytes of one read.
    pub(super) read_bytes: u32,
    /// Bytes of one write.
    pub(super) write_bytes: u32,
}

impl Abilities {
    pub(super) fn has(&self, extension: &str) -> bool {
        self.extensions.iter().any(|(name, _)| name == extension)
    }
}

/// One conversation.
pub(super) struct Client {
    channel: Channel,
    /// How long a wait may last.
    limit: Duration,
    /// For messages.
    server: String,
    outgoing: Vec<u8>,
    incoming: BytesMut,
    last_id: u32,
    slots: HashMap<u32, Slot>,
    is_over: bool,
    pub(super) can: Abilities,
    /// The folder that the server opens after the login, as it names it.
    pub(super) login_folder: Bytes,
}

impl Client {
    /// Begins a conversation: agrees on the version and learns what the server can do.
    pub(super) async fn begin(channel: Channel, limit: Duration, server: String) -> Result<Self, Failure> {
        let mut client = Self {
            channel,
            limit,
            server,
            outgoing: Vec::new(),
            incoming: BytesMut::new(),
            last_id: 0,
            slots: HashMap::new(),
            is_over: false,
            can: Abilities { extensions: Vec::new(), read_bytes: TRANSFER_BYTES, write_bytes: TRANSFER_BYTES },
            login_folder: Bytes::from_static(b"/"),
        };
        Request::init(&mut client.outgoing).end();
        let packet = client.next_packet().await?;
        let extensions = wire::read_version(packet).map_err(Failure::Malformed)?;
        let text = |bytes: &Bytes| wire::printable(bytes);
        client.can.extensions =
            extensions.iter().take(EXTENSIONS_MAX).map(|(name, data)| (text(name), text(data))).collect();
        client.learn().await?;
        Ok(client)
    }

    /// The limits of the server and the folder of the login, at once.
    async fn learn(&mut self) -> Result<(), Failure> {
        let limits = self.can.has("limits@openssh.com").then(|| self.extended("limits@openssh.com", |request| request));
        let folder = self.request(kind::REALPATH, |request| request.string(b"."));
        if let Some(limits) = limits
            && let Some(reply) = unless_refused(self.extension_reply(limits).await)?
        {
            let mut fields = Fields(reply);
            let mut next = || fields.u64().map_err(Failure::Malformed);
            let (_packet, read, write) = (next()?, next()?, next()?);
            // Zero stands for no limit (PROTOCOL, section 4.8).
            let within = |told: u64| match u32::try_from(told) {
                Ok(0) | Err(_) => TRANSFER_BYTES_MAX,
                Ok(told) => told.min(TRANSFER_BYTES_MAX),
            };
            (self.can.read_bytes, self.can.write_bytes) = (within(read), within(write));
        }
        if let Some(mut names) = unless_refused(self.names(folder).await)?.flatten()
            && !names.is_empty()
        {
            self.login_folder = names.swap_remove(0).name;
        }
        Ok(())
    }

    /// Whether another operation may begin: everything that was asked was answered.
    pub(super) fn is_in_step(&self) -> bool {
        !self.is_over && self.slots.is_empty() && self.outgoing.is_empty()
    }

    /// For messages.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Writes a request down; it is sent with the next wait, or when there is enough to send.
    pub(super) fn request(&mut self, kind: u8, fill: impl FnOnce(Request<'_>) -> Request<'_>) -> Ticket {
        self.last_id = self.last_id.wrapping_add(1);
        fill(Request::begin(&mut self.outgoing, kind, self.last_id)).end();
        self.slots.insert(self.last_id, Slot::Waiting);
        Ticket(self.last_id)
    }

    /// The same for an extension.
    pub(super) fn extended(&mut self, name: &str, fill: impl FnOnce(Request<'_>) -> Request<'_>) -> Ticket {
        self.request(kind::EXTENDED, |request| fill(request.string(name.as_bytes())))
    }

    /// Sends what was written down, if it is much.
    pub(super) async fn send(&mut self) -> Result<(), Failure> {
        if self.outgoing.len() >= OUTGOING_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Gives up the reply to a request.
    #[expect(clippy::needless_pass_by_value, reason = "a ticket is taken once")]
    pub(super) fn abandon(&mut self, ticket: Ticket) {
        let id = ticket.0;
        if let Some(slot) = self.slots.get_mut(&id) {
            match slot {
                Slot::Arrived(_) => drop(self.slots.remove(&id)),
                slot => *slot = Slot::Abandoned,
            }
        }
    }

    /// Waits for all replies that were given up; where the conversation is over, none will come.
    pub(super) async fn settle(&mut self) -> Result<(), Failure> {
        if self.is_over {
            return Ok(());
        }
        self.flush().await?;
        while self.slots.values().any(|slot| matches!(slot, Slot::Abandoned)) {
            self.next_reply().await?;
        }
        Ok(())
    }

    /// The reply of a request that is answered by a status alone.
    pub(super) async fn done(&mut self, ticket: Ticket) -> Result<(), Failure> {
        match self.reply(ticket).await? {
            Reply::Status(Status { code: status::OK, .. }) => Ok(()),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The reply of a request for a handle.
    pub(super) async fn handle(&mut self, ticket: Ticket) -> Result<Bytes, Failure> {
        match self.reply(ticket).await? {
            Reply::Handle(handle) => Ok(handle),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The reply of a request for attributes.
    pub(super) async fn attributes(&mut self, ticket: Ticket) -> Result<Attributes, Failure> {
        match self.reply(ticket).await? {
            Reply::Attributes(attributes) => Ok(attributes),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The reply of a request for names; `None` at their end.
    pub(super) async fn names(&mut self, ticket: Ticket) -> Result<Option<Vec<Name>>, Failure> {
        match self.reply(ticket).await? {
            Reply::Names(names) => Ok(Some(names)),
            Reply::Status(Status { code: status::EOF, .. }) => Ok(None),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The reply of a request for content; `None` at its end.
    pub(super) async fn data(&mut self, ticket: Ticket) -> Result<Option<Bytes>, Failure> {
        match self.reply(ticket).await? {
            Reply::Data(data) => Ok(Some(data)),
            Reply::Status(Status { code: status::EOF, .. }) => Ok(None),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The reply of a request of an extension that answers with more than a status.
    pub(super) async fn extension_reply(&mut self, ticket: Ticket) -> Result<Bytes, Failure> {
        match self.reply(ticket).await? {
            Reply::Extended(data) => Ok(data),
            reply => Err(self.unexpected(reply)),
        }
    }

    /// The first of the names that answer a request for one.
    pub(super) async fn one_name(&mut self, ticket: Ticket) -> Result<Bytes, Failure> {
        let names = self.names(ticket).await?;
        match names.into_iter().flatten().next() {
            Some(name) => Ok(name.name),
            None => Err(self.malformed("it answered with no name")),
        }
    }

    fn unexpected(&mut self, reply: Reply) -> Failure {
        match reply {
            Reply::Status(status) if status.code != status::OK => Failure::Refused(status),
            _ => self.malformed("a reply does not fit its request"),
        }
    }

    fn malformed(&mut self, why: &'static str) -> Failure {
        self.is_over = true;
        Failure::Malformed(Malformed(why))
    }

    async fn reply(&mut self, ticket: Ticket) -> Result<Reply, Failure> {
        let id = ticket.0;
        loop {
            match self.slots.remove(&id) {
                Some(Slot::Arrived(reply)) => return Ok(reply),
                Some(slot) => drop(self.slots.insert(id, slot)),
                // A ticket is taken once, by its type; only a conversation that is over has lost it.
                None => return Err(self.malformed("the conversation is over")),
            }
            self.next_reply().await?;
        }
    }

    async fn next_reply(&mut self) -> Result<(), Failure> {
        let packet = self.next_packet().await?;
        let (id, reply) = wire::read_reply(packet).map_err(|Malformed(why)| self.malformed(why))?;
        match self.slots.get_mut(&id) {
            Some(Slot::Abandoned) => drop(self.slots.remove(&id)),
            Some(slot @ Slot::Waiting) => *slot = Slot::Arrived(reply),
            Some(Slot::Arrived(_)) | None => return Err(self.malformed("a reply answers no request")),
        }
        Ok(())
    }

    /// The next packet, without its length field.
    async fn next_packet(&mut self) -> Result<Bytes, Failure> {
        self.flush().await?;
        let mut deadline = Instant::now() + self.limit;
        let mut seen = self.incoming.len();
        let length = loop {
            let held = self.incoming.len();
            match wire::packet_length(&self.incoming) {
                Ok(Some(length)) if held >= 4 + length => break length,
                // And for what comes with its end.
                Ok(Some(length)) => self.incoming.reserve(4 + length - held + PROGRESS_BYTES),
                Ok(None) => {}
                Err(malformed) => {
                    self.is_over = true;
                    return Err(Failure::Malformed(malformed));
                }
            }
            if held >= seen + PROGRESS_BYTES {
                deadline = Instant::now() + self.limit;
                seen = held;
            }
            match timeout_at(deadline, self.channel.receive()).await {
                Ok(Ok(bytes)) => self.incoming.extend_from_slice(&bytes),
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => return Err(self.late()),
            }
        };
        let mut packet = self.incoming.split_to(4 + length);
        Ok(packet.split_off(4).freeze())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.outgoing.is_empty() {
            return Ok(());
        }
        let mut left = Bytes::from(std::mem::take(&mut self.outgoing));
        // Until all of it is sent: who goes away before leaves a request that nobody can complete.
        let was_over = std::mem::replace(&mut self.is_over, true);
        while !left.is_empty() {
            let part = left.split_to(left.len().min(PROGRESS_BYTES));
            match timeout(self.limit, self.channel.send(part, &mut self.incoming)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(self.broken(error)),
                Err(_) => return Err(self.late()),
            }
        }
        self.is_over = was_over;
        Ok(())
    }

    fn broken(&mut self, error: io::Error) -> Failure {
        self.is_over = true;
        Failure::Broken(error)
    }

    fn late(&mut self) -> Failure {
        self.is_over = true;
        Failure::Late
    }

    /// The same of content on its way, which a connection that breaks has interrupted.
    pub(super) fn interrupted(&self, attempt: &str, failure: Failure) -> Error {
        let is_broken = matches!(failure, Failure::Broken(_));
        let error = self.error(attempt, failure);
        if is_broken && error.kind() == ErrorKind::Unavailable { error.of_kind(ErrorKind::Interrupted) } else { error }
    }

    /// A failure for whoever asked for the operation: what was attempted, such as `read /inbox/a.csv`.
    pub(super) fn error(&self, attempt: &str, failure: Failure) -> Error {
        let server = &self.server;
        match failure {
            Failure::Refused(status) => {
                let Status { code, message } = &status;
                let said = if message.is_empty() { format!("status {code}") } else { message.clone() };
                Error::new(kind_of(*code), format!("the SFTP server {server} refused to {attempt}: {said}"))
            }
            Failure::Late => Error::new(
                ErrorKind::Timeout,
                format!("the SFTP server {server} did not answer within {:?}: {attempt}", self.limit),
            ),
            Failure::Broken(error) => Error::new(
                ErrorKind::Unavailable,
                format!("the connection to the SFTP server {server} broke: {attempt}"),
            )
            .with_source(error),
            Failure::Malformed(malformed) => Error::new(
                ErrorKind::Unavailable,
                format!("the SFTP server {server} does not keep to the protocol: {attempt}"),
            )
            .with_source(malformed),
        }
    }
}

/// What a refusal with a status is to the caller when nothing more is known of it.
fn kind_of(code: u32) -> ErrorKind {
    match code {
        status::NO_SUCH_FILE | status::NO_SUCH_PATH => ErrorKind::NotFound,
        status::PERMISSION_DENIED | status::WRITE_PROTECT => ErrorKind::Denied,
        status::FILE_ALREADY_EXISTS => ErrorKind::AlreadyExists,
        status::BAD_MESSAGE => ErrorKind::Invalid,
        status::OP_UNSUPPORTED => ErrorKind::Unsupported,
        status::NO_CONNECTION | status::CONNECTION_LOST | status::NO_SPACE | status::QUOTA_EXCEEDED => {
            ErrorKind::Unavailable
        }
        status::DIRECTORY_NOT_EMPTY | status::NOT_A_DIRECTORY | status::FILE_IS_A_DIRECTORY => ErrorKind::Conflict,
        // `FAILURE` is what OpenSSH says to everything else that an operating system may refuse.
        _ => ErrorKind::Conflict,
    }
}

/// What was answered, where a refusal is an answer too.
pub(super) fn unless_refused<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(failure) if failure.is_refusal() => Ok(None),
        Err(failure) => Err(failure),
    }
}
