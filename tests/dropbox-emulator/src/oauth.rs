//! `POST /oauth2/token` and the access tokens it hands out.
//!
//! Knows the two grants a server-side client uses: `authorization_code` (with the app secret, or PKCE without) and
//! `refresh_token`, whose token is not rotated; and the page that gives away codes, where everyone consents. One code
//! is configured, for clients that skip the page. Knows nothing of files.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

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

/// A code that the consent page gave away.
struct Code {
    text: String,
    challenge: Option<String>,
    redirect: Option<String>,
}

/// The access tokens and codes handed out so far.
pub(crate) struct Tokens {
    application: Application,
    codes: Mutex<VecDeque<Code>>,
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
        Self { application, codes: Mutex::default(), issued: Mutex::new(VecDeque::from([standing])) }
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
                let code = field("code").unwrap_or_default();
                if code != application.authorization_code {
                    // A code is good once, whatever comes of it.
                    let Some(known) = self.take_code(&code) else {
                        return refuse("invalid_grant", "code doesn't exist or has expired");
                    };
                    if known.redirect != field("redirect_uri") {
                        return refuse("invalid_grant", "redirect_uri mismatch");
                    }
                    let proof = field("code_verifier").map(|verifier| base64url(&Sha256::digest(verifier.as_bytes())));
                    if known.challenge.is_some() && known.challenge != proof {
                        return refuse("invalid_grant", "invalid code verifier");
                    }
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

    /// `GET /oauth2/authorize`: everyone consents. With `redirect_uri` the code goes there, without it is shown.
    pub(crate) fn authorize_page(&self, query: &[u8]) -> Reply {
        let fields = form::pairs(query);
        let field = |name: &str| form::value(&fields, name);
        let refuse = |what: &str| Reply::text(StatusCode::BAD_REQUEST, format!("{what}\n"));
        if field("client_id").as_deref() != Some(self.application.key.as_str()) {
            return refuse("Invalid client_id");
        }
        if field("response_type").as_deref() != Some("code") {
            return refuse("Invalid response_type");
        }
        if field("code_challenge").is_some() && field("code_challenge_method").as_deref() != Some("S256") {
            return refuse("The emulator takes the code_challenge_method S256 only");
        }
        let text = lower_hex(&rand::random::<[u8; 16]>());
        let redirect = field("redirect_uri");
        let code = Code { text: text.clone(), challenge: field("code_challenge"), redirect: redirect.clone() };
        {
            let mut codes = lock(&self.codes);
            if codes.len() == MAX_TOKENS {
                codes.pop_front();
            }
            codes.push_back(code);
        }
        let Some(redirect) = redirect else { return Reply::text(StatusCode::OK, text) };
        let state = field("state").unwrap_or_default();
        let state = percent_encoding::utf8_percent_encode(&state, percent_encoding::NON_ALPHANUMERIC);
        let mut reply = Reply::text(StatusCode::FOUND, "");
        match HeaderValue::try_from(format!("{redirect}?code={text}&state={state}")) {
            Ok(location) => reply.headers.push((http::header::LOCATION, location)),
            Err(_) => return refuse("Invalid redirect_uri"),
        }
        reply
    }

    fn take_code(&self, text: &str) -> Option<Code> {
        let mut codes = lock(&self.codes);
        let at = codes.iter().position(|code| code.text == text)?;
        codes.remove(at)
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

/// Base64 with the alphabet for URLs, without padding (RFC 4648, section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let digits = bytes.chunks(3).flat_map(|group| {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        (0..=group.len()).map(move |digit| char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]))
    });
    digits.collect()
}

/// An OAuth error (RFC 6749, section 5.2).
pub(crate) fn refuse(error: &str, description: &str) -> Reply {
    Reply::json_with_status(StatusCode::BAD_REQUEST, json!({ "error": error, "error_description": description }))
}
