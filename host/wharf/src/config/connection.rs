//! `[connections.NAME]`: one connection, from its table to the settings that `wharf-connectors` takes.
//!
//! The `type` decides which keys there are besides the common ones; those of each type are in a file of its own. Knows
//! what each connector's settings look like, and opens nothing.

mod dropbox;
mod ftp;
mod http;
mod sftp;
mod tls;

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;
use url::{Host, Url};
use wharf_connectors::{CONNECT_TIMEOUT, Common, Config, local};

use super::document::Section;
use super::files::ContentHash;
use super::values::{self, expected};

/// The kinds of connections, by the word that `type` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Local,
    Ftp,
    Sftp,
    Dropbox,
    Http,
}

const KINDS: &[(&str, Kind)] = &[
    ("local", Kind::Local),
    ("ftp", Kind::Ftp),
    ("sftp", Kind::Sftp),
    ("dropbox", Kind::Dropbox),
    ("http", Kind::Http),
];

/// More connections to one server than any of them grants to one account.
const OPERATIONS: RangeInclusive<usize> = 1..=256;
/// A server may think for long about one command, such as the hash of a large file.
const READ_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
/// Servers close idle connections after minutes.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);
/// A connection that is never renewed keeps what it was when it was opened: an address, a permission, a leak.
const LIFE_TIME: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 60 * 60);
/// More hide that a remote is broken.
const RETRIES: RangeInclusive<u32> = 0..=10;
/// Below a kilobyte a second every transfer runs into its timeouts.
const BANDWIDTH: RangeInclusive<u64> = 1024..=100 * 1024 * 1024 * 1024;

/// A connection as it is configured.
pub(super) struct Connection {
    pub(super) common: Common,
    pub(super) config: Config,
    /// Over everything that was written for it and every content that it refers to.
    pub(super) fingerprint: ContentHash,
}

/// The kind alone, when it is known: enough to check grants, whatever else is wrong with the connection.
pub(super) fn kind(section: &mut Section<'_>) -> Option<Kind> {
    let words: Vec<&str> = KINDS.iter().map(|(word, _)| *word).collect();
    section.required("type", &format!("one of {}", words.join(", ")), values::choice(KINDS))
}

/// The rest of the table of a connection.
pub(super) fn read(name: &str, section: &mut Section<'_>, kind: Kind) -> Option<Connection> {
    let mut common = common(section);
    let config = match kind {
        Kind::Local => local(section).map(Config::Local),
        Kind::Ftp => ftp::read(section).map(Config::Ftp),
        Kind::Sftp => sftp::read(section, &mut common).map(Config::Sftp),
        Kind::Dropbox => dropbox::read(name, section).map(Config::Dropbox),
        Kind::Http => http::read(section).map(Config::Http),
    };
    Some(Connection { common, config: config?, fingerprint: section.fingerprint() })
}

/// What a login of a connection of type `dropbox` needs: where the refresh token goes, and the settings without one.
pub(super) fn before_login(section: &mut Section<'_>) -> Option<(PathBuf, Common, wharf_connectors::dropbox::Config)> {
    let common = common(section);
    let (file, config) = dropbox::before_login(section)?;
    Some((file, common, config))
}

fn common(section: &mut Section<'_>) -> Common {
    let defaults = Common::default();
    Common {
        root: section.read("root", values::remote_path).unwrap_or(defaults.root),
        operations_max: section.read("operations-max", values::count(OPERATIONS)).unwrap_or(defaults.operations_max),
        connect_timeout: section
            .read("connect-timeout", values::duration(CONNECT_TIMEOUT))
            .unwrap_or(defaults.connect_timeout),
        read_timeout: section.read("read-timeout", values::duration(READ_TIMEOUT)).unwrap_or(defaults.read_timeout),
        idle_timeout: section.read("idle-timeout", values::duration(IDLE_TIMEOUT)).unwrap_or(defaults.idle_timeout),
        life_time: section.read("life-time", values::duration(LIFE_TIME)).unwrap_or(defaults.life_time),
        retries: section.read("retries", values::count(RETRIES)).unwrap_or(defaults.retries),
        bandwidth: section.read("bandwidth", values::size(BANDWIDTH)),
    }
}

fn local(section: &mut Section<'_>) -> Option<local::Config> {
    let folder = section.required("folder", "the folder of this machine that the connection opens", values::path)?;
    Some(local::Config { folder: section.document().resolve(&folder) })
}

/// The URL of an origin, with an optional path.
fn url(value: &DeValue<'_>) -> Result<Url, String> {
    url_such_as("https://api.example.com/v1", &["http", "https"], value)
}

/// The value is not repeated in a message: it may hold a password.
fn url_such_as(example: &str, schemes: &[&str], value: &DeValue<'_>) -> Result<Url, String> {
    let url = url_with_query(example, schemes, value)?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL of an origin has no query (?) and no fragment (#)".to_owned());
    }
    Ok(url)
}

fn url_with_query(example: &str, schemes: &[&str], value: &DeValue<'_>) -> Result<Url, String> {
    let text = value.as_str().ok_or_else(|| expected(&format!("a URL such as {example:?}"), value))?;
    let url =
        Url::parse(text).map_err(|error| format!("this is not a URL ({error}); write one such as {example:?}"))?;
    if !schemes.contains(&url.scheme()) || url.host().is_none() {
        return Err(format!("this is not a URL of {}; write one such as {example:?}", schemes.join(" or ")));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold a user name or a password".to_owned());
    }
    Ok(url)
}

/// A URL that tokens are sent to: encrypted, unless they stay on this machine.
fn secure_url(value: &DeValue<'_>) -> Result<Url, String> {
    secure(url(value)?)
}

/// The same for a token endpoint, whose URL may have a query but no fragment (RFC 6749, section 3.2).
fn token_url(value: &DeValue<'_>) -> Result<Url, String> {
    let url = url_with_query("https://login.example.com/token", &["http", "https"], value)?;
    if url.fragment().is_some() {
        return Err("the URL of a token endpoint has no fragment (#)".to_owned());
    }
    secure(url)
}

fn secure(url: Url) -> Result<Url, String> {
    if url.scheme() == "https" || is_this_machine(&url) {
        Ok(url)
    } else {
        Err("must begin with https: a token would travel unencrypted to this place".to_owned())
    }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    }
}

/// With a `/` at the end, so that what is joined to it goes below it.
fn as_folder(mut url: Url) -> Url {
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    url
}
