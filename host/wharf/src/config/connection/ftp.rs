//! The keys of a connection of type `ftp`.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;
use wharf_connectors::ftp::{self, Security};
use wharf_connectors::tls::{self, Version};

use crate::config::document::Section;
use crate::config::secret;
use crate::config::values;

const PASSIVE: &[(&str, ftp::Passive)] = &[
    ("auto", ftp::Passive::Auto),
    ("epsv", ftp::Passive::Epsv),
    ("pasv", ftp::Passive::Pasv),
    ("pasv-same-host", ftp::Passive::PasvSameHost),
    ("never", ftp::Passive::Never),
];

/// How the connections are encrypted, before it is known by what.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Encryption {
    None,
    Explicit,
    Implicit,
}

const ENCRYPTION: &[(&str, Encryption)] =
    &[("none", Encryption::None), ("explicit", Encryption::Explicit), ("implicit", Encryption::Implicit)];

const VERSIONS: &[(&str, Version)] = &[("1.2", Version::Tls12), ("1.3", Version::Tls13)];

/// Keys that say nothing without TLS.
const TLS_KEYS: [&str; 5] = ["tls-max", "certificate-authority", "certificate-pin", "client-certificate", "client-key"];

/// Firewalls forget a silent connection after minutes; more often than every few seconds only disturbs the server.
const NOOP_INTERVAL: RangeInclusive<Duration> = Duration::from_secs(5)..=Duration::from_secs(60 * 60);

pub(super) fn read(section: &mut Section<'_>) -> Option<ftp::Config> {
    let host = section.required("host", "the name or the address of the server", host);
    let port = section.read("port", values::count(1..=u16::MAX));
    let user = section.required("user", "the name to log in with, such as \"anonymous\"", values::text);
    let password = secret::required(section, "password", "the password to log in with");
    let account = secret::read(section, "account");
    let security = security(section);
    let passive = section.read("passive", values::choice(PASSIVE)).unwrap_or_default();
    let encoding = section.read("encoding", encoding).unwrap_or_default();
    let noop_interval = section.read("noop-interval", values::duration(NOOP_INTERVAL));
    if section.has("account") && account.is_none() {
        return None;
    }
    let security = security?;
    let usual_port = if matches!(security, Security::Implicit(_)) { ftp::PORT_IMPLICIT } else { ftp::PORT };
    Some(ftp::Config {
        port: port.unwrap_or(usual_port),
        security,
        passive,
        account,
        encoding,
        noop_interval,
        ..ftp::Config::new(&host?, &user?, password?)
    })
}

fn security(section: &mut Section<'_>) -> Option<Security> {
    let encryption = section.read("tls", values::choice(ENCRYPTION)).unwrap_or(Encryption::None);
    let version_max = section.read("tls-max", values::choice(VERSIONS)).unwrap_or_default();
    let tls = super::tls::read(section);
    let tls = || tls.map(|tls| tls::Config { version_max, ..tls });
    match encryption {
        Encryption::Explicit => tls().map(Security::Explicit),
        Encryption::Implicit => tls().map(Security::Implicit),
        Encryption::None => match TLS_KEYS.into_iter().find(|key| section.has(key)) {
            // Somebody believes to be safe.
            Some(key) => {
                section.problem_at(key, "this says nothing without TLS; set tls to \"explicit\" or \"implicit\"");
                None
            }
            None => Some(Security::None),
        },
    }
}

fn encoding(value: &DeValue<'_>) -> Result<ftp::Encoding, String> {
    values::text(value)?.parse().map_err(|error: ftp::NoEncoding| error.to_string())
}

/// The name or the address of a server. The value is not repeated in a message: people paste URLs with passwords.
pub(super) fn host(value: &DeValue<'_>) -> Result<String, String> {
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
