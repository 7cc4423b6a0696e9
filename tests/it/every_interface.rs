//! Every function of every interface of the contract, called once from each language against real servers: what the
//! service gets, and what became of the servers. One service in each language, the guest examples named `tour`, the same
//! steps in all of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Host, Origin, Partners, SftpServer, answer};

/// The time that the services give to what they write.
const LONG_AGO: i64 = 1_000_000_000;

/// Everything that a tour reaches.
struct World {
    origin: Origin,
    partners: Partners,
    vault: SftpServer,
    host: Host,
}

/// Starts all servers, and a host with this service, which is granted all of them or none.
async fn start(service: &str, is_granted: bool) -> World {
    let origin = Origin::start(|seen| {
        let line = seen.lines().next().unwrap_or_default();
        answer(200, "Content-Type: text/plain\r\n", &format!("you asked: {line}"))
    })
    .await;
    let (partners, vault) = (Partners::start().await, SftpServer::start());
    let others = format!(
        "[connections.disk]\ntype = 'local'\nfolder = 'disk'\n[connections.api]\ntype = 'http'\n\
         url = 'https://127.0.0.1:{}/v1'\ncertificate-authority = 'authority.pem'\n\
         bearer-token = {{ env = 'API_TOKEN' }}\n",
        origin.port()
    );
    let grants = ["disk", "partner", "vault", "team", "api"]
        .map(|connection| format!("[[services.{service}.grants]]\nconnection = '{connection}'\naccess = 'write'\n"));
    let grants = if is_granted { grants.concat() } else { String::new() };
    let tables = [partners.connections(), vault.connection("vault"), others, grants];
    let host = partners
        .equip(Host::builder())
        .file("sftp-password", "secret")
        .file("authority.pem", origin.authority())
        .variable("API_TOKEN", "hunter2")
        .file("disk/there-before", "")
        .configuration(&tables.join("\n"))
        .services(&[service, "hello"])
        .start()
        .await;
    World { origin, partners, vault, host }
}

impl World {
    /// The steps of a tour, or of one of its chapters.
    async fn tour(&self, service: &str, chapter: Option<&str>) -> Vec<Value> {
        let only = chapter.map(|chapter| format!("&only={chapter}")).unwrap_or_default();
        let target = format!("{service}?url=https://127.0.0.1:{}/v1/users/7{only}", self.origin.port());
        let answer = self.host.get(&target).await;
        assert_eq!(answer.header("content-type"), "application/json", "{}", answer.text());
        assert!(!answer.text().contains("hunter2"));
        answer.json().as_array().expect("a list of steps").clone()
    }
}

/// What each step gets, in every language. The links of the account are in the answer, too, but differ.
fn expected() -> Vec<(&'static str, Value)> {
    let transferred = json!([["/tour/renamed.csv", 14], ["/tour/report.csv", 14], 2]);
    vec![
        ("services.invoke", json!("Hello, tour, from Rust\n")),
        ("files.remote.open", json!(null)),
        ("files.ping", json!(true)),
        ("files.make-directory", json!(null)),
        ("files.make-directories", json!(null)),
        ("files.write", json!(8)),
        ("files.write-with", json!(LONG_AGO)),
        ("files.create", json!(9)),
        ("files.create-with", json!(10)),
        ("files.append", json!(14)),
        ("files.exists", json!([true, false])),
        ("files.stat", json!("file")),
        ("files.list", json!(["a", "c", "d", "report.csv"])),
        ("files.open-listing", json!(["old.txt"])),
        ("files.walk", json!(["/tour/a", "/tour/a/b", "/tour/a/made.txt", "/tour/c", "/tour/c/old.txt"])),
        ("files.read", json!("one,two\nthree\n")),
        ("files.read-range", json!("two")),
        ("types.body.size", json!(14)),
        ("types.body.stream", json!("one,two\nthree\n")),
        ("types.body.from-stream", json!(14)),
        ("files.copy", json!("copy.csv")),
        ("files.checksum", json!("sha256")),
        ("files.set-modified", json!(null)),
        ("files.rename", json!(null)),
        ("files.delete", json!(null)),
        ("files.delete-tree", json!(null)),
        ("an error", json!("already-exists")),
        ("files.remote.open partner", json!(null)),
        ("files.transfer to partner", transferred.clone()),
        ("files.remote.open vault", json!(null)),
        ("files.transfer to vault", transferred.clone()),
        ("files.remote.open team", json!(null)),
        ("files.transfer to team", transferred),
        ("dropbox.account.open", json!(null)),
        ("dropbox.create-folder", json!("/trip")),
        ("dropbox.latest-cursor", json!(true)),
        ("dropbox.upload", json!(10)),
        ("dropbox.upload an update", json!(11)),
        ("dropbox.upload over it", json!("notes.paper")),
        ("dropbox.longpoll", json!(true)),
        ("dropbox.changes", json!(["/trip/notes.paper", "/trip/plan.txt"])),
        ("dropbox.get-metadata", json!("file")),
        ("dropbox.download", json!("second plan")),
        ("dropbox.list-folder", json!(["notes.paper", "plan.txt"])),
        ("dropbox.list-folder-with", json!(["notes.paper", "plan.txt"])),
        ("dropbox.search", json!(["notes.paper", "plan.txt"])),
        ("dropbox.revisions", json!(2)),
        ("dropbox.download-revision", json!("first plan")),
        ("dropbox.restore", json!(10)),
        ("dropbox.export", json!(["notes.md", "# Notes"])),
        ("dropbox.download-zip", json!("PK")),
        ("dropbox.copy", json!("copy.txt")),
        ("dropbox.move", json!("plan (1).txt")),
        ("dropbox.create-folder-batch", json!(["/trip/x1", "/trip/x2", "already-exists"])),
        ("dropbox.copy-batch", json!(["/trip/y1", "/trip/y2"])),
        ("dropbox.move-batch", json!(["/trip/z1", "/trip/z2"])),
        ("dropbox.delete-batch", json!(["/trip/z1", "not-found"])),
        ("dropbox.save-url", json!(["/trip/saved"])),
        ("dropbox.delete", json!("/trip/x1")),
        ("dropbox.create-shared-link", json!("plan.txt")),
        ("dropbox.shared-links", json!(["/trip/plan.txt"])),
        ("dropbox.modify-shared-link", json!("plan.txt")),
        ("dropbox.shared-link-metadata", json!("/trip/plan.txt")),
        ("dropbox.shared-link-file", json!("first plan")),
        ("dropbox.revoke-shared-link", json!(null)),
        ("dropbox.space-usage", json!(true)),
        ("dropbox.current-account", json!("user@emulator.example")),
        ("dropbox.call rpc", json!("plan.txt")),
        ("dropbox.call upload", json!(6)),
        ("dropbox.call download", json!("first plan")),
        ("http.send GET", json!([200, "text/plain", "you asked: GET /v1/things?q=a%26b HTTP/1.1"])),
        ("http.send POST", json!([200, "text/plain", "you asked: POST /v1/things?q=a%26b HTTP/1.1"])),
        ("client GET", json!([200, "text/plain", "you asked: GET /v1/users/7 HTTP/1.1"])),
        ("client POST", json!([200, "text/plain", "you asked: POST /v1/users/7 HTTP/1.1"])),
        ("ftp.server.open", json!(null)),
        ("files.write to partner", json!(3)),
        ("ftp.command", json!(["213 3"])),
        ("ftp.site", json!(200)),
        ("ftp.features", json!(true)),
        ("sftp.server.open", json!(null)),
        ("files.remote.open vault", json!(null)),
        ("files.make-directories on vault", json!(null)),
        ("files.write to vault", json!(7)),
        ("sftp.get-info", json!(["file", 7])),
        ("sftp.symlink", json!(null)),
        ("sftp.hard-link", json!(null)),
        ("sftp.follow-info", json!("file")),
        ("sftp.list", json!(["empty", "file", "link", "second"])),
        ("sftp.is-directory", json!([true, false])),
        ("sftp.is-file", json!([true, false])),
        ("sftp.is-symlink", json!([true, false])),
        ("sftp.read-link", json!("file")),
        ("sftp.realpath", json!("/safe/file")),
        ("sftp.chmod", json!(null)),
        ("sftp.chown", json!(null)),
        ("sftp.set-times", json!(null)),
        ("sftp.statvfs", json!(true)),
        ("sftp.fsync", json!(null)),
        ("sftp.download-file", json!("content")),
        ("sftp.execute", json!([true, [null, null, "not-found"]])),
        ("files.remote.open disk", json!(null)),
        ("files.write to disk", json!(5)),
        ("sftp.execute-with", json!([true, [null]])),
        ("sftp.delete-file", json!(null)),
        ("sftp.delete-symlink", json!(null)),
        ("sftp.delete-directory", json!(null)),
        ("sftp.delete", json!(null)),
    ]
}

/// The functions of the contract, in the words of the contract, and how many interfaces and resources have one.
fn functions() -> BTreeMap<String, usize> {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut functions = BTreeMap::new();
    for (name, kind) in text_of(&contract, "wit").lines().filter_map(|line| line.trim().split_once(": ")) {
        if kind.trim_start_matches("static ").starts_with("func(") {
            *functions.entry(name.trim_start_matches('%').to_owned()).or_default() += 1;
        }
    }
    functions
}

/// All files of a folder with this ending, one after the other.
fn text_of(folder: &Path, ending: &str) -> String {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|extension| extension == ending));
    paths.map(|path| fs::read_to_string(path).unwrap()).collect()
}

fn in_rust(name: &str) -> String {
    // A word of the language.
    if name == "move" { "move_".to_owned() } else { in_python(name) }
}

fn in_javascript(name: &str) -> String {
    let mut words = name.split('-');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |name, word| name + &word[..1].to_uppercase() + &word[1..])
}

fn in_python(name: &str) -> String {
    name.replace('-', "_")
}

#[test]
fn a_tour_calls_every_function_of_the_contract_in_every_language() {
    let functions = functions();
    assert!(functions.values().sum::<usize>() > 90, "the functions are found: {functions:?}");
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../guest-examples");
    let languages = [
        ("rust/tour/src", "rs", in_rust as fn(&str) -> String),
        ("javascript/tour-javascript", "js", in_javascript),
        ("python/tour-python", "py", in_python),
    ];
    for (folder, ending, name_in) in languages {
        let text = text_of(&examples.join(folder), ending);
        let calls = |name: &str| text.matches(&format!("{}(", name_in(name))).count();
        let missing: Vec<_> = functions.iter().filter(|(name, count)| calls(name) < **count).collect();
        assert!(missing.is_empty(), "{folder} does not call {missing:?}");
    }
}

async fn every_interface_works_from(service: &str) {
    let world = start(service, true).await;
    let mut steps = world.tour(service, None).await;
    let links: Vec<Value> = steps
        .extract_if(.., |step| step["step"].as_str().is_some_and(|name| name.starts_with("dropbox.temporary-")))
        .collect();
    for (step, (name, got)) in steps.iter().zip(expected()) {
        assert_eq!(step, &json!({ "step": name, "got": got }), "{service}");
    }
    assert_eq!(steps.len(), expected().len(), "{service}: {:?}", steps.last());

    assert_left_on_the_disk(&world);
    assert_left_on_the_servers(&world);
    assert_left_in_the_account(&world, &links).await;
    let seen = world.origin.seen();
    assert_eq!(seen.len(), 4, "{seen:?}");
    for request in &seen {
        let request = request.to_lowercase();
        assert!(request.contains("\r\nauthorization: bearer hunter2\r\n"), "{service}: {request}");
        assert!(request.contains("\r\nx-own: mine\r\n"), "{service}: {request}");
        assert_eq!(request.contains("a thing"), request.starts_with("post "), "{service}: {request}");
    }
    let log = world.host.log();
    // The last line of the tour.
    log.wait_for(&["answered", &format!("service=\"{service}\"")]).await;
    assert_eq!(log.with(&["hunter2"]), Vec::<String>::new());
}

fn assert_left_on_the_disk(world: &World) {
    let disk = world.host.folder().join("disk");
    let text = |path: &str| fs::read_to_string(disk.join(path)).unwrap();
    assert_eq!(text("tour/report.csv"), "one,two\nthree\n");
    assert_eq!(text("tour/renamed.csv"), "one,two\nthree\n");
    assert_eq!(text("tour/a/made.txt"), "made here");
    for path in ["tour/renamed.csv", "tour/c/old.txt"] {
        assert_eq!(fs::metadata(disk.join(path)).unwrap().mtime(), LONG_AGO, "{path}");
    }
    assert!(disk.join("tour/a/b").is_dir());
    let gone = ["tour/d", "tour/streamed.csv", "tour/copy.csv"];
    assert!(gone.iter().all(|path| !disk.join(path).exists()));
}

fn assert_left_on_the_servers(world: &World) {
    let (partner, vault) = (world.partners.ftp.home(), world.vault.home());
    for home in [&partner, &vault] {
        assert_eq!(fs::read_to_string(home.join("tour/report.csv")).unwrap(), "one,two\nthree\n", "{home:?}");
        assert_eq!(fs::metadata(home.join("tour/renamed.csv")).unwrap().mtime(), LONG_AGO, "{home:?}");
    }
    assert_eq!(fs::metadata(partner.join("raw.txt")).unwrap().permissions().mode() & 0o777, 0o600);
    let file = fs::metadata(vault.join("safe/file")).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.mtime()), (0o640, LONG_AGO));
    let left: Vec<_> = fs::read_dir(vault.join("safe")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["file"]);
}

async fn assert_left_in_the_account(world: &World, links: &[Value]) {
    let account = &world.partners.dropbox;
    let content = |path: &str| account.content(path).map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(content("/tour/report.csv").unwrap(), "one,two\nthree\n");
    assert_eq!(content("/trip/called.txt").unwrap(), "called");
    let below: BTreeSet<String> =
        world.partners.stored().into_iter().filter_map(|path| Some(path.strip_prefix("trip/")?.to_owned())).collect();
    let files = ["called.txt", "notes.paper", "plan (1).txt", "plan.txt", "saved"];
    assert_eq!(below, files.map(str::to_owned).into());
    let [down, up] = links else { panic!("{links:?}") };
    let authority = reqwest::Certificate::from_pem(account.ca_pem().as_bytes()).unwrap();
    let browser = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap();
    let answer = browser.get(down["got"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "first plan");
    let answer = browser.post(up["got"].as_str().unwrap()).body("sent").send().await.unwrap();
    assert_eq!((answer.status().as_u16(), content("/trip/sent.txt")), (200, Some("sent".to_owned())));
}

/// `refused` is how the language's own HTTP client says it.
async fn what_is_not_granted_is_denied_in(service: &str, refused: &str) {
    let world = start(service, false).await;
    for chapter in ["files", "dropbox", "http", "ftp", "sftp"] {
        let steps = world.tour(service, Some(chapter)).await;
        let [step] = &steps[..] else { panic!("{service}: the first step of {chapter} fails, and ends it: {steps:?}") };
        assert_eq!(step["error"]["code"], "denied", "{service}: {step}");
        let message = step["error"]["message"].as_str().unwrap();
        assert!(message.contains("grants"), "{service}: {message}");
    }
    for step in world.tour(service, Some("client")).await {
        assert_eq!(step["got"], json!([refused]), "{service}: {step}");
    }
    assert!(world.origin.seen().is_empty());
    world.host.log().wait_for(&["an outgoing request is denied", service]).await;
    let status = world.host.service(service).await.expect("it is deployed");
    assert!(status.last_failure.is_none(), "{service}: {status:?}");
}

#[tokio::test]
async fn every_interface_works_from_rust() {
    every_interface_works_from("tour").await;
}

#[tokio::test]
async fn every_interface_works_from_javascript() {
    every_interface_works_from("tour-javascript").await;
}

#[tokio::test]
async fn every_interface_works_from_python() {
    every_interface_works_from("tour-python").await;
}

#[tokio::test]
async fn what_is_not_granted_is_denied_in_rust() {
    what_is_not_granted_is_denied_in("tour", "denied").await;
}

#[tokio::test]
async fn what_is_not_granted_is_denied_in_javascript() {
    // `fetch` keeps the reason to itself; it is in the host's log.
    let refused = "TypeError: NetworkError when attempting to fetch resource";
    what_is_not_granted_is_denied_in("tour-javascript", refused).await;
}

#[tokio::test]
async fn what_is_not_granted_is_denied_in_python() {
    what_is_not_granted_is_denied_in("tour-python", "denied").await;
}

#[tokio::test]
async fn an_error_that_no_service_catches_becomes_the_answer_in_every_language() {
    let services = ["http", "http-javascript", "http-python", "fetch-javascript"];
    let host = Host::builder()
        .configuration("[connections.api]\ntype = 'http'\nurl = 'https://api.example.com'\n")
        .services(&services)
        .start()
        .await;
    for service in &services[..3] {
        let detail = host.get(&format!("{service}?connection=api")).await.problem(403);
        assert!(detail.contains("grants"), "{service}: {detail}");
        let detail = host.get(&format!("{service}?connection=missing")).await.problem(404);
        assert!(detail.contains("missing"), "{service}: {detail}");
    }
    // Of a handler that is asynchronous, too.
    let detail = host.get("fetch-javascript").await.problem(400);
    assert!(detail.contains("parameter url"), "{detail}");
}
