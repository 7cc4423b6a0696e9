//! Answers with the `status`, the `header`s (`name:value`, as often as needed) and the `text` of its parameters, valid
//! or not.

use wharf_test_guests::{Body, Error, Request, Response, number, parameter, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let headers = request.params.iter().filter(|(name, _)| name == "header");
    let headers = headers.filter_map(|(_, value)| value.split_once(':'));
    Ok(Response {
        status: number(&request, "status").unwrap_or(200) as u16,
        headers: headers.map(|(name, value)| (name.into(), value.into())).collect(),
        body: Body::new(parameter(&request, "text").unwrap_or_default().as_bytes()),
    })
}
