//! A plain HTTP client of a running emulator, and what the tests wait for.

use std::sync::Once;
use std::time::{Duration, Instant};

use dropbox_emulator::{Emulator, Options, Running};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap};
use reqwest::{Body, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};

/// How long a condition may take to come true before a test fails.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn start() -> Running {
    start_with(Options::default()).await
}

pub(crate) async fn start_with(options: Options) -> Running {
    Emulator::start(options).await.unwrap()
}

/// Waits until `condition` holds.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) struct Client {
    pub(crate) http: reqwest::Client,
    pub(crate) url: String,
    pub(crate) token: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) bytes: Vec<u8>,
}

impl Answer {
    pub(crate) async fn read(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, bytes: response.bytes().await.unwrap().to_vec() }
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.clone()).unwrap()
    }

    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json"), "{}", self.text());
        serde_json::from_slice(&self.bytes).unwrap()
    }

    /// The result of a call that succeeded.
    #[track_caller]
    pub(crate) fn result(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }

    /// The error of a call, as `status summary` without the dots.
    #[track_caller]
    pub(crate) fn error(&self) -> String {
        assert!(!self.status.is_success(), "{}", self.text());
        let json = self.json();
        let summary = json["error_summary"].as_str().unwrap();
        assert!(summary.ends_with('.'), "{summary}");
        format!("{} {}", self.status.as_u16(), summary.trim_end_matches('.').trim_end_matches('/'))
    }
}

impl Client {
    pub(crate) fn of(emulator: &Running) -> Self {
        Self::new(&emulator.url(), emulator.ca_pem())
    }

    pub(crate) fn new(url: &str, ca_pem: &str) -> Self {
        static PROVIDER: Once = Once::new();
        PROVIDER.call_once(|| rustls::crypto::ring::default_provider().install_default().unwrap());
        let authority = reqwest::Certificate::from_pem(ca_pem.as_bytes()).unwrap();
        let http = reqwest::Client::builder().tls_certs_only([authority]).no_proxy().build().unwrap();
        Self { http, url: url.to_owned(), token: Options::default().access_token }
    }

    pub(crate) fn post(&self, path: &str) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.url))
    }

    /// A request to a route, with the access token.
    pub(crate) fn route(&self, route: &str) -> RequestBuilder {
        self.post(&format!("/2/{route}")).header(AUTHORIZATION, format!("Bearer {}", self.token))
    }

    pub(crate) async fn rpc(&self, route: &str, argument: Value) -> Answer {
        Answer::read(self.route(route).json(&argument).send().await.unwrap()).await
    }

    pub(crate) fn upload_request(&self, argument: &Value, content: impl Into<Body>) -> RequestBuilder {
        let request = self.route("files/upload").header("Dropbox-API-Arg", argument.to_string().as_bytes());
        request.header(CONTENT_TYPE, "application/octet-stream").body(content)
    }

    pub(crate) async fn upload(&self, argument: Value, content: impl Into<Body>) -> Answer {
        Answer::read(self.upload_request(&argument, content).send().await.unwrap()).await
    }

    pub(crate) fn download_request(&self, path: &str) -> RequestBuilder {
        self.route("files/download").header("Dropbox-API-Arg", json!({ "path": path }).to_string().as_bytes())
    }

    pub(crate) async fn download(&self, path: &str) -> Answer {
        Answer::read(self.download_request(path).send().await.unwrap()).await
    }
}

/// The display paths of the entries of a page, each with its kind.
pub(crate) fn entries(page: &Value) -> Vec<String> {
    let entry =
        |entry: &Value| format!("{} {}", entry[".tag"].as_str().unwrap(), entry["path_display"].as_str().unwrap());
    page["entries"].as_array().unwrap().iter().map(entry).collect()
}
