//! What an FTP connection over TLS promises: sessions that servers insist on are resumed, and nobody is trusted
//! whom the operator did not name.

use std::time::Duration;

use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use secrecy::SecretString;
use sha2::{Digest, Sha256};
use wharf_connectors::ftp::Security;
use wharf_connectors::tls::{self, Fingerprint, Identity, Version};
use wharf_connectors::{
    ByteRange, Common, Config, Content, Error, ErrorKind, IfExists, Remote, RemotePath, chain, ftp,
};

use crate::ftp_server::FtpServer;
use crate::places::loopback;

const ROUNDS: usize = 20;

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

fn remote(server: &FtpServer, security: Security) -> Remote {
    let config = ftp::Config { security, ..server.config() };
    // One operation at once is one session.
    let common = Common { operations_max: 1, ..Common::default() };
    Remote::new("partner", common, Config::Ftp(config), &loopback()).unwrap()
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kind: ErrorKind, parts: &[&str]) {
    let Err(error) = result else { panic!("it succeeded instead of failing with {kind:?}") };
    let text = chain(&error);
    assert_eq!(error.kind(), kind, "{text}");
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

async fn many_transfers(software: &str, login: &str, version_max: Version, logins: usize) {
    let server = FtpServer::start(software, &["explicit"]);
    let remote = remote(&server, Security::Explicit(tls::Config { version_max, ..server.tls() }));
    let folder = path("/wharf");
    if let Err(error) = remote.make_directory(&folder).await {
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{}", chain(&error));
    }
    for round in 0..ROUNDS {
        let (file, content) = (folder.join(&format!("{round}")).unwrap(), vec![round as u8; 100_000 + round]);
        remote.write(&file, Content::from_bytes(content.clone()), IfExists::Fail).await.unwrap();
        let read = remote.read(&file, ByteRange::ALL).await.unwrap().collect(1_000_000).await.unwrap();
        assert!(read == content, "the bytes differ");
        assert_eq!(remote.list(&folder).await.unwrap().len(), round + 1);
    }
    for round in 0..ROUNDS {
        let file = folder.join(&format!("{round}")).unwrap();
        remote.write(&file, Content::from_bytes("again"), IfExists::Replace).await.unwrap();
    }
    assert_eq!(server.log().matches(login).count(), logins, "logins");
}

#[tokio::test]
async fn proftpd_that_enforces_reuse_serves_many_transfers_in_one_session() {
    many_transfers("proftpd", "login successful", Version::Tls12, 1).await;
    // It gives no ticket with an upload, and rustls shows none twice: the session of TLS 1.3 ends with its first upload,
    // and the next one is of 1.2.
    many_transfers("proftpd", "login successful", Version::Tls13, 2).await;
}

#[tokio::test]
async fn vsftpd_that_enforces_reuse_serves_many_transfers_in_one_session() {
    many_transfers("vsftpd", "OK LOGIN", Version::Tls12, 1).await;
    many_transfers("vsftpd", "OK LOGIN", Version::Tls13, 1).await;
}

/// An authority of one's own.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut parameters = CertificateParams::new(Vec::new()).unwrap();
    parameters.distinguished_name.push(DnType::CommonName, "authority of the test");
    parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap()
}

fn for_names(names: &[&str]) -> CertificateParams {
    let mut parameters =
        CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
    parameters.is_ca = IsCa::ExplicitNoCa;
    parameters
}

/// A ProFTPD that shows this certificate, and the certificate's fingerprint.
fn showing(certificate: &Certificate, key: &KeyPair, authority: &str, directives: &[&str]) -> (FtpServer, Fingerprint) {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join("tls").join(name), content).unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    write("server.pem", &certificate.pem());
    write("server.key", &key.serialize_pem());
    write("ca.pem", authority);
    let digest = Sha256::digest(certificate.der());
    let colons: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
    let arguments: Vec<&str> = std::iter::once("explicit").chain(directives.iter().copied()).collect();
    (FtpServer::start_in(folder, "proftpd", &arguments), colons.join(":").parse().unwrap())
}

fn signed(parameters: &CertificateParams) -> (FtpServer, Fingerprint) {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let certificate = parameters.signed_by(&key, &authority).unwrap();
    showing(&certificate, &key, &authority.pem(), &[])
}

fn pinned(pin: Fingerprint) -> Security {
    Security::Explicit(tls::Config { pin: Some(pin), ..tls::Config::default() })
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused_and_the_message_says_how_to_trust_it() {
    let (server, fingerprint) = signed(&for_names(&["127.0.0.1"]));
    let error = remote(&server, Security::Explicit(tls::Config::default())).ping().await;
    let pin = format!("certificate-pin = \"{fingerprint}\"");
    fails(error, ErrorKind::Denied, &["127.0.0.1", "unknown authority", "certificate-authority", &pin]);
    remote(&server, Security::Explicit(server.tls())).ping().await.unwrap();
    remote(&server, pinned(fingerprint)).ping().await.unwrap();
    assert!(!server.log().contains("USER"), "nothing is sent before the server is trusted");
}

#[tokio::test]
async fn an_expired_certificate_and_one_for_another_name_are_refused() {
    let mut expired = for_names(&["127.0.0.1"]);
    expired.not_after = date_time_ymd(2024, 3, 1);
    let (server, _) = signed(&expired);
    fails(
        remote(&server, Security::Explicit(server.tls())).ping().await,
        ErrorKind::Denied,
        &["expired at 2024-03-01", "certificate-pin"],
    );
    let (server, fingerprint) = signed(&for_names(&["ftp.example.com"]));
    fails(
        remote(&server, Security::Explicit(server.tls())).ping().await,
        ErrorKind::Denied,
        &["not for 127.0.0.1 but for", "ftp.example.com"],
    );
    remote(&server, pinned(fingerprint)).ping().await.unwrap();
}

#[tokio::test]
async fn a_certificate_that_is_its_own_authority_can_be_pinned() {
    let mut own = for_names(&["127.0.0.1"]);
    own.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let certificate = own.self_signed(&key).unwrap();
    let (server, fingerprint) = showing(&certificate, &key, &certificate.pem(), &[]);
    fails(
        remote(&server, Security::Explicit(server.tls())).ping().await,
        ErrorKind::Denied,
        &["certificate-pin", &fingerprint.to_string()],
    );
    let remote = remote(&server, pinned(fingerprint));
    remote.write(&path("/file"), Content::from_bytes("content"), IfExists::Fail).await.unwrap();
}

#[tokio::test]
async fn another_certificate_than_the_pinned_one_is_refused_with_both_fingerprints() {
    let (server, fingerprint) = signed(&for_names(&["127.0.0.1"]));
    let other: Fingerprint = "00".repeat(32).parse().unwrap();
    let error = remote(&server, pinned(other)).ping().await;
    fails(error, ErrorKind::Denied, &[&fingerprint.to_string(), &other.to_string(), "certificate-pin"]);
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_a_server_that_asks_for_it() {
    let (authority, key) = (authority(), KeyPair::generate().unwrap());
    let certificate = for_names(&["127.0.0.1"]).signed_by(&key, &authority).unwrap();
    let (server, _) = showing(&certificate, &key, &authority.pem(), &["TLSVerifyClient on"]);
    let client_key = KeyPair::generate().unwrap();
    let client = for_names(&["alice"]).signed_by(&client_key, &authority).unwrap();
    let identity =
        Identity { certificates: client.pem().into_bytes(), key: SecretString::from(client_key.serialize_pem()) };
    for version_max in [Version::Tls12, Version::Tls13] {
        let nobody = tls::Config { version_max, ..server.tls() };
        let somebody = tls::Config { identity: Some(identity.clone()), ..nobody.clone() };
        let error = remote(&server, Security::Explicit(nobody)).ping().await;
        fails(error, ErrorKind::Denied, &["client-certificate"]);
        let remote = remote(&server, Security::Explicit(somebody));
        remote.write(&path("/file"), Content::from_bytes("content"), IfExists::Replace).await.unwrap();
    }
}

#[tokio::test]
async fn settings_of_tls_that_cannot_be_right_are_invalid() {
    let key = KeyPair::generate().unwrap();
    let certificate = for_names(&["alice"]).self_signed(&key).unwrap().pem().into_bytes();
    let identity = |certificates: &[u8], key: &str| {
        Some(Identity { certificates: certificates.to_vec(), key: SecretString::from(key.to_owned()) })
    };
    let plain = tls::Config::default();
    let cases = [
        (tls::Config { authority: Some(b"junk".to_vec()), ..plain.clone() }, "no certificate in it"),
        (
            tls::Config { authority: Some(certificate.clone()), pin: "11".repeat(32).parse().ok(), ..plain.clone() },
            "exclude",
        ),
        (tls::Config { identity: identity(&certificate, "junk"), ..plain.clone() }, "private key in PEM"),
        (tls::Config { identity: identity(b"", &key.serialize_pem()), ..plain.clone() }, "no certificate in it"),
        (
            tls::Config { identity: identity(&certificate, &KeyPair::generate().unwrap().serialize_pem()), ..plain },
            "cannot be used together",
        ),
    ];
    for (tls, part) in cases {
        let config = ftp::Config {
            security: Security::Explicit(tls),
            ..ftp::Config::new("127.0.0.1", "alice", SecretString::from("secret"))
        };
        let made = Remote::new("partner", Common::default(), Config::Ftp(config), &loopback());
        fails(made, ErrorKind::Invalid, &[part]);
    }
    for text in ["", "sha256:", "zz", &"0".repeat(63), &"0".repeat(65), &format!("sha1:{}", "0".repeat(40))] {
        assert!(text.parse::<Fingerprint>().is_err(), "{text:?}");
    }
}

#[tokio::test]
async fn servers_that_want_tls_and_servers_that_have_none_are_told_apart() {
    for software in ["proftpd", "vsftpd", "pure-ftpd"] {
        let server = FtpServer::start(software, &["explicit"]);
        let error = remote(&server, Security::None).ping().await.unwrap_err();
        assert!(chain(&error).contains("tls = \"explicit\""), "{software}: {}", chain(&error));
    }
    let server = FtpServer::start("proftpd", &[]);
    let tls = tls::Config::default();
    let error = remote(&server, Security::Explicit(tls.clone())).ping().await;
    fails(error, ErrorKind::Unsupported, &["refused to speak TLS"]);
    let error = remote(&server, Security::Implicit(tls)).ping().await;
    fails(error, ErrorKind::Unavailable, &["does not speak TLS"]);
    let server = FtpServer::start("proftpd", &["implicit"]);
    let impatient = Common { connect_timeout: Duration::from_secs(1), ..Common::default() };
    let config = ftp::Config { security: Security::Explicit(server.tls()), ..server.config() };
    let remote = Remote::new("partner", impatient, Config::Ftp(config), &loopback()).unwrap();
    fails(remote.ping().await, ErrorKind::Timeout, &["waiting for its greeting", "implicit"]);
}
