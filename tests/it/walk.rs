//! The walk of the README: three services in three languages move files into Dropbox, from HTTP requests and from an
//! FTP server. Nothing is lost when a side fails, and the answer says what went wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use dropbox_emulator::{Fault, FaultKind, content_hash};
use reqwest::Method;

use crate::harness::{Answer, Host, Partners, guest};

const SERVICES: [&str; 3] = ["api.connector.dropbox", "api.channel.rest.upload", "api.channel.ftp.transfer"];
const CONNECTOR: &str = "api.connector.dropbox";

/// What the operator of the demo granted.
const GRANTS: &str = r#"
[services."api.connector.dropbox"]
grants = [{ connection = "team", access = "write", path = "/" }]

[services."api.channel.ftp.transfer"]
grants = [{ connection = "partner", access = "write", path = "/" }]
"#;

/// Names that people give to files.
const NAMES: [&str; 5] = [
    "report.csv",
    "two words.txt",
    "Gr\u{fc}\u{df}e \u{e4}\u{f6}\u{fc}.txt",
    "\u{1f600} smile.txt",
    "100% & more+.txt",
];

async fn start(partners: &Partners) -> Host {
    start_with(partners, &format!("{}{GRANTS}", partners.connections())).await
}

async fn start_with(partners: &Partners, configuration: &str) -> Host {
    partners.equip(Host::builder()).services(&SERVICES).configuration(configuration).start().await
}

async fn upload(host: &Host, name: &str, content: Vec<u8>) -> Answer {
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect();
    host.post(&format!("api.channel.rest.upload?file_name={name}"), content).await
}

async fn transfer(host: &Host) -> Answer {
    host.send(host.request(Method::POST, "api.channel.ftp.transfer")).await
}

/// Bytes that differ from file to file and from place to place.
fn content(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place.wrapping_mul(31).wrapping_add(place >> 8).wrapping_add(seed * 7)) as u8).collect()
}

/// What Dropbox has, by name: the hash of each content.
fn stored(partners: &Partners) -> BTreeMap<String, String> {
    let files = partners.dropbox.files().into_iter();
    files.map(|file| (file.path.trim_start_matches('/').to_owned(), file.content_hash)).collect()
}

fn hashes<'n>(files: impl IntoIterator<Item = (&'n str, Vec<u8>)>) -> BTreeMap<String, String> {
    files.into_iter().map(|(name, content)| (name.to_owned(), content_hash(&content))).collect()
}

/// The reasons of the files that were not moved.
fn reasons(answer: &Answer) -> Vec<String> {
    let document = answer.json();
    let files = document["files"].as_array().expect("files");
    files.iter().filter_map(|file| file["reason"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_file_that_is_posted_ends_in_dropbox_under_its_name() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    for (seed, name) in NAMES.into_iter().enumerate() {
        let bytes = content(seed, 200_000 * seed + 1);
        let answer = upload(&host, name, bytes.clone()).await.expect(200).json();
        assert_eq!(answer["path"], format!("/{name}"));
        assert_eq!(answer["size"], bytes.len());
        assert_eq!(answer["content_hash"], content_hash(&bytes));
        assert_eq!(partners.dropbox.content(&format!("/{name}")), Some(bytes));
    }
    upload(&host, "empty", Vec::new()).await.expect(200);
    assert_eq!(partners.dropbox.content("/empty"), Some(Vec::new()));
    assert_eq!(partners.dropbox.files().len(), NAMES.len() + 1);
}

#[tokio::test]
async fn a_file_posted_in_pieces_of_unknown_number_ends_in_dropbox_too() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let bytes = content(1, 3_000_000);
    let pieces: Vec<Result<Vec<u8>, std::io::Error>> = bytes.chunks(70_000).map(|piece| Ok(piece.to_vec())).collect();
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let answer = host.post("api.channel.rest.upload?file_name=pieces.bin", body).await.expect(200).json();
    assert_eq!(answer["path"], "/pieces.bin");
    assert_eq!(partners.dropbox.content("/pieces.bin"), Some(bytes));
}

#[tokio::test]
async fn two_files_of_one_name_are_both_kept_and_the_same_file_twice_is_one() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    upload(&host, "a.txt", b"first".to_vec()).await.expect(200);
    upload(&host, "a.txt", b"first".to_vec()).await.expect(200);
    let answer = upload(&host, "a.txt", b"second".to_vec()).await.expect(200).json();
    assert_eq!(answer["path"], "/a (1).txt");
    assert_eq!(stored(&partners), hashes([("a.txt", b"first".to_vec()), ("a (1).txt", b"second".to_vec())]));
}

#[tokio::test]
async fn a_name_that_is_missing_or_a_path_is_refused_with_what_to_write() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let missing = host.post("api.channel.rest.upload", "x").await.problem(400);
    assert!(missing.contains("?file_name=report.csv"), "{missing}");
    let path = upload(&host, "../secret", b"x".to_vec()).await.problem(400);
    assert!(path.contains("plain file name"), "{path}");
    assert_eq!(partners.dropbox.files(), []);
}

#[tokio::test]
async fn files_on_the_ftp_server_are_moved_to_dropbox() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let mut files: BTreeMap<&str, Vec<u8>> =
        NAMES.into_iter().enumerate().map(|(seed, name)| (name, content(seed, 300_000 * seed + 5))).collect();
    files.insert("empty", Vec::new());
    for (name, bytes) in &files {
        partners.ftp.put(name, bytes);
    }
    for unfinished in [".hidden", "upload.part", "report.csv.tmp"] {
        partners.ftp.put(unfinished, "not yet");
    }
    let answer = transfer(&host).await.expect(200).json();
    assert_eq!((&answer["moved"], &answer["failed"]), (&files.len().into(), &0.into()), "{answer}");
    assert_eq!(stored(&partners), hashes(files));
    let left = [".hidden", "report.csv.tmp", "upload.part"].map(str::to_owned);
    assert_eq!(partners.ftp.names(), BTreeSet::from(left));
    let answer = transfer(&host).await.expect(200).json();
    assert_eq!(answer["files"], serde_json::json!([]));
}

#[tokio::test]
async fn a_file_is_gone_from_the_ftp_server_only_after_dropbox_has_it() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let names: BTreeSet<String> = (0..5).map(|number| format!("file-{number}")).collect();
    for name in &names {
        partners.ftp.put(name, content(1, 500_000));
    }
    // Time enough to look in the middle of each.
    let slow = Fault::on("files/upload", FaultKind::Latency { milliseconds: 100 });
    partners.dropbox.inject(slow.times(Fault::EVERY_TIME)).unwrap();
    let mut answer = std::pin::pin!(transfer(&host));
    let mut looks = 0;
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            () = tokio::time::sleep(Duration::from_millis(1)) => {
                // In this order: what was gone a moment ago must be there by now.
                let left = partners.ftp.names();
                let stored = partners.stored();
                let lost: Vec<&String> = names.difference(&left).filter(|name| !stored.contains(*name)).collect();
                assert!(lost.is_empty(), "neither here nor there: {lost:?}");
                looks += 1;
            }
        }
    };
    answer.expect(200);
    assert!(looks > 50, "looked {looks} times");
    assert_eq!((partners.ftp.names(), partners.stored()), (BTreeSet::new(), names));
}

#[tokio::test]
async fn what_dropbox_refuses_stays_on_the_ftp_server_until_dropbox_takes_it() {
    let refusals: [(FaultKind, &[&str]); 4] = [
        (FaultKind::ServiceUnavailable, &["overloaded", "try again"]),
        (FaultKind::InsufficientSpace, &["space"]),
        (FaultKind::InvalidAccessToken, &["token"]),
        (FaultKind::DropBeforeEffect, &["upload it again"]),
    ];
    let partners = Partners::start().await;
    // An overloaded Dropbox is waited for until shortly before the deadline.
    let configuration = format!("{}{GRANTS}[service-defaults]\ntimeout = '10s'\n", partners.connections());
    let host = start_with(&partners, &configuration).await;
    let mut moved = BTreeSet::new();
    for (number, (kind, words)) in refusals.into_iter().enumerate() {
        let name = format!("file-{number}");
        let bytes = content(number, 100_000);
        partners.ftp.put(&name, &bytes);
        partners.dropbox.inject(Fault::on("files/upload", kind.clone()).times(Fault::EVERY_TIME)).unwrap();
        let answer = transfer(&host).await.expect(502);
        let reasons = reasons(&answer);
        assert_eq!(reasons.len(), 1, "{kind:?}: {reasons:?}");
        assert!(words.iter().all(|word| reasons[0].contains(word)), "{kind:?}: {reasons:?}");
        assert_eq!(std::fs::read(partners.ftp.home().join(&name)).unwrap(), bytes);
        assert_eq!(partners.stored(), moved);
        partners.dropbox.clear_faults();
        transfer(&host).await.expect(200);
        assert_eq!(partners.dropbox.content(&format!("/{name}")), Some(bytes));
        moved.insert(name);
        assert_eq!((partners.ftp.names(), partners.stored()), (BTreeSet::new(), moved.clone()));
    }
}

#[tokio::test]
async fn a_rate_limit_is_waited_for_and_the_file_arrives() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    partners.ftp.put("a.txt", "content");
    partners.dropbox.inject(Fault::on("files/upload", FaultKind::RateLimitJson { retry_after_seconds: 2 })).unwrap();
    let begun = Instant::now();
    transfer(&host).await.expect(200);
    assert!(begun.elapsed() >= Duration::from_secs(2), "the wait that Dropbox asked for: {:?}", begun.elapsed());
    assert_eq!(partners.ftp.names(), BTreeSet::new());
    assert_eq!(stored(&partners), hashes([("a.txt", b"content".to_vec())]));
}

#[tokio::test]
async fn a_pause_that_ends_after_the_deadline_is_told_at_once_and_one_within_it_is_waited_for() {
    let partners = Partners::start().await;
    let configuration = format!("{}{GRANTS}[service-defaults]\ntimeout = '6s'\n", partners.connections());
    let host = start_with(&partners, &configuration).await;
    partners.ftp.put("a.txt", "content");
    partners.dropbox.inject(Fault::on("files/upload", FaultKind::RateLimitJson { retry_after_seconds: 8 })).unwrap();
    let begun = Instant::now();
    let reasons = reasons(&transfer(&host).await.expect(502));
    assert!(reasons[0].contains("try again in 8 s"), "{reasons:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // By then so much of the pause is over that the rest fits.
    tokio::time::sleep(Duration::from_secs(4)).await;
    transfer(&host).await.expect(200);
    assert!(begun.elapsed() >= Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(stored(&partners), hashes([("a.txt", b"content".to_vec())]));
}

#[tokio::test]
async fn an_upload_whose_answer_got_lost_is_one_file_in_the_end() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let bytes = content(3, 700_000);
    partners.ftp.put("a.txt", &bytes);
    partners.dropbox.inject(Fault::on("files/upload", FaultKind::DropAfterCommit)).unwrap();
    transfer(&host).await.expect(200);
    assert_eq!(partners.ftp.names(), BTreeSet::new());
    assert_eq!(stored(&partners), hashes([("a.txt", bytes)]));
}

#[tokio::test]
async fn the_connector_is_replaced_while_requests_run_and_none_is_lost() {
    let partners = Partners::start().await;
    let host = start(&partners).await;
    let connector = guest(CONNECTOR);
    let mut expected = BTreeMap::new();
    for round in 0..5_usize {
        let uploads = futures::future::join_all((0..8).map(|number| {
            let name = format!("file-{round}-{number}");
            let bytes = content(round * 8 + number, 200_000);
            expected.insert(name.clone(), content_hash(&bytes));
            let host = &host;
            async move { upload(host, &name, bytes).await.expect(200) }
        }));
        // An empty custom section more each time: another component of the same meaning.
        let mut next = connector.clone();
        for _ in 0..=round {
            next.extend([0, 5, 4, b'n', b'o', b't', b'e']);
        }
        let (_, status) = tokio::join!(uploads, host.deploy_and_wait(CONNECTOR, &next));
        assert!(status.last_error.is_none(), "{status:?}");
    }
    assert_eq!(stored(&partners), expected);
}

#[tokio::test]
async fn a_wrong_ftp_password_is_said_and_never_shown() {
    let partners = Partners::start().await;
    let password = "hunter2-of-the-wrong-kind";
    let configuration = format!("{}{GRANTS}", partners.connections());
    let builder = partners.equip(Host::builder()).file("ftp-password", password).services(&SERVICES);
    let host = builder.configuration(&configuration).start().await;
    let answer = transfer(&host).await;
    let detail = answer.problem(403);
    assert!(detail.contains("refused the login of \"alice\""), "{detail}");
    let seen = format!("{:?}{}{}", answer.headers, answer.text(), host.log().lines().join("\n"));
    assert!(!seen.contains(password), "{seen}");
    // The right password, in the file that the configuration refers to: the host follows.
    partners.ftp.put("a.txt", "content");
    std::fs::write(host.folder().join("ftp-password"), "secret").unwrap();
    crate::harness::eventually("the right password is used", async || {
        (transfer(&host).await.status == 200).then_some(())
    })
    .await;
    assert_eq!(stored(&partners), hashes([("a.txt", b"content".to_vec())]));
}

#[tokio::test]
async fn an_ftp_server_that_refuses_connections_is_named() {
    let partners = Partners::start().await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let elsewhere = format!(
        "[connections.partner]\ntype = 'ftp'\nhost = '127.0.0.1'\nport = {port}\nuser = 'alice'\n\
         password = {{ file = 'ftp-password' }}\n[services.'api.channel.ftp.transfer']\n\
         grants = [{{ connection = 'partner', access = 'write' }}]"
    );
    let host = start_with(&partners, &elsewhere).await;
    let detail = transfer(&host).await.problem(503);
    assert!(detail.contains(&format!("127.0.0.1:{port}")), "{detail}");
}

#[tokio::test]
async fn a_connection_that_is_not_configured_or_not_granted_is_said_with_what_would_help() {
    let partners = Partners::start().await;
    let host = start_with(&partners, "").await;
    let detail = transfer(&host).await.problem(404);
    assert!(detail.contains("\"partner\"") && detail.contains("[connections.NAME]"), "{detail}");
    let detail = upload(&host, "a.txt", b"x".to_vec()).await.problem(404);
    assert!(detail.contains("\"team\"") && detail.contains("[connections.NAME]"), "{detail}");

    host.configure(&partners.connections());
    let granted = |service: &str, connection: &str| {
        let grant = format!("{{ connection = \"{connection}\", access = \"read\", path = \"/\" }}");
        format!("add {grant} to grants of [services.\"{service}\"]")
    };
    let denied = crate::harness::eventually("the connections are known", async || {
        let answer = transfer(&host).await;
        (answer.status != 404).then_some(answer)
    })
    .await;
    let detail = denied.problem(403);
    assert!(detail.contains(&granted("api.channel.ftp.transfer", "partner")), "{detail}");
    let detail = upload(&host, "a.txt", b"x".to_vec()).await.problem(403);
    assert!(detail.contains(&granted(CONNECTOR, "team")), "{detail}");
    assert_eq!(partners.dropbox.files(), []);
}
