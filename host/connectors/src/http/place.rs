//! Which URLs a connection covers: its base, what lies below it, and the form in which a URL goes out.
//!
//! A base is an origin (scheme, host, port) with a path. Whatever a server may do to a path before it looks for dots,
//! no URL that passes here leads out of it. Knows no request and opens nothing.

use percent_encoding::percent_decode;
use url::Url;

use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// Rounds of percent-decoding that a path is judged under: what a proxy, a framework and an application may undo
/// one after another. A path that still changes then is refused.
const DECODING_ROUNDS_MAX: usize = 4;

/// The base of a connection.
#[derive(Debug)]
pub(super) struct Base {
    url: Url,
    /// Without `/` at its end, so the base of a whole origin is empty.
    path: String,
}

impl Base {
    /// `root` is a further folder below the URL.
    ///
    /// # Errors
    /// `Invalid` for a URL that is not `http` or `https`, has no host, or has a user name, a query or a fragment.
    pub(super) fn new(mut url: Url, root: &RemotePath) -> Result<Self, Error> {
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
        if !root.is_root() {
            let mut segments = url.path_segments_mut().map_err(|()| Error::new(ErrorKind::Invalid, "no base"))?;
            segments.pop_if_empty().extend(root.as_str().split('/').skip(1));
        }
        let path = url.path().trim_end_matches('/').to_owned();
        Ok(Self { url, path })
    }

    /// The base itself.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// A URL that a guest wrote, as it is sent, when it lies within the base. The judgement is on the very form that
    /// goes out: parsing resolves `.` and `..`, also when written `%2e`, as the URL standard says.
    pub(super) fn covered(&self, uri: &::http::Uri) -> Option<Url> {
        uri.authority()?;
        let url = Url::parse(&uri.to_string()).ok()?;
        self.covers(&url).then_some(url)
    }

    /// Whether a parsed URL lies within the base: the same origin, no user name, and a path at or below the base
    /// path, however the server may decode it.
    pub(super) fn covers(&self, url: &Url) -> bool {
        let no_user = url.username().is_empty() && url.password().is_none();
        self.is_origin_of(url) && no_user && self.covers_path(url.path())
    }

    /// Whether scheme, host and port are those of the base.
    pub(super) fn is_origin_of(&self, url: &Url) -> bool {
        url.scheme() == self.url.scheme()
            && url.host() == self.url.host()
            && url.port_or_known_default() == self.url.port_or_known_default()
    }

    /// The URL of `path` below the base, with a query.
    ///
    /// # Errors
    /// `Invalid` for a path that does not begin with `/`, holds a query, a fragment or a control character, or has
    /// `..` in it, in plain or in any disguise.
    pub(super) fn join(&self, path: &str, query: &[(String, String)]) -> Result<Url, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("the path of a request {why}")));
        if !path.is_empty() && !path.starts_with('/') {
            return invalid("begins with / or is empty; it goes below the url of the connection, so it is never a URL");
        }
        if path.contains(['?', '#']) {
            return invalid("has no ? and no #: the parameters of a query are given by themselves; write %3F and %23");
        }
        if path.chars().any(char::is_control) {
            return invalid("has a control character in it");
        }
        if climbs(path) {
            return invalid("must not have .. in it, nor anything that a server may take for that");
        }
        let mut url = self.url.clone();
        if !path.is_empty() {
            url.set_path(&format!("{}{path}", self.path));
        }
        if !self.covers(&url) {
            return invalid("leads out of the connection's url");
        }
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    /// The path of a covered URL, from the base on; it begins with `/` or is empty.
    pub(super) fn below<'u>(&self, url: &'u Url) -> &'u str {
        url.path().strip_prefix(&self.path).unwrap_or_default()
    }

    fn covers_path(&self, path: &str) -> bool {
        if self.path.is_empty() {
            return true;
        }
        let below = path.strip_prefix(&self.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        below && !climbs(path)
    }
}

/// Whether a path of a URL lies at or below a folder, however the server may decode it.
pub fn is_within(path: &str, folder: &RemotePath) -> bool {
    if folder.is_root() {
        return true;
    }
    // A slash that is written %2F separates for some servers and not for others, so it never makes a match here.
    let mut segments = path.split('/').map(|segment| percent_decode(segment.as_bytes()).collect::<Vec<u8>>());
    folder.as_str().split('/').all(|wanted| segments.next().is_some_and(|segment| segment == wanted.as_bytes()))
        && !climbs(path)
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

    fn base(url: &str) -> Base {
        Base::new(url.parse().unwrap(), &RemotePath::root()).unwrap()
    }

    #[test]
    fn a_base_covers_its_own_urls_however_they_are_written() {
        let base = base("https://api.example.com/v1/");
        for uri in [
            "https://api.example.com/v1",
            "https://api.example.com/v1/",
            "https://API.Example.COM/v1/users?q=..#",
            "https://api.example.com:443/v1/users",
            "https://api.example.com/v1/a/../b",
            "https://api.example.com/v1/a%2Fb/..c/c..",
            "https://api.example.com/v1/100%25",
        ] {
            assert!(base.covered(&uri.parse().unwrap()).is_some(), "{uri}");
        }
    }

    #[test]
    fn a_base_covers_nothing_else() {
        let base = base("https://api.example.com/v1");
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
            assert!(base.covered(&uri.parse().unwrap()).is_none(), "{uri}");
        }
    }

    #[test]
    fn a_path_goes_below_the_base_and_a_query_behind_it() {
        let base = base("https://api.example.com/v1/");
        let query = [("q".to_owned(), "a b&c=ü".to_owned())];
        for (path, query, expected) in [
            ("", &[][..], "https://api.example.com/v1/"),
            ("/", &[], "https://api.example.com/v1/"),
            ("/users/42", &[], "https://api.example.com/v1/users/42"),
            ("/a b/ü%2F", &[], "https://api.example.com/v1/a%20b/%C3%BC%2F"),
            ("//evil.test/x", &[], "https://api.example.com/v1//evil.test/x"),
            ("/search", &query, "https://api.example.com/v1/search?q=a+b%26c%3D%C3%BC"),
        ] {
            assert_eq!(base.join(path, query).unwrap().as_str(), expected);
        }
        let folder = RemotePath::parse("/a b").unwrap();
        let rooted = Base::new("https://api.example.com/v1/".parse().unwrap(), &folder).unwrap();
        assert_eq!(rooted.join("/x", &[]).unwrap().as_str(), "https://api.example.com/v1/a%20b/x");
        assert_eq!(rooted.below(&rooted.join("/x", &[]).unwrap()), "/x");
    }

    #[test]
    fn a_path_that_would_leave_the_base_is_refused() {
        let base = base("https://api.example.com/v1");
        for path in [
            "users",
            "https://evil.test/",
            "@evil.test/",
            ":8443/",
            "/..",
            "/../admin",
            "/a/../../admin",
            "/a/../b",
            "/%2e%2e/admin",
            "/..%2fadmin",
            "/..\\admin",
            "/%252e%252e/admin",
            "/..;/admin",
            "/.\t./admin",
            "/a?b",
            "/a#b",
            "/a\r\nHost: evil.test",
        ] {
            assert_eq!(base.join(path, &[]).unwrap_err().kind(), ErrorKind::Invalid, "{path}");
        }
    }

    #[test]
    fn a_folder_holds_what_is_below_it_and_nothing_beside_it() {
        let folder = RemotePath::parse("/orders/new ones").unwrap();
        for path in ["/orders/new%20ones", "/orders/new%20ones/", "/orders/%6Eew%20ones/7", "/orders/new%20ones/a%2Fb"]
        {
            assert!(is_within(path, &folder), "{path}");
        }
        for path in ["", "/", "/orders", "/orders/new%20ones2", "//orders/new%20ones", "/orders%2Fnew%20ones/7"] {
            assert!(!is_within(path, &folder), "{path}");
        }
        for path in ["/orders/new%20ones/..%2f..%2fadmin", "/orders/new%20ones/%252e%252e/admin"] {
            assert!(!is_within(path, &folder), "{path}");
            assert!(is_within(path, &RemotePath::root()), "{path}");
        }
    }

    #[test]
    fn a_url_that_cannot_be_a_base_is_refused() {
        for url in
            ["ftp://example.com/", "https://a:b@example.com/", "https://example.com/?q", "https://example.com/#f"]
        {
            let error = Base::new(url.parse().unwrap(), &RemotePath::root()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{url}");
        }
    }
}
