//! What only Dropbox has, on paths within a connection's root. The interface `dropbox` of the contract with guests.

use std::sync::Arc;
use std::time::SystemTime;

use crate::content::Content;
use crate::dropbox::Dropbox;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

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

/// The account behind a connection, for what only Dropbox has.
#[derive(Clone)]
pub struct Account {
    _client: Arc<Dropbox>,
    _root: RemotePath,
}

impl Account {
    pub(crate) fn new(client: Arc<Dropbox>, root: RemotePath) -> Self {
        Self { _client: client, _root: root }
    }

    /// Uploads.
    ///
    /// # Errors
    /// `TooLarge`.
    pub async fn upload(&self, _: &RemotePath, _: Content, _: UploadOptions) -> Result<Metadata, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// A file's metadata and content.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn download(&self, _: &RemotePath) -> Result<(Metadata, Content), Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// What is at a path.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn get_metadata(&self, _: &RemotePath) -> Result<Metadata, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// The first page of a folder's entries.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn list_folder(&self, _: &RemotePath, _recursive: bool) -> Result<Page, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// The next page after a cursor.
    ///
    /// # Errors
    /// `Conflict`: the cursor was reset.
    pub async fn list_folder_continue(&self, _cursor: &str) -> Result<Page, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// Deletes a file, or a folder with all that is in it.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn delete(&self, _: &RemotePath) -> Result<Metadata, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }

    /// Creates a folder and its missing parents.
    ///
    /// # Errors
    /// `AlreadyExists`.
    pub async fn create_folder(&self, _: &RemotePath) -> Result<Metadata, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
}
