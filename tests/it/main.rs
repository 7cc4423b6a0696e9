//! End to end: the real program, started as an operator starts it, with real guests and real sockets.
//!
//! One test binary for all of it. The harness starts hosts; every other module is one area of what the product promises.

#![expect(
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test shows figures, shows the log of a host when it fails, and fails by a panic"
)]

mod harness;

mod command_line;
mod configuration;
mod crash;
mod deploy;
mod every_interface;
mod exports;
mod http_connections;
mod files;
mod ftp;
mod http_door;
mod large;
mod neighbours;
mod sandbox;
mod sftp;
mod tidy;
mod walk;
