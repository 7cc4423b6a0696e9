//! The routes that change files: upload, delete, create folder, move, copy (files.stone).

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Call, LookupError};
use crate::argument::{Fields, PathArgument};
use crate::reply::{Failure, tagged};
use crate::store::content::{Content, lower_hex};
use crate::store::{Commit, DeleteError, Relocation, RelocationError, WriteError, WriteMode};

pub(super) fn upload(call: &Call<'_>, content: Arc<Content>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let (path, commit) = commit_of(&mut fields)?;
    let expected_hash = fields.content_hash("content_hash")?;
    fields.finish()?;
    if expected_hash.is_some_and(|hash| hash != content.hash()) {
        return Err(Failure::endpoint(&["content_hash_mismatch"]));
    }
    let path = path.map_err(|error| upload_write_failure(error.into()))?;
    let written = call.account.namespace().write(&path, &commit, content).map_err(upload_write_failure)?;
    Ok(written.to_json())
}

/// files.stone: CommitInfo.
pub(super) fn commit_of(fields: &mut Fields) -> Result<(PathArgument, Commit), Failure> {
    fields.ignore(&["mute", "property_groups"]);
    let path = fields.write_path("path")?;
    let mode = match fields.union("mode")? {
        None => WriteMode::Add,
        Some((tag, value)) => write_mode(&tag, value).ok_or_else(|| fields.bad_union("mode", &tag))?,
    };
    let commit = Commit {
        mode,
        autorename: fields.boolean("autorename", false)?,
        strict_conflict: fields.boolean("strict_conflict", false)?,
        client_modified: fields.timestamp("client_modified")?,
    };
    Ok((path, commit))
}

fn write_mode(tag: &str, value: Option<Value>) -> Option<WriteMode> {
    match (tag, value) {
        ("add", None) => Some(WriteMode::Add),
        ("overwrite", None) => Some(WriteMode::Overwrite),
        ("update", Some(Value::String(rev))) => Some(WriteMode::Update(rev)),
        _ => None,
    }
}

/// UploadError.path holds a struct (UploadWriteFailed), whose fields lie beside the tag.
pub(super) fn upload_write_failure(error: WriteError) -> Failure {
    let session = format!("pid_upload_session:{}", lower_hex(&rand::random::<[u8; 16]>()));
    Failure::Endpoint {
        tags: [&["path"], error.tags()].concat(),
        error: json!({ ".tag": "path", "reason": tagged(error.tags()), "upload_session_id": session }),
    }
}

pub(super) fn create_folder(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.write_path("path")?;
    let autorename = fields.boolean("autorename", false)?;
    fields.finish()?;
    let path = path.map_err(|error| create_folder_failure(error.into()))?;
    let created = call.account.namespace().create_folder(&path, autorename).map_err(create_folder_failure)?;
    Ok(json!({ "metadata": created.to_json() }))
}

pub(super) fn create_folder_failure(error: WriteError) -> Failure {
    error.within("path")
}

pub(super) fn delete(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.write_path("path")?;
    let parent_rev = fields.revision("parent_rev")?;
    fields.finish()?;
    let path = path.map_err(|error| delete_failure(DeleteError::Lookup(error.into())))?;
    let deleted = call.account.namespace().delete(&path, parent_rev.as_deref()).map_err(delete_failure)?;
    Ok(json!({ "metadata": deleted.to_tagged_json() }))
}

pub(super) fn delete_failure(error: DeleteError) -> Failure {
    match error {
        DeleteError::Lookup(error) => Failure::endpoint(&["path_lookup", error.tag()]),
        DeleteError::Write(error) => delete_write_failure(error),
    }
}

/// DeleteError has a member of its own for lock contention.
pub(super) fn delete_write_failure(error: WriteError) -> Failure {
    match error {
        WriteError::TooManyWriteOperations => Failure::endpoint(error.tags()),
        _ => error.within("path_write"),
    }
}

pub(super) fn relocate(call: &Call<'_>) -> Result<Value, Failure> {
    relocation(call, Relocation::Move)
}

pub(super) fn copy(call: &Call<'_>) -> Result<Value, Failure> {
    relocation(call, Relocation::Copy)
}

fn relocation(call: &Call<'_>, kind: Relocation) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["allow_shared_folder", "allow_ownership_transfer"]);
    let from = fields.write_path("from_path")?;
    let to = fields.write_path("to_path")?;
    let autorename = fields.boolean("autorename", false)?;
    fields.finish()?;
    let from = from.map_err(|error| relocation_failure(RelocationError::FromLookup(LookupError::from(error))))?;
    let to = to.map_err(|error| relocation_write_failure(error.into()))?;
    let moved = call.account.namespace().relocate(kind, &from, &to, autorename).map_err(relocation_failure)?;
    Ok(json!({ "metadata": moved.to_tagged_json() }))
}

pub(super) fn relocation_failure(error: RelocationError) -> Failure {
    match error {
        RelocationError::FromLookup(error) => Failure::endpoint(&["from_lookup", error.tag()]),
        RelocationError::To(error) => relocation_write_failure(error),
        RelocationError::CantMoveFolderIntoItself => Failure::endpoint(&["cant_move_folder_into_itself"]),
        RelocationError::TooManyFiles => Failure::endpoint(&["too_many_files"]),
    }
}

pub(super) fn relocation_write_failure(error: WriteError) -> Failure {
    error.within("to")
}
