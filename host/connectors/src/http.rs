//! An HTTP origin as a connection: which URLs it covers, and one request to one of them, streamed both ways.
//!
//! Follows no redirect: the answer that names another place is the caller's to judge. Knows nothing of who sends a
//! request or what it means; how bytes travel is in [`client`].

pub(crate) mod client;

use std::sync::Arc;

use ::http::header::{self, HeaderName};
use percent_encoding::percent_decode;
use reqwest::Body;
use url::Url;

use crate::Common;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};

use client::Client;

/// Rounds of percent-decoding that a path is judged under: what a proxy, a framework and an application may undo
/// one after another. A path that still changes then is refused.
const DECODING_ROUNDS_MAX: usize = 4;

/// Headers of one hop, which are not the caller's to set (RFC 9110 section 7.6.1, RFC 9113 section 8.2.2), and `Host`,
/// which would name another origin on the same server.
const HOP_HEADERS: [HeaderName; 9] = [
    header::HOST,
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::TE,
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
];

/// The settings of a connection of type `http`.
#[derive(Debug, Clone)]
pub struct Config {
    /// The origin, with an optional base path that confines the connection: `https://api.example.com/v1`.
    pub url: Url,
}

/// One HTTP origin that requests may be sent to.
pub struct Origin {
    url: Url,
    base_path: String,
    client: Client,
}

impl Origin {
    /// An origin by its settings. Nothing is opened.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not `http` or `https`, has no host, or has a user name, a query or a fragment.
    pub fn new(config: Config, common: &Common, egress: Arc<Egress>) -> Result<Self, Error> {
        let url = config.url;
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the url of the connection {why}")));
        if !matches!(url.scheme(), "http" | "https") {
            return invalid("must begin with https:// or http://");
        }
        if !url.has_host() {
            return invalid("names no host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return invalid("must not have a user name or password in it");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return invalid("must not have a query or fragment");
        }
        let base_path = url.path().trim_end_matches('/').to_owned();
        let client = Client::new(common, egress, None, None)?;
        Ok(Self { url, base_path, client })
    }

    /// Whether a URL lies within this origin: same scheme, host and port, no user name, and a path at or below the
    /// base path, however the server may decode it.
    pub fn covers(&self, uri: &::http::Uri) -> bool {
        self.covered(uri).is_some()
    }

    /// Sends one request and waits for the head of the answer. Redirects are answers like any other.
    ///
    /// Headers that concern one hop, and `Host`, are left out: the connection sets its own.
    ///
    /// # Errors
    /// `Denied` for a URL that this origin does not cover and for an address that the outgoing policy refuses;
    /// `Invalid` for contradicting lengths; `Unavailable`, `Timeout`, and `Interrupted` when the connection broke
    /// before the head of the answer. Errors within the body of the answer carry an [`Error`] as a source.
    pub async fn send(&self, request: ::http::Request<Body>) -> Result<::http::Response<Body>, Error> {
        let (head, body) = request.into_parts();
        let Some(url) = self.covered(&head.uri) else {
            return Err(Error::new(
                ErrorKind::Denied,
                format!("the connection does not cover that URL; it covers {} and what is below it", self.url),
            ));
        };
        let mut headers = head.headers;
        for name in HOP_HEADERS {
            headers.remove(name);
        }
        let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
        let one_number = match (lengths.next(), lengths.next()) {
            (None, _) => true,
            (Some(length), None) => length.as_bytes().iter().all(u8::is_ascii_digit),
            (Some(_), Some(_)) => false,
        };
        if !one_number {
            return Err(Error::new(ErrorKind::Invalid, "the request's content-length is not one number"));
        }
        let mut outgoing = reqwest::Request::new(head.method, url);
        *outgoing.headers_mut() = headers;
        *outgoing.body_mut() = Some(body);
        self.client.send(outgoing).await
    }

    /// The URL as it is sent, when it is covered. The judgement is on the very form that goes out: parsing resolves
    /// `.` and `..`, also when written `%2e`, as the URL standard says.
    fn covered(&self, uri: &::http::Uri) -> Option<Url> {
        uri.authority()?;
        let url = Url::parse(&uri.to_string()).ok()?;
        let same_origin = url.scheme() == self.url.scheme()
            && url.host() == self.url.host()
            && url.port_or_known_default() == self.url.port_or_known_default()
            && url.username().is_empty()
            && url.password().is_none();
        (same_origin && self.covers_path(url.path())).then_some(url)
    }

    fn covers_path(&self, path: &str) -> bool {
        if self.base_path.is_empty() {
            return true;
        }
        let below = path.strip_prefix(&self.base_path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below && !climbs(path)
    }
}

/// Whether a server that decodes a path before it resolves dots would find a `..` in it.
fn climbs(path: &str) -> bool {
    let mut current = path.as_bytes().to_vec();
    for _ in 0..DECODING_ROUNDS_MAX {
        // Some servers take a backslash for a separator, and cut what follows a semicolon off a segment.
        let dots = current
            .split(|byte| matches!(byte, b'/' | b'\\'))
            .any(|segment| segment.split(|byte| *byte == b';').next() == Some(b".."));
        if dots {
            return true;
        }
        let decoded: Vec<u8> = percent_decode(&current).collect();
        if decoded == current {
            return false;
        }
        current = decoded;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Origin {
        let config = Config { url: url.parse().unwrap() };
        Origin::new(config, &Common::default(), Arc::new(Egress::default())).unwrap()
    }

    #[test]
    fn an_origin_covers_its_own_urls_however_they_are_written() {
        let origin = origin("https://api.example.com/v1/");
        for uri in [
            "https://api.example.com/v1",
            "https://api.example.com/v1/",
            "https://API.Example.COM/v1/users?q=..#",
            "https://api.example.com:443/v1/users",
            "https://api.example.com/v1/a/../b",
            "https://api.example.com/v1/a%2Fb/..c/c..",
            "https://api.example.com/v1/100%25",
        ] {
            assert!(origin.covers(&uri.parse().unwrap()), "{uri}");
        }
    }

    #[test]
    fn an_origin_covers_nothing_else() {
        let origin = origin("https://api.example.com/v1");
        for uri in [
            "http://api.example.com/v1",
            "https://api.example.com:8443/v1",
            "https://api.example.com.evil.test/v1",
            "https://api.example.com@evil.test/v1",
            "https://user@api.example.com/v1",
            "https://:@evil.test/v1",
            "https://evil.test/v1",
            "https://api.example.com/v10",
            "https://api.example.com/V1/users",
            "https://api.example.com/",
            "https://api.example.com/v1/../admin",
            "https://api.example.com/v1/%2e%2e/admin",
            "https://api.example.com/v1/%2E./admin",
            "https://api.example.com/v1/..%2fadmin",
            "https://api.example.com/v1/..%5cadmin",
            "https://api.example.com/v1/%252e%252e/admin",
            "https://api.example.com/v1/%252e%252e%252fadmin",
            "https://api.example.com/v1/..;/admin",
            "https://api.example.com/v1/%2e%2e;x=1/admin",
            "https://api.example.com/v1/%25252525252e%2e/admin",
            "/v1/users",
        ] {
            assert!(!origin.covers(&uri.parse().unwrap()), "{uri}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_an_origin_is_refused() {
        for url in
            ["ftp://example.com/", "https://a:b@example.com/", "https://example.com/?q", "https://example.com/#f"]
        {
            let config = Config { url: url.parse().unwrap() };
            let Err(error) = Origin::new(config, &Common::default(), Arc::new(Egress::default())) else {
                panic!("{url} was accepted");
            };
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        }
    }

    #[tokio::test]
    async fn an_address_that_the_policy_refuses_is_denied_as_a_literal_and_as_a_name() {
        for url in ["http://127.0.0.1:9/", "http://[::1]:9/", "http://localhost:9/"] {
            let request = ::http::Request::get(url).body(Body::default()).unwrap();
            let error = origin(url).send(request).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied, "{url}: {error}");
            assert!(error.to_string().contains("egress-allow"), "{error}");
        }
    }
}
