//! `wharf:host/http`: requests to HTTP connections by path.

use ::http::Method;
use wasmtime::component::Resource;
use wharf_connectors::http::{Request, Response};
use wharf_connectors::{Error, ErrorKind, Remote};

use super::bindings::wharf::host::http as wit;
use super::bindings::wharf::host::types as wit_types;
use super::services::{attributes, header_map};
use super::told;
use crate::body::Body;
use crate::grant;
use crate::guest::Guest;

impl wit::Host for Guest {
    async fn send(
        &mut self,
        connection: String,
        request: wit::Request,
    ) -> wasmtime::Result<Result<wit_types::Response, wit_types::Error>> {
        let body: Body = self.table.delete(request.body)?;
        let work = async {
            let surroundings = &self.surroundings;
            let (granted, origin) =
                grant::open_as(&surroundings.settings, &surroundings.service, &connection, "http", Remote::http)?;
            let method = Method::from_bytes(request.method.as_bytes())
                .map_err(|_| Error::new(ErrorKind::Invalid, format!("{:?} is not an HTTP method", request.method)))?;
            let request = Request {
                method,
                path: request.path,
                query: request.params,
                headers: header_map(&request.headers).map_err(|why| Error::new(ErrorKind::Invalid, why))?,
                content: body.into_content(),
            };
            origin.send(request, &|method, path| granted.allow_request(method, path)).await
        };
        match work.await {
            Ok(Response { status, headers, content }) => {
                let body: Resource<Body> = self.table.push(Body::Content(content))?;
                Ok(Ok(wit_types::Response { status: status.as_u16(), headers: attributes(&headers), body }))
            }
            Err(error) => Ok(Err(told(&error))),
        }
    }
}
