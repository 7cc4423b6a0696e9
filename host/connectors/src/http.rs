//! An HTTP origin as a connection: which URLs it covers, and one request to it, streamed both ways.
//!
//! Follows no redirect: the answer that names another place is the caller's to judge. Knows nothing of who sends the
//! request or what it means.

use std::sync::Arc;

use crate::Common;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};

/// The settings of a connection of type `http`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The origin, with an optional base path that confines the connection: `https://api.example.com/v1`.
    pub url: url::Url,
}

/// One HTTP origin that requests may be sent to.
pub struct Origin {
    url: url::Url,
}

impl Origin {
    /// An origin by its settings. Nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not `http` or `https`, has no host, or has user name, query or fragment.
    pub fn new(config: Config, _common: &Common, _egress: Arc<Egress>) -> Result<Self, Error> {
        Ok(Self { url: config.url })
    }

    /// Whether a URL lies within this origin and below its base path.
    pub fn covers(&self, uri: &::http::Uri) -> bool {
        uri.host() == self.url.host_str()
    }

    /// Sends one request and waits for the head of the answer.
    ///
    /// # Errors
    /// `Denied` for a URL that the origin does not cover, or an address that the outgoing policy refuses.
    pub async fn send(
        &self,
        _request: ::http::Request<reqwest::Body>,
    ) -> Result<::http::Response<reqwest::Body>, Error> {
        Err(Error::new(ErrorKind::Unsupported, "not yet"))
    }
}
