//! How a user logs in (RFC 4252, RFC 4256): the ways that the operator configured, in that order, as far as the server
//! offers them.
//!
//! Blocking; lives on the thread of its session. Knows no file and no command.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret, SecretString};
use ssh2::{ErrorCode, KeyboardInteractivePrompt, Prompt, Session};

use crate::error::{Error, ErrorKind};

/// Keys of an agent that are tried: servers end a login after a few refusals (six with OpenSSH).
const AGENT_KEYS_MAX: usize = 5;

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
    pub(super) fn method(&self) -> &'static str {
        match self {
            Self::PrivateKey { .. } | Self::Agent { .. } => "publickey",
            Self::Password(_) => "password",
            Self::KeyboardInteractive(_) => "keyboard-interactive",
        }
    }

    /// The name in messages and in the configuration.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::PrivateKey { .. } => "private-key",
            Self::Agent { .. } => "agent",
            Self::Password(_) => "password",
            Self::KeyboardInteractive(_) => "keyboard-interactive",
        }
    }
}

/// Logs in; the name of the way that succeeded.
pub(super) fn log_in(session: &Session, server: &str, user: &str, ways: &[Login]) -> Result<&'static str, Error> {
    let mut offered = match offers(session, user) {
        Ok(Some(offered)) => offered,
        Ok(None) => return Ok("none"),
        Err(error) => return Err(broken(server, user, error)),
    };
    let mut tried = Vec::new();
    for way in ways {
        if !is_offered(&offered, way) {
            // After one of several ways that a server wants, it offers others.
            if !tried.is_empty() {
                offered = offers(session, user).map_err(|error| broken(server, user, error))?.unwrap_or(offered);
            }
            if !is_offered(&offered, way) {
                tried.push(format!("{}: the server does not offer {}", way.name(), way.method()));
                continue;
            }
        }
        match attempt(session, user, way) {
            Ok(()) if session.authenticated() => return Ok(way.name()),
            Ok(()) => tried.push(format!("{}: accepted, but the server wants more", way.name())),
            Err(Attempt::Refused(why)) => tried.push(format!("{}: {why}", way.name())),
            Err(Attempt::Broken(error)) => return Err(broken(server, user, error)),
        }
    }
    Err(Error::new(
        ErrorKind::Denied,
        format!("the SFTP server {server} refused the login of {user:?}; it offers {offered}; {}", tried.join("; ")),
    ))
}

fn is_offered(offered: &str, way: &Login) -> bool {
    offered.split(',').any(|method| method == way.method())
}

/// The methods that the server takes; `None` when it asks for nothing.
fn offers(session: &Session, user: &str) -> Result<Option<String>, ssh2::Error> {
    match session.auth_methods(user) {
        Ok(methods) => Ok(Some(super::wire::printable(methods.as_bytes()))),
        Err(_) if session.authenticated() => Ok(None),
        Err(error) => Err(error),
    }
}

enum Attempt {
    Refused(String),
    Broken(ssh2::Error),
}

fn attempt(session: &Session, user: &str, way: &Login) -> Result<(), Attempt> {
    match way {
        Login::Password(password) => session.userauth_password(user, password.expose_secret()).map_err(refused),
        Login::KeyboardInteractive(password) => {
            let mut answers = Answers { password, rounds: 0 };
            session.userauth_keyboard_interactive(user, &mut answers).map_err(refused)
        }
        Login::PrivateKey { key, passphrase } => {
            let text = key.expose_secret();
            if passphrase.is_none() && is_encrypted(text) {
                return Err(Attempt::Refused("the key is encrypted: set passphrase".to_owned()));
            }
            let passphrase = passphrase.as_ref().map(ExposeSecret::expose_secret);
            // A file of a secret is read without the end of its last line, which the library wants.
            let whole = SecretString::from(format!("{}\n", text.trim_end()));
            let text = whole.expose_secret();
            session.userauth_pubkey_memory(user, None, text, passphrase).map_err(|error| match error.code() {
                // Whatever is wrong with the key itself, before the server is asked.
                ErrorCode::Session(code::FILE | code::METHOD_NONE | code::KEY_FILE | code::PROTO | code::DECRYPT) => {
                    let why = if passphrase.is_some() {
                        "the key cannot be read: its passphrase is wrong, or it is no private key of OpenSSH or PEM"
                    } else {
                        "the key cannot be read: it is no private key of OpenSSH or PEM"
                    };
                    Attempt::Refused(why.to_owned())
                }
                _ => refused(error),
            })
        }
        Login::Agent { socket } => by_agent(session, user, socket.as_ref()),
    }
}

fn by_agent(session: &Session, user: &str, socket: Option<&PathBuf>) -> Result<(), Attempt> {
    let unreachable = |error: ssh2::Error| Attempt::Refused(format!("the agent cannot be used: {}", error.message()));
    let mut agent = session.agent().map_err(unreachable)?;
    if let Some(socket) = socket {
        agent.set_identity_path(socket).map_err(unreachable)?;
    }
    agent.connect().map_err(unreachable)?;
    agent.list_identities().map_err(unreachable)?;
    let identities = agent.identities().map_err(unreachable)?;
    let mut last = Attempt::Refused("the agent has no keys".to_owned());
    for identity in identities.iter().take(AGENT_KEYS_MAX) {
        match agent.userauth(user, identity).map_err(refused) {
            Ok(()) => return Ok(()),
            Err(Attempt::Broken(error)) => return Err(Attempt::Broken(error)),
            Err(why) => last = why,
        }
    }
    Err(last)
}

/// The numbers of errors of libssh2 (its header `libssh2.h`) that tell what happened.
mod code {
    pub(super) const TIMEOUT: i32 = -9;
    pub(super) const SOCKET_SEND: i32 = -7;
    pub(super) const SOCKET_DISCONNECT: i32 = -13;
    pub(super) const PROTO: i32 = -14;
    pub(super) const FILE: i32 = -16;
    pub(super) const METHOD_NONE: i32 = -17;
    pub(super) const AUTHENTICATION_FAILED: i32 = -18;
    pub(super) const PUBLICKEY_UNVERIFIED: i32 = -19;
    pub(super) const SOCKET_TIMEOUT: i32 = -30;
    pub(super) const SOCKET_RECV: i32 = -43;
    pub(super) const BAD_SOCKET: i32 = -45;
    pub(super) const DECRYPT: i32 = -12;
    pub(super) const KEY_FILE: i32 = -48;
}

fn refused(error: ssh2::Error) -> Attempt {
    match error.code() {
        ErrorCode::Session(
            code::TIMEOUT
            | code::SOCKET_SEND
            | code::SOCKET_DISCONNECT
            | code::SOCKET_TIMEOUT
            | code::SOCKET_RECV
            | code::BAD_SOCKET,
        ) => Attempt::Broken(error),
        ErrorCode::Session(code::AUTHENTICATION_FAILED | code::PUBLICKEY_UNVERIFIED) => {
            Attempt::Refused("the server does not accept it".to_owned())
        }
        _ => Attempt::Refused(error.message().to_owned()),
    }
}

fn broken(server: &str, user: &str, error: ssh2::Error) -> Error {
    let message = format!("the connection to the SFTP server {server} broke while {user:?} was logging in");
    Error::new(ErrorKind::Unavailable, message).with_source(error)
}

/// Whether a private key needs a passphrase, as far as its form tells.
fn is_encrypted(key: &str) -> bool {
    if key.contains("ENCRYPTED") {
        return true;
    }
    let Some((_, rest)) = key.split_once("-----BEGIN OPENSSH PRIVATE KEY-----") else { return false };
    let body: String = rest.split("-----").next().unwrap_or_default().split_ascii_whitespace().collect();
    let Ok(bytes) = STANDARD.decode(body) else { return false };
    // The name of the cipher follows the mark of the form (PROTOCOL.key of OpenSSH, section 1).
    let Some(after) = bytes.strip_prefix(b"openssh-key-v1\0") else { return false };
    !after.starts_with(b"\0\0\0\x04none")
}

/// Rounds of questions that are answered: a server that asks again and again accepts nothing.
const ROUNDS_MAX: u32 = 3;

/// Answers every question whose answer is not shown with the password, as that is what one would type.
struct Answers<'a> {
    password: &'a SecretString,
    rounds: u32,
}

impl KeyboardInteractivePrompt for Answers<'_> {
    fn prompt<'a>(&mut self, _user: &str, _instructions: &str, prompts: &[Prompt<'a>]) -> Vec<String> {
        self.rounds += 1;
        let answer = |prompt: &Prompt<'_>| {
            if prompt.echo || self.rounds > ROUNDS_MAX {
                String::new()
            } else {
                self.password.expose_secret().to_owned()
            }
        };
        prompts.iter().map(answer).collect()
    }
}
