//! Reads its body as a stream, chunk by chunk, and answers its length.

use wharf_test_guests::bindings::wasi::io::streams::StreamError;
use wharf_test_guests::{Body, Error, ErrorCode, Request, Response, service, text};

const CHUNK_BYTES: u64 = 64 * 1024;

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let content = Body::stream(request.body);
    let mut length = 0;
    loop {
        match content.blocking_read(CHUNK_BYTES) {
            Ok(chunk) => length += chunk.len(),
            Err(StreamError::Closed) => return Ok(text(format!("{length}\n"))),
            Err(StreamError::LastOperationFailed(error)) => {
                let message = format!("the body broke off: {}", error.to_debug_string());
                return Err(Error { code: ErrorCode::Interrupted, message });
            }
        }
    }
}
