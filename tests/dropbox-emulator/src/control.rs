//! The emulator's own routes under `/emulator/`: faults, files, requests. They are no part of Dropbox.
//!
//! They need no token, which is one more reason to keep the emulator on the loopback interface.

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;

use crate::dispatch::{Emulation, TooLarge};
use crate::emulator::file_records;
use crate::faults::Fault;
use crate::reply::{Body, Reply};

/// Answers `/emulator/<name>`.
pub(crate) fn answer(emulation: &Emulation, method: &Method, name: &str, body: &Result<Bytes, TooLarge>) -> Reply {
    match (method, name) {
        (&Method::GET, "files") => Reply::json(json!({ "files": file_records(&emulation.account) })),
        (&Method::GET, "requests") => Reply::json(json!({ "requests": emulation.log.records() })),
        (&Method::POST, "faults") => inject(emulation, body),
        (&Method::DELETE, "faults") => {
            emulation.faults.clear();
            done()
        }
        (&Method::POST, "expire_access_tokens") => {
            emulation.tokens.expire_all();
            done()
        }
        _ => Reply::text(
            StatusCode::NOT_FOUND,
            "the emulator has GET files, GET requests, POST and DELETE faults, and POST expire_access_tokens\n",
        ),
    }
}

fn inject(emulation: &Emulation, body: &Result<Bytes, TooLarge>) -> Reply {
    let refuse =
        |reason: String| Reply::text(StatusCode::BAD_REQUEST, format!("the fault was not injected: {reason}\n"));
    let Ok(body) = body else {
        return refuse("it is too large".into());
    };
    let fault: Fault = match serde_json::from_slice(body) {
        Ok(fault) => fault,
        Err(error) => return refuse(error.to_string()),
    };
    match emulation.faults.inject(fault) {
        Ok(()) => done(),
        Err(error) => refuse(error.to_string()),
    }
}

fn done() -> Reply {
    Reply { status: StatusCode::NO_CONTENT, headers: Vec::new(), body: Body::Empty }
}
