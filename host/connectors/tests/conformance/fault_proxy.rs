//! A proxy on loopback before a real server, which does to its connections what networks do on bad days: latency, and
//! at a byte that a test chooses an end, a reset or silence.
//!
//! Knows of no protocol what its bytes mean, but for one line: when an FTP server names a port for data, the proxy
//! listens on the same port of its own address before the client hears of it. Nothing is rewritten.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What is read at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Chunks that are on their way one way: 16 MiB, so that latency costs no throughput.
const CHUNKS_ON_THEIR_WAY_MAX: usize = 1024;

/// What may be on its way to a client that does not read: little, so that a fault can still strike it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

/// How long the proxy waits for a client at a port for data.
const DATA_WAIT: Duration = Duration::from_secs(30);

/// How long a connection that stalls takes nothing at all.
const UNREAD: Duration = Duration::from_secs(6);

/// The longest line that is looked at for a port.
const LINE_BYTES_MAX: usize = 1024;

/// Strikes that a connection has not noticed yet.
const STRIKES_MAX: usize = 16;

/// Where the proxy stands for a server whose client goes where it is told: an address that the server does not use.
const FTP_ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    ToServer,
    ToClient,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// Both sides are told at once that it is broken.
    Reset,
    /// Both sides see an orderly end.
    Close,
    /// Nothing arrives any more, and nobody is told. At first nothing is read, either; later all of it is swallowed.
    Stall,
    /// The client sees the end of what the server sends; its own bytes still arrive.
    HalfClose,
}

/// Which connections are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    All,
    /// Data connections of FTP.
    Data,
}

/// Strikes once, after so many bytes one way, whatever is open then.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    pub(crate) which: Which,
    pub(crate) way: Way,
    pub(crate) after: u64,
    pub(crate) harm: Harm,
    /// Connections that come later are struck as well, until the proxy is healed.
    pub(crate) lasts: bool,
}

/// A proxy with all of its connections; they end with it.
pub(crate) struct FaultProxy {
    pub(crate) host: Ipv4Addr,
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    host: Ipv4Addr,
    server_port: u16,
    is_ftp: bool,
    state: Mutex<State>,
    strikes: broadcast::Sender<(Which, Harm)>,
    tasks: Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    latency: Duration,
    fault: Option<Fault>,
    /// Bytes since the fault was set.
    passed: u64,
    outage: Option<(Which, Harm)>,
    open: usize,
    total: usize,
}

impl FaultProxy {
    /// Before a server that listens on this port of 127.0.0.1.
    pub(crate) async fn before(server_port: u16) -> Self {
        Self::start(Ipv4Addr::LOCALHOST, server_port, false).await
    }

    /// The same for an FTP server and its data connections.
    pub(crate) async fn before_ftp(server_port: u16) -> Self {
        Self::start(FTP_ADDRESS, server_port, true).await
    }

    async fn start(host: Ipv4Addr, server_port: u16, is_ftp: bool) -> Self {
        let listener = TcpListener::bind((host, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            host,
            server_port,
            is_ftp,
            state: Mutex::default(),
            strikes: broadcast::Sender::new(STRIKES_MAX),
            tasks: Mutex::default(),
        });
        let accepting = Arc::clone(&shared);
        shared.tasks.lock().unwrap().spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let shared = Arc::clone(&accepting);
                let connection = Connection::new(Arc::clone(&shared), Which::All);
                shared.tasks.lock().unwrap().spawn(connection.serve(client, shared.server_port));
            }
        });
        Self { host, port, shared }
    }

    /// From now on each byte takes so long, each way.
    pub(crate) fn delay(&self, latency: Duration) {
        self.shared.state().latency = latency;
    }

    /// Lets a fault happen.
    pub(crate) fn arm(&self, fault: Fault) {
        self.shared.arm(fault);
    }

    /// What lets faults happen from within content on its way.
    pub(crate) fn trigger(&self) -> impl Fn(Fault) + Send + Sync + use<> {
        let shared = Arc::clone(&self.shared);
        move |fault| shared.arm(fault)
    }

    /// Ends an outage, and forgets a fault that has not happened yet; whether one had happened.
    pub(crate) fn heal(&self) -> bool {
        let mut state = self.shared.state();
        state.outage = None;
        state.fault.take().is_none()
    }

    /// Connections that clients have open.
    pub(crate) fn open(&self) -> usize {
        self.shared.state().open
    }

    /// All connections so far.
    pub(crate) fn total(&self) -> usize {
        self.shared.state().total
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.shared.tasks.lock().unwrap().abort_all();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn arm(&self, fault: Fault) {
        {
            let mut state = self.state();
            (state.fault, state.passed) = (Some(fault), 0);
        }
        if fault.after == 0 {
            self.strike();
        }
    }

    fn strike(&self) {
        let Some(fault) = self.state().fault.take() else { return };
        if fault.lasts {
            self.state().outage = Some((fault.which, fault.harm));
        }
        // Nobody may be connected.
        let _connections = self.strikes.send((fault.which, fault.harm));
    }

    /// How many of these bytes may pass before the fault strikes; all of them when it does not.
    fn pass(&self, which: Which, way: Way, bytes: usize) -> Option<usize> {
        let mut state = self.state();
        let fault = state.fault.filter(|fault| fault.way == way && fault.which.has(which))?;
        let left = fault.after - state.passed;
        if bytes as u64 >= left {
            return Some(left as usize);
        }
        state.passed += bytes as u64;
        None
    }

    /// Listens where an FTP server tells its client to connect to. Boxed, for a connection begins another one here.
    fn expect_data(self: &Arc<Self>, port: u16) -> BoxFuture<'_, ()> {
        let accepting = async move {
            let listener = TcpListener::bind((self.host, port)).await.unwrap();
            let shared = Arc::clone(self);
            self.tasks.lock().unwrap().spawn(async move {
                if let Ok(Ok((client, _))) = tokio::time::timeout(DATA_WAIT, listener.accept()).await {
                    drop(listener);
                    Connection::new(shared, Which::Data).serve(client, port).await;
                }
            });
        };
        accepting.boxed()
    }
}

impl Which {
    fn has(self, connection: Self) -> bool {
        self == Self::All || self == connection
    }
}

/// One connection of a client, and the one to the server that belongs to it.
struct Connection {
    shared: Arc<Shared>,
    /// `All` for one that is no data connection.
    which: Which,
    strikes: broadcast::Receiver<(Which, Harm)>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.state().open -= 1;
    }
}

impl Connection {
    fn new(shared: Arc<Shared>, which: Which) -> Self {
        let strikes = shared.strikes.subscribe();
        {
            let mut state = shared.state();
            state.open += 1;
            state.total += 1;
        }
        Self { shared, which, strikes }
    }

    async fn serve(mut self, mut client: TcpStream, server_port: u16) {
        let outage = self.shared.state().outage.filter(|(which, _)| which.has(self.which));
        let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, server_port)).await else { return };
        client.set_nodelay(true).unwrap();
        server.set_nodelay(true).unwrap();
        SockRef::from(&client).set_send_buffer_size(SEND_BUFFER_BYTES).unwrap();
        let harm = match outage {
            Some((_, harm)) => harm,
            None => {
                let (from_client, to_client) = client.split();
                let (from_server, to_server) = server.split();
                let (shared, which) = (Arc::clone(&self.shared), self.which);
                let both = async {
                    tokio::join!(
                        carry(&shared, which, Way::ToServer, from_client, to_server),
                        carry(&shared, which, Way::ToClient, from_server, to_client)
                    );
                };
                tokio::select! {
                    harm = self.struck() => harm,
                    () = both => return,
                }
            }
        };
        match harm {
            Harm::Close => {
                // Without this an end with unread bytes before it is a reset.
                let _ended = (client.shutdown().await, server.shutdown().await);
            }
            Harm::Reset => {
                for stream in [&client, &server] {
                    SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
                }
            }
            Harm::Stall => {
                tokio::time::sleep(UNREAD).await;
                // Without this, an end of the client would wait behind what it has sent before.
                let _ended = tokio::io::copy(&mut client, &mut tokio::io::sink()).await;
            }
            Harm::HalfClose => {
                let _ended = client.shutdown().await;
                let (mut from_client, _) = client.split();
                let (mut from_server, mut to_server) = server.split();
                let mut nowhere = tokio::io::sink();
                tokio::select! {
                    _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
                    _ = tokio::io::copy(&mut from_server, &mut nowhere) => {}
                }
            }
        }
    }

    async fn struck(&mut self) -> Harm {
        loop {
            match self.strikes.recv().await {
                Ok((which, harm)) if which.has(self.which) => return harm,
                Ok(_) => {}
                Err(error) => panic!("a connection missed a strike: {error}"),
            }
        }
    }
}

/// Carries bytes one way until their end, or until the fault strikes; then the connection is ended by others.
async fn carry(shared: &Arc<Shared>, which: Which, way: Way, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) {
    let (sender, mut on_their_way) = mpsc::channel::<(Instant, Bytes)>(CHUNKS_ON_THEIR_WAY_MAX);
    let reading = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let arrives = Instant::now() + shared.state().latency;
            if sender.send((arrives, Bytes::copy_from_slice(&buffer[..length]))).await.is_err() {
                return;
            }
        }
    };
    let writing = async {
        let mut line = Vec::new();
        while let Some((arrives, chunk)) = on_their_way.recv().await {
            tokio::time::sleep_until(arrives).await;
            if shared.is_ftp && which == Which::All && way == Way::ToClient {
                for port in data_ports(&mut line, &chunk) {
                    shared.expect_data(port).await;
                }
            }
            match shared.pass(which, way, chunk.len()) {
                None if to.write_all(&chunk).await.is_ok() => {}
                None => return,
                Some(left) => {
                    let _whatever_comes = to.write_all(&chunk[..left]).await;
                    shared.strike();
                    std::future::pending::<()>().await;
                }
            }
        }
        let _ended = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

/// The ports that an FTP server tells in these bytes and the beginning of a line before them (RFC 2428, section 3).
fn data_ports(line: &mut Vec<u8>, chunk: &[u8]) -> Vec<u16> {
    let mut ports = Vec::new();
    for byte in chunk {
        if *byte != b'\n' && line.len() < LINE_BYTES_MAX {
            line.push(*byte);
            continue;
        }
        let text = String::from_utf8_lossy(line);
        let told = text.strip_prefix("229").and_then(|text| text.split_once("(|||")?.1.split_once("|)"));
        ports.extend(told.and_then(|(port, _)| port.parse::<u16>().ok()));
        line.clear();
    }
    ports
}
