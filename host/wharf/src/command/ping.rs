//! `wharf ping`: whether a connection works, how long it takes, and what the remote tells of itself.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{CommandError, Outcome, Setting, print, say};

/// Open a connection, log in, and do the smallest real operation.
///
/// Says how long it took and what the server tells of itself, or which step failed: name, connect, tls, host-key, login
/// or command.
#[derive(Args)]
pub(crate) struct Ping {
    /// The name of the connection.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    pub(crate) setting: Setting,
}

impl Ping {
    pub(crate) async fn run(&self) -> Result<Outcome, CommandError> {
        let remote = self.setting.open(&self.name)?;
        let ping = match remote.ping().await {
            Ok(ping) => ping,
            Err(error) if !self.setting.json && error.step().is_some() => {
                let step = error.step().map(|step| format!("{}: failed at {step}", self.name));
                say(step.unwrap_or_default())?;
                return Err(error.into());
            }
            Err(error) => return Err(error.into()),
        };
        let milliseconds = ping.took.as_secs_f64() * 1000.0;
        if self.setting.json {
            let facts: Map<String, Value> =
                ping.facts.into_iter().map(|(name, value)| (name.to_owned(), Value::String(value))).collect();
            print(&json!({
                "connection": self.name,
                "type": remote.kind(),
                "milliseconds": (milliseconds * 10.0).round() / 10.0,
                "facts": facts,
            }))?;
        } else {
            say(format_args!("{}: {} connection works, {milliseconds:.0} ms", self.name, remote.kind()))?;
            let width = ping.facts.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
            for (name, value) in ping.facts {
                say(format_args!("  {name:width$}  {value}"))?;
            }
        }
        Ok(Outcome::Done)
    }
}
