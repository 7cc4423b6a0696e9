//! Fails with the error whose code is `code`, written as in the contract.

use wharf_test_guests::{ERROR_CODES, Error, Request, Response, invalid, required, service};

service!(handle);

fn handle(request: Request) -> Result<Response, Error> {
    let name = required(&request, "code")?;
    let Some((_, code)) = ERROR_CODES.iter().find(|(known, _)| *known == name) else {
        return Err(invalid(format!("no error code has the name {name}")));
    };
    let message = format!("this guest fails with {name}");
    Err(Error { code: *code, message })
}
