//! What only Dropbox has, on paths within a root: the operations of the interface `dropbox`.
//!
//! They take their place among the connection's operations like those of [`Remote`]. Entries outside of the root are
//! left out of every answer. Knows no call's details.

mod anything;
mod changes;
mod organise;
mod sharing;

use std::sync::Arc;
use std::time::SystemTime;

use serde_json::json;

use super::upload::Upload;
use super::wire::{self, Kind, Listing, write_time};
use super::{Dropbox, PAGE_ENTRIES};
use crate::Remote;
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::operation::{Effect, Operation};
use crate::path::RemotePath;

pub use anything::{CallStyle, CurrentAccount, SpaceUsage};
pub(super) use anything::{WireAccount, WireSpace};
pub use changes::{Changes, ListOptions, Matches, Poll, SearchOptions};
pub use organise::{BATCH_ENTRIES_MAX, Batch, Job, Revisions};
pub use sharing::{Audience, Export, LinkSettings, SharedLink};

/// Longest cursor and revision taken from a caller: many times what Dropbox makes, and still a small request.
const CURSOR_BYTES_MAX: usize = 16 * 1024;

/// What to do when the target of an upload exists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriteMode {
    /// Never replace. A target with identical content is a success, another one `AlreadyExists`.
    Add,
    /// Replace.
    Overwrite,
    /// Replace only this revision; `Conflict` when the file has another.
    Update(String),
}

/// How a file is uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadOptions {
    /// What to do when the target exists.
    pub mode: WriteMode,
    /// Let Dropbox choose a free name instead of failing on a conflict.
    pub autorename: bool,
    /// The time of last change to record, in whole seconds; the time of the upload when absent.
    pub client_modified: Option<SystemTime>,
    /// Do not notify the account's devices.
    pub mute: bool,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetadataKind {
    /// A file.
    File,
    /// A folder.
    Folder,
    /// Something that was deleted since the cursor.
    Deleted,
}

/// What Dropbox says of a file, folder or deleted entry. Absent fields do not apply to the kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: MetadataKind,
    /// The last component of its path.
    pub name: String,
    /// The path as users see it, within the root. Only the case of its last component can be relied on.
    pub path: RemotePath,
    /// Dropbox's own name for it, which survives renaming.
    pub id: Option<String>,
    /// The revision of a file.
    pub revision: Option<String>,
    /// Bytes of a file.
    pub size: Option<u64>,
    /// Dropbox's content hash, lower-case hexadecimal.
    pub content_hash: Option<String>,
    /// When Dropbox recorded the last change.
    pub server_modified: Option<SystemTime>,
    /// When the file was changed last, as its uploader said.
    pub client_modified: Option<SystemTime>,
}

/// One page of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// May be empty although there is more.
    pub entries: Vec<Metadata>,
    /// For [`Account::list_folder_continue`]: the rest now if `has_more`, otherwise what changes from here on.
    pub cursor: String,
    /// Whether the listing goes on.
    pub has_more: bool,
}

/// The account behind a connection, confined to a root; cheap to clone.
#[derive(Clone)]
pub struct Account {
    remote: Remote,
    client: Arc<Dropbox>,
    root: RemotePath,
}

impl Account {
    pub(crate) fn new(remote: Remote, client: Arc<Dropbox>, root: RemotePath) -> Self {
        Self { remote, client, root }
    }

    /// The same account, confined to a folder of this one: paths are then told relative to it.
    #[must_use]
    pub fn within(&self, folder: &RemotePath) -> Self {
        Self { root: folder.below(&self.root), ..self.clone() }
    }

    /// Uploads a file of any size, and verifies its content hash: it appears whole or not at all.
    ///
    /// # Errors
    /// `TooLarge` beyond 2 TiB; `AlreadyExists` with [`WriteMode::Add`], `Conflict` with [`WriteMode::Update`] for
    /// another revision; `Conflict` when a folder of the path is a file; and what `content` reports.
    pub async fn upload(&self, path: &RemotePath, content: Content, options: UploadOptions) -> Result<Metadata, Error> {
        self.not_the_root("upload to", path)?;
        let update = match &options.mode {
            WriteMode::Update(revision) => Some(revision.clone()),
            WriteMode::Add | WriteMode::Overwrite => None,
        };
        let outside = path.below(&self.root);
        let upload = Upload {
            path: &outside,
            mode: match options.mode {
                WriteMode::Add => json!("add"),
                WriteMode::Overwrite => json!("overwrite"),
                WriteMode::Update(revision) => {
                    bounded("revision", &revision)?;
                    json!({ ".tag": "update", "update": revision })
                }
            },
            autorename: options.autorename,
            // Otherwise an update of a revision that was deleted meanwhile would make the file anew.
            strict_conflict: update.is_some(),
            client_modified: options.client_modified.map(write_time).transpose()?,
            mute: options.mute,
        };
        let (operation, _permit) = Operation::begin(&self.remote, "dropbox-upload", path, Effect::WholeOrNot).await?;
        let content = operation.measured(content);
        let work = async {
            match (self.client.caller.upload(&upload, content).await, &update) {
                (Err(failure), Some(revision)) if failure.is("path/conflict") => {
                    Err(self.client.not_at(&outside, revision).await)
                }
                (uploaded, _) => Ok(uploaded?),
            }
        };
        let metadata = operation.end(work.await)?;
        Ok(self.told_of(path, metadata))
    }

    /// A file's metadata and content, pulled as it is consumed. A content hash that does not match is an error item
    /// before the end.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a folder; `Unsupported` for what Dropbox only exports.
    pub async fn download(&self, path: &RemotePath) -> Result<(Metadata, Content), Error> {
        let outside = path.below(&self.root);
        if outside.is_root() {
            return Err(super::root_is_a_folder());
        }
        let (operation, permit) = Operation::begin(&self.remote, "dropbox-download", path, Effect::None).await?;
        match self.client.caller.download(&outside).await {
            Ok((metadata, content)) => Ok((self.told_of(path, metadata), operation.with_content(content, permit))),
            Err(failure) => operation.end(Err(failure.into())),
        }
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_metadata(&self, path: &RemotePath) -> Result<Metadata, Error> {
        let outside = path.below(&self.root);
        if outside.is_root() {
            // Dropbox has no metadata of its root.
            return Ok(Metadata {
                kind: MetadataKind::Folder,
                name: String::new(),
                path: RemotePath::root(),
                id: None,
                revision: None,
                size: None,
                content_hash: None,
                server_modified: None,
                client_modified: None,
            });
        }
        let work = async { Ok(self.client.caller.get_metadata(&outside).await?) };
        let metadata = self.remote.once("dropbox-get-metadata", path, Effect::None, work).await?;
        Ok(self.told_of(path, metadata))
    }

    /// The first page of a folder's entries, of everything below it when `recursive`.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not a folder.
    pub async fn list_folder(&self, path: &RemotePath, recursive: bool) -> Result<Page, Error> {
        let outside = path.below(&self.root);
        let work = async { Ok(self.client.caller.list_folder(&outside, recursive, PAGE_ENTRIES).await?) };
        let listing = self.remote.once("dropbox-list-folder", path, Effect::None, work).await?;
        let mut page = self.page(listing);
        // A recursive listing begins with the folder itself.
        page.entries.retain(|entry| !same_to_dropbox(entry.path.as_str(), path.as_str()));
        Ok(page)
    }

    /// The next page after a cursor. A cursor from elsewhere gives nothing but what is within this root.
    ///
    /// # Errors
    /// `Conflict`: the cursor was reset, list anew. `Invalid` for what has never been a cursor.
    pub async fn list_folder_continue(&self, cursor: &str) -> Result<Page, Error> {
        bounded("cursor", cursor)?;
        let work = async { Ok(self.client.caller.list_folder_continue(&self.root, cursor.to_owned()).await?) };
        let listing = self.remote.once("dropbox-list-folder-continue", &RemotePath::root(), Effect::None, work).await?;
        Ok(self.page(listing))
    }

    /// Deletes a file, or a folder with all that is in it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the root.
    pub async fn delete(&self, path: &RemotePath) -> Result<Metadata, Error> {
        self.not_the_root("delete", path)?;
        let outside = path.below(&self.root);
        let work = async { Ok(self.client.caller.delete(&outside).await?) };
        let metadata = self.remote.once("dropbox-delete", path, Effect::Unknown, work).await?;
        Ok(self.told_of(path, metadata))
    }

    /// Creates a folder and its missing parents.
    ///
    /// # Errors
    /// `AlreadyExists` when something is there.
    pub async fn create_folder(&self, path: &RemotePath) -> Result<Metadata, Error> {
        let outside = path.below(&self.root);
        let work = async { Ok(self.client.caller.create_folder(&outside).await?) };
        let metadata = self.remote.once("dropbox-create-folder", path, Effect::Unknown, work).await?;
        Ok(self.told_of(path, metadata))
    }

    fn not_the_root(&self, operation: &str, path: &RemotePath) -> Result<(), Error> {
        if path.is_root() {
            let name = self.remote.name();
            return Err(Error::new(ErrorKind::Invalid, format!("cannot {operation} the root of connection {name}")));
        }
        Ok(())
    }

    fn page(&self, listing: Listing) -> Page {
        let Listing { entries, cursor, has_more } = listing;
        let entries = entries.into_iter().filter_map(|metadata| self.told_within(metadata)).collect();
        Page { entries, cursor, has_more }
    }

    /// What an answer says of an entry; `None` when that is the root or lies outside of it.
    fn told_within(&self, metadata: wire::Metadata) -> Option<Metadata> {
        let path = self.inside(&metadata)?;
        (!path.is_root()).then(|| told(path, metadata))
    }

    /// What an answer says of the entry that was asked about.
    fn told_of(&self, asked: &RemotePath, metadata: wire::Metadata) -> Metadata {
        let path = self.inside(&metadata).unwrap_or_else(|| {
            // Entries that are not mounted have no path, and the one that was asked about is as good.
            asked.parent().and_then(|folder| folder.join(&metadata.name).ok()).unwrap_or_else(|| asked.clone())
        });
        told(path, metadata)
    }

    /// The path of an entry within the root; `None` when it lies outside, or no path may be like that. Dropbox tells
    /// the folders of a path in any case, so the root is matched whatever its case.
    fn inside(&self, metadata: &wire::Metadata) -> Option<RemotePath> {
        self.inside_text(metadata.path_display.as_deref().or(metadata.path_lower.as_deref())?)
    }

    fn inside_text(&self, text: &str) -> Option<RemotePath> {
        let path = RemotePath::parse(text)
            .inspect_err(|error| tracing::warn!(%error, "an entry of Dropbox is left out"))
            .ok()?;
        let mut components = path.components();
        for expected in self.root.components() {
            if !same_to_dropbox(components.next()?, expected) {
                return None;
            }
        }
        components.try_fold(RemotePath::root(), |path, name| path.join(name).ok())
    }
}

/// Whether two names or paths are one to Dropbox, which does not tell cases apart.
fn same_to_dropbox(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

fn bounded(what: &str, text: &str) -> Result<(), Error> {
    if text.is_empty() || text.len() > CURSOR_BYTES_MAX {
        return Err(Error::new(ErrorKind::Invalid, format!("{} bytes are no {what} of Dropbox", text.len())));
    }
    Ok(())
}

fn told(path: RemotePath, metadata: wire::Metadata) -> Metadata {
    Metadata {
        kind: match metadata.kind() {
            Kind::File | Kind::Symlink | Kind::Other => MetadataKind::File,
            Kind::Folder => MetadataKind::Folder,
            Kind::Deleted => MetadataKind::Deleted,
        },
        name: metadata.name,
        path,
        id: metadata.id,
        revision: metadata.rev,
        size: metadata.size,
        content_hash: metadata.content_hash,
        server_modified: metadata.server_modified,
        client_modified: metadata.client_modified,
    }
}
