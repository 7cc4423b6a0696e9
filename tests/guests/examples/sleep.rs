//! Sleeps for `ms` milliseconds, then answers.

use std::{thread, time::Duration};
use wharf_test_guests::{Error, Request, Response, number, service, text};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    thread::sleep(Duration::from_millis(number(&request, "ms")?));
    Ok(text("awake\n"))
}
