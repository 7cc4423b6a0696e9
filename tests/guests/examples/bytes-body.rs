//! Reads its body whole into memory and answers its length.

use wharf_test_guests::{Body, Error, Request, Response, service, text};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let content = Body::bytes(request.body)?;
    Ok(text(format!("{}\n", content.len())))
}
