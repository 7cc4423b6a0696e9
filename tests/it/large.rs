//! Large files through a service in Python: the host moves them, and its memory hardly grows.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use dropbox_emulator::content_hash;
use reqwest::Method;

use crate::harness::{Answer, Host, Partners, eventually};

const MIB: u64 = 1024 * 1024;

/// What a transfer may add to what the same service needs for a small file.
const GROWTH_MAX: u64 = 64 * MIB;

/// How often the memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longer than a gigabyte takes on a busy machine.
const TRANSFER_MAX: Duration = Duration::from_secs(500);

/// Writes a file that takes no room, with something else in each part of it.
fn write_sparse(path: &Path, bytes: u64) {
    let file = File::create(path).unwrap();
    file.set_len(bytes).unwrap();
    for place in (0..bytes.saturating_sub(8)).step_by(3_000_017) {
        file.write_all_at(&place.to_le_bytes(), place).unwrap();
    }
}

/// The most memory of the host while it does something.
#[derive(Debug, Clone, Copy)]
struct Memory {
    /// Its own, as seen every [`LOOK_EVERY`].
    own: u64,
    /// All that is resident, code included, as the kernel remembers it.
    peak: u64,
}

/// Copies by the service, and gives the memory that the host had meanwhile.
async fn copy(host: &Host, source: &str, target: &str) -> (Answer, Memory) {
    let request = host.request(Method::POST, &format!("files.copy?source={source}&target={target}"));
    let mut answer = std::pin::pin!(host.send(request.timeout(TRANSFER_MAX)));
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut own = 0;
    host.forget_memory_peak();
    let answer = loop {
        tokio::select! {
            answer = &mut answer => break answer,
            _ = looks.tick() => own = own.max(host.memory_bytes()),
        }
    };
    (answer, Memory { own, peak: host.memory_peak_bytes() })
}

async fn start(partners: &Partners) -> Host {
    let configuration = format!(
        r#"{}
        [connections.archive]
        type = "local"
        folder = "archive"

        [services."files.copy"]
        grants = [
            {{ connection = "partner" }},
            {{ connection = "archive", access = "write" }},
            {{ connection = "team", access = "write" }},
        ]
        timeout = "20m"
        "#,
        partners.connections()
    );
    let builder = partners.equip(Host::builder().alone()).file("archive/note", "").services(&["files.copy"]);
    let mut host = builder.configuration(&configuration).start().await;
    // What compiling took is none of the transfer's: the host that is measured finds compiled code.
    host.stop().await;
    host.start().await;
    host
}

/// Copies a small file a few times, then the large one, and asserts how much more the large one took.
async fn measure(host: &Host, target: &str, bytes: u64) -> Answer {
    let mut small = Memory { own: 0, peak: 0 };
    for turn in 0..5 {
        let (answer, memory) = copy(host, "partner:/small.bin", &format!("{target}:/small-{turn}.bin")).await;
        answer.expect(200);
        small = Memory { own: small.own.max(memory.own), peak: small.peak.max(memory.peak) };
    }
    let begun = Instant::now();
    let (answer, large) = copy(host, "partner:/large.bin", &format!("{target}:/large.bin")).await;
    let took = begun.elapsed().as_secs_f32();
    let answer = answer.expect(200);
    assert_eq!(answer.json()["size"], bytes);
    println!(
        "{} MiB to {target} in {took:.1} s, {:.0} MiB/s; memory of the host for a small file and for this one: \
         {} MiB and {} MiB of its own, {} MiB and {} MiB at the peak with code",
        bytes / MIB,
        (bytes / MIB) as f32 / took,
        small.own / MIB,
        large.own / MIB,
        small.peak / MIB,
        large.peak / MIB,
    );
    assert!(large.own < small.own + GROWTH_MAX, "{large:?} after {small:?}");
    assert!(large.peak < small.peak + GROWTH_MAX, "{large:?} after {small:?}");
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gigabyte_passes_from_ftp_to_a_local_folder_in_a_few_megabytes_of_memory() {
    const BYTES: u64 = 1024 * MIB;
    let partners = Partners::start().await;
    let host = start(&partners).await;
    partners.ftp.put("small.bin", "small");
    let source = partners.ftp.home().join("large.bin");
    write_sparse(&source, BYTES);
    measure(&host, "archive", BYTES).await;
    let target = host.folder().join("archive/large.bin");
    assert_eq!(std::fs::metadata(&target).unwrap().len(), BYTES);
    assert_eq!(sha256(&target), sha256(&source));
    eventually("the service is idle", async || {
        host.service("files.copy").await.is_some_and(|status| status.in_flight == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_passes_from_ftp_to_dropbox_in_a_few_megabytes_of_memory() {
    const BYTES: u64 = 140 * MIB;
    let partners = Partners::start().await;
    let host = start(&partners).await;
    partners.ftp.put("small.bin", "small");
    let source = partners.ftp.home().join("large.bin");
    write_sparse(&source, BYTES);
    measure(&host, "team", BYTES).await;
    let expected = std::fs::read(&source).unwrap();
    let stored = partners.dropbox.content("/large.bin").expect("it is there");
    assert_eq!(stored.len() as u64, BYTES);
    assert_eq!(content_hash(&stored), content_hash(&expected));
}

fn sha256(path: &Path) -> Vec<u8> {
    use sha2::Digest;
    let mut file = File::open(path).unwrap();
    let mut hash = sha2::Sha256::new();
    let mut chunk = vec![0; 1 << 20];
    loop {
        match file.read(&mut chunk).unwrap() {
            0 => return hash.finalize().to_vec(),
            length => hash.update(&chunk[..length]),
        }
    }
}
