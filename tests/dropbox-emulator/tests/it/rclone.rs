//! rclone against the emulator: a client whose hosts cannot be configured, sent here by a proxy.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use dropbox_emulator::{Fault, FaultKind, Running};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;

use crate::client::start;
use crate::python_sdk::cache;

/// A proxy that leads every connection to the emulator, whatever host is asked for.
async fn proxy(emulator: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let mut line = String::new();
                    if stream.read_line(&mut line).await? == 0 || line == "\r\n" {
                        break;
                    }
                }
                stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
                copy_bidirectional(&mut stream, &mut TcpStream::connect(emulator).await?).await
            });
        }
    });
    address
}

/// Runs rclone on the emulator, with its configuration in variables; what it printed.
async fn rclone(emulator: &Running, proxy: SocketAddr, ca_file: &Path, arguments: &[&str]) -> String {
    let program = cache().join("debian/usr/bin/rclone");
    assert!(program.exists(), "rclone is missing: run `scripts/setup servers`");
    let token = r#"{"access_token":"emulator-access-token","token_type":"bearer","refresh_token":"R","expiry":"2099-01-01T00:00:00Z"}"#;
    let mut command = Command::new(program);
    command
        .args(["--config", "/dev/null", "--retries", "1"])
        .args(arguments)
        .env("RCLONE_CONFIG_DBX_TYPE", "dropbox")
        .env("RCLONE_CONFIG_DBX_TOKEN", token)
        .env("HTTPS_PROXY", format!("http://{proxy}"))
        .env("SSL_CERT_FILE", ca_file)
        .env_remove("NO_PROXY")
        .env_remove("no_proxy");
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}\n{:?}", emulator.requests());
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rclone_copies_lists_moves_and_deletes_on_the_emulator() {
    let emulator = start().await;
    let proxy = proxy(emulator.address()).await;
    let folder = tempfile::tempdir().unwrap();
    let (ca_file, up, down) = (folder.path().join("ca.pem"), folder.path().join("up"), folder.path().join("down"));
    std::fs::write(&ca_file, emulator.ca_pem()).unwrap();
    std::fs::create_dir(&up).unwrap();
    for number in 0..10 {
        std::fs::write(up.join(format!("größe {number} 😀.txt")), format!("content {number}")).unwrap();
    }
    let large: Vec<u8> = (0..9 * 1024 * 1024_u32).map(|index| (index % 251) as u8).collect();
    std::fs::write(up.join("large.bin"), &large).unwrap();
    let run = async |arguments: &[&str]| rclone(&emulator, proxy, &ca_file, arguments).await;
    let (up, down) = (up.to_str().unwrap(), down.to_str().unwrap());

    // Sessions in parts, committed in batches; one part is lost on its way.
    emulator.inject(Fault::on("files/upload_session/append_v2", FaultKind::InternalError)).unwrap();
    run(&["copy", "--dropbox-chunk-size", "4M", up, "dbx:target"]).await;
    assert_eq!(emulator.files().len(), 11);
    assert!(emulator.content("/target/large.bin").unwrap() == large);
    let batches = emulator.requests().iter().filter(|request| request.route.contains("finish_batch")).count();
    assert!(batches > 0);
    // Content hashes are compared, both ways.
    run(&["check", up, "dbx:target"]).await;
    run(&["copy", "dbx:target", down]).await;
    run(&["check", down, "dbx:target"]).await;
    let listed = run(&["lsf", "dbx:target"]).await;
    assert_eq!(listed.lines().count(), 11, "{listed}");
    // One file in one request.
    let single = folder.path().join("up/größe 1 😀.txt");
    run(&["copyto", "--dropbox-batch-mode", "off", single.to_str().unwrap(), "dbx:target/single"]).await;
    run(&["moveto", "dbx:target/single", "dbx:target/moved"]).await;
    assert!(emulator.content("/target/moved").is_some() && emulator.content("/target/single").is_none());
    run(&["purge", "dbx:target"]).await;
    assert!(emulator.files().is_empty());
}
