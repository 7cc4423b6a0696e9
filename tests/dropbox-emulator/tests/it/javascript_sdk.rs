//! The official JavaScript SDK against the emulator: a client that knows nothing of this project.

use std::process::Stdio;

use tokio::process::Command;

use crate::client::start;
use crate::python_sdk::cache;

#[tokio::test]
async fn the_official_javascript_sdk_works_against_the_emulator() {
    let folder = cache().join("javascript-sdk");
    assert!(folder.join("node_modules/dropbox").exists(), "the Dropbox SDK is missing: run `scripts/setup servers`");
    let emulator = start().await;
    let temporary = tempfile::tempdir().unwrap();
    let ca_file = temporary.path().join("ca.pem");
    std::fs::write(&ca_file, emulator.ca_pem()).unwrap();
    let mut command = Command::new("node");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/javascript_sdk.mjs")).arg(folder);
    // The name, because the SDK's own HTTP client does not compare addresses.
    command.arg(format!("localhost:{}", emulator.address().port())).env("NODE_EXTRA_CA_CERTS", &ca_file);
    for variable in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NODE_USE_ENV_PROXY"] {
        command.env_remove(variable);
    }
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{error}", String::from_utf8_lossy(&output.stdout));
    assert!(emulator.files().is_empty());
}
