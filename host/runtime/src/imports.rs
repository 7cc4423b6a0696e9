//! What guests can call: the interfaces of WASI, and ours. One linker for all components; what a component may really
//! use is decided by the grant that each of our interfaces asks for.
//!
//! Each file below is thin: it finds the grant, converts types, calls a connector, and maps the error.

pub(crate) mod dropbox;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod ftp;
pub(crate) mod outgoing;
pub(crate) mod services;
pub(crate) mod sftp;
pub(crate) mod types;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};
use wharf_connectors::{Error, ErrorKind};

use crate::guest::Guest;

/// Rust's side of `wit/`.
pub(crate) mod bindings {
    wasmtime::component::bindgen!({
        path: "../../wit",
        world: "wharf:host/service",
        imports: { default: async | trappable },
        exports: { default: async },
        with: {
            "wasi:io": wasmtime_wasi::p2::bindings::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wharf:host/types.body": crate::body::Body,
            "wharf:host/files.remote": super::files::GrantedRemote,
            "wharf:host/files.listing": super::files::OpenListing,
            "wharf:host/files.upload": super::files::upload::GuestUpload,
            "wharf:host/files.transfer": super::files::transfer::GuestTransfer,
            "wharf:host/ftp.server": super::ftp::GrantedServer,
            "wharf:host/sftp.server": super::sftp::GrantedServer,
            "wharf:host/dropbox.account": super::dropbox::GrantedAccount,
        },
    });
}

use bindings::wharf::host::types as wit;

/// The linker with everything that the host offers.
pub(crate) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    wasmtime_wasi_http::p3::add_to_linker(&mut linker)?;
    bindings::wharf::host::types::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::services::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::files::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::ftp::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::sftp::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::dropbox::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    bindings::wharf::host::http::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

/// What a function of ours returns: the outer error traps, the inner one is told to the guest.
pub(crate) type Answer<T> = wasmtime::Result<Result<T, wit::Error>>;

/// What a connector came to, as it is told to a guest.
pub(crate) fn answer<T>(result: Result<T, Error>) -> Answer<T> {
    Ok(result.map_err(|error| told(&error)))
}

/// What a guest is told of a failed operation: the step of the way to the remote that failed, where that is known, and
/// the message of every layer, on one line.
pub(crate) fn told(error: &Error) -> wit::Error {
    if error.kind() == ErrorKind::Internal {
        tracing::error!(error = wharf_connectors::chain(error), "a connector failed by its own fault");
    }
    let mut message = wharf_connectors::chain(error);
    if let Some(step) = error.step() {
        message = format!("at {step}: {message}");
    }
    wit::Error { code: code_of(error.kind()), message }
}

/// An error that the host itself finds before any connector is asked.
pub(crate) fn refused(code: wit::ErrorCode, message: impl Into<String>) -> wit::Error {
    wit::Error { code, message: message.into() }
}

pub(crate) fn code_of(kind: ErrorKind) -> wit::ErrorCode {
    match kind {
        ErrorKind::NotFound => wit::ErrorCode::NotFound,
        ErrorKind::AlreadyExists => wit::ErrorCode::AlreadyExists,
        ErrorKind::Denied => wit::ErrorCode::Denied,
        ErrorKind::Invalid => wit::ErrorCode::Invalid,
        ErrorKind::TooLarge => wit::ErrorCode::TooLarge,
        ErrorKind::Timeout => wit::ErrorCode::Timeout,
        ErrorKind::Unavailable => wit::ErrorCode::Unavailable,
        ErrorKind::RateLimited => wit::ErrorCode::RateLimited,
        ErrorKind::Conflict => wit::ErrorCode::Conflict,
        ErrorKind::Unsupported => wit::ErrorCode::Unsupported,
        ErrorKind::Interrupted => wit::ErrorCode::Interrupted,
        ErrorKind::Internal => wit::ErrorCode::Internal,
    }
}

pub(crate) fn kind_of(code: wit::ErrorCode) -> ErrorKind {
    match code {
        wit::ErrorCode::NotFound => ErrorKind::NotFound,
        wit::ErrorCode::AlreadyExists => ErrorKind::AlreadyExists,
        wit::ErrorCode::Denied => ErrorKind::Denied,
        wit::ErrorCode::Invalid => ErrorKind::Invalid,
        wit::ErrorCode::TooLarge => ErrorKind::TooLarge,
        wit::ErrorCode::Timeout => ErrorKind::Timeout,
        wit::ErrorCode::Unavailable => ErrorKind::Unavailable,
        wit::ErrorCode::RateLimited => ErrorKind::RateLimited,
        wit::ErrorCode::Conflict => ErrorKind::Conflict,
        wit::ErrorCode::Unsupported => ErrorKind::Unsupported,
        wit::ErrorCode::Interrupted => ErrorKind::Interrupted,
        wit::ErrorCode::Internal => ErrorKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use wharf_connectors::Step;

    use super::*;

    #[test]
    fn a_guest_is_told_the_step_that_failed_where_it_is_known() {
        let refused = || Error::new(ErrorKind::Denied, "the server refused the login").with_source("530");
        assert_eq!(told(&refused()).message, "the server refused the login: 530");
        assert_eq!(told(&refused().at(Step::Login)).message, "at login: the server refused the login: 530");
        assert_eq!(told(&refused().at(Step::HostKey)).message, "at host-key: the server refused the login: 530");
    }
}
