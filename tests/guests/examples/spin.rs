//! Loops for ever.

use std::hint::black_box;
use wharf_test_guests::{Error, Request, Response, service};

service!(handle);

fn handle(_request: Request) -> Result<Response, Error> {
    let mut turns = 0_u64;
    loop {
        turns = black_box(turns.wrapping_add(1));
    }
}
