//! `wharf:host/files`: what every file-like connection can do.

pub(crate) mod transfer;
pub(crate) mod upload;

use std::time::{Duration, SystemTime};

use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use wasmtime::component::Resource;
use wasmtime_wasi::p2::bindings::clocks::wall_clock::Datetime;
use wharf_connectors::{
    ByteRange, Checksum, Entry, EntryKind, Error, Filter, IfExists, Remote, RemotePath, WriteOptions,
};

use super::bindings::wharf::host::files as wit;
use super::bindings::wharf::host::types as wit_types;
use super::{Answer, answer, told};
use crate::body::Body;
use crate::grant::{self, Granted};
use crate::guest::Guest;
use crate::settings::Access;

use upload::GuestUpload;

/// Entries of one page of a walk, which has no pages of its own.
const WALK_PAGE_ENTRIES: usize = 256;

/// A connection that a guest holds.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct GrantedRemote(Granted);

/// A folder or a tree being listed.
#[expect(unreachable_pub, reason = "the generated bindings name it as public")]
pub struct OpenListing(BoxStream<'static, Result<Vec<Entry>, Error>>);

impl Guest {
    pub(super) fn granted(&self, remote: &Resource<GrantedRemote>) -> wasmtime::Result<Granted> {
        Ok(self.table.get(remote)?.0.clone())
    }

    /// Does something with a path that the service may use in this way.
    async fn with_path<T, W: Future<Output = Result<T, Error>> + Send>(
        &mut self,
        remote: &Resource<GrantedRemote>,
        access: Access,
        path: &str,
        work: impl FnOnce(Remote, RemotePath) -> W + Send,
    ) -> Answer<T> {
        let granted = self.granted(remote)?;
        let path = match granted.allow(access, path) {
            Ok(path) => path,
            Err(error) => return Ok(Err(told(&error))),
        };
        answer(work(granted.remote, path).await)
    }

    /// As [`Guest::with_path`], with two paths, of which the second one is written to.
    async fn with_paths<T, W: Future<Output = Result<T, Error>> + Send>(
        &mut self,
        remote: &Resource<GrantedRemote>,
        access: Access,
        (source, target): (&str, &str),
        work: impl FnOnce(Remote, RemotePath, RemotePath) -> W + Send,
    ) -> Answer<T> {
        let granted = self.granted(remote)?;
        match (granted.allow(access, source), granted.allow(Access::Write, target)) {
            (Ok(source), Ok(target)) => answer(work(granted.remote, source, target).await),
            (Err(error), _) | (_, Err(error)) => Ok(Err(told(&error))),
        }
    }

    async fn read_part(
        &mut self,
        remote: &Resource<GrantedRemote>,
        path: &str,
        range: ByteRange,
    ) -> Answer<Resource<Body>> {
        let content =
            self.with_path(remote, Access::Read, path, |remote, path| async move { remote.read(&path, range).await });
        match content.await? {
            Ok(content) => Ok(Ok(self.table.push(Body::Content(content))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn write_body(
        &mut self,
        remote: &Resource<GrantedRemote>,
        path: &str,
        body: Resource<Body>,
        options: WriteOptions,
    ) -> Answer<wit::Entry> {
        let content = self.table.delete(body)?.into_content();
        let written = self.with_path(remote, Access::Write, path, |remote, path| async move {
            remote.write_with(&path, content, &options).await.map(guest_entry)
        });
        written.await
    }

    fn start_upload(
        &mut self,
        remote: &Resource<GrantedRemote>,
        path: &str,
        options: WriteOptions,
    ) -> Answer<Resource<GuestUpload>> {
        let granted = self.granted(remote)?;
        match granted.allow(Access::Write, path) {
            Ok(path) => Ok(Ok(self.table.push(GuestUpload::start(granted, path, options))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }
}

impl wit::Host for Guest {}

impl wit::HostRemote for Guest {
    async fn open(&mut self, connection: String) -> Answer<Resource<GrantedRemote>> {
        match grant::open(&self.surroundings.settings, &self.surroundings.service, &connection) {
            Ok(granted) => Ok(Ok(self.table.push(GrantedRemote(granted))?)),
            Err(error) => Ok(Err(told(&error))),
        }
    }

    async fn ping(&mut self, remote: Resource<GrantedRemote>) -> Answer<wit::Pong> {
        let granted = self.granted(&remote)?;
        Ok(match granted.remote.ping().await {
            Ok(ping) => Ok(wit::Pong {
                milliseconds: u64::try_from(ping.took.as_millis()).unwrap_or(u64::MAX),
                facts: ping.facts.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            }),
            Err(error) => Err(told(&error)),
        })
    }

    async fn stat(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<wit::Entry> {
        self.with_path(
            &remote,
            Access::Read,
            &path,
            |remote, path| async move { remote.stat(&path).await.map(guest_entry) },
        )
        .await
    }

    async fn exists(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<bool> {
        self.with_path(&remote, Access::Read, &path, |remote, path| async move { remote.exists(&path).await }).await
    }

    async fn list(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<Vec<wit::Entry>> {
        self.with_path(&remote, Access::Read, &path, |remote, path| async move {
            Ok(remote.list(&path).await?.into_iter().map(guest_entry).collect())
        })
        .await
    }

    async fn open_listing(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<Resource<OpenListing>> {
        let pages = self.with_path(&remote, Access::Read, &path, |remote, path| async move {
            Ok(remote.list_pages(&path).await?.boxed())
        });
        match pages.await? {
            Ok(pages) => Ok(Ok(self.table.push(OpenListing(pages))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn walk(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        filter: wit::Filter,
    ) -> Answer<Resource<OpenListing>> {
        let pages = self.with_path(&remote, Access::Read, &path, |remote, path| async move {
            let entries = remote.walk(&path, host_filter(&filter)?);
            Ok(entries.try_ready_chunks(WALK_PAGE_ENTRIES).map_err(|broken| broken.1).boxed())
        });
        match pages.await? {
            Ok(pages) => Ok(Ok(self.table.push(OpenListing(pages))?)),
            Err(error) => Ok(Err(error)),
        }
    }

    async fn read(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<Resource<Body>> {
        self.read_part(&remote, &path, ByteRange::ALL).await
    }

    async fn read_range(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        offset: u64,
        length: Option<u64>,
    ) -> Answer<Resource<Body>> {
        self.read_part(&remote, &path, ByteRange { offset, length }).await
    }

    async fn write(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        body: Resource<Body>,
        if_exists: wit::IfExists,
    ) -> Answer<wit::Entry> {
        self.write_body(&remote, &path, body, WriteOptions::new(host_if_exists(if_exists))).await
    }

    async fn write_with(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        body: Resource<Body>,
        options: wit::WriteOptions,
    ) -> Answer<wit::Entry> {
        self.write_body(&remote, &path, body, host_options(&options)).await
    }

    async fn create(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        if_exists: wit::IfExists,
    ) -> Answer<Resource<GuestUpload>> {
        self.start_upload(&remote, &path, WriteOptions::new(host_if_exists(if_exists)))
    }

    async fn create_with(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        options: wit::WriteOptions,
    ) -> Answer<Resource<GuestUpload>> {
        self.start_upload(&remote, &path, host_options(&options))
    }

    async fn append(
        &mut self,
        remote: Resource<GrantedRemote>,
        path: String,
        body: Resource<Body>,
    ) -> Answer<wit::Entry> {
        let content = self.table.delete(body)?.into_content();
        self.with_path(&remote, Access::Write, &path, |remote, path| async move {
            remote.append(&path, content).await.map(guest_entry)
        })
        .await
    }

    async fn copy(
        &mut self,
        remote: Resource<GrantedRemote>,
        source: String,
        target: String,
        if_exists: wit::IfExists,
    ) -> Answer<wit::Entry> {
        let if_exists = host_if_exists(if_exists);
        self.with_paths(&remote, Access::Read, (&source, &target), |remote, source, target| async move {
            remote.copy(&source, &target, if_exists).await.map(guest_entry)
        })
        .await
    }

    async fn checksum(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<Option<wit::Checksum>> {
        let told = |Checksum { algorithm, value }| wit::Checksum { algorithm: algorithm.name().to_owned(), value };
        self.with_path(&remote, Access::Read, &path, |remote, path| async move {
            Ok(remote.checksum(&path).await?.map(told))
        })
        .await
    }

    async fn set_modified(&mut self, remote: Resource<GrantedRemote>, path: String, modified: Datetime) -> Answer<()> {
        self.with_path(&remote, Access::Write, &path, |remote, path| async move {
            remote.set_modified(&path, host_time(modified)).await
        })
        .await
    }

    async fn delete_tree(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<()> {
        self.with_path(&remote, Access::Write, &path, |remote, path| async move { remote.delete_tree(&path).await })
            .await
    }

    async fn delete(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<()> {
        self.with_path(&remote, Access::Write, &path, |remote, path| async move { remote.delete(&path).await }).await
    }

    async fn rename(
        &mut self,
        remote: Resource<GrantedRemote>,
        source: String,
        target: String,
        if_exists: wit::IfExists,
    ) -> Answer<()> {
        let if_exists = host_if_exists(if_exists);
        self.with_paths(&remote, Access::Write, (&source, &target), |remote, source, target| async move {
            remote.rename(&source, &target, if_exists).await
        })
        .await
    }

    async fn make_directory(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<()> {
        self.with_path(&remote, Access::Write, &path, |remote, path| async move { remote.make_directory(&path).await })
            .await
    }

    async fn make_directories(&mut self, remote: Resource<GrantedRemote>, path: String) -> Answer<()> {
        self.with_path(
            &remote,
            Access::Write,
            &path,
            |remote, path| async move { remote.make_directories(&path).await },
        )
        .await
    }

    async fn drop(&mut self, remote: Resource<GrantedRemote>) -> wasmtime::Result<()> {
        self.table.delete(remote)?;
        Ok(())
    }
}

impl wit::HostListing for Guest {
    async fn next(&mut self, listing: Resource<OpenListing>) -> Answer<Vec<wit::Entry>> {
        let pages = &mut self.table.get_mut(&listing)?.0;
        Ok(match pages.try_next().await {
            Ok(page) => Ok(page.unwrap_or_default().into_iter().map(guest_entry).collect()),
            Err(error) => Err(told(&error)),
        })
    }

    async fn drop(&mut self, listing: Resource<OpenListing>) -> wasmtime::Result<()> {
        self.table.delete(listing)?;
        Ok(())
    }
}

fn host_if_exists(if_exists: wit::IfExists) -> IfExists {
    match if_exists {
        wit::IfExists::Fail => IfExists::Fail,
        wit::IfExists::Replace => IfExists::Replace,
        wit::IfExists::Rename => IfExists::Rename,
    }
}

fn host_options(options: &wit::WriteOptions) -> WriteOptions {
    WriteOptions {
        parents: options.parents,
        modified: options.modified.map(host_time),
        ..WriteOptions::new(host_if_exists(options.if_exists))
    }
}

fn host_filter(filter: &wit::Filter) -> Result<Filter, Error> {
    Filter::new(filter.patterns.iter().map(String::as_str), filter.exclude.iter().map(String::as_str))
}

fn guest_entry(entry: Entry) -> wit::Entry {
    wit::Entry {
        name: entry.path.name().to_owned(),
        path: entry.path.as_str().to_owned(),
        kind: guest_kind(entry.kind),
        size: entry.size,
        modified: entry.modified.map(guest_time),
        revision: entry.revision,
    }
}

pub(crate) fn guest_kind(kind: EntryKind) -> wit::EntryKind {
    match kind {
        EntryKind::File => wit::EntryKind::File,
        EntryKind::Directory => wit::EntryKind::Directory,
        EntryKind::Symlink => wit::EntryKind::Symlink,
        EntryKind::Other => wit::EntryKind::Other,
    }
}

/// A time as guests see it; what lies before 1970 becomes 1970, which is all that the type can say.
pub(crate) fn guest_time(time: SystemTime) -> Datetime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Datetime { seconds: since.as_secs(), nanoseconds: since.subsec_nanos() }
}

/// A time of a guest; one that is out of range becomes the beginning of 1970.
pub(crate) fn host_time(time: Datetime) -> SystemTime {
    let since = Duration::from_secs(time.seconds).saturating_add(Duration::from_nanos(time.nanoseconds.into()));
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}
