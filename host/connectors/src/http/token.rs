//! Access tokens by client credentials (RFC 6749 section 4.4): one at a time, renewed ahead of their end.
//!
//! Requests that need one while it is being fetched wait for that one. Knows nothing of what tokens are used for.

use std::time::Duration;

use ::http::{HeaderValue, Method, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::client::{Client, failed};
use super::credentials::basic;
use super::retry::retry_after;
use crate::error::{Error, ErrorKind};

/// How long before its end a token is replaced: longer than most requests that began with it.
const AHEAD: Duration = Duration::from_secs(60);

/// After a renewal ahead of time failed, the next one is not tried before this, for the old token is still good.
const AHEAD_AGAIN: Duration = Duration::from_secs(15);

/// How long requests wait for a renewal ahead of time: the old token would serve them at once.
const AHEAD_PATIENCE: Duration = Duration::from_secs(5);

/// The life of a token whose answer does not say: what most endpoints give. One that ends sooner is renewed when the
/// origin refuses it.
const LIFE: Duration = Duration::from_secs(3600);

/// The longest life that is believed, so that a token that was revoked is not kept for ever.
const LIFE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Longest answer of a token endpoint: a signed token with many claims has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Characters of a token endpoint's explanation that a message repeats.
const EXPLANATION_CHARACTERS_MAX: usize = 200;

/// What is known of a client of a token endpoint.
#[derive(Debug, Clone)]
pub struct ClientCredentials {
    /// The token endpoint.
    pub token_url: Url,
    /// Who the client is.
    pub client_id: String,
    /// What proves it.
    pub client_secret: SecretString,
    /// What the token shall be good for; none leaves that to the endpoint.
    pub scopes: Vec<String>,
    /// Whom the token is for, where the endpoint wants to know.
    pub audience: Option<String>,
    /// Where id and secret are written.
    pub authentication: ClientAuthentication,
}

/// Where the client's id and secret are written in a request for a token (RFC 6749 section 2.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuthentication {
    /// In the header `Authorization`.
    #[default]
    Basic,
    /// In the form.
    Form,
}

/// The access token of one connection.
pub(super) struct Tokens {
    settings: ClientCredentials,
    current: Mutex<Option<Current>>,
}

struct Current {
    token: SecretString,
    renew: Instant,
    end: Instant,
}

#[derive(Deserialize)]
struct Granted {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// Some endpoints write the number as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

impl Tokens {
    pub(super) fn new(settings: ClientCredentials) -> Result<Self, Error> {
        if !matches!(settings.token_url.scheme(), "http" | "https") || !settings.token_url.has_host() {
            return Err(Error::new(ErrorKind::Invalid, "the token url must begin with https://"));
        }
        if settings.scopes.iter().any(|scope| scope.is_empty() || scope.contains(char::is_whitespace)) {
            return Err(Error::new(ErrorKind::Invalid, "a scope is one word; write several as several"));
        }
        Ok(Self { settings, current: Mutex::new(None) })
    }

    /// An access token that is good for a while. The lock is held while one is fetched, on purpose: that makes all
    /// the others wait for one request, and dropping the operation that fetches lets the next one do it.
    pub(super) async fn get(&self, client: &Client) -> Result<SecretString, Error> {
        let mut current = self.current.lock().await;
        if let Some(good) = current.as_ref().filter(|current| Instant::now() < current.renew) {
            return Ok(good.token.clone());
        }
        let Some(still_good) = current.as_mut().filter(|current| Instant::now() < current.end) else {
            *current = None;
            return Ok(current.insert(self.fetch(client).await?).token.clone());
        };
        match tokio::time::timeout(AHEAD_PATIENCE, self.fetch(client)).await {
            Ok(Ok(renewed)) => *still_good = renewed,
            failed => {
                let error = failed.ok().and_then(Result::err);
                tracing::warn!(
                    error = error.as_ref().map(|error| crate::chain(error)),
                    "an access token could not be renewed ahead of its end"
                );
                still_good.renew = Instant::now() + AHEAD_AGAIN;
            }
        }
        Ok(still_good.token.clone())
    }

    /// Forgets a token that is no longer taken, unless it was replaced already.
    pub(super) async fn reject(&self, rejected: &SecretString) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| current.token.expose_secret() == rejected.expose_secret()) {
            *current = None;
        }
    }

    async fn fetch(&self, client: &Client) -> Result<Current, Error> {
        let asked = Instant::now();
        let answer = client.send(self.request()?).await.map_err(|error| {
            let (kind, retry_after) = (error.kind(), error.retry_after());
            let outer = Error::new(kind, format!("no access token from {}", self.host())).with_source(error);
            match retry_after {
                Some(wait) => outer.with_retry_after(wait),
                None => outer,
            }
        })?;
        let status = answer.status();
        let wait = retry_after(answer.headers());
        let body = self.body(answer).await?;
        if !status.is_success() {
            return Err(refused(self.host(), status, wait, &body, &self.sent()));
        }
        let (token, life) = granted(self.host(), &body)?;
        Ok(Current { token, renew: asked + life.saturating_sub(AHEAD.min(life / 2)), end: asked + life })
    }

    fn request(&self) -> Result<reqwest::Request, Error> {
        let settings = &self.settings;
        let secret = settings.client_secret.expose_secret();
        let scope = settings.scopes.join(" ");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !scope.is_empty() {
            form.append_pair("scope", &scope);
        }
        if let Some(audience) = &settings.audience {
            form.append_pair("audience", audience);
        }
        let mut request = reqwest::Request::new(Method::POST, settings.token_url.clone());
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        match settings.authentication {
            ClientAuthentication::Basic => {
                // Both are form-encoded first (RFC 6749 section 2.3.1).
                headers
                    .insert(header::AUTHORIZATION, basic(&form_encoded(&settings.client_id), &form_encoded(secret))?);
            }
            ClientAuthentication::Form => {
                form.append_pair("client_id", &settings.client_id).append_pair("client_secret", secret);
            }
        }
        *request.body_mut() = Some(form.finish().into());
        Ok(request)
    }

    /// The secret in the forms in which it was sent.
    fn sent(&self) -> Vec<SecretString> {
        let secret = self.settings.client_secret.expose_secret();
        let encoded = form_encoded(secret);
        let in_header = BASE64.encode(format!("{}:{encoded}", form_encoded(&self.settings.client_id)));
        [secret.to_owned(), encoded, in_header].map(SecretString::from).into()
    }

    async fn body(&self, answer: ::http::Response<reqwest::Body>) -> Result<Vec<u8>, Error> {
        let mut answer = reqwest::Response::from(answer);
        let mut body = Vec::new();
        while let Some(chunk) = answer.chunk().await.map_err(|error| failed(self.host(), error))? {
            if body.len() + chunk.len() > ANSWER_BYTES_MAX {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!("the answer of the token endpoint {} is longer than {ANSWER_BYTES_MAX} bytes", self.host()),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn host(&self) -> &str {
        self.settings.token_url.host_str().unwrap_or_default()
    }
}

/// What a token endpoint grants (RFC 6749 section 5.1): a token, and for how long.
///
/// # Errors
/// `Unavailable` for anything else. The cause is not told: it may repeat a part of the token.
pub(super) fn granted(host: &str, body: &[u8]) -> Result<(SecretString, Duration), Error> {
    let junk = |why: &str| {
        Error::new(
            ErrorKind::Unavailable,
            format!("the answer of the token endpoint {host} is not one with an access token: {why}"),
        )
    };
    let granted: Granted = serde_json::from_slice(body).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => junk("its JSON has no access_token, or another form"),
        _ => junk("it is not JSON"),
    })?;
    if granted.access_token.is_empty() || HeaderValue::from_str(&granted.access_token).is_err() {
        return Err(junk("its access_token cannot stand in a header"));
    }
    if let Some(other) = granted.token_type.filter(|form| !form.eq_ignore_ascii_case("bearer")) {
        return Err(junk(&format!("its token_type is {}, and only bearer is known", presentable(&other))));
    }
    let seconds = match granted.expires_in {
        None => LIFE.as_secs_f64(),
        Some(Seconds::Number(seconds)) => seconds,
        Some(Seconds::Text(text)) => text.trim().parse().unwrap_or(f64::NAN),
    };
    // "NaN" is a number to the parser, and no length of time.
    if seconds.is_nan() {
        return Err(junk("its expires_in is not a number"));
    }
    // A negative or endless life is the endpoint's mistake, not a reason to fail.
    let life = Duration::from_secs_f64(seconds.clamp(0.0, LIFE_MAX.as_secs_f64()));
    Ok((granted.access_token.into(), life))
}

fn form_encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What a status other than success says (RFC 6749 section 5.2). An explanation that repeats something secret that was
/// sent is not told.
pub(super) fn refused(
    host: &str,
    status: StatusCode,
    wait: Option<Duration>,
    body: &[u8],
    secrets: &[SecretString],
) -> Error {
    let code = status.as_u16();
    let error = if status.is_redirection() {
        let why = "redirects, and the client's secret is not sent on; set token-url to the final place";
        Error::new(ErrorKind::Denied, format!("the token endpoint {host} {why} (status {code})"))
    } else if status == StatusCode::TOO_MANY_REQUESTS {
        Error::new(ErrorKind::RateLimited, format!("the token endpoint {host} was asked too often"))
    } else if status.is_server_error() {
        Error::new(ErrorKind::Unavailable, format!("the token endpoint {host} fails with status {code}"))
    } else {
        let repeats = |text: &String| secrets.iter().any(|secret| text.contains(secret.expose_secret()));
        let explanation = match serde_json::from_slice(body) {
            Ok(Refusal { error, error_description })
                if repeats(&error) || error_description.as_ref().is_some_and(repeats) =>
            {
                "it repeats the client's secret, so its words are not told".to_owned()
            }
            Ok(Refusal { error, error_description: Some(description) }) => {
                format!("{}: {}", presentable(&error), presentable(&description))
            }
            Ok(Refusal { error, error_description: None }) => presentable(&error),
            Err(_) => "it does not say why".to_owned(),
        };
        Error::new(
            ErrorKind::Denied,
            format!("the token endpoint {host} refuses this client with status {code}: {explanation}"),
        )
    };
    match wait {
        Some(wait) => error.with_retry_after(wait),
        None => error,
    }
}

/// A text from outside as a message shows it: short, and without control characters.
fn presentable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(EXPLANATION_CHARACTERS_MAX).collect()
}
