//! Does one operation of the interface `ftp`, as its parameters say, and answers its result as JSON.
//!
//! `op` is command, site or features; further parameters are `connection` and `text`.

use serde_json::json;
use wharf_test_guests::bindings::wharf::host::ftp::{RawReply, Server};
use wharf_test_guests::{Error, Request, Response, invalid, json, required, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let server = Server::open(required(&request, "connection")?)?;
    let told = |reply: RawReply| json!({ "code": reply.code, "lines": reply.lines });
    let answer = match required(&request, "op")? {
        "command" => told(server.command(required(&request, "text")?)?),
        "site" => told(server.site(required(&request, "text")?)?),
        "features" => json!({ "features": server.features()? }),
        other => return Err(invalid(format!("no operation has the name {other}"))),
    };
    Ok(json(&answer))
}
