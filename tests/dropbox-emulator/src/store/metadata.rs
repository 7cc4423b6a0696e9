//! What the API says about one file, folder or deleted entry, and its JSON shape (files.stone: Metadata).
//!
//! A snapshot: it knows nothing of the namespace it was taken from.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::content::Content;

/// The form of every timestamp on the wire: UTC, whole seconds.
const TIMESTAMP_FORMAT: &str = "%Y-%m-%dT%H:%M:%SZ";

#[derive(Clone)]
pub(crate) enum Metadata {
    File { entry: Entry, file: FileState },
    Folder { entry: Entry, id: String },
    Deleted { entry: Entry },
}

/// Where something is, or was.
#[derive(Clone)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) path_lower: String,
    pub(crate) path_display: String,
}

/// One revision of a file.
#[derive(Clone)]
pub(crate) struct FileState {
    pub(crate) id: String,
    pub(crate) rev: String,
    pub(crate) client_modified: Timestamp,
    pub(crate) server_modified: Timestamp,
    pub(crate) content: Arc<Content>,
}

impl Metadata {
    pub(crate) fn entry(&self) -> &Entry {
        match self {
            Self::File { entry, .. } | Self::Folder { entry, .. } | Self::Deleted { entry } => entry,
        }
    }

    /// As a member of the `Metadata` union, with `.tag`.
    pub(crate) fn to_tagged_json(&self) -> Value {
        let tag = match self {
            Self::File { .. } => "file",
            Self::Folder { .. } => "folder",
            Self::Deleted { .. } => "deleted",
        };
        let mut value = self.to_json();
        value[".tag"] = tag.into();
        value
    }

    /// As a plain struct, for routes whose result type is fixed.
    pub(crate) fn to_json(&self) -> Value {
        match self {
            Self::File { entry, file } => json!({
                "name": entry.name,
                "path_lower": entry.path_lower,
                "path_display": entry.path_display,
                "id": file.id,
                "client_modified": format_timestamp(file.client_modified),
                "server_modified": format_timestamp(file.server_modified),
                "rev": file.rev,
                "size": file.content.size(),
                "is_downloadable": true,
                "content_hash": file.content.hash(),
            }),
            Self::Folder { entry, id } => json!({
                "name": entry.name,
                "path_lower": entry.path_lower,
                "path_display": entry.path_display,
                "id": id,
            }),
            Self::Deleted { entry } => json!({
                "name": entry.name,
                "path_lower": entry.path_lower,
                "path_display": entry.path_display,
            }),
        }
    }
}

pub(crate) fn format_timestamp(timestamp: Timestamp) -> String {
    timestamp.strftime(TIMESTAMP_FORMAT).to_string()
}

/// Reads a timestamp in exactly the form of the wire; `None` for any other.
pub(crate) fn parse_timestamp(text: &str) -> Option<Timestamp> {
    let timestamp = text.parse().ok()?;
    (format_timestamp(timestamp) == text).then_some(timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_seconds_in_utc_are_timestamps() {
        assert!(parse_timestamp("2024-02-29T23:59:59Z").is_some());
        for text in ["2024-02-30T00:00:00Z", "2024-02-29T23:59:59.5Z", "2024-02-29T23:59:59+01:00", "2024-02-29", ""] {
            assert!(parse_timestamp(text).is_none(), "{text}");
        }
    }
}
