//! Allocates memory without end.

use std::hint::black_box;
use wharf_test_guests::{Error, Request, Response, service};

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    let mut held = Vec::new();
    loop {
        held.push(black_box(vec![1_u8; 1024 * 1024]));
    }
}
