//! The emulator over HTTPS: what any client would see, and what the official Python SDK makes of it.

#![expect(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

mod client;
mod faults;
mod files;
mod javascript_sdk;
mod listings;
mod program;
mod python_sdk;
mod rclone;
mod requests;
mod tokens;
