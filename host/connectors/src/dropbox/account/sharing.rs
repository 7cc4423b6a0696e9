//! Content by other ways than a plain download: revisions, exports, archives of folders, links.
//!
//! A link or a revision names a file without its path, so each is held against the path that the caller may use before
//! anything is told or changed.

use std::time::{Duration, SystemTime};

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::{Account, Metadata, bounded, same_to_dropbox};
use crate::content::Content;
use crate::dropbox::failure::{Call, Failure};
use crate::dropbox::wire::{self, write_path, write_time};
use crate::error::{Error, ErrorKind};
use crate::operation::{Effect, Operation};
use crate::path::RemotePath;

/// Pages of links to one path that are looked through.
const LINK_PAGES_MAX: usize = 20;

/// How long a link for an upload may last (files.stone, `GetTemporaryUploadLinkArg`).
const UPLOAD_LINK_SECONDS: std::ops::RangeInclusive<u64> = 60..=14400;

/// Who may use a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// Whoever has it.
    Public,
    /// Members of the same team.
    Team,
    /// Only those who may see the file anyway.
    NoOne,
}

/// What a link allows. Some settings need a paid account, which Dropbox then says.
#[derive(Debug, Clone, Default)]
pub struct LinkSettings {
    /// Asked of everybody who opens it.
    pub password: Option<SecretString>,
    /// When it ends.
    pub expires: Option<SystemTime>,
    /// Who may use it.
    pub audience: Option<Audience>,
    /// Whether the content may be downloaded.
    pub allow_download: Option<bool>,
}

impl LinkSettings {
    fn is_default(&self) -> bool {
        self.password.is_none() && self.expires.is_none() && self.audience.is_none() && self.allow_download.is_none()
    }

    fn argument(&self) -> Result<Value, Error> {
        let mut settings = json!({});
        if let Some(password) = &self.password {
            settings["require_password"] = json!(true);
            settings["link_password"] = json!(password.expose_secret());
        }
        if let Some(expires) = self.expires {
            settings["expires"] = json!(write_time(expires)?);
        }
        if let Some(audience) = self.audience {
            settings["audience"] = json!(match audience {
                Audience::Public => "public",
                Audience::Team => "team",
                Audience::NoOne => "no_one",
            });
        }
        if let Some(allow) = self.allow_download {
            settings["allow_download"] = json!(allow);
        }
        Ok(settings)
    }
}

/// A link to a file or a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SharedLink {
    /// The address.
    pub url: String,
    /// The name of what it leads to.
    pub name: String,
    /// What it leads to, where that is within the account.
    pub path: Option<RemotePath>,
    /// When it ends.
    pub expires: Option<SystemTime>,
}

#[derive(Deserialize)]
struct WireLink {
    url: String,
    name: String,
    path_lower: Option<String>,
    #[serde(default, deserialize_with = "wire::time")]
    expires: Option<SystemTime>,
}

#[derive(Deserialize)]
struct WireLinks {
    links: Vec<WireLink>,
    #[serde(default)]
    has_more: bool,
    cursor: Option<String>,
}

#[derive(Deserialize)]
struct TemporaryLink {
    link: String,
}

#[derive(Deserialize)]
struct Exported {
    export_metadata: ExportMetadata,
}

#[derive(Deserialize)]
struct ExportMetadata {
    name: String,
    size: Option<u64>,
    export_hash: Option<String>,
}

/// A file of another kind in a form that can be read elsewhere.
#[derive(Debug)]
pub struct Export {
    /// The name with the ending of its form.
    pub name: String,
    /// Verified by its hash where Dropbox tells one.
    pub content: Content,
}

impl Account {
    /// An earlier revision of the file at a path.
    ///
    /// # Errors
    /// `NotFound` when it is not a revision of this file.
    pub async fn download_revision(&self, path: &RemotePath, revision: &str) -> Result<(Metadata, Content), Error> {
        bounded("revision", revision)?;
        let outside = path.below(&self.root);
        let (operation, permit) =
            Operation::begin(&self.remote, "dropbox-download-revision", path, Effect::None).await?;
        let work = async {
            let (metadata, content) = self.client.caller.download_revision(&outside, revision).await?;
            // A revision names any file of the account.
            let of_this = self.inside(&metadata).is_some_and(|found| same_to_dropbox(found.as_str(), path.as_str()));
            if !of_this {
                return Err(Error::new(ErrorKind::NotFound, format!("{path} has no revision {revision:?}")));
            }
            Ok((self.told_of(path, metadata), content))
        };
        match work.await {
            Ok((metadata, content)) => Ok((metadata, operation.with_content(content, permit))),
            Err(error) => operation.end(Err(error)),
        }
    }

    /// A file that cannot be downloaded as it is, such as a document of Dropbox Paper, in a form that can; the usual
    /// form when none is named.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for files that are downloaded instead, and unknown forms.
    pub async fn export(&self, path: &RemotePath, format: Option<&str>) -> Result<Export, Error> {
        let outside = path.below(&self.root);
        let mut argument = json!({ "path": write_path(&outside) });
        if let Some(format) = format {
            argument["export_format"] = json!(format);
        }
        let (operation, permit) = Operation::begin(&self.remote, "dropbox-export", path, Effect::None).await?;
        let call = Call { route: "files/export", subject: outside.as_str(), repeatable: true };
        match self.client.caller.open_content::<Exported>(&call, &argument).await {
            Ok((result, answer)) => {
                let ExportMetadata { name, size, export_hash } = result.export_metadata;
                let content = answer.into_content(&outside, size, export_hash);
                Ok(Export { name, content: operation.with_content(content, permit) })
            }
            Err(failure) => operation.end(Err(failure.into())),
        }
    }

    /// A folder with all that is in it as a ZIP archive, of 20 GB and 10,000 files at most. Its size is not known
    /// ahead, and there is no hash.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` for a file; `TooLarge`.
    pub async fn download_zip(&self, path: &RemotePath) -> Result<Content, Error> {
        let outside = path.below(&self.root);
        if outside.is_root() {
            return Err(Error::new(ErrorKind::Unsupported, "Dropbox makes no archive of its root; name a folder"));
        }
        let (operation, permit) = Operation::begin(&self.remote, "dropbox-download-zip", path, Effect::None).await?;
        let call = Call { route: "files/download_zip", subject: outside.as_str(), repeatable: true };
        let argument = json!({ "path": write_path(&outside) });
        match self.client.caller.open_content::<IgnoredAny>(&call, &argument).await {
            Ok((_, answer)) => Ok(operation.with_content(answer.into_content(&outside, None, None), permit)),
            Err(failure) => operation.end(Err(failure.into())),
        }
    }

    /// A link for a while (four hours) to the content of a file, which whoever has it may read without logging in.
    ///
    /// # Errors
    /// `NotFound`; `Unsupported` for what Dropbox only exports.
    pub async fn temporary_link(&self, path: &RemotePath) -> Result<String, Error> {
        let outside = path.below(&self.root);
        let call = Call { route: "files/get_temporary_link", subject: outside.as_str(), repeatable: true };
        let argument = json!({ "path": write_path(&outside) });
        let work = async { Ok(self.client.caller.rpc::<TemporaryLink>(&call, &argument).await?) };
        Ok(self.remote.once("dropbox-temporary-link", path, Effect::None, work).await?.link)
    }

    /// A link to which whoever has it may send (POST) the content of this one file, once, within `lifetime`, which is
    /// brought between a minute and four hours. What is there is replaced.
    ///
    /// # Errors
    /// `Denied` without the permission to write.
    pub async fn temporary_upload_link(&self, path: &RemotePath, lifetime: Duration) -> Result<String, Error> {
        self.not_the_root("upload to", path)?;
        let outside = path.below(&self.root);
        let call = Call { route: "files/get_temporary_upload_link", subject: outside.as_str(), repeatable: true };
        let seconds = lifetime.as_secs().clamp(*UPLOAD_LINK_SECONDS.start(), *UPLOAD_LINK_SECONDS.end());
        let argument = json!({
            "commit_info": { "path": write_path(&outside), "mode": "overwrite" },
            "duration": seconds,
        });
        let work = async { Ok(self.client.caller.rpc::<TemporaryLink>(&call, &argument).await?) };
        Ok(self.remote.once("dropbox-temporary-upload-link", path, Effect::None, work).await?.link)
    }

    /// A lasting link to a file or folder. Without settings, one that exists already is as good.
    ///
    /// # Errors
    /// `NotFound`; `AlreadyExists` when there is one and settings were asked for; `Denied` for settings that the
    /// account may not have.
    pub async fn create_shared_link(&self, path: &RemotePath, settings: &LinkSettings) -> Result<SharedLink, Error> {
        self.not_the_root("share", path)?;
        let outside = path.below(&self.root);
        let route = "sharing/create_shared_link_with_settings";
        let call = Call { route, subject: outside.as_str(), repeatable: false };
        let argument = json!({ "path": write_path(&outside), "settings": settings.argument()? });
        let work = async {
            match self.client.caller.rpc::<WireLink>(&call, &argument).await {
                Ok(link) => Ok(link),
                Err(failure) if settings.is_default() && failure.is("shared_link_already_exists") => {
                    let existing = self.links_to(&outside).await?.into_iter().next();
                    existing.ok_or_else(|| failure.into())
                }
                Err(failure) => Err(failure.into()),
            }
        };
        let link = self.remote.once("dropbox-create-shared-link", path, Effect::Unknown, work).await?;
        Ok(self.told_link(link))
    }

    /// The links to a file or folder itself.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn shared_links(&self, path: &RemotePath) -> Result<Vec<SharedLink>, Error> {
        self.not_the_root("list the links to", path)?;
        let outside = path.below(&self.root);
        let work = async { Ok(self.links_to(&outside).await?) };
        let links = self.remote.once("dropbox-shared-links", path, Effect::None, work).await?;
        Ok(links.into_iter().map(|link| self.told_link(link)).collect())
    }

    /// Changes what one of the links to a path allows.
    ///
    /// # Errors
    /// `NotFound` when it is no link to this path; `Denied` for settings that the account may not have.
    pub async fn modify_shared_link(
        &self,
        path: &RemotePath,
        url: &str,
        settings: &LinkSettings,
    ) -> Result<SharedLink, Error> {
        let outside = path.below(&self.root);
        let route = "sharing/modify_shared_link_settings";
        let call = Call { route, subject: outside.as_str(), repeatable: false };
        let argument = json!({ "url": url, "settings": settings.argument()?, "remove_expiration": false });
        let work = async {
            self.expect_link(path, &outside, url).await?;
            Ok(self.client.caller.rpc::<WireLink>(&call, &argument).await?)
        };
        let link = self.remote.once("dropbox-modify-shared-link", path, Effect::Unknown, work).await?;
        Ok(self.told_link(link))
    }

    /// Ends one of the links to a path.
    ///
    /// # Errors
    /// `NotFound` when it is no link to this path.
    pub async fn revoke_shared_link(&self, path: &RemotePath, url: &str) -> Result<(), Error> {
        let outside = path.below(&self.root);
        let call = Call { route: "sharing/revoke_shared_link", subject: outside.as_str(), repeatable: false };
        let work = async {
            self.expect_link(path, &outside, url).await?;
            self.client.caller.rpc::<IgnoredAny>(&call, &json!({ "url": url })).await?;
            Ok(())
        };
        self.remote.once("dropbox-revoke-shared-link", path, Effect::Unknown, work).await
    }

    /// What a link leads to. On a connection that is confined to a folder, only links into that folder.
    ///
    /// # Errors
    /// `NotFound`; `Denied` for links out of the root, and ones that ask for another password.
    pub async fn shared_link_metadata(&self, url: &str, password: Option<&SecretString>) -> Result<SharedLink, Error> {
        let work = async { self.look_at_link(url, password).await };
        let path = RemotePath::root();
        let link = self.remote.once("dropbox-shared-link-metadata", &path, Effect::None, work).await?;
        Ok(self.told_link(link))
    }

    /// The content of the file that a link leads to, verified. On a connection that is confined to a folder, only
    /// links into that folder.
    ///
    /// # Errors
    /// As [`Account::shared_link_metadata`]; `Conflict` for a link to a folder.
    pub async fn shared_link_file(
        &self,
        url: &str,
        password: Option<&SecretString>,
    ) -> Result<(SharedLink, Content), Error> {
        let (operation, permit) =
            Operation::begin(&self.remote, "dropbox-shared-link-file", &RemotePath::root(), Effect::None).await?;
        let work = async {
            let link = self.look_at_link(url, password).await?;
            let call = Call { route: "sharing/get_shared_link_file", subject: &link.name, repeatable: true };
            let opened = self.client.caller.open_content::<Value>(&call, &link_argument(url, password)).await;
            let (metadata, answer) = opened.map_err(Error::from)?;
            let hash = metadata["content_hash"].as_str().map(str::to_owned);
            let named = RemotePath::root().join(&link.name).unwrap_or_else(|_| RemotePath::root());
            let content = answer.into_content(&named, metadata["size"].as_u64(), hash);
            Ok((self.told_link(link), content))
        };
        match work.await {
            Ok((link, content)) => Ok((link, operation.with_content(content, permit))),
            Err(error) => operation.end(Err(error)),
        }
    }

    async fn look_at_link(&self, url: &str, password: Option<&SecretString>) -> Result<WireLink, Error> {
        bounded("link", url)?;
        let call = Call { route: "sharing/get_shared_link_metadata", subject: "a link", repeatable: true };
        let link: WireLink = self.client.caller.rpc(&call, &link_argument(url, password)).await.map_err(Error::from)?;
        let within = link.path_lower.as_deref().is_some_and(|path| self.inside_text(path).is_some());
        if self.root.is_root() || within {
            return Ok(link);
        }
        let message = "the link does not lead into the folder that this connection is confined to";
        Err(Error::new(ErrorKind::Denied, message))
    }

    async fn links_to(&self, outside: &RemotePath) -> Result<Vec<WireLink>, Failure> {
        let call = Call { route: "sharing/list_shared_links", subject: outside.as_str(), repeatable: true };
        let mut links = Vec::new();
        let mut cursor = None;
        for _ in 0..LINK_PAGES_MAX {
            // Links to the folders above are links to more than this.
            let mut argument = json!({ "path": write_path(outside), "direct_only": true });
            if let Some(cursor) = cursor {
                argument["cursor"] = json!(cursor);
            }
            let page: WireLinks = self.client.caller.rpc(&call, &argument).await?;
            links.extend(page.links);
            cursor = page.cursor.filter(|_| page.has_more);
            if cursor.is_none() {
                break;
            }
        }
        Ok(links)
    }

    async fn expect_link(&self, path: &RemotePath, outside: &RemotePath, url: &str) -> Result<(), Error> {
        self.not_the_root("change the links to", path)?;
        bounded("link", url)?;
        if self.links_to(outside).await?.iter().any(|link| link.url == url) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotFound, format!("{path} has no such link; list the links to it")))
    }

    fn told_link(&self, link: WireLink) -> SharedLink {
        let path = link.path_lower.as_deref().and_then(|path| self.inside_text(path));
        SharedLink { url: link.url, name: link.name, path, expires: link.expires }
    }
}

fn link_argument(url: &str, password: Option<&SecretString>) -> Value {
    let mut argument = json!({ "url": url });
    if let Some(password) = password {
        argument["link_password"] = json!(password.expose_secret());
    }
    argument
}
