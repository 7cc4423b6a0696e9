//! A standard `wasi:http` 0.2 component. It needs nothing of this host and runs unmodified on any other.

use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

struct Hello;
wasip2::http::proxy::export!(Hello);

impl wasip2::exports::http::incoming_handler::Guest for Hello {
    fn handle(_request: IncomingRequest, answer: ResponseOutparam) {
        let response = OutgoingResponse::new(Fields::new());
        let Ok(body) = response.body() else { return };
        ResponseOutparam::set(answer, Ok(response));

        // A client that hangs up is no fault of this service: nothing is left to do then.
        let Ok(content) = body.write() else { return };
        let written = content.blocking_write_and_flush(b"Hello from wasi:http 0.2\n");
        drop(content);
        if written.is_ok() {
            let _ = OutgoingBody::finish(body, None);
        }
    }
}
