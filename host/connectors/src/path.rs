//! Paths on a remote: absolute, `/`-separated, UTF-8, and unable to leave the folder they are put under.
//!
//! The only constructors refuse what could escape a jail. Knows no protocol and no file system.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Longest path in bytes: PATH_MAX of Linux, more than any server here accepts.
pub const PATH_BYTES_MAX: usize = 4096;

/// An absolute path within a connection, such as `/inbox/report.csv`. The root is `/`.
///
/// A byte of a name that is not UTF-8 stands as a character from `U+EF80` to `U+EFFF`; where the remote's names are bytes,
/// so do, from `U+EF01`, those that a path cannot hold, see [`name_of`].
///
/// Holds no `..`, no `.`, no empty component, no backslash (a separator for servers on Windows) and no control
/// character (CR and LF end a command in FTP).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(String);

impl RemotePath {
    /// The root, `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses a path as a person or a guest writes it: a missing leading `/` is added, a trailing one dropped.
    ///
    /// # Errors
    /// `Invalid`, naming the offending part, for anything that [`RemotePath`] cannot hold, and for more than
    /// [`PATH_BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("path {text:?} {why}")));
        if text.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a path of {} bytes is longer than {PATH_BYTES_MAX}", text.len()),
            ));
        }
        let trimmed = text.strip_prefix('/').unwrap_or(text);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        for component in trimmed.split('/') {
            match component {
                "" => return invalid("has an empty component"),
                "." | ".." => return invalid("must not have '.' or '..' as a component"),
                _ if component.contains('\\') => return invalid("must not contain a backslash"),
                // What is a name here is a way out for a server on Windows.
                _ if component.split(BACKSLASH).any(|part| part == "..") => {
                    return invalid("must not have '..' beside a backslash");
                }
                _ if component.chars().any(char::is_control) => {
                    return invalid("must not contain a control character");
                }
                _ => {}
            }
        }
        Ok(Self(format!("/{trimmed}")))
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// `Invalid` when `name` is not a single valid component: what a hostile server lists is checked here.
    pub fn join(&self, name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.contains('/') {
            return Err(Error::new(ErrorKind::Invalid, format!("{name:?} is not a file name")));
        }
        Self::parse(&if self.is_root() { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            None | Some(0) => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].to_owned())),
        }
    }

    /// Whether this path is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root()
            || self.0.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The innermost of some folders that this path lies in, if it lies in any.
    pub(crate) fn innermost<'a>(&self, folders: &'a [Self]) -> Option<&'a Self> {
        folders.iter().filter(|folder| self.is_within(folder)).max_by_key(|folder| folder.0.len())
    }

    /// This path as seen from outside a jail whose root is `folder`.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Self {
        match (folder.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (false, true) => folder.clone(),
            (false, false) => Self(format!("{}{}", folder.0, self.0)),
        }
    }

    /// This path as seen from inside a jail whose root is `folder`; `None` when it is not within.
    pub fn relative_to(&self, folder: &Self) -> Option<Self> {
        if !self.is_within(folder) {
            return None;
        }
        if folder.is_root() {
            return Some(self.clone());
        }
        match &self.0[folder.0.len()..] {
            "" => Some(Self::root()),
            rest => Some(Self(rest.to_owned())),
        }
    }

    /// The components in order; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }
}

/// Where the bytes of a name that is not UTF-8 are put: byte `0x80` at `U+EF80`, `0xFF` at `U+EFFF`. The range is for
/// private use, and MirBSD and others use it so.
const BYTE_ESCAPES: std::ops::RangeInclusive<u32> = 0xEF80..=0xEFFF;

/// The same for bytes of ASCII that a path cannot hold.
const LOW_ESCAPES: std::ops::RangeInclusive<u32> = 0xEF00..=0xEF7F;

/// A name on the wire as text: as it is where it is UTF-8; otherwise each offending byte becomes one character for
/// private use. [`bytes_of`] is the inverse, so that every name that can be listed can be read and deleted, too.
pub fn text_of(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let escape = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().filter_map(|byte| char::from_u32(BYTE_ESCAPES.start() - 0x80 + u32::from(*byte))));
    };
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            // A character that looks like an escape must not become a byte on the way back.
            if BYTE_ESCAPES.contains(&u32::from(character)) {
                escape(&mut text, character.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(character);
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

/// A backslash in a name, as a path holds it.
const BACKSLASH: char = '\u{ef5c}';

/// A name on the wire as a path holds it: as [`text_of`], and each byte of what a path cannot hold, a backslash or a
/// control character, becomes one character for private use, too (`0x0A` is `U+EF0A`). [`wire_name_of`] is the inverse.
pub fn name_of(bytes: &[u8]) -> String {
    let is_unfit = |character: &char| *character == '\\' || (character.is_control() && *character != '\0');
    let mut name = String::with_capacity(bytes.len());
    for character in text_of(bytes).chars() {
        match u32::from(character) {
            code if LOW_ESCAPES.contains(&code) => escape_all(&mut name, character),
            _ if is_unfit(&character) => escape_all(&mut name, character),
            _ => name.push(character),
        }
    }
    name
}

fn escape_all(name: &mut String, character: char) {
    let mut buffer = [0; 4];
    let bytes = character.encode_utf8(&mut buffer).bytes();
    name.extend(bytes.filter_map(|byte| char::from_u32(LOW_ESCAPES.start() + u32::from(byte))));
}

/// The bytes on the wire of what [`name_of`] made. No slash comes of it, and no zero.
pub(crate) fn wire_name_of(name: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(name.len());
    for character in name.chars() {
        match u32::from(character).checked_sub(*LOW_ESCAPES.start()).and_then(|byte| u8::try_from(byte).ok()) {
            Some(byte @ (0x01..=0x1f | b'\\' | 0x7f..)) => bytes.push(byte),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

/// A name that was read in another encoding than UTF-8 as a path holds it: each character that a path cannot hold, all of
/// which are below U+00A0, becomes one for private use. [`character_of`] is the inverse.
pub(crate) fn name_of_text(text: &str) -> String {
    let is_unfit = |character: char| character == '\\' || (character.is_control() && character != '\0');
    let escape = |character| char::from_u32(LOW_ESCAPES.start() + u32::from(character)).unwrap_or(character);
    text.chars().map(|character| if is_unfit(character) { escape(character) } else { character }).collect()
}

/// The character that [`name_of_text`] has put into a name in this form.
pub(crate) fn character_of(character: char) -> char {
    match u32::from(character).checked_sub(*LOW_ESCAPES.start()) {
        Some(code @ (0x01..=0x1f | 0x5c | 0x7f..=0x9f)) => char::from_u32(code).unwrap_or(character),
        _ => character,
    }
}

/// As [`text_of`], for bytes that are no UTF-8 even where they look like it: every byte beyond ASCII is escaped.
pub(crate) fn text_of_bytes(bytes: &[u8]) -> String {
    let escape = |byte: &u8| match byte {
        0..0x80 => char::from(*byte),
        _ => char::from_u32(BYTE_ESCAPES.start() - 0x80 + u32::from(*byte)).unwrap_or(char::REPLACEMENT_CHARACTER),
    };
    bytes.iter().map(escape).collect()
}

/// Whether a text has bytes in it that are none of its encoding.
pub(crate) fn has_escapes(text: &str) -> bool {
    text.chars().any(|character| BYTE_ESCAPES.contains(&u32::from(character)))
}

/// The bytes on the wire of what [`text_of`] made.
pub fn bytes_of(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    for character in text.chars() {
        match u32::from(character) {
            code if BYTE_ESCAPES.contains(&code) => bytes.push((code - BYTE_ESCAPES.start()) as u8 + 0x80),
            _ => bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    bytes
}

impl fmt::Display for RemotePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_absolute_however_it_is_written() {
        for text in ["inbox/report.csv", "/inbox/report.csv", "/inbox/report.csv/", "inbox/report.csv/"] {
            assert_eq!(path(text).as_str(), "/inbox/report.csv");
        }
        for text in ["", "/"] {
            assert!(path(text).is_root(), "{text:?}");
        }
    }

    #[test]
    fn what_could_lead_out_or_end_a_command_is_refused() {
        let refused = [
            "..",
            "/..",
            "a/../b",
            "/a/..",
            ".",
            "a/./b",
            "///",
            "a//b",
            "/a//",
            "a\\b",
            "..\\a",
            "a\nDELE b",
            "a\rb",
            "a\0b",
            "a\u{7f}",
            "a\u{85}b",
        ];
        for text in refused {
            let error = RemotePath::parse(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text:?}");
        }
    }

    #[test]
    fn a_path_longer_than_servers_take_is_refused_without_being_repeated() {
        let error = RemotePath::parse(&"a".repeat(PATH_BYTES_MAX + 1)).unwrap_err();
        assert!(error.to_string().len() < 200);
        assert!(RemotePath::parse(&"a".repeat(PATH_BYTES_MAX - 1)).is_ok());
    }

    #[test]
    fn a_name_that_is_no_single_component_cannot_be_joined() {
        for name in ["", "/", "a/b", "/etc/passwd", "..", ".", "a\\b", "a\n"] {
            assert!(path("/inbox").join(name).is_err(), "{name:?}");
            assert!(RemotePath::root().join(name).is_err(), "{name:?}");
        }
        assert_eq!(path("/inbox").join("...").unwrap().as_str(), "/inbox/...");
        assert_eq!(RemotePath::root().join(" a ").unwrap().as_str(), "/ a ");
    }

    #[test]
    fn a_folder_holds_itself_and_what_is_below_but_not_its_namesakes() {
        let folder = path("/team");
        assert!(folder.is_within(&folder));
        assert!(path("/team/a").is_within(&folder));
        assert!(!path("/teammates").is_within(&folder));
        assert!(!RemotePath::root().is_within(&folder));
        assert!(folder.is_within(&RemotePath::root()));
        assert_eq!(path("/teammates").relative_to(&folder), None);
        assert_eq!(folder.relative_to(&folder), Some(RemotePath::root()));
    }

    #[test]
    fn the_parent_of_the_root_is_nothing() {
        assert_eq!(RemotePath::root().parent(), None);
        assert_eq!(path("/a").parent(), Some(RemotePath::root()));
        assert_eq!(path("/a/b").parent(), Some(path("/a")));
        assert_eq!(RemotePath::root().name(), "");
        assert_eq!(path("/a/b").name(), "b");
    }

    #[test]
    fn a_name_that_is_not_utf8_is_told_in_characters_for_private_use() {
        assert_eq!(text_of(b"gr\xfc\xdfe.txt"), "gr\u{effc}\u{efdf}e.txt");
        assert_eq!(bytes_of(&text_of(b"\xff\xfe")), b"\xff\xfe");
        assert_eq!(text_of("größe 🚢".as_bytes()), "größe 🚢");
    }

    proptest! {
        #[test]
        fn every_name_on_the_wire_comes_back_as_it_was(name in proptest::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(bytes_of(&text_of(&name)), name);
        }

        #[test]
        fn every_name_without_a_slash_can_be_held_by_a_path_and_comes_back(
            name in proptest::collection::vec(any::<u8>().prop_filter("", |byte| !b"\0/".contains(byte)), 1..40)
        ) {
            let text = name_of(&name);
            prop_assert_eq!(wire_name_of(&text), &name[..]);
            let leads_up = name.split(|byte| *byte == b'\\').any(|part| part == b"..");
            prop_assert_eq!(RemotePath::root().join(&text).is_ok(), name != b"." && !leads_up);
        }

        #[test]
        fn no_text_becomes_a_slash_or_a_zero_on_the_wire(text in "[^/\0]{0,10}|[\u{ee00}-\u{f001}]{0,10}") {
            prop_assert!(!wire_name_of(&text).iter().any(|byte| b"\0/".contains(byte)));
        }

        #[test]
        fn a_private_character_in_a_name_survives(name in "[a\u{eeff}-\u{f001}]{0,10}") {
            prop_assert_eq!(bytes_of(&text_of(name.as_bytes())), name.as_bytes());
            prop_assert_eq!(wire_name_of(&name_of(name.as_bytes())), name.as_bytes());
        }

        #[test]
        fn no_text_makes_a_path_that_leads_out(text in "(?s)[./\\\\a-c\n]{0,24}|.{0,40}") {
            if let Ok(path) = RemotePath::parse(&text) {
                prop_assert!(path.as_str().starts_with('/'));
                prop_assert!(!path.as_str().contains("//"));
                prop_assert!(path.components().all(|name| name != ".." && name != "." && !name.contains('\\')));
                prop_assert!(!path.as_str().contains(char::is_control));
                prop_assert_eq!(RemotePath::parse(path.as_str()).unwrap(), path);
            }
        }

        #[test]
        fn inside_and_outside_are_inverse(folder in "(/[a-z.]{3,5}){0,3}", inner in "(/[a-z ]{1,5}){0,3}") {
            let (folder, inner) = (path(&folder), path(&inner));
            let outer = inner.below(&folder);
            prop_assert!(outer.is_within(&folder));
            prop_assert_eq!(outer.relative_to(&folder), Some(inner));
        }

        #[test]
        fn what_was_joined_is_the_name_and_its_folder_the_parent(folder in "(/[a-z]{1,5}){0,3}", name in "[^/]{1,20}") {
            let folder = path(&folder);
            if let Ok(joined) = folder.join(&name) {
                prop_assert_eq!(joined.name(), name);
                prop_assert_eq!(joined.parent(), Some(folder));
            }
        }
    }
}
