//! A standard `wasi:http` 0.3 component. It needs nothing of this host and runs unmodified on any other.

use wasip3::http::types::{ErrorCode, Request, Response};
use wasip3::http_compat::http_into_wasi_response;

struct Hello;
wasip3::http::service::export!(Hello);

impl wasip3::exports::http::handler::Guest for Hello {
    async fn handle(_request: Request) -> Result<Response, ErrorCode> {
        http_into_wasi_response(http::Response::new("Hello from wasi:http 0.3\n".to_owned()))
    }
}
