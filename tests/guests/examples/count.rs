//! Answers the how manyth invocation of its instance this is. With `then=trap` it panics, with `then=spin` it loops for
//! ever, with `then=fail` it answers with an error, after it counted.

use std::sync::atomic::{AtomicU64, Ordering};
use wharf_test_guests::{Error, Request, Response, invalid, parameter, service, text};

static INVOCATIONS: AtomicU64 = AtomicU64::new(0);

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let count = INVOCATIONS.fetch_add(1, Ordering::Relaxed) + 1;
    match parameter(&request, "then") {
        Some("trap") => panic!("told to panic"),
        Some("spin") => loop {
            INVOCATIONS.fetch_add(0, Ordering::SeqCst);
        },
        Some("fail") => Err(invalid("told to fail".into())),
        _ => Ok(text(format!("{count}\n"))),
    }
}
