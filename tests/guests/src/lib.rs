//! What the test guests share: the bindings, the macro that makes a function a service, and short forms for reading a
//! parameter and for answering. A guest is one file in `examples/`, one behaviour each.
//!
//! Knows nothing of the tests that use the guests.

/// The bindings of the contract in `wit/`.
pub mod bindings {
    wit_bindgen::generate!({
        world: "service",
        path: "../../wit",
        generate_all,
        pub_export_macro: true,
        default_bindings_module: "wharf_test_guests::bindings",
    });
}

pub use bindings::wharf::host::types::{Body, Error, ErrorCode, Request, Response};

/// Exports a function `fn(Request) -> Result<Response, Error>` as the handler of this component.
#[macro_export]
macro_rules! service {
    ($handle:path) => {
        struct Service;
        impl $crate::bindings::exports::wharf::host::handler::Guest for Service {
            fn handle(request: $crate::Request) -> Result<$crate::Response, $crate::Error> {
                $handle(request)
            }
        }
        $crate::bindings::export!(Service);
    };
}

/// The first parameter of this name.
pub fn parameter<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.params.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The first parameter of this name, or an error that says that it is missing.
pub fn required<'a>(request: &'a Request, name: &str) -> Result<&'a str, Error> {
    parameter(request, name).ok_or_else(|| invalid(format!("the parameter {name} is missing")))
}

/// The first parameter of this name as a number, or an error that says what is wrong with it.
pub fn number(request: &Request, name: &str) -> Result<u64, Error> {
    let text = required(request, name)?;
    text.parse().map_err(|_| invalid(format!("the parameter {name} is not a number: {text}")))
}

/// An error with the code `invalid`.
pub fn invalid(message: String) -> Error {
    Error { code: ErrorCode::Invalid, message }
}

/// 200 with a text.
pub fn text(content: impl AsRef<[u8]>) -> Response {
    Response {
        status: 200,
        headers: vec![("content-type".into(), "text/plain; charset=utf-8".into())],
        body: Body::new(content.as_ref()),
    }
}

/// 200 with JSON.
pub fn json(content: &serde_json::Value) -> Response {
    Response {
        status: 200,
        headers: vec![("content-type".into(), "application/json".into())],
        body: Body::new(content.to_string().as_bytes()),
    }
}

/// The error codes under the names that the contract gives them.
pub const ERROR_CODES: [(&str, ErrorCode); 12] = [
    ("not-found", ErrorCode::NotFound),
    ("already-exists", ErrorCode::AlreadyExists),
    ("denied", ErrorCode::Denied),
    ("invalid", ErrorCode::Invalid),
    ("too-large", ErrorCode::TooLarge),
    ("timeout", ErrorCode::Timeout),
    ("unavailable", ErrorCode::Unavailable),
    ("rate-limited", ErrorCode::RateLimited),
    ("conflict", ErrorCode::Conflict),
    ("unsupported", ErrorCode::Unsupported),
    ("interrupted", ErrorCode::Interrupted),
    ("internal", ErrorCode::Internal),
];

/// An error as JSON: `{"error": {"code", "message"}}`, the code under its name in the contract.
pub fn error_json(error: &Error) -> serde_json::Value {
    let named = ERROR_CODES.iter().find(|(_, code)| *code == error.code);
    let code = named.map(|(name, _)| name);
    serde_json::json!({ "error": { "code": code, "message": error.message } })
}
