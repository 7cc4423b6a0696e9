//! The official Python SDK against the emulator: a client that knows nothing of this project.

use std::path::PathBuf;
use std::process::Stdio;

use dropbox_emulator::{Fault, FaultKind, Options};
use tokio::process::Command;

use crate::client::start_with;

/// The folder into which `make setup` brings what the tests need.
pub(crate) fn cache() -> PathBuf {
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set"));
    let cache =
        || std::env::var_os("XDG_CACHE_HOME").map_or_else(|| home().join(".cache"), PathBuf::from).join("wharf");
    std::env::var_os("WHARF_CACHE").map_or_else(cache, PathBuf::from)
}

#[tokio::test]
async fn the_official_python_sdk_works_against_the_emulator() {
    let python = cache().join("python/bin/python");
    assert!(python.exists(), "{} is missing: run `make setup`", python.display());
    let emulator = start_with(Options { page_entries: 3, ..Options::default() }).await;
    // The SDK retries by itself; each of these costs it one attempt, or one refresh of its token.
    emulator.inject(Fault::on("users/get_space_usage", FaultKind::InternalError)).unwrap();
    emulator.inject(Fault::on("users/get_space_usage", FaultKind::RateLimitJson { retry_after_seconds: 0 })).unwrap();
    emulator.inject(Fault::on("users/get_space_usage", FaultKind::RateLimitText { retry_after_seconds: 0 })).unwrap();
    emulator.inject(Fault::on("users/get_space_usage", FaultKind::ExpiredAccessToken)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, emulator.ca_pem()).unwrap();

    let host = emulator.address().to_string();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/python_sdk.py");
    let mut command = Command::new(python);
    command.arg(script).arg(&ca_file).stdin(Stdio::null()).kill_on_drop(true);
    for variable in ["DROPBOX_API_HOST", "DROPBOX_API_CONTENT_HOST", "DROPBOX_API_NOTIFY_HOST"] {
        command.env(variable, &host);
    }
    // These would win over the certificate authority the script names, and send it elsewhere.
    for variable in ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"] {
        command.env_remove(variable);
    }
    let output = command.output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    if error.contains("No module named 'dropbox'") {
        panic!("the Dropbox SDK is missing: run `make setup`");
    }
    assert!(output.status.success(), "{}\n{error}\n{:?}", String::from_utf8_lossy(&output.stdout), emulator.requests());

    let usage: Vec<_> =
        emulator.requests().into_iter().filter(|request| request.route == "users/get_space_usage").collect();
    let statuses: Vec<_> = usage.iter().map(|request| request.status.unwrap()).collect();
    assert_eq!(statuses, [500, 429, 429, 401, 200]);
    let refreshes = emulator.requests().into_iter().filter(|request| request.route == "oauth2/token").count();
    assert_eq!(refreshes, 4, "one at the start, one after 401, one refused, one by PKCE");
    assert_eq!(emulator.files().iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["/left behind 😀.txt"]);
    assert_eq!(emulator.content("/left behind 😀.txt").unwrap(), b"from Python");
}
