//! What travels between us and Dropbox: the shapes of its answers, and JSON written so that a header can carry it.
//!
//! Only the fields that are used; Dropbox adds others at any time. Knows neither calls nor errors.

use std::time::SystemTime;

use ::http::HeaderValue;
use serde::de::{Deserializer, IgnoredAny};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// What Dropbox says of a file, folder or deleted entry.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Metadata {
    /// Absent where the route leaves no choice.
    #[serde(rename = ".tag")]
    pub(super) tag: Option<String>,
    pub(super) name: String,
    pub(super) path_display: Option<String>,
    pub(super) path_lower: Option<String>,
    pub(super) id: Option<String>,
    pub(super) rev: Option<String>,
    pub(super) size: Option<u64>,
    pub(super) content_hash: Option<String>,
    #[serde(default, deserialize_with = "time")]
    pub(super) server_modified: Option<SystemTime>,
    #[serde(default, deserialize_with = "time")]
    pub(super) client_modified: Option<SystemTime>,
    symlink_info: Option<IgnoredAny>,
}

/// What a metadata is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Symlink,
    Folder,
    Deleted,
    /// A tag from the future.
    Other,
}

impl Metadata {
    pub(super) fn kind(&self) -> Kind {
        match self.tag.as_deref() {
            Some("file") if self.symlink_info.is_some() => Kind::Symlink,
            Some("file") => Kind::File,
            Some("folder") => Kind::Folder,
            Some("deleted") => Kind::Deleted,
            Some(_) => Kind::Other,
            // Only files have revisions.
            None if self.rev.is_some() => Kind::File,
            None => Kind::Folder,
        }
    }
}

/// One page of a listing.
#[derive(Debug, Deserialize)]
pub(super) struct Listing {
    pub(super) entries: Vec<Metadata>,
    pub(super) cursor: String,
    pub(super) has_more: bool,
}

/// The answer of routes that change one entry.
#[derive(Debug, Deserialize)]
pub(super) struct Changed {
    pub(super) metadata: Metadata,
}

/// An access token, from the token endpoint (RFC 6749 section 5.1).
#[derive(Deserialize)]
pub(super) struct Granted {
    pub(super) access_token: String,
    /// Seconds. Dropbox says 14400.
    pub(super) expires_in: Option<u64>,
    /// What the token allows, where Dropbox says: names with spaces between them.
    pub(super) scope: Option<String>,
}

/// A time in whole seconds, `2015-05-12T15:50:38Z`. What cannot be read as a time is none: one odd entry must not
/// make a listing unreadable.
pub(super) fn time<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SystemTime>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    Ok(text.and_then(|text| text.parse::<jiff::Timestamp>().ok()).map(SystemTime::from))
}

/// A time as Dropbox takes it: whole seconds in UTC.
pub(super) fn write_time(time: SystemTime) -> Result<String, Error> {
    let invalid = |error| Error::new(ErrorKind::Invalid, "the time of last change is out of range").with_source(error);
    let time = jiff::Timestamp::try_from(time).map_err(invalid)?;
    Ok(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A path as Dropbox takes it: the root is empty.
pub(super) fn write_path(path: &RemotePath) -> &str {
    if path.is_root() { "" } else { path.as_str() }
}

/// JSON as a header value: every character other than the printable ones of ASCII is written as its UTF-16 units,
/// `\uXXXX` (<https://www.dropbox.com/developers/reference/json-encoding>).
pub(super) fn header_json(value: &impl Serialize) -> Result<HeaderValue, Error> {
    let internal = || Error::new(ErrorKind::Internal, "cannot write the argument of a call as a header");
    let json = serde_json::to_string(value).map_err(|error| internal().with_source(error))?;
    HeaderValue::from_str(&escape(&json)).map_err(|error| internal().with_source(error))
}

fn escape(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    let mut units = [0; 2];
    for character in json.chars() {
        if matches!(character, ' '..='~') {
            escaped.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_beyond_ascii_become_utf_16_units() {
        assert_eq!(escape("\"a\u{7f}\u{e9}\u{1f600}\""), r#""a\u007f\u00e9\ud83d\ude00""#);
    }

    proptest! {
        #[test]
        fn an_escaped_header_reads_back_as_it_was(text in any::<String>()) {
            let header = header_json(&serde_json::json!({ "path": text })).unwrap();
            prop_assert!(header.as_bytes().iter().all(|byte| (0x20..=0x7e).contains(byte)));
            let read: serde_json::Value = serde_json::from_slice(header.as_bytes()).unwrap();
            prop_assert_eq!(read["path"].as_str(), Some(text.as_str()));
        }

        #[test]
        fn metadata_of_any_shape_is_read_or_refused_without_panic(text in any::<String>()) {
            let _ = serde_json::from_str::<Metadata>(&text);
            let odd = serde_json::json!({ "name": text, ".tag": text, "server_modified": text, "size": 1 });
            let metadata: Metadata = serde_json::from_value(odd).unwrap();
            prop_assert_eq!(metadata.name, text);
        }
    }

    #[test]
    fn a_time_survives_in_whole_seconds() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(1_431_445_838_900);
        assert_eq!(write_time(time).unwrap(), "2015-05-12T15:50:38Z");
        let json = r#"{"name":"a","rev":"1","server_modified":"2015-05-12T15:50:38Z","symlink_info":null}"#;
        let metadata: Metadata = serde_json::from_str(json).unwrap();
        assert_eq!(metadata.server_modified, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_431_445_838)));
        assert_eq!(metadata.kind(), Kind::File);
    }
}
