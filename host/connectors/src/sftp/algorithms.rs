//! Which algorithms of SSH are offered: those that are safe, those that only old servers need, and how a list in the form
//! of ssh_config(5) chooses among them.
//!
//! Knows no connection.

use russh::keys::{Algorithm, EcdsaCurve, HashAlg};
use russh::{cipher, kex, mac};

use super::host_key::matches;
use crate::error::{Error, ErrorKind};

/// The ciphers that are offered: what is fast on processors with instructions for AES first; all of them are safe.
const CIPHERS: [cipher::Name; 6] = [
    cipher::AES_128_GCM,
    cipher::AES_256_GCM,
    cipher::CHACHA20_POLY1305,
    cipher::AES_128_CTR,
    cipher::AES_192_CTR,
    cipher::AES_256_CTR,
];

/// Those that old servers may need, offered only when they are named.
const CIPHERS_IF_NAMED: [cipher::Name; 4] =
    [cipher::AES_128_CBC, cipher::AES_192_CBC, cipher::AES_256_CBC, cipher::TRIPLE_DES_CBC];

/// The ways to agree on keys, quick ones first.
const KEY_EXCHANGES: [kex::Name; 12] = [
    kex::MLKEM768X25519_SHA256,
    kex::CURVE25519,
    kex::CURVE25519_PRE_RFC_8731,
    kex::ECDH_SHA2_NISTP256,
    kex::ECDH_SHA2_NISTP384,
    kex::ECDH_SHA2_NISTP521,
    kex::DH_GEX_SHA256,
    kex::DH_G14_SHA256,
    kex::DH_G15_SHA512,
    kex::DH_G16_SHA512,
    kex::DH_G17_SHA512,
    kex::DH_G18_SHA512,
];

const KEY_EXCHANGES_IF_NAMED: [kex::Name; 3] = [kex::DH_G14_SHA1, kex::DH_GEX_SHA1, kex::DH_G1_SHA1];

const MACS: [mac::Name; 6] = [
    mac::HMAC_SHA256_ETM,
    mac::HMAC_SHA512_ETM,
    mac::HMAC_SHA256,
    mac::HMAC_SHA512,
    mac::HMAC_SHA1_ETM,
    mac::HMAC_SHA1,
];

/// With which algorithms a server may sign.
const HOST_KEYS: [Algorithm; 7] = [
    Algorithm::Ed25519,
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP256 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP384 },
    Algorithm::Ecdsa { curve: EcdsaCurve::NistP521 },
    Algorithm::Rsa { hash: Some(HashAlg::Sha512) },
    Algorithm::Rsa { hash: Some(HashAlg::Sha256) },
    Algorithm::Rsa { hash: None },
];

/// What algorithms are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Encryption, both ways.
    Ciphers,
    /// The agreement on keys.
    KeyExchanges,
    /// Authentication of packets, both ways.
    Macs,
    /// The server's key, and how it signs.
    HostKeys,
}

/// The algorithms that are offered to a server, best first. What nothing was chosen for is offered as is safe.
#[derive(Debug, Clone, Default)]
pub struct Algorithms {
    ciphers: Option<Vec<cipher::Name>>,
    key_exchanges: Option<Vec<kex::Name>>,
    macs: Option<Vec<mac::Name>>,
    host_keys: Option<Vec<Algorithm>>,
}

impl Algorithms {
    /// Chooses by a list in the form of ssh_config(5): names with commas between them; behind `+` those that are offered
    /// besides the usual ones, behind `^` those that are offered before them, behind `-` patterns of those that are not
    /// offered. The first choice for a purpose counts.
    ///
    /// # Errors
    /// `Invalid` for a name of no algorithm, with those that there are, and for a list that leaves none.
    pub fn choose(&mut self, purpose: Purpose, list: &str) -> Result<(), Error> {
        match purpose {
            Purpose::Ciphers => {
                first(&mut self.ciphers, chosen("ciphers", list, &CIPHERS, &CIPHERS_IF_NAMED)?);
            }
            Purpose::KeyExchanges => {
                let chosen = chosen("key exchanges", list, &KEY_EXCHANGES, &KEY_EXCHANGES_IF_NAMED)?;
                first(&mut self.key_exchanges, chosen);
            }
            Purpose::Macs => first(&mut self.macs, chosen("MACs", list, &MACS, &[])?),
            Purpose::HostKeys => first(&mut self.host_keys, chosen("algorithms of host keys", list, &HOST_KEYS, &[])?),
        }
        Ok(())
    }

    /// These, and where nothing was chosen, the others.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            ciphers: self.ciphers.or(others.ciphers),
            key_exchanges: self.key_exchanges.or(others.key_exchanges),
            macs: self.macs.or(others.macs),
            host_keys: self.host_keys.or(others.host_keys),
        }
    }

    pub(super) fn ciphers(&self) -> Vec<cipher::Name> {
        self.ciphers.clone().unwrap_or_else(|| CIPHERS.to_vec())
    }

    pub(super) fn key_exchanges(&self) -> Vec<kex::Name> {
        self.key_exchanges.clone().unwrap_or_else(|| KEY_EXCHANGES.to_vec())
    }

    pub(super) fn macs(&self) -> Vec<mac::Name> {
        self.macs.clone().unwrap_or_else(|| MACS.to_vec())
    }

    /// The algorithms of host keys; where none were chosen, first those by which one of these types of keys signs.
    pub(super) fn host_keys(&self, known_types: &[String]) -> Vec<Algorithm> {
        self.host_keys.clone().unwrap_or_else(|| {
            let mut usual = HOST_KEYS.to_vec();
            usual.sort_by_key(|algorithm| !known_types.iter().any(|key_type| signs(algorithm, key_type)));
            usual
        })
    }
}

/// Fills what nobody has filled: of settings that are given twice, the first holds.
pub(super) fn first<T>(slot: &mut Option<T>, value: T) {
    slot.get_or_insert(value);
}

fn chosen<N: AsRef<str> + Clone>(what: &str, list: &str, usual: &[N], if_named: &[N]) -> Result<Vec<N>, Error> {
    let invalid = |message: String| Err(Error::new(ErrorKind::Invalid, message));
    let (change, names) = match list.split_at_checked(1) {
        Some((change @ ("+" | "-" | "^"), names)) => (change, names),
        _ => ("", list),
    };
    let names: Vec<&str> = names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let without =
        |names: &[&str]| usual.iter().filter(|known| !is_among(names, known.as_ref())).cloned().collect::<Vec<N>>();
    if change == "-" {
        let left = without(&names);
        return if left.is_empty() { invalid(format!("{list:?} leaves no {what}")) } else { Ok(left) };
    }
    let mut named = Vec::new();
    for name in &names {
        let mut all = usual.iter().chain(if_named);
        let Some(known) = all.find(|known| known.as_ref() == *name) else {
            let all: Vec<&str> = usual.iter().chain(if_named).map(AsRef::as_ref).collect();
            return invalid(format!("{name:?} is none of the {what} that there are: {}", all.join(", ")));
        };
        named.push(known.clone());
    }
    match change {
        "+" => named.retain(|name| !usual.iter().any(|known| known.as_ref() == name.as_ref())),
        "^" => named.extend(without(&names)),
        _ if named.is_empty() => return invalid(format!("{list:?} names no {what}")),
        _ => {}
    }
    Ok(if change == "+" { usual.iter().cloned().chain(named).collect() } else { named })
}

fn is_among(patterns: &[&str], name: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, name))
}

/// Whether keys of a type sign with an algorithm (RFC 8332: one type of key, several algorithms).
fn signs(algorithm: &Algorithm, key_type: &str) -> bool {
    match algorithm {
        Algorithm::Rsa { .. } => key_type == "ssh-rsa",
        other => other.as_str() == key_type,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ciphers(list: &str) -> Result<Vec<String>, Error> {
        let mut algorithms = Algorithms::default();
        algorithms.choose(Purpose::Ciphers, list)?;
        Ok(algorithms.ciphers().iter().map(|name| name.as_ref().to_owned()).collect())
    }

    #[test]
    fn a_list_replaces_the_usual_ones_or_changes_them() {
        let usual: Vec<String> = CIPHERS.iter().map(|name| name.as_ref().to_owned()).collect();
        assert_eq!(ciphers("aes256-ctr, 3des-cbc").unwrap(), ["aes256-ctr", "3des-cbc"]);
        let more = ciphers("+3des-cbc,aes256-ctr").unwrap();
        assert_eq!((&more[..6], &more[6..]), (usual.as_slice(), ["3des-cbc".to_owned()].as_slice()));
        let other_order = ciphers("^aes256-ctr,aes128-cbc").unwrap();
        assert_eq!(other_order[..3], ["aes256-ctr", "aes128-cbc", "aes128-gcm@openssh.com"]);
        assert_eq!(other_order.len(), usual.len() + 1);
        assert_eq!(ciphers("-*gcm*,chacha*,arcfour").unwrap(), ["aes128-ctr", "aes192-ctr", "aes256-ctr"]);
    }

    #[test]
    fn a_name_of_no_algorithm_and_a_list_that_leaves_none_are_errors() {
        for (list, told) in [("rot13", "aes256-ctr"), ("+arcfour", "3des-cbc"), ("-*", "leaves no"), ("", "names no")] {
            let error = ciphers(list).unwrap_err().to_string();
            assert!(error.contains(list.trim_start_matches('+')) && error.contains(told), "{error}");
        }
    }

    #[test]
    fn the_first_choice_counts_and_the_type_of_a_known_key_comes_first() {
        let mut algorithms = Algorithms::default();
        assert_eq!(algorithms.host_keys(&["ssh-rsa".to_owned()])[0].as_str(), "rsa-sha2-512");
        algorithms.choose(Purpose::HostKeys, "ssh-ed25519").unwrap();
        algorithms.choose(Purpose::HostKeys, "rsa-sha2-256").unwrap();
        assert_eq!(algorithms.host_keys(&["ssh-rsa".to_owned()]), [Algorithm::Ed25519]);
        let mut others = Algorithms::default();
        others.choose(Purpose::Macs, "hmac-sha2-256").unwrap();
        let both = algorithms.or(others);
        assert_eq!((both.host_keys(&[]).len(), both.macs().len()), (1, 1));
    }
}
