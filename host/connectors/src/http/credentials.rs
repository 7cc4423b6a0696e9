//! Who the connection is: what is added to a request on its way to the connection's own origin, and to no other place.
//!
//! What is set here takes the place of what a service wrote under the same name. Knows no connection and no pool.

use std::fmt;

use ::http::header::{self, HeaderName, HeaderValue};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use secrecy::{ExposeSecret, SecretString};

use super::HOP_HEADERS;
use super::client::Client;
use super::token::{ClientCredentials, Tokens};
use crate::error::{Error, ErrorKind, Step};

/// How a connection shows who it is, besides a client certificate.
#[derive(Debug, Clone, Default)]
pub enum Credentials {
    /// Not at all.
    #[default]
    None,
    /// User and password (RFC 7617).
    Basic {
        /// Without a colon, which ends it.
        user: String,
        /// In UTF-8.
        password: SecretString,
    },
    /// A token that lasts (RFC 6750).
    Bearer(SecretString),
    /// A key in a header of this name.
    KeyHeader(HeaderName, SecretString),
    /// A key in a parameter of this name in the query.
    KeyParameter(String, SecretString),
    /// Tokens from a token endpoint, by the client's own credentials (RFC 6749 section 4.4).
    ClientCredentials(ClientCredentials),
}

/// A header that every request has.
#[derive(Clone)]
pub struct DefaultHeader {
    /// Its name.
    pub name: HeaderName,
    /// Its value. A secret takes the place of what a service sets; a plain one gives way to it.
    pub value: DefaultValue,
}

/// The value of a default header.
#[derive(Clone)]
pub enum DefaultValue {
    /// Known to everybody.
    Plain(String),
    /// A credential.
    Secret(SecretString),
}

impl fmt::Debug for DefaultHeader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = match &self.value {
            DefaultValue::Plain(value) => value,
            DefaultValue::Secret(_) => "[secret]",
        };
        write!(formatter, "{}: {value}", self.name)
    }
}

/// Adds credentials and default headers.
pub(super) struct Authorizer {
    credentials: Credentials,
    headers: Vec<DefaultHeader>,
    tokens: Option<Tokens>,
}

impl Authorizer {
    /// # Errors
    /// `Invalid` for names and values that cannot stand in a request, and for headers that contradict each other.
    pub(super) fn new(credentials: Credentials, headers: Vec<DefaultHeader>) -> Result<Self, Error> {
        let invalid = |why: String| Err(Error::new(ErrorKind::Invalid, why));
        let mut names: Vec<&HeaderName> = Vec::new();
        match &credentials {
            Credentials::None | Credentials::ClientCredentials(_) => {}
            Credentials::Basic { user, .. } if user.contains(':') => {
                return invalid("the user has a colon in it, which basic authentication cannot tell".to_owned());
            }
            Credentials::Basic { user, password } => drop(basic(user, password.expose_secret())?),
            Credentials::Bearer(token) => drop(bearer(token)?),
            Credentials::KeyHeader(_, key) => drop(secret_value("the API key", key.expose_secret())?),
            Credentials::KeyParameter(name, _) if name.is_empty() => {
                return invalid("the parameter of the API key has no name".to_owned());
            }
            Credentials::KeyParameter(..) => {}
        }
        match &credentials {
            Credentials::Basic { .. } | Credentials::Bearer(_) | Credentials::ClientCredentials(_) => {
                names.push(&header::AUTHORIZATION);
            }
            Credentials::KeyHeader(name, _) => names.push(name),
            Credentials::None | Credentials::KeyParameter(..) => {}
        }
        for default in &headers {
            names.push(&default.name);
            drop(default_value(default)?);
        }
        for (index, name) in names.iter().enumerate() {
            if HOP_HEADERS.contains(name) || **name == header::CONTENT_LENGTH {
                return invalid(format!("the header {name} is the host's own to set"));
            }
            if names[..index].contains(name) {
                return invalid(format!("the header {name} is set twice: by headers or credentials"));
            }
        }
        let tokens = match &credentials {
            Credentials::ClientCredentials(client) => Some(Tokens::new(client.clone())?),
            _ => None,
        };
        Ok(Self { credentials, headers, tokens })
    }

    /// Adds what there is to add; the access token that was used, where there is one. `client` reaches the token
    /// endpoint.
    pub(super) async fn authorize(
        &self,
        request: &mut reqwest::Request,
        client: &Client,
    ) -> Result<Option<SecretString>, Error> {
        for default in &self.headers {
            let gives_way = matches!(default.value, DefaultValue::Plain(_));
            if !(gives_way && request.headers().contains_key(&default.name)) {
                request.headers_mut().insert(default.name.clone(), default_value(default)?);
            }
        }
        let mut token = None;
        let (name, value) = match (&self.credentials, &self.tokens) {
            (Credentials::None, _) => return Ok(None),
            (Credentials::Basic { user, password }, _) => {
                (header::AUTHORIZATION, basic(user, password.expose_secret())?)
            }
            (Credentials::Bearer(token), _) => (header::AUTHORIZATION, bearer(token)?),
            (Credentials::KeyHeader(name, key), _) => (name.clone(), secret_value("the API key", key.expose_secret())?),
            (Credentials::KeyParameter(name, key), _) => {
                set_parameter(request.url_mut(), name, key.expose_secret());
                return Ok(None);
            }
            (Credentials::ClientCredentials(_), Some(tokens)) => {
                let fetched = tokens.get(client).await.map_err(|error| error.at(Step::Login));
                let token = token.insert(fetched?);
                (header::AUTHORIZATION, bearer(token)?)
            }
            (Credentials::ClientCredentials(_), None) => return Err(Error::new(ErrorKind::Internal, "no tokens")),
        };
        request.headers_mut().insert(name, value);
        Ok(token)
    }

    /// Forgets an access token that the origin no longer takes, unless it was replaced already.
    pub(super) async fn reject(&self, token: &SecretString) {
        if let Some(tokens) = &self.tokens {
            tokens.reject(token).await;
        }
    }
}

/// Replaces every parameter of the name, and leaves the others as they were written.
fn set_parameter(url: &mut url::Url, name: &str, value: &str) {
    let kept: Vec<&str> = url
        .query()
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter(|pair| !pair.is_empty() && url::form_urlencoded::parse(pair.as_bytes()).all(|(key, _)| key != name))
        .collect();
    let kept = kept.join("&");
    url.set_query(Some(&kept).filter(|kept| !kept.is_empty()).map(String::as_str));
    url.query_pairs_mut().append_pair(name, value);
}

fn default_value(default: &DefaultHeader) -> Result<HeaderValue, Error> {
    let what = format!("the value of the header {}", default.name);
    match &default.value {
        DefaultValue::Secret(secret) => secret_value(&what, secret.expose_secret()),
        DefaultValue::Plain(text) => plain_value(&what, text),
    }
}

/// `Basic` with user and password.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Error> {
    secret_value("the password", &format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
}

fn bearer(token: &SecretString) -> Result<HeaderValue, Error> {
    secret_value("the token", &format!("Bearer {}", token.expose_secret()))
}

fn secret_value(what: &str, text: &str) -> Result<HeaderValue, Error> {
    let mut value = plain_value(what, text)?;
    value.set_sensitive(true);
    Ok(value)
}

fn plain_value(what: &str, text: &str) -> Result<HeaderValue, Error> {
    // The cause would print what it was made from.
    HeaderValue::from_str(text)
        .map_err(|_| Error::new(ErrorKind::Invalid, format!("{what} has characters that no header may have")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(name: &'static str, value: &str) -> DefaultHeader {
        DefaultHeader { name: HeaderName::from_static(name), value: DefaultValue::Plain(value.to_owned()) }
    }

    fn problem(credentials: Credentials, headers: Vec<DefaultHeader>) -> String {
        match Authorizer::new(credentials, headers) {
            Ok(_) => "none".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn credentials_that_cannot_be_sent_or_contradict_are_refused_without_telling_them() {
        let basic = |user: &str| Credentials::Basic { user: user.to_owned(), password: "p".into() };
        assert_eq!(problem(basic("alice"), vec![plain("accept", "*/*")]), "none");
        assert!(problem(basic("a:b"), Vec::new()).contains("colon"));
        assert!(problem(Credentials::Bearer("hunter2\n".into()), Vec::new()).contains("no header may have"));
        assert!(!problem(Credentials::Bearer("hunter2\n".into()), Vec::new()).contains("hunter2"));
        assert!(problem(basic("alice"), vec![plain("authorization", "x")]).contains("authorization is set twice"));
        let key = Credentials::KeyHeader(HeaderName::from_static("x-key"), "k".into());
        assert!(problem(key, vec![plain("x-key", "x")]).contains("x-key is set twice"));
        assert!(problem(Credentials::None, vec![plain("host", "x")]).contains("host's own"));
        assert!(problem(Credentials::None, vec![plain("x-a", "a\r\nb")]).contains("no header may have"));
    }

    #[test]
    fn a_key_in_the_query_replaces_what_was_written_there_and_nothing_else() {
        for (url, expected) in [
            ("https://x/", "https://x/?key=s+1"),
            ("https://x/?a=1&key=mine&b=%2f", "https://x/?a=1&b=%2f&key=s+1"),
            ("https://x/?%6bey=mine&key", "https://x/?key=s+1"),
        ] {
            let mut url = url.parse().unwrap();
            set_parameter(&mut url, "key", "s 1");
            assert_eq!(url.as_str(), expected);
        }
    }

    #[test]
    fn nothing_secret_is_in_the_debug_output() {
        let header =
            DefaultHeader { name: HeaderName::from_static("x-tenant"), value: DefaultValue::Secret("hunter2".into()) };
        let basic = Credentials::Basic { user: "alice".to_owned(), password: "hunter2".into() };
        for shown in [format!("{header:?}"), format!("{basic:?}"), format!("{:?}", bearer(&"hunter2".into()).unwrap())]
        {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
