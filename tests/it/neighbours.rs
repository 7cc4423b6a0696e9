//! A healthy service beside one that misbehaves: it must answer as it does alone.
//!
//! Measured by a client that asks at a moderate pace on one connection, alone and beside in turns, so that whatever else
//! the machine does falls on both.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::Method;
use tokio::task::JoinSet;

use crate::harness::{Host, eventually};

/// Rounds of measuring alone and beside.
const ROUNDS: usize = 4;
/// Requests of each measurement; all rounds together are 2,000 alone and 2,000 beside.
const REQUESTS: usize = 500;
/// Between two requests: a service under moderate load.
const PAUSE: Duration = Duration::from_millis(2);

/// Below this, differences are noise: the client, the host and the neighbour share two processors with whatever else
/// runs, and one turn of the scheduler is some milliseconds.
const FLOOR: Duration = Duration::from_millis(5);

/// What the host may keep after the neighbour has ended: its buffers and pools, and nothing of the neighbour.
const MEMORY_GROWTH_MIB_MAX: u64 = 64;

/// What is promised: the slowest hundredth, beside, within so many times of what it is alone.
const FACTOR: u32 = 2;

/// More than all buffers between client and host hold.
static LARGE_BODY: LazyLock<Bytes> = LazyLock::new(|| vec![b'x'; 64 << 20].into());

const CONFIGURATION: &str = "
    services.spin = { timeout = '1s', concurrency = 64 }
    services.allocate = { memory = '256MiB', timeout = '5s' }
    services.sleep = { timeout = '5s' }
";

/// Measures the healthy service alone and beside what `neighbour` asks for, `clients` of it at once.
async fn healthy_beside(
    what: &str,
    service: &str,
    clients: usize,
    neighbour: fn(&Host) -> reqwest::RequestBuilder,
    pace: Duration,
) {
    let host = Host::builder().configuration(CONFIGURATION).services(&["respond", service]).alone().start().await;
    measure(&host).await;
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    let memory = host.memory_bytes();
    for _ in 0..ROUNDS {
        alone.extend(measure(&host).await);
        let before = host.service(service).await.expect("it is deployed").invocations;
        let mut neighbours = JoinSet::new();
        for _ in 0..clients {
            let request = neighbour(&host);
            neighbours.spawn(async move {
                loop {
                    let request = request.try_clone();
                    let Some(request) = request else { return };
                    // How it ends is its own affair.
                    if let Ok(answer) = request.send().await {
                        let _ = answer.bytes().await;
                    }
                    tokio::time::sleep(pace).await;
                }
            });
        }
        host.wait_for(service, "the neighbour is at work", |status| status.invocations > before).await;
        beside.extend(measure(&host).await);
        neighbours.shutdown().await;
        host.wait_until_idle(service).await;
    }
    // An invocation is over a moment before its memory is given back.
    let grown = || host.memory_bytes().saturating_sub(memory) >> 20;
    let given_back = async || (grown() < MEMORY_GROWTH_MIB_MAX).then_some(());
    eventually(&format!("{what}: memory grew by less than {MEMORY_GROWTH_MIB_MAX} MiB"), given_back).await;
    let grown = grown();
    let status = host.service(service).await.expect("it is deployed");
    assert!(status.invocations >= ROUNDS as u64, "the neighbour did work: {status:?}");
    judge(what, &mut alone, &mut beside);
    println!("{what}: {} invocations of the neighbour, memory grew by {grown} MiB", status.invocations);
}

/// The times of requests to the healthy service, one after another.
async fn measure(host: &Host) -> Vec<Duration> {
    let mut client = host.connect().await;
    let mut times = Vec::with_capacity(REQUESTS);
    for _ in 0..REQUESTS {
        let begun = Instant::now();
        client.send("GET /invoke/respond?text=well HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let answer = client.answer().await.expect("the healthy service answers");
        times.push(begun.elapsed());
        assert_eq!((answer.status, answer.body.as_slice()), (200, b"well".as_slice()));
        tokio::time::sleep(PAUSE).await;
    }
    times
}

fn judge(what: &str, alone: &mut [Duration], beside: &mut [Duration]) {
    let show = |times: &mut [Duration]| {
        times.sort();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        let shown = format!("p50 {:.1?}, p99 {:.1?}, max {:.1?}", at(0.5), at(0.99), at(1.0));
        (at(0.99), shown)
    };
    let (alone_p99, alone_shown) = show(alone);
    let (beside_p99, beside_shown) = show(beside);
    println!("{what}: alone {alone_shown}; beside {beside_shown}");
    let limit = (alone_p99 * FACTOR).max(FLOOR);
    assert!(beside_p99 <= limit, "{what}: p99 {beside_p99:?} beside, {alone_p99:?} alone, {limit:?} allowed");
}

#[tokio::test]
async fn a_service_that_spins_slows_no_neighbour() {
    healthy_beside("four that spin", "spin", 4, |host| host.request(Method::GET, "spin"), Duration::ZERO).await;
}

#[tokio::test]
async fn a_service_that_allocates_without_end_slows_no_neighbour() {
    let request = |host: &Host| host.request(Method::GET, "allocate");
    healthy_beside("two that allocate", "allocate", 2, request, Duration::ZERO).await;
}

#[tokio::test]
async fn a_service_that_traps_slows_no_neighbour() {
    // 200 in a second, each with its backtrace, record and line in the log.
    let request = |host: &Host| host.request(Method::GET, "trap");
    healthy_beside("one that traps", "trap", 1, request, Duration::from_millis(5)).await;
}

#[tokio::test]
async fn a_service_that_never_reads_its_body_slows_no_neighbour() {
    // A large body each, which stays on the socket: the host takes no more of it than its buffers hold.
    let request = |host: &Host| host.request(Method::POST, "sleep?ms=400").body(LARGE_BODY.clone());
    healthy_beside("eight that leave their bodies", "sleep", 8, request, Duration::ZERO).await;
}
