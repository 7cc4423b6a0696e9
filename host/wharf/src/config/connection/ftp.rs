//! The keys of a connection of type `ftp`.

use std::net::IpAddr;

use toml::de::DeValue;
use wharf_connectors::ftp;

use crate::config::document::Section;
use crate::config::secret;
use crate::config::values;

const PASSIVE: &[(&str, ftp::Passive)] = &[
    ("auto", ftp::Passive::Auto),
    ("epsv", ftp::Passive::Epsv),
    ("pasv", ftp::Passive::Pasv),
    ("pasv-same-host", ftp::Passive::PasvSameHost),
];

pub(super) fn read(section: &mut Section<'_>) -> Option<ftp::Config> {
    let host = section.required("host", "the name or the address of the server", host);
    let port = section.read("port", values::count(1..=u16::MAX)).unwrap_or(ftp::PORT);
    let user = section.required("user", "the name to log in with, such as \"anonymous\"", values::text);
    let password = secret::required(section, "password", "the password to log in with");
    let passive = section.read("passive", values::choice(PASSIVE)).unwrap_or_default();
    Some(ftp::Config { port, passive, ..ftp::Config::new(&host?, &user?, password?) })
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
