//! A server that answers each call to Dropbox as a test says, faults included, and remembers what it was asked.
//!
//! Speaks just enough HTTP/1.1, one request for each connection. Knows nothing of files: that is the emulator's part.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    /// Such as `files/upload`; `oauth2/token`.
    pub(crate) route: String,
    /// Header lines, with names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// From the header or the body.
    pub(crate) argument: Value,
    /// How much content came.
    pub(crate) bytes: u64,
    /// Whether the content came to its end.
    pub(crate) whole: bool,
    /// The content, unless it is huge.
    pub(crate) body: Vec<u8>,
}

impl Call {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// What goes out.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    Answer {
        status: u16,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        length: Option<usize>,
    },
    /// Close without an answer.
    Break,
}

impl Reply {
    pub(crate) fn ok(value: &Value) -> Self {
        Self::status(200, value)
    }

    pub(crate) fn status(status: u16, value: &Value) -> Self {
        Self::Answer { status, headers: Vec::new(), body: value.to_string().into_bytes(), length: None }
    }

    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self::Answer { status, headers: Vec::new(), body: text.as_bytes().to_vec(), length: None }
    }

    /// An endpoint error with this union.
    pub(crate) fn refusal(error: &Value) -> Self {
        Self::status(409, &json!({ "error_summary": "some/thing/...", "error": error }))
    }

    pub(crate) fn not_found() -> Self {
        Self::refusal(&json!({ ".tag": "path", "path": { ".tag": "not_found" } }))
    }

    pub(crate) fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    /// Announces more bytes than there are.
    pub(crate) fn announcing(mut self, bytes: usize) -> Self {
        if let Self::Answer { length, .. } = &mut self {
            *length = Some(bytes);
        }
        self
    }
}

/// Beyond this, content is counted only.
const BODY_BYTES_KEPT: usize = 8 * 1024 * 1024;

pub(crate) struct Scripted {
    pub(crate) url: String,
    calls: Arc<Mutex<Vec<Call>>>,
}

impl Scripted {
    /// Answers the n-th call, from 0, as `script` says.
    pub(crate) async fn start(script: impl Fn(&Call, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let calls = Arc::new(Mutex::new(Vec::new()));
        let (kept, script) = (Arc::clone(&calls), Arc::new(script));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                tokio::spawn(async move {
                    // A client that went away is for the test to notice.
                    let _ = serve(stream, &kept, script.as_ref()).await;
                });
            }
        });
        Self { url, calls }
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    pub(crate) fn routes(&self) -> Vec<String> {
        self.calls().into_iter().map(|call| call.route).collect()
    }
}

async fn serve(
    stream: TcpStream,
    calls: &Mutex<Vec<Call>>,
    script: &(impl Fn(&Call, usize) -> Reply + Send + Sync),
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    let target = line.split(' ').nth(1).unwrap_or_default();
    let route = target.trim_start_matches('/').trim_start_matches("2/").to_owned();
    let mut headers = Vec::new();
    loop {
        let mut line = Vec::new();
        stream.read_until(b'\n', &mut line).await?;
        let line = String::from_utf8(line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.push((name.to_lowercase(), value.to_owned()));
    }
    if route.is_empty() {
        return Ok(());
    }
    let mut call = Call { route, headers, argument: Value::Null, bytes: 0, whole: false, body: Vec::new() };
    // A connection that breaks leaves the call with what had come.
    call.whole = read_body(&mut stream, &mut call).await.is_ok();
    call.argument = match call.header("dropbox-api-arg") {
        Some(argument) => serde_json::from_str(argument).unwrap(),
        None => serde_json::from_slice(&call.body).unwrap_or_default(),
    };
    let (reply, whole) = {
        let mut calls = calls.lock().unwrap();
        let reply = script(&call, calls.len());
        let whole = call.whole;
        calls.push(call);
        (reply, whole)
    };
    let Reply::Answer { status, headers, body, length } = reply else { return Ok(()) };
    if !whole {
        return Ok(());
    }
    let length = length.unwrap_or(body.len());
    let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\nconnection: close\r\n");
    head.push_str("x-dropbox-request-id: request-1\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(&body).await?;
    stream.flush().await
}

async fn read_body(stream: &mut BufReader<TcpStream>, call: &mut Call) -> std::io::Result<()> {
    if call.header("transfer-encoding") != Some("chunked") {
        let length = call.header("content-length").map_or(0, |length| length.parse().unwrap());
        return take(stream, call, length).await;
    }
    loop {
        let mut size = String::new();
        stream.read_line(&mut size).await?;
        let Ok(size) = u64::from_str_radix(size.trim(), 16) else {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        };
        take(stream, call, size).await?;
        let mut end = [0; 2];
        stream.read_exact(&mut end).await?;
        if size == 0 {
            return Ok(());
        }
    }
}

async fn take(stream: &mut BufReader<TcpStream>, call: &mut Call, length: u64) -> std::io::Result<()> {
    let mut left = length;
    let mut buffer = vec![0; 64 * 1024];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let read = stream.read(&mut buffer[..most]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        if call.body.len() < BODY_BYTES_KEPT {
            call.body.extend_from_slice(&buffer[..read]);
        }
        call.bytes += read as u64;
        left -= read as u64;
    }
    Ok(())
}
