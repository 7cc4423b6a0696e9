//! Revisions, search, exports, archives, and files that Dropbox fetches itself (files.stone).

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Call, path_failure};
use crate::reply::{Body, Failure, Reply};
use crate::store::content::{Content, ContentWriter, lower_hex};
use crate::store::jobs::Job;
use crate::store::metadata::Metadata;
use crate::store::path::RemotePath;
use crate::store::{Commit, Locator, LookupError, WriteError, WriteMode, zip};

/// Files that are exported, not downloaded, have names that end like this; the export is their content.
const EXPORTED_ENDING: &str = ".paper";

/// files.stone: ListRevisionsArg.
const MAX_REVISIONS: u64 = 100;

/// files.stone: DownloadZipError.too_many_files.
const MAX_ARCHIVED: usize = 10_000;

pub(super) fn list_revisions(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["include_restorable_info"]);
    let path = fields.read_path("path")?;
    match fields.union("mode")? {
        None => {}
        Some((tag, None)) if tag == "path" => {}
        Some((tag, _)) => return Err(fields.bad_union("mode", &tag)),
    }
    let limit = fields.integer("limit", 1, MAX_REVISIONS)?.unwrap_or(10);
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let (revisions, deleted) = call.account.namespace().revisions(&path).map_err(path_failure)?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let entries: Vec<Value> = revisions.iter().take(limit).map(Metadata::to_json).collect();
    Ok(json!({ "is_deleted": deleted, "entries": entries, "has_more": revisions.len() > limit }))
}

pub(super) fn restore(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.write_path("path")?;
    let rev = fields.string("rev")?;
    fields.finish()?;
    let path = path.map_err(|error| Failure::endpoint(&["path_lookup", LookupError::from(error).tag()]))?;
    let mut namespace = call.account.namespace();
    let (revisions, _) =
        namespace.revisions(&path).map_err(|error| Failure::endpoint(&["path_lookup", error.tag()]))?;
    let found = revisions.into_iter().find_map(|revision| match revision {
        Metadata::File { file, .. } if file.rev == rev => Some(file.content),
        _ => None,
    });
    let content = found.ok_or_else(|| Failure::endpoint(&["invalid_revision"]))?;
    let written = namespace.write(&path, &overwrite(), content).map_err(|error| error.within("path_write"))?;
    Ok(written.to_json())
}

fn overwrite() -> Commit {
    Commit { mode: WriteMode::Overwrite, autorename: false, strict_conflict: false, client_modified: None }
}

/// A search and how far it came.
#[derive(Serialize, Deserialize)]
struct Search {
    query: String,
    folder: String,
    deleted: bool,
    limit: usize,
    skip: usize,
}

pub(super) fn search(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["match_field_options", "include_highlights"]);
    let query = fields.string("query")?;
    let mut folder = RemotePath::root();
    let (mut limit, mut deleted) = (100, false);
    if fields.has("options") {
        let mut options = fields.structure("options")?;
        options.ignore(&["filename_only", "order_by", "file_extensions", "file_categories", "account_id"]);
        if let Some(path) = options.optional_string("path")?.filter(|path| !path.is_empty()) {
            folder = RemotePath::parse(&path).map_err(|error| path_failure(LookupError::from(error)))?;
        }
        limit = options.integer("max_results", 1, 1000)?.unwrap_or(100);
        deleted = options.union("file_status")?.is_some_and(|(tag, _)| tag == "deleted");
        options.finish()?;
    }
    fields.finish()?;
    if !folder.is_root() {
        call.account.namespace().find(&Locator::Path(folder.clone())).map_err(path_failure)?;
    }
    let limit = usize::try_from(limit).unwrap_or(1);
    Ok(found(call, Search { query, folder: folder.as_str().to_owned(), deleted, limit, skip: 0 }))
}

pub(super) fn search_continue(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let cursor = fields.string("cursor")?;
    fields.finish()?;
    let bytes: Option<Vec<u8>> =
        (0..cursor.len() / 2).map(|at| u8::from_str_radix(cursor.get(2 * at..2 * at + 2)?, 16).ok()).collect();
    let search = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    search.map(|search| found(call, search)).ok_or_else(|| Failure::bad_input("Invalid \"cursor\" parameter"))
}

fn found(call: &Call<'_>, search: Search) -> Value {
    let Search { query, folder, deleted, limit, skip } = search;
    let words = query.to_lowercase();
    let namespace = call.account.namespace();
    let all: Vec<Metadata> = namespace
        .entries()
        .filter(|metadata| matches!(metadata, Metadata::Deleted { .. }) == deleted)
        .filter(|metadata| {
            let entry = metadata.entry();
            let below = entry.path_lower.strip_prefix(&folder.to_lowercase()).is_some_and(|rest| rest.starts_with('/'));
            below && entry.name.to_lowercase().contains(&words)
        })
        .skip(skip)
        .take(limit + 1)
        .collect();
    let matches: Vec<Value> = all
        .iter()
        .take(limit)
        .map(|metadata| json!({ "metadata": { ".tag": "metadata", "metadata": metadata.to_tagged_json() } }))
        .collect();
    let mut page = json!({ "matches": matches, "has_more": all.len() > limit });
    if all.len() > limit {
        let next = Search { query, folder, deleted, limit, skip: skip + limit };
        page["cursor"] = lower_hex(&serde_json::to_vec(&next).unwrap_or_default()).into();
    }
    page
}

/// Whether a file is of a kind that is exported instead of downloaded.
pub(super) fn is_exported(metadata: &Metadata) -> bool {
    metadata.entry().name.ends_with(EXPORTED_ENDING)
}

pub(super) fn export(call: &Call<'_>) -> Result<Reply, Failure> {
    let mut fields = call.fields()?;
    let path = fields.read_path("path")?;
    let format = fields.optional_string("export_format")?.unwrap_or_else(|| "markdown".to_owned());
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let (metadata, file) = call.account.namespace().find_file(&path).map_err(path_failure)?;
    if !is_exported(&metadata) {
        return Err(Failure::endpoint(&["non_exportable"]));
    }
    let ending = match format.as_str() {
        "markdown" => "md",
        "html" => "html",
        _ => return Err(Failure::endpoint(&["invalid_export_format"])),
    };
    let name = metadata.entry().name.trim_end_matches(EXPORTED_ENDING).to_owned();
    let content = &file.content;
    let mut described = metadata.to_json();
    described["is_downloadable"] = false.into();
    let result = json!({
        "export_metadata": {
            "name": format!("{name}.{ending}"),
            "size": content.size(),
            "export_hash": content.hash(),
            "paper_revision": 1,
        },
        "file_metadata": described,
    });
    Ok(content_reply(result, content))
}

fn content_reply(result: Value, content: &Content) -> Reply {
    let mut reply = Reply::json(Value::Null);
    reply.body = Body::Content { result, blocks: content.range(0, content.size()), cut_after: None };
    reply
}

pub(super) fn download_zip(call: &Call<'_>) -> Result<Reply, Failure> {
    let mut fields = call.fields()?;
    let path = fields.read_path("path")?;
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let namespace = call.account.namespace();
    let folder = namespace.find(&path).map_err(path_failure)?;
    if !matches!(folder, Metadata::Folder { .. }) {
        return Err(path_failure(LookupError::NotFolder));
    }
    let entry = folder.entry().clone();
    let below: Vec<Metadata> = namespace
        .entries()
        .filter(|metadata| !matches!(metadata, Metadata::Deleted { .. }))
        .filter(|metadata| {
            let rest = metadata.entry().path_lower.strip_prefix(&entry.path_lower);
            rest.is_some_and(|rest| rest.starts_with('/'))
        })
        .collect();
    if below.len() > MAX_ARCHIVED {
        return Err(Failure::endpoint(&["too_many_files"]));
    }
    let mut archived = vec![(format!("{}/", entry.name), None)];
    for metadata in &below {
        let shown = metadata.entry().path_display.get(entry.path_display.len()..).unwrap_or_default();
        archived.push(match metadata {
            Metadata::File { file, .. } => (format!("{}{shown}", entry.name), Some(&*file.content)),
            _ => (format!("{}{shown}/", entry.name), None),
        });
    }
    let archive = zip::archive(&archived).ok_or_else(|| Failure::endpoint(&["too_large"]))?;
    let mut reply = Reply::json(Value::Null);
    let result = json!({ "metadata": folder.to_json() });
    reply.body = Body::Content { result, blocks: vec![archive.into()], cut_after: None };
    Ok(reply)
}

/// The emulator fetches nothing: the file's content is the URL.
pub(super) fn save_url(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.write_path("path")?;
    let url = fields.string("url")?;
    fields.finish()?;
    if !url.starts_with("https://") && !url.starts_with("http://") {
        return Err(Failure::endpoint(&["invalid_url"]));
    }
    let path = path.map_err(|error| save_url_failure(error.into()))?;
    let mut writer = ContentWriter::new(call.account.quota());
    writer.push(url.as_bytes()).map_err(|_| save_url_failure(WriteError::InsufficientSpace))?;
    let written = call.account.namespace().write(&path, &overwrite(), writer.finish()).map_err(save_url_failure)?;
    let mut result = written.to_json();
    result[".tag"] = "complete".into();
    Ok(json!({ ".tag": "async_job_id", "async_job_id": call.account.jobs().put("dbjid:", Job::new(result)) }))
}

pub(super) fn save_url_failure(error: WriteError) -> Failure {
    error.within("path")
}
