//! A Dropbox account as a connection.

mod account;

use std::sync::Arc;

use async_trait::async_trait;
use secrecy::SecretString;
use url::Url;

use crate::Common;
use crate::backend::{Backend, ByteRange, Entry, IfExists, Pages};
use crate::content::Content;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

pub use account::{Account, Metadata, MetadataKind, Page, UploadOptions, WriteMode};

/// The settings of a connection of type `dropbox`.
#[derive(Debug, Clone)]
pub struct Config {
    /// How the host logs in.
    pub credentials: Credentials,
    /// Where calls with a JSON argument go.
    pub api_url: Url,
    /// Where calls that carry content go.
    pub content_url: Url,
    /// Where access tokens are refreshed.
    pub token_url: Url,
    /// The only certificate authorities to trust, as PEM; those of the system when absent.
    pub certificate_authority: Option<Vec<u8>>,
    /// What the host calls itself; its name and version when absent.
    pub user_agent: Option<String>,
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
            api_url: url("https://api.dropboxapi.com/")?,
            content_url: url("https://content.dropboxapi.com/")?,
            token_url: url("https://api.dropboxapi.com/oauth2/token")?,
            certificate_authority: None,
            user_agent: None,
        })
    }
}

/// A Dropbox account.
pub struct Dropbox {}

impl Dropbox {
    /// An account by its settings. Nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for settings that cannot work.
    pub fn new(_config: Config, _common: &Common, _egress: Arc<Egress>) -> Result<Self, Error> {
        Ok(Self {})
    }
}

fn later<T>() -> Result<T, Error> {
    Err(Error::new(ErrorKind::Unsupported, "not yet"))
}

#[async_trait]
impl Backend for Dropbox {
    async fn ping(&self) -> Result<(), Error> {
        later()
    }
    async fn stat(&self, _path: &RemotePath) -> Result<Entry, Error> {
        later()
    }
    async fn list(&self, _path: &RemotePath) -> Result<Pages, Error> {
        later()
    }
    async fn read(&self, _path: &RemotePath, _range: ByteRange) -> Result<Content, Error> {
        later()
    }
    async fn write(&self, _path: &RemotePath, _content: Content, _if_exists: IfExists) -> Result<Entry, Error> {
        later()
    }
    async fn delete(&self, _path: &RemotePath) -> Result<(), Error> {
        later()
    }
    async fn rename(&self, _source: &RemotePath, _target: &RemotePath, _if_exists: IfExists) -> Result<(), Error> {
        later()
    }
    async fn make_directory(&self, _path: &RemotePath) -> Result<(), Error> {
        later()
    }
}
