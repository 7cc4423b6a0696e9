//! The emulator as a program of its own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::client::{Answer, Client};

struct Program {
    child: Child,
    address: String,
    ca_file: String,
}

impl Program {
    /// Starts the program and reads its ready line.
    fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dropbox-emulator"));
        let mut child = command.args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let rest = line.trim_end().strip_prefix("listening https=").unwrap_or_else(|| panic!("{line:?}"));
        let (address, ca_file) = rest.split_once(" ca=").unwrap();
        Self { child, address: address.to_owned(), ca_file: ca_file.to_owned() }
    }

    fn client(&self) -> Client {
        Client::new(&format!("https://{}", self.address), &std::fs::read_to_string(&self.ca_file).unwrap())
    }

    fn end(&mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        self.child.wait().unwrap().code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Ended already, unless a test failed half-way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn the_program_serves_until_it_is_told_to_end() {
    let mut program = Program::start(&["--max-bytes", "1MiB", "--access-token", "mine"]);
    let mut client = program.client();
    client.token = "mine".into();
    client.upload(json!({ "path": "/a" }), "content").await.result();
    let usage = client.rpc("users/get_space_usage", json!(null)).await.result();
    assert_eq!(usage["allocation"]["allocated"], 1024 * 1024);
    assert!(std::path::Path::new(&program.ca_file).exists());
    assert_eq!(program.end(Signal::TERM), Some(0));
    assert!(!std::path::Path::new(&program.ca_file).exists());
}

#[tokio::test]
async fn the_authority_is_written_where_asked() {
    let folder = tempfile::tempdir().unwrap();
    let ca_file = folder.path().join("ca.pem");
    let mut program = Program::start(&["--ca-file", ca_file.to_str().unwrap()]);
    assert_eq!(program.ca_file, ca_file.to_str().unwrap());
    program.client().rpc("check/user", json!({})).await.result();
    assert_eq!(program.end(Signal::INT), Some(0));
    assert!(ca_file.exists());
}

#[tokio::test]
async fn faults_files_and_requests_are_reachable_over_http() {
    let program = Program::start(&[]);
    let client = program.client();
    let get =
        async |path: &str| Answer::read(client.http.get(format!("{}{path}", client.url)).send().await.unwrap()).await;
    let inject = async |fault: serde_json::Value| client.post("/emulator/faults").json(&fault).send().await.unwrap();
    let fault = json!({ "route": "files/upload", "kind": { "rate_limit_json": { "retry_after_seconds": 1 } }, "times": 1, "after": 1 });
    assert_eq!(inject(fault.clone()).await.status(), 204);
    client.upload(json!({ "path": "/a" }), "content").await.result();
    assert_eq!(client.upload(json!({ "path": "/b" }), "content").await.status, 429);
    let files = get("/emulator/files").await.result();
    assert_eq!((&files["files"][0]["path"], &files["files"][0]["size"]), (&json!("/a"), &json!(7)));
    let requests = get("/emulator/requests").await.result();
    assert_eq!(
        requests["requests"][1],
        json!({ "sequence": 2, "method": "POST", "route": "files/upload", "status": 429, "faults": ["rate_limit_json"] })
    );

    inject(json!({ "route": "*", "kind": "internal_error", "times": 9 })).await;
    let cleared = client.http.delete(format!("{}/emulator/faults", client.url)).send().await.unwrap();
    assert_eq!(cleared.status(), 204);
    client.post("/emulator/expire_access_tokens").send().await.unwrap();
    assert_eq!(client.rpc("check/user", json!({})).await.error(), "401 expired_access_token");

    for wrong in [
        json!({}),
        json!({ "route": "nowhere", "kind": "internal_error" }),
        json!({ "route": "*", "kind": "internal_error", "time": 1 }),
    ] {
        let refused = inject(wrong).await;
        assert_eq!(refused.status(), 400);
        assert!(refused.text().await.unwrap().starts_with("the fault was not injected: "));
    }
    assert_eq!(get("/emulator/nothing").await.status, 404);
}
