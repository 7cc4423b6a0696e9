//! `files/upload_session/*`: files in several requests, alone and in batches (files.stone).

use std::sync::Arc;

use serde_json::{Value, json};

use super::files_write::commit_of;
use super::{Call, WriteError};
use crate::argument::{Fields, PathArgument};
use crate::faults::FaultKind;
use crate::reply::{Failure, tagged};
use crate::store::Commit;
use crate::store::content::{Content, ContentWriter};
use crate::store::sessions::{SessionError, SessionKind};

/// Entries of one batch, and sessions of one `start_batch` (files.stone).
const MAX_BATCH_ENTRIES: usize = 1000;

/// Where a session stands, as its client believes.
struct Cursor {
    session: String,
    offset: u64,
}

impl SessionError {
    fn tag(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::IncorrectOffset(_) => "incorrect_offset",
            Self::Closed => "closed",
            Self::NotClosed => "not_closed",
            Self::TooLarge => "too_large",
            Self::InvalidOffset => "concurrent_session_invalid_offset",
            Self::InvalidDataSize => "concurrent_session_invalid_data_size",
            Self::DataNotAllowed => "concurrent_session_data_not_allowed",
            Self::CloseNotAllowed => "concurrent_session_close_not_allowed",
            Self::ConcurrentNotClosed => "concurrent_session_not_closed",
            Self::MissingData => "concurrent_session_missing_data",
            Self::TooManySessions => "other",
        }
    }

    fn value(self) -> Value {
        match self {
            Self::IncorrectOffset(correct) => json!({ ".tag": self.tag(), "correct_offset": correct }),
            _ => tagged(&[self.tag()]),
        }
    }

    fn failure(self) -> Failure {
        Failure::Endpoint { tags: vec![self.tag()], error: self.value() }
    }

    /// As a member of UploadSessionFinishError, where the lookup is one level down.
    fn of_finish(self) -> (Vec<&'static str>, Value) {
        match self {
            Self::DataNotAllowed | Self::ConcurrentNotClosed | Self::MissingData => {
                (vec![self.tag()], tagged(&[self.tag()]))
            }
            _ => (vec!["lookup_failed", self.tag()], json!({ ".tag": "lookup_failed", "lookup_failed": self.value() })),
        }
    }
}

fn session_kind(fields: &mut Fields) -> Result<SessionKind, Failure> {
    match fields.union("session_type")? {
        None => Ok(SessionKind::Sequential),
        Some((tag, None)) if tag == "sequential" => Ok(SessionKind::Sequential),
        Some((tag, None)) if tag == "concurrent" => Ok(SessionKind::Concurrent),
        Some((tag, _)) => Err(fields.bad_union("session_type", &tag)),
    }
}

fn cursor(fields: &mut Fields) -> Result<Cursor, Failure> {
    let mut cursor = fields.structure("cursor")?;
    let session = cursor.string("session_id")?;
    let offset = cursor.required_integer("offset", 0, u64::MAX)?;
    cursor.finish()?;
    Ok(Cursor { session, offset })
}

fn check_hash(fields: &mut Fields, content: &Content) -> Result<(), Failure> {
    match fields.content_hash("content_hash")? {
        Some(hash) if hash != content.hash() => Err(Failure::endpoint(&["content_hash_mismatch"])),
        _ => Ok(()),
    }
}

pub(super) fn start(call: &Call<'_>, content: Arc<Content>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let close = fields.boolean("close", false)?;
    let kind = session_kind(&mut fields)?;
    check_hash(&mut fields, &content)?;
    fields.finish()?;
    let id = call.account.sessions().start(kind, close, Some(content)).map_err(SessionError::failure)?;
    Ok(json!({ "session_id": id }))
}

pub(super) fn start_batch(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let kind = session_kind(&mut fields)?;
    let count = fields.required_integer("num_sessions", 1, MAX_BATCH_ENTRIES as u64)?;
    fields.finish()?;
    let mut sessions = call.account.sessions();
    let ids: Result<Vec<_>, _> = (0..count).map(|_| sessions.start(kind, false, None)).collect();
    Ok(json!({ "session_ids": ids.map_err(SessionError::failure)? }))
}

pub(super) fn append(call: &Call<'_>, content: Arc<Content>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let cursor = cursor(&mut fields)?;
    let close = fields.boolean("close", false)?;
    // What arrived of a request whose connection breaks need not be what was sent.
    let content = match call.fault {
        Some(FaultKind::KeepPartOfContent { bytes }) => part_of(call, &content, *bytes)?,
        _ => {
            check_hash(&mut fields, &content)?;
            content
        }
    };
    call.account
        .sessions()
        .append(&cursor.session, cursor.offset, close && call.fault.is_none(), content)
        .map_err(SessionError::failure)?;
    Ok(Value::Null)
}

fn part_of(call: &Call<'_>, content: &Content, bytes: u64) -> Result<Arc<Content>, Failure> {
    piece(call, content, 0, bytes.min(content.size()))
}

fn piece(call: &Call<'_>, content: &Content, start: u64, end: u64) -> Result<Arc<Content>, Failure> {
    let mut writer = ContentWriter::new(call.account.quota());
    for block in content.range(start, end) {
        writer.push(&block).map_err(|_| Failure::endpoint(&["other"]))?;
    }
    Ok(writer.finish())
}

pub(super) fn append_batch(call: &Call<'_>, content: Arc<Content>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let entries = fields.structures("entries", MAX_BATCH_ENTRIES)?;
    check_hash(&mut fields, &content)?;
    fields.finish()?;
    let mut pieces = Vec::new();
    let mut end = 0_u64;
    for mut entry in entries {
        let cursor = cursor(&mut entry)?;
        let length = entry.required_integer("length", 0, u64::MAX)?;
        let close = entry.boolean("close", false)?;
        entry.finish()?;
        pieces.push((cursor, close, end, end.saturating_add(length)));
        end = end.saturating_add(length);
    }
    if end != content.size() {
        return Err(Failure::endpoint(&["length_mismatch"]));
    }
    let mut results = Vec::new();
    for (cursor, close, start, end) in pieces {
        let piece = piece(call, &content, start, end)?;
        results.push(match call.account.sessions().append(&cursor.session, cursor.offset, close, piece) {
            Ok(()) => json!({ ".tag": "success" }),
            Err(error) => json!({ ".tag": "failure", "failure": error.value() }),
        });
    }
    // Its pieces are copies.
    drop(content);
    Ok(json!({ "entries": results }))
}

pub(super) fn finish(call: &Call<'_>, content: Arc<Content>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let cursor = cursor(&mut fields)?;
    let mut commit = fields.structure("commit")?;
    let (path, commit) = commit_of(&mut commit)?;
    check_hash(&mut fields, &content)?;
    fields.finish()?;
    let failure = |error: SessionError| {
        let (tags, error) = error.of_finish();
        Failure::Endpoint { tags, error }
    };
    let whole = call.account.sessions().finish(&cursor.session, cursor.offset, content).map_err(failure)?;
    committed(call, &cursor, path, &commit, whole).map_err(finish_write_failure)
}

fn committed(
    call: &Call<'_>,
    cursor: &Cursor,
    path: PathArgument,
    commit: &Commit,
    content: Arc<Content>,
) -> Result<Value, WriteError> {
    let written = call.account.namespace().write(&path?, commit, content)?;
    call.account.sessions().remove(&cursor.session);
    Ok(written.to_json())
}

pub(super) fn finish_batch(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let entries = fields.structures("entries", MAX_BATCH_ENTRIES)?;
    fields.finish()?;
    let mut results = Vec::new();
    for mut entry in entries {
        let cursor = cursor(&mut entry)?;
        let mut commit = entry.structure("commit")?;
        let (path, commit) = commit_of(&mut commit)?;
        entry.finish()?;
        let outcome = match call.fault {
            Some(FaultKind::TooManyWriteOperations) => Err(write_error_of_finish(WriteError::TooManyWriteOperations).1),
            _ => finish_one(call, &cursor, path, &commit),
        };
        results.push(match outcome {
            Ok(Value::Object(mut metadata)) => {
                metadata.insert(".tag".into(), "success".into());
                Value::Object(metadata)
            }
            Ok(other) => other,
            Err(error) => json!({ ".tag": "failure", "failure": error }),
        });
    }
    Ok(json!({ "entries": results }))
}

fn finish_one(call: &Call<'_>, cursor: &Cursor, path: PathArgument, commit: &Commit) -> Result<Value, Value> {
    let whole = call.account.sessions().finish_closed(&cursor.session, cursor.offset);
    let whole = whole.map_err(|error| error.of_finish().1)?;
    committed(call, cursor, path, commit, whole).map_err(|error| write_error_of_finish(error).1)
}

fn write_error_of_finish(error: WriteError) -> (Vec<&'static str>, Value) {
    match error {
        WriteError::TooManyWriteOperations => (error.tags().to_vec(), tagged(error.tags())),
        _ => {
            let tags = [&["path"], error.tags()].concat();
            let value = tagged(&tags);
            (tags, value)
        }
    }
}

/// UploadSessionFinishError has a member of its own for lock contention.
pub(super) fn finish_write_failure(error: WriteError) -> Failure {
    let (tags, error) = write_error_of_finish(error);
    Failure::Endpoint { tags, error }
}
