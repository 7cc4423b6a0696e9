//! `POST /oauth2/token` and the access tokens it hands out.
//!
//! Knows the two grants a server-side client uses: `authorization_code` (with the app secret, or PKCE without) and
//! `refresh_token`, whose token is not rotated. Knows nothing of files. No consent page: the code is configured.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::StatusCode;
use serde_json::json;

use crate::account::{ACCOUNT_ID, lock};
use crate::form;
use crate::reply::{Failure, Reply};
use crate::store::content::lower_hex;

/// Access tokens remembered. An older one is then unknown, that is invalid rather than expired.
const MAX_TOKENS: usize = 10_000;

/// What a client must present.
pub(crate) struct Application {
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) refresh_token: String,
    pub(crate) authorization_code: String,
    pub(crate) access_token_lifetime: Duration,
}

/// The access tokens handed out so far.
pub(crate) struct Tokens {
    application: Application,
    issued: Mutex<VecDeque<AccessToken>>,
}

struct AccessToken {
    text: String,
    expires: Expiry,
}

enum Expiry {
    Never,
    At(Instant),
    Past,
}

impl Tokens {
    /// `standing` is an access token that is valid from the start and does not expire by itself.
    pub(crate) fn new(application: Application, standing: String) -> Self {
        let standing = AccessToken { text: standing, expires: Expiry::Never };
        Self { application, issued: Mutex::new(VecDeque::from([standing])) }
    }

    /// Makes every access token handed out so far an expired one.
    pub(crate) fn expire_all(&self) {
        for token in lock(&self.issued).iter_mut() {
            token.expires = Expiry::Past;
        }
    }

    /// Checks the value of an `Authorization` header.
    pub(crate) fn authorize(&self, header: Option<&str>) -> Result<(), Failure> {
        let header = header.ok_or_else(|| {
            Failure::bad_input("Must provide HTTP header \"Authorization\" or URL parameter \"authorization\".")
        })?;
        let token =
            header.strip_prefix("Bearer ").map(str::trim).filter(|token| !token.is_empty()).ok_or_else(|| {
                Failure::bad_input(
                    "Invalid authorization value in HTTP header \"Authorization\". Expecting \"Bearer <token>\".",
                )
            })?;
        match lock(&self.issued).iter().find(|issued| issued.text == token).map(|issued| &issued.expires) {
            None => Err(Failure::Unauthorized("invalid_access_token")),
            Some(Expiry::Past) => Err(Failure::Unauthorized("expired_access_token")),
            Some(Expiry::At(end)) if *end <= Instant::now() => Err(Failure::Unauthorized("expired_access_token")),
            Some(Expiry::At(_) | Expiry::Never) => Ok(()),
        }
    }

    /// Answers a token request; `basic` is its `Authorization` header, `body` its form.
    pub(crate) fn exchange(&self, basic: Option<&str>, body: &[u8]) -> Reply {
        let fields = form::pairs(body);
        let field = |name: &str| form::value(&fields, name);
        let (client, secret) = match basic.and_then(form::basic_credentials) {
            Some((client, secret)) => (Some(client), Some(secret)),
            None => (field("client_id"), field("client_secret")),
        };
        let application = &self.application;
        if client.as_deref() != Some(application.key.as_str())
            || secret.as_ref().is_some_and(|secret| *secret != application.secret)
        {
            return refuse("invalid_client", "Invalid client_id or client_secret");
        }
        match field("grant_type").as_deref() {
            Some("refresh_token") => {
                if field("refresh_token").as_deref() != Some(application.refresh_token.as_str()) {
                    return refuse("invalid_grant", "refresh token is invalid or revoked");
                }
                Reply::json(json!({
                    "access_token": self.issue(),
                    "token_type": "bearer",
                    "expires_in": application.access_token_lifetime.as_secs(),
                }))
            }
            Some("authorization_code") => {
                if secret.is_none() && field("code_verifier").is_none() {
                    return refuse("invalid_client", "A client_secret or a code_verifier is required");
                }
                if field("code").as_deref() != Some(application.authorization_code.as_str()) {
                    return refuse("invalid_grant", "code doesn't exist or has expired");
                }
                Reply::json(json!({
                    "access_token": self.issue(),
                    "token_type": "bearer",
                    "expires_in": application.access_token_lifetime.as_secs(),
                    "refresh_token": application.refresh_token,
                    "scope": "account_info.read files.content.read files.content.write files.metadata.read files.metadata.write",
                    "uid": "1",
                    "account_id": ACCOUNT_ID,
                }))
            }
            _ => refuse("unsupported_grant_type", "grant_type must be authorization_code or refresh_token"),
        }
    }

    fn issue(&self) -> String {
        let text = format!("sl.{}", lower_hex(&rand::random::<[u8; 24]>()));
        let expires = Expiry::At(Instant::now() + self.application.access_token_lifetime);
        let mut issued = lock(&self.issued);
        if issued.len() == MAX_TOKENS {
            issued.pop_front();
        }
        issued.push_back(AccessToken { text: text.clone(), expires });
        text
    }
}

/// An OAuth error (RFC 6749, section 5.2).
pub(crate) fn refuse(error: &str, description: &str) -> Reply {
    Reply::json_with_status(StatusCode::BAD_REQUEST, json!({ "error": error, "error_description": description }))
}
