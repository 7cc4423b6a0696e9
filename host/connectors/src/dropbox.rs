//! A Dropbox account as a connection: the verbs of a file-like remote, and the account behind it.
//!
//! Here is what Dropbox makes of each verb. Calls, their retries and tokens are in [`call`], content in [`upload`] and
//! [`download`], the meaning of refusals in [`failure`]. Knows no grants and no guests.

mod account;
mod accounts;
mod call;
mod commit;
mod download;
mod failure;
mod hash;
pub mod login;
mod longpoll;
mod pace;
mod parts;
mod root;
mod session;
mod token;
mod upload;
mod wire;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use async_trait::async_trait;
use futures::stream::{self, StreamExt, TryStreamExt};
use secrecy::SecretString;
use serde_json::json;
use url::{Host, Url};

use crate::Common;
use crate::backend::{
    Backend, ByteRange, Checksum, ChecksumAlgorithm, Entry, EntryKind, Facts, IfExists, Location, Pages, ResumeKey,
    WriteOptions,
};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::http::client::Client;
use crate::path::RemotePath;

use accounts::Membership;
use call::Caller;
use commit::Commits;
use failure::{Call, Failure};
pub(crate) use hash::ContentHasher;
use longpoll::{Polls, SILENCE_MAX};
use parts::Memory;
use root::Standing;
use token::Tokens;
use upload::Upload;
use wire::{Changed, Kind, Listing, Metadata as WireMetadata, write_path};

pub use account::{
    Account, Audience, BATCH_ENTRIES_MAX, Batch, CallStyle, Changes, CurrentAccount, Export, Job, LinkSettings,
    ListOptions, Matches, Metadata, MetadataKind, Page, Poll, Revisions, SearchOptions, SharedLink, SpaceUsage,
    UploadOptions, WriteMode,
};
pub use root::PathRoot;

/// Entries of one page: few enough that a page of the longest paths stays small, many enough that a large folder
/// takes few calls. Dropbox allows 2000.
const PAGE_ENTRIES: u32 = 500;

/// Pages without an entry that a listing bears in a row. Dropbox sends such pages, but not without end.
const EMPTY_PAGES_MAX: u32 = 100;

/// The most of one upload that is in memory, unless it is configured: enough to fill a fast line while answers are
/// on their way, and little beside what a host has. Dropbox takes 150 MiB in one request at most.
const WINDOW_BYTES: u64 = 24 * 1024 * 1024;

/// The settings of a connection of type `dropbox`.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the host logs in.
    pub credentials: Credentials,
    /// What the login allowed, for people, where that is known: Dropbox does not tell it again.
    pub scopes: Option<String>,
    /// Where calls with a JSON argument go.
    pub api_url: Url,
    /// Where calls that carry content go.
    pub content_url: Url,
    /// Where to wait for changes.
    pub notify_url: Url,
    /// Where access tokens are refreshed.
    pub token_url: Url,
    /// The only certificate authorities to trust, as PEM; those of the system when absent.
    pub certificate_authority: Option<Vec<u8>>,
    /// What the host calls itself; its name and version when absent.
    pub user_agent: Option<String>,
    /// Where the paths of the account begin; Dropbox's own choice when absent, which is the member's folder.
    pub path_root: Option<PathRoot>,
    /// The member of a team that an application of the team acts for, such as `dbmid:AAB...`.
    pub select_user: Option<String>,
    /// The administrator of a team that an application of the team acts as.
    pub select_admin: Option<String>,
    /// Further headers of every call, for proxies and the like.
    pub headers: Vec<(String, SecretString)>,
    /// All waits of one call together, when Dropbox asks for some. When absent, a call waits as long as its caller
    /// ([`crate::deadline::until`]), or 20 s where that does not say.
    pub wait_budget: Option<Duration>,
    /// The most of one upload that is in memory, in bytes: three parts at once, or two where its size is not known,
    /// each a multiple of 4 MiB.
    pub window_bytes: u64,
}

/// How the host logs in to Dropbox.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// A token that ends by itself, four hours after it was issued: for trying things out.
    AccessToken(SecretString),
    /// A token that lasts until it is revoked, from which access tokens are made as needed.
    RefreshToken {
        /// The application's key, public.
        app_key: String,
        /// The application's secret; absent for one that was authorised with PKCE.
        app_secret: Option<SecretString>,
        /// The refresh token.
        refresh_token: SecretString,
    },
}

impl Config {
    /// The settings for Dropbox itself.
    ///
    /// # Errors
    /// None in practice: the built-in URLs parse.
    pub fn new(credentials: Credentials) -> Result<Self, Error> {
        let url = |text: &str| {
            Url::parse(text).map_err(|error| Error::new(ErrorKind::Internal, "a built-in URL").with_source(error))
        };
        Ok(Self {
            credentials,
            scopes: None,
            api_url: url("https://api.dropboxapi.com/")?,
            content_url: url("https://content.dropboxapi.com/")?,
            notify_url: url("https://notify.dropboxapi.com/")?,
            token_url: url("https://api.dropboxapi.com/oauth2/token")?,
            certificate_authority: None,
            user_agent: None,
            path_root: None,
            select_user: None,
            select_admin: None,
            headers: Vec::new(),
            wait_budget: None,
            window_bytes: WINDOW_BYTES,
        })
    }
}

/// A Dropbox account.
pub struct Dropbox {
    caller: Arc<Caller>,
}

impl Dropbox {
    /// An account by its settings. Nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not `https` (`http` is for addresses of this machine only, because tokens travel
    /// in each request) or has a query, and for an unusable certificate authority or user agent.
    pub fn new(config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let authority = config.certificate_authority.as_deref();
        let user_agent = config.user_agent.as_deref();
        let patient = Common { read_timeout: SILENCE_MAX, ..common.clone() };
        let polls = Client::new(&patient, Arc::clone(&egress), authority, user_agent)?;
        let client = Client::new(common, egress, authority, user_agent)?;
        let (select_user, select_admin) = (config.select_user.as_deref(), config.select_admin.as_deref());
        let api_url = folder(checked(config.api_url, "api-url")?);
        let membership = Membership::new(&api_url, &config.credentials, select_user.or(select_admin));
        let tokens = Tokens::new(config.credentials, config.scopes, checked(config.token_url, "token-url")?);
        let caller = Caller {
            client,
            tokens,
            membership,
            wait_budget: config.wait_budget,
            retries: common.retries,
            commits: Commits::new(),
            memory: Memory::new(),
            window_bytes: config.window_bytes,
            api_url,
            content_url: folder(checked(config.content_url, "content-url")?),
            standing: Standing::new(config.path_root.as_ref(), select_user, select_admin, &config.headers)?,
            polls: Polls::new(polls, folder(checked(config.notify_url, "notify-url")?)),
        };
        Ok(Self { caller: Arc::new(caller) })
    }

    /// The entry that an answer describes. Its folder is the one that was asked about, because Dropbox tells only the
    /// last component of a path in its true case.
    fn entry(folder: &RemotePath, metadata: &WireMetadata) -> Result<Entry, Error> {
        Ok(Entry {
            path: folder.join(&metadata.name)?,
            kind: match metadata.kind() {
                Kind::File => EntryKind::File,
                Kind::Folder => EntryKind::Directory,
                Kind::Symlink => EntryKind::Symlink,
                Kind::Deleted | Kind::Other => EntryKind::Other,
            },
            size: metadata.size,
            // What the uploader said, as on any file system; the time of the upload where nobody said.
            modified: metadata.client_modified.or(metadata.server_modified),
            mode: None,
            revision: metadata.rev.clone(),
        })
    }

    fn entry_at(path: &RemotePath, metadata: &WireMetadata) -> Result<Entry, Error> {
        Self::entry(&path.parent().unwrap_or_else(RemotePath::root), metadata)
    }

    async fn pages(&self, path: &RemotePath, limit: u32) -> Result<Pages, Error> {
        let first = self.caller.list_folder(path, false, limit).await?;
        let (caller, folder) = (Arc::clone(&self.caller), path.clone());
        let pages = stream::try_unfold((Some(first), None, 0), move |(page, cursor, empty)| {
            let (caller, folder) = (Arc::clone(&caller), folder.clone());
            async move {
                let page = match (page, cursor) {
                    (Some(page), _) => page,
                    (None, Some(cursor)) => caller.list_folder_continue(&folder, cursor).await?,
                    (None, None) => return Ok::<_, Error>(None),
                };
                let empty = if page.entries.is_empty() { empty + 1 } else { 0 };
                if empty > EMPTY_PAGES_MAX {
                    return Err(Error::new(
                        ErrorKind::Unavailable,
                        format!("Dropbox answers the listing of {folder} with empty pages without end"),
                    ));
                }
                let entries: Vec<Entry> = page.entries.iter().filter_map(|found| listed(&folder, found)).collect();
                let cursor = page.has_more.then_some(page.cursor);
                Ok(Some((entries, (None, cursor, empty))))
            }
        });
        Ok(pages.try_filter(|entries| std::future::ready(!entries.is_empty())).boxed())
    }

    /// What is worth knowing of the account. A permission that is missing for it is a fact, too.
    async fn facts(&self) -> Facts {
        let mut facts = Vec::new();
        match self.caller.current_account().await {
            Ok(account) => {
                facts.push(("account", format!("{} <{}>", account.name, account.email)));
                facts.push(("account-id", account.id));
                facts.push(("account-type", account.kind));
                facts.extend(account.team.map(|team| ("team", team)));
                facts.push(("root-namespace", account.root_namespace));
            }
            Err(failure) => facts.push(("account", format!("unknown: {}", Error::from(failure)))),
        }
        if let Ok(space) = self.caller.space_usage().await {
            let allocated = space.allocated.map(|bytes| format!(" of {bytes}")).unwrap_or_default();
            facts.push(("space", format!("{}{allocated} bytes used", space.used)));
        }
        facts.extend(self.caller.tokens.facts().await);
        facts
    }

    /// Why a file was not replaced that should have been at this revision.
    async fn not_at(&self, path: &RemotePath, revision: &str) -> Error {
        let now = match self.caller.get_metadata(path).await {
            Ok(found) => match found.rev {
                Some(rev) => format!("it is at revision {}", failure::presentable(&rev)),
                None => "it is a folder".to_owned(),
            },
            Err(failure) if failure.is("path/not_found") => "it is not there".to_owned(),
            Err(failure) => format!("what is there cannot be told ({})", Error::from(failure)),
        };
        let revision = failure::presentable(revision);
        Error::new(
            ErrorKind::Conflict,
            format!("{path} was not updated, because it is not at revision {revision}: {now}"),
        )
    }

    /// Makes way for a rename that replaces: deletes the file at `target`, and only that very revision of it.
    async fn make_way(&self, source: &RemotePath, target: &RemotePath) -> Result<String, Error> {
        let found = self.caller.get_metadata(source).await?;
        let in_the_way = self.caller.get_metadata(target).await?;
        if found.id.is_some() && found.id == in_the_way.id {
            return Err(Error::new(
                ErrorKind::Unsupported,
                format!("{source} and {target} are one file to Dropbox, which does not rename between cases"),
            ));
        }
        let Some(rev) = in_the_way.rev.filter(|_| in_the_way.tag.as_deref() == Some("file")) else {
            return Err(Error::new(ErrorKind::Conflict, format!("{target} is a folder, which no rename replaces")));
        };
        let call = Call { route: "files/delete_v2", subject: target.as_str(), repeatable: false };
        self.caller.rpc::<Changed>(&call, &json!({ "path": write_path(target), "parent_rev": rev })).await?;
        Ok(rev)
    }
}

/// Judges an answer, whatever it is: two bytes of status, the rest its body, which is an entry of a batch, too.
pub(crate) fn judge_refusal(input: &[u8]) {
    let Some((status, body)) = input.split_first_chunk::<2>() else { return };
    let Ok(status) = StatusCode::from_u16(300 + u16::from_be_bytes(*status) % 300) else { return };
    let call = Call { route: "files/x", subject: "/a", repeatable: body.len().is_multiple_of(2) };
    let text = String::from_utf8_lossy(body);
    let refused = failure::Refused { status, retry_after: Some(&text), request_id: "", body };
    let _ = failure::classify(&call, &refused);
    if let Ok(error) = serde_json::from_slice(body) {
        let _ = Error::from(failure::refused_entry(call.route, call.subject, &error));
    }
}

/// The entry of a listing; `None` for what is no entry now, and for names that no path may have.
fn listed(folder: &RemotePath, metadata: &WireMetadata) -> Option<Entry> {
    if metadata.kind() == Kind::Deleted {
        return None;
    }
    Dropbox::entry(folder, metadata)
        .inspect_err(|error| tracing::warn!(folder = folder.as_str(), %error, "an entry of the listing is left out"))
        .ok()
}

fn checked(url: Url, setting: &str) -> Result<Url, Error> {
    let this_machine = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    let secure = url.scheme() == "https" || (url.scheme() == "http" && this_machine);
    if !secure || !url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("{setting} must be an https URL without a query: tokens travel in each request"),
        ));
    }
    Ok(url)
}

/// A URL that others can be joined to.
fn folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        url.set_path(&format!("{}/", url.path()));
    }
    url
}

/// The calls that more than one verb needs.
impl Caller {
    async fn get_metadata(&self, path: &RemotePath) -> Result<WireMetadata, Failure> {
        let call = Call { route: "files/get_metadata", subject: path.as_str(), repeatable: true };
        self.rpc(&call, &json!({ "path": write_path(path) })).await
    }

    async fn list_folder(&self, path: &RemotePath, recursive: bool, limit: u32) -> Result<Listing, Failure> {
        let call = Call { route: "files/list_folder", subject: path.as_str(), repeatable: true };
        self.rpc(&call, &json!({ "path": write_path(path), "recursive": recursive, "limit": limit })).await
    }

    async fn list_folder_continue(&self, path: &RemotePath, cursor: String) -> Result<Listing, Failure> {
        let call = Call { route: "files/list_folder/continue", subject: path.as_str(), repeatable: true };
        self.rpc(&call, &json!({ "cursor": cursor })).await
    }

    async fn delete(&self, path: &RemotePath) -> Result<WireMetadata, Failure> {
        let call = Call { route: "files/delete_v2", subject: path.as_str(), repeatable: false };
        Ok(self.rpc::<Changed>(&call, &json!({ "path": write_path(path) })).await?.metadata)
    }

    async fn create_folder(&self, path: &RemotePath) -> Result<WireMetadata, Failure> {
        if path.is_root() {
            return Err(Error::new(ErrorKind::AlreadyExists, "the root folder is always there").into());
        }
        let call = Call { route: "files/create_folder_v2", subject: path.as_str(), repeatable: false };
        let argument = json!({ "path": write_path(path), "autorename": false });
        Ok(self.rpc::<Changed>(&call, &argument).await?.metadata)
    }

    async fn rename(&self, source: &RemotePath, target: &RemotePath) -> Result<(), Failure> {
        let subject = format!("{source} to {target}");
        let call = Call { route: "files/move_v2", subject: &subject, repeatable: false };
        let argument = json!({ "from_path": write_path(source), "to_path": write_path(target), "autorename": false });
        self.rpc::<Changed>(&call, &argument).await.map(|_| ())
    }
}

fn root_is_a_folder() -> Error {
    Error::new(ErrorKind::Conflict, "the root of the account is a folder, not a file")
}

#[async_trait]
impl Backend for Dropbox {
    fn makes_parents(&self) -> bool {
        true
    }

    fn repeats_by_itself(&self) -> bool {
        true
    }

    async fn location(&self, path: &RemotePath) -> Option<Location> {
        let account = Arc::as_ptr(&self.caller.membership.shared());
        let server = format!("dropbox {account:p} {:?}", self.caller.standing.path_root());
        Some(Location { server, path: path.as_str().to_lowercase().into() })
    }

    async fn ping(&self) -> Result<Facts, Error> {
        self.caller.list_folder(&RemotePath::root(), false, 1).await?;
        Ok(self.facts().await)
    }

    async fn stat(&self, path: &RemotePath) -> Result<Entry, Error> {
        if path.is_root() {
            // Dropbox has no metadata of the root; that it answers is all there is to find out.
            self.caller.list_folder(path, false, 1).await?;
            let path = path.clone();
            return Ok(Entry {
                path,
                kind: EntryKind::Directory,
                size: None,
                modified: None,
                mode: None,
                revision: None,
            });
        }
        Self::entry_at(path, &self.caller.get_metadata(path).await?)
    }

    /// There are no links.
    async fn follow(&self, path: &RemotePath) -> Result<Entry, Error> {
        self.stat(path).await
    }

    async fn list(&self, path: &RemotePath) -> Result<Pages, Error> {
        self.pages(path, PAGE_ENTRIES).await
    }

    async fn read(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Error> {
        if path.is_root() {
            return Err(root_is_a_folder());
        }
        if range == ByteRange::ALL {
            return Ok(self.caller.download(path).await?.1);
        }
        Ok(self.caller.download_range(path, range).await?)
    }

    async fn write(&self, path: &RemotePath, content: Content, options: &WriteOptions) -> Result<Entry, Error> {
        let if_exists = options.if_exists;
        if path.is_root() {
            return Err(root_is_a_folder());
        }
        let upload = Upload {
            path,
            mode: if if_exists == IfExists::Replace { json!("overwrite") } else { json!("add") },
            autorename: if_exists == IfExists::Rename,
            strict_conflict: if_exists != IfExists::Replace,
            client_modified: options.modified.map(wire::write_time).transpose()?,
            mute: false,
        };
        let metadata = self.caller.upload(&upload, content).await.map_err(|failure| {
            if failure.is("path/conflict/folder") { failure.of_kind(ErrorKind::Conflict) } else { failure.into() }
        })?;
        Self::entry_at(path, &metadata)
    }

    async fn partial(&self, _: &RemotePath, _: &ResumeKey) -> Result<u64, Error> {
        Ok(0)
    }

    async fn append(&self, path: &RemotePath, _: Content) -> Result<Entry, Error> {
        Err(Error::new(ErrorKind::Unsupported, format!("cannot append to {path}: Dropbox replaces files as a whole")))
    }

    /// Dropbox never replaces in a copy: what is to be replaced is read and written instead, which does it at once.
    async fn copy(
        &self,
        source: &RemotePath,
        target: &RemotePath,
        if_exists: IfExists,
    ) -> Result<Option<Entry>, Error> {
        if source.is_root() || target.is_root() {
            return Err(root_is_a_folder());
        }
        let original = self.caller.get_metadata(source).await?;
        if !matches!(original.kind(), Kind::File | Kind::Symlink) {
            return Err(Error::new(ErrorKind::Conflict, format!("{source} is not a file")));
        }
        let subject = format!("{source} to {target}");
        let call = Call { route: "files/copy_v2", subject: &subject, repeatable: false };
        let argument = json!({
            "from_path": write_path(source),
            "to_path": write_path(target),
            "autorename": if_exists == IfExists::Rename,
        });
        let copied = match self.caller.rpc::<Changed>(&call, &argument).await {
            Ok(changed) => changed.metadata,
            Err(failure) if failure.is("to/conflict/folder") => return Err(failure.of_kind(ErrorKind::Conflict)),
            Err(failure) if if_exists == IfExists::Replace && failure.is("to/conflict/file") => return Ok(None),
            Err(failure) => return Err(failure.into()),
        };
        if copied.content_hash != original.content_hash {
            tracing::debug!(source = source.as_str(), "the source changed while Dropbox copied it");
        }
        Self::entry_at(target, &copied).map(Some)
    }

    async fn delete_tree(&self, path: &RemotePath) -> Result<bool, Error> {
        self.caller.delete(path).await?;
        Ok(true)
    }

    async fn set_modified(&self, path: &RemotePath, _: SystemTime) -> Result<(), Error> {
        Err(Error::new(
            ErrorKind::Unsupported,
            format!("cannot set the time of {path}: Dropbox takes one with an upload only"),
        ))
    }

    async fn checksum(&self, path: &RemotePath) -> Result<Option<Checksum>, Error> {
        if path.is_root() {
            return Err(root_is_a_folder());
        }
        let metadata = self.caller.get_metadata(path).await?;
        if metadata.kind() == Kind::Folder {
            return Err(Error::new(ErrorKind::Conflict, format!("{path} is a folder, which has no checksum")));
        }
        Ok(metadata.content_hash.map(|value| Checksum { algorithm: ChecksumAlgorithm::Dropbox, value }))
    }

    /// Dropbox deletes folders with all that is in them, so an empty page comes first. What someone puts into the
    /// folder between the two calls is deleted with it, and can be restored in Dropbox.
    async fn delete(&self, path: &RemotePath) -> Result<(), Error> {
        match self.caller.list_folder(path, false, 1).await {
            // It is a file.
            Err(failure) if failure.is("path/not_folder") => {}
            Err(failure) => return Err(failure.into()),
            Ok(first) => {
                let empty = first.entries.is_empty()
                    && (!first.has_more || self.pages(path, 1).await?.try_next().await?.is_none());
                if !empty {
                    let message = format!("{path} is a folder that is not empty; delete what is in it first");
                    return Err(Error::new(ErrorKind::Conflict, message));
                }
            }
        }
        self.caller.delete(path).await?;
        Ok(())
    }

    /// Dropbox never replaces in a move. To replace, the target is deleted first, so that for a moment there is none.
    async fn rename(&self, source: &RemotePath, target: &RemotePath, if_exists: IfExists) -> Result<(), Error> {
        if if_exists == IfExists::Rename {
            return Err(Error::new(ErrorKind::Unsupported, "a rename cannot choose a free name; name the target"));
        }
        if source == target {
            self.caller.get_metadata(source).await?;
            return match if_exists {
                IfExists::Replace => Ok(()),
                _ => Err(Error::new(ErrorKind::AlreadyExists, format!("{target} is the source itself"))),
            };
        }
        match self.caller.rename(source, target).await {
            Ok(()) => Ok(()),
            Err(failure) if if_exists == IfExists::Replace && failure.is("to/conflict") => {
                let replaced = self.make_way(source, target).await?;
                self.caller.rename(source, target).await.map_err(|failure| {
                    let error = Error::from(failure);
                    let message = format!(
                        "{target} made way for {source}, which then could not be moved; revision {replaced} of \
                         {target} can be restored in Dropbox"
                    );
                    Error::new(error.kind(), message).with_source(error).telling_effect()
                })
            }
            Err(failure) => Err(failure.into()),
        }
    }

    async fn make_directory(&self, path: &RemotePath) -> Result<(), Error> {
        self.caller.create_folder(path).await?;
        Ok(())
    }
}
