//! What cannot serve: it never takes the place of what serves, and the operator is told why.

use super::{assert_version, padded, sha256, version};
use crate::harness::{Host, LastError, guest};

/// Deploys something bad over a good version, which must go on, and gives the reason that operators are told.
async fn refused_over_a_good_version(configuration: &str, component: &[u8]) -> String {
    let host = Host::builder().configuration(configuration).start().await;
    host.deploy_and_wait("service", &version(1)).await;
    host.deploy("service", component);
    let LastError { generation, reason } = refusal(&host).await;
    // What is too large was not read.
    assert!(generation.is_none_or(|generation| generation == sha256(component)), "{reason}");
    let line = host.log().wait_for(&["not deployed", "the version before it goes on serving"]).await;
    assert!(line.contains(reason.lines().next().unwrap_or_default()), "{line}\n{reason}");
    // The good one, again: nothing is left to complain about.
    host.deploy("service", &version(1));
    host.wait_for("service", "the refusal is forgotten", |status| status.last_error.is_none()).await;
    host.deploy_and_wait("service", &version(2)).await;
    assert_version(&host, "service", 2).await;
    reason
}

/// Waits until the newest version is refused; version 1 must serve meanwhile.
async fn refusal(host: &Host) -> LastError {
    let status = host.wait_for("service", "the new version is refused", |status| status.last_error.is_some()).await;
    assert_eq!(status.state, "serving");
    assert_version(host, "service", 1).await;
    status.last_error.expect("it is refused")
}

#[track_caller]
fn assert_says(reason: &str, parts: &[&str]) {
    for part in parts {
        assert!(reason.contains(part), "{part:?} is not in: {reason}");
    }
}

#[tokio::test]
async fn rubbish_is_refused_with_its_first_bytes() {
    let reason = refused_over_a_good_version("", b"rubbish\n").await;
    assert_says(&reason, &["it is not WebAssembly", "72 75 62 62", "00 61 73 6d"]);
}

#[tokio::test]
async fn an_empty_file_is_refused() {
    assert_says(&refused_over_a_good_version("", b"").await, &["the file is empty"]);
}

#[tokio::test]
async fn a_core_module_is_refused_with_the_way_to_a_component() {
    let reason = refused_over_a_good_version("", &guest("core-module")).await;
    assert_says(&reason, &["core module, not a component", "wasm32-wasip2", "wasm-tools component new"]);
}

#[tokio::test]
async fn a_component_that_is_cut_off_is_refused_as_that() {
    let component = version(7);
    for length in [6, component.len() / 2, component.len() - 1] {
        let reason = refused_over_a_good_version("", &component[..length]).await;
        assert_says(&reason, &["it is cut off"]);
    }
}

#[tokio::test]
async fn a_component_with_a_broken_section_is_refused() {
    let mut component = version(7)[..8].to_vec();
    // A section of a kind that does not exist.
    component.extend([0x7f, 3, 1, 2, 3]);
    assert_says(&refused_over_a_good_version("", &component).await, &["it does not compile"]);
}

#[tokio::test]
async fn a_component_of_an_unknown_version_is_refused() {
    let reason = refused_over_a_good_version("", b"\0asm\x0e\0\x01\0").await;
    assert_says(&reason, &["unknown version", "0e 00 01 00"]);
}

#[tokio::test]
async fn an_unknown_import_is_refused_with_the_nearest_interface() {
    let reason = refused_over_a_good_version("", &guest("unknown-import")).await;
    assert_says(&reason, &["wharf:host/nothing@0.1.0", "the nearest is wharf:host/", "@0.1.0"]);
}

#[tokio::test]
async fn an_import_of_a_newer_version_is_refused_with_the_version_that_is_there() {
    let reason = refused_over_a_good_version("", &guest("newer-import")).await;
    assert_says(&reason, &["wharf:host/files@0.9.0", "in version 0.1.0"]);
}

#[tokio::test]
async fn a_component_that_exports_nothing_to_call_is_refused_with_what_could_be_called() {
    let reason = refused_over_a_good_version("", &guest("no-export")).await;
    let callable =
        ["wharf:host/handler@0.1", "wasi:http/incoming-handler@0.2", "wasi:http/handler@0.3", "wasi:cli/run@0.2"];
    assert_says(&reason, &["test:guest/thing"]);
    assert_says(&reason, &callable);
}

#[tokio::test]
async fn a_component_beyond_the_limit_is_refused_with_the_setting_that_would_allow_it() {
    let component = padded(&version(7), 1024 * 1024);
    let reason = refused_over_a_good_version("[host]\ncomponent-max = '1MiB'", &component).await;
    assert_says(&reason, &[&component.len().to_string(), "1048576", "component-max under [host]"]);
}

#[tokio::test]
async fn a_file_that_cannot_be_read_is_refused_with_what_the_system_says() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("service", &version(1)).await;
    // A regular file whose first byte cannot be read, by nobody.
    let temporary = host.folder().join("unreadable");
    std::os::unix::fs::symlink("/proc/self/mem", &temporary).unwrap();
    std::fs::rename(&temporary, host.component_path("service")).unwrap();
    assert_says(&refusal(&host).await.reason, &["it cannot be read", "os error"]);
    host.deploy_and_wait("service", &version(2)).await;
    assert_version(&host, "service", 2).await;
}

#[tokio::test]
async fn a_service_whose_first_version_is_bad_says_so_to_its_callers_until_a_good_one_comes() {
    let host = Host::builder().service("bad", "no-export").start().await;
    let status = host.service("bad").await.expect("it is known");
    assert_eq!(status.state, "failed");
    let detail = host.get("bad").await.problem(503);
    assert_says(&detail, &["no version that can serve", "exports nothing"]);
    host.deploy_and_wait("bad", &version(1)).await;
    assert_version(&host, "bad", 1).await;
}
