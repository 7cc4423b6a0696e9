//! Files, wherever they are, and what only FTP and SFTP have.

use serde_json::{Value, json};

use crate::wasi::clocks::wall_clock::Datetime;
use crate::wasi::io::streams::StreamError;
use crate::wharf::host::files::{
    Entry, EntryKind, Filter, IfExists, IfPresent, Listing, Outcome, Remote, Transfer, TransferOptions, Upload,
    Verification, WriteOptions,
};
use crate::wharf::host::types::{Body, Error, ErrorCode};
use crate::wharf::host::{ftp, sftp};
use crate::{Stopped, Tour, body, name_of, nothing, sorted, text};

const LONG_AGO: Datetime = Datetime { seconds: 1_000_000_000, nanoseconds: 0 };
const STREAM_BYTES: usize = 4096;

// ---- files ----------------------------------------------------------------------------------------------------------

pub(crate) fn use_files(tour: &mut Tour) -> Result<(), Stopped> {
    let disk = &tour.step("files.remote.open", Remote::open("disk"), nothing)?;
    let options = WriteOptions { if_exists: IfExists::Fail, parents: true, modified: Some(LONG_AGO) };
    tour.step("files.ping", disk.ping(), |_| json!(true))?;
    tour.done("files.make-directory", disk.make_directory("/tour"))?;
    tour.done("files.make-directories", disk.make_directories("/tour/a/b"))?;
    tour.step("files.write", disk.write("/tour/report.csv", body("one,two\n"), IfExists::Fail), size)?;
    let old = disk.write_with("/tour/c/old.txt", body("old"), options);
    tour.step("files.write-with", old, |entry| json!(entry.modified.map(|modified| modified.seconds)))?;
    let made = disk.create("/tour/a/made.txt", IfExists::Replace).and_then(|upload| produce(upload, "made here"));
    tour.step("files.create", made, size)?;
    let made = disk.create_with("/tour/d/made.txt", options).and_then(|upload| produce(upload, "made there"));
    tour.step("files.create-with", made, size)?;
    tour.step("files.append", disk.append("/tour/report.csv", body("three\n")), size)?;
    let exist = disk.exists("/tour/report.csv").and_then(|one| Ok(vec![one, disk.exists("/tour/missing")?]));
    tour.got("files.exists", exist)?;
    tour.step("files.stat", disk.stat("/tour/report.csv"), |entry| json!(kind(entry.kind)))?;
    tour.step("files.list", disk.list("/tour"), |entries| names(entries))?;
    tour.step("files.open-listing", disk.open_listing("/tour/c").and_then(pages), |entries| names(entries))?;
    let filter = Filter { patterns: vec!["*.txt".into()], exclude: vec!["d".into()] };
    let walked = disk.walk("/tour", &filter).and_then(pages);
    tour.step("files.walk", walked, |entries| json!(sorted(entries.iter().map(|entry| entry.path.clone()))))?;
    tour.got("files.read", disk.read("/tour/report.csv").and_then(text))?;
    tour.got("files.read-range", disk.read_range("/tour/report.csv", 4, Some(3)).and_then(text))?;
    tour.got("types.body.size", disk.read("/tour/report.csv").map(|content| content.size()))?;
    tour.got("types.body.stream", disk.read("/tour/report.csv").and_then(pieces))?;
    let streamed = disk.read("/tour/report.csv").and_then(|content| {
        disk.write("/tour/streamed.csv", Body::from_stream(Body::stream(content)), IfExists::Replace)
    });
    tour.step("types.body.from-stream", streamed, size)?;
    let copied = disk.copy("/tour/report.csv", "/tour/copy.csv", IfExists::Rename);
    tour.step("files.copy", copied, |entry| json!(entry.name))?;
    let checksum = disk.checksum("/tour/report.csv");
    tour.step("files.checksum", checksum, |checksum| json!(checksum.as_ref().map(|checksum| &checksum.algorithm)))?;
    tour.done("files.set-modified", disk.set_modified("/tour/copy.csv", LONG_AGO))?;
    tour.done("files.rename", disk.rename("/tour/copy.csv", "/tour/renamed.csv", IfExists::Fail))?;
    tour.done("files.delete", disk.delete("/tour/streamed.csv"))?;
    tour.done("files.delete-tree", disk.delete_tree("/tour/d"))?;
    let refused = disk.write("/tour/report.csv", body("other"), IfExists::Fail);
    tour.got("an error", Ok(refused.map_or_else(|error| name_of(error.code), |_| "none")))?;
    // The files go from server to server, and never enter this service.
    for connection in ["partner", "vault", "team"] {
        let target = tour.step(&format!("files.remote.open {connection}"), Remote::open(connection), nothing)?;
        tour.got(&format!("files.transfer to {connection}"), transfer(disk, "/tour", &target, "/tour"))?;
    }
    Ok(())
}

/// Content that the service itself makes, piece by piece. The stream ends before the upload is finished, which tells why
/// one took no more.
fn produce(upload: Upload, content: &str) -> Result<Entry, Error> {
    let stream = upload.content();
    for piece in content.as_bytes().chunks(STREAM_BYTES) {
        if stream.blocking_write_and_flush(piece).is_err() {
            break;
        }
    }
    drop(stream);
    Upload::finish(upload)
}

fn pages(listing: Listing) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    loop {
        let page = listing.next()?;
        if page.is_empty() {
            return Ok(entries);
        }
        entries.extend(page);
    }
}

fn pieces(content: Body) -> Result<String, Error> {
    let stream = Body::stream(content);
    let mut read = Vec::new();
    loop {
        match stream.blocking_read(STREAM_BYTES as u64) {
            Ok(piece) => read.extend(piece),
            Err(StreamError::Closed) => return Ok(String::from_utf8_lossy(&read).into_owned()),
            Err(error) => return Err(Error { code: ErrorCode::Interrupted, message: error.to_string() }),
        }
    }
}

fn transfer(source: &Remote, source_path: &str, target: &Remote, target_path: &str) -> Result<Value, Error> {
    let options = TransferOptions {
        if_present: IfPresent::Fail,
        filter: Filter { patterns: vec!["*.csv".into()], exclude: Vec::new() },
        verification: Verification::Content,
        delete_source: false,
        resume: false,
        keep_modified: true,
        parallel: 0,
    };
    let under_way = Transfer::start(source, source_path, target, target_path, &options)?;
    let mut results = Vec::new();
    while let Some(result) = under_way.next() {
        let outcome = match result.outcome {
            Outcome::Transferred(transferred) => json!(transferred.bytes),
            Outcome::Skipped(reason) => json!(reason),
            Outcome::Failed(error) => json!(error.message),
        };
        results.push((result.target, outcome));
    }
    results.sort_by(|one, other| one.0.cmp(&other.0));
    let mut shown: Vec<Value> = results.into_iter().map(|(target, outcome)| json!([target, outcome])).collect();
    shown.push(json!(under_way.progress().files_transferred));
    Ok(Value::Array(shown))
}

fn size(entry: &Entry) -> Value {
    json!(entry.size)
}

fn names(entries: &[Entry]) -> Value {
    json!(sorted(entries.iter().map(|entry| entry.name.clone())))
}

fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Other => "other",
    }
}

// ---- ftp ------------------------------------------------------------------------------------------------------------

pub(crate) fn use_ftp(tour: &mut Tour) -> Result<(), Stopped> {
    let partner = tour.step("ftp.server.open", ftp::Server::open("partner"), nothing)?;
    let raw = Remote::open("partner").and_then(|files| files.write("/raw.txt", body("raw"), IfExists::Replace));
    tour.step("files.write to partner", raw, size)?;
    tour.step("ftp.command", partner.command("SIZE /raw.txt"), |reply| json!(reply.lines))?;
    tour.step("ftp.site", partner.site("CHMOD 600 /raw.txt"), |reply| json!(reply.code))?;
    tour.step("ftp.features", partner.features(), |features| json!(features.iter().any(|line| line == "UTF8")))?;
    Ok(())
}

// ---- sftp -----------------------------------------------------------------------------------------------------------

pub(crate) fn use_sftp(tour: &mut Tour) -> Result<(), Stopped> {
    let vault = &tour.step("sftp.server.open", sftp::Server::open("vault"), nothing)?;
    let files = tour.step("files.remote.open vault", Remote::open("vault"), nothing)?;
    tour.done("files.make-directories on vault", files.make_directories("/safe/empty"))?;
    tour.step("files.write to vault", files.write("/safe/file", body("content"), IfExists::Replace), size)?;
    let info = vault.get_info("/safe/file");
    let info = tour.step("sftp.get-info", info, |info| json!([kind(info.kind), info.size]))?;
    let both = |one: Result<bool, Error>, other: Result<bool, Error>| Ok(vec![one?, other?]);
    tour.done("sftp.symlink", vault.symlink("file", "/safe/link"))?;
    tour.done("sftp.hard-link", vault.hard_link("/safe/file", "/safe/second"))?;
    tour.step("sftp.follow-info", vault.follow_info("/safe/link"), |info| json!(kind(info.kind)))?;
    let listed = vault.list("/safe");
    tour.step("sftp.list", listed, |entries| json!(sorted(entries.iter().map(|entry| entry.name.clone()))))?;
    tour.got("sftp.is-directory", both(vault.is_directory("/safe"), vault.is_directory("/safe/link")))?;
    tour.got("sftp.is-file", both(vault.is_file("/safe/file"), vault.is_file("/safe")))?;
    tour.got("sftp.is-symlink", both(vault.is_symlink("/safe/link"), vault.is_symlink("/safe/file")))?;
    tour.got("sftp.read-link", vault.read_link("/safe/link"))?;
    tour.got("sftp.realpath", vault.realpath("/safe/link"))?;
    tour.done("sftp.chmod", vault.chmod("/safe/file", 0o640))?;
    let (user, group) = (info.user.map(sftp::Owner::Id), info.group.map(sftp::Owner::Id));
    tour.done("sftp.chown", vault.chown("/safe/file", user.as_ref(), group.as_ref()))?;
    tour.done("sftp.set-times", vault.set_times("/safe/file", None, Some(LONG_AGO)))?;
    tour.step("sftp.statvfs", vault.statvfs("/safe"), |space| json!(space.bytes > 0))?;
    tour.done("sftp.fsync", vault.fsync("/safe/file"))?;
    tour.got("sftp.download-file", vault.download_file("/safe/second").and_then(text))?;
    tour.step("sftp.execute", vault.execute("cd /safe\nrename second third\n-rm missing\n"), script)?;
    let disk = tour.step("files.remote.open disk", Remote::open("disk"), nothing)?;
    tour.step("files.write to disk", disk.write("/local.txt", body("local"), IfExists::Replace), size)?;
    tour.step("sftp.execute-with", vault.execute_with("put local.txt /safe/put.txt\n", &disk, "/"), script)?;
    tour.done("sftp.delete-file", vault.delete_file("/safe/third"))?;
    tour.done("sftp.delete-symlink", vault.delete_symlink("/safe/link"))?;
    tour.done("sftp.delete-directory", vault.delete_directory("/safe/empty"))?;
    tour.done("sftp.delete", vault.delete("/safe/put.txt"))
}

fn script(result: &sftp::ScriptResult) -> Value {
    let errors = result.commands.iter().map(|command| command.error.as_ref().map(|error| name_of(error.code)));
    json!([result.is_complete, errors.collect::<Vec<_>>()])
}
