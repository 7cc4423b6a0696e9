//! Panics with a message on standard error.

use wharf_test_guests::{Error, Request, Response, service};

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    panic!("this guest always panics")
}
