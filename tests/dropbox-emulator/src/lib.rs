//! An emulator of the Dropbox HTTP API v2, for tests and demonstrations: one account, in memory, over HTTPS.
//!
//! It is not Dropbox. It keeps files until it ends, trusts anyone who knows its configured tokens, and gives the answers
//! the public API specification (Stone files) and the official SDKs expect, errors included. It can also go wrong on
//! demand: see [`Fault`].
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use dropbox_emulator::{Emulator, Fault, FaultKind, Options};
//!
//! let emulator = Emulator::start(Options::default()).await?;
//! emulator.put("/inbox/order.xml", b"<order/>")?;
//! emulator.inject(Fault::on("files/download", FaultKind::CutDownload { after_bytes: 3 }))?;
//! // A client that trusts `emulator.ca_pem()` and calls `emulator.url()` sees the download break off, once.
//! # Ok(())
//! # }
//! ```
//!
//! Routes: `/oauth2/token`, and under `/2/` the table in `routes.rs`. Beside them, and no part of Dropbox: `GET
//! /emulator/files`, `GET /emulator/requests`, `POST` and `DELETE /emulator/faults`, `POST
//! /emulator/expire_access_tokens`.

mod account;
mod argument;
mod control;
mod dispatch;
mod emulator;
mod faults;
mod form;
mod oauth;
mod reply;
mod request_log;
mod routes;
mod server;
mod store;
mod tls;

pub use emulator::{Emulator, FileRecord, Options, PutError, Running, StartError};
pub use faults::{Fault, FaultError, FaultKind};
pub use request_log::RequestRecord;
pub use store::content::content_hash;
pub use tls::TlsError;
