//! A Dropbox account, against a scripted server for each fault and against the emulator for how it all goes together.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends, and tells why")]

mod account;
mod accounts;
mod calls;
mod emulated;
mod listings;
mod scripted;
mod sessions;
mod transfers;

use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use wharf_connectors::dropbox::{Account, Config, Credentials};
use wharf_connectors::{Common, Egress, Remote, RemotePath};

use scripted::Scripted;

fn access_token() -> Credentials {
    Credentials::AccessToken("ACCESS-0".to_owned().into())
}

fn refresh_token() -> Credentials {
    Credentials::RefreshToken {
        app_key: "KEY".to_owned(),
        app_secret: Some("APP-SECRET".to_owned().into()),
        refresh_token: "REFRESH-SECRET".to_owned().into(),
    }
}

fn config(server: &Scripted, credentials: Credentials) -> Config {
    Config {
        api_url: server.url.parse().unwrap(),
        content_url: server.url.parse().unwrap(),
        token_url: format!("{}oauth2/token", server.url).parse().unwrap(),
        ..Config::new(credentials).unwrap()
    }
}

fn common() -> Common {
    Common { connect_timeout: Duration::from_secs(2), read_timeout: Duration::from_secs(2), ..Common::default() }
}

fn connect(server: &Scripted, common: Common, credentials: Credentials) -> Remote {
    let egress = Arc::new(Egress::new(vec!["127.0.0.0/8".parse().unwrap()]));
    let config = wharf_connectors::Config::Dropbox(config(server, credentials));
    Remote::new("team", common, config, &egress).unwrap()
}

fn remote(server: &Scripted) -> Remote {
    connect(server, common(), access_token())
}

fn account(server: &Scripted, root: &str) -> Account {
    let common = Common { root: path(root), ..common() };
    connect(server, common, access_token()).dropbox().unwrap()
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

/// The content hash of at most one block.
fn small_hash(bytes: &[u8]) -> String {
    let block = if bytes.is_empty() { Vec::new() } else { Sha256::digest(bytes).to_vec() };
    Sha256::digest(block).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn file_metadata(path: &str, content: &[u8]) -> serde_json::Value {
    serde_json::json!({
        ".tag": "file",
        "name": path.rsplit('/').next(),
        "path_display": path,
        "path_lower": path.to_lowercase(),
        "id": "id:1",
        "rev": "0123456789",
        "size": content.len(),
        "content_hash": small_hash(content),
        "server_modified": "2015-05-12T15:50:38Z",
        "client_modified": "2015-05-12T15:50:38Z",
        "is_downloadable": true,
    })
}
