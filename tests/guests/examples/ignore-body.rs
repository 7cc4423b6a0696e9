//! Answers without looking at its body.

use wharf_test_guests::{Error, Request, Response, service, text};

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    Ok(text("ignored\n"))
}
