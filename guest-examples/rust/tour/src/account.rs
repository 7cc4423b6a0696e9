//! What only Dropbox has.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Value, json};

use crate::wharf::host::dropbox::{
    Account, Audience, Batch, CallStyle, LinkSettings, ListOptions, Metadata, MetadataKind, Relocation, SearchOptions,
    SharedLink, UploadOptions, WriteMode,
};
use crate::wharf::host::types::{Body, Error};
use crate::{Stopped, Tour, body, name_of, nothing, sorted, text};

pub(crate) fn use_dropbox(tour: &mut Tour) -> Result<(), Stopped> {
    let team = &tour.step("dropbox.account.open", Account::open("team"), nothing)?;
    let everything = ListOptions { recursive: true, include_deleted: false, limit: None };
    let upload = |path, content, mode| {
        let options = UploadOptions { mode, autorename: false, client_modified: None, mute: true };
        team.upload(path, body(content), &options)
    };

    tour.step("dropbox.create-folder", team.create_folder("/trip"), |folder| json!(folder.path))?;
    let cursor = tour.step("dropbox.latest-cursor", team.latest_cursor("/trip", everything), |_| json!(true))?;
    let plan = tour.step("dropbox.upload", upload("/trip/plan.txt", "first plan", WriteMode::Add), size)?;
    let first = plan.revision.unwrap_or_default();
    let update = WriteMode::Update(first.clone());
    tour.step("dropbox.upload an update", upload("/trip/plan.txt", "second plan", update), size)?;
    tour.step("dropbox.upload over it", upload("/trip/notes.paper", "# Notes", WriteMode::Overwrite), name)?;
    tour.step("dropbox.longpoll", team.longpoll(&cursor, 30), |poll| json!(poll.changes))?;
    let changes = team.changes("/trip", Some(&cursor), everything);
    let changed = changes.map(|changes| sorted(changes.entries.into_iter().map(|entry| entry.path)));
    tour.got("dropbox.changes", changed)?;
    tour.step("dropbox.get-metadata", team.get_metadata("/trip/plan.txt"), |plan| json!(kind(plan.kind)))?;
    tour.got("dropbox.download", team.download("/trip/plan.txt").and_then(|(_, content)| text(content)))?;
    tour.step("dropbox.list-folder", team.list_folder("/trip", false), |page| names(&page.entries))?;
    tour.step("dropbox.list-folder-with", all_pages(team, "/trip"), |entries| names(entries))?;
    tour.step("dropbox.search", all_matches(team, "/trip", "n"), |entries| names(entries))?;
    tour.step("dropbox.revisions", team.revisions("/trip/plan.txt", 10), |found| json!(found.entries.len()))?;
    let earlier = team.download_revision("/trip/plan.txt", &first);
    tour.got("dropbox.download-revision", earlier.and_then(|(_, content)| text(content)))?;
    tour.step("dropbox.restore", team.restore("/trip/plan.txt", &first), size)?;
    let exported = team.export("/trip/notes.paper", None).and_then(|(name, content)| Ok(vec![name, text(content)?]));
    tour.got("dropbox.export", exported)?;
    let archive = team.download_zip("/trip").and_then(Body::bytes);
    tour.step("dropbox.download-zip", archive, |bytes| json!(String::from_utf8_lossy(&bytes[..2])))?;
    tour.step("dropbox.copy", team.copy("/trip/plan.txt", "/trip/copy.txt", false), name)?;
    tour.step("dropbox.move", team.move_("/trip/copy.txt", "/trip/plan.txt", true), name)?;
    use_batches(tour, team)?;
    tour.step("dropbox.delete", team.delete("/trip/x1"), |deleted| json!(deleted.path))?;
    use_links(tour, team)?;
    tour.step("dropbox.space-usage", team.space_usage(), |space| json!(space.used > 0))?;
    tour.step("dropbox.current-account", team.current_account(), |account| json!(account.email))?;
    use_calls(tour, team)
}

fn all_pages(team: &Account, path: &str) -> Result<Vec<Metadata>, Error> {
    let options = ListOptions { recursive: false, include_deleted: false, limit: Some(1) };
    let mut page = team.list_folder_with(path, options)?;
    let mut entries = page.entries;
    while page.has_more {
        page = team.list_folder_continue(&page.cursor)?;
        entries.append(&mut page.entries);
    }
    Ok(entries)
}

fn all_matches(team: &Account, path: &str, query: &str) -> Result<Vec<Metadata>, Error> {
    let options = SearchOptions { limit: Some(1), names_only: true, deleted: false, extensions: Vec::new() };
    let mut matches = team.search(path, query, &options)?;
    let mut entries = matches.entries;
    while let Some(cursor) = matches.cursor {
        matches = team.search_continue(&cursor)?;
        entries.append(&mut matches.entries);
    }
    Ok(entries)
}

fn use_batches(tour: &mut Tour, team: &Account) -> Result<(), Stopped> {
    let both = |of: &str, to: &str| -> Vec<Relocation> {
        let of_number = |n| Relocation { source: format!("/trip/{of}{n}"), target: format!("/trip/{to}{n}") };
        [1, 2].map(of_number).into()
    };
    let paths = |paths: &[&str]| -> Vec<String> { paths.iter().map(|path| (*path).to_owned()).collect() };
    let done = |batch: Result<Batch, Error>| done(team, batch?);
    let folders = paths(&["/trip/x1", "/trip/x2", "/trip"]);
    tour.got("dropbox.create-folder-batch", done(team.create_folder_batch(&folders, false)))?;
    tour.got("dropbox.copy-batch", done(team.copy_batch(&both("x", "y"), false)))?;
    tour.got("dropbox.move-batch", done(team.move_batch(&both("y", "z"), false)))?;
    tour.got("dropbox.delete-batch", done(team.delete_batch(&paths(&["/trip/z1", "/trip/nothing"]))))?;
    tour.got("dropbox.save-url", done(team.save_url("/trip/saved", "https://example.com/saved")))
}

/// What became of each entry. For a large batch, keep the text and check it in a later invocation.
fn done(team: &Account, mut batch: Batch) -> Result<Vec<String>, Error> {
    loop {
        match batch {
            Batch::UnderWay(job) => {
                sleep(Duration::from_millis(50));
                batch = team.check(&job)?;
            }
            Batch::Done(results) => {
                let told = |result: Result<Metadata, Error>| match result {
                    Ok(metadata) => metadata.path,
                    Err(error) => name_of(error.code).to_owned(),
                };
                return Ok(results.into_iter().map(told).collect());
            }
        }
    }
}

fn use_links(tour: &mut Tour, team: &Account) -> Result<(), Stopped> {
    let plain = LinkSettings { password: None, expires: None, audience: None, allow_download: None };
    let closed = LinkSettings { password: Some("sesame".into()), audience: Some(Audience::Public), ..plain.clone() };
    let path = "/trip/plan.txt";
    let made = team.create_shared_link(path, &plain);
    let link = tour.step("dropbox.create-shared-link", made, |link| json!(link.name))?.url;
    let paths = |links: &Vec<SharedLink>| json!(links.iter().map(|link| &link.path).collect::<Vec<_>>());
    tour.step("dropbox.shared-links", team.shared_links(path), paths)?;
    let modified = team.modify_shared_link(path, &link, &closed);
    tour.step("dropbox.modify-shared-link", modified, |link| json!(link.name))?;
    let found = team.shared_link_metadata(&link, Some("sesame"));
    tour.step("dropbox.shared-link-metadata", found, |link| json!(link.path))?;
    let content = team.shared_link_file(&link, Some("sesame")).and_then(|(_, content)| text(content));
    tour.got("dropbox.shared-link-file", content)?;
    tour.done("dropbox.revoke-shared-link", team.revoke_shared_link(path, &link))?;
    tour.got("dropbox.temporary-link", team.temporary_link(path))?;
    tour.got("dropbox.temporary-upload-link", team.temporary_upload_link("/trip/sent.txt", 600))
}

/// Routes that have no function of their own, by their names in Dropbox's documentation.
fn use_calls(tour: &mut Tour, team: &Account) -> Result<(), Stopped> {
    let call = |style, route, argument: Value, content| {
        let (result, answer) = team.call(style, route, &argument.to_string(), content)?;
        let result: Value = serde_json::from_str(&result).unwrap_or_default();
        Ok((result, answer.map(text).transpose()?))
    };
    let plan = json!({ "path": "/trip/plan.txt" });
    let called = json!({ "path": "/trip/called.txt" });
    let got = call(CallStyle::Rpc, "files/get_metadata", plan.clone(), None);
    tour.step("dropbox.call rpc", got, |(result, _)| result["name"].clone())?;
    let sent = call(CallStyle::Upload, "files/upload", called, Some(body("called")));
    tour.step("dropbox.call upload", sent, |(result, _)| result["size"].clone())?;
    let got = call(CallStyle::Download, "files/download", plan, None);
    tour.step("dropbox.call download", got, |(_, content)| json!(content))?;
    Ok(())
}

fn size(metadata: &Metadata) -> Value {
    json!(metadata.size)
}

fn name(metadata: &Metadata) -> Value {
    json!(metadata.name)
}

fn names(entries: &[Metadata]) -> Value {
    json!(sorted(entries.iter().map(|entry| entry.name.clone())))
}

fn kind(kind: MetadataKind) -> &'static str {
    match kind {
        MetadataKind::File => "file",
        MetadataKind::Folder => "folder",
        MetadataKind::Deleted => "deleted",
    }
}
