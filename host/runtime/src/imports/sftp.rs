//! `wharf:host/sftp`: what only SFTP has.
//!
//! What could make a way out of a grant, links and so scripts, asks for the whole connection: its root is kept by the
//! connector, a grant below it is kept here, by path.

use std::time::SystemTime;

use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wharf_connectors::sftp::{Handle, Info, Owner, Script};
use wharf_connectors::{Error, Remote, RemotePath};

use super::bindings::wharf::host::sftp as wit;
use super::files::{GrantedRemote, guest_kind, guest_time, host_time};
use super::{Answer, answer, told};
use crate::body::Body;
use crate::grant::{self, Granted};
use crate::guest::Guest;
use crate::settings::Access;

/// A server that a guest holds.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GrantedServer {
    granted: Granted,
    server: Handle,
}

impl Guest {
    fn open_server(&self, connection: &str) -> Result<GrantedServer, Error> {
        let surroundings = &self.surroundings;
        let (granted, server) =
            grant::open_as(&surroundings.settings, &surroundings.service, connection, "sftp", Remote::sftp)?;
        Ok(GrantedServer { granted, server })
    }

    /// Does something with a path that the service may use in this way.
    async fn on_server<T, W: Future<Output = Result<T, Error>> + Send>(
        &mut self,
        server: &Resource<GrantedServer>,
        access: Access,
        path: &str,
        work: impl FnOnce(Handle, RemotePath) -> W + Send,
    ) -> Answer<T> {
        let held = self.table.get(server)?.clone();
        let path = match held.granted.allow(access, path) {
            Ok(path) => path,
            Err(error) => return Ok(Err(told(&error))),
        };
        answer(work(held.server, path).await)
    }
}

impl wit::Host for Guest {}

impl wit::HostServer for Guest {
    async fn open(&mut self, connection: String) -> Answer<Resource<GrantedServer>> {
        match self.open_server(&connection) {
            Ok(server) => Ok(Ok(self.table.push(server)?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn execute(&mut self, server: Resource<GrantedServer>, script: String) -> Answer<wit::ScriptResult> {
        self.on_server(&server, Access::Write, "/", |server, _| async move {
            Ok(guest_script(server.execute(&script, None).await))
        })
        .await
    }

    async fn execute_with(
        &mut self,
        server: Resource<GrantedServer>,
        script: String,
        local: Resource<GrantedRemote>,
        local_folder: String,
    ) -> Answer<wit::ScriptResult> {
        let local = self.granted(&local)?;
        let folder = match local.allow(Access::Write, &local_folder) {
            Ok(folder) => folder,
            Err(error) => return Ok(Err(told(&error))),
        };
        self.on_server(&server, Access::Write, "/", |server, _| async move {
            let mut shell = server.shell(Some(&local.remote)).with_local_folder(&folder);
            Ok(guest_script(shell.execute(&script).await))
        })
        .await
    }

    async fn get_info(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<wit::Info> {
        self.on_server(&server, Access::Read, &path, |server, path| async move {
            server.get_info(&path).await.map(guest_info)
        })
        .await
    }

    async fn follow_info(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<wit::Info> {
        self.on_server(&server, Access::Read, &path, |server, path| async move {
            server.follow_info(&path).await.map(guest_info)
        })
        .await
    }

    async fn list(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<Vec<wit::Info>> {
        self.on_server(&server, Access::Read, &path, |server, path| async move {
            Ok(server.list(&path).await?.into_iter().map(guest_info).collect())
        })
        .await
    }

    async fn is_directory(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<bool> {
        self.on_server(&server, Access::Read, &path, |server, path| async move { server.is_directory(&path).await })
            .await
    }

    async fn is_file(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<bool> {
        self.on_server(&server, Access::Read, &path, |server, path| async move { server.is_file(&path).await }).await
    }

    async fn is_symlink(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<bool> {
        self.on_server(&server, Access::Read, &path, |server, path| async move { server.is_symlink(&path).await }).await
    }

    async fn symlink(&mut self, server: Resource<GrantedServer>, target: String, link: String) -> Answer<()> {
        self.on_server(&server, Access::Write, "/", |server, _| async move {
            server.symlink(&target, &RemotePath::parse(&link)?).await
        })
        .await
    }

    async fn hard_link(&mut self, server: Resource<GrantedServer>, existing: String, link: String) -> Answer<()> {
        self.on_server(&server, Access::Write, "/", |server, _| async move {
            server.hard_link(&RemotePath::parse(&existing)?, &RemotePath::parse(&link)?).await
        })
        .await
    }

    async fn read_link(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<String> {
        self.on_server(&server, Access::Read, &path, |server, path| async move { server.read_link(&path).await }).await
    }

    async fn chmod(&mut self, server: Resource<GrantedServer>, path: String, mode: u32) -> Answer<()> {
        self.on_server(&server, Access::Write, &path, |server, path| async move { server.chmod(&path, mode).await })
            .await
    }

    async fn chown(
        &mut self,
        server: Resource<GrantedServer>,
        path: String,
        user: Option<wit::Owner>,
        group: Option<wit::Owner>,
    ) -> Answer<()> {
        let (user, group) = (user.map(host_owner), group.map(host_owner));
        self.on_server(&server, Access::Write, &path, |server, path| async move {
            server.chown(&path, user, group, true).await
        })
        .await
    }

    async fn set_times(
        &mut self,
        server: Resource<GrantedServer>,
        path: String,
        accessed: Option<Datetime>,
        modified: Option<Datetime>,
    ) -> Answer<()> {
        let (accessed, modified): (Option<SystemTime>, _) = (accessed.map(host_time), modified.map(host_time));
        self.on_server(&server, Access::Write, &path, |server, path| async move {
            server.set_times(&path, accessed, modified).await
        })
        .await
    }

    async fn statvfs(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<wit::FileSystem> {
        self.on_server(&server, Access::Read, &path, |server, path| async move {
            let space = server.statvfs(&path).await?;
            let bytes = |blocks: u64| blocks.saturating_mul(space.fragment_bytes);
            Ok(wit::FileSystem {
                bytes: bytes(space.blocks),
                bytes_free: bytes(space.blocks_free),
                bytes_available: bytes(space.blocks_available),
                files: space.files,
                files_free: space.files_free,
                name_bytes_max: space.name_bytes_max,
                is_read_only: space.is_read_only,
            })
        })
        .await
    }

    async fn fsync(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<()> {
        self.on_server(&server, Access::Write, &path, |server, path| async move { server.fsync(&path).await }).await
    }

    async fn realpath(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<String> {
        self.on_server(&server, Access::Read, &path, |server, path| async move {
            Ok(server.realpath(&path).await?.as_str().to_owned())
        })
        .await
    }

    async fn delete_file(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<()> {
        self.on_server(&server, Access::Write, &path, |server, path| async move { server.delete_file(&path).await })
            .await
    }

    async fn delete_directory(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<()> {
        self.on_server(
            &server,
            Access::Write,
            &path,
            |server, path| async move { server.delete_directory(&path).await },
        )
        .await
    }

    async fn delete_symlink(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<()> {
        self.on_server(&server, Access::Write, &path, |server, path| async move { server.delete_symlink(&path).await })
            .await
    }

    async fn delete(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<()> {
        self.on_server(&server, Access::Write, &path, |server, path| async move { server.delete(&path).await }).await
    }

    async fn download_file(&mut self, server: Resource<GrantedServer>, path: String) -> Answer<Resource<Body>> {
        let content = self
            .on_server(&server, Access::Read, &path, |server, path| async move { server.download_file(&path).await });
        match content.await? {
            Ok(content) => Ok(Ok(self.table.push(Body::Content(content))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn drop(&mut self, server: Resource<GrantedServer>) -> wasmtime::Result<()> {
        self.table.delete(server)?;
        Ok(())
    }
}

fn host_owner(owner: wit::Owner) -> Owner {
    match owner {
        wit::Owner::Id(id) => Owner::Id(id),
        wit::Owner::Name(name) => Owner::Name(name),
    }
}

fn guest_info(info: Info) -> wit::Info {
    wit::Info {
        name: info.path.name().to_owned(),
        path: info.path.as_str().to_owned(),
        kind: guest_kind(info.kind),
        size: info.size,
        mode: info.mode,
        user: info.user,
        group: info.group,
        user_name: info.user_name,
        group_name: info.group_name,
        accessed: info.accessed.map(guest_time),
        modified: info.modified.map(guest_time),
    }
}

fn guest_script(script: Script) -> wit::ScriptResult {
    let commands = script.results.into_iter().map(|result| wit::CommandResult {
        command: result.command,
        output: result.output,
        error: result.outcome.err().map(|error| told(&error)),
        ignores_errors: result.ignores_errors,
        is_quiet: result.is_quiet,
        milliseconds: u64::try_from(result.took.as_millis()).unwrap_or(u64::MAX),
    });
    wit::ScriptResult { commands: commands.collect(), is_complete: script.is_complete }
}
