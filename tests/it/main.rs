//! End to end: the real program, started as an operator starts it, with real guests and real sockets.
//!
//! One test binary for all of it. The harness starts hosts; every other module is one area of what the product promises.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "a test shows figures, and the log of a host when it fails"
)]

mod harness;

mod exports;
mod http_door;
mod neighbours;
mod sandbox;
