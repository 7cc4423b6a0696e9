//! How a user logs in (RFC 4252, RFC 4256): the ways that the operator configured, in that order, as far as the server
//! offers them.
//!
//! Knows no file and no command.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use russh::client::{AuthResult, Handle, KeyboardInteractiveAuthResponse, Prompt};
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKeyWithHashAlg, decode_secret_key};
use russh::{AgentAuthError, MethodKind, MethodSet};
use secrecy::{ExposeSecret, SecretString};

use super::ssh::{Farewell, Heard, Verifier};
use crate::error::{Error, ErrorKind, chain};

type Connection = Handle<Verifier>;

/// Keys of an agent that are tried: servers end a login after a few refusals (six with OpenSSH).
const AGENT_KEYS_MAX: usize = 5;

/// The cipher of old PEM files that `ssh-keygen -m PEM` takes, and the only one that can be read.
const PEM_CIPHER: &str = "AES-128-CBC";

/// Rounds of questions that are answered: a server that asks again and again accepts nothing.
const ROUNDS_MAX: u32 = 3;

/// One way to log in.
#[derive(Debug, Clone)]
pub enum Login {
    /// A private key in the form of OpenSSH or PEM.
    PrivateKey {
        /// The content of its file.
        key: SecretString,
        /// What it is encrypted with.
        passphrase: Option<SecretString>,
    },
    /// The keys of an SSH agent.
    Agent {
        /// Its socket; without one, the environment of the host names it (`SSH_AUTH_SOCK`).
        socket: Option<PathBuf>,
    },
    /// A password.
    Password(SecretString),
    /// A password in answer to whatever the server asks without showing the answer.
    KeyboardInteractive(SecretString),
}

impl Login {
    /// The name in the protocol.
    fn method(&self) -> MethodKind {
        match self {
            Self::PrivateKey { .. } | Self::Agent { .. } => MethodKind::PublicKey,
            Self::Password(_) => MethodKind::Password,
            Self::KeyboardInteractive(_) => MethodKind::KeyboardInteractive,
        }
    }

    /// The name in messages and in the configuration.
    fn name(&self) -> &'static str {
        match self {
            Self::PrivateKey { .. } => "private-key",
            Self::Agent { .. } => "agent",
            Self::Password(_) => "password",
            Self::KeyboardInteractive(_) => "keyboard-interactive",
        }
    }
}

/// Logs in; the name of the way that succeeded.
pub(super) async fn log_in(
    connection: &mut Connection,
    heard: &Heard,
    server: &str,
    user: &str,
    ways: &[Login],
) -> Result<&'static str, Error> {
    let mut tried = Vec::new();
    let broken = match try_ways(connection, user, ways, &mut tried).await {
        Ok(Verdict::Accepted(way)) => return Ok(way),
        Ok(Verdict::Refused { offered }) => {
            let tried = tried.join("; ");
            let message =
                format!("the SFTP server {server} refused the login of {user:?}; it offers {offered}; {tried}");
            return Err(Error::new(ErrorKind::Denied, message));
        }
        Err(error) => error,
    };
    if connection.is_closed() {
        // To its end, with which the last words of the server are known.
        let _known_already = (&mut *connection).await;
    }
    let Some(Farewell { words, is_refusal }) = heard.farewell() else {
        let message = format!("the connection to the SFTP server {server} broke while {user:?} was logging in");
        return Err(Error::new(ErrorKind::Unavailable, message).with_source(broken));
    };
    let kind = if *is_refusal { ErrorKind::Denied } else { ErrorKind::Unavailable };
    let tried: String = tried.iter().map(|way| format!("; {way}")).collect();
    let message = format!("the SFTP server {server} ended the login of {user:?} with the words {words:?}{tried}");
    Err(Error::new(kind, message))
}

enum Verdict {
    Accepted(&'static str),
    /// With the methods that were offered at first.
    Refused {
        offered: String,
    },
}

/// Tries one way after the other, and notes what came of those that were not accepted.
async fn try_ways(
    connection: &mut Connection,
    user: &str,
    ways: &[Login],
    tried: &mut Vec<String>,
) -> Result<Verdict, russh::Error> {
    let mut offered = match connection.authenticate_none(user).await? {
        AuthResult::Success => return Ok(Verdict::Accepted("none")),
        AuthResult::Failure { remaining_methods, .. } => remaining_methods,
    };
    let at_first = told(&offered);
    let mut left: Vec<&Login> = ways.iter().collect();
    while let Some(index) = left.iter().position(|way| offered.contains(&way.method())) {
        let way = left.remove(index);
        match attempt(connection, user, way).await {
            Ok(AuthResult::Success) => return Ok(Verdict::Accepted(way.name())),
            Ok(AuthResult::Failure { remaining_methods, partial_success }) => {
                let why = if partial_success {
                    // One of several ways that the server wants: it offers what is left.
                    offered = remaining_methods;
                    "accepted, but the server wants more"
                } else {
                    "the server does not accept it"
                };
                tried.push(format!("{}: {why}", way.name()));
            }
            Err(Attempt::Impossible(why)) => tried.push(format!("{}: {why}", way.name())),
            Err(Attempt::Broken(error)) => return Err(error),
        }
    }
    tried.extend(left.iter().map(|way| format!("{}: the server does not offer {}", way.name(), name(way.method()))));
    Ok(Verdict::Refused { offered: at_first })
}

fn name(method: MethodKind) -> &'static str {
    (&method).into()
}

fn told(methods: &MethodSet) -> String {
    let names: Vec<&str> = methods.iter().map(|method| name(*method)).collect();
    if names.is_empty() { "nothing that is known here".to_owned() } else { names.join(",") }
}

/// Why the server was not asked, or did not answer.
enum Attempt {
    Impossible(String),
    Broken(russh::Error),
}

impl From<russh::Error> for Attempt {
    fn from(error: russh::Error) -> Self {
        Self::Broken(error)
    }
}

async fn attempt(connection: &mut Connection, user: &str, way: &Login) -> Result<AuthResult, Attempt> {
    match way {
        Login::Password(password) => Ok(connection.authenticate_password(user, password.expose_secret()).await?),
        Login::KeyboardInteractive(password) => by_answers(connection, user, password).await,
        Login::PrivateKey { key, passphrase } => by_key(connection, user, key, passphrase.as_ref()).await,
        Login::Agent { socket } => by_agent(connection, user, socket.as_deref()).await,
    }
}

/// Answers every question whose answer is not shown with the password, as that is what one would type.
async fn by_answers(connection: &mut Connection, user: &str, password: &SecretString) -> Result<AuthResult, Attempt> {
    let mut asked = connection.authenticate_keyboard_interactive_start(user, None).await?;
    for round in 1.. {
        let prompts = match asked {
            KeyboardInteractiveAuthResponse::Success => break,
            KeyboardInteractiveAuthResponse::Failure { remaining_methods, partial_success } => {
                return Ok(AuthResult::Failure { remaining_methods, partial_success });
            }
            KeyboardInteractiveAuthResponse::InfoRequest { prompts, .. } => prompts,
        };
        if round > ROUNDS_MAX {
            return Err(Attempt::Impossible("the server asks again and again".to_owned()));
        }
        let answer = |prompt: &Prompt| if prompt.echo { String::new() } else { password.expose_secret().to_owned() };
        let answers = prompts.iter().map(answer).collect();
        asked = connection.authenticate_keyboard_interactive_respond(answers).await?;
    }
    Ok(AuthResult::Success)
}

async fn by_key(
    connection: &mut Connection,
    user: &str,
    key: &SecretString,
    passphrase: Option<&SecretString>,
) -> Result<AuthResult, Attempt> {
    if passphrase.is_none() && is_encrypted(key.expose_secret()) {
        return Err(Attempt::Impossible("the key is encrypted: set passphrase".to_owned()));
    }
    let is_rsa = key.expose_secret().contains("BEGIN RSA PRIVATE KEY");
    if let Some(cipher) = pem_cipher(key.expose_secret())
        && (cipher != PEM_CIPHER || !is_rsa)
    {
        return Err(Attempt::Impossible(format!(
            "the key is encrypted by {cipher}, as old PEM files are, of which only RSA keys by {PEM_CIPHER} are \
             supported: write it anew with ssh-keygen -p -f FILE"
        )));
    }
    let (text, words) = (key.clone(), passphrase.cloned());
    // What a passphrase is made of takes its time to compute on purpose.
    let read = tokio::task::spawn_blocking(move || {
        let words = words.as_ref().map(ExposeSecret::expose_secret);
        decode_secret_key(text.expose_secret().trim(), words)
    });
    let read = read.await.map_err(|error| Attempt::Broken(std::io::Error::other(error).into()))?;
    let key = read.map_err(|_| {
        Attempt::Impossible(if passphrase.is_some() {
            "the key cannot be read: its passphrase is wrong, or it is no private key of OpenSSH, PEM or PuTTY"
                .to_owned()
        } else {
            "the key cannot be read: it is no private key of OpenSSH, PEM or PuTTY".to_owned()
        })
    })?;
    let key = Arc::new(key);
    let mut answer = None;
    for hash in hashes(connection, &key.algorithm()).await? {
        let key = PrivateKeyWithHashAlg::new(Arc::clone(&key), hash);
        let result = connection.authenticate_publickey(user, key).await?;
        if is_settled(&result) {
            return Ok(result);
        }
        answer = Some(result);
    }
    answer.ok_or_else(|| Attempt::Impossible("the server takes signatures of no kind that the key makes".to_owned()))
}

/// Whether a key was accepted, if not as the only thing that the server wants.
fn is_settled(result: &AuthResult) -> bool {
    !matches!(result, AuthResult::Failure { partial_success: false, .. })
}

/// With which hashes a key may sign, best first: RSA keys with several, and servers that are old do not tell which they
/// take (RFC 8332, section 3.3).
async fn hashes(connection: &Connection, algorithm: &Algorithm) -> Result<Vec<Option<HashAlg>>, russh::Error> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return Ok(vec![None]);
    }
    Ok(match connection.best_supported_rsa_hash().await? {
        Some(best) => vec![best],
        None => vec![Some(HashAlg::Sha512), None],
    })
}

async fn by_agent(connection: &mut Connection, user: &str, socket: Option<&Path>) -> Result<AuthResult, Attempt> {
    let named = socket.map_or_else(|| "of SSH_AUTH_SOCK".to_owned(), |socket| format!("at {}", socket.display()));
    let unusable =
        |error: russh::keys::Error| Attempt::Impossible(format!("the agent {named} cannot be used: {}", chain(&error)));
    let agent = match socket {
        Some(socket) => AgentClient::connect_uds(socket).await,
        None => AgentClient::connect_env().await,
    };
    let mut agent = agent.map_err(unusable)?;
    if let Some(binding) = connection.agent_session_binding() {
        // An agent that does not know of this has no keys that are bound to servers either.
        let _bound = agent.bind_session(binding, false).await;
    }
    let identities = agent.request_identities().await.map_err(unusable)?;
    let mut last = Err(Attempt::Impossible("the agent has no keys".to_owned()));
    for identity in identities.iter().take(AGENT_KEYS_MAX) {
        for hash in hashes(connection, &identity.public_key().algorithm()).await? {
            let result = match identity {
                AgentIdentity::PublicKey { key, .. } => {
                    connection.authenticate_publickey_with(user, key.clone(), hash, &mut agent).await
                }
                AgentIdentity::Certificate { certificate, .. } => {
                    connection.authenticate_certificate_with(user, certificate.clone(), hash, &mut agent).await
                }
            };
            last = match result {
                Ok(result) if is_settled(&result) => return Ok(result),
                Ok(result) => Ok(result),
                Err(AgentAuthError::Send(_)) => return Err(Attempt::Broken(russh::Error::SendError)),
                Err(AgentAuthError::Key(error)) => Err(unusable(error)),
            };
        }
    }
    match last {
        Ok(_) if identities.len() > AGENT_KEYS_MAX => Err(Attempt::Impossible(format!(
            "the server accepts none of the first {AGENT_KEYS_MAX} keys of the agent, which has {}; more are not tried, \
             for servers end a login after a few: put the right one first, or set private-key",
            identities.len()
        ))),
        last => last,
    }
}

/// By what the content of an old PEM file is encrypted (RFC 1421, section 4.6.1.3).
fn pem_cipher(key: &str) -> Option<String> {
    let value = key.lines().find_map(|line| line.strip_prefix("DEK-Info:"))?;
    Some(super::wire::printable(value.split(',').next()?.trim().as_bytes()))
}

/// Whether a private key needs a passphrase, as far as its form tells.
fn is_encrypted(key: &str) -> bool {
    if key.contains("ENCRYPTED") {
        return true;
    }
    // The form of PuTTY.
    if let Some(cipher) = key.lines().find_map(|line| line.strip_prefix("Encryption:")) {
        return cipher.trim() != "none";
    }
    let Some((_, rest)) = key.split_once("-----BEGIN OPENSSH PRIVATE KEY-----") else { return false };
    let body: String = rest.split("-----").next().unwrap_or_default().split_ascii_whitespace().collect();
    let Ok(bytes) = STANDARD.decode(body) else { return false };
    // The name of the cipher follows the mark of the form (PROTOCOL.key of OpenSSH, section 1).
    let Some(after) = bytes.strip_prefix(b"openssh-key-v1\0") else { return false };
    !after.starts_with(b"\0\0\0\x04none")
}
