//! A server of the world outside of the host: answers every request over HTTP with one text, and counts them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A running server, until it is dropped.
pub(crate) struct Outside {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Outside {
    pub(crate) async fn start(text: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::spawn(answer(stream, text));
            }
        });
        Self { address, connections, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// Connections that were made to it.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(mut stream: TcpStream, text: &str) {
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        if !matches!(stream.read_buf(&mut seen).await, Ok(1..)) {
            return;
        }
    }
    let head = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", text.len());
    // A client that is gone wants no answer.
    let _ = stream.write_all(format!("{head}{text}").as_bytes()).await;
}
