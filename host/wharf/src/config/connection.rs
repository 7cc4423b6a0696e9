//! `[connections.NAME]`: one connection, from its table to the settings that `wharf-connectors` takes.
//!
//! The `type` decides which keys there are besides the common ones. Knows what each connector's settings look like,
//! and opens nothing.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;
use url::{Host, Url};
use wharf_connectors::{Common, Config, dropbox, ftp, http, local};

use super::document::Section;
use super::files::ContentHash;
use super::secret;
use super::values::{self, expected};

/// The kinds of connections, by the word that `type` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Local,
    Ftp,
    Dropbox,
    Http,
}

const KINDS: &[(&str, Kind)] =
    &[("local", Kind::Local), ("ftp", Kind::Ftp), ("dropbox", Kind::Dropbox), ("http", Kind::Http)];

const PASSIVE: &[(&str, ftp::Passive)] = &[
    ("auto", ftp::Passive::Auto),
    ("epsv", ftp::Passive::Epsv),
    ("pasv", ftp::Passive::Pasv),
    ("pasv-same-host", ftp::Passive::PasvSameHost),
];

/// More connections to one server than any of them grants to one account.
const OPERATIONS: RangeInclusive<usize> = 1..=256;
/// A shorter one fails on a slow day; TCP itself gives up after about two minutes.
const CONNECT_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);
/// A server may think for long about one command, such as the hash of a large file.
const READ_TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60 * 60);
/// Servers close idle connections after minutes.
const IDLE_TIMEOUT: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(60 * 60);

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
pub(super) fn read(section: &mut Section<'_>, kind: Kind) -> Option<Connection> {
    let common = common(section);
    let config = match kind {
        Kind::Local => local(section).map(Config::Local),
        Kind::Ftp => ftp(section).map(Config::Ftp),
        Kind::Dropbox => dropbox(section).map(Config::Dropbox),
        Kind::Http => http(section).map(Config::Http),
    };
    Some(Connection { common, config: config?, fingerprint: section.fingerprint() })
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
    }
}

fn local(section: &mut Section<'_>) -> Option<local::Config> {
    let folder = section.required("folder", "the folder of this machine that the connection opens", values::path)?;
    Some(local::Config { folder: section.document().resolve(&folder) })
}

fn ftp(section: &mut Section<'_>) -> Option<ftp::Config> {
    let host = section.required("host", "the name or the address of the server", host);
    let port = section.read("port", values::count(1..=u16::MAX)).unwrap_or(ftp::PORT);
    let user = section.required("user", "the name to log in with, such as \"anonymous\"", values::text);
    let password = secret::required(section, "password", "the password to log in with");
    let passive = section.read("passive", values::choice(PASSIVE)).unwrap_or_default();
    Some(ftp::Config { port, passive, ..ftp::Config::new(&host?, &user?, password?) })
}

fn http(section: &mut Section<'_>) -> Option<http::Config> {
    section.required("url", "the origin, such as \"https://api.example.com/v1\"", url).map(|url| http::Config { url })
}

fn dropbox(section: &mut Section<'_>) -> Option<dropbox::Config> {
    let credentials = dropbox_credentials(section);
    let api_url = section.read("api-url", secure_url).map(as_folder);
    let content_url = section.read("content-url", secure_url).map(as_folder);
    let token_url = section.read("token-url", secure_url);
    let certificate_authority = secret::content(section, "certificate-authority");
    let user_agent = section.read("user-agent", user_agent);
    let mut config = match dropbox::Config::new(credentials?) {
        Ok(config) => config,
        Err(error) => {
            section.problem(error.to_string());
            return None;
        }
    };
    // A stand-in for Dropbox answers everything at one place, unless it is told to be elsewhere.
    if let Some(api_url) = api_url {
        if let Ok(token_url) = api_url.join("oauth2/token") {
            config.token_url = token_url;
        }
        config.content_url = api_url.clone();
        config.api_url = api_url;
    }
    config.content_url = content_url.unwrap_or(config.content_url);
    config.token_url = token_url.unwrap_or(config.token_url);
    config.certificate_authority = certificate_authority;
    config.user_agent = user_agent;
    Some(config)
}

fn dropbox_credentials(section: &mut Section<'_>) -> Option<dropbox::Credentials> {
    const BOTH_FORMS: &str =
        "write either access-token, or app-key and refresh-token (and app-secret, unless it was authorised with PKCE)";
    let lasting = ["refresh-token", "app-key", "app-secret"].into_iter().find(|key| section.has(key));
    let access_token = secret::read(section, "access-token");
    let app_key = section.read("app-key", values::text);
    let app_secret = secret::read(section, "app-secret");
    let refresh_token = secret::read(section, "refresh-token");
    match (section.has("access-token"), lasting) {
        (true, None) => access_token.map(dropbox::Credentials::AccessToken),
        (true, Some(other)) => {
            section.problem_at(other, format!("access-token and {other} exclude each other; {BOTH_FORMS}"));
            None
        }
        (false, None) => {
            section.problem(format!("nothing to log in with; {BOTH_FORMS}"));
            None
        }
        (false, Some(_)) => {
            for key in ["app-key", "refresh-token"] {
                if !section.has(key) {
                    section.missing(key, BOTH_FORMS);
                }
            }
            if section.has("app-secret") && app_secret.is_none() {
                return None;
            }
            let (app_key, refresh_token) = (app_key?, refresh_token?);
            Some(dropbox::Credentials::RefreshToken { app_key, app_secret, refresh_token })
        }
    }
}

/// The name or the address of a server. The value is not repeated in a message: people paste URLs with passwords.
fn host(value: &DeValue<'_>) -> Result<String, String> {
    let host = values::text(value)?;
    let bare = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&host);
    if bare.parse::<IpAddr>().is_ok() {
        return Ok(host);
    }
    if host.contains("://") || host.contains(['/', '@']) {
        return Err("write the name of the server alone, without ftp://, user, port and path".to_owned());
    }
    if host.contains(':') {
        return Err("write the name of the server alone; the port has a key of its own, port".to_owned());
    }
    if host.chars().all(|character| character.is_alphanumeric() || matches!(character, '.' | '-' | '_')) {
        Ok(host)
    } else {
        Err("this is neither the name nor the address of a server".to_owned())
    }
}

/// The URL of an origin, with an optional path. The value is not repeated in a message: it may hold a password.
fn url(value: &DeValue<'_>) -> Result<Url, String> {
    const FORM: &str = "write one such as \"https://api.example.com/v1\"";
    let text = value.as_str().ok_or_else(|| expected("a URL such as \"https://api.example.com/v1\"", value))?;
    let url = Url::parse(text).map_err(|error| format!("this is not a URL ({error}); {FORM}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
        return Err(format!("this is not a URL of http or https; {FORM}"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a URL must not hold a user name or a password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("the URL of an origin has no query (?) and no fragment (#)".to_owned());
    }
    Ok(url)
}

/// A URL that tokens are sent to: encrypted, unless they stay on this machine.
fn secure_url(value: &DeValue<'_>) -> Result<Url, String> {
    let url = url(value)?;
    let this_machine = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => false,
    };
    if url.scheme() == "https" || this_machine {
        Ok(url)
    } else {
        Err("must begin with https: a token would travel unencrypted to this place".to_owned())
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

/// What may stand in a header (RFC 9110, section 5.5), without what is not plain ASCII.
fn user_agent(value: &DeValue<'_>) -> Result<String, String> {
    let text = values::text(value)?;
    if text.chars().all(|character| matches!(character, ' '..='~')) {
        Ok(text)
    } else {
        Err("must be printable ASCII: it becomes the header User-Agent".to_owned())
    }
}
