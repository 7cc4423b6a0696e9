//! Requests to HTTP origins, against servers that do exactly what a test says.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on ends, and tells why")]

mod answers;
mod credentials;
mod forwarding;
mod hostile;
mod pool;
mod redirects;
mod retries;
mod secure;

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{HeaderMap, Method};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wharf_connectors::http::{Config, Origin, Request, Response};
use wharf_connectors::{Common, Content, Egress, Error};

const READ_TIMEOUT: Duration = Duration::from_millis(300);

/// A server that treats each connection as `script` says; its base URL.
async fn server<F>(script: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(script(stream));
        }
    });
    url
}

/// Requests as a server saw them.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<Heard>>>);

/// One request as a server saw it.
#[derive(Clone, Debug)]
struct Heard {
    /// Method and target, such as `GET /a?b`.
    line: String,
    /// In lower case.
    headers: Vec<(String, String)>,
    body: String,
}

impl Heard {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Seen {
    fn all(&self) -> Vec<Heard> {
        self.0.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.all().into_iter().map(|heard| heard.line).collect()
    }
}

/// A server that answers each request as `answer` says, which is told how many requests came before; its base URL.
async fn answering(answer: impl Fn(usize, &Heard) -> String + Send + Sync + 'static) -> (String, Seen) {
    let seen = Seen::default();
    let answer = Arc::new(answer);
    let also_seen = seen.clone();
    let url = server(move |stream| {
        let (answer, seen) = (Arc::clone(&answer), also_seen.clone());
        async move { converse(stream, &*answer, &seen).await }
    })
    .await;
    (url, seen)
}

/// Answers requests until the client has none.
async fn converse(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    answer: &(dyn Fn(usize, &Heard) -> String + Send + Sync),
    seen: &Seen,
) {
    while let Some(heard) = hear(&mut stream).await {
        let before = {
            let mut all = seen.0.lock().unwrap();
            all.push(heard.clone());
            all.len() - 1
        };
        if stream.write_all(answer(before, &heard).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// One request with its body, of a known length or in chunks.
async fn hear(stream: &mut (impl AsyncRead + Unpin)) -> Option<Heard> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let headers: Vec<(String, String)> = rest
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    let line = line.trim_end_matches(" HTTP/1.1").to_owned();
    let mut heard = Heard { line, headers, body: String::new() };
    let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    if heard.header("transfer-encoding").is_some() {
        while !body.ends_with(b"0\r\n\r\n") {
            body.push(stream.read_u8().await.ok()?);
        }
    }
    heard.body = String::from_utf8(body).unwrap();
    Some(heard)
}

/// An answer with a body of text.
fn answer(status: u16, headers: &[&str], body: &str) -> String {
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    format!("HTTP/1.1 {status} Told\r\n{headers}content-length: {}\r\n\r\n{body}", body.len())
}

/// Everything up to and including `end`.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut read = Vec::new();
    while !read.ends_with(end) {
        let mut byte = [0];
        if stream.read(&mut byte).await.unwrap() == 0 {
            panic!("the client closed after {:?}", String::from_utf8_lossy(&read));
        }
        read.push(byte[0]);
    }
    String::from_utf8(read).unwrap()
}

fn common() -> Common {
    Common { read_timeout: READ_TIMEOUT, connect_timeout: READ_TIMEOUT, retries: 0, ..Common::default() }
}

/// An origin that may reach this machine, and tries once.
fn open(config: Config) -> Origin {
    try_open(config).unwrap()
}

fn try_open(config: Config) -> Result<Origin, Error> {
    try_with(config, &common())
}

fn try_with(config: Config, common: &Common) -> Result<Origin, Error> {
    let egress = Egress::new(vec!["127.0.0.0/8".parse().unwrap()]);
    Origin::new("test", config, common, Arc::new(egress))
}

fn config(url: &str) -> Config {
    Config::new(url.parse().unwrap())
}

fn request(method: Method, path: &str, body: &str) -> Request {
    Request {
        method,
        path: path.to_owned(),
        query: Vec::new(),
        headers: HeaderMap::new(),
        content: Content::from_bytes(body.to_owned()),
    }
}

/// Sends a request that everything is permitted to.
async fn send(origin: &Origin, request: Request) -> Result<Response, Error> {
    origin.send(request, &|_, _| Ok(())).await
}

async fn get(origin: &Origin, path: &str) -> Result<Response, Error> {
    send(origin, request(Method::GET, path, "")).await
}

async fn text(response: Response) -> String {
    String::from_utf8(response.content.collect(1 << 20).await.unwrap().to_vec()).unwrap()
}

/// A body whose length nobody knows, and that cannot be sent twice.
fn streamed(body: &'static str) -> Content {
    Content::from_stream(None, futures::stream::iter([Ok(bytes::Bytes::from_static(body.as_bytes()))]))
}
