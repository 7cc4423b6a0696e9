//! The program `wharf`: the command line, and the wiring of configuration, runtime and listeners. The only place that
//! knows all of them.

mod admin;
mod command;
mod config;
mod door;
mod listener;
mod monitoring;
mod problem;

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use wharf_runtime::Runtime;

use admin::Admin;
use command::{CommandError, Outcome, Setting};
use config::{Configuration, ConfigurationError, LogFormat, Overrides};
use door::{BodyLimits, Door};
use listener::{Listener, ListenerSettings};
use monitoring::Metrics;

/// Operators' requests are small and few.
const ADMIN_CONNECTIONS_MAX: usize = 100;
const ADMIN_HEAD_BYTES_MAX: usize = 16 * 1024;
const ADMIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs services that were compiled to WebAssembly components.
///
/// A component that lies in the folder of services as NAME.wasm answers at /invoke/NAME.
#[derive(Parser)]
#[command(version, arg_required_else_help = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the host until it is told to stop (SIGINT or SIGTERM).
    Run(Place),
    Check(Check),
    Ping(command::Ping),
    #[command(visible_alias = "list")]
    Ls(command::List),
    #[command(visible_alias = "copy")]
    Cp(command::Copy),
    Sftp(command::Sftp),
    Dropbox(command::Dropbox),
}

#[derive(Args)]
struct Place {
    /// The configuration file [default: wharf.toml, where there is one].
    #[arg(long, value_name = "FILE", env = "WHARF_CONFIG")]
    config: Option<PathBuf>,
    /// The folder of services [default: ./services].
    #[arg(long, value_name = "DIR")]
    services: Option<PathBuf>,
    /// The folder for what the host must remember [default: ./state].
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The address for invocations; port 0 takes a free one [default: 127.0.0.1:8080].
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
    /// The address for operators; port 0 takes a free one [default: 127.0.0.1:8081].
    #[arg(long, value_name = "ADDR")]
    admin: Option<SocketAddr>,
}

/// Check the configuration and say what is wrong with it, without running anything.
#[derive(Args)]
struct Check {
    #[command(flatten)]
    place: Place,
    /// Print JSON, errors included.
    #[arg(long)]
    json: bool,
}

impl Place {
    fn load(self) -> Result<Configuration, ConfigurationError> {
        let overrides =
            Overrides { services: self.services, state: self.state, listen: self.listen, admin: self.admin };
        Configuration::find(self.config.as_deref(), overrides)
    }
}

fn main() -> ExitCode {
    let command = match CommandLine::try_parse() {
        Ok(line) => line.command,
        Err(error) => return command::misused(&error),
    };
    let outcome = install_tls_provider().and_then(|()| carry_out(command)).unwrap_or_else(|error| {
        // Nothing is left to do when standard error is closed.
        let _ = writeln!(std::io::stderr(), "wharf: {error:#}");
        if error.is::<ConfigurationError>() { Outcome::Misconfigured } else { Outcome::Failed }
    });
    outcome.into()
}

fn carry_out(command: Command) -> anyhow::Result<Outcome> {
    match command {
        Command::Run(place) => run(place),
        Command::Check(Check { place, json }) => Ok(command::told(json, check(place, json))),
        Command::Ping(ping) => on_connections(&ping.setting, ping.run()),
        Command::Ls(list) => on_connections(&list.setting, list.run()),
        Command::Cp(copy) => on_connections(&copy.setting, copy.run()),
        Command::Sftp(sftp) => on_connections(&sftp.setting, sftp.run()),
        Command::Dropbox(dropbox) => on_connections(&dropbox.setting, dropbox.run()),
    }
}

/// Runs a command on connections. What they log is for the host's log: a person gets the outcome.
fn on_connections(
    setting: &Setting,
    command: impl Future<Output = Result<Outcome, CommandError>>,
) -> anyhow::Result<Outcome> {
    let threads = tokio::runtime::Runtime::new()?;
    let outcome = setting.tell(threads.block_on(command));
    // A farewell to a server is a courtesy that nobody waits for.
    threads.shutdown_background();
    Ok(outcome)
}

fn check(place: Place, json: bool) -> Result<Outcome, CommandError> {
    let configuration = place.load()?;
    if json {
        command::print(&json!({ "warnings": configuration.warnings }))?;
        return Ok(Outcome::Done);
    }
    for warning in &configuration.warnings {
        command::say(format_args!("warning: {warning}"))?;
    }
    command::say("the configuration is right")?;
    Ok(Outcome::Done)
}

/// One TLS provider for everything; a second call would be a defect of this program.
fn install_tls_provider() -> anyhow::Result<()> {
    let installed = rustls::crypto::ring::default_provider().install_default();
    anyhow::ensure!(installed.is_ok(), "a TLS provider is installed already");
    Ok(())
}

fn run(place: Place) -> anyhow::Result<Outcome> {
    let configuration = place.load()?;
    let _log = start_log(&configuration)?;
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let drain = configuration.host.runtime.drain_timeout;
    let served = threads.block_on(serve(configuration));
    // What still runs after its time is ended with the process.
    threads.shutdown_timeout(drain.min(Duration::from_secs(1)));
    served.map(|()| Outcome::Done)
}

/// Writes the log to standard error from a thread of its own, so that a slow reader of it stops no request.
fn start_log(configuration: &Configuration) -> anyhow::Result<WorkerGuard> {
    let filter = EnvFilter::try_new(&configuration.host.log).context("the log filter under [host] is malformed")?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(false);
    match configuration.host.log_format {
        LogFormat::Text => log.init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
    Ok(guard)
}

async fn serve(configuration: Configuration) -> anyhow::Result<()> {
    for warning in &configuration.warnings {
        tracing::warn!("{warning}");
    }
    let http = configuration.http.clone();
    let public = Listener::bind(
        http.listen,
        ListenerSettings {
            connections_max: http.connections_max,
            header_timeout: http.header_timeout,
            head_bytes_max: http.head_bytes_max,
            write_timeout: http.body_timeout,
        },
        "invocations",
        "--listen or listen under [http]",
    )
    .await?;
    let operators = Listener::bind(
        configuration.admin.listen,
        ListenerSettings {
            connections_max: ADMIN_CONNECTIONS_MAX,
            header_timeout: ADMIN_TIMEOUT,
            head_bytes_max: ADMIN_HEAD_BYTES_MAX,
            write_timeout: ADMIN_TIMEOUT,
        },
        "operators",
        "--admin or listen under [admin]",
    )
    .await?;

    let drain = configuration.host.runtime.drain_timeout;
    let services = configuration.host.runtime.services_folder.clone();
    std::fs::create_dir_all(&services)
        .with_context(|| format!("the folder of services {} cannot be made", services.display()))?;
    let metrics = Metrics::start()?;
    let runtime = Runtime::start(configuration.host.runtime.clone(), configuration.live.clone())?;
    let applied = runtime.clone();
    let following = Arc::new(config::watch(configuration, move |live| applied.apply(live)));

    let (stop, stopped) = watch::channel(false);
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    announce(public.address()?, operators.address()?)?;

    let limits = BodyLimits { bytes_max: http.body_bytes_max, stall_max: http.body_timeout };
    let door = Arc::new(Door::new(runtime.clone(), limits));
    let admin = Arc::new(Admin::new(runtime.clone(), Arc::clone(&following), metrics, stopped.clone()));
    let invocations = tokio::spawn(public.serve(door, stopped.clone()));
    // Operators are answered until the last invocation has ended.
    let (stop_operators, operators_stopped) = watch::channel(false);
    let operations = tokio::spawn(operators.serve(admin, operators_stopped));

    tokio::select! {
        _ = interrupted.recv() => {}
        _ = terminated.recv() => {}
    }
    tracing::info!(drain_s = drain.as_secs(), "stopping: no new connections, requests in flight end");
    runtime.stop_deploying();
    stop.send_replace(true);
    if tokio::time::timeout(drain, invocations).await.is_err() {
        tracing::warn!("requests in flight did not end within the drain timeout: they are ended");
    }
    stop_operators.send_replace(true);
    // An operator who keeps a connection open does not keep the host.
    let _ = tokio::time::timeout(Duration::from_millis(100), operations).await;
    tracing::info!("stopped");
    Ok(())
}

/// Says on one line of standard output where the host listens.
fn announce(http: SocketAddr, admin: SocketAddr) -> std::io::Result<()> {
    let mut output = std::io::stdout();
    writeln!(output, "listening http={http} admin={admin}")?;
    output.flush()
}
