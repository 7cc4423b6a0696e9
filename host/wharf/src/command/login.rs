//! `wharf dropbox login`: a person allows the application in, and the refresh token is stored where the configuration
//! says.
//!
//! Of the configuration only the connection is read: before the first login, the token that it refers to is not there
//! yet.

use std::fs::File;
use std::io::{BufRead, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;
use wharf_connectors::dropbox::Credentials;
use wharf_connectors::dropbox::login::{Application, Login, Tokens};
use wharf_connectors::{Error, ErrorKind};

use super::{CommandError, Outcome, Setting, print, say};
use crate::config::{LoginSettings, before_login};

/// The head of the one request that a browser brings back; theirs have a few kilobytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Log in at Dropbox, and other things that only Dropbox has.
#[derive(Args)]
pub(crate) struct Dropbox {
    #[command(subcommand)]
    command: DropboxCommand,
    #[command(flatten)]
    pub(crate) setting: Setting,
}

#[derive(Subcommand)]
enum DropboxCommand {
    /// Let a person allow the application in, and store the refresh token where the configuration says.
    ///
    /// Prints an address to open in a browser and takes the code that Dropbox shows (OAuth 2 with PKCE, no secret
    /// needed). The connection needs `app-key` and `refresh-token = { file = "..." }`; the file need not exist yet.
    Login {
        /// The name of the connection.
        #[arg(value_name = "NAME")]
        name: String,
        /// Take the code from the browser itself, on this port of loopback; the address http://127.0.0.1:PORT/ must be
        /// registered in the app console.
        #[arg(long, value_name = "PORT")]
        redirect: Option<u16>,
        /// Ask for these permissions only, such as files.content.read. May be repeated.
        #[arg(long, value_name = "SCOPE")]
        scope: Vec<String>,
    },
}

impl Dropbox {
    pub(crate) async fn run(&self) -> Result<Outcome, CommandError> {
        let DropboxCommand::Login { name, redirect, scope } = &self.command;
        let (application, settings) = self.prepare(name)?;
        check_place(&settings.file)?;
        let listener = match redirect {
            Some(port) => Some(listen(*port).await?),
            None => None,
        };
        let redirect = listener.as_ref().map(|(_, url)| url.clone());
        let login = Login::begin(application, redirect);
        let scopes: Vec<&str> = scope.iter().map(String::as_str).collect();
        let address = login.address(&scopes);
        if self.setting.json {
            print(&json!({ "address": address.as_str() }))?;
        } else {
            say(format_args!("Open this address and allow the application in:\n\n  {address}\n"))?;
        }
        let code = match listener {
            Some((listener, _)) => redirected(listener, &login).await?,
            None => self.pasted().await?,
        };
        let tokens = login.finish(&code, &settings.common, settings.egress).await?;
        store(&settings.file, &tokens.stored())?;
        self.tell(name, &settings.file, &tokens)?;
        Ok(Outcome::Done)
    }

    fn prepare(&self, name: &str) -> Result<(Application, LoginSettings), CommandError> {
        let settings = before_login(self.setting.config.as_deref(), name)?
            .map_err(|known| CommandError::UnknownConnection { name: name.to_owned(), known })?;
        let Credentials::RefreshToken { app_key, app_secret, .. } = &settings.config.credentials else {
            return Err(Error::new(ErrorKind::Internal, "a login without an application").into());
        };
        let mut application = Application::new(app_key)?;
        application.app_secret = app_secret.clone();
        application.certificate_authority = settings.config.certificate_authority.clone();
        if settings.config.token_url != application.token_url {
            // A stand-in for Dropbox has its page beside its tokens.
            application.token_url = settings.config.token_url.clone();
            application.authorize_url = application.token_url.join("authorize").unwrap_or(application.authorize_url);
        }
        Ok((application, settings))
    }

    /// The code that a person pastes.
    async fn pasted(&self) -> Result<SecretString, CommandError> {
        if !self.setting.json {
            let asked = write!(std::io::stdout(), "The code that Dropbox shows then: ");
            asked.and_then(|()| std::io::stdout().flush()).map_err(super::unprinted)?;
        }
        let read = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line).map(|_| line)
        });
        let line = read.await.map_err(std::io::Error::other).and_then(|line| line);
        let line = line.map_err(|source| CommandError::Machine { what: "cannot read the code".to_owned(), source })?;
        Ok(SecretString::from(line.trim().to_owned()))
    }

    fn tell(&self, name: &str, file: &Path, tokens: &Tokens) -> Result<(), CommandError> {
        if self.setting.json {
            return print(&json!({
                "connection": name,
                "account": tokens.account_id,
                "scopes": tokens.scopes,
                "file": file,
            }));
        }
        say(format_args!("{name} is logged in; the refresh token is in {}", file.display()))?;
        say(format_args!("It allows: {}", tokens.scopes.join(" ")))
    }
}

async fn listen(port: u16) -> Result<(TcpListener, Url), CommandError> {
    let failed = |source| CommandError::Machine { what: format!("cannot listen on port {port} of loopback"), source };
    let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let url = Url::parse(&format!("http://{address}/")).map_err(|error| failed(std::io::Error::other(error)))?;
    Ok((listener, url))
}

/// Waits for the browser to bring the code. What else knocks is told so and not taken.
async fn redirected(listener: TcpListener, login: &Login) -> Result<SecretString, CommandError> {
    let failed = |source| CommandError::Machine { what: "cannot take the code from the browser".to_owned(), source };
    loop {
        let (mut stream, _) = listener.accept().await.map_err(failed)?;
        let mut head = Vec::new();
        let mut part = [0; 4096];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && head.len() < HEAD_BYTES_MAX {
            match stream.read(&mut part).await {
                Ok(0) | Err(_) => break,
                Ok(length) => head.extend_from_slice(&part[..length]),
            }
        }
        let head = String::from_utf8_lossy(&head);
        let target = head.lines().next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default();
        let Some((_, query)) = target.split_once('?') else {
            // A browser asks for an icon, too.
            let _ = answer(&mut stream, "404 Not Found", "There is nothing here.").await;
            continue;
        };
        let code = login.code_of_redirect(query);
        let told = match &code {
            Ok(_) => "Wharf has the code. You can close this page.".to_owned(),
            Err(error) => error.to_string(),
        };
        // The code counts, whether the page is shown or not.
        let _ = answer(&mut stream, "200 OK", &told).await;
        match code {
            Err(error) if error.kind() == ErrorKind::Invalid => {}
            code => return Ok(code?),
        }
    }
}

async fn answer(stream: &mut tokio::net::TcpStream, status: &str, text: &str) -> std::io::Result<()> {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(format!("{head}{text}").as_bytes()).await?;
    stream.shutdown().await
}

/// Makes sure, before somebody consents and the code is spent, that the token can be stored.
fn check_place(file: &Path) -> Result<(), CommandError> {
    let (_empty, temporary) = open_beside(file)?;
    std::fs::remove_file(temporary).map_err(|source| not_stored(file, source))
}

/// Puts the token, and what it allows, into its file at once, for its owner's eyes only.
fn store(file: &Path, stored: &SecretString) -> Result<(), CommandError> {
    let (mut written, temporary) = open_beside(file)?;
    let renamed = written
        .write_all(stored.expose_secret().as_bytes())
        .and_then(|()| written.sync_all())
        .and_then(|()| std::fs::rename(&temporary, file));
    renamed.map_err(|error| {
        // The error that counts is the first one.
        let _ = std::fs::remove_file(&temporary);
        not_stored(file, error)
    })
}

/// A new file beside another one, for what takes its place.
fn open_beside(file: &Path) -> Result<(File, PathBuf), CommandError> {
    let failed = |source| not_stored(file, source);
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = file.with_file_name(name);
    let opened = File::options().write(true).create_new(true).mode(0o600).open(&temporary).map_err(failed)?;
    Ok((opened, temporary))
}

fn not_stored(file: &Path, source: std::io::Error) -> CommandError {
    CommandError::Machine { what: format!("cannot store the token in {}", file.display()), source }
}
