//! Logging in once: the code flow of OAuth 2 with PKCE (RFC 6749 section 4.1, RFC 7636), up to the refresh token.
//!
//! A person opens the address, allows the application, and brings back a code, by hand or by a redirect. Knows neither
//! terminals nor listeners, and where the token is kept is the caller's part.

use std::sync::Arc;

use ::http::{HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

use super::call::Answer;
use super::checked;
use super::failure::{Call, presentable};
use crate::Common;
use crate::egress::Egress;
use crate::error::{Error, ErrorKind};
use crate::http::client::Client;

/// Random bytes of a verifier and of a state: as many as the digest of the verifier has (RFC 7636 section 7.1).
const RANDOM_BYTES: usize = 32;

/// The longest code that is taken from a person; those of Dropbox have less than a hundred characters.
const CODE_BYTES_MAX: usize = 1024;

const CALL: Call<'static> = Call { route: "oauth2/token", subject: "the login", repeatable: false };

/// The application that asks to be allowed in.
#[derive(Debug, Clone)]
pub struct Application {
    /// The application's key, public.
    pub app_key: String,
    /// The application's secret; with PKCE none is needed.
    pub app_secret: Option<SecretString>,
    /// Where people say yes: `https://www.dropbox.com/oauth2/authorize`.
    pub authorize_url: Url,
    /// Where a code becomes a token: `https://api.dropboxapi.com/oauth2/token`.
    pub token_url: Url,
    /// The only certificate authorities to trust, as PEM; those of the system when absent.
    pub certificate_authority: Option<Vec<u8>>,
}

impl Application {
    /// An application at Dropbox itself, without a secret.
    ///
    /// # Errors
    /// None in practice: the built-in URLs parse.
    pub fn new(app_key: &str) -> Result<Self, Error> {
        let url = |text: &str| {
            Url::parse(text).map_err(|error| Error::new(ErrorKind::Internal, "a built-in URL").with_source(error))
        };
        Ok(Self {
            app_key: app_key.to_owned(),
            app_secret: None,
            authorize_url: url("https://www.dropbox.com/oauth2/authorize")?,
            token_url: url("https://api.dropboxapi.com/oauth2/token")?,
            certificate_authority: None,
        })
    }
}

/// One login under way: what is kept between the address and the code.
#[derive(Debug)]
pub struct Login {
    application: Application,
    redirect: Option<Url>,
    state: String,
    verifier: SecretString,
}

/// What a login gives.
#[derive(Debug)]
pub struct Tokens {
    /// Lasts until it is revoked: what to keep.
    pub refresh_token: SecretString,
    /// Whose account it is, such as `dbid:...`.
    pub account_id: Option<String>,
    /// What it allows.
    pub scopes: Vec<String>,
}

/// A refresh token as a login leaves it in a file: the token on the first line, what it allows on the second, because
/// Dropbox tells that at the login only. A token alone is one, too.
#[derive(Debug, Clone)]
pub struct Stored {
    /// The token.
    pub refresh_token: SecretString,
    /// What it allows, where that is known.
    pub scopes: Option<String>,
}

/// What the second line begins with.
const SCOPES: &str = "scopes: ";

impl Stored {
    /// Reads what [`Tokens::stored`] wrote, or a token.
    pub fn read(text: &SecretString) -> Self {
        let text = text.expose_secret();
        let (token, rest) = text.split_once('\n').unwrap_or((text, ""));
        let scopes = rest.lines().find_map(|line| line.strip_prefix(SCOPES)).map(presentable);
        Self { refresh_token: token.trim_end_matches('\r').into(), scopes }
    }
}

impl Tokens {
    /// The text to keep for [`Stored::read`].
    pub fn stored(&self) -> SecretString {
        let token = self.refresh_token.expose_secret();
        match self.scopes.as_slice() {
            [] => format!("{token}\n").into(),
            scopes => format!("{token}\n{SCOPES}{}\n", scopes.join(" ")).into(),
        }
    }
}

#[derive(Deserialize)]
struct Granted {
    refresh_token: Option<String>,
    account_id: Option<String>,
    scope: Option<String>,
}

#[derive(Deserialize)]
struct OauthError {
    error: String,
    error_description: Option<String>,
}

impl Login {
    /// Begins a login. With `redirect`, which must be registered in the app console, the code comes to that address;
    /// without, Dropbox shows it to the person.
    pub fn begin(application: Application, redirect: Option<Url>) -> Self {
        let verifier = base64url(&rand::random::<[u8; RANDOM_BYTES]>()).into();
        Self { application, redirect, state: base64url(&rand::random::<[u8; RANDOM_BYTES]>()), verifier }
    }

    /// The address that the person opens. `scopes` are the permissions to ask for; those of the application when
    /// empty.
    pub fn address(&self, scopes: &[&str]) -> Url {
        let mut address = self.application.authorize_url.clone();
        let challenge = base64url(&Sha256::digest(self.verifier.expose_secret().as_bytes()));
        {
            let mut query = address.query_pairs_mut();
            query
                .append_pair("client_id", &self.application.app_key)
                .append_pair("response_type", "code")
                .append_pair("token_access_type", "offline")
                .append_pair("code_challenge", &challenge)
                .append_pair("code_challenge_method", "S256")
                .append_pair("state", &self.state);
            if let Some(redirect) = &self.redirect {
                query.append_pair("redirect_uri", redirect.as_str());
            }
            if !scopes.is_empty() {
                query.append_pair("scope", &scopes.join(" "));
            }
        }
        address
    }

    /// The code in the query of a redirect.
    ///
    /// # Errors
    /// `Denied` when the person said no; `Invalid` for a redirect that does not belong to this login.
    pub fn code_of_redirect(&self, query: &str) -> Result<SecretString, Error> {
        let value = |name: &str| {
            let mut pairs = url::form_urlencoded::parse(query.as_bytes());
            pairs.find(|(found, _)| found == name).map(|(_, value)| value.into_owned())
        };
        if value("state").as_deref() != Some(self.state.as_str()) {
            return Err(Error::new(ErrorKind::Invalid, "the redirect does not belong to this login; begin again"));
        }
        if let Some(error) = value("error") {
            let message = match error.as_str() {
                "access_denied" => "the login was refused in the browser".to_owned(),
                other => format!("Dropbox refused the login: {}", presentable(other)),
            };
            return Err(Error::new(ErrorKind::Denied, message));
        }
        value("code")
            .map(SecretString::from)
            .ok_or_else(|| Error::new(ErrorKind::Invalid, "the redirect has no code; begin again"))
    }

    /// Turns the code into tokens. A code is good once, for some minutes.
    ///
    /// # Errors
    /// `Denied` for a code that is wrong, used or too old, and for an application that Dropbox does not know; what
    /// keeps the token endpoint out of reach.
    pub async fn finish(&self, code: &SecretString, common: &Common, egress: Arc<Egress>) -> Result<Tokens, Error> {
        let code = code.expose_secret().trim();
        if code.is_empty() || code.len() > CODE_BYTES_MAX {
            return Err(Error::new(ErrorKind::Invalid, "this is no code of Dropbox; copy it as it is shown"));
        }
        let application = &self.application;
        let url = checked(application.token_url.clone(), "token-url")?;
        let client = Client::new(common, egress, application.certificate_authority.as_deref(), None)?;
        let mut fields = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("client_id", application.app_key.as_str()),
            ("code_verifier", self.verifier.expose_secret()),
        ];
        fields.extend(self.redirect.as_ref().map(|redirect| ("redirect_uri", redirect.as_str())));
        fields.extend(application.app_secret.as_ref().map(|secret| ("client_secret", secret.expose_secret())));
        let form = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish();
        let mut request = reqwest::Request::new(Method::POST, url);
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(header::CONTENT_TYPE, form_type);
        *request.body_mut() = Some(form.into());
        let answer = Answer::new(&CALL, client.send(request).await?);
        if !answer.status().is_success() {
            return Err(answer.into_problem(&CALL, refused).await.given_up());
        }
        let granted: Granted = answer.json(&CALL).await?;
        let Some(refresh_token) = granted.refresh_token else {
            let message = "Dropbox gave no refresh token; the address must ask for offline access";
            return Err(Error::new(ErrorKind::Denied, message));
        };
        let scopes = granted.scope.unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        Ok(Tokens { refresh_token: refresh_token.into(), account_id: granted.account_id, scopes })
    }
}

/// What the token endpoint refuses for good (RFC 6749 section 5.2).
fn refused(body: &[u8]) -> Option<Error> {
    let OauthError { error, error_description } = serde_json::from_slice(body).ok()?;
    let message = match error.as_str() {
        "invalid_grant" => {
            let said = error_description.map(|text| format!(" ({})", presentable(&text))).unwrap_or_default();
            format!("Dropbox does not take the code{said}: each is good once, for some minutes; begin again")
        }
        "invalid_client" | "unauthorized_client" => {
            "Dropbox does not know the application by this app key; check it in the app console".to_owned()
        }
        other => format!("Dropbox refuses the login: {}", presentable(other)),
    };
    Some(Error::new(ErrorKind::Denied, message))
}

/// Base64 with the alphabet for URLs, without padding (RFC 4648 section 5).
fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let bits = group.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for digit in 0..=group.len() {
            text.push(char::from(ALPHABET[(bits >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        let application = Application::new("key").unwrap();
        let login = Login { application, redirect: None, state: "s".to_owned(), verifier: verifier.into() };
        let address = login.address(&["files.content.read", "account_info.read"]);
        let pairs: Vec<_> = address.query_pairs().map(|(name, value)| format!("{name}={value}")).collect();
        assert!(pairs.contains(&"code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM".to_owned()), "{pairs:?}");
        assert!(pairs.contains(&"scope=files.content.read account_info.read".to_owned()), "{pairs:?}");
        assert!(!address.as_str().contains(verifier));
    }

    #[test]
    fn bytes_become_the_text_of_the_rfc() {
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(base64url(bytes.as_bytes()), text);
        }
        assert_eq!(base64url(&[0xfb, 0xff]), "-_8");
    }

    #[test]
    fn a_stored_token_is_read_with_its_scopes_and_a_token_alone_without() {
        let read = |text: &str| {
            let stored = Stored::read(&text.into());
            (stored.refresh_token.expose_secret().to_owned(), stored.scopes)
        };
        let tokens = |scopes: &[&str]| Tokens {
            refresh_token: "TOKEN".into(),
            account_id: None,
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
        };
        let kept = tokens(&["account_info.read", "files.content.read"]).stored();
        let scopes = Some("account_info.read files.content.read".to_owned());
        assert_eq!(read(kept.expose_secret()), ("TOKEN".to_owned(), scopes));
        assert_eq!(read(tokens(&[]).stored().expose_secret()), ("TOKEN".to_owned(), None));
        for plain in ["TOKEN", "TOKEN\n", "TOKEN\r\n"] {
            assert_eq!(read(plain), ("TOKEN".to_owned(), None));
        }
    }

    #[test]
    fn only_a_redirect_of_this_login_has_its_code() {
        let login = Login::begin(Application::new("key").unwrap(), None);
        let with = |rest: &str| login.code_of_redirect(&format!("state={}{rest}", login.state));
        assert_eq!(with("&code=a%2Bb").unwrap().expose_secret(), "a+b");
        assert_eq!(with("&error=access_denied").unwrap_err().kind(), ErrorKind::Denied);
        assert_eq!(with("").unwrap_err().kind(), ErrorKind::Invalid);
        assert_eq!(login.code_of_redirect("state=other&code=a").unwrap_err().kind(), ErrorKind::Invalid);
    }
}
