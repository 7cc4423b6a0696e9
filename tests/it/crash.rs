//! The host is killed in the middle of a transfer. Another run after a restart completes it: nothing is lost, nothing
//! is there twice, and nothing left the FTP server before Dropbox had it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dropbox_emulator::content_hash;
use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::harness::{Host, Partners, eventually};

/// When the host is killed: the way to Dropbox is held at this moment, so nothing happens between it and the kill.
#[derive(Debug, Clone, Copy)]
enum Moment {
    /// The host sent so many bytes towards Dropbox, encrypted.
    Sent(u64),
    /// Dropbox has so many of the files, and the last answer is still on its way.
    Stored(usize),
    /// So many of the files are gone from the FTP server, and nothing of the next one gets through.
    Gone(usize),
}

/// Ten of them, in the order of a transfer.
const MOMENTS: [Moment; 10] = [
    Moment::Sent(1),
    Moment::Sent(50_000),
    Moment::Stored(1),
    Moment::Gone(1),
    Moment::Sent(1_000_000),
    Moment::Stored(2),
    Moment::Gone(2),
    Moment::Sent(3_000_000),
    Moment::Stored(5),
    Moment::Gone(5),
];

/// The sizes of the files of one transfer.
const SIZES: [usize; 6] = [300_000, 1_500_000, 1_000_000, 0, 2_000_000, 700_000];

type Hold = Box<dyn Fn(u64) -> bool + Send + Sync>;

/// The way from the host to Dropbox, which can be held at any moment.
struct Relay {
    sent: AtomicU64,
    hold: Mutex<Hold>,
}

impl Relay {
    async fn start(target: SocketAddr) -> (Arc<Self>, SocketAddr) {
        let relay = Arc::new(Self { sent: AtomicU64::new(0), hold: Mutex::new(Box::new(|_| false)) });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Arc::clone(&relay);
        tokio::spawn(async move {
            while let Ok((host, _)) = listener.accept().await {
                let dropbox = TcpStream::connect(target).await.unwrap();
                let (from_host, to_host) = host.into_split();
                let (from_dropbox, to_dropbox) = dropbox.into_split();
                tokio::spawn(Arc::clone(&accepting).pass(from_host, to_dropbox, true));
                tokio::spawn(Arc::clone(&accepting).pass(from_dropbox, to_host, false));
            }
        });
        (relay, address)
    }

    /// From now on, passes nothing on while `hold` says so of the number of bytes that the host sent from now on.
    fn hold_while(&self, hold: impl Fn(u64) -> bool + Send + Sync + 'static) {
        let mut current = self.hold.lock().unwrap();
        self.sent.store(0, Ordering::SeqCst);
        *current = Box::new(hold);
    }

    fn holds(&self) -> bool {
        (self.hold.lock().unwrap())(self.sent.load(Ordering::SeqCst))
    }

    /// Small pieces, so that a moment in bytes is met closely.
    async fn pass(self: Arc<Self>, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, from_host: bool) {
        let mut piece = vec![0; 4096];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            if from_host {
                self.sent.fetch_add(length as u64, Ordering::SeqCst);
            }
            while self.holds() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    }
}

fn content(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|place| (place.wrapping_mul(13).wrapping_add(place >> 7).wrapping_add(seed * 11)) as u8).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_killed_at_any_moment_of_a_transfer_loses_nothing_and_doubles_nothing() {
    let partners = Arc::new(Partners::start().await);
    let (relay, address) = Relay::start(partners.dropbox.address()).await;
    let configuration = format!(
        r#"{}
        [services."api.connector.dropbox"]
        grants = [{{ connection = "team", access = "write" }}]
        timeout = "5m"
        [services."api.channel.ftp.transfer"]
        grants = [{{ connection = "partner", access = "write" }}]
        timeout = "5m"
        "#,
        partners.connections_by(&format!("https://{address}"))
    );
    let builder = partners.equip(Host::builder()).services(&["api.connector.dropbox", "api.channel.ftp.transfer"]);
    let mut host = builder.configuration(&configuration).start().await;

    let mut all = BTreeMap::new();
    for (turn, moment) in MOMENTS.into_iter().enumerate() {
        let files: BTreeMap<String, Vec<u8>> = SIZES
            .into_iter()
            .enumerate()
            .map(|(number, bytes)| (format!("{turn}-{number}.bin"), content(turn * 10 + number, bytes)))
            .collect();
        for (name, bytes) in &files {
            partners.ftp.put(name, bytes);
        }
        let (watched, before) = (Arc::clone(&partners), all.len());
        relay.hold_while(move |sent| match moment {
            Moment::Sent(bytes) => sent >= bytes,
            Moment::Stored(count) => watched.dropbox.files().len() >= before + count,
            Moment::Gone(count) => watched.ftp.names().len() + count <= SIZES.len(),
        });
        let running = tokio::spawn(host.request(Method::POST, "api.channel.ftp.transfer").send());
        eventually(&format!("{moment:?}"), async || relay.holds().then_some(())).await;
        host.kill().await;
        assert!(running.await.unwrap().is_err(), "{moment:?}: the transfer had ended before the kill");

        // In this order: what was gone a moment ago must be there by now.
        let left = partners.ftp.names();
        for (name, bytes) in &files {
            if left.contains(name) {
                assert_eq!(&std::fs::read(partners.ftp.home().join(name)).unwrap(), bytes, "{moment:?}: {name}");
            } else {
                let stored = partners.dropbox.content(&format!("/{name}"));
                assert!(stored.as_ref() == Some(bytes), "{moment:?}: {name} is gone, and Dropbox has it not");
            }
        }
        println!(
            "{moment:?}: {} of {} files left, {} in Dropbox",
            left.len(),
            files.len(),
            partners.stored().len() - before
        );

        relay.hold_while(|_| false);
        host.start().await;
        let answer = host.send(host.request(Method::POST, "api.channel.ftp.transfer")).await.expect(200).json();
        assert_eq!(answer["moved"], left.len(), "{moment:?}: {answer}");
        all.extend(files.into_iter().map(|(name, bytes)| (name, content_hash(&bytes))));
        let stored = partners.dropbox.files().into_iter();
        let stored: BTreeMap<String, String> =
            stored.map(|file| (file.path.trim_start_matches('/').to_owned(), file.content_hash)).collect();
        assert_eq!(stored, all, "{moment:?}");
        assert_eq!(partners.ftp.names().len(), 0, "{moment:?}: nothing is left");
    }
}
