//! The packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), and the extensions of OpenSSH (its file PROTOCOL,
//! section 4): how a request is written and a reply is read.
//!
//! Names and handles are bytes. What a server sends is believed in nothing: every length is held against what is there.
//! Knows no connection and no operation.

use std::fmt;

use bytes::{Buf, Bytes};

/// The version that is spoken: the one that every server has.
pub(super) const VERSION: u32 = 3;

/// Longest packet that is read or written, its length field not counted: the limit of OpenSSH on both sides.
pub(super) const PACKET_BYTES_MAX: usize = 256 * 1024;

/// Names in one reply; a packet as long as can be holds fewer.
const NAMES_MAX: usize = PACKET_BYTES_MAX / 12;

/// Kinds of packets (section 3 of the draft).
pub(super) mod kind {
    pub(in crate::sftp) const INIT: u8 = 1;
    pub(in crate::sftp) const VERSION: u8 = 2;
    pub(in crate::sftp) const OPEN: u8 = 3;
    pub(in crate::sftp) const CLOSE: u8 = 4;
    pub(in crate::sftp) const READ: u8 = 5;
    pub(in crate::sftp) const WRITE: u8 = 6;
    pub(in crate::sftp) const LSTAT: u8 = 7;
    pub(in crate::sftp) const FSTAT: u8 = 8;
    pub(in crate::sftp) const SETSTAT: u8 = 9;
    pub(in crate::sftp) const FSETSTAT: u8 = 10;
    pub(in crate::sftp) const OPENDIR: u8 = 11;
    pub(in crate::sftp) const READDIR: u8 = 12;
    pub(in crate::sftp) const REMOVE: u8 = 13;
    pub(in crate::sftp) const MKDIR: u8 = 14;
    pub(in crate::sftp) const RMDIR: u8 = 15;
    pub(in crate::sftp) const REALPATH: u8 = 16;
    pub(in crate::sftp) const STAT: u8 = 17;
    pub(in crate::sftp) const RENAME: u8 = 18;
    pub(in crate::sftp) const READLINK: u8 = 19;
    pub(in crate::sftp) const SYMLINK: u8 = 20;
    pub(in crate::sftp) const STATUS: u8 = 101;
    pub(in crate::sftp) const HANDLE: u8 = 102;
    pub(in crate::sftp) const DATA: u8 = 103;
    pub(in crate::sftp) const NAME: u8 = 104;
    pub(in crate::sftp) const ATTRS: u8 = 105;
    pub(in crate::sftp) const EXTENDED: u8 = 200;
    pub(in crate::sftp) const EXTENDED_REPLY: u8 = 201;
}

/// How a file is opened (section 6.3 of the draft).
pub(super) mod open {
    pub(in crate::sftp) const READ: u32 = 1;
    pub(in crate::sftp) const WRITE: u32 = 2;
    pub(in crate::sftp) const APPEND: u32 = 4;
    pub(in crate::sftp) const CREATE: u32 = 8;
    pub(in crate::sftp) const EXCLUSIVE: u32 = 32;
}

/// What a status says (section 7 of the draft; from 10 on of later versions, which some servers mix in).
pub(super) mod status {
    pub(in crate::sftp) const OK: u32 = 0;
    pub(in crate::sftp) const EOF: u32 = 1;
    pub(in crate::sftp) const NO_SUCH_FILE: u32 = 2;
    pub(in crate::sftp) const PERMISSION_DENIED: u32 = 3;
    pub(in crate::sftp) const FAILURE: u32 = 4;
    pub(in crate::sftp) const BAD_MESSAGE: u32 = 5;
    pub(in crate::sftp) const NO_CONNECTION: u32 = 6;
    pub(in crate::sftp) const CONNECTION_LOST: u32 = 7;
    pub(in crate::sftp) const OP_UNSUPPORTED: u32 = 8;
    pub(in crate::sftp) const NO_SUCH_PATH: u32 = 10;
    pub(in crate::sftp) const FILE_ALREADY_EXISTS: u32 = 11;
    pub(in crate::sftp) const WRITE_PROTECT: u32 = 12;
    pub(in crate::sftp) const NO_SPACE: u32 = 14;
    pub(in crate::sftp) const QUOTA_EXCEEDED: u32 = 15;
    pub(in crate::sftp) const DIRECTORY_NOT_EMPTY: u32 = 18;
    pub(in crate::sftp) const NOT_A_DIRECTORY: u32 = 19;
    pub(in crate::sftp) const FILE_IS_A_DIRECTORY: u32 = 24;
}

/// Which attributes there are (section 5 of the draft).
mod flag {
    pub(super) const SIZE: u32 = 1;
    pub(super) const OWNER: u32 = 2;
    pub(super) const MODE: u32 = 4;
    pub(super) const TIMES: u32 = 8;
    pub(super) const EXTENDED: u32 = 0x8000_0000;
}

/// The bits of a mode that tell what a file is, and their values (`S_IFMT` of POSIX).
mod file_type {
    pub(super) const MASK: u32 = 0o170_000;
    pub(super) const DIRECTORY: u32 = 0o040_000;
    pub(super) const REGULAR: u32 = 0o100_000;
    pub(super) const LINK: u32 = 0o120_000;
}

/// What is told of a file, or is to be changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Attributes {
    /// Bytes.
    pub(super) size: Option<u64>,
    /// User and group, by number.
    pub(super) owner: Option<(u32, u32)>,
    /// Kind and permissions, as POSIX has them.
    pub(super) mode: Option<u32>,
    /// Last access and last change, in seconds since 1970.
    pub(super) times: Option<(u32, u32)>,
}

impl Attributes {
    pub(super) fn is_directory(&self) -> bool {
        self.is_type(file_type::DIRECTORY)
    }

    pub(super) fn is_file(&self) -> bool {
        self.is_type(file_type::REGULAR)
    }

    pub(super) fn is_link(&self) -> bool {
        self.is_type(file_type::LINK)
    }

    fn is_type(&self, wanted: u32) -> bool {
        self.mode.is_some_and(|mode| mode & file_type::MASK == wanted)
    }
}

/// One name of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub(super) name: Bytes,
    /// A line as `ls -l` prints it; its form is the server's.
    pub(super) long: Bytes,
    pub(super) attributes: Attributes,
}

/// A status with the server's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) code: u32,
    pub(super) message: String,
}

/// What a server answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reply {
    Status(Status),
    Handle(Bytes),
    Data(Bytes),
    Names(Vec<Name>),
    Attributes(Attributes),
    Extended(Bytes),
}

/// A packet that breaks the protocol, with what is wrong about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.0)
    }
}

impl std::error::Error for Malformed {}

/// A request on its way into a buffer. [`Request::end`] makes it whole.
pub(super) struct Request<'a> {
    buffer: &'a mut Vec<u8>,
    start: usize,
}

impl<'a> Request<'a> {
    /// The first packet of a connection: a version in the place of a number.
    pub(super) fn init(buffer: &'a mut Vec<u8>) -> Self {
        Self::begin(buffer, kind::INIT, VERSION)
    }

    pub(super) fn begin(buffer: &'a mut Vec<u8>, kind: u8, id: u32) -> Self {
        let start = buffer.len();
        buffer.extend_from_slice(&[0; 4]);
        buffer.push(kind);
        let request = Self { buffer, start };
        request.u32(id)
    }

    pub(super) fn u32(self, value: u32) -> Self {
        self.buffer.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn u64(self, value: u64) -> Self {
        self.buffer.extend_from_slice(&value.to_be_bytes());
        self
    }

    pub(super) fn string(self, value: &[u8]) -> Self {
        let request = self.u32(value.len() as u32);
        request.buffer.extend_from_slice(value);
        request
    }

    /// A string that is in several pieces.
    pub(super) fn parts(self, parts: &[Bytes]) -> Self {
        let request = self.u32(parts.iter().map(|part| part.len() as u32).sum());
        for part in parts {
            request.buffer.extend_from_slice(part);
        }
        request
    }

    pub(super) fn attributes(self, attributes: &Attributes) -> Self {
        let Attributes { size, owner, mode, times } = attributes;
        let mut flags = 0;
        for (is_there, flag) in [
            (size.is_some(), flag::SIZE),
            (owner.is_some(), flag::OWNER),
            (mode.is_some(), flag::MODE),
            (times.is_some(), flag::TIMES),
        ] {
            flags |= if is_there { flag } else { 0 };
        }
        let mut request = self.u32(flags);
        if let Some(size) = size {
            request = request.u64(*size);
        }
        if let Some((user, group)) = owner {
            request = request.u32(*user).u32(*group);
        }
        if let Some(mode) = mode {
            request = request.u32(*mode);
        }
        if let Some((accessed, modified)) = times {
            request = request.u32(*accessed).u32(*modified);
        }
        request
    }

    pub(super) fn end(self) {
        let length = (self.buffer.len() - self.start - 4) as u32;
        self.buffer[self.start..self.start + 4].copy_from_slice(&length.to_be_bytes());
    }
}

/// The length of the packet that begins with these bytes; `None` when there are not enough of them yet.
pub(super) fn packet_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some(prefix) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*prefix) as usize;
    match length {
        // A kind and a number.
        0..5 => Err(Malformed("a packet is too short to be one")),
        5..=PACKET_BYTES_MAX => Ok(Some(length)),
        _ => Err(Malformed("a packet is longer than 256 KiB")),
    }
}

/// The extensions and their data in the server's first packet, without its length field.
pub(super) fn read_version(packet: Bytes) -> Result<Vec<(Bytes, Bytes)>, Malformed> {
    let mut fields = Fields(packet);
    if fields.u8()? != kind::VERSION {
        return Err(Malformed("the first packet tells no version"));
    }
    if fields.u32()? < VERSION {
        return Err(Malformed("it speaks a version older than 3"));
    }
    let mut extensions = Vec::new();
    while !fields.is_empty() {
        extensions.push((fields.string()?, fields.string()?));
    }
    Ok(extensions)
}

/// A reply and the number of the request that it answers, from a packet without its length field.
pub(super) fn read_reply(packet: Bytes) -> Result<(u32, Reply), Malformed> {
    let mut fields = Fields(packet);
    let kind = fields.u8()?;
    let id = fields.u32()?;
    let reply = match kind {
        kind::STATUS => {
            let code = fields.u32()?;
            // Old servers leave the text out.
            let message = if fields.is_empty() { Bytes::new() } else { fields.string()? };
            Reply::Status(Status { code, message: printable(&message) })
        }
        kind::HANDLE => Reply::Handle(fields.string()?),
        kind::DATA => Reply::Data(fields.string()?),
        kind::NAME => Reply::Names(read_names(&mut fields)?),
        kind::ATTRS => Reply::Attributes(read_attributes(&mut fields)?),
        kind::EXTENDED_REPLY => Reply::Extended(fields.0),
        _ => return Err(Malformed("a reply is of an unknown kind")),
    };
    Ok((id, reply))
}

fn read_names(fields: &mut Fields) -> Result<Vec<Name>, Malformed> {
    let count = fields.u32()? as usize;
    if count > NAMES_MAX {
        return Err(Malformed("a reply announces more names than a packet can hold"));
    }
    let mut names = Vec::new();
    for _ in 0..count {
        names.push(Name { name: fields.string()?, long: fields.string()?, attributes: read_attributes(fields)? });
    }
    Ok(names)
}

fn read_attributes(fields: &mut Fields) -> Result<Attributes, Malformed> {
    let flags = fields.u32()?;
    let has = |flag: u32| flags & flag != 0;
    let mut attributes = Attributes::default();
    if has(flag::SIZE) {
        attributes.size = Some(fields.u64()?);
    }
    if has(flag::OWNER) {
        attributes.owner = Some((fields.u32()?, fields.u32()?));
    }
    if has(flag::MODE) {
        attributes.mode = Some(fields.u32()?);
    }
    if has(flag::TIMES) {
        attributes.times = Some((fields.u32()?, fields.u32()?));
    }
    if has(flag::EXTENDED) {
        for _ in 0..fields.u32()? {
            let (_name, _data) = (fields.string()?, fields.string()?);
        }
    }
    Ok(attributes)
}

/// What is left to read of a packet.
pub(super) struct Fields(pub(super) Bytes);

impl Fields {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| SHORT)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| SHORT)
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        self.0.try_get_u64().map_err(|_| SHORT)
    }

    pub(super) fn string(&mut self) -> Result<Bytes, Malformed> {
        let length = self.u32()? as usize;
        if length > self.0.len() {
            return Err(SHORT);
        }
        Ok(self.0.split_to(length))
    }
}

const SHORT: Malformed = Malformed("a packet ends in the middle of a field");

/// Text of a server for a message: one line, and not endless.
pub(super) fn printable(text: &[u8]) -> String {
    const CHARACTERS_MAX: usize = 200;
    let text = String::from_utf8_lossy(text);
    text.trim()
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(CHARACTERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A request without its length field, as a server reads it.
    fn sent(build: impl FnOnce(Request<'_>)) -> Bytes {
        let mut buffer = Vec::new();
        build(Request::begin(&mut buffer, kind::ATTRS, 7));
        assert_eq!(packet_length(&buffer), Ok(Some(buffer.len() - 4)));
        Bytes::from(buffer).slice(4..)
    }

    fn attributes() -> impl Strategy<Value = Attributes> {
        let fields =
            (any::<Option<u64>>(), any::<Option<(u32, u32)>>(), any::<Option<u32>>(), any::<Option<(u32, u32)>>());
        fields.prop_map(|(size, owner, mode, times)| Attributes { size, owner, mode, times })
    }

    #[test]
    fn a_packet_of_absurd_length_is_refused_before_it_is_read() {
        for length in [0_u32, 4, PACKET_BYTES_MAX as u32 + 1, u32::MAX] {
            assert!(packet_length(&length.to_be_bytes()).is_err(), "{length}");
        }
        assert_eq!(packet_length(&[0, 0, 0]), Ok(None));
        assert_eq!(packet_length(&(PACKET_BYTES_MAX as u32).to_be_bytes()), Ok(Some(PACKET_BYTES_MAX)));
    }

    #[test]
    fn a_reply_that_announces_more_than_it_holds_is_refused() {
        let endless_names = [&[kind::NAME][..], &7_u32.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
        assert!(read_reply(endless_names.into()).is_err());
        let long_string = [&[kind::DATA][..], &7_u32.to_be_bytes(), &u32::MAX.to_be_bytes(), b"abc"].concat();
        assert_eq!(read_reply(long_string.into()), Err(SHORT));
        let endless_extensions =
            [&[kind::ATTRS][..], &7_u32.to_be_bytes(), &flag::EXTENDED.to_be_bytes(), &u32::MAX.to_be_bytes()].concat();
        assert_eq!(read_reply(endless_extensions.into()), Err(SHORT));
    }

    #[test]
    fn the_version_tells_the_extensions() {
        let mut buffer = Vec::new();
        let packet = Request::begin(&mut buffer, kind::VERSION, VERSION);
        packet.string(b"posix-rename@openssh.com").string(b"1").end();
        let extensions = read_version(Bytes::from(buffer).slice(4..)).unwrap();
        assert_eq!(extensions, [(Bytes::from("posix-rename@openssh.com"), Bytes::from("1"))]);
        assert!(read_version(Bytes::from_static(&[kind::VERSION, 0, 0, 0, 2])).is_err());
        assert!(read_version(Bytes::from_static(&[kind::STATUS, 0, 0, 0, 3])).is_err());
    }

    proptest! {
        #[test]
        fn attributes_are_read_as_they_were_written(attributes in attributes()) {
            let packet = sent(|request| request.attributes(&attributes).end());
            prop_assert_eq!(read_reply(packet), Ok((7, Reply::Attributes(attributes))));
        }

        #[test]
        fn no_bytes_make_the_reader_fail_otherwise_than_by_an_error(packet in prop::collection::vec(any::<u8>(), 0..300)) {
            let _refused_or_not = read_reply(packet.clone().into());
            let _refused_or_not = read_version(packet.into());
        }

        #[test]
        fn no_reply_that_is_cut_off_is_taken_for_a_whole_one(attributes in attributes(), kept in 0.0..1.0) {
            let packet = sent(|request| request.attributes(&attributes).end());
            let kept = (packet.len() as f64 * kept) as usize;
            prop_assert!(read_reply(packet.slice(..kept)).is_err());
        }
    }
}
