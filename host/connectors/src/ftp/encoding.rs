//! How names travel: the bytes of a path in a command, and the text of a line of a listing.
//!
//! A name that is malformed in the encoding of its connection is told by characters for private use, one for each of
//! its bytes beyond ASCII, and what a path cannot hold, a backslash or a control character, by one of them, too (see
//! [`crate::path`]): so whatever is listed can be read and deleted. Knows no command.

use std::fmt;
use std::io;
use std::str::FromStr;

use crate::path;

/// A character encoding. UTF-8 is what RFC 2640 asks for.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Encoding(Form);

#[derive(Clone, Copy, PartialEq, Eq, Default)]
enum Form {
    #[default]
    Utf8,
    /// The bytes are the first 256 characters of Unicode. What the web calls by this name is windows-1252.
    Latin1,
    Other(&'static encoding_rs::Encoding),
}

/// A text that names no encoding that FTP can be spoken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoEncoding {
    /// No encoding has the name.
    #[error(
        "no encoding is known as {0:?}; known are utf-8, iso-8859-1, iso-8859-15, windows-1252, shift_jis and others"
    )]
    Unknown(String),
    /// In this one the bytes of ASCII mean something else, and so would commands and answers.
    #[error("{0:?} is an encoding in which ASCII does not stay ASCII, so FTP cannot be spoken in it")]
    NotAscii(String),
}

impl FromStr for Encoding {
    type Err = NoEncoding;

    /// The names of the WHATWG Encoding Standard, section 4.2, in any case; and ISO-8859-1 as itself.
    fn from_str(text: &str) -> Result<Self, NoEncoding> {
        let form = match text.to_ascii_lowercase().as_str() {
            "utf-8" | "utf8" => Form::Utf8,
            "iso-8859-1" | "iso8859-1" | "latin1" | "latin-1" => Form::Latin1,
            label => match encoding_rs::Encoding::for_label_no_replacement(label.as_bytes()) {
                Some(encoding) if encoding.is_ascii_compatible() => Form::Other(encoding),
                Some(_) => return Err(NoEncoding::NotAscii(text.to_owned())),
                None => return Err(NoEncoding::Unknown(text.to_owned())),
            },
        };
        Ok(Self(form))
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self.0 {
            Form::Utf8 => "utf-8",
            Form::Latin1 => "iso-8859-1",
            Form::Other(encoding) => encoding.name(),
        })
    }
}

impl fmt::Debug for Encoding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl Encoding {
    pub(super) fn is_utf8(self) -> bool {
        self.0 == Form::Utf8
    }

    /// Bytes as text.
    pub(super) fn text(self, bytes: &[u8]) -> String {
        match self.0 {
            Form::Utf8 => path::text_of(bytes),
            Form::Latin1 => bytes.iter().map(|byte| char::from(*byte)).collect(),
            Form::Other(encoding) => {
                let text = encoding.decode_without_bom_handling_and_without_replacement(bytes);
                match text {
                    // A byte that stands for a control character beyond ASCII is none of a name.
                    Some(text)
                        if !text.contains(|character| ('\u{80}'..='\u{9f}').contains(&character))
                            && self.bytes(&text).is_some_and(|again| again == bytes) =>
                    {
                        text.into_owned()
                    }
                    _ => path::text_of_bytes(bytes),
                }
            }
        }
    }

    /// A name in such a text as a path holds it; [`Encoding::bytes`] is the inverse of both, whatever the bytes.
    pub(super) fn name(self, text: &str) -> String {
        match self.0 {
            Form::Utf8 => path::name_of(&path::bytes_of(text)),
            Form::Latin1 | Form::Other(_) => path::name_of_text(text),
        }
    }

    /// What paths are made of as bytes; `None` when it has a character that the encoding has not.
    pub(super) fn bytes(self, text: &str) -> Option<Vec<u8>> {
        let characters = text.chars().map(path::character_of);
        match self.0 {
            Form::Utf8 => Some(path::wire_name_of(text)),
            Form::Latin1 => characters.map(|character| u8::try_from(u32::from(character)).ok()).collect(),
            Form::Other(_) if path::has_escapes(text) => Some(path::wire_name_of(text)),
            Form::Other(encoding) => {
                let text: String = characters.collect();
                let (bytes, _, is_lossy) = encoding.encode(&text);
                (!is_lossy).then(|| bytes.into_owned())
            }
        }
    }
}

impl suppaftp::Encoding for Encoding {
    fn decode(&self, bytes: &[u8]) -> String {
        self.text(bytes)
    }

    fn encode(&self, text: &str) -> io::Result<Vec<u8>> {
        self.bytes(text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, Unwritable(*self)))
    }
}

/// A text that cannot be written in the encoding of a connection.
#[derive(Debug, thiserror::Error)]
#[error("it has a character that {0} has not")]
struct Unwritable(Encoding);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn named(name: &str) -> Encoding {
        name.parse().unwrap()
    }

    #[test]
    fn names_are_written_as_the_encoding_writes_them() {
        assert_eq!(named("UTF-8").bytes("ä").unwrap(), b"\xc3\xa4");
        assert_eq!(named("ISO-8859-1").bytes("ä").unwrap(), b"\xe4");
        assert_eq!(named("iso-8859-1").text(b"\x80"), "\u{80}");
        assert_eq!(named("windows-1252").text(b"\x80 \xe4"), "€ ä");
        assert_eq!(named("windows-1252").bytes("€ ä").unwrap(), b"\x80 \xe4");
        assert_eq!(named("shift_jis").bytes("日本").unwrap(), b"\x93\xfa\x96\x7b");
        assert_eq!(named("koi8-r").text(b"\xd0\xd2\xc9\xd7\xc5\xd4"), "привет");
    }

    #[test]
    fn what_a_path_cannot_hold_has_another_character_in_it() {
        for encoding in ["utf-8", "iso-8859-1", "windows-1252", "shift_jis"].map(named) {
            assert_eq!(encoding.name("a\\b\tc\u{7f}"), "a\u{ef5c}b\u{ef09}c\u{ef7f}", "{encoding}");
            assert_eq!(encoding.bytes("a\u{ef5c}b\u{ef09}c\u{ef7f}").unwrap(), b"a\\b\tc\x7f", "{encoding}");
        }
        assert_eq!(
            named("utf-8").name(&named("utf-8").text("\u{9b}\u{ef5c}".as_bytes())),
            "\u{efc2}\u{ef9b}\u{efee}\u{efbd}\u{ef9c}"
        );
        assert_eq!(named("iso-8859-1").name("\u{9b}"), "\u{ef9b}");
        assert_eq!(named("iso-8859-1").bytes("\u{ef9b}").unwrap(), b"\x9b");
    }

    #[test]
    fn what_an_encoding_has_not_is_not_written() {
        assert_eq!(named("iso-8859-1").bytes("€"), None);
        assert_eq!(named("windows-1252").bytes("日"), None);
    }

    #[test]
    fn encodings_in_which_a_command_would_not_be_one_are_refused() {
        for name in ["utf-16", "utf-16le", "iso-2022-jp", "hz-gb-2312", "ebcdic", "", "latin"] {
            assert!(name.parse::<Encoding>().is_err(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_was_listed_can_be_asked_for(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            for encoding in ["utf-8", "iso-8859-1", "windows-1252", "shift_jis", "gb18030", "big5", "euc-jp", "koi8-r"] {
                let encoding = named(encoding);
                let told = encoding.name(&encoding.text(&name));
                prop_assert_eq!(encoding.bytes(&told), Some(name.clone()), "{}", encoding);
            }
        }
    }
}
