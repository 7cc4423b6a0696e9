//! The beginning and the end of a host: addresses that are taken, and stopping while requests are in flight.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::harness::{Host, eventually};

#[tokio::test]
async fn a_port_that_is_taken_is_told_and_the_exit_code_is_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("it is bound").to_string();
    for (arguments, option) in [
        (["--listen", &*address, "--admin", "127.0.0.1:0"], "--listen"),
        (["--listen", "127.0.0.1:0", "--admin", &*address], "--admin"),
    ] {
        let (exit, log) = Host::builder().fails_to_start(&arguments).await;
        assert_eq!(exit.code, Some(1));
        let text = log.lines().join("\n");
        for part in [&*address, "another program has this port", option, "in use"] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(!text.contains("panicked"), "{text}");
    }
}

#[tokio::test]
async fn a_host_that_is_told_to_stop_ends_what_runs_and_accepts_nothing_new() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut host = Host::builder().configuration("host = { drain = '30s' }").services(&["sleep"]).start().await;
        let log = host.log();
        let address = host.http_address();
        let running = host.get("sleep?ms=2500");
        let stopping = async {
            host.wait_for("sleep", "it runs", |status| status.in_flight == 1).await;
            host.signal(signal);
            let refused = async || TcpStream::connect(address).await.is_err().then_some(());
            eventually("new connections are refused", refused).await;
            // Operators see what goes on until the end.
            let ready = host.admin("/readyz").await;
            assert_eq!((ready.status, host.admin("/healthz").await.status), (503, 200));
            assert!(ready.text().contains("stopping"), "{}", ready.text());
        };
        let (answer, ()) = tokio::join!(running, stopping);
        assert_eq!(answer.expect(200).text(), "awake\n");
        assert_eq!(host.ended().await.code, Some(0));
        assert_eq!(log.with(&["stopped"]).len(), 1);
    }
}

#[tokio::test]
async fn a_streaming_answer_is_finished_before_the_host_stops() {
    let mut host = Host::builder().configuration("host = { drain = '30s' }").services(&["http-echo"]).start().await;
    let mut client = host.connect().await;
    client.send("POST /invoke/http-echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("5\r\nfirst\r\n").await;
    client.read_until(b"first\r\n").await.expect("the answer begins");
    host.signal(Signal::TERM);
    host.log().wait_for(&["stopping"]).await;
    client.send("4\r\nlast\r\n0\r\n\r\n").await;
    assert_eq!(client.chunk().await.as_deref(), Some(b"last".as_slice()));
    assert_eq!(client.chunk().await, None);
    assert_eq!(host.ended().await.code, Some(0));
}

#[tokio::test]
async fn what_does_not_end_within_the_drain_time_is_ended() {
    let mut host = Host::builder()
        .configuration("host = { drain = '500ms' }\nservice-defaults = { timeout = '10m' }")
        .services(&["sleep", "spin"])
        .start()
        .await;
    let mut clients = Vec::new();
    for target in ["sleep?ms=600000", "spin"] {
        let mut client = host.connect().await;
        client.send(format!("GET /invoke/{target} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        clients.push(client);
        let name = target.split('?').next().expect("there is a first part");
        host.wait_for(name, "it runs", |status| status.in_flight == 1).await;
    }
    let begun = Instant::now();
    assert_eq!(host.stop().await.code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    for mut client in clients {
        // Whatever it is told, it is not left hanging and not told that all is well.
        assert!(client.answer().await.is_none_or(|answer| answer.status >= 500));
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_keep_the_host() {
    let mut host = Host::with(&["echo"]).await;
    let mut kept = host.connect().await;
    kept.send("GET /invoke/echo HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(kept.answer().await.expect("an answer").status, 200);
    let silent = host.connect().await;
    let begun = Instant::now();
    assert_eq!(host.stop().await.code, Some(0));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_host_that_was_killed_starts_again_where_it_was() {
    let mut host = Host::with(&["respond"]).await;
    assert_eq!(host.get("respond?text=before").await.text(), "before");
    host.kill().await;
    host.start().await;
    assert_eq!(host.get("respond?text=after").await.text(), "after");
}
