//! `wharf sftp`: the commands of sftp(1) on a connection, from a script or typed, with a history.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use clap::Args;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;
use wharf_connectors::sftp::{CommandResult, Shell};
use wharf_connectors::{Error, ErrorKind, chain};

use super::{CommandError, Outcome, Setting, folder_path, machine_folder, operation_json, print};

/// A script longer than this is none that a person wrote.
const SCRIPT_BYTES_MAX: u64 = 1024 * 1024;

/// Run the commands of sftp(1) on a connection of type sftp.
///
/// Without -b, commands are read from standard input: on a terminal with a history, and `help` tells what there is.
/// A script stops at the first command that fails and does not begin with `-`.
#[derive(Args)]
pub(crate) struct Sftp {
    /// The name of the connection.
    #[arg(value_name = "NAME")]
    name: String,
    /// Run the commands of this file, one on a line; `-` is standard input.
    #[arg(short, long, value_name = "SCRIPT")]
    batch: Option<PathBuf>,
    /// The folder of this machine that `get` and `put` begin in; `lcd` leads elsewhere.
    #[arg(long, value_name = "DIR", default_value = ".")]
    local: PathBuf,
    #[command(flatten)]
    pub(crate) setting: Setting,
}

impl Sftp {
    pub(crate) async fn run(&self) -> Result<Outcome, CommandError> {
        let remote = self.setting.open(&self.name)?;
        let Some(server) = remote.sftp() else {
            let message = format!("connection {} is of type {}, not sftp", self.name, remote.kind());
            return Err(Error::new(ErrorKind::Invalid, message).into());
        };
        // The operator may use all of this machine.
        let machine = machine_folder(Path::new("/"))?;
        let mut shell = server.shell(Some(&machine)).beginning_in(&folder_path(&self.local)?);
        match &self.batch {
            Some(file) if file.as_os_str() == "-" => self.lines(&mut shell).await,
            Some(file) => {
                let script = read_script(file.clone()).await?;
                self.script(&mut shell, script.lines().map(|line| Ok(line.to_owned()))).await
            }
            None if std::io::stdin().is_terminal() => self.prompt(&mut shell).await,
            None => self.lines(&mut shell).await,
        }
    }

    /// Commands from standard input, as they come.
    async fn lines(&self, shell: &mut Shell) -> Result<Outcome, CommandError> {
        let lines = std::iter::from_fn(|| std::io::stdin().lock().lines().next());
        self.script(shell, lines).await
    }

    async fn script(
        &self,
        shell: &mut Shell,
        lines: impl Iterator<Item = std::io::Result<String>>,
    ) -> Result<Outcome, CommandError> {
        for line in lines {
            let line =
                line.map_err(|source| CommandError::Machine { what: "cannot read the script".to_owned(), source })?;
            let Some(result) = shell.run_line(&line).await else { continue };
            if !result.is_quiet && !self.setting.json {
                super::say(format_args!("sftp> {}", result.command))?;
            }
            self.report(&result)?;
            if result.outcome.is_err() && !result.ignores_errors {
                return Ok(Outcome::Failed);
            }
            if shell.is_over() {
                break;
            }
        }
        Ok(Outcome::Done)
    }

    /// Commands of a person, until the end of input or `exit`.
    async fn prompt(&self, shell: &mut Shell) -> Result<Outcome, CommandError> {
        let unusable = |error: ReadlineError| CommandError::Machine {
            what: "cannot read from the terminal".to_owned(),
            source: std::io::Error::other(error),
        };
        let history = history_file();
        let mut editor = DefaultEditor::new().map_err(unusable)?;
        if let Some(history) = &history {
            // The first time there is none.
            let _ = editor.load_history(history);
        }
        while !shell.is_over() {
            let asked = tokio::task::spawn_blocking(move || {
                let line = editor.readline("sftp> ");
                (editor, line)
            });
            let line;
            (editor, line) = asked.await.map_err(|error| CommandError::Machine {
                what: "cannot read from the terminal".to_owned(),
                source: std::io::Error::other(error),
            })?;
            let line = match line {
                Ok(line) => line,
                // Ctrl-C takes back the line, Ctrl-D ends.
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break,
                Err(error) => return Err(unusable(error)),
            };
            if let Some(result) = shell.run_line(&line).await {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.add_history_entry(line.as_str());
                self.report(&result)?;
            }
        }
        if let Some(history) = history {
            let _ = history.parent().map(std::fs::create_dir_all);
            let _ = editor.save_history(&history);
        }
        Ok(Outcome::Done)
    }

    fn report(&self, result: &CommandResult) -> Result<(), CommandError> {
        if self.setting.json {
            return print(&json!({
                "command": result.command,
                "output": result.output,
                "error": result.outcome.as_ref().err().map(operation_json),
                "milliseconds": result.took.as_millis() as u64,
            }));
        }
        write!(std::io::stdout(), "{}", result.output).map_err(super::unprinted)?;
        if let Err(error) = &result.outcome {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(std::io::stderr(), "wharf: {}", chain(error));
        }
        Ok(())
    }
}

async fn read_script(file: PathBuf) -> Result<String, CommandError> {
    let what = format!("cannot read the script {}", file.display());
    let read = tokio::task::spawn_blocking(move || {
        let mut script = String::new();
        let length = std::fs::File::open(file)?.take(SCRIPT_BYTES_MAX + 1).read_to_string(&mut script)?;
        if length as u64 > SCRIPT_BYTES_MAX {
            return Err(std::io::Error::other(format!("it is larger than {SCRIPT_BYTES_MAX} bytes")));
        }
        Ok(script)
    });
    let read = read.await.map_err(std::io::Error::other).and_then(|script| script);
    read.map_err(|source| CommandError::Machine { what, source })
}

/// Where typed commands are kept: the folder for state of the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    Some(state.join("wharf/sftp-history"))
}
