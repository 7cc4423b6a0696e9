//! Links: shared ones that last (shared_links.stone), and temporary ones to one content (files.stone).

use std::sync::Arc;

use http::StatusCode;
use http::header::HOST;
use serde_json::{Value, json};

use super::files_write::commit_of;
use super::{Call, path_failure};
use crate::account::Account;
use crate::argument::Fields;
use crate::reply::{Body, Failure, Reply};
use crate::store::content::{Content, lower_hex};
use crate::store::metadata::Metadata;
use crate::store::{Commit, Locator, LookupError};

/// What a link leads to.
pub(crate) struct Link {
    url: String,
    path_lower: String,
    locator: Locator,
    password: Option<String>,
    expires: Option<String>,
    allow_download: bool,
}

/// What a temporary link is for.
pub(crate) enum Temporary {
    Download(Locator),
    Upload(Locator, Commit),
}

/// The settings of a link, as far as they have an effect here.
fn apply_settings(fields: &mut Fields, link: &mut Link) -> Result<(), Failure> {
    if !fields.has("settings") {
        return Ok(());
    }
    let mut settings = fields.structure("settings")?;
    settings.ignore(&["require_password", "audience", "access", "requested_visibility"]);
    if let Some(password) = settings.optional_string("link_password")? {
        link.password = Some(password);
    }
    if let Some(expires) = settings.optional_string("expires")? {
        link.expires = Some(expires);
    }
    link.allow_download = settings.boolean("allow_download", link.allow_download)?;
    settings.finish()
}

fn described(account: &Account, link: &Link) -> Result<Value, LookupError> {
    let metadata = account.namespace().find(&link.locator)?;
    let mut value = json!({
        ".tag": if matches!(metadata, Metadata::Folder { .. }) { "folder" } else { "file" },
        "url": link.url,
        "id": metadata.to_json()["id"],
        "name": metadata.entry().name,
        "path_lower": metadata.entry().path_lower,
        "link_permissions": {
            "can_revoke": true,
            "resolved_visibility": { ".tag": if link.password.is_some() { "password" } else { "public" } },
            "visibility_policies": [],
            "can_set_expiry": true,
            "can_remove_expiry": true,
            "allow_download": link.allow_download,
            "can_allow_download": true,
            "can_disallow_download": true,
            "allow_comments": true,
            "team_restricts_comments": false,
        },
    });
    if let Some(expires) = &link.expires {
        value["expires"] = json!(expires);
    }
    if let Metadata::File { .. } = metadata {
        for field in ["client_modified", "server_modified", "rev", "size"] {
            value[field] = metadata.to_json()[field].clone();
        }
    }
    Ok(value)
}

pub(super) fn create_shared_link(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.read_path("path")?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let metadata = call.account.namespace().find(&path).map_err(path_failure)?;
    let id = lower_hex(&rand::random::<[u8; 10]>());
    let mut link = Link {
        url: format!("https://www.dropbox.com/scl/fi/{id}/{}?rlkey=emulated&dl=0", id),
        path_lower: metadata.entry().path_lower.clone(),
        locator: path,
        password: None,
        expires: None,
        allow_download: true,
    };
    apply_settings(&mut fields, &mut link)?;
    fields.finish()?;
    let mut links = call.account.links();
    if links.values().any(|known| known.path_lower == link.path_lower) {
        return Err(Failure::endpoint(&["shared_link_already_exists"]));
    }
    let value = described(call.account, &link).map_err(path_failure)?;
    links.put("", link);
    Ok(value)
}

pub(super) fn list_shared_links(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["cursor"]);
    let path = if fields.has("path") { Some(fields.read_path("path")?) } else { None };
    let direct_only = fields.boolean("direct_only", false)?;
    fields.finish()?;
    let wanted = match path {
        None => None,
        Some(path) => {
            let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
            Some(call.account.namespace().find(&path).map_err(path_failure)?.entry().path_lower.clone())
        }
    };
    let leads_to = |link: &Link| match &wanted {
        None => true,
        Some(path) if *path == link.path_lower => true,
        Some(path) => !direct_only && path.starts_with(&format!("{}/", link.path_lower)),
    };
    let links = call.account.links();
    let found: Vec<Value> =
        links.values().filter(|link| leads_to(link)).filter_map(|link| described(call.account, link).ok()).collect();
    Ok(json!({ "links": found, "has_more": false }))
}

/// The one link of this address, changed by `change`.
fn with_link(
    call: &Call<'_>,
    url: &str,
    change: impl FnOnce(&mut Link) -> Result<(), Failure>,
) -> Result<Value, Failure> {
    let not_found = || Failure::endpoint(&["shared_link_not_found"]);
    let mut links = call.account.links();
    let link = links.find(|link| link.url == url).ok_or_else(not_found)?;
    change(link)?;
    described(call.account, link).map_err(|_| not_found())
}

pub(super) fn modify_shared_link(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let url = fields.string("url")?;
    let remove_expiration = fields.boolean("remove_expiration", false)?;
    with_link(call, &url, |link| {
        if remove_expiration {
            link.expires = None;
        }
        apply_settings(&mut fields, link)
    })
}

pub(super) fn revoke_shared_link(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let url = fields.string("url")?;
    fields.finish()?;
    with_link(call, &url, |_| Ok(()))?;
    call.account.links().retain(|link| link.url != url);
    Ok(Value::Null)
}

fn opened(call: &Call<'_>) -> Result<(Value, String), Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["path"]);
    let url = fields.string("url")?;
    let password = fields.optional_string("link_password")?;
    fields.finish()?;
    let value = with_link(call, &url, |link| match &link.password {
        Some(expected) if Some(expected) != password.as_ref() => Err(Failure::endpoint(&["shared_link_access_denied"])),
        _ => Ok(()),
    })?;
    Ok((value, url))
}

pub(super) fn get_shared_link_metadata(call: &Call<'_>) -> Result<Value, Failure> {
    Ok(opened(call)?.0)
}

pub(super) fn get_shared_link_file(call: &Call<'_>) -> Result<Reply, Failure> {
    let (value, url) = opened(call)?;
    let locator = call.account.links().find(|link| link.url == url).map(|link| link.locator.clone());
    let locator = locator.ok_or_else(|| Failure::endpoint(&["shared_link_not_found"]))?;
    let found = call.account.namespace().find_file(&locator);
    let (_, file) = found.map_err(|_| Failure::endpoint(&["shared_link_is_directory"]))?;
    Ok(content_reply(value, &file.content))
}

fn content_reply(result: Value, content: &Content) -> Reply {
    let mut reply = Reply::json(Value::Null);
    reply.body = Body::Content { result, blocks: content.range(0, content.size()), cut_after: None };
    reply
}

fn temporary_url(call: &Call<'_>, temporary: Temporary) -> String {
    let host = call.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost").to_owned();
    format!("https://{host}/temporary/{}", call.account.temporaries().put("", temporary))
}

pub(super) fn get_temporary_link(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let path = fields.read_path("path")?;
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let (metadata, _) = call.account.namespace().find_file(&path).map_err(path_failure)?;
    Ok(json!({ "metadata": metadata.to_json(), "link": temporary_url(call, Temporary::Download(path)) }))
}

pub(super) fn get_temporary_upload_link(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    let mut commit = fields.structure("commit_info")?;
    let (path, commit) = commit_of(&mut commit)?;
    fields.integer("duration", 60, 14400)?;
    fields.finish()?;
    let path = path.map_err(|_| Failure::bad_input("commit_info: path is malformed"))?;
    Ok(json!({ "link": temporary_url(call, Temporary::Upload(path, commit)) }))
}

/// Answers a request to a temporary link; content is that of the request.
pub(crate) fn answer_temporary(account: &Account, name: &str, content: Arc<Content>) -> Reply {
    let gone = || Reply::text(StatusCode::GONE, "This link has expired.");
    let mut temporaries = account.temporaries();
    match temporaries.get(name) {
        Some(Temporary::Download(locator)) => match account.namespace().find_file(locator) {
            Ok((metadata, file)) => content_reply(metadata.to_json(), &file.content),
            Err(_) => gone(),
        },
        Some(Temporary::Upload(locator, commit)) => {
            let hash = content.hash().to_owned();
            let written = account.namespace().write(locator, commit, content);
            temporaries.remove(name);
            match written {
                Ok(_) => Reply::json(json!({ "content-hash": hash })),
                Err(_) => Reply::text(StatusCode::CONFLICT, "The file could not be written."),
            }
        }
        None => gone(),
    }
}
