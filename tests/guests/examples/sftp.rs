//! Does one operation of the interface `sftp`, as its parameters say, and answers its result as JSON.
//!
//! `op` is the name of an operation; further parameters are `connection`, `path`, `target` (symlink, hard-link), `mode` in
//! octal digits (chmod), `user` and `group` (chown), `modified` in seconds (set-times), `local` and `local-folder`
//! (execute-with). The script of `execute` is the request's body.

use serde_json::{Value, json};
use wharf_test_guests::bindings::wasi::clocks::wall_clock::Datetime;
use wharf_test_guests::bindings::wharf::host::files::Remote;
use wharf_test_guests::bindings::wharf::host::sftp::{Info, Owner, ScriptResult, Server};
use wharf_test_guests::{
    Body, Error, Request, Response, error_json, invalid, json, number, parameter, required, service,
};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let server = Server::open(required(&request, "connection")?)?;
    let path = parameter(&request, "path").unwrap_or("/").to_owned();
    let owner = |name: &str| {
        parameter(&request, name).map(|text| match text.parse() {
            Ok(id) => Owner::Id(id),
            Err(_) => Owner::Name(text.to_owned()),
        })
    };
    let answer = match required(&request, "op")? {
        "execute" => script_json(&server.execute(&text(request.body)?)?),
        "execute-with" => {
            let local = Remote::open(required(&request, "local")?)?;
            let folder = parameter(&request, "local-folder").unwrap_or("/").to_owned();
            script_json(&server.execute_with(&text(request.body)?, &local, &folder)?)
        }
        "get-info" => info_json(&server.get_info(&path)?),
        "follow-info" => info_json(&server.follow_info(&path)?),
        "list" => json!({ "entries": server.list(&path)?.iter().map(info_json).collect::<Vec<_>>() }),
        "kind" => json!({
            "directory": server.is_directory(&path)?,
            "file": server.is_file(&path)?,
            "symlink": server.is_symlink(&path)?,
        }),
        "symlink" => done(server.symlink(required(&request, "target")?, &path)?),
        "hard-link" => done(server.hard_link(required(&request, "target")?, &path)?),
        "read-link" => json!({ "target": server.read_link(&path)? }),
        "chmod" => {
            let mode = u32::from_str_radix(required(&request, "mode")?, 8);
            done(server.chmod(&path, mode.map_err(|error| invalid(error.to_string()))?)?)
        }
        "chown" => done(server.chown(&path, owner("user").as_ref(), owner("group").as_ref())?),
        "set-times" => {
            let modified = Datetime { seconds: number(&request, "modified")?, nanoseconds: 0 };
            done(server.set_times(&path, None, Some(modified))?)
        }
        "statvfs" => {
            let space = server.statvfs(&path)?;
            json!({ "bytes": space.bytes, "available": space.bytes_available })
        }
        "fsync" => done(server.fsync(&path)?),
        "realpath" => json!({ "path": server.realpath(&path)? }),
        "delete-file" => done(server.delete_file(&path)?),
        "delete-directory" => done(server.delete_directory(&path)?),
        "delete-symlink" => done(server.delete_symlink(&path)?),
        "delete" => done(server.delete(&path)?),
        "download-file" => {
            let body = server.download_file(&path)?;
            return Ok(Response { status: 200, headers: Vec::new(), body });
        }
        other => return Err(invalid(format!("no operation has the name {other}"))),
    };
    Ok(json(&answer))
}

fn text(body: Body) -> Result<String, Error> {
    String::from_utf8(Body::bytes(body)?).map_err(|error| invalid(error.to_string()))
}

fn done((): ()) -> Value {
    json!({ "done": true })
}

fn info_json(info: &Info) -> Value {
    json!({
        "path": info.path,
        "kind": format!("{:?}", info.kind).trim_start_matches("EntryKind::").to_lowercase(),
        "size": info.size,
        "mode": info.mode.map(|mode| format!("{mode:o}")),
        "user": info.user,
        "group": info.group,
        "modified": info.modified.map(|time| time.seconds),
    })
}

fn script_json(script: &ScriptResult) -> Value {
    let commands = script.commands.iter().map(|result| {
        json!({
            "command": result.command,
            "output": result.output,
            "error": result.error.as_ref().map(error_json),
            "ignored": result.ignores_errors,
        })
    });
    json!({ "commands": commands.collect::<Vec<_>>(), "complete": script.is_complete })
}
