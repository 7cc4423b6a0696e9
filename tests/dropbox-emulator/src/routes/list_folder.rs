//! `files/list_folder*`: pages of a folder, and the changes since (files.stone).

use serde_json::{Value, json};

use super::{Call, path_failure};
use crate::reply::Failure;
use crate::store::listing::{ContinueError, Page, Scope};
use crate::store::metadata::Metadata;
use crate::store::{Locator, LookupError};

/// The largest `limit` a request may give (files.stone, ListFolderArg).
const MAX_LIMIT: u64 = 2000;

/// Fields of ListFolderArg that ask for things no entry of an emulated account has.
const WITHOUT_EFFECT: [&str; 6] = [
    "include_media_info",
    "include_has_explicit_shared_members",
    "include_mounted_folders",
    "include_property_groups",
    "include_non_downloadable_files",
    "include_restorable_info",
];

pub(super) fn list_folder(call: &Call<'_>) -> Result<Value, Failure> {
    let (folder, scope) = list_argument(call)?;
    let page = call.account.namespace().list(&folder, scope).map_err(path_failure)?;
    Ok(page_json(&page))
}

pub(super) fn get_latest_cursor(call: &Call<'_>) -> Result<Value, Failure> {
    let (folder, scope) = list_argument(call)?;
    let cursor = call.account.namespace().latest_cursor(&folder, scope).map_err(path_failure)?;
    Ok(json!({ "cursor": cursor }))
}

pub(super) fn list_folder_continue(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let cursor = fields.string("cursor")?;
    fields.finish()?;
    let page = call.account.namespace().continue_listing(&cursor).map_err(|error| match error {
        ContinueError::Invalid => Failure::bad_input("Invalid \"cursor\" parameter"),
        ContinueError::Reset => Failure::endpoint(&["reset"]),
        ContinueError::Lookup(error) => path_failure(error),
    })?;
    Ok(page_json(&page))
}

/// A cursor to wait for, and for how many seconds.
pub(super) fn longpoll(call: &Call<'_>) -> Result<(String, u64), Failure> {
    let mut fields = call.fields()?;
    let cursor = fields.string("cursor")?;
    let seconds = fields.integer("timeout", 30, 480)?.unwrap_or(30);
    fields.finish()?;
    Ok((cursor, seconds))
}

fn list_argument(call: &Call<'_>) -> Result<(Locator, Scope), Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&WITHOUT_EFFECT);
    fields.refuse("shared_link")?;
    let folder = fields.folder_path("path")?;
    let limit = fields.integer("limit", 1, MAX_LIMIT)?;
    let scope = Scope {
        recursive: fields.boolean("recursive", false)?,
        include_deleted: fields.boolean("include_deleted", false)?,
        limit: limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(call.account.page_entries),
    };
    fields.finish()?;
    Ok((folder.map_err(|error| path_failure(LookupError::from(error)))?, scope))
}

fn page_json(page: &Page) -> Value {
    let entries: Vec<Value> = page.entries.iter().map(Metadata::to_tagged_json).collect();
    json!({ "entries": entries, "cursor": page.cursor, "has_more": page.has_more })
}
