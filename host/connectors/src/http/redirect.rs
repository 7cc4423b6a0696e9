//! Redirects: where an answer sends a request, and what the request becomes on its way there (RFC 9110 section 15.4).
//!
//! Knows which headers may go along to another origin: those that say nothing about who asks. Whether a place may be
//! gone to is decided elsewhere.

use ::http::header::{self, HeaderName};
use ::http::{HeaderMap, Method, StatusCode};
use url::Url;

use crate::error::{Error, ErrorKind};

/// How redirects are treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirects {
    /// Redirects of one request that are followed; 0 follows none, and the redirect is the answer.
    pub max: usize,
    /// Whether other origins are followed to, without any credentials. Otherwise such a redirect is an error.
    pub other_origins: bool,
}

impl Default for Redirects {
    /// A few, within the origin.
    fn default() -> Self {
        Self { max: 5, other_origins: false }
    }
}

/// All that goes along to another origin: what is asked for and in which form, nothing that could be a credential.
const HARMLESS: [HeaderName; 14] = [
    header::ACCEPT,
    header::ACCEPT_CHARSET,
    header::ACCEPT_ENCODING,
    header::ACCEPT_LANGUAGE,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_TYPE,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::RANGE,
    header::USER_AGENT,
];

/// Headers that describe a body, which is gone when a method becomes GET.
const OF_THE_BODY: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    HeaderName::from_static("digest"),
];

/// Where an answer sends the request on to; `None` when it is no redirect, or names no place.
///
/// # Errors
/// `Interrupted` for a place that is no URL of `http` or `https`.
pub(super) fn target(status: StatusCode, headers: &HeaderMap, from: &Url) -> Result<Option<Url>, Error> {
    if !matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let Some(location) = headers.get(header::LOCATION) else { return Ok(None) };
    let place = std::str::from_utf8(location.as_bytes()).ok().and_then(|text| from.join(text.trim()).ok());
    let usable = place.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match usable {
        Some(mut url) => {
            url.set_fragment(None);
            // A name in a URL would become a credential.
            if !url.username().is_empty() || url.password().is_some() {
                return Err(unusable(from, status, "which has a user name in it"));
            }
            Ok(Some(url))
        }
        None => Err(unusable(from, status, "which is not a URL of http or https")),
    }
}

fn unusable(from: &Url, status: StatusCode, why: &str) -> Error {
    let host = from.host_str().unwrap_or_default();
    Error::new(ErrorKind::Interrupted, format!("{host} redirects ({}) to a place {why}", status.as_u16()))
}

/// The method after a redirect: 303 makes all but HEAD a GET; 301 and 302 make a POST a GET, as every client does.
pub(super) fn method_after(status: StatusCode, method: &Method) -> Method {
    let becomes_get = match status {
        StatusCode::SEE_OTHER => *method != Method::HEAD,
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND => *method == Method::POST,
        _ => false,
    };
    if becomes_get { Method::GET } else { method.clone() }
}

/// Takes away what describes a body.
pub(super) fn without_body(headers: &mut HeaderMap) {
    for name in OF_THE_BODY {
        headers.remove(name);
    }
}

/// The headers that may go to another origin.
pub(super) fn for_strangers(headers: &HeaderMap) -> HeaderMap {
    let harmless = headers.iter().filter(|(name, _)| HARMLESS.contains(name));
    harmless.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_method_changes_as_the_status_says() {
        for (status, method, expected) in [
            (301, Method::POST, Method::GET),
            (302, Method::POST, Method::GET),
            (302, Method::PUT, Method::PUT),
            (301, Method::HEAD, Method::HEAD),
            (303, Method::POST, Method::GET),
            (303, Method::DELETE, Method::GET),
            (303, Method::HEAD, Method::HEAD),
            (307, Method::POST, Method::POST),
            (308, Method::PATCH, Method::PATCH),
        ] {
            assert_eq!(method_after(StatusCode::from_u16(status).unwrap(), &method), expected, "{status} {method}");
        }
    }

    #[test]
    fn a_place_is_found_relative_to_the_request() {
        let from: Url = "https://api.example.com/v1/users?page=2".parse().unwrap();
        let go = |status: u16, location: &str| {
            let headers = HeaderMap::from_iter([(header::LOCATION, location.parse().unwrap())]);
            target(StatusCode::from_u16(status).unwrap(), &headers, &from)
        };
        for (location, expected) in [
            ("/v2/users", "https://api.example.com/v2/users"),
            ("other#here", "https://api.example.com/v1/other"),
            ("//evil.test/x", "https://evil.test/x"),
            ("http://169.254.169.254/latest", "http://169.254.169.254/latest"),
        ] {
            assert_eq!(go(302, location).unwrap().unwrap().as_str(), expected);
        }
        assert_eq!(go(304, "/x").unwrap(), None);
        assert_eq!(go(300, "/x").unwrap(), None);
        assert_eq!(target(StatusCode::FOUND, &HeaderMap::new(), &from).unwrap(), None);
        for location in ["file:///etc/passwd", "ftp://x/", "https://user:pass@evil.test/", "http://[::1", "data:,x"] {
            assert_eq!(go(302, location).unwrap_err().kind(), ErrorKind::Interrupted, "{location}");
        }
    }

    #[test]
    fn nothing_that_could_be_a_credential_goes_to_strangers() {
        let mut headers = HeaderMap::new();
        for name in ["accept", "range", "authorization", "cookie", "x-api-key", "x-anything", "if-none-match"] {
            headers.insert(name, "value".parse().unwrap());
        }
        let mut names: Vec<_> = for_strangers(&headers).keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        assert_eq!(names, ["accept", "if-none-match", "range"]);
    }
}
