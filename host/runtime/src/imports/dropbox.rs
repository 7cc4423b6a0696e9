//! `wharf:host/dropbox`: what only Dropbox has.

use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use wasmtime::component::Resource;
use wharf_connectors::dropbox::{
    Account, Audience, Batch, CallStyle, LinkSettings, ListOptions, Metadata, MetadataKind, Page, SearchOptions,
    SharedLink, UploadOptions, WriteMode,
};
use wharf_connectors::{Error, ErrorKind, Remote, RemotePath};

use super::bindings::wharf::host::dropbox as wit;
use super::bindings::wharf::host::types as wit_types;
use super::files::guest_time;
use super::{Answer, answer, told};
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

impl GrantedAccount {
    /// Those of some entries that may be told.
    fn readable(&self, mut entries: Vec<Metadata>) -> Vec<wit::Metadata> {
        entries.retain(|entry| self.granted.allows_in_any_case(Access::Read, &entry.path));
        entries.into_iter().map(guest_metadata).collect()
    }

    fn writable(&self, paths: &[String]) -> Result<Vec<RemotePath>, Error> {
        paths.iter().map(|path| self.granted.allow(Access::Write, path)).collect()
    }

    fn relocation(&self, of_source: Access, source: &str, target: &str) -> Result<(RemotePath, RemotePath), Error> {
        Ok((self.granted.allow(of_source, source)?, self.granted.allow(Access::Write, target)?))
    }

    fn relocations(
        &self,
        of_source: Access,
        entries: &[wit::Relocation],
    ) -> Result<Vec<(RemotePath, RemotePath)>, Error> {
        entries.iter().map(|entry| self.relocation(of_source, &entry.source, &entry.target)).collect()
    }

    /// The text of a job may have come from anywhere: what it tells is held against the grants again.
    fn guest_batch(&self, batch: Batch) -> wit::Batch {
        match batch {
            Batch::UnderWay(job) => wit::Batch::UnderWay(job.to_string()),
            Batch::Done(results) => wit::Batch::Done(
                results
                    .into_iter()
                    .map(|result| {
                        let metadata = result.map_err(|error| told(&error))?;
                        if !self.granted.allows_in_any_case(Access::Read, &metadata.path) {
                            let message = "this entry is not within what is granted to this service";
                            return Err(told(&Error::new(ErrorKind::Denied, message)));
                        }
                        Ok(guest_metadata(metadata))
                    })
                    .collect(),
            ),
        }
    }

    /// What a link leads to, when that may be read. A link out of the account takes a grant on all of it.
    async fn readable_link(&self, url: &str, password: Option<&SecretString>) -> Result<SharedLink, Error> {
        let link = self.account.shared_link_metadata(url, password).await?;
        match &link.path {
            Some(path) if self.granted.allows_in_any_case(Access::Read, path) => {}
            Some(_) => {
                let message = "the link does not lead into what is granted to this service";
                return Err(Error::new(ErrorKind::Denied, message));
            }
            None => {
                self.granted.allow(Access::Read, "/")?;
            }
        }
        Ok(link)
    }
}

impl Guest {
    fn account(&self, account: &Resource<GrantedAccount>) -> wasmtime::Result<GrantedAccount> {
        Ok(self.table.get(account)?.clone())
    }

    fn open_account(&self, connection: &str) -> Result<GrantedAccount, Error> {
        let surroundings = &self.surroundings;
        let (granted, account) =
            grant::open_as(&surroundings.settings, &surroundings.service, connection, "dropbox", Remote::dropbox)?;
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

    async fn list_folder_with(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        options: wit::ListOptions,
    ) -> Answer<wit::Page> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            let page = held.account.list_folder_with(&path, &list_options(&options)).await?;
            Ok(guest_page(held.within_grants(page)))
        };
        answer(work.await)
    }

    async fn latest_cursor(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        options: wit::ListOptions,
    ) -> Answer<String> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.latest_cursor(&path, &list_options(&options)).await
        };
        answer(work.await)
    }

    async fn changes(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        cursor: Option<String>,
        options: wit::ListOptions,
    ) -> Answer<wit::Changes> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            let changes = held.account.changes(&path, cursor.as_deref(), &list_options(&options)).await?;
            Ok(wit::Changes {
                entries: held.readable(changes.entries),
                cursor: changes.cursor,
                has_more: changes.has_more,
                reset: changes.reset,
            })
        };
        answer(work.await)
    }

    async fn longpoll(&mut self, account: Resource<GrantedAccount>, cursor: String, seconds: u64) -> Answer<wit::Poll> {
        let held = self.account(&account)?;
        let poll = held.account.longpoll(&cursor, Duration::from_secs(seconds)).await;
        answer(poll.map(|poll| wit::Poll {
            changes: poll.changes,
            backoff_seconds: poll.backoff.map(|backoff| backoff.as_secs()),
        }))
    }

    async fn search(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        query: String,
        options: wit::SearchOptions,
    ) -> Answer<wit::Matches> {
        let held = self.account(&account)?;
        let options = SearchOptions {
            limit: options.limit,
            names_only: options.names_only,
            deleted: options.deleted,
            extensions: options.extensions,
        };
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            let matches = held.account.search(&path, &query, &options).await?;
            Ok(wit::Matches { entries: held.readable(matches.entries), cursor: matches.cursor })
        };
        answer(work.await)
    }

    async fn search_continue(&mut self, account: Resource<GrantedAccount>, cursor: String) -> Answer<wit::Matches> {
        let held = self.account(&account)?;
        let matches = held.account.search_continue(&cursor).await;
        answer(matches.map(|found| wit::Matches { entries: held.readable(found.entries), cursor: found.cursor }))
    }

    async fn revisions(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        limit: u32,
    ) -> Answer<wit::Revisions> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            let found = held.account.revisions(&path, limit).await?;
            let entries = found.entries.into_iter().map(guest_metadata).collect();
            Ok(wit::Revisions { entries, deleted: found.deleted })
        };
        answer(work.await)
    }

    async fn download_revision(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        revision: String,
    ) -> Answer<(wit::Metadata, Resource<Body>)> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.download_revision(&path, &revision).await
        };
        match work.await {
            Ok((metadata, content)) => Ok(Ok((guest_metadata(metadata), self.table.push(Body::Content(content))?))),
            Err(error) => answer(Err(error)),
        }
    }

    async fn restore(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        revision: String,
    ) -> Answer<wit::Metadata> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            Ok(guest_metadata(held.account.restore(&path, &revision).await?))
        };
        answer(work.await)
    }

    async fn export(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        format: Option<String>,
    ) -> Answer<(String, Resource<Body>)> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.export(&path, format.as_deref()).await
        };
        match work.await {
            Ok(export) => Ok(Ok((export.name, self.table.push(Body::Content(export.content))?))),
            Err(error) => answer(Err(error)),
        }
    }

    async fn download_zip(&mut self, account: Resource<GrantedAccount>, path: String) -> Answer<Resource<Body>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.download_zip(&path).await
        };
        match work.await {
            Ok(content) => Ok(Ok(self.table.push(Body::Content(content))?)),
            Err(error) => answer(Err(error)),
        }
    }

    async fn move_(
        &mut self,
        account: Resource<GrantedAccount>,
        source: String,
        target: String,
        autorename: bool,
    ) -> Answer<wit::Metadata> {
        let held = self.account(&account)?;
        let work = async {
            let (source, target) = held.relocation(Access::Write, &source, &target)?;
            Ok(guest_metadata(held.account.move_to(&source, &target, autorename).await?))
        };
        answer(work.await)
    }

    async fn copy(
        &mut self,
        account: Resource<GrantedAccount>,
        source: String,
        target: String,
        autorename: bool,
    ) -> Answer<wit::Metadata> {
        let held = self.account(&account)?;
        let work = async {
            let (source, target) = held.relocation(Access::Read, &source, &target)?;
            Ok(guest_metadata(held.account.copy_to(&source, &target, autorename).await?))
        };
        answer(work.await)
    }

    async fn move_batch(
        &mut self,
        account: Resource<GrantedAccount>,
        entries: Vec<wit::Relocation>,
        autorename: bool,
    ) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async {
            let entries = held.relocations(Access::Write, &entries)?;
            Ok(held.guest_batch(held.account.move_batch(&entries, autorename).await?))
        };
        answer(work.await)
    }

    async fn copy_batch(
        &mut self,
        account: Resource<GrantedAccount>,
        entries: Vec<wit::Relocation>,
        autorename: bool,
    ) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async {
            let entries = held.relocations(Access::Read, &entries)?;
            Ok(held.guest_batch(held.account.copy_batch(&entries, autorename).await?))
        };
        answer(work.await)
    }

    async fn delete_batch(&mut self, account: Resource<GrantedAccount>, paths: Vec<String>) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async {
            let paths = held.writable(&paths)?;
            Ok(held.guest_batch(held.account.delete_batch(&paths).await?))
        };
        answer(work.await)
    }

    async fn create_folder_batch(
        &mut self,
        account: Resource<GrantedAccount>,
        paths: Vec<String>,
        autorename: bool,
    ) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async {
            let paths = held.writable(&paths)?;
            Ok(held.guest_batch(held.account.create_folder_batch(&paths, autorename).await?))
        };
        answer(work.await)
    }

    async fn save_url(&mut self, account: Resource<GrantedAccount>, path: String, url: String) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            Ok(held.guest_batch(held.account.save_url(&path, &url).await?))
        };
        answer(work.await)
    }

    async fn check(&mut self, account: Resource<GrantedAccount>, job: String) -> Answer<wit::Batch> {
        let held = self.account(&account)?;
        let work = async { Ok(held.guest_batch(held.account.check(&job.parse()?).await?)) };
        answer(work.await)
    }

    async fn temporary_link(&mut self, account: Resource<GrantedAccount>, path: String) -> Answer<String> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            held.account.temporary_link(&path).await
        };
        answer(work.await)
    }

    async fn temporary_upload_link(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        seconds: u64,
    ) -> Answer<String> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            held.account.temporary_upload_link(&path, Duration::from_secs(seconds)).await
        };
        answer(work.await)
    }

    // Who makes a link gives away what it leads to: that takes write access.
    async fn create_shared_link(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        settings: wit::LinkSettings,
    ) -> Answer<wit::SharedLink> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            Ok(guest_link(held.account.create_shared_link(&path, &link_settings(settings)).await?))
        };
        answer(work.await)
    }

    async fn shared_links(&mut self, account: Resource<GrantedAccount>, path: String) -> Answer<Vec<wit::SharedLink>> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Read, &path)?;
            Ok(held.account.shared_links(&path).await?.into_iter().map(guest_link).collect())
        };
        answer(work.await)
    }

    async fn modify_shared_link(
        &mut self,
        account: Resource<GrantedAccount>,
        path: String,
        url: String,
        settings: wit::LinkSettings,
    ) -> Answer<wit::SharedLink> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            Ok(guest_link(held.account.modify_shared_link(&path, &url, &link_settings(settings)).await?))
        };
        answer(work.await)
    }

    async fn revoke_shared_link(&mut self, account: Resource<GrantedAccount>, path: String, url: String) -> Answer<()> {
        let held = self.account(&account)?;
        let work = async {
            let path = held.granted.allow(Access::Write, &path)?;
            held.account.revoke_shared_link(&path, &url).await
        };
        answer(work.await)
    }

    async fn shared_link_metadata(
        &mut self,
        account: Resource<GrantedAccount>,
        url: String,
        password: Option<String>,
    ) -> Answer<wit::SharedLink> {
        let held = self.account(&account)?;
        answer(held.readable_link(&url, password.map(SecretString::from).as_ref()).await.map(guest_link))
    }

    async fn shared_link_file(
        &mut self,
        account: Resource<GrantedAccount>,
        url: String,
        password: Option<String>,
    ) -> Answer<(wit::SharedLink, Resource<Body>)> {
        let held = self.account(&account)?;
        let password = password.map(SecretString::from);
        let work = async {
            held.readable_link(&url, password.as_ref()).await?;
            held.account.shared_link_file(&url, password.as_ref()).await
        };
        match work.await {
            Ok((link, content)) => Ok(Ok((guest_link(link), self.table.push(Body::Content(content))?))),
            Err(error) => answer(Err(error)),
        }
    }

    async fn space_usage(&mut self, account: Resource<GrantedAccount>) -> Answer<wit::SpaceUsage> {
        let held = self.account(&account)?;
        answer(held.account.space_usage().await.map(|usage| wit::SpaceUsage {
            used: usage.used,
            allocated: usage.allocated,
            used_by_team: usage.used_by_team,
        }))
    }

    async fn current_account(&mut self, account: Resource<GrantedAccount>) -> Answer<wit::CurrentAccount> {
        let held = self.account(&account)?;
        answer(held.account.current_account().await.map(|account| wit::CurrentAccount {
            id: account.id,
            name: account.name,
            email: account.email,
            kind: account.kind,
            team: account.team,
            root_namespace: account.root_namespace,
            home_namespace: account.home_namespace,
        }))
    }

    async fn call(
        &mut self,
        account: Resource<GrantedAccount>,
        style: wit::CallStyle,
        route: String,
        argument: String,
        content: Option<Resource<Body>>,
    ) -> Answer<(String, Option<Resource<Body>>)> {
        let held = self.account(&account)?;
        let content = match content {
            Some(content) => Some(self.table.delete(content)?.into_content()),
            None => None,
        };
        let style = match style {
            wit::CallStyle::Rpc => CallStyle::Rpc,
            wit::CallStyle::Upload => CallStyle::Upload,
            wit::CallStyle::Download => CallStyle::Download,
        };
        let work = async {
            held.granted.allow(Access::Write, "/")?;
            held.account.call(style, &route, &argument, content).await
        };
        match work.await {
            Ok((result, Some(content))) => Ok(Ok((result, Some(self.table.push(Body::Content(content))?)))),
            Ok((result, None)) => Ok(Ok((result, None))),
            Err(error) => answer(Err(error)),
        }
    }

    async fn drop(&mut self, account: Resource<GrantedAccount>) -> wasmtime::Result<()> {
        self.table.delete(account)?;
        Ok(())
    }
}

fn list_options(options: &wit::ListOptions) -> ListOptions {
    ListOptions { recursive: options.recursive, include_deleted: options.include_deleted, limit: options.limit }
}

fn link_settings(settings: wit::LinkSettings) -> LinkSettings {
    LinkSettings {
        password: settings.password.map(SecretString::from),
        expires: settings.expires.and_then(host_time),
        audience: settings.audience.map(|audience| match audience {
            wit::Audience::Public => Audience::Public,
            wit::Audience::Team => Audience::Team,
            wit::Audience::NoOne => Audience::NoOne,
        }),
        allow_download: settings.allow_download,
    }
}

fn guest_link(link: SharedLink) -> wit::SharedLink {
    wit::SharedLink {
        url: link.url,
        name: link.name,
        path: link.path.map(|path| path.as_str().to_owned()),
        expires: link.expires.map(guest_time),
    }
}

fn host_time(time: wit::Datetime) -> Option<SystemTime> {
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(time.seconds, time.nanoseconds.min(999_999_999)))
}

fn host_options(options: wit::UploadOptions) -> UploadOptions {
    UploadOptions {
        mode: match options.mode {
            wit::WriteMode::Add => WriteMode::Add,
            wit::WriteMode::Overwrite => WriteMode::Overwrite,
            wit::WriteMode::Update(revision) => WriteMode::Update(revision),
        },
        autorename: options.autorename,
        client_modified: options.client_modified.and_then(host_time),
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
