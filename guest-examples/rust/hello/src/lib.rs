//! Greets whom the parameter `name` says.

wit_bindgen::generate!({ world: "service", path: "../../../wit", generate_all });

use exports::wharf::host::handler::Guest;
use wharf::host::types::{Body, Error, Request, Response};

struct Hello;
export!(Hello);

impl Guest for Hello {
    fn handle(request: Request) -> Result<Response, Error> {
        let name = request.params.iter().find(|(key, _)| key == "name");
        let name = name.map_or("world", |(_, value)| value);
        Ok(Response {
            status: 200,
            headers: vec![("content-type".into(), "text/plain; charset=utf-8".into())],
            body: Body::new(format!("Hello, {name}, from Rust\n").as_bytes()),
        })
    }
}
