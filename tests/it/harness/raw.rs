//! HTTP by hand on a plain connection, for what a proper client would not send.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::PATIENCE;

/// One connection.
pub(crate) struct Raw {
    stream: TcpStream,
    /// Read, and not yet given out.
    pending: Vec<u8>,
}

/// One answer as it came.
#[derive(Debug, Clone)]
pub(crate) struct RawAnswer {
    pub(crate) status: u16,
    /// Status line and headers.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl RawAnswer {
    /// The value of a header; empty when there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        let mut values = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim());
        values.next().unwrap_or_default()
    }
}

impl Raw {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the host accepts");
        stream.set_nodelay(true).expect("a socket has this option");
        Self { stream, pending: Vec::new() }
    }

    /// Sends bytes. A host that has closed already shows itself when reading.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Says that nothing more will be sent.
    pub(crate) async fn close_writing(&mut self) {
        let _ = self.stream.shutdown().await;
    }

    /// Reads until the host closes or `patience` is over. Second: whether it closed.
    pub(crate) async fn read_to_end(&mut self, patience: Duration) -> (Vec<u8>, bool) {
        let stream = &mut self.stream;
        let pending = &mut self.pending;
        let closed = timeout(patience, async {
            // A reset is an end, too.
            while let Ok(1..) = stream.read_buf(pending).await {}
        })
        .await
        .is_ok();
        (std::mem::take(&mut self.pending), closed)
    }

    /// Reads more. `false` at the end.
    async fn read_more(&mut self) -> bool {
        let read = timeout(PATIENCE, self.stream.read_buf(&mut self.pending)).await;
        matches!(read.expect("the host sends something or closes"), Ok(1..))
    }

    /// Reads until `end` occurs, and gives everything up to and with it. `None` when the host closes before.
    pub(crate) async fn read_until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.pending.windows(end.len()).position(|window| window == end) {
                return Some(self.pending.drain(..at + end.len()).collect());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Reads one answer: its body by `Content-Length`, by chunks, or to the end. `None` when the host closes without.
    pub(crate) async fn answer(&mut self) -> Option<RawAnswer> {
        let head = String::from_utf8_lossy(&self.read_until(b"\r\n\r\n").await?).into_owned();
        let status = head.split(' ').nth(1)?.parse().ok()?;
        let mut answer = RawAnswer { status, head, body: Vec::new() };
        if let Ok(length) = answer.header("content-length").parse::<usize>() {
            while self.pending.len() < length && self.read_more().await {}
            answer.body = self.pending.drain(..length.min(self.pending.len())).collect();
        } else if answer.header("transfer-encoding").eq_ignore_ascii_case("chunked") {
            while let Some(chunk) = self.chunk().await {
                answer.body.extend(chunk);
            }
        } else if !matches!(status, 100..=199 | 204 | 304) {
            while self.read_more().await {}
            answer.body = std::mem::take(&mut self.pending);
        }
        Some(answer)
    }

    /// Reads one chunk of a chunked body. `None` at its end, and when it breaks off.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.read_until(b"\r\n").await?;
        let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("the size of a chunk");
        while self.pending.len() < size + 2 {
            if !self.read_more().await {
                return None;
            }
        }
        let chunk: Vec<u8> = self.pending.drain(..size).collect();
        self.pending.drain(..2);
        (size > 0).then_some(chunk)
    }
}
