//! The emulator as a program, for demonstrations and for clients in other languages.
//!
//! Prints one line on standard output when it accepts connections, and runs until SIGINT or SIGTERM. Everything it
//! stores is gone then.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use dropbox_emulator::{Emulator, Options};
use tokio::signal::unix::{SignalKind, signal};

/// An emulator of the Dropbox API v2. It is not Dropbox: one account, kept in memory only, gone when it ends.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Address and port for HTTPS; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Where to write the certificate authority (PEM) that clients must trust; without it, a temporary file
    #[arg(long, value_name = "PATH")]
    ca_file: Option<PathBuf>,
    /// The most bytes held, such as 512MiB or 2GiB
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = parse_size)]
    max_bytes: u64,
    /// The app key (client_id)
    #[arg(long, value_name = "KEY")]
    app_key: Option<String>,
    /// The refresh token
    #[arg(long, value_name = "TOKEN")]
    refresh_token: Option<String>,
    /// An access token that does not expire
    #[arg(long, value_name = "TOKEN")]
    access_token: Option<String>,
    /// How long access tokens from /oauth2/token are valid
    #[arg(long, value_name = "SECONDS")]
    access_token_lifetime: Option<u64>,
}

/// Bytes, or KiB, MiB, GiB of them.
fn parse_size(text: &str) -> Result<u64, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let unit = units.iter().find_map(|(unit, shift)| text.strip_suffix(unit).map(|number| (number, *shift)));
    let (number, shift) = unit.unwrap_or((text, 0));
    let bytes = number.trim().parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "a whole number of bytes, or of KiB, MiB or GiB such as 512MiB".to_owned())
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut interrupted = signal(SignalKind::interrupt()).context("SIGINT cannot be handled")?;
    let mut terminated = signal(SignalKind::terminate()).context("SIGTERM cannot be handled")?;

    let mut options = Options { listen: arguments.listen, max_bytes: arguments.max_bytes, ..Options::default() };
    let overrides = [
        (&mut options.app_key, arguments.app_key),
        (&mut options.refresh_token, arguments.refresh_token),
        (&mut options.access_token, arguments.access_token),
    ];
    for (option, given) in overrides {
        if let Some(given) = given {
            *option = given;
        }
    }
    if let Some(seconds) = arguments.access_token_lifetime {
        options.access_token_lifetime = Duration::from_secs(seconds);
    }
    let emulator = Emulator::start(options).await?;

    // The temporary file is removed when `_temporary` is dropped, at the end.
    let (ca_file, _temporary) = match arguments.ca_file {
        Some(path) => {
            let written = std::fs::write(&path, emulator.ca_pem());
            written.with_context(|| format!("the certificate authority cannot be written to {}", path.display()))?;
            (path, None)
        }
        None => {
            let file = tempfile::Builder::new().prefix("dropbox-emulator-").suffix(".pem").tempfile();
            let mut file = file.context("there is no temporary file for the certificate authority")?;
            file.write_all(emulator.ca_pem().as_bytes()).context("the certificate authority cannot be written")?;
            (file.path().to_owned(), Some(file))
        }
    };

    writeln!(
        io::stderr(),
        "dropbox-emulator: an emulator, not Dropbox; files are kept in memory only and are gone when it ends"
    )?;
    let mut output = io::stdout();
    writeln!(output, "listening https={} ca={}", emulator.address(), ca_file.display())?;
    output.flush()?;

    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    emulator.stop().await;
    Ok(())
}
