//! End to end: the real program, started as an operator starts it, with real guests and real sockets.
//!
//! One test binary for all of it. The harness starts hosts; every other module is one area of what the product promises.

mod harness;

mod exports;
mod http_door;
mod neighbours;
mod sandbox;
