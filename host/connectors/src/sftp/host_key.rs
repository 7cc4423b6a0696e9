//! Whether a server is the one that it says it is: pinned fingerprints, and `known_hosts` in the form of OpenSSH
//! (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"), with hashed names, patterns, ports and revoked keys.
//!
//! A key that nothing vouches for is refused, or stored where the operator said so. Knows no connection.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use ring::{digest, hmac};

use crate::error::{Error, ErrorKind};

/// Where servers listen unless it is said otherwise (RFC 4253, section 4.1).
pub const PORT: u16 = 22;

/// Longest file of known hosts that is read: a hundred thousand lines.
const KNOWN_HOSTS_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// One writer at a time, so that two new servers are both kept.
static STORING: Mutex<()> = Mutex::new(());

/// The SHA-256 of a server's public key, as `ssh-keygen -l` prints it: `SHA256:` and 43 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Parses a fingerprint; padding at its end is allowed.
    ///
    /// # Errors
    /// `Invalid`, with the form that is expected.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let hash = text.trim().strip_prefix("SHA256:").map(|hash| hash.trim_end_matches('='));
        let hash = hash.and_then(|hash| STANDARD_NO_PAD.decode(hash).ok()).and_then(|hash| hash.try_into().ok());
        hash.map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                format!("{text:?} is not a fingerprint such as ssh-keygen -l prints: SHA256: and 43 characters"),
            )
        })
    }

    /// The fingerprint of a public key in the form of RFC 4253, section 6.6.
    pub(super) fn of(key: &[u8]) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
        Self(hash)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SHA256:{}", STANDARD_NO_PAD.encode(self.0))
    }
}

/// What vouches for a server. With none of them every server is refused.
#[derive(Debug, Clone, Default)]
pub struct HostKeys {
    /// Keys that are accepted whatever the rest says.
    pub pinned: Vec<Fingerprint>,
    /// The content of a `known_hosts` file.
    pub known_hosts: Option<String>,
    /// A `known_hosts` file, read at each connection.
    pub known_hosts_file: Option<PathBuf>,
    /// Whether the key of a server that the file does not know is stored in it and accepted. A key that differs from
    /// a known one is refused all the same.
    pub accept_new: bool,
    /// The name under which known hosts have the server, in place of its own and its port.
    pub alias: Option<String>,
}

/// The server, and the key that it showed.
pub(super) struct Shown<'a> {
    pub(super) host: &'a str,
    pub(super) port: u16,
    pub(super) key: &'a [u8],
}

impl Shown<'_> {
    fn kind(&self) -> String {
        key_type(self.key)
    }
}

impl HostKeys {
    /// Whether anything vouches for any server.
    pub(super) fn is_empty(&self) -> bool {
        self.pinned.is_empty() && self.known_hosts.is_none() && self.known_hosts_file.is_none()
    }

    /// Checks the key that a server showed; blocks on files.
    pub(super) fn check(&self, shown: &Shown<'_>) -> Result<(), Error> {
        let fingerprint = Fingerprint::of(shown.key);
        let texts = self.texts()?;
        let name = self.name_of(shown.host, shown.port);
        let lines: Vec<Line<'_>> =
            texts.iter().flat_map(|(source, text)| lines(source, text)).filter(|line| line.is_about(&name)).collect();
        if let Some(line) = lines.iter().find(|line| line.marker == Marker::Revoked && line.key == shown.key) {
            return Err(refused(shown, &format!("{} has revoked this key", line.place())));
        }
        if self.pinned.contains(&fingerprint) {
            return Ok(());
        }
        if !self.pinned.is_empty() {
            let pinned: Vec<String> = self.pinned.iter().map(Fingerprint::to_string).collect();
            return Err(refused(
                shown,
                &format!(
                    "host-keys expects {}. Somebody may be in between. If the server has a new key, put its \
                     fingerprint into host-keys; if it has keys of several types, choose by host-key-algorithms",
                    pinned.join(" or ")
                ),
            ));
        }
        let known: Vec<&Line<'_>> = lines.iter().filter(|line| line.marker == Marker::None).collect();
        if known.iter().any(|line| line.key == shown.key) {
            return Ok(());
        }
        if let Some(line) = known.iter().find(|line| line.kind == shown.kind()).or(known.first()) {
            return Err(refused(
                shown,
                &format!(
                    "{} has {} with {}. Somebody may be in between. If the server has a new key, correct that line",
                    line.place(),
                    Fingerprint::of(&line.key),
                    line.kind
                ),
            ));
        }
        match &self.known_hosts_file {
            Some(file) if self.accept_new => store(file, &name, shown),
            _ => Err(self.unknown(shown, lines.iter().any(|line| line.marker == Marker::Authority))),
        }
    }

    /// The algorithms of the keys that are known of a server: to ask for what can be checked.
    pub(super) fn known_types(&self, host: &str, port: u16) -> Result<Vec<String>, Error> {
        let texts = self.texts()?;
        let name = self.name_of(host, port);
        let lines = texts.iter().flat_map(|(source, text)| lines(source, text));
        Ok(lines.filter(|line| line.marker == Marker::None && line.is_about(&name)).map(|line| line.kind).collect())
    }

    fn name_of(&self, host: &str, port: u16) -> String {
        self.alias.as_ref().map_or_else(|| known_name(host, port), |alias| alias.to_lowercase())
    }

    fn texts(&self) -> Result<Vec<(String, String)>, Error> {
        let mut texts = Vec::new();
        if let Some(text) = &self.known_hosts {
            texts.push(("known-hosts".to_owned(), text.clone()));
        }
        if let Some(file) = &self.known_hosts_file {
            match read(file) {
                Ok(text) => texts.push((file.display().to_string(), text)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && self.accept_new => {}
                Err(error) => {
                    let message = format!("the file of known hosts {} cannot be read", file.display());
                    return Err(Error::new(ErrorKind::Invalid, message).with_source(error));
                }
            }
        }
        Ok(texts)
    }

    fn unknown(&self, shown: &Shown<'_>, has_authority: bool) -> Error {
        let place = match &self.known_hosts_file {
            Some(file) => file.display().to_string(),
            None => "known-hosts".to_owned(),
        };
        let authority =
            if has_authority { "; certificates of host keys (@cert-authority) are not supported" } else { "" };
        let (kind, key) = (shown.kind(), STANDARD.encode(shown.key));
        let name = self.name_of(shown.host, shown.port);
        refused(
            shown,
            &format!(
                "{place} does not know this server{authority}. Compare the fingerprint with what its operator tells \
                 you, then put it into host-keys, or this line into {place}: {name} {kind} {key}"
            ),
        )
    }
}

fn refused(shown: &Shown<'_>, why: &str) -> Error {
    let (host, port, kind, fingerprint) = (shown.host, shown.port, shown.kind(), Fingerprint::of(shown.key));
    Error::new(
        ErrorKind::Denied,
        format!("the SFTP server {host}:{port} showed the {kind} key {fingerprint}, which is refused: {why}"),
    )
}

/// The algorithm that a public key begins with.
pub(super) fn key_type(key: &[u8]) -> String {
    let length = key.first_chunk::<4>().map_or(0, |prefix| u32::from_be_bytes(*prefix) as usize);
    let name = key.get(4..4_usize.saturating_add(length)).unwrap_or_default();
    if name.is_empty() { "unknown".to_owned() } else { super::wire::printable(name) }
}

/// How a file of known hosts names a server.
fn known_name(host: &str, port: u16) -> String {
    let host = host.trim_start_matches('[').trim_end_matches(']').to_lowercase();
    if port == PORT { host } else { format!("[{host}]:{port}") }
}

fn read(file: &Path) -> io::Result<String> {
    if fs::metadata(file)?.len() > KNOWN_HOSTS_BYTES_MAX {
        return Err(io::Error::other("it is larger than 32 MiB"));
    }
    fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Adds a key to a file: whoever reads it sees the old content or the new one.
fn store(file: &Path, name: &str, shown: &Shown<'_>) -> Result<(), Error> {
    let _alone = STORING.lock().unwrap_or_else(PoisonError::into_inner);
    let line = format!("{name} {} {}\n", shown.kind(), STANDARD.encode(shown.key));
    let stored = read(file)
        .or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(String::new()) } else { Err(error) })
        .and_then(|mut text| {
            if text.lines().any(|known| known == line.trim_end()) {
                return Ok(());
            }
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            text.push_str(&line);
            let file_name = file.file_name().and_then(|name| name.to_str()).unwrap_or("known_hosts");
            // A link stays, and so do the permissions.
            let file = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned());
            let temporary = file.with_file_name(crate::temporary::name_for(file_name));
            let written = write_new(&temporary, &text).and_then(|()| {
                if let Ok(before) = fs::metadata(&file) {
                    fs::set_permissions(&temporary, before.permissions())?;
                }
                fs::rename(&temporary, &file)
            });
            if written.is_err() {
                // What cannot be written may not be there either.
                let _removed = fs::remove_file(&temporary);
            }
            written
        });
    stored.map_err(|error| {
        let message = format!("the key of the SFTP server {name} cannot be stored in {}", file.display());
        Error::new(ErrorKind::Unavailable, message).with_source(error)
    })?;
    tracing::info!(
        server = name,
        key = shown.kind(),
        fingerprint = %Fingerprint::of(shown.key),
        file = %file.display(),
        "the key of a new SFTP server was stored"
    );
    Ok(())
}

fn write_new(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::create_new(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// For the fuzz targets.
pub(super) fn read_any_known_hosts(text: &str) {
    for line in lines("known-hosts", text) {
        let _known_or_not = line.is_about("[partner]:2222");
        let _shown = (line.place(), key_type(&line.key));
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marker {
    None,
    Revoked,
    Authority,
}

/// One line of a file.
#[derive(Debug)]
struct Line<'a> {
    source: &'a str,
    number: usize,
    marker: Marker,
    hosts: &'a str,
    kind: String,
    key: Vec<u8>,
}

/// The lines that can be read; others are passed over, as OpenSSH does.
fn lines<'a>(source: &'a str, text: &'a str) -> impl Iterator<Item = Line<'a>> {
    text.lines().enumerate().filter_map(move |(index, line)| Line::parse(source, index + 1, line))
}

impl<'a> Line<'a> {
    fn parse(source: &'a str, number: usize, line: &'a str) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let first = words.next().filter(|word| !word.starts_with('#'))?;
        let (marker, hosts) = match first {
            "@revoked" => (Marker::Revoked, words.next()?),
            "@cert-authority" => (Marker::Authority, words.next()?),
            _ if first.starts_with('@') => return None,
            hosts => (Marker::None, hosts),
        };
        let kind = words.next()?.to_owned();
        let key = STANDARD.decode(words.next()?).ok()?;
        Some(Self { source, number, marker, hosts, kind, key })
    }

    fn is_about(&self, name: &str) -> bool {
        if let Some(hashed) = self.hosts.strip_prefix("|1|") {
            return is_hash_of(hashed, name).unwrap_or(false);
        }
        let mut is_about = false;
        for pattern in self.hosts.split(',') {
            match pattern.strip_prefix('!') {
                Some(pattern) if matches(&pattern.to_lowercase(), name) => return false,
                Some(_) => {}
                None => is_about |= matches(&pattern.to_lowercase(), name),
            }
        }
        is_about
    }

    /// For messages.
    fn place(&self) -> String {
        format!("{} (line {})", self.source, self.number)
    }
}

/// Whether `salt|hash` is made of a name.
fn is_hash_of(hashed: &str, name: &str) -> Option<bool> {
    let (salt, hash) = hashed.split_once('|')?;
    let (salt, hash) = (STANDARD.decode(salt).ok()?, STANDARD.decode(hash).ok()?);
    let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt);
    Some(hmac::verify(&key, name.as_bytes(), &hash).is_ok())
}

/// Whether a pattern with `*` and `?` fits all of a text (ssh_config(5), "PATTERNS").
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut from) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star = None;
    while from < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, from));
                at += 1;
            }
            Some(&wanted) if wanted == b'?' || wanted == text[from] => {
                at += 1;
                from += 1;
            }
            _ => {
                let Some((starred, eaten)) = star else { return false };
                star = Some((starred, eaten + 1));
                at = starred + 1;
                from = eaten + 1;
            }
        }
    }
    pattern[at..].iter().all(|&rest| rest == b'*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A public key of a type, which differs by its seed.
    fn key(kind: &str, seed: u8) -> Vec<u8> {
        [&(kind.len() as u32).to_be_bytes()[..], kind.as_bytes(), &[seed; 32]].concat()
    }

    fn line(hosts: &str, kind: &str, seed: u8) -> String {
        format!("{hosts} {kind} {} comment\n", STANDARD.encode(key(kind, seed)))
    }

    fn hashed(name: &str) -> String {
        let salt = [7; 20];
        let hash = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &salt), name.as_bytes());
        format!("|1|{}|{}", STANDARD.encode(salt), STANDARD.encode(hash))
    }

    fn check(text: &str, host: &str, port: u16, seed: u8) -> Result<(), String> {
        let keys = HostKeys { known_hosts: Some(text.to_owned()), ..HostKeys::default() };
        let key = key("ssh-ed25519", seed);
        keys.check(&Shown { host, port, key: &key }).map_err(|error| error.to_string())
    }

    #[test]
    fn a_known_host_is_found_under_every_form_of_its_name() {
        let known = [
            ("sftp.example.com", "sftp.example.com", 22),
            ("sftp.example.com,192.0.2.1", "192.0.2.1", 22),
            ("[sftp.example.com]:2222", "sftp.example.com", 2222),
            ("*.example.com,!bad.example.com", "SFTP.example.com", 22),
            ("192.0.2.?", "192.0.2.7", 22),
            (&hashed("sftp.example.com"), "sftp.example.com", 22),
            (&hashed("[sftp.example.com]:2222"), "sftp.example.com", 2222),
            ("[2001:db8::1]:2222", "[2001:db8::1]", 2222),
        ];
        for (hosts, host, port) in known {
            assert_eq!(check(&line(hosts, "ssh-ed25519", 1), host, port, 1), Ok(()), "{hosts}");
        }
    }

    #[test]
    fn what_no_line_vouches_for_is_refused() {
        let unknown = [
            ("other.example.com", "sftp.example.com", 22),
            ("sftp.example.com", "sftp.example.com", 2222),
            ("[sftp.example.com]:2222", "sftp.example.com", 22),
            ("*.example.com,!bad.example.com", "bad.example.com", 22),
            (&hashed("other"), "sftp.example.com", 22),
            ("# sftp.example.com", "sftp.example.com", 22),
            ("@cert-authority sftp.example.com", "sftp.example.com", 22),
            ("@new-marker sftp.example.com", "sftp.example.com", 22),
        ];
        for (hosts, host, port) in unknown {
            let error = check(&line(hosts, "ssh-ed25519", 1), host, port, 1).unwrap_err();
            assert!(error.contains("does not know this server"), "{hosts}: {error}");
            assert!(error.contains(&Fingerprint::of(&key("ssh-ed25519", 1)).to_string()), "{error}");
        }
    }

    #[test]
    fn another_key_than_the_known_one_is_refused_with_both_fingerprints() {
        let text = line("other", "ssh-ed25519", 9) + &line("sftp.example.com", "ssh-ed25519", 1);
        let error = check(&text, "sftp.example.com", 22, 2).unwrap_err();
        for seed in [1, 2] {
            assert!(error.contains(&Fingerprint::of(&key("ssh-ed25519", seed)).to_string()), "{error}");
        }
        assert!(error.contains("known-hosts (line 2)"), "{error}");
        // Only a key of another type is known: that is no reason to believe this one.
        assert!(check(&line("sftp.example.com", "ssh-rsa", 1), "sftp.example.com", 22, 2).is_err());
    }

    #[test]
    fn a_revoked_key_is_refused_even_when_it_is_known_or_pinned() {
        let text = line("sftp.example.com", "ssh-ed25519", 1) + "@revoked " + &line("*", "ssh-ed25519", 1);
        assert!(check(&text, "sftp.example.com", 22, 1).unwrap_err().contains("revoked"));
        let key = key("ssh-ed25519", 1);
        let pinned = vec![Fingerprint::of(&key)];
        let keys = HostKeys { pinned, known_hosts: Some(text), ..HostKeys::default() };
        assert!(keys.check(&Shown { host: "sftp.example.com", port: 22, key: &key }).is_err());
    }

    #[test]
    fn a_new_server_is_stored_once_and_held_to_its_key_from_then_on() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("known_hosts");
        fs::write(&file, "# kept").unwrap();
        let keys = HostKeys { known_hosts_file: Some(file.clone()), accept_new: true, ..HostKeys::default() };
        let check = |seed| keys.check(&Shown { host: "sftp.example.com", port: 2222, key: &key("ssh-ed25519", seed) });
        check(1).unwrap();
        check(1).unwrap();
        assert!(check(2).is_err());
        let stored = fs::read_to_string(&file).unwrap();
        let expected =
            format!("# kept\n[sftp.example.com]:2222 ssh-ed25519 {}\n", STANDARD.encode(key("ssh-ed25519", 1)));
        assert_eq!(stored, expected);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        assert_eq!(keys.known_types("sftp.example.com", 2222).unwrap(), ["ssh-ed25519"]);
    }

    #[test]
    fn a_fingerprint_is_read_as_it_is_printed() {
        let fingerprint = Fingerprint::of(b"a key");
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()).unwrap(), fingerprint);
        assert_eq!(Fingerprint::parse(&format!(" {fingerprint}= ")).unwrap(), fingerprint);
        for text in ["", "SHA256:", "SHA256:abc", "MD5:00:11", &fingerprint.to_string()[7..]] {
            assert!(Fingerprint::parse(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_of_known_hosts_fail(text in "(?s)([|1@!*, a-z=]{0,9}[ \n]){0,9}", name in "[a-z.:\\[\\]]{0,9}") {
            let _known_or_not = check(&text, &name, 22, 1);
        }

        #[test]
        fn a_pattern_of_stars_matches_as_the_simple_definition_says(pattern in "[ab*?]{0,6}", text in "[ab]{0,6}") {
            fn simple(pattern: &[u8], text: &[u8]) -> bool {
                match (pattern.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) => simple(rest, text) || !text.is_empty() && simple(pattern, &text[1..]),
                    (Some((b'?', rest)), Some((_, after))) => simple(rest, after),
                    (Some((wanted, rest)), Some((found, after))) => wanted == found && simple(rest, after),
                    _ => false,
                }
            }
            prop_assert_eq!(matches(&pattern, &text), simple(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
