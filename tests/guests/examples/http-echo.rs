//! A `wasi:http` 0.2 component that answers with the request's own body, as it comes, and shows the method, the path
//! with its query, and the headers in headers `x-echo-*`.

use wasip2::http::types::{Fields, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam};
use wasip2::io::streams::StreamError;

const CHUNK_BYTES: u64 = 64 * 1024;

struct Echo;
wasip2::http::proxy::export!(Echo);

impl wasip2::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let headers = Fields::new();
        let method = match request.method() {
            Method::Other(name) => name,
            known => format!("{known:?}").trim_start_matches("Method::").to_uppercase(),
        };
        let path = request.path_with_query().unwrap_or_default();
        let mut fields =
            vec![("x-echo-method".to_owned(), method.into_bytes()), ("x-echo-path".to_owned(), path.into_bytes())];
        for (name, value) in request.headers().entries() {
            fields.push((format!("x-echo-header-{name}"), value));
        }
        for (name, value) in fields {
            headers.append(&name, &value).expect("the host gave no invalid header");
        }
        let response = OutgoingResponse::new(headers);
        let body = response.body().expect("this is the first call");
        ResponseOutparam::set(answer, Ok(response));

        let incoming = request.consume().expect("this is the first call");
        let source = incoming.stream().expect("this is the first call");
        let target = body.write().expect("this is the first call");
        loop {
            match target.blocking_splice(&source, CHUNK_BYTES) {
                Ok(_) => {}
                Err(StreamError::Closed) => break,
                Err(error) => panic!("the echo broke off: {error:?}"),
            }
        }
        drop((source, target));
        OutgoingBody::finish(body, None).expect("the body has no declared length");
    }
}
