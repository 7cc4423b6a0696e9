//! Answers which version of it this is, in its body and in the header `x-version`.
//!
//! The marker occurs once in the component and has a fixed width: a test makes as many versions as it needs by
//! replacing these 16 bytes in the file.

use std::hint::black_box;
use wharf_test_guests::{Body, Error, Request, Response, service};

static MARKER: &[u8; 16] = b"VERSION-00000000";

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    let version = black_box(MARKER);
    Ok(Response {
        status: 200,
        headers: vec![("x-version".into(), String::from_utf8_lossy(version).into())],
        body: Body::new(version),
    })
}
