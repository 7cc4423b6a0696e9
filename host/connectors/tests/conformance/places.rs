//! The remotes that must keep the contract: for each protocol, a connection to a server of its own, confined to an
//! empty folder that is not the server's root.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tempfile::TempDir;
use wharf_connectors::{Common, Config, Egress, ErrorKind, Remote, RemotePath, ftp, local};

use crate::proftpd::Proftpd;

/// How many operations the connections allow at once.
pub(crate) const OPERATIONS_MAX: usize = 4;

/// A connection, and what it needs to live.
pub(crate) struct Place {
    pub(crate) remote: Remote,
    /// Where its files are, when that is on this machine.
    pub(crate) folder: Option<PathBuf>,
    /// Whether missing folders are made by the way.
    pub(crate) makes_folders: bool,
    _server: Server,
}

#[expect(dead_code, reason = "held to be dropped at the end of the test")]
enum Server {
    Local(TempDir),
    Ftp(Proftpd),
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
        _server: Server::Local(folder),
    }
}

pub(crate) async fn ftp() -> Place {
    over_ftp(Proftpd::start("").await).await
}

pub(crate) async fn ftp_without_mlsd() -> Place {
    over_ftp(Proftpd::start("FactsAdvertise off").await).await
}

async fn over_ftp(server: Proftpd) -> Place {
    let config = ftp::Config {
        host: "127.0.0.1".to_owned(),
        port: server.port(),
        user: "alice".to_owned(),
        password: SecretString::from("secret"),
        passive: ftp::Passive::Auto,
    };
    let remote = confined(Config::Ftp(config)).await;
    let folder = Some(server.home().join("wharf/test 1"));
    Place { remote, folder, makes_folders: false, _server: Server::Ftp(server) }
}
