//! Access tokens: one at a time, renewed ahead of their end from a refresh token (RFC 6749 section 6).
//!
//! Operations that need one while it is being renewed wait for that one renewal. Knows nothing of what tokens are
//! used for.

use std::time::Duration;

use ::http::{HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::Url;

use super::Credentials;
use super::call::Answer;
use super::failure::{Call, Failure, Problem, presentable};
use super::wire::Granted;
use crate::backend::Facts;
use crate::error::{Error, ErrorKind};
use crate::http::client::Client;

/// How long before its end a token is replaced: longer than the longest call that began with it.
const AHEAD: Duration = Duration::from_secs(300);

/// After a renewal ahead of time failed, the next one is not tried before this, for the old token is still good.
const AHEAD_AGAIN: Duration = Duration::from_secs(30);

/// How long operations wait for a renewal ahead of time: the old token would serve them at once.
const AHEAD_PATIENCE: Duration = Duration::from_secs(5);

/// The life of a token whose answer does not say, and the longest that is believed: four hours is what Dropbox gives.
const LIFE: Duration = Duration::from_secs(4 * 3600);

const CALL: Call<'static> = Call { route: "oauth2/token", subject: "the connection", repeatable: true };

/// The access token of one account.
pub(super) struct Tokens {
    credentials: Credentials,
    /// What the login allowed, where that is known.
    scopes: Option<String>,
    url: Url,
    current: Mutex<Option<Current>>,
}

struct Current {
    token: SecretString,
    renew: Instant,
    end: Instant,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct OauthError {
    error: String,
}

impl Tokens {
    pub(super) fn new(credentials: Credentials, scopes: Option<String>, url: Url) -> Self {
        Self { credentials, scopes, url, current: Mutex::new(None) }
    }

    /// An access token that is good for a while. The lock is held while one is renewed, on purpose: that makes all
    /// the others wait for one renewal, and dropping the operation that renews lets the next one do it.
    pub(super) async fn get(&self, client: &Client) -> Result<SecretString, Problem> {
        let (app_key, app_secret, refresh_token) = match &self.credentials {
            Credentials::AccessToken(token) => return Ok(token.clone()),
            Credentials::RefreshToken { app_key, app_secret, refresh_token } => (app_key, app_secret, refresh_token),
        };
        let mut current = self.current.lock().await;
        if let Some(good) = current.as_ref().filter(|current| Instant::now() < current.renew) {
            return Ok(good.token.clone());
        }
        let renewal = self.renew(client, app_key, app_secret.as_ref(), refresh_token);
        let Some(still_good) = current.as_mut().filter(|current| Instant::now() < current.end) else {
            *current = None;
            return Ok(current.insert(renewal.await?).token.clone());
        };
        let renewed = tokio::time::timeout(AHEAD_PATIENCE, renewal).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, "Dropbox takes too long to renew the access token").into())
        });
        match renewed {
            Ok(renewed) => *still_good = renewed,
            Err(problem) => {
                tracing::warn!(?problem, "the access token of Dropbox could not be renewed ahead of its end");
                still_good.renew = Instant::now() + AHEAD_AGAIN;
            }
        }
        Ok(still_good.token.clone())
    }

    /// What is known of the token in use.
    pub(super) async fn facts(&self) -> Facts {
        if matches!(self.credentials, Credentials::AccessToken(_)) {
            return vec![
                ("token", "an access token, which ends by itself four hours after it was issued".to_owned()),
                (
                    "scopes",
                    "unknown: Dropbox tells them of a login only, and an access token comes without one".to_owned(),
                ),
            ];
        }
        let current = self.current.lock().await;
        let Some(current) = current.as_ref() else { return Vec::new() };
        let left = current.end.saturating_duration_since(Instant::now());
        let mut facts = vec![("token-expires-in", format!("{} s, then it is renewed", left.as_secs()))];
        let scopes = current.scope.as_deref().map(presentable).or_else(|| self.scopes.clone());
        let unknown = "unknown: Dropbox tells them at a login only, and this refresh token was stored without them; \
                       wharf dropbox login stores both";
        facts.push(("scopes", scopes.unwrap_or_else(|| unknown.to_owned())));
        facts
    }

    /// Forgets a token that Dropbox no longer takes, unless it was replaced already. Whether another can be had.
    pub(super) async fn reject(&self, rejected: &SecretString) -> bool {
        if matches!(self.credentials, Credentials::AccessToken(_)) {
            return false;
        }
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|current| current.token.expose_secret() == rejected.expose_secret()) {
            *current = None;
        }
        true
    }

    async fn renew(
        &self,
        client: &Client,
        app_key: &str,
        app_secret: Option<&SecretString>,
        refresh_token: &SecretString,
    ) -> Result<Current, Problem> {
        let mut fields = vec![
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose_secret()),
            ("client_id", app_key),
        ];
        fields.extend(app_secret.map(|secret| ("client_secret", secret.expose_secret())));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = reqwest::Request::new(Method::POST, self.url.clone());
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form_type);
        *request.body_mut() = Some(form.into());
        let asked = Instant::now();
        let answer = Answer::new(&CALL, client.send(request).await?);
        if !answer.status().is_success() {
            let failed = answer.status().is_server_error();
            return Err(match answer.into_problem(&CALL, refused).await {
                // Without a token nothing was sent yet, so every operation can wait for one.
                Problem::Final(Failure::Other(error)) if failed => Problem::Busy { asked: None, error },
                problem => problem,
            });
        }
        let granted: Granted = answer.json(&CALL).await.map_err(Problem::Final)?;
        let life = granted.expires_in.map_or(LIFE, Duration::from_secs).min(LIFE);
        Ok(Current {
            token: granted.access_token.into(),
            renew: asked + life.saturating_sub(AHEAD.min(life / 2)),
            end: asked + life,
            scope: granted.scope,
        })
    }
}

/// What the token endpoint refuses for good (RFC 6749 section 5.2).
fn refused(body: &[u8]) -> Option<Error> {
    let OauthError { error } = serde_json::from_slice(body).ok()?;
    let message = match error.as_str() {
        "invalid_grant" => {
            "the refresh token was revoked or has never been one; log in to Dropbox again and configure \
             the new refresh token"
                .to_owned()
        }
        "invalid_client" | "unauthorized_client" => {
            "Dropbox does not know the application by this app key and secret; check both in the app console".to_owned()
        }
        other => format!("Dropbox refuses to renew the access token: {}", presentable(other)),
    };
    Some(Error::new(ErrorKind::Denied, message))
}
