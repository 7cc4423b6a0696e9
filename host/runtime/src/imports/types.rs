//! `wharf:host/types`: bodies.

use bytes::Bytes;
use wasmtime::component::Resource;
use wasmtime_wasi_io::streams::{DynInputStream, InputStream};

use super::bindings::wharf::host::types::{Error, Host, HostBody};
use super::told;
use crate::body::{Body, ContentInput, content_of_stream};
use crate::guest::Guest;

impl Host for Guest {}

impl HostBody for Guest {
    async fn new(&mut self, bytes: Vec<u8>) -> wasmtime::Result<Resource<Body>> {
        Ok(self.table.push(Body::from_bytes(Bytes::from(bytes)))?)
    }

    async fn from_stream(&mut self, content: Resource<DynInputStream>) -> wasmtime::Result<Resource<Body>> {
        let stream = self.table.delete(content)?;
        Ok(self.table.push(Body::Content(content_of_stream(stream)))?)
    }

    async fn size(&mut self, body: Resource<Body>) -> wasmtime::Result<Option<u64>> {
        Ok(self.table.get(&body)?.size())
    }

    async fn bytes(&mut self, content: Resource<Body>) -> wasmtime::Result<Result<Vec<u8>, Error>> {
        let body = self.table.delete(content)?;
        let limit = self.memory_bytes_max();
        Ok(match body.into_content().collect(limit).await {
            Ok(bytes) => Ok(bytes.into()),
            Err(error) => Err(told(&error)),
        })
    }

    async fn stream(&mut self, content: Resource<Body>) -> wasmtime::Result<Resource<DynInputStream>> {
        let body = self.table.delete(content)?;
        let stream: Box<dyn InputStream> = Box::new(ContentInput::new(body.into_content()));
        Ok(self.table.push(stream)?)
    }

    async fn drop(&mut self, body: Resource<Body>) -> wasmtime::Result<()> {
        self.table.delete(body)?;
        Ok(())
    }
}
