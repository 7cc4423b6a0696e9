//! What the library that speaks SSH is told, and what it asks: which algorithms may be agreed on, how much may be on its
//! way, and whether a server's key is the right one.
//!
//! Knows no login and no channel.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use russh::client::{self, ChannelOpenHandle, Handler, Msg, Session};
use russh::keys::{Algorithm, EcdsaCurve, HashAlg, PublicKeyBase64, PublicKeyOrCertificate};
use russh::{Channel, Preferred, SshId, cipher, compression, kex, mac};

use super::host_key::{self, Fingerprint, Shown};
use super::{Config, wire};
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

/// No ways to agree on keys, but said among them: that extensions are understood (RFC 8308), and that nothing may be
/// slipped in before encryption begins (PROTOCOL of OpenSSH, section 1.10).
const SAID_AMONG_KEY_EXCHANGES: [kex::Name; 2] =
    [kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

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

/// Bits of the group that is agreed on where a server offers several (RFC 4419): at least, best, at most. What is beyond
/// the best costs a second of computing.
const GROUP_BITS: (usize, usize, usize) = (2048, 3072, 8192);

/// Bytes of one packet of SSH: what every implementation takes (RFC 4253, section 6.1).
const PACKET_BYTES: u32 = 32 * 1024;

/// Bytes that the server may send before they are taken: what is asked for at once, and room for the rest.
const WINDOW_BYTES: u32 = (super::transfer::IN_FLIGHT_BYTES_MAX + 1024 * 1024) as u32;

/// Packets that wait for whoever reads the channel: enough for the connection not to wait between two looks at them.
const PACKETS_WAITING_MAX: usize = 128;

/// The settings of a connection; blocks on the file of known hosts.
///
/// # Errors
/// `Invalid` for an algorithm that there is not; what reading known hosts reports.
pub(super) fn settings(config: &Config) -> Result<client::Config, Error> {
    let (least, best, most) = GROUP_BITS;
    let gex = client::GexParams::new(least, best, most)
        .map_err(|error| Error::new(ErrorKind::Internal, "the bits of a group are refused").with_source(error))?;
    Ok(client::Config {
        client_id: SshId::Standard(Cow::Borrowed(concat!("SSH-2.0-Wharf_", env!("CARGO_PKG_VERSION")))),
        preferred: offered(config)?,
        gex,
        window_size: WINDOW_BYTES,
        maximum_packet_size: PACKET_BYTES,
        channel_buffer_size: PACKETS_WAITING_MAX,
        keepalive_interval: config.keepalive,
        ..client::Config::default()
    })
}

fn offered(config: &Config) -> Result<Preferred, Error> {
    let wanted = &config.algorithms;
    let mut key_exchanges = choose("key-exchanges", &wanted.key_exchanges, &KEY_EXCHANGES, &KEY_EXCHANGES_IF_NAMED)?;
    key_exchanges.extend(SAID_AMONG_KEY_EXCHANGES);
    let mut host_keys = choose("host-key-algorithms", &wanted.host_keys, &HOST_KEYS, &[])?;
    if wanted.host_keys.is_empty() {
        // To be shown the key that is known, where a server has several.
        let known = config.host_keys.known_types(&config.host, config.port)?;
        host_keys.sort_by_key(|algorithm| !known.iter().any(|key_type| signs(algorithm, key_type)));
    }
    let compression: &[compression::Name] = if config.compression {
        &[compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE]
    } else {
        &[compression::NONE]
    };
    Ok(Preferred {
        kex: Cow::Owned(key_exchanges),
        key: Cow::Owned(host_keys),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(choose("ciphers", &wanted.ciphers, &CIPHERS, &CIPHERS_IF_NAMED)?),
        mac: Cow::Owned(choose("macs", &wanted.macs, &MACS, &[])?),
        compression: Cow::Borrowed(compression),
    })
}

/// The algorithms of one kind: those that were named, or the usual ones.
fn choose<N: AsRef<str> + Clone>(
    setting: &str,
    wanted: &[String],
    usual: &[N],
    if_named: &[N],
) -> Result<Vec<N>, Error> {
    if wanted.is_empty() {
        return Ok(usual.to_vec());
    }
    let all = || usual.iter().chain(if_named);
    let find = |name: &String| {
        all().find(|known| known.as_ref() == name).cloned().ok_or_else(|| {
            let names: Vec<&str> = all().map(AsRef::as_ref).collect();
            let message = format!("{name:?} is none of the supported {setting}: {}", names.join(", "));
            Error::new(ErrorKind::Invalid, message)
        })
    };
    wanted.iter().map(find).collect()
}

/// Whether keys of a type sign with an algorithm (RFC 8332: one type of key, several algorithms).
fn signs(algorithm: &Algorithm, key_type: &str) -> bool {
    match algorithm {
        Algorithm::Rsa { .. } => key_type == "ssh-rsa",
        other => other.as_str() == key_type,
    }
}

/// What was agreed on with a server, and who it is.
#[derive(Debug, Clone)]
pub(super) struct Agreed {
    pub(super) software: String,
    pub(super) key_exchange: String,
    pub(super) cipher: String,
    pub(super) host_key_type: String,
    pub(super) fingerprint: Fingerprint,
}

/// Looks at the key that a server shows, and notes what was agreed on.
pub(super) struct Verifier {
    config: Arc<Config>,
    shown: Option<Vec<u8>>,
    agreed: Arc<OnceLock<Agreed>>,
}

impl Verifier {
    pub(super) fn new(config: &Arc<Config>, agreed: &Arc<OnceLock<Agreed>>) -> Self {
        Self { config: Arc::clone(config), shown: None, agreed: Arc::clone(agreed) }
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failed {
    /// The server's key is not the right one.
    HostKey(Error),
    /// Anything else.
    Ssh(russh::Error),
}

impl From<russh::Error> for Failed {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Handler for Verifier {
    type Error = Failed;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Failed> {
        let PublicKeyOrCertificate::PublicKey { key, .. } = shown else { return Ok(false) };
        let key = key.public_key_bytes();
        self.shown = Some(key.clone());
        let config = Arc::clone(&self.config);
        // Reads and writes the file of known hosts.
        let checked = tokio::task::spawn_blocking(move || {
            config.host_keys.check(&Shown { host: &config.host, port: config.port, key: &key })
        });
        let checked = checked.await.map_err(|error| Failed::Ssh(std::io::Error::other(error).into()))?;
        checked.map(|()| true).map_err(Failed::HostKey)
    }

    async fn kex_done(
        &mut self,
        _secret: Option<&[u8]>,
        names: &russh::Names,
        session: &mut Session,
    ) -> Result<(), Failed> {
        let key = self.shown.as_deref().unwrap_or_default();
        self.agreed.get_or_init(|| Agreed {
            software: wire::printable(session.remote_sshid()),
            key_exchange: names.kex.as_ref().to_owned(),
            cipher: names.cipher.as_ref().to_owned(),
            host_key_type: host_key::key_type(key),
            fingerprint: Fingerprint::of(key),
        });
        Ok(())
    }

    // ---- Channels that a server opens: none is asked for, and dropping the reply refuses it ------------------------

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _address: &str,
        _port: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _address: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _address: &str,
        _port: u32,
        _originator_address: &str,
        _originator_port: u32,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _path: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _path: &str,
        _: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Failed> {
        Ok(())
    }
}
