//! Sends one request over an HTTP connection by `http.send`, and passes its answer on. Parameters: `connection`, `path`
//! (none: empty), `query`, the value of a parameter `q`, and `header`, a name and a value with a colon between, any
//! number of times. Method and body are those of the request itself; with `streamed` the body is passed on as a stream.

use wharf_test_guests::bindings::wharf::host::http::{Request as Outgoing, send};
use wharf_test_guests::{Body, Error, Request, Response, parameter, required, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let connection = required(&request, "connection")?.to_owned();
    let path = parameter(&request, "path").unwrap_or_default().to_owned();
    let params = parameter(&request, "query").map(|value| ("q".to_owned(), value.to_owned()));
    let headers = request.params.iter().filter(|(name, _)| name == "header");
    let headers = headers.filter_map(|(_, header)| header.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let streamed = parameter(&request, "streamed").is_some();
    let body = if streamed { request.body } else { Body::new(&Body::bytes(request.body)?) };
    send(&connection, Outgoing { method: request.method, path, params: params.into_iter().collect(), headers, body })
}
