//! What the library that speaks SSH is told, and what it asks: what may be agreed on, how much may be on its way, and
//! whether a server's key is the right one.
//!
//! Knows no login and no channel.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use russh::client::{self, ChannelOpenHandle, DisconnectReason, Handler, Msg, Session};
use russh::keys::{PublicKeyBase64, PublicKeyOrCertificate};
use russh::{Channel, Disconnect, Preferred, SshId, compression, kex};

use super::host_key::{self, Fingerprint, Shown};
use super::{Config, wire};
use crate::error::{Error, ErrorKind};

/// No ways to agree on keys, but said among them: that extensions are understood (RFC 8308), and that nothing may be
/// slipped in before encryption begins (PROTOCOL of OpenSSH, section 1.10).
const SAID_AMONG_KEY_EXCHANGES: [kex::Name; 2] =
    [kex::EXTENSION_SUPPORT_AS_CLIENT, kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT];

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
/// What reading known hosts reports.
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
    let mut key_exchanges = config.algorithms.key_exchanges();
    key_exchanges.extend(SAID_AMONG_KEY_EXCHANGES);
    // To be shown the key that is known, where a server has several.
    let known = config.host_keys.known_types(&config.host, config.port)?;
    let compression: &[compression::Name] = if config.compression {
        &[compression::ZLIB_LEGACY, compression::ZLIB, compression::NONE]
    } else {
        &[compression::NONE]
    };
    Ok(Preferred {
        kex: Cow::Owned(key_exchanges),
        key: Cow::Owned(config.algorithms.host_keys(&known)),
        host_key_certificates: Cow::Borrowed(&[]),
        cipher: Cow::Owned(config.algorithms.ciphers()),
        mac: Cow::Owned(config.algorithms.macs()),
        compression: Cow::Borrowed(compression),
    })
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

/// What a server said besides its answers.
#[derive(Debug, Default)]
pub(super) struct Heard {
    agreed: OnceLock<Agreed>,
    farewell: OnceLock<Farewell>,
}

impl Heard {
    pub(super) fn agreed(&self) -> Option<&Agreed> {
        self.agreed.get()
    }

    /// With what words the server ended the connection, if it did.
    pub(super) fn farewell(&self) -> Option<&Farewell> {
        self.farewell.get()
    }
}

/// Why a server says that it ends a connection (RFC 4253, section 11.1).
#[derive(Debug)]
pub(super) struct Farewell {
    /// In its own words, printable.
    pub(super) words: String,
    /// Whether it would say the same again. OpenSSH ends a login after too many tries for an error of the protocol.
    pub(super) is_refusal: bool,
}

/// Looks at the key that a server shows, and notes what the server says besides its answers.
pub(super) struct Verifier {
    config: Arc<Config>,
    shown: Option<Vec<u8>>,
    heard: Arc<Heard>,
}

impl Verifier {
    pub(super) fn new(config: &Arc<Config>, heard: &Arc<Heard>) -> Self {
        Self { config: Arc::clone(config), shown: None, heard: Arc::clone(heard) }
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
        self.heard.agreed.get_or_init(|| Agreed {
            software: wire::printable(session.remote_sshid()),
            key_exchange: names.kex.as_ref().to_owned(),
            cipher: names.cipher.as_ref().to_owned(),
            host_key_type: host_key::key_type(key),
            fingerprint: Fingerprint::of(key),
        });
        Ok(())
    }

    async fn disconnected(&mut self, reason: DisconnectReason<Failed>) -> Result<(), Failed> {
        let said = match reason {
            DisconnectReason::ReceivedDisconnect(said) => said,
            DisconnectReason::Error(error) => return Err(error),
        };
        self.heard.farewell.get_or_init(|| Farewell {
            words: wire::printable(said.message.as_bytes()),
            is_refusal: matches!(
                said.reason_code,
                Disconnect::HostNotAllowedToConnect
                    | Disconnect::ProtocolError
                    | Disconnect::NoMoreAuthMethodsAvailable
                    | Disconnect::IllegalUserName
            ),
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
