//! `wharf:host/ftp`: what only FTP has. A raw command may name any path, so it asks for the whole connection.

use wasmtime::component::Resource;
use wharf_connectors::ftp::{RawReply, Server};
use wharf_connectors::{Error, Remote};

use super::bindings::wharf::host::ftp as wit;
use super::{Answer, answer, told};
use crate::grant::{self, Granted};
use crate::guest::Guest;
use crate::settings::Access;

/// A server that a guest holds.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GrantedServer {
    granted: Granted,
    server: Server,
}

impl Guest {
    fn open_ftp_server(&self, connection: &str) -> Result<GrantedServer, Error> {
        let surroundings = &self.surroundings;
        let (granted, server) =
            grant::open_as(&surroundings.settings, &surroundings.service, connection, "ftp", Remote::ftp)?;
        Ok(GrantedServer { granted, server })
    }

    /// The server, for a service that may write everywhere on it.
    fn whole_server(&self, server: &Resource<GrantedServer>) -> wasmtime::Result<Result<Server, Error>> {
        let held = self.table.get(server)?;
        Ok(held.granted.allow(Access::Write, "/").map(|_| held.server.clone()))
    }
}

impl wit::Host for Guest {}

impl wit::HostServer for Guest {
    async fn open(&mut self, connection: String) -> Answer<Resource<GrantedServer>> {
        match self.open_ftp_server(&connection) {
            Ok(server) => Ok(Ok(self.table.push(server)?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn command(&mut self, server: Resource<GrantedServer>, text: String) -> Answer<wit::RawReply> {
        let reply = match self.whole_server(&server)? {
            Ok(server) => server.command(&text).await,
            Err(error) => Err(error),
        };
        answer(reply.map(guest_reply))
    }

    async fn site(&mut self, server: Resource<GrantedServer>, text: String) -> Answer<wit::RawReply> {
        let reply = match self.whole_server(&server)? {
            Ok(server) => server.site(&text).await,
            Err(error) => Err(error),
        };
        answer(reply.map(guest_reply))
    }

    async fn features(&mut self, server: Resource<GrantedServer>) -> Answer<Vec<String>> {
        let server = self.table.get(&server)?.server.clone();
        answer(server.features().await)
    }

    async fn drop(&mut self, server: Resource<GrantedServer>) -> wasmtime::Result<()> {
        self.table.delete(server)?;
        Ok(())
    }
}

fn guest_reply(reply: RawReply) -> wit::RawReply {
    wit::RawReply { code: u16::try_from(reply.code).unwrap_or(u16::MAX), lines: reply.lines }
}
