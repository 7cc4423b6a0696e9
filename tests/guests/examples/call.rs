//! Invokes other services: `service` is a list of names, separated by commas. The first is invoked with the rest as
//! its own `service`, and its response or error is passed on; with an empty list, or none, this is the end.

use wharf_test_guests::bindings::wharf::host::services;
use wharf_test_guests::{Error, Request, Response, parameter, service, text};

service!(handle);

fn handle(mut request: Request) -> Result<Response, Error> {
    let chain = parameter(&request, "service").unwrap_or_default().to_owned();
    let (next, rest) = chain.split_once(',').unwrap_or((&chain, ""));
    if next.is_empty() {
        return Ok(text(format!("the end, in {}\n", request.id)));
    }
    request.params.retain(|(name, _)| name != "service");
    request.params.push(("service".into(), rest.into()));
    services::invoke(next, request)
}
