//! What a remote promises when the network between it and its server fails: nothing half-written has a final name, an
//! error says what is known, nothing hangs, the next operation works, and no connection stays behind.
//!
//! Each promise is checked through a proxy, and what came of it is looked at past the proxy.

use std::time::{Duration, Instant};

use bytes::Bytes;
use dropbox_emulator::Running;
use futures::stream::{self, StreamExt, TryStreamExt};
use wharf_connectors::{
    ByteRange, Common, Config, Content, Entry, Error, ErrorKind, IfExists, Remote, RemotePath, chain, dropbox, ftp,
    sftp,
};

use crate::fault_proxy::{Fault, FaultProxy, Harm, Way, Which};
use crate::ftp_server::FtpServer;
use crate::openssh::Openssh;
use crate::places::{self, loopback};

/// Operations at once, and so the connections that may stay open.
const OPERATIONS_MAX: usize = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(4);

/// Longer than a loaded machine takes for an answer; every test of silence waits that long.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What an operation may take at most when nobody answers: to connect, for the three answers that open a transfer, for
/// its end, and to remove what is left of it on a further connection.
const PATIENCE: Duration = Duration::from_secs(25);

/// How long something may take that happens behind the back of a test.
const EVENTUALLY: Duration = Duration::from_secs(15);

/// More than one chunk, and more than the buffers of the sockets along the way hold.
const CONTENT_BYTES: usize = 6 * 1024 * 1024;

const LATENCY: Duration = Duration::from_millis(50);

/// A remote behind a proxy.
pub(crate) struct Faulty {
    remote: Remote,
    /// Past the proxy.
    sober: Remote,
    proxy: FaultProxy,
    config: Config,
    _server: Server,
}

#[expect(dead_code, reason = "held to be dropped at the end of the test")]
enum Server {
    Ftp(FtpServer),
    Sftp(Openssh),
    Dropbox(Running),
}

pub(crate) async fn ftp() -> Faulty {
    let server = FtpServer::start("proftpd", &[]);
    let proxy = FaultProxy::before_ftp(server.port()).await;
    let through = ftp::Config { host: proxy.host.to_string(), port: proxy.port, ..server.config() };
    Faulty::new(proxy, Config::Ftp(through), Config::Ftp(server.config()), RemotePath::root(), Server::Ftp(server))
}

pub(crate) async fn sftp() -> Faulty {
    let server = Openssh::start(&[]);
    let proxy = FaultProxy::before(server.port()).await;
    let through = sftp::Config { port: proxy.port, ..server.config() };
    let root = RemotePath::parse(server.home().to_str().unwrap()).unwrap();
    Faulty::new(proxy, Config::Sftp(through), Config::Sftp(server.config()), root, Server::Sftp(server))
}

pub(crate) async fn dropbox() -> Faulty {
    let (server, config) = places::emulator().await;
    let proxy = FaultProxy::before(server.address().port()).await;
    let mut through = dropbox::Config { wait_budget: Some(READ_TIMEOUT), ..config.clone() };
    for url in [&mut through.api_url, &mut through.content_url, &mut through.token_url] {
        url.set_port(Some(proxy.port)).unwrap();
    }
    Faulty::new(proxy, Config::Dropbox(through), Config::Dropbox(config), RemotePath::root(), Server::Dropbox(server))
}

fn path(text: &str) -> RemotePath {
    RemotePath::parse(text).unwrap()
}

/// Bytes that differ from one kibibyte to the next.
fn bytes(first: u8) -> Bytes {
    (0..CONTENT_BYTES).map(|at| first.wrapping_add((at >> 10) as u8)).collect::<Vec<_>>().into()
}

fn chunked(bytes: &Bytes) -> impl futures::Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let bytes = bytes.clone();
    stream::iter((0..bytes.len()).step_by(65_536).map(move |at| Ok(bytes.slice(at..bytes.len().min(at + 65_536)))))
}

/// A fault that ends once it has happened.
fn once(way: Way, after: u64, harm: Harm) -> Fault {
    Fault { which: Which::All, way, after, harm, lasts: false }
}

/// One that holds until it is healed.
fn lasting(way: Way, after: u64, harm: Harm) -> Fault {
    Fault { lasts: true, ..once(way, after, harm) }
}

/// The result of an operation that must not hang.
async fn in_time<T>(work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let begun = Instant::now();
    let result = tokio::time::timeout(2 * PATIENCE, work).await.expect("an operation hangs");
    assert!(begun.elapsed() < PATIENCE, "an operation took {:?}", begun.elapsed());
    result
}

#[track_caller]
fn fails<T>(result: Result<T, Error>, kinds: &[ErrorKind], when: &str) -> Error {
    let Err(error) = result else { panic!("it succeeded instead of failing: {when}") };
    assert!(kinds.contains(&error.kind()), "{:?} instead of {kinds:?}, {when}: {}", error.kind(), chain(&error));
    error
}

async fn all_of(remote: &Remote, at: &str) -> Result<Bytes, Error> {
    remote.read(&path(at), ByteRange::ALL).await?.collect(2 * CONTENT_BYTES as u64).await
}

impl Faulty {
    fn new(proxy: FaultProxy, through: Config, past: Config, root: RemotePath, server: Server) -> Self {
        let common = Common {
            root,
            operations_max: OPERATIONS_MAX,
            connect_timeout: CONNECT_TIMEOUT,
            read_timeout: READ_TIMEOUT,
            // One fault is one error.
            retries: 0,
            ..Common::default()
        };
        let sober = Remote::new("sober", Common { retries: 2, ..common.clone() }, past, &loopback()).unwrap();
        let remote = Remote::new("faulty", common, through.clone(), &loopback()).unwrap();
        Self { remote, sober, proxy, config: through, _server: server }
    }

    /// Replaces `/file`, from a source that does something when its last byte has been taken.
    async fn replace(&self, content: &Bytes, at_the_end: impl FnOnce() + Send + 'static) -> Result<Entry, Error> {
        let end = stream::once(async move {
            at_the_end();
            Ok(Bytes::new())
        });
        let content = Content::from_stream(Some(content.len() as u64), chunked(content).chain(end));
        in_time(self.remote.write(&path("/file"), content, IfExists::Replace)).await
    }

    /// That there is one file, with this content.
    async fn has_only(&self, content: &Bytes, when: &str) {
        let found = all_of(&self.sober, "/file").await.unwrap();
        assert!(found == content, "another content or a part of it has the name, {when}: {} bytes", found.len());
        self.comes_to_one_name(when).await;
    }

    /// Waits until nothing temporary is left.
    async fn comes_to_one_name(&self, when: &str) {
        let deadline = Instant::now() + EVENTUALLY;
        loop {
            let entries = self.sober.list(&RemotePath::root()).await.unwrap();
            let names: Vec<_> = entries.iter().map(|entry| entry.path.as_str()).collect();
            if names == ["/file"] {
                return;
            }
            assert!(Instant::now() < deadline, "{names:?} are left, {when}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Removes what a server that was out of reach has kept: never more than a temporary file.
    async fn sweep(&self, when: &str) {
        for entry in self.sober.list(&RemotePath::root()).await.unwrap() {
            if entry.path != path("/file") {
                assert!(entry.path.name().starts_with(".file."), "{} is left, {when}", entry.path);
                match self.sober.delete(&entry.path).await {
                    // The removal behind the back of the test was quicker.
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    deleted => deleted.unwrap(),
                }
            }
        }
    }

    async fn comes_to_open(&self, most: usize, when: &str) {
        let deadline = Instant::now() + EVENTUALLY;
        while self.proxy.open() > most {
            assert!(Instant::now() < deadline, "{} connections are open, {when}", self.proxy.open());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// That what follows works as if nothing had been, and that no connection is left over.
    async fn goes_on(&self, when: &str) {
        self.proxy.heal();
        let content = Bytes::from_static(b"after the fault");
        let after = path("/after");
        for tried in 1.. {
            let write = self.remote.write(&after, Content::from_bytes(content.clone()), IfExists::Replace);
            match in_time(write).await {
                Ok(_) => break,
                // HTTP has no way to ask an idle connection whether it is still there; each is found dead once.
                Err(error)
                    if matches!(self.config, Config::Dropbox(_))
                        && matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Interrupted)
                        && tried <= OPERATIONS_MAX => {}
                Err(error) => panic!("the next write, {when}: {}", chain(&error)),
            }
        }
        let read = in_time(all_of(&self.remote, "/after")).await;
        assert_eq!(read.unwrap_or_else(|error| panic!("the next read, {when}: {}", chain(&error))), content);
        in_time(self.remote.delete(&after)).await.unwrap();
        self.comes_to_open(OPERATIONS_MAX, when).await;
    }

    /// That nothing is left when the remote is gone.
    pub(crate) async fn ends(self) {
        self.goes_on("at the end").await;
        let Self { remote, sober, proxy, config, _server } = self;
        drop((remote, sober, config));
        let deadline = Instant::now() + EVENTUALLY;
        while proxy.open() > 0 {
            assert!(Instant::now() < deadline, "{} of {} connections stay open", proxy.open(), proxy.total());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

pub(crate) async fn with_latency_all_basic_operations_work(faulty: &Faulty) {
    faulty.proxy.delay(LATENCY);
    let remote = &faulty.remote;
    let begun = Instant::now();
    remote.ping().await.unwrap();
    assert!(begun.elapsed() >= 2 * LATENCY, "the proxy delays nothing");
    let content = bytes(1);
    remote.make_directory(&path("/folder")).await.unwrap();
    let written = remote.write(&path("/folder/a"), Content::from_bytes(content.clone()), IfExists::Fail).await.unwrap();
    assert_eq!(written.size, Some(CONTENT_BYTES as u64));
    assert_eq!(remote.stat(&path("/folder/a")).await.unwrap().size, written.size);
    assert!(all_of(remote, "/folder/a").await.unwrap() == content, "the content differs");
    let range = ByteRange { offset: 1_000_000, length: Some(100) };
    let part = remote.read(&path("/folder/a"), range).await.unwrap().collect(100).await.unwrap();
    assert_eq!(part, content.slice(1_000_000..1_000_100));
    remote.rename(&path("/folder/a"), &path("/folder/b"), IfExists::Fail).await.unwrap();
    remote.copy(&path("/folder/b"), &path("/c"), IfExists::Fail).await.unwrap();
    let names = remote.list(&path("/folder")).await.unwrap();
    assert_eq!(names.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["/folder/b"]);
    remote.delete(&path("/c")).await.unwrap();
    remote.delete_tree(&path("/folder")).await.unwrap();
    assert_eq!(remote.list(&RemotePath::root()).await.unwrap(), []);
}

/// Bytes of a server after which it has not let anybody in yet.
const BEFORE_THE_LOGIN: [u64; 4] = [0, 1, 20, 60];

pub(crate) async fn a_server_that_breaks_off_before_the_login_is_unavailable(faulty: &Faulty) {
    for harm in [Harm::Reset, Harm::Close, Harm::HalfClose] {
        for after in BEFORE_THE_LOGIN {
            let when = format!("{harm:?} after {after} bytes");
            faulty.proxy.arm(lasting(Way::ToClient, after, harm));
            let error = fails(in_time(faulty.remote.ping()).await, &[ErrorKind::Unavailable], &when);
            assert!(error.step().is_some(), "the step is not told, {when}: {}", chain(&error));
            assert!(faulty.proxy.heal(), "the fault did not happen, {when}");
            faulty.comes_to_open(0, &when).await;
        }
    }
}

pub(crate) async fn a_server_that_falls_silent_before_the_login_is_late(faulty: &Faulty) {
    for after in BEFORE_THE_LOGIN {
        let when = format!("silence after {after} bytes");
        faulty.proxy.arm(lasting(Way::ToClient, after, Harm::Stall));
        fails(in_time(faulty.remote.ping()).await, &[ErrorKind::Timeout], &when);
        assert!(faulty.proxy.heal(), "the fault did not happen, {when}");
        faulty.comes_to_open(0, &when).await;
    }
}

pub(crate) async fn an_upload_that_is_cut_changes_nothing(faulty: &Faulty) {
    let before = bytes(1);
    faulty.replace(&before, || {}).await.unwrap();
    for harm in [Harm::Reset, Harm::Close] {
        for after in [100_000, CONTENT_BYTES as u64 / 2] {
            let when = format!("{harm:?} after {after} bytes");
            faulty.proxy.arm(lasting(Way::ToServer, after, harm));
            // The connection was there, and broke in the middle; what cannot be reached any more may say so.
            let kinds: &[_] = match faulty.config {
                Config::Dropbox(_) => &[ErrorKind::Interrupted, ErrorKind::Unavailable],
                _ => &[ErrorKind::Interrupted],
            };
            fails(faulty.replace(&bytes(2), || {}).await, kinds, &when);
            assert!(faulty.proxy.heal(), "the fault did not happen, {when}");
            assert!(all_of(&faulty.sober, "/file").await.unwrap() == before, "the file was changed, {when}");
            faulty.goes_on(&when).await;
            faulty.sweep(&when).await;
        }
        // When the server is there again at once, nothing is left of it either.
        faulty.proxy.arm(once(Way::ToServer, 200_000, harm));
        let written = faulty.replace(&before, || {}).await;
        if let Err(error) = &written {
            assert_eq!(error.kind(), ErrorKind::Interrupted, "{}", chain(error));
        }
        faulty.has_only(&before, "after one cut").await;
    }
}

pub(crate) async fn an_upload_that_stalls_ends_in_time_and_changes_nothing(faulty: &Faulty) {
    let before = bytes(1);
    faulty.replace(&before, || {}).await.unwrap();
    faulty.proxy.arm(once(Way::ToServer, 300_000, Harm::Stall));
    fails(faulty.replace(&bytes(2), || {}).await, &[ErrorKind::Timeout], "a stall");
    assert!(faulty.proxy.heal(), "the fault did not happen");
    faulty.goes_on("after a stall").await;
    faulty.has_only(&before, "after a stall").await;
}

/// Reads `/file` and lets something happen after its first chunk; what arrived, and how it ended.
async fn cut_short(faulty: &Faulty, fault: Fault) -> (Bytes, Result<(), Error>) {
    let mut chunks = in_time(faulty.remote.read(&path("/file"), ByteRange::ALL)).await.unwrap().into_stream();
    let mut arrived = Vec::from(chunks.next().await.unwrap().unwrap());
    faulty.proxy.arm(fault);
    let rest = async {
        while let Some(chunk) = chunks.try_next().await? {
            arrived.extend_from_slice(&chunk);
        }
        Ok(())
    };
    let ended = in_time(rest).await;
    (arrived.into(), ended)
}

pub(crate) async fn a_download_that_is_cut_is_interrupted(faulty: &Faulty) {
    let content = bytes(1);
    faulty.replace(&content, || {}).await.unwrap();
    for harm in [Harm::Reset, Harm::Close, Harm::HalfClose] {
        for after in [0, 1000] {
            let when = format!("{harm:?} after {after} bytes more");
            let (arrived, ended) = cut_short(faulty, once(Way::ToClient, after, harm)).await;
            fails(ended, &[ErrorKind::Interrupted], &when);
            assert!(arrived.len() < CONTENT_BYTES && arrived == content.slice(..arrived.len()), "{when}");
            faulty.goes_on(&when).await;
        }
    }
}

pub(crate) async fn a_download_that_stalls_ends_in_time(faulty: &Faulty) {
    let content = bytes(1);
    faulty.replace(&content, || {}).await.unwrap();
    let (arrived, ended) = cut_short(faulty, once(Way::ToClient, 1000, Harm::Stall)).await;
    fails(ended, &[ErrorKind::Timeout], "a stall");
    assert!(arrived.len() < CONTENT_BYTES && arrived == content.slice(..arrived.len()));
}

/// That the file is as it was, or as it should be, by what the error of its write says.
async fn old_or_new(faulty: &Faulty, written: Result<Entry, Error>, old: &Bytes, new: &Bytes, when: &str) -> Bytes {
    let found = all_of(&faulty.sober, "/file").await.unwrap();
    assert!(found == old || found == new, "neither the old file nor the new one, {when}: {} bytes", found.len());
    match written {
        Ok(_) => assert!(found == new, "a write that succeeded wrote nothing, {when}"),
        Err(error) => {
            let kinds = [ErrorKind::Interrupted, ErrorKind::Unavailable, ErrorKind::Timeout];
            let error = fails(Err::<(), _>(error), &kinds, when);
            let is_lie = error.kind() == ErrorKind::Interrupted && found == new;
            assert!(!is_lie, "what was written is called interrupted, {when}: {}", chain(&error));
            // What never got to the end of its content needs no further word.
            let told = ["as it was before, or whole, so look before you repeat it", "the file is not there"];
            let tells = told.iter().any(|words| error.to_string().contains(words));
            assert!(tells || found == old, "what is known is not told, {when}: {}", chain(&error));
        }
    }
    found
}

/// Bytes of a server within its answers to the end of an upload, of whatever protocol, from none of them to all.
const WITHIN_THE_END: [u64; 14] = [0, 1, 25, 45, 60, 100, 140, 200, 350, 700, 1000, 1400, 1900, 2500];

pub(crate) async fn a_cut_after_the_last_byte_leaves_the_old_file_or_the_new_one(faulty: &Faulty) {
    let (mut there, mut other) = (bytes(1), bytes(2));
    faulty.replace(&there, || {}).await.unwrap();
    for (harm, lasts) in [(Harm::Reset, false), (Harm::Close, false), (Harm::Reset, true)] {
        for after in WITHIN_THE_END {
            let when = format!("{harm:?} after {after} bytes of the last answers, for good: {lasts}");
            let trigger = faulty.proxy.trigger();
            let fault = Fault { lasts, ..once(Way::ToClient, after, harm) };
            let written = faulty.replace(&other, move || trigger(fault)).await;
            faulty.proxy.heal();
            if old_or_new(faulty, written, &there, &other, &when).await == other {
                std::mem::swap(&mut there, &mut other);
            }
            match lasts {
                true => faulty.sweep(&when).await,
                false => faulty.comes_to_one_name(&when).await,
            }
        }
        faulty.goes_on("after all").await;
    }
}

pub(crate) async fn a_stall_after_the_last_byte_leaves_the_old_file_or_the_new_one(faulty: &Faulty) {
    let (mut there, mut other) = (bytes(1), bytes(2));
    faulty.replace(&there, || {}).await.unwrap();
    for after in [0, 60, 140] {
        let when = format!("silence after {after} bytes of the last answers");
        let trigger = faulty.proxy.trigger();
        let written = faulty.replace(&other, move || trigger(once(Way::ToClient, after, Harm::Stall))).await;
        faulty.proxy.heal();
        if old_or_new(faulty, written, &there, &other, &when).await == other {
            std::mem::swap(&mut there, &mut other);
        }
        faulty.goes_on(&when).await;
        faulty.comes_to_one_name(&when).await;
    }
}

pub(crate) async fn a_cut_in_a_small_operation_is_an_error_in_time_or_none(faulty: &Faulty) {
    faulty.replace(&Bytes::from_static(b"x"), || {}).await.unwrap();
    let kinds = [ErrorKind::Unavailable, ErrorKind::Interrupted];
    for after in [0, 10, 100, 400] {
        let when = format!("a reset after {after} bytes");
        let arm = || faulty.proxy.arm(once(Way::ToClient, after, Harm::Reset));
        arm();
        if let Err(error) = in_time(faulty.remote.stat(&path("/file"))).await {
            fails(Err::<(), _>(error), &kinds, &when);
        }
        arm();
        if let Err(error) = in_time(faulty.remote.list(&RemotePath::root())).await {
            fails(Err::<(), _>(error), &kinds, &when);
        }
        arm();
        // It may have happened or not, and an error says nothing else.
        match in_time(faulty.remote.rename(&path("/file"), &path("/other"), IfExists::Fail)).await {
            Ok(()) => assert!(faulty.sober.exists(&path("/other")).await.unwrap(), "{when}"),
            Err(error) => {
                let error = fails(Err::<(), _>(error), &kinds, &when);
                let tells = error.to_string().contains("it may have happened, so look before you repeat it");
                let happened = faulty.sober.exists(&path("/other")).await.unwrap();
                assert!(tells || !happened, "what may have happened is not told, {when}: {}", chain(&error));
            }
        }
        faulty.proxy.heal();
        if faulty.sober.exists(&path("/other")).await.unwrap() {
            assert!(!faulty.sober.exists(&path("/file")).await.unwrap(), "{when}");
            faulty.sober.rename(&path("/other"), &path("/file"), IfExists::Fail).await.unwrap();
        }
        faulty.has_only(&Bytes::from_static(b"x"), &when).await;
        faulty.goes_on(&when).await;
    }
}

pub(crate) async fn idle_connections_are_closed(faulty: &Faulty) {
    let common = Common {
        idle_timeout: Duration::from_millis(300),
        operations_max: OPERATIONS_MAX,
        connect_timeout: CONNECT_TIMEOUT,
        ..Common::default()
    };
    let remote = Remote::new("idle", common, faulty.config.clone(), &loopback()).unwrap();
    let pings = futures::future::join_all((0..2 * OPERATIONS_MAX).map(|_| remote.ping())).await;
    assert!(pings.iter().all(Result::is_ok));
    assert!(faulty.proxy.total() <= 2 * OPERATIONS_MAX + 1, "{} connections", faulty.proxy.total());
    faulty.comes_to_open(0, "idle").await;
    remote.ping().await.unwrap();
    drop(remote);
}

/// What only FTP has: data connections that break by themselves.
fn data(way: Way, after: u64, harm: Harm) -> Fault {
    Fault { which: Which::Data, ..once(way, after, harm) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_the_data_of_ftp_before_its_time_is_no_end_of_the_file() {
    let faulty = ftp().await;
    let before = bytes(1);
    faulty.replace(&before, || {}).await.unwrap();
    for harm in [Harm::Reset, Harm::Close] {
        for after in [0, 1, 100_000, CONTENT_BYTES as u64 - 1] {
            let when = format!("{harm:?} after {after} bytes of data");
            // To the server this is the end of the file, and it says so.
            faulty.proxy.arm(data(Way::ToServer, after.max(1), harm));
            let error = fails(faulty.replace(&bytes(2), || {}).await, &[ErrorKind::Interrupted], &when);
            assert!(chain(&error).contains("/file"), "{}", chain(&error));
            faulty.has_only(&before, &when).await;
            faulty.goes_on(&when).await;
        }
    }
    for harm in [Harm::Reset, Harm::Close, Harm::HalfClose] {
        let when = format!("{harm:?} in the data of a download");
        let (arrived, ended) = cut_short(&faulty, data(Way::ToClient, 1000, harm)).await;
        fails(ended, &[ErrorKind::Interrupted], &when);
        assert!(arrived == before.slice(..arrived.len()), "{when}");
        faulty.goes_on(&when).await;
    }
    faulty.ends().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_in_the_data_of_ftp_ends_in_time() {
    let faulty = ftp().await;
    let before = bytes(1);
    faulty.replace(&before, || {}).await.unwrap();
    faulty.proxy.arm(data(Way::ToServer, 100_000, Harm::Stall));
    fails(faulty.replace(&bytes(2), || {}).await, &[ErrorKind::Timeout], "an upload");
    faulty.goes_on("after an upload").await;
    faulty.has_only(&before, "after an upload").await;
    let (_, ended) = cut_short(&faulty, data(Way::ToClient, 1000, Harm::Stall)).await;
    fails(ended, &[ErrorKind::Timeout], "a download");
    faulty.ends().await;
}
