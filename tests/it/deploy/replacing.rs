//! New versions in place of old ones, and services taken away: no request suffers.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{assert_version, begin_request, end_request, marker, version};
use crate::harness::{Host, eventually, guest};

#[tokio::test]
async fn a_file_that_is_dropped_into_the_folder_is_live() {
    let host = Host::with(&[]).await;
    let missing = host.get("version").await.problem(404);
    assert!(missing.contains("version"), "{missing}");
    host.copy_in("version", &version(1));
    let status = host.wait_for("version", "it serves", |status| status.state == "serving").await;
    assert_eq!(status.export.as_deref(), Some("wharf:host/handler"));
    assert_version(&host, "version", 1).await;
}

#[tokio::test]
async fn a_copy_over_the_file_in_place_replaces_the_service() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("version", &version(1)).await;
    let before = host.service("version").await.and_then(|status| status.generation);
    host.copy_in("version", &version(2));
    host.wait_for("version", "the new version serves", |status| status.generation != before).await;
    assert_version(&host, "version", 2).await;
}

#[tokio::test]
async fn a_file_that_is_renamed_over_the_old_one_replaces_the_service() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("version", &version(1)).await;
    assert_version(&host, "version", 1).await;
    host.deploy_and_wait("version", &version(2)).await;
    assert_version(&host, "version", 2).await;
}

#[tokio::test]
async fn of_versions_that_follow_each_other_quickly_the_last_one_serves() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("version", &version(1)).await;
    for number in 2..=20 {
        if number % 2 == 0 {
            host.copy_in("version", &version(number));
        } else {
            host.deploy("version", &version(number));
        }
    }
    eventually("the last version answers", async || {
        (host.get("version").await.expect(200).text() == marker(20)).then_some(())
    })
    .await;
    // Whatever was begun for the versions between has ended when a later file serves.
    host.deploy_and_wait("later", &version(21)).await;
    assert_version(&host, "version", 20).await;
}

/// How often the service is replaced under load.
const SWAPS: u32 = 20;
/// Requests answered on each version before the next comes.
const REQUESTS_PER_VERSION: u64 = 520;
const CLIENTS: usize = 8;

/// What clients saw while a service was being replaced.
#[derive(Default)]
struct Load {
    answered: AtomicU64,
    /// Answers by version.
    by_version: Vec<AtomicU64>,
    /// The newest version of which the host said that it serves.
    promised: AtomicU64,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Load {
    async fn client(self: Arc<Self>, url: String) {
        let client = Host::client();
        while !self.stop.load(Ordering::Relaxed) {
            let promised = self.promised.load(Ordering::SeqCst);
            if let Err(wrong) = self.request(&client, &url, promised).await {
                self.wrong.lock().unwrap().push(wrong);
            }
            self.answered.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn request(&self, client: &reqwest::Client, url: &str, promised: u64) -> Result<(), String> {
        let answer = client.get(url).send().await.map_err(|error| format!("no answer: {error:?}"))?;
        let status = answer.status();
        let header = answer.headers().get("x-version").map(|value| value.to_str().unwrap_or("?").to_owned());
        let body = answer.text().await.map_err(|error| format!("the answer broke off: {error:?}"))?;
        if status != 200 || header.as_ref() != Some(&body) {
            return Err(format!("{status}, header {header:?}, body {body:?}"));
        }
        let number: u64 = body.trim_start_matches("VERSION-").parse().map_err(|_| format!("answered {body:?}"))?;
        if number < promised {
            return Err(format!("version {number} answered after version {promised} was said to serve"));
        }
        let seen = usize::try_from(number).ok().and_then(|number| self.by_version.get(number));
        seen.ok_or(format!("answered {body:?}"))?.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_service_is_replaced_under_load_no_request_fails_or_sees_two_versions() {
    let host = Host::with(&[]).await;
    host.deploy_and_wait("version", &version(0)).await;
    let by_version = (0..=SWAPS).map(|_| AtomicU64::new(0)).collect();
    let load = Arc::new(Load { by_version, ..Load::default() });
    let begun = Instant::now();
    let clients: Vec<_> =
        (0..CLIENTS).map(|_| tokio::spawn(Arc::clone(&load).client(host.url("/invoke/version")))).collect();
    for number in 0..=SWAPS {
        if number > 0 {
            let before = host.service("version").await.and_then(|status| status.generation);
            // As `cp` does it and as a tool for deploying does it, by turns.
            if number % 2 == 0 {
                host.copy_in("version", &version(number));
            } else {
                host.deploy("version", &version(number));
            }
            host.wait_for("version", "the next version serves", |status| status.generation != before).await;
            load.promised.store(u64::from(number), Ordering::SeqCst);
        }
        let until = load.answered.load(Ordering::SeqCst) + REQUESTS_PER_VERSION;
        eventually("enough requests were answered", async || {
            (load.answered.load(Ordering::SeqCst) >= until).then_some(())
        })
        .await;
    }
    load.stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    let answered = load.answered.load(Ordering::SeqCst);
    println!("{answered} requests across {SWAPS} swaps in {:.1} s", begun.elapsed().as_secs_f32());
    let wrong = load.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{} of {answered}: {:#?}", wrong.len(), wrong.iter().take(10).collect::<Vec<_>>());
    assert!(answered >= 10_000, "{answered}");
    for (number, seen) in load.by_version.iter().enumerate() {
        assert!(seen.load(Ordering::SeqCst) > 0, "version {number} never answered");
    }
}

#[tokio::test]
async fn a_file_that_is_removed_undeploys_its_service_and_the_request_in_flight_ends_well() {
    let host = Host::with(&["stream-body"]).await;
    let request = begin_request(&host, "stream-body").await;
    host.remove("stream-body");
    host.wait_until_gone("stream-body").await;
    host.get("stream-body").await.problem(404);
    let answer = end_request(request).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"5\n"[..]));
}

#[tokio::test]
async fn a_request_ends_on_the_version_that_it_began_with() {
    let host = Host::with(&["stream-body"]).await;
    let request = begin_request(&host, "stream-body").await;
    host.deploy_and_wait("stream-body", &version(3)).await;
    assert_version(&host, "stream-body", 3).await;
    let answer = end_request(request).await;
    assert_eq!((answer.status, answer.body.as_slice()), (200, &b"5\n"[..]));
}

#[tokio::test]
async fn after_the_drain_timeout_a_request_on_a_replaced_version_is_ended_with_503() {
    let builder = Host::builder().services(&["stream-body"]);
    let host = builder.configuration("[host]\ndrain = '500ms'\n[service-defaults]\ntimeout = '10m'").start().await;
    let mut request = begin_request(&host, "stream-body").await;
    host.deploy_and_wait("stream-body", &version(4)).await;
    let answer = request.answer().await.expect("an answer");
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, 503, "{text}");
    assert!(text.contains("was replaced; try again"), "{text}");
    assert_eq!(answer.header("retry-after"), "1");
    host.log().wait_for(&["did not end within the drain timeout"]).await;
    assert_version(&host, "stream-body", 4).await;
}

#[tokio::test]
async fn instances_kept_for_reuse_never_outlive_their_version() {
    let builder = Host::builder().configuration("[service-defaults]\nreuse = 1000");
    let host = builder.start().await;
    for number in 1..=5 {
        host.deploy_and_wait("version", &version(number)).await;
        for _ in 0..20 {
            assert_version(&host, "version", number).await;
        }
    }
}

#[tokio::test]
async fn a_version_that_was_withdrawn_while_it_was_prepared_never_serves() {
    // A cache of its own, so that the first version takes its time.
    let configuration = "[host]\ncompiled = '${folder}/compiled'\ncompilations-max = 2";
    let host = Host::builder().configuration(configuration).start().await;
    host.deploy_and_wait("quick", &version(1)).await;
    let entries = || std::fs::read_dir(host.folder().join("compiled")).unwrap().count();
    let before = entries();
    // Now and then the file is gone before it was read: then there is nothing to prepare, and it is tried again.
    let mut tries = 0;
    let mut is_compiled = false;
    while !is_compiled {
        tries += 1;
        assert!(tries < 10, "the withdrawn version was never compiled");
        host.deploy("service", &guest("probe"));
        host.wait_for("service", "it is known", |_| true).await;
        host.remove("service");
        host.wait_until_gone("service").await;
        host.deploy("service", &version(1));
        host.wait_for("service", "it serves", |status| status.state == "serving").await;
        assert_version(&host, "service", 1).await;
        let compiled = eventually("it", async || (entries() > before).then_some(()));
        is_compiled = tokio::time::timeout(Duration::from_secs(10), compiled).await.is_ok();
        if !is_compiled {
            host.remove("service");
            host.wait_until_gone("service").await;
        }
    }
    // By the time that another one was prepared, what is left of the withdrawn one is over, too.
    host.deploy_and_wait("later", &version(2)).await;
    assert_version(&host, "service", 1).await;
}
