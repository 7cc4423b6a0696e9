//! TLS: whom the connection trusts, what it shows, and what each refusal is told as; and proxies.

use std::sync::Arc;

use http::Method;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use wharf_connectors::http::{Config, Credentials, Proxy, Redirects};
use wharf_connectors::{ErrorKind, Step, chain, tls};

use crate::{
    Heard, Seen, answer, answering, config, converse, get, open, read_until, request, send, server, text, try_open,
};

/// An authority, and what it signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> Vec<u8> {
        self.0.pem().into_bytes()
    }

    /// A certificate and its key for a name.
    fn sign(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> (rcgen::Certificate, KeyPair) {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut parameters);
        let key = KeyPair::generate().unwrap();
        (parameters.signed_by(&key, &self.0).unwrap(), key)
    }
}

/// A server over TLS; it wants a client certificate of `clients` when that is given. Its base URL.
async fn secure(
    (certificate, key): (rcgen::Certificate, KeyPair),
    clients: Option<&Authority>,
    answer: impl Fn(usize, &Heard) -> String + Send + Sync + 'static,
) -> (String, Seen) {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.0.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build().unwrap();
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let settings = builder.with_single_cert(vec![CertificateDer::from(certificate.der().to_vec())], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(settings));
    let (seen, answer) = (Seen::default(), Arc::new(answer));
    let also_seen = seen.clone();
    let url = server(move |stream| {
        let (acceptor, answer, seen) = (acceptor.clone(), Arc::clone(&answer), also_seen.clone());
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                converse(stream, &*answer, &seen).await;
            }
        }
    })
    .await;
    (url.replace("http://", "https://"), seen)
}

fn trusting(url: &str, authority: &Authority) -> Config {
    Config { tls: tls::Config { authority: Some(authority.pem()), ..tls::Config::default() }, ..config(url) }
}

#[tokio::test]
async fn an_own_authority_is_trusted_and_a_ping_tells_the_version() {
    let authority = Authority::new("ours");
    let (url, _) = secure(authority.sign("127.0.0.1", |_| {}), None, |_, _| answer(200, &[], "secret")).await;
    let origin = open(trusting(&url, &authority));
    assert_eq!(text(get(&origin, "/").await.unwrap()).await, "secret");
    let facts = origin.ping().await.unwrap();
    for fact in [("tls", "1.3"), ("http", "1.1"), ("status", "200")] {
        assert!(facts.iter().any(|(name, value)| (*name, value.as_str()) == fact), "{fact:?} in {facts:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_told_with_the_reason() {
    let (authority, stranger) = (Authority::new("ours"), Authority::new("theirs"));
    let long_ago = |parameters: &mut CertificateParams| {
        parameters.not_before = rcgen::date_time_ymd(2019, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    };
    let ended_before_it_began = |parameters: &mut CertificateParams| {
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2019, 1, 1);
    };
    for (certificate, part) in [
        (stranger.sign("127.0.0.1", |_| {}), "signed by an unknown authority"),
        (authority.sign("127.0.0.1", long_ago), "it expired at 2020-01-01"),
        (authority.sign("127.0.0.1", ended_before_it_began), "it has expired, or ends before it begins"),
        (authority.sign("other.example", |_| {}), "it is not for 127.0.0.1"),
    ] {
        let (url, seen) = secure(certificate, None, |_, _| answer(200, &[], "")).await;
        let origin = open(Config { credentials: Credentials::Bearer("t".into()), ..trusting(&url, &authority) });
        for error in [get(&origin, "/").await.unwrap_err(), origin.ping().await.unwrap_err()] {
            let message = chain(&error);
            assert_eq!(error.kind(), ErrorKind::Denied, "{message}");
            assert!(message.contains(part), "{part} in {message}");
            assert!(message.contains("certificate-pin = \"sha256:"), "{message}");
            assert!(message.ends_with(" in place of certificate-authority"), "{message}");
        }
        assert!(seen.lines().is_empty());
    }
}

#[tokio::test]
async fn a_pinned_certificate_is_the_only_one_that_is_taken() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.sign("elsewhere.example", |_| {});
    let digest =
        sha2::Digest::finalize(sha2::Digest::chain_update(<sha2::Sha256 as sha2::Digest>::new(), certificate.der()));
    let pin: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    let (url, _) = secure((certificate, key), None, |_, _| answer(200, &[], "pinned")).await;
    let pinned = |pin: &str| Config {
        tls: tls::Config { pin: Some(pin.parse().unwrap()), ..tls::Config::default() },
        ..config(&url)
    };
    assert_eq!(text(get(&open(pinned(&pin)), "/").await.unwrap()).await, "pinned");
    let other = "ab".repeat(32);
    let error = get(&open(pinned(&other)), "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    let message = error.to_string();
    assert!(message.contains(&pin) && message.contains(&other), "both fingerprints in {message}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_to_the_origin_and_to_nobody_else() {
    let authority = Authority::new("ours");
    let (certificate, key) = authority.sign("wharf", |_| {});
    let identity = tls::Identity { certificates: certificate.pem().into_bytes(), key: key.serialize_pem().into() };
    let (elsewhere, seen_elsewhere) =
        secure(authority.sign("127.0.0.1", |_| {}), Some(&authority), |_, _| answer(200, &[], "")).await;
    let target = format!("location: {elsewhere}/x");
    let (url, _) =
        secure(authority.sign("127.0.0.1", |_| {}), Some(&authority), move |_, heard| match heard.line.as_str() {
            "GET /away" => answer(302, &[&target], ""),
            _ => answer(200, &[], "known"),
        })
        .await;
    let without = open(trusting(&url, &authority));
    let error = get(&without, "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
    assert!(error.to_string().contains("set client-certificate"), "{error}");

    let mut settings = trusting(&url, &authority);
    settings.tls.identity = Some(identity);
    settings.redirects = Redirects { max: 3, other_origins: true };
    let with = open(settings);
    assert_eq!(text(get(&with, "/").await.unwrap()).await, "known");
    let error = get(&with, "/away").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "{}", chain(&error));
    assert!(seen_elsewhere.lines().is_empty());
}

#[tokio::test]
async fn a_redirect_from_https_to_http_is_denied() {
    let (plain, seen) = answering(|_, _| answer(200, &[], "")).await;
    let authority = Authority::new("ours");
    let target = format!("location: {plain}/");
    let (url, _) = secure(authority.sign("127.0.0.1", |_| {}), None, move |_, _| answer(302, &[&target], "")).await;
    let redirects = Redirects { max: 3, other_origins: true };
    let error = get(&open(Config { redirects, ..trusting(&url, &authority) }), "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().contains("from https to"), "{error}");
    assert!(seen.lines().is_empty());
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_is_told_as_that() {
    let (url, _) = answering(|_, _| answer(200, &[], "")).await;
    // What a plain server answers to a handshake.
    let plain = server(|mut stream| async move {
        let _ = stream.read_u8().await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    })
    .await;
    drop(url);
    let settings = Config { ..config(&plain.replace("http", "https")) };
    let error = get(&open(settings), "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", chain(&error));
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn settings_of_tls_that_cannot_be_used_are_refused() {
    let authority = Authority::new("ours");
    let (certificate, _) = authority.sign("wharf", |_| {});
    let (_, other_key) = authority.sign("wharf", |_| {});
    let mismatched =
        tls::Identity { certificates: certificate.pem().into_bytes(), key: other_key.serialize_pem().into() };
    for (tls, part) in [
        (tls::Config { authority: Some(b"junk".to_vec()), ..Default::default() }, "has no certificate in it"),
        (tls::Config { identity: Some(mismatched), ..Default::default() }, "cannot be used together"),
    ] {
        let error = try_open(Config { tls, ..config("https://x/") }).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(part), "{error}");
    }
}

/// A proxy that notes the head of each request, and makes the tunnels that it is asked for.
async fn proxy() -> (String, Seen) {
    let seen = Seen::default();
    let also_seen = seen.clone();
    let url = server(move |mut stream| {
        let seen = also_seen.clone();
        async move {
            let head = read_until(&mut stream, b"\r\n\r\n").await;
            let (line, rest) = head.split_once("\r\n").unwrap();
            let headers = rest.lines().filter_map(|line| line.split_once(": "));
            let headers = headers.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
            seen.0.lock().unwrap().push(Heard { line: line.to_owned(), headers, body: String::new() });
            if let Some(rest) = line.strip_prefix("CONNECT ") {
                let mut target = TcpStream::connect(rest.split(' ').next().unwrap()).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut target).await;
            } else {
                stream.write_all(answer(200, &[], "by proxy").as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (url, seen)
}

#[tokio::test]
async fn a_proxy_carries_plain_requests_and_tunnels_the_others() {
    let authority = Authority::new("ours");
    let (url, seen) = secure(authority.sign("127.0.0.1", |_| {}), None, |_, _| answer(200, &[], "secret")).await;
    let (proxy_url, by_proxy) = proxy().await;
    let proxy =
        Some(Proxy { url: proxy_url.parse().unwrap(), credentials: Some(("alice".to_owned(), "hunter2".into())) });
    let credentials = Credentials::Bearer("t0k3n".into());
    let tunnelled = open(Config { proxy: proxy.clone(), credentials, ..trusting(&url, &authority) });
    assert_eq!(text(get(&tunnelled, "/x").await.unwrap()).await, "secret");
    let facts = tunnelled.ping().await.unwrap();
    assert!(facts.contains(&("status", "200".to_owned())), "{facts:?}");
    let address = url.trim_start_matches("https://");
    let heard = by_proxy.all().remove(0);
    assert_eq!(heard.line, format!("CONNECT {address} HTTP/1.1"));
    assert_eq!(heard.header("proxy-authorization"), Some("Basic YWxpY2U6aHVudGVyMg=="));
    assert_eq!(heard.header("authorization"), None);
    let inner = seen.all().remove(0);
    assert_eq!(inner.header("authorization"), Some("Bearer t0k3n"));
    assert_eq!(inner.header("proxy-authorization"), None);

    // The name is one that only the proxy knows.
    let plain = open(Config { proxy, ..config("http://inside.invalid/base") });
    let answered = send(&plain, request(Method::GET, "/x", "")).await.unwrap();
    assert_eq!(text(answered).await, "by proxy");
    let heard = by_proxy.all().pop().unwrap();
    assert_eq!(heard.line, "GET http://inside.invalid/base/x HTTP/1.1");
    assert_eq!(heard.header("proxy-authorization"), Some("Basic YWxpY2U6aHVudGVyMg=="));
}

#[tokio::test]
async fn the_outgoing_policy_holds_for_a_proxy_and_for_what_is_behind_it() {
    let (proxy_url, by_proxy) = proxy().await;
    let proxy = |url: &str| Some(Proxy { url: url.parse().unwrap(), credentials: None });
    for (settings, what) in [
        (Config { proxy: proxy(&proxy_url), ..config("http://169.254.169.254/") }, "a literal"),
        (Config { proxy: proxy("http://10.1.2.3:3128"), ..config("http://example.invalid/") }, "the proxy"),
    ] {
        let error = get(&open(settings), "/").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Denied, "{what}: {error}");
    }
    let nobody = Arc::new(wharf_connectors::Egress::default());
    let public = Config { proxy: proxy(&proxy_url.replace("127.0.0.1", "localhost")), ..config("http://1.1.1.1/") };
    let origin = wharf_connectors::http::Origin::new("test", public, &crate::common(), nobody).unwrap();
    let error = get(&origin, "/").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied, "the name of the proxy: {}", chain(&error));
    assert!(by_proxy.lines().is_empty());
    let encrypted = Config { proxy: proxy("https://127.0.0.1:3128"), ..config("http://1.1.1.1/") };
    assert_eq!(try_open(encrypted).err().unwrap().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_or_reaches_nothing_is_told_with_its_address() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let silent = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let unhelpful = server(|mut stream| async move {
        read_until(&mut stream, b"\r\n\r\n").await;
        let _ = stream.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let reached = "inside.invalid through the proxy";
    for (scheme, proxy_url, part) in [
        ("http", &nobody, format!("cannot connect to the proxy {nobody}")),
        ("https", &nobody, format!("cannot connect to the proxy {nobody}")),
        ("https", &silent, format!("connecting to {reached} {silent} took longer than connect-timeout")),
        ("https", &unhelpful, format!("the proxy {unhelpful} makes no connection to inside.invalid")),
    ] {
        let proxy = Some(Proxy { url: proxy_url.parse().unwrap(), credentials: None });
        let origin = open(Config { proxy, ..config(&format!("{scheme}://inside.invalid/")) });
        for error in [get(&origin, "/").await.unwrap_err(), origin.ping().await.unwrap_err()] {
            assert_eq!(error.step(), Some(Step::Connect), "{error}");
            assert!(error.to_string().contains(&part), "{part} in {}", chain(&error));
        }
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            read_until(&mut stream, b"\r\n\r\n").await;
            let _ = stream.write_all(b"HTTP/1.1 407 Who are you\r\ncontent-length: 0\r\n\r\n").await;
        }
    });
    let proxy = Some(Proxy { url: format!("http://{address}").parse().unwrap(), credentials: None });
    let error = get(&open(Config { proxy, ..config("https://inside.invalid/") }), "/").await.unwrap_err();
    let message = chain(&error);
    assert_eq!(error.kind(), ErrorKind::Denied, "{message}");
    assert!(message.contains(&format!("the proxy http://{address} wants other credentials")), "{message}");
}
