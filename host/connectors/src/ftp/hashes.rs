//! Checksums that a server computes: `HASH` (draft-bryan-ftpext-hash) and the commands that came before it.
//!
//! What a server has is known from its features. Knows no connection.

use crate::backend::ChecksumAlgorithm;

/// How to ask for the checksum of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) algorithm: ChecksumAlgorithm,
    /// To be sent before, as an option of `HASH`.
    pub(super) option: Option<&'static str>,
    pub(super) verb: &'static str,
    /// Hexadecimal digits of the checksum.
    pub(super) digits: usize,
}

/// The commands of their own, the best first.
const COMMANDS: [(&str, ChecksumAlgorithm); 7] = [
    ("XSHA256", ChecksumAlgorithm::Sha256),
    ("XSHA1", ChecksumAlgorithm::Sha1),
    ("XSHA", ChecksumAlgorithm::Sha1),
    ("XMD5", ChecksumAlgorithm::Md5),
    ("MD5", ChecksumAlgorithm::Md5),
    ("XCRC", ChecksumAlgorithm::Crc32),
    ("XCRC32", ChecksumAlgorithm::Crc32),
];

/// The names of the algorithms within `HASH`, the best first.
const OPTIONS: [(&str, ChecksumAlgorithm); 4] = [
    ("SHA-256", ChecksumAlgorithm::Sha256),
    ("SHA-1", ChecksumAlgorithm::Sha1),
    ("MD5", ChecksumAlgorithm::Md5),
    ("CRC32", ChecksumAlgorithm::Crc32),
];

/// The best that a server with these features can do.
pub(super) fn best(features: &[String]) -> Option<Request> {
    let by_hash = features.iter().find_map(|feature| {
        let (verb, list) = feature.split_once(' ')?;
        let offered =
            |name: &str| list.split(';').any(|word| word.trim().trim_end_matches('*').eq_ignore_ascii_case(name));
        let (name, algorithm) = OPTIONS.into_iter().find(|(name, _)| offered(name))?;
        verb.eq_ignore_ascii_case("HASH").then_some((name, algorithm))
    });
    if let Some((name, algorithm)) = by_hash {
        return Some(Request { algorithm, option: Some(name), verb: "HASH", digits: digits(algorithm) });
    }
    COMMANDS.into_iter().find_map(|(verb, algorithm)| {
        let is_listed = features
            .iter()
            .any(|feature| feature.split([' ', ';']).next().is_some_and(|word| word.eq_ignore_ascii_case(verb)));
        is_listed.then_some(Request { algorithm, option: None, verb, digits: digits(algorithm) })
    })
}

fn digits(algorithm: ChecksumAlgorithm) -> usize {
    match algorithm {
        ChecksumAlgorithm::Sha256 | ChecksumAlgorithm::Dropbox => 64,
        ChecksumAlgorithm::Sha1 => 40,
        ChecksumAlgorithm::Md5 => 32,
        ChecksumAlgorithm::Crc32 => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(features: &[&str]) -> Option<(&'static str, Option<&'static str>)> {
        let features: Vec<String> = features.iter().map(|feature| (*feature).to_owned()).collect();
        best(&features).map(|request| (request.verb, request.option))
    }

    #[test]
    fn the_best_checksum_that_a_server_has_is_asked_for() {
        assert_eq!(ask(&["MDTM", "HASH CRC32;MD5;SHA-1*;SHA-256;SHA-512"]), Some(("HASH", Some("SHA-256"))));
        assert_eq!(ask(&["HASH SHA-512;MD5*", "XSHA256"]), Some(("HASH", Some("MD5"))));
        assert_eq!(ask(&["XCRC filename;start;end", "XMD5 filename", "XSHA1"]), Some(("XSHA1", None)));
        assert_eq!(ask(&["xcrc"]), Some(("XCRC", None)));
        assert_eq!(ask(&["SIZE", "HASHES", "HASH SHA-512"]), None);
    }
}
