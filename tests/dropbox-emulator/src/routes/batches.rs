//! `files/*_batch*`: many changes in one call, done at once and told later (files.stone).

use serde_json::{Value, json};

use super::files_write::{create_folder_failure, delete_failure, relocation_failure, relocation_write_failure};
use super::{Call, LookupError};
use crate::argument::Fields;
use crate::reply::{Failure, tagged};
use crate::store::jobs::Job;
use crate::store::{DeleteError, Relocation, RelocationError};

/// files.stone: RelocationBatchArgBase and its like.
const MAX_ENTRIES: usize = 1000;

/// One entry is answered at once, more are a job.
fn launched(call: &Call<'_>, entries: &[Value]) -> Value {
    let single = entries.len() == 1;
    let result = json!({ ".tag": "complete", "entries": entries });
    if single {
        return result;
    }
    json!({ ".tag": "async_job_id", "async_job_id": call.account.jobs().put("dbjid:", Job::new(result)) })
}

/// Any of the routes that ask about a job.
pub(super) fn check(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let id = fields.string("async_job_id")?;
    fields.finish()?;
    let mut jobs = call.account.jobs();
    let job = jobs.get(&id).ok_or_else(|| Failure::endpoint(&["invalid_async_job_id"]))?;
    Ok(job.check().unwrap_or_else(|| tagged(&["in_progress"])))
}

fn error_of(failure: Failure) -> Value {
    match failure {
        Failure::Endpoint { error, .. } => error,
        _ => tagged(&["other"]),
    }
}

pub(super) fn move_batch(call: &Call<'_>) -> Result<Value, Failure> {
    relocation_batch(call, Relocation::Move)
}

pub(super) fn copy_batch(call: &Call<'_>) -> Result<Value, Failure> {
    relocation_batch(call, Relocation::Copy)
}

fn relocation_batch(call: &Call<'_>, kind: Relocation) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["allow_ownership_transfer"]);
    let autorename = fields.boolean("autorename", false)?;
    let entries = fields.structures("entries", MAX_ENTRIES)?;
    fields.finish()?;
    let results: Result<Vec<_>, _> =
        entries.into_iter().map(|entry| relocation_entry(call, kind, entry, autorename)).collect();
    Ok(launched(call, &results?))
}

fn relocation_entry(call: &Call<'_>, kind: Relocation, mut entry: Fields, autorename: bool) -> Result<Value, Failure> {
    let (from, to) = (entry.write_path("from_path")?, entry.write_path("to_path")?);
    entry.finish()?;
    let moved = from
        .map_err(|error| relocation_failure(RelocationError::FromLookup(LookupError::from(error))))
        .and_then(|from| Ok((from, to.map_err(|error| relocation_write_failure(error.into()))?)))
        .and_then(|(from, to)| {
            call.account.namespace().relocate(kind, &from, &to, autorename).map_err(relocation_failure)
        });
    Ok(match moved {
        Ok(metadata) => json!({ ".tag": "success", "success": metadata.to_tagged_json() }),
        Err(failure) => json!({
            ".tag": "failure",
            "failure": { ".tag": "relocation_error", "relocation_error": error_of(failure) },
        }),
    })
}

pub(super) fn delete_batch(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let entries = fields.structures("entries", MAX_ENTRIES)?;
    fields.finish()?;
    let mut results = Vec::new();
    for mut entry in entries {
        let path = entry.write_path("path")?;
        let parent_rev = entry.revision("parent_rev")?;
        entry.finish()?;
        let deleted = path
            .map_err(|error| DeleteError::Lookup(error.into()))
            .and_then(|path| call.account.namespace().delete(&path, parent_rev.as_deref()));
        results.push(match deleted {
            Ok(metadata) => json!({ ".tag": "success", "metadata": metadata.to_tagged_json() }),
            Err(error) => json!({ ".tag": "failure", "failure": error_of(delete_failure(error)) }),
        });
    }
    Ok(launched(call, &results))
}

pub(super) fn create_folder_batch(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["force_async"]);
    let autorename = fields.boolean("autorename", false)?;
    let paths = fields.paths("paths", MAX_ENTRIES)?;
    fields.finish()?;
    let mut results = Vec::new();
    for path in paths {
        let created = path
            .map_err(|error| create_folder_failure(error.into()))
            .and_then(|path| call.account.namespace().create_folder(&path, autorename).map_err(create_folder_failure));
        results.push(match created {
            Ok(metadata) => json!({ ".tag": "success", "metadata": metadata.to_json() }),
            Err(failure) => json!({ ".tag": "failure", "failure": error_of(failure) }),
        });
    }
    Ok(launched(call, &results))
}
