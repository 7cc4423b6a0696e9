//! A ping of an HTTP origin, step by step, so that a failure says which one it was: name, connect, TLS, login, command.
//!
//! The first steps are made on a connection of their own, which is closed again; behind a proxy they are the proxy's
//! to make. Neither retries nor the breaker stand between a person who asks and what is the case.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ::http::header::HeaderMap;
use ::http::{StatusCode, Version};
use rustls::ProtocolVersion;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Url;

use super::Origin;
use crate::backend::Facts;
use crate::error::{Error, ErrorKind, Step};
use crate::tls;

impl Origin {
    /// Sends the configured request, the smallest that the origin answers.
    ///
    /// # Errors
    /// What failed, with its step, as for [`Origin::send`]; `Denied` when the origin refuses the credentials (401, 403),
    /// `Unavailable` when it answers that it fails (5xx).
    pub async fn ping(&self) -> Result<Facts, Error> {
        let url = self.base.join(&self.ping.path, &[])?;
        let attempt = self.attempt_at(&self.ping.method, &url);
        self.step_by_step(url).await.map_err(|error| error.during(&attempt))
    }

    async fn step_by_step(&self, url: Url) -> Result<Facts, Error> {
        let mut facts = Vec::new();
        if !self.proxied {
            self.reach(&mut facts).await?;
        }
        let mut request = reqwest::Request::new(self.ping.method.clone(), url);
        *request.headers_mut() = HeaderMap::new();
        let authorized = self.authorizer.authorize(&mut request, self.token_client()).await;
        authorized.map_err(|error| error.at(Step::Login))?;
        let answer = self.own.send(request).await.map_err(|error| error.at(Step::Command))?;
        let status = answer.status();
        let said = |kind, why: &str| Error::new(kind, format!("it is answered with status {}: {why}", status.as_u16()));
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let why = "it refuses the credentials of the connection, or wants some; or set ping-path to a place \
                           that they may see";
                return Err(said(ErrorKind::Denied, why).at(Step::Login));
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                return Err(said(ErrorKind::Denied, "the proxy wants other credentials").at(Step::Connect));
            }
            status if status.is_server_error() => {
                return Err(said(ErrorKind::Unavailable, "it fails").at(Step::Command));
            }
            _ => {}
        }
        facts.push(("http", spelled(answer.version())));
        facts.push(("status", status.as_u16().to_string()));
        Ok(facts)
    }

    /// Name, connection and handshake.
    async fn reach(&self, facts: &mut Facts) -> Result<(), Error> {
        let url = self.base.url();
        let host = self.host();
        let port = url.port_or_known_default().unwrap_or_default();
        let limit = self.common.connect_timeout;
        let late = |what: &str| {
            let seconds = limit.as_secs_f32();
            Error::new(ErrorKind::Timeout, format!("{what} {host} took longer than the connect-timeout of {seconds} s"))
        };
        let addresses = tokio::time::timeout(limit, self.egress.resolve(host, port))
            .await
            .unwrap_or_else(|_| Err(late("resolving the name")))
            .map_err(|error| error.at(Step::Name))?;
        let stream = tokio::time::timeout(limit, first_that_connects(&addresses))
            .await
            .map_err(|_| late("connecting to").at(Step::Connect))?
            .map_err(|error| {
                let unreachable = Error::new(ErrorKind::Unavailable, format!("cannot connect to {host}"));
                unreachable.with_source(error).at(Step::Connect)
            })?;
        if let Ok(address) = stream.peer_addr() {
            facts.push(("address", address.to_string()));
        }
        if url.scheme() != "https" {
            return Ok(());
        }
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|error| Error::new(ErrorKind::Invalid, format!("{host} is no name for TLS")).with_source(error))?;
        let handshake = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream);
        let stream = tokio::time::timeout(limit, handshake)
            .await
            .map_err(|_| late("the TLS handshake with").at(Step::Tls))?
            .map_err(|error| tls::failed(host, error).at(Step::Tls))?;
        let version = match stream.get_ref().1.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "1.3".to_owned(),
            Some(ProtocolVersion::TLSv1_2) => "1.2".to_owned(),
            other => format!("{other:?}"),
        };
        facts.push(("tls", version));
        Ok(())
    }
}

async fn first_that_connects(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn spelled(version: Version) -> String {
    match version {
        Version::HTTP_10 => "1.0".to_owned(),
        Version::HTTP_11 => "1.1".to_owned(),
        Version::HTTP_2 => "2".to_owned(),
        other => format!("{other:?}"),
    }
}
