//! TLS as a client: whom to trust, how to show who we are, which versions are spoken.
//!
//! A certificate that is refused is told with its fingerprint and with the setting that would accept it. Knows no
//! protocol above TLS; the sessions to resume are the business of whoever connects.

use std::error::Error as StdError;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};

/// Settings of TLS.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// Certificates in PEM of the only authorities to trust; those of the operating system when absent.
    pub authority: Option<Vec<u8>>,
    /// The server's own certificate. Nothing else about it is checked then: neither who signed it, nor for which name
    /// and until when it is valid. Excludes `authority`.
    pub pin: Option<Fingerprint>,
    /// Whether the operator has no setting for a pin here, so that none is advised.
    pub is_unpinnable: bool,
    /// What we show to a server that asks who we are.
    pub identity: Option<Identity>,
    /// The newest version to speak; the oldest is always 1.2.
    pub version_max: Version,
}

/// A client certificate.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate in PEM, followed by those that lead to its authority, if any.
    pub certificates: Vec<u8>,
    /// Its private key in PEM, not encrypted: PKCS#8, PKCS#1 or SEC1.
    pub key: SecretString,
}

/// A version of TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Version {
    /// 1.2 (RFC 5246).
    Tls12,
    /// 1.3 (RFC 8446).
    #[default]
    Tls13,
}

/// The SHA-256 of a certificate in DER. Written `sha256:` and 64 hexadecimal digits; read with or without the prefix
/// and with or without colons, as OpenSSL prints it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a fingerprint is sha256: followed by 64 hexadecimal digits")]
pub struct NoFingerprint;

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Self {
        Self(Sha256::digest(certificate).into())
    }
}

impl FromStr for Fingerprint {
    type Err = NoFingerprint;

    fn from_str(text: &str) -> Result<Self, NoFingerprint> {
        let has_prefix = text.get(..7).is_some_and(|prefix| prefix.eq_ignore_ascii_case("sha256:"));
        let digits = if has_prefix { &text[7..] } else { text };
        let digits: Vec<u32> = digits
            .chars()
            .filter(|character| *character != ':')
            .map(|character| character.to_digit(16))
            .collect::<Option<_>>()
            .ok_or(NoFingerprint)?;
        let bytes: Vec<u8> =
            digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | *digit as u8)).collect();
        if digits.len() != 64 {
            return Err(NoFingerprint);
        }
        bytes.try_into().map(Self).map_err(|_| NoFingerprint)
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

impl Config {
    /// The settings in the form that rustls takes, without protocols of ALPN and with its usual cache of sessions.
    ///
    /// # Errors
    /// `Invalid` for PEM that is none, settings that exclude each other, and a key that is not the certificate's.
    pub(crate) fn client(&self) -> Result<ClientConfig, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions: &[&SupportedProtocolVersion] = match self.version_max {
            Version::Tls12 => &[&rustls::version::TLS12],
            Version::Tls13 => &[&rustls::version::TLS13, &rustls::version::TLS12],
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .map_err(|error| Error::new(ErrorKind::Internal, "no TLS version is usable").with_source(error))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Verifier {
                trust: self.trust(&provider)?,
                has_own_authority: self.authority.is_some(),
                is_unpinnable: self.is_unpinnable,
                provider,
            }));
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let certificates = certificates("client certificate", &identity.certificates)?;
        let key = PrivateKeyDer::from_pem_slice(identity.key.expose_secret().as_bytes()).map_err(|error| {
            // The source tells nothing of the key but what is wrong with its form.
            invalid("the key of the client certificate is not an unencrypted private key in PEM").with_source(error)
        })?;
        builder
            .with_client_auth_cert(certificates, key)
            .map_err(|error| invalid("the client certificate and its key cannot be used together").with_source(error))
    }

    fn trust(&self, provider: &Arc<CryptoProvider>) -> Result<Trust, Error> {
        let authority = match (&self.authority, self.pin) {
            (Some(_), Some(_)) => {
                return Err(invalid("a pinned certificate and a certificate authority exclude each other"));
            }
            (None, Some(pin)) => return Ok(Trust::Pin(pin)),
            (Some(pem), None) => certificates("certificate authority", pem)?,
            (None, None) => match rustls_platform_verifier::Verifier::new(Arc::clone(provider)) {
                Ok(verifier) => return Ok(Trust::Authorities(Arc::new(verifier))),
                Err(error) => {
                    // A machine without certificate authorities still reaches servers that need none.
                    tracing::warn!(
                        %error,
                        "this system has no certificate authorities, so no server will be trusted that has no authority \
                         of its own configured; install them (ca-certificates) or set SSL_CERT_FILE"
                    );
                    return Ok(Trust::Nobody);
                }
            },
        };
        let mut roots = RootCertStore::empty();
        for certificate in authority {
            roots
                .add(certificate)
                .map_err(|error| invalid("the certificate authority is not usable").with_source(error))?;
        }
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        match verifier.build() {
            Ok(verifier) => Ok(Trust::Authorities(verifier)),
            Err(error) => Err(invalid("the certificate authority is not usable").with_source(error)),
        }
    }
}

fn invalid(why: &str) -> Error {
    Error::new(ErrorKind::Invalid, why)
}

fn certificates(what: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, Error> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| invalid(&format!("the {what} is not PEM")).with_source(error))?;
    if certificates.is_empty() {
        return Err(invalid(&format!("the {what} has no certificate in it")));
    }
    Ok(certificates)
}

#[derive(Debug)]
enum Trust {
    Authorities(Arc<dyn ServerCertVerifier>),
    Pin(Fingerprint),
    Nobody,
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    /// What is trusted is configured for this connection.
    has_own_authority: bool,
    is_unpinnable: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = Fingerprint::of(certificate);
        let reason = match &self.trust {
            Trust::Pin(pin) if *pin == fingerprint => return Ok(ServerCertVerified::assertion()),
            Trust::Pin(pin) => Distrust::NotPinned(*pin),
            Trust::Nobody => Distrust::Refused(CertificateError::UnknownIssuer),
            Trust::Authorities(verifier) => {
                match verifier.verify_server_cert(certificate, intermediates, name, ocsp, now) {
                    Err(rustls::Error::InvalidCertificate(error)) => Distrust::Refused(error),
                    verified_or_broken => return verified_or_broken,
                }
            }
        };
        let has_own_authority = self.has_own_authority;
        let untrusted = Untrusted { fingerprint, is_unpinnable: self.is_unpinnable, reason, has_own_authority };
        Err(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(untrusted)))))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Why a server's certificate was refused. Its text tells people how to accept it, should they want to.
#[derive(Debug)]
pub(crate) struct Untrusted {
    fingerprint: Fingerprint,
    is_unpinnable: bool,
    reason: Distrust,
    has_own_authority: bool,
}

#[derive(Debug)]
enum Distrust {
    NotPinned(Fingerprint),
    Refused(CertificateError),
}

impl fmt::Display for Untrusted {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |time: &UnixTime| {
            let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
            Timestamp::from_second(seconds).map_or("an unknown time".to_owned(), |time| time.to_string())
        };
        let fingerprint = &self.fingerprint;
        let error = match &self.reason {
            Distrust::NotPinned(pin) => {
                return write!(
                    formatter,
                    "the server shows the certificate {fingerprint} instead of the pinned {pin}; if it was renewed, \
                     ask whoever runs the server for the fingerprint and set certificate-pin to it"
                );
            }
            Distrust::Refused(error) => error,
        };
        formatter.write_str("the server's certificate is not trusted: ")?;
        match error {
            CertificateError::ExpiredContext { not_after, .. } => {
                write!(formatter, "it expired at {}", day(not_after))?
            }
            CertificateError::NotValidYetContext { not_before, .. } => {
                write!(formatter, "it is not valid before {}", day(not_before))?;
            }
            // What a certificate is told as that ends before it begins; the library tells no time then.
            CertificateError::Expired => formatter.write_str("it has expired, or ends before it begins")?,
            CertificateError::UnknownIssuer if self.has_own_authority => {
                formatter.write_str("it is signed by an unknown authority, which is not in certificate-authority")?;
            }
            CertificateError::UnknownIssuer => {
                formatter.write_str(
                    "it is signed by an unknown authority; set certificate-authority to that authority's certificate",
                )?;
            }
            CertificateError::BadSignature if self.has_own_authority => formatter.write_str(
                "it is not signed by the authority of that name in certificate-authority; set that to the authority's \
                 present certificate",
            )?,
            CertificateError::NotValidForNameContext { expected, presented } => {
                let presented = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
                write!(formatter, "it is not for {} but for {presented}", expected.to_str())?;
            }
            CertificateError::Other(OtherError(error)) => write!(formatter, "{error}")?,
            error => write!(formatter, "{error}")?,
        }
        if self.is_unpinnable {
            return write!(formatter, " (its fingerprint is {fingerprint})");
        }
        write!(formatter, ". To trust this very certificate, set certificate-pin = \"{fingerprint}\"")?;
        // The two exclude each other.
        formatter.write_str(if self.has_own_authority { " in place of certificate-authority" } else { "" })
    }
}

impl StdError for Untrusted {}

/// What went wrong with a handshake, in the terms of this crate: `Denied` when one side does not trust the other.
pub(crate) fn failed(attempt: &str, error: std::io::Error) -> Error {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let is_certificate = matches!(inner, Some(rustls::Error::InvalidCertificate(_)));
    let untrusted = match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
            other.downcast_ref::<Untrusted>().map(ToString::to_string)
        }
        _ => None,
    };
    let (kind, why) = match (inner, untrusted) {
        (_, Some(untrusted)) => (ErrorKind::Denied, untrusted),
        (
            Some(rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::AccessDenied
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired,
            )),
            _,
        ) => (
            ErrorKind::Denied,
            "the server wants a client certificate that it trusts; set client-certificate, which \
             connections of type ftp and http have"
                .to_owned(),
        ),
        // The same in TLS 1.2, which has no word of its own for it.
        (Some(rustls::Error::AlertReceived(AlertDescription::HandshakeFailure)), _) => (
            ErrorKind::Denied,
            "the server refused the handshake; if it wants a client certificate, set client-certificate, which \
             connections of type ftp and http have"
                .to_owned(),
        ),
        (Some(rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)), _) => {
            (ErrorKind::Unavailable, "the server speaks no version of TLS that this connection allows".to_owned())
        }
        (Some(rustls::Error::InvalidMessage(_)), _) => (
            ErrorKind::Unavailable,
            "what answers does not speak TLS; check the port and whether TLS is expected on it".to_owned(),
        ),
        _ => (ErrorKind::Unavailable, "the TLS handshake failed".to_owned()),
    };
    let explained = Error::new(kind, format!("{attempt}: {why}"));
    if is_certificate { explained } else { explained.with_source(error) }
}
