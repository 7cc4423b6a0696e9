//! Allocates `mib` mebibytes, touches every page of them, and answers.

use std::hint::black_box;
use wharf_test_guests::{Error, Request, Response, number, service, text};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let mebibytes = number(&request, "mib")?;
    let held = black_box(vec![1_u8; mebibytes as usize * 1024 * 1024]);
    Ok(text(format!("{} bytes\n", held.len())))
}
