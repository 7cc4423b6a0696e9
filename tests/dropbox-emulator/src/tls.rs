//! The emulator's certificate authority and the one server certificate it signs.
//!
//! Knows which names the certificate carries and that only HTTP/1.1 is offered. Both keys live in memory only and are
//! made anew at every start, so trusting this authority means trusting one run of one emulator.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;

/// Names and addresses in the server certificate: local ones, and Dropbox's own for clients whose hosts cannot be
/// configured and which are sent here by a proxy or a name override.
const NAMES: [&str; 5] =
    ["localhost", "127.0.0.1", "api.dropboxapi.com", "content.dropboxapi.com", "notify.dropboxapi.com"];

/// Why no certificate could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A key or certificate could not be made.
    #[error("the emulator's certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the key or the certificate.
    #[error("the TLS library refused the emulator's certificate")]
    Configuration(#[from] rustls::Error),
}

/// A server configuration, and the certificate authority that clients must trust.
pub(crate) struct Identity {
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) ca_pem: String,
}

impl Identity {
    /// Makes a fresh authority and a server certificate signed by it.
    pub(crate) fn generate() -> Result<Self, TlsError> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "dropbox-emulator test authority");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut leaf = CertificateParams::new(NAMES.map(String::from).to_vec())?;
        leaf.distinguished_name.push(DnType::CommonName, "dropbox-emulator");
        // Strict verifiers refuse a server certificate that does not say CA:FALSE and name its issuer's key.
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.use_authority_key_identifier_extension = true;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let leaf_key = KeyPair::generate()?;
        let certificate = leaf.signed_by(&leaf_key, &issuer)?;

        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], leaf_key.into())?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { server: Arc::new(server), ca_pem })
    }
}
