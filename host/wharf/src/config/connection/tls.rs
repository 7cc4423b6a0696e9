//! The keys of TLS, the same for every protocol that speaks it.

use toml::de::DeValue;
use wharf_connectors::tls::{Config, Fingerprint, Identity};

use crate::config::document::Section;
use crate::config::secret;
use crate::config::values;

/// `None` when something is wrong with them.
pub(super) fn read(section: &mut Section<'_>) -> Option<Config> {
    let authority = secret::content(section, "certificate-authority");
    let pin = section.read("certificate-pin", fingerprint);
    let certificates = secret::content(section, "client-certificate");
    let key = secret::read(section, "client-key");
    let has = |key| section.has(key);
    if has("certificate-authority") && has("certificate-pin") {
        section.problem_at(
            "certificate-pin",
            "certificate-authority and certificate-pin exclude each other: a pinned certificate is trusted by itself",
        );
        return None;
    }
    let identity = match (has("client-certificate"), has("client-key")) {
        (false, false) => None,
        (true, true) => Some(Identity { certificates: certificates?, key: key? }),
        (true, false) => {
            section.missing("client-key", "the key of client-certificate");
            return None;
        }
        (false, true) => {
            section.missing("client-certificate", "client-key belongs to it");
            return None;
        }
    };
    if (has("certificate-authority") && authority.is_none()) || (has("certificate-pin") && pin.is_none()) {
        return None;
    }
    Some(Config { authority, pin, identity, ..Config::default() })
}

fn fingerprint(value: &DeValue<'_>) -> Result<Fingerprint, String> {
    values::text(value)?.parse().map_err(|error: wharf_connectors::tls::NoFingerprint| error.to_string())
}
