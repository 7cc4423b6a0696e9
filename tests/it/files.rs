//! The interface `files` as a service uses it, every operation once, and transfers between connections.

use dropbox_emulator::{Fault, FaultKind};
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Host, Partners, eventually};

const CONFIGURATION: &str = r#"
[connections.disk]
type = "local"
folder = "disk"

[connections.archive]
type = "local"
folder = "archive"

[services.files]
grants = [
    { connection = "disk", access = "write" },
    { connection = "archive", access = "write", path = "/in" },
    { connection = "archive", access = "read" },
]
"#;

async fn start() -> Host {
    let builder = Host::builder().services(&["files"]).configuration(CONFIGURATION);
    let builder = builder.file("disk/a.txt", "content").file("disk/tree/b.csv", "b").file("disk/tree/deep/c.csv", "c");
    builder.file("disk/tree/d.tmp", "d").file("archive/kept", "kept").start().await
}

async fn call(host: &Host, parameters: &str) -> Answer {
    host.get(&format!("files?connection=disk&{parameters}")).await
}

async fn json_of(host: &Host, parameters: &str) -> Value {
    call(host, parameters).await.expect(200).json()
}

#[tokio::test]
async fn what_a_file_is_can_be_asked() {
    let host = start().await;
    assert_eq!(json_of(&host, "op=exists&path=/a.txt").await, json!({ "exists": true }));
    assert_eq!(json_of(&host, "op=exists&path=/missing").await, json!({ "exists": false }));
    let checksum = json_of(&host, "op=checksum&path=/a.txt").await;
    let sha256 = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73";
    assert_eq!(checksum, json!({ "algorithm": "sha256", "value": sha256 }));
    assert!(json_of(&host, "op=ping").await["milliseconds"].is_u64());
}

#[tokio::test]
async fn each_operation_is_a_line_of_the_log_with_the_id_of_its_invocation() {
    let host = start().await;
    let ask = async |id: &str, parameters: &str| {
        let request = host.request(Method::GET, &format!("files?connection=disk&{parameters}"));
        host.send(request.header("x-request-id", id)).await.expect(200);
    };
    ask("one", "op=read&path=/a.txt").await;
    ask("two", "op=transfer&path=/tree&target-connection=archive&target=/in/tree").await;
    let line = |id: &'static str, operation: &'static str, path: &'static str| {
        let log = host.log();
        async move {
            let (id, operation, path) =
                (format!("invocation={id}"), format!("operation=\"{operation}\""), format!("path=\"{path}\""));
            log.wait_for(&["connection operation", "service=files", &id, &operation, &path, "outcome=\"ok\""]).await
        }
    };
    assert!(line("one", "read", "/a.txt").await.contains("bytes=7"));
    line("two", "write", "/in/tree/deep/c.csv").await;
}

#[tokio::test]
async fn a_file_that_was_damaged_on_its_way_is_no_whole_answer() {
    let partners = Partners::start().await;
    let grants = "[services.files]\ngrants = [{ connection = 'team', access = 'read' }]\n";
    let configuration = format!("{}{grants}", partners.connections());
    let host = partners.equip(Host::builder()).services(&["files"]).configuration(&configuration).start().await;
    let damage = Fault::on("files/download", FaultKind::CorruptDownload).times(Fault::EVERY_TIME);
    // In one chunk, and in many.
    for (name, bytes) in [("small", 3), ("large", 3_000_000)] {
        partners.dropbox.put(&format!("/{name}"), &vec![7; bytes]).unwrap();
        let ask = async || {
            let request = host.request(Method::GET, &format!("files?connection=team&op=read&path=/{name}"));
            request.send().await?.error_for_status().unwrap().bytes().await
        };
        assert_eq!(ask().await.unwrap().len(), bytes);
        partners.dropbox.inject(damage.clone()).unwrap();
        let answer = ask().await;
        assert!(answer.is_err(), "{name} is answered whole");
        partners.dropbox.clear_faults();
        let path = format!("path=\"/{name}\"");
        host.log().wait_for(&["connection operation", "operation=\"read\"", &path, "outcome=\"interrupted\""]).await;
    }
}

#[tokio::test]
async fn a_tree_is_walked_with_and_without_a_pattern() {
    let host = start().await;
    let paths = async |parameters: &str| {
        let answer = json_of(&host, parameters).await;
        let pages = answer["pages"].as_array().expect("pages").iter().flat_map(|page| page.as_array().expect("a page"));
        let mut paths: Vec<_> = pages.map(|entry| entry["path"].as_str().expect("a path").to_owned()).collect();
        paths.sort();
        paths
    };
    let everything = ["/tree/b.csv", "/tree/d.tmp", "/tree/deep", "/tree/deep/c.csv"];
    assert_eq!(paths("op=walk&path=/tree").await, everything);
    assert_eq!(paths("op=walk&path=/tree&include=*.csv").await, ["/tree/b.csv", "/tree/deep", "/tree/deep/c.csv"]);
    call(&host, "op=walk&path=/tree&include=[a").await.problem(400);
}

#[tokio::test]
async fn files_are_written_with_their_time_appended_to_copied_and_deleted_with_their_tree() {
    let host = start().await;
    let write = host.post("files?connection=disk&op=write-with&path=/new/deep/file&modified=1000000000", "one").await;
    assert_eq!(write.expect(200).json()["modified"], 1_000_000_000);
    let append = host.post("files?connection=disk&op=append&path=/new/deep/file", " two").await;
    assert_eq!(append.expect(200).json()["size"], 7);
    json_of(&host, "op=set-modified&path=/new/deep/file&modified=1234567890").await;
    let copy = json_of(&host, "op=copy&path=/new/deep/file&target=/new/copy").await;
    assert_eq!((&copy["size"], &copy["modified"]), (&json!(7), &json!(1_234_567_890)));
    call(&host, "op=copy&path=/new/deep/file&target=/new/copy").await.problem(409);
    assert_eq!(call(&host, "op=read&path=/new/copy").await.expect(200).text(), "one two");
    json_of(&host, "op=make-directories&path=/new/x/y/z").await;
    json_of(&host, "op=make-directories&path=/new/x/y/z").await;
    json_of(&host, "op=delete-tree&path=/new").await;
    call(&host, "op=stat&path=/new").await.problem(404);
    call(&host, "op=delete-tree&path=/").await.problem(400);
}

#[tokio::test]
async fn a_tree_is_moved_to_another_connection() {
    let host = start().await;
    let answer = json_of(&host, "op=transfer&path=/tree&target-connection=archive&target=/in/tree&move=1").await;
    assert_eq!((&answer["transferred"], &answer["bytes"]), (&json!(3), &json!(3)), "{answer}");
    assert_eq!(answer["results"].as_array().expect("results").len(), 3);
    call(&host, "op=stat&path=/tree").await.problem(404);
    let moved = host.get("files?connection=archive&op=read&path=/in/tree/deep/c.csv").await;
    assert_eq!(moved.expect(200).text(), "c");
}

#[tokio::test]
async fn a_transfer_leads_nowhere_but_where_it_is_granted() {
    let host = start().await;
    let detail = call(&host, "op=transfer&path=/tree&target-connection=archive&target=/elsewhere").await.problem(403);
    assert!(detail.contains("path = \"/\""), "{detail}");
    let kept =
        host.get("files?connection=archive&op=transfer&path=/kept&target-connection=disk&target=/k&move=1").await;
    kept.problem(403);
    let copied = host.get("files?connection=archive&op=transfer&path=/kept&target-connection=disk&target=/k").await;
    assert_eq!(copied.expect(200).json()["transferred"], 1);
}

#[tokio::test]
async fn operators_see_what_services_do_with_their_connections() {
    let host = start().await;
    call(&host, "op=read&path=/a.txt").await.expect(200);
    call(&host, "op=stat&path=/missing").await.problem(404);
    let answer = host.admin("/metrics").await.expect(200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let text = answer.text();
    let value = |name: &str, labels: &[&str]| {
        let has =
            |line: &&str| line.starts_with(&format!("{name}{{")) && labels.iter().all(|label| line.contains(label));
        let line = text.lines().find(has).unwrap_or_else(|| panic!("no {name} {labels:?} in\n{text}"));
        line.rsplit(' ').next().expect("a value").to_owned()
    };
    assert_eq!(value("wharf_service_invocations_total", &["service=\"files\""]), "2");
    assert_eq!(value("wharf_service_in_flight", &["service=\"files\""]), "0");
    let (disk, read) = ("connection=\"disk\"", "operation=\"read\"");
    assert_eq!(value("wharf_connection_operations_total", &[disk, read, "outcome=\"ok\""]), "1");
    assert_eq!(value("wharf_connection_bytes_total", &[disk, read, "type=\"local\""]), "7");
    assert_eq!(value("wharf_connection_operation_seconds_count", &[disk, read]), "1");
    assert_eq!(value("wharf_connection_operations_total", &[disk, "operation=\"stat\"", "outcome=\"not-found\""]), "1");
}

#[tokio::test]
async fn an_operation_whose_caller_goes_away_is_told_as_cut_off() {
    let host = start().await;
    // More than all buffers between the two hold.
    std::fs::File::create(host.folder().join("disk/large")).unwrap().set_len(256 << 20).unwrap();
    let mut client = host.connect().await;
    client.send("GET /invoke/files?connection=disk&op=read&path=/large HTTP/1.1\r\nHost: test\r\n\r\n").await;
    client.read_until(b"\r\n\r\n").await.expect("the answer begins");
    drop(client);
    let line = "wharf_connection_operations_total{connection=\"disk\",type=\"local\",operation=\"read\",\
                outcome=\"cut-off\"} 1";
    let told = async || host.admin("/metrics").await.expect(200).text().contains(line).then_some(());
    eventually("the metrics tell that the read was cut off", told).await;
}
