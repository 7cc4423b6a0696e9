//! Does one operation of the interface `files`, as its parameters say, and answers its result as JSON.
//!
//! `op` is the name of an operation, `pages` for `open-listing`, `transfer`, or `relay`, which writes to `path` what it
//! reads at `source` on `source-connection`; further parameters are `connection`, `path`, `target` (rename, copy,
//! transfer), `target-connection`, `move`, `verify=size` and `resume=no` (transfer), `if-exists` (fail, replace,
//! rename), `offset` and `length` (read), `modified` in seconds (set-modified, write-with), `include` (walk, transfer),
//! `abandon` (create: drop the upload unfinished). Reading answers with the content itself. The content of `write` is
//! the request's body, handed on unread; that of `create` goes through this guest's memory. An error is passed on; with
//! `errors=json` it is answered as `{"error": {"code", "message"}}`.

use serde_json::{Value, json};
use wharf_test_guests::bindings::wasi::clocks::wall_clock::Datetime;
use wharf_test_guests::bindings::wasi::io::streams::{OutputStream, StreamError};
use wharf_test_guests::bindings::wharf::host::files::{
    Entry, FileResult, Filter, IfExists, IfPresent, Listing, Outcome, Remote, Transfer, TransferOptions, Upload,
    Verification, WriteOptions,
};
use wharf_test_guests::{
    Body, Error, ErrorCode, Request, Response, error_json, invalid, json, number, parameter, required, service,
};

/// What `blocking-write-and-flush` takes at once.
const CHUNK_BYTES: u64 = 4096;

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let errors_as_json = parameter(&request, "errors") == Some("json");
    match operate(request) {
        Err(error) if errors_as_json => Ok(json(&error_json(&error))),
        outcome => outcome,
    }
}

fn operate(request: Request) -> Result<Response, Error> {
    let remote = Remote::open(required(&request, "connection")?)?;
    let path = parameter(&request, "path").unwrap_or("/").to_owned();
    let if_exists = if_exists(&request)?;
    let answer = match required(&request, "op")? {
        "stat" => entry_json(&remote.stat(&path)?),
        "list" => json!({ "entries": entries_json(&remote.list(&path)?) }),
        "exists" => json!({ "exists": remote.exists(&path)? }),
        "pages" => json!({ "pages": pages(&remote.open_listing(&path)?)? }),
        "walk" => json!({ "pages": pages(&remote.walk(&path, &filter(&request))?)? }),
        "read" => {
            let body = match parameter(&request, "offset") {
                None => remote.read(&path)?,
                Some(_) => {
                    let length = parameter(&request, "length").map(|_| number(&request, "length")).transpose()?;
                    remote.read_range(&path, number(&request, "offset")?, length)?
                }
            };
            let headers = body.size().map(|size| ("x-size".into(), size.to_string())).into_iter().collect();
            return Ok(Response { status: 200, headers, body });
        }
        "write" => entry_json(&remote.write(&path, request.body, if_exists)?),
        "create" => {
            let upload = remote.create(&path, if_exists)?;
            copy(request.body, &upload.content())?;
            if request.params.iter().any(|(name, _)| name == "abandon") {
                drop(upload);
                json!({ "abandoned": path })
            } else {
                entry_json(&Upload::finish(upload)?)
            }
        }
        "relay" => {
            let source = Remote::open(required(&request, "source-connection")?)?;
            let content = source.read(required(&request, "source")?)?;
            entry_json(&remote.write(&path, content, if_exists)?)
        }
        "write-with" => {
            let modified = parameter(&request, "modified").map(|_| time(&request)).transpose()?;
            let options = WriteOptions { if_exists, parents: true, modified };
            entry_json(&remote.write_with(&path, request.body, options)?)
        }
        "append" => entry_json(&remote.append(&path, request.body)?),
        "copy" => entry_json(&remote.copy(&path, required(&request, "target")?, if_exists)?),
        "checksum" => match remote.checksum(&path)? {
            Some(checksum) => json!({ "algorithm": checksum.algorithm, "value": checksum.value }),
            None => json!({}),
        },
        "set-modified" => done(remote.set_modified(&path, time(&request)?)?),
        "delete-tree" => done(remote.delete_tree(&path)?),
        "make-directories" => done(remote.make_directories(&path)?),
        "transfer" => {
            let options = TransferOptions {
                if_present: IfPresent::Replace,
                filter: filter(&request),
                verification: match parameter(&request, "verify") {
                    Some("size") => Verification::Size,
                    _ => Verification::Content,
                },
                delete_source: parameter(&request, "move").is_some(),
                resume: parameter(&request, "resume") != Some("no"),
                keep_modified: true,
                parallel: 0,
            };
            let target = Remote::open(required(&request, "target-connection")?)?;
            let transfer = Transfer::start(&remote, &path, &target, required(&request, "target")?, &options)?;
            let results: Vec<Value> =
                std::iter::from_fn(|| transfer.next()).map(|result| result_json(&result)).collect();
            let progress = transfer.progress();
            json!({ "results": results, "transferred": progress.files_transferred, "bytes": progress.bytes_transferred })
        }
        "delete" => done(remote.delete(&path)?),
        "rename" => done(remote.rename(&path, required(&request, "target")?, if_exists)?),
        "make-directory" => done(remote.make_directory(&path)?),
        "ping" => {
            let pong = remote.ping()?;
            let facts: serde_json::Map<_, _> =
                pong.facts.into_iter().map(|(name, value)| (name, value.into())).collect();
            json!({ "milliseconds": pong.milliseconds, "facts": facts })
        }
        other => return Err(invalid(format!("no operation has the name {other}"))),
    };
    Ok(json(&answer))
}

/// Writes all of the content. A target that takes no more is no error here: `finish` tells why.
fn copy(content: Body, target: &OutputStream) -> Result<(), Error> {
    let source = Body::stream(content);
    loop {
        match source.blocking_read(CHUNK_BYTES) {
            Ok(chunk) if target.blocking_write_and_flush(&chunk).is_ok() => {}
            Ok(_) | Err(StreamError::Closed) => return Ok(()),
            Err(error) => {
                let message = format!("reading the request's body broke off: {error:?}");
                return Err(Error { code: ErrorCode::Interrupted, message });
            }
        }
    }
}

fn if_exists(request: &Request) -> Result<IfExists, Error> {
    match parameter(request, "if-exists") {
        None | Some("fail") => Ok(IfExists::Fail),
        Some("replace") => Ok(IfExists::Replace),
        Some("rename") => Ok(IfExists::Rename),
        Some(other) => Err(invalid(format!("if-exists has no case {other}"))),
    }
}

fn filter(request: &Request) -> Filter {
    Filter { patterns: parameter(request, "include").map(str::to_owned).into_iter().collect(), exclude: Vec::new() }
}

fn time(request: &Request) -> Result<Datetime, Error> {
    Ok(Datetime { seconds: number(request, "modified")?, nanoseconds: 0 })
}

fn pages(listing: &Listing) -> Result<Vec<Vec<Value>>, Error> {
    let mut pages = Vec::new();
    loop {
        let entries = listing.next()?;
        if entries.is_empty() {
            return Ok(pages);
        }
        pages.push(entries_json(&entries));
    }
}

fn result_json(result: &FileResult) -> Value {
    let outcome = match &result.outcome {
        Outcome::Transferred(transferred) => {
            json!({ "bytes": transferred.bytes, "resumed-at": transferred.resumed_at })
        }
        Outcome::Skipped(reason) => json!({ "skipped": reason }),
        Outcome::Failed(error) => error_json(error),
    };
    json!({ "source": result.source, "target": result.target, "outcome": outcome })
}

fn done((): ()) -> Value {
    json!({ "done": true })
}

fn entries_json(entries: &[Entry]) -> Vec<Value> {
    entries.iter().map(entry_json).collect()
}

fn entry_json(entry: &Entry) -> Value {
    json!({
        "path": entry.path,
        "name": entry.name,
        "kind": format!("{:?}", entry.kind).trim_start_matches("EntryKind::").to_lowercase(),
        "size": entry.size,
        "modified": entry.modified.map(|time| time.seconds),
        "revision": entry.revision,
    })
}
