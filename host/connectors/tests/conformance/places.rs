//! The remotes that must keep the contract: for each protocol, a connection to a server of its own, confined to an
//! empty folder that is not the server's root.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use dropbox_emulator::{Emulator, Options, Running};
use secrecy::SecretString;
use tempfile::TempDir;
use wharf_connectors::ftp::Security;
use wharf_connectors::{Common, Config, Egress, ErrorKind, Remote, RemotePath, dropbox, ftp, local};

use crate::ftp_server::FtpServer;
use crate::openssh::Openssh;

/// How many operations the connections allow at once.
pub(crate) const OPERATIONS_MAX: usize = 4;

/// A connection, and what it needs to live.
pub(crate) struct Place {
    pub(crate) remote: Remote,
    /// Where its files are, when that is on this machine.
    pub(crate) folder: Option<PathBuf>,
    /// Whether missing folders are made by the way.
    pub(crate) makes_folders: bool,
    /// Whether it keeps the times of last change that it is given.
    pub(crate) keeps_times: bool,
    /// Whether it keeps what came of a write that broke off.
    pub(crate) resumes: bool,
    server: Server,
}

#[expect(dead_code, reason = "held to be dropped at the end of the test")]
enum Server {
    Local(TempDir),
    Ftp(FtpServer),
    Sftp(Openssh),
    Dropbox(Running),
}

impl Place {
    /// Nothing is checked at its end.
    #[expect(clippy::unused_async, reason = "the ends of other places are waited for")]
    pub(crate) async fn ends(self) {
        drop(self);
    }

    /// The stand-in for Dropbox, where it is one.
    pub(crate) fn emulator(&self) -> Option<&Running> {
        match &self.server {
            Server::Dropbox(running) => Some(running),
            _ => None,
        }
    }
}

/// A policy that allows this machine.
pub(crate) fn loopback() -> Arc<Egress> {
    Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]))
}

fn common() -> Common {
    Common {
        root: RemotePath::parse("/wharf/test 1").unwrap(),
        operations_max: OPERATIONS_MAX,
        connect_timeout: Duration::from_secs(10),
        read_timeout: Duration::from_secs(10),
        idle_timeout: Duration::from_secs(60),
        ..Common::default()
    }
}

/// A connection confined to a folder, which is made by one that is not.
async fn confined(config: Config) -> Remote {
    let outer = Remote::new("outer", Common::default(), config.clone(), &loopback()).unwrap();
    for folder in ["/wharf", "/wharf/test 1"] {
        match outer.make_directory(&RemotePath::parse(folder).unwrap()).await {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => panic!("{folder}: {error}"),
            _ => {}
        }
    }
    Remote::new("place", common(), config, &loopback()).unwrap()
}

pub(crate) async fn local() -> Place {
    let folder = tempfile::tempdir().unwrap();
    let remote = confined(Config::Local(local::Config { folder: folder.path().to_owned() })).await;
    Place {
        remote,
        folder: Some(folder.path().join("wharf/test 1")),
        makes_folders: false,
        keeps_times: true,
        resumes: true,
        server: Server::Local(folder),
    }
}

pub(crate) async fn ftp() -> Place {
    over_ftp(FtpServer::start("proftpd", &[]), |_| Security::None).await
}

pub(crate) async fn ftp_without_mlsd() -> Place {
    // Without facts, ProFTPD has no command that sets a time.
    let place = over_ftp(FtpServer::start("proftpd", &["FactsAdvertise off"]), |_| Security::None).await;
    Place { keeps_times: false, ..place }
}

pub(crate) async fn ftps_explicit() -> Place {
    over_ftp(FtpServer::start("proftpd", &["explicit"]), |server| Security::Explicit(server.tls())).await
}

pub(crate) async fn ftps_implicit() -> Place {
    over_ftp(FtpServer::start("proftpd", &["implicit"]), |server| Security::Implicit(server.tls())).await
}

pub(crate) async fn vsftpd() -> Place {
    over_ftp(FtpServer::start("vsftpd", &["explicit"]), |server| Security::Explicit(server.tls())).await
}

pub(crate) async fn pure_ftpd() -> Place {
    over_ftp(FtpServer::start("pure-ftpd", &["explicit"]), |server| Security::Explicit(server.tls())).await
}

async fn over_ftp(server: FtpServer, security: fn(&FtpServer) -> Security) -> Place {
    let config = ftp::Config { security: security(&server), ..server.config() };
    let remote = confined(Config::Ftp(config)).await;
    let folder = Some(server.home().join("wharf/test 1"));
    Place { remote, folder, makes_folders: false, keeps_times: true, resumes: true, server: Server::Ftp(server) }
}

pub(crate) async fn sftp() -> Place {
    sftp_prepared(|_| {})
}

/// The same with a folder to which something is done before the server starts. The server confines nobody: its paths
/// are those of this machine, and the connection sees to the border.
pub(crate) fn sftp_prepared(prepare: impl FnOnce(&Path)) -> Place {
    let above = tempfile::tempdir().unwrap();
    let folder = above.path().join("home/wharf/test 1");
    std::fs::create_dir_all(&folder).unwrap();
    prepare(&folder);
    let server = Openssh::start_in(above, &[], &[]);
    let root = RemotePath::parse(folder.to_str().unwrap()).unwrap();
    let config = Config::Sftp(server.config());
    let remote = Remote::new("place", Common { root, ..common() }, config, &loopback()).unwrap();
    let folder = Some(folder);
    Place { remote, folder, makes_folders: false, keeps_times: true, resumes: true, server: Server::Sftp(server) }
}

pub(crate) async fn dropbox() -> Place {
    let (server, config) = emulator().await;
    let remote = confined(Config::Dropbox(config)).await;
    Place {
        remote,
        folder: None,
        makes_folders: true,
        keeps_times: true,
        resumes: false,
        server: Server::Dropbox(server),
    }
}

/// A stand-in for Dropbox, and the settings that lead to it.
pub(crate) async fn emulator() -> (Running, dropbox::Config) {
    // Whoever builds a TLS configuration first would choose otherwise; a second choice is refused, and that is fine.
    let _chosen_before = rustls::crypto::ring::default_provider().install_default();
    let options = Options::default();
    let credentials = dropbox::Credentials::RefreshToken {
        app_key: options.app_key.clone(),
        app_secret: Some(SecretString::from(options.app_secret.clone())),
        refresh_token: SecretString::from(options.refresh_token.clone()),
    };
    let server = Emulator::start(options).await.unwrap();
    let url = |path: &str| format!("{}/{path}", server.url().trim_end_matches('/')).parse().unwrap();
    let config = dropbox::Config {
        api_url: url(""),
        content_url: url(""),
        token_url: url("oauth2/token"),
        certificate_authority: Some(server.ca_pem().as_bytes().to_vec()),
        ..dropbox::Config::new(credentials).unwrap()
    };
    (server, config)
}
