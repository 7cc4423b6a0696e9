//! `wharf:host/dropbox`: what only Dropbox has.

use std::time::{Duration, SystemTime};

use wasmtime::component::Resource;
use wharf_connectors::dropbox::{Account, Metadata, MetadataKind, Page, UploadOptions, WriteMode};
use wharf_connectors::{Error, ErrorKind, RemotePath};

use super::bindings::wharf::host::dropbox as wit;
use super::bindings::wharf::host::types as wit_types;
use super::files::guest_time;
use super::told;
use crate::body::Body;
use crate::grant::{self, Granted};
use crate::guest::Guest;
use crate::settings::Access;

/// An account that a guest holds.
#[derive(Clone)]
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GrantedAccount {
    granted: Granted,
    account: Account,
}

impl GrantedAccount {
    /// A page without what lies outside of the grants: a cursor may have come from anywhere. Dropbox tells the folders
    /// of a path in any case, and means the same folder by each.
    fn within_grants(&self, mut page: Page) -> Page {
        page.entries.retain(|entry| self.granted.allows_in_any_case(Access::Read, &entry.path));
        page
    }
}

impl Guest {
    fn account(&self, account: &Resource<GrantedAccount>) -> wasmtime::Result<GrantedAccount> {
        Ok(self.table.get(account)?.clone())
    }

    fn open_account(&self, connection: &str) -> Result<GrantedAccount, Error> {
        let granted = grant::open(&self.surroundings.settings, &self.surroundings.service, connection)?;
        let account = granted.remote.dropbox().ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("connection {connection} is of type {}, not dropbox", granted.remote.kind()),
            )
        })?;
        Ok(GrantedAccount { granted, account })
    }
}

impl wit::Host for Guest {}

impl wit::HostAccount for Guest {
    async fn open(
        &mut self,
        connection: String,
    ) -> wasmtime::Result<Result<Resource<GrantedAccount>, wit_types::Error>> {
        match self.open_account(&connection) {
            Ok(account) => Ok(Ok(self.table.push(account)?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn upload(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        content: Resource<Body>,
        options: wit::UploadOptions,
    ) -> wasmtime::Result<Result<wit::Metadata, wit_types::Error>> {
        let held = self.account(&account)?;
        let content = self.table.delete(content)?.into_content();
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            held.account.upload(&path, content, host_options(options)).await
        };
        Ok(work.await.map(guest_metadata).map_err(|error| told(&error)))
    }

    async fn download(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
    ) -> wasmtime::Result<Result<(wit::Metadata, Resource<Body>), wit_types::Error>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.download(&path).await
        };
        match work.await {
            Ok((metadata, content)) => {
                let body = self.table.push(Body::Content(content))?;
                Ok(Ok((guest_metadata(metadata), body)))
            }
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn get_metadata(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
    ) -> wasmtime::Result<Result<wit::Metadata, wit_types::Error>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.get_metadata(&path).await
        };
        Ok(work.await.map(guest_metadata).map_err(|error| told(&error)))
    }

    async fn list_folder(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        recursive: bool,
    ) -> wasmtime::Result<Result<wit::Page, wit_types::Error>> {
        let held = self.account(&account)?;
        let work = async {
            let path: RemotePath = held.granted.allow(Access::Read, &path)?;
            held.account.list_folder(&path, recursive).await
        };
        Ok(work.await.map(|page| guest_page(held.within_grants(page))).map_err(|error| told(&error)))
    }

    async fn list_folder_continue(
        &mut self,
        account: Resource<GrantedAccount>,
        cursor: String,
    ) -> wasmtime::Result<Result<wit::Page, wit_types::Error>> {
        let held = self.account(&account)?;
        let page = held.account.list_folder_continue(&cursor).await;
        Ok(page.map(|page| guest_page(held.within_grants(page))).map_err(|error| told(&error)))
    }

    async fn delete(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
    ) -> wasmtime::Result<Result<wit::Metadata, wit_types::Error>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            held.account.delete(&path).await
        };
        Ok(work.await.map(guest_metadata).map_err(|error| told(&error)))
    }

    async fn create_folder(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
    ) -> wasmtime::Result<Result<wit::Metadata, wit_types::Error>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            held.account.create_folder(&path).await
        };
        Ok(work.await.map(guest_metadata).map_err(|error| told(&error)))
    }

    async fn drop(&mut self, account: Resource<GrantedAccount>) -> wasmtime::Result<()> {
        self.table.delete(account)?;
        Ok(())
    }
}

fn host_options(options: wit::UploadOptions) -> UploadOptions {
    UploadOptions {
        mode: match options.mode {
            wit::WriteMode::Add => WriteMode::Add,
            wit::WriteMode::Overwrite => WriteMode::Overwrite,
            wit::WriteMode::Update(revision) => WriteMode::Update(revision),
        },
        autorename: options.autorename,
        client_modified: options.client_modified.and_then(|time| {
            SystemTime::UNIX_EPOCH.checked_add(Duration::new(time.seconds, time.nanoseconds.min(999_999_999)))
        }),
        mute: options.mute,
    }
}

fn guest_page(page: Page) -> wit::Page {
    wit::Page {
        entries: page.entries.into_iter().map(guest_metadata).collect(),
        cursor: page.cursor,
        has_more: page.has_more,
    }
}

fn guest_metadata(metadata: Metadata) -> wit::Metadata {
    wit::Metadata {
        kind: match metadata.kind {
            MetadataKind::File => wit::MetadataKind::File,
            MetadataKind::Folder => wit::MetadataKind::Folder,
            MetadataKind::Deleted => wit::MetadataKind::Deleted,
        },
        name: metadata.name,
        path: metadata.path.as_str().to_owned(),
        id: metadata.id,
        revision: metadata.revision,
        size: metadata.size,
        content_hash: metadata.content_hash,
        server_modified: metadata.server_modified.map(guest_time),
        client_modified: metadata.client_modified.map(guest_time),
    }
}
