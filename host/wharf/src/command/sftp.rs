//! `wharf sftp`: the commands of sftp(1) on a connection, from a script or typed, with a history.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use futures::stream::{self, BoxStream, StreamExt};
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use serde_json::json;
use tokio::signal::unix::SignalKind;
use tokio::sync::mpsc;
use wharf_connectors::sftp::{CommandResult, Shell};
use wharf_connectors::{Error, ErrorKind, bytes_of, chain, text_of};

use super::{
    CLEAN_UP, CommandError, Ended, Outcome, Setting, folder_path, interruptible, machine, operation_json, print,
    until_signal,
};

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
        let machine = machine()?;
        let mut shell = server.shell(Some(&machine)).beginning_in(&folder_path(&self.local)?);
        if self.batch.is_none() && std::io::stdin().is_terminal() {
            return self.prompt(&mut shell).await;
        }
        interruptible(self.script(&mut shell)).await
    }

    async fn script(&self, shell: &mut Shell) -> Result<Outcome, CommandError> {
        let mut lines = match &self.batch {
            Some(file) if file.as_os_str() != "-" => read_lines(file).await?,
            _ => standard_input(),
        };
        while let Some(line) = lines.next().await {
            let line =
                line.map_err(|source| CommandError::Machine { what: "cannot read the script".to_owned(), source })?;
            let Some(result) = shell.run_line(&line).await else { continue };
            if !result.is_quiet && !self.setting.json {
                show(&format!("sftp> {}\n", result.command))?;
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
        let history = history_file();
        let mut editor = DefaultEditor::new().map_err(unusable)?;
        if let Some(history) = &history {
            let _ = history.parent().map(std::fs::create_dir_all);
            // The first time there is none.
            let _ = editor.load_history(history);
        }
        let mut interrupted_at = None;
        let outcome = 'lines: loop {
            if shell.is_over() {
                break Outcome::Done;
            }
            let Some((returned, line)) = ask(editor).await? else { break Outcome::Interrupted };
            editor = returned;
            let line = match line {
                Ok(line) => line,
                // Ctrl-C takes back the line, Ctrl-D ends.
                Err(ReadlineError::Interrupted) => continue,
                Err(ReadlineError::Eof) => break Outcome::Done,
                Err(error) => return Err(unusable(error)),
            };
            if !line.trim().is_empty() {
                // A history that cannot be kept is no reason to stop.
                let _ = editor.add_history_entry(line.as_str());
                let _ = history.as_deref().map(|history| editor.append_history(history));
            }
            // What was pasted may be several.
            for command in line.lines() {
                match until_signal(shell.run_line(command)).await? {
                    Ended::Done(Some(result)) => self.report(&result)?,
                    Ended::Done(None) => {}
                    Ended::Signalled(signal) => {
                        let _ = writeln!(std::io::stderr(), "wharf: interrupted");
                        interrupted_at = Some(Instant::now());
                        if signal == SignalKind::terminate() {
                            break 'lines Outcome::Interrupted;
                        }
                        break;
                    }
                }
                if shell.is_over() {
                    break;
                }
            }
        };
        // What the last command that was interrupted leaves is removed by then.
        if let Some(interrupted_at) = interrupted_at {
            tokio::time::sleep_until((interrupted_at + CLEAN_UP).into()).await;
        }
        Ok(outcome)
    }

    fn report(&self, result: &CommandResult) -> Result<(), CommandError> {
        if self.setting.json {
            return print(&json!({
                "command": result.command,
                "output": result.output,
                "ignores_errors": result.ignores_errors,
                "error": result.outcome.as_ref().err().map(operation_json),
                "milliseconds": result.took.as_millis() as u64,
            }));
        }
        show(&result.output)?;
        if let Err(error) = &result.outcome {
            // Nobody is left to be told when standard error is closed.
            let _ = writeln!(std::io::stderr(), "wharf: {}", chain(error));
        }
        Ok(())
    }
}

/// Prints what may have names of the server in it: as they are, but to a terminal nothing that it would take for a
/// command.
fn show(text: &str) -> Result<(), CommandError> {
    let mut output = std::io::stdout();
    let bytes = if output.is_terminal() { harmless(text).into_bytes() } else { bytes_of(text) };
    output.write_all(&bytes).map_err(super::unprinted)
}

/// Bytes that are no text and control characters as OpenSSH shows them: in octal.
fn harmless(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        let mut buffer = [0; 4];
        let one = &*character.encode_utf8(&mut buffer);
        let bytes = bytes_of(one);
        if bytes != one.as_bytes() || character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(bytes.iter().map(|byte| format!("\\{byte:03o}")));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Lines of a script, as they come.
type Lines = BoxStream<'static, std::io::Result<String>>;

async fn read_lines(file: &Path) -> Result<Lines, CommandError> {
    let what = format!("cannot read the script {}", file.display());
    let file = file.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let mut script = Vec::new();
        let length = std::fs::File::open(file)?.take(SCRIPT_BYTES_MAX + 1).read_to_end(&mut script)?;
        if length as u64 > SCRIPT_BYTES_MAX {
            return Err(std::io::Error::other(format!("it is larger than {SCRIPT_BYTES_MAX} bytes")));
        }
        Ok(script)
    });
    let read = read.await.map_err(std::io::Error::other).and_then(|script| script);
    let script = read.map_err(|source| CommandError::Machine { what, source })?;
    let lines: Vec<_> = text_of(&script).lines().map(|line| Ok(line.to_owned())).collect();
    Ok(stream::iter(lines).boxed())
}

/// The lines of standard input. The thread that waits for them is left behind when nobody wants more.
fn standard_input() -> Lines {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().split(b'\n') {
            if sender.blocking_send(line.map(|line| text_of(&line))).is_err() {
                return;
            }
        }
    });
    stream::unfold(lines, |mut lines| async move { lines.recv().await.map(|line| (line, lines)) }).boxed()
}

/// Lets a person type a line; `None` when the program was told to end meanwhile.
async fn ask(mut editor: DefaultEditor) -> Result<Option<(DefaultEditor, rustyline::Result<String>)>, CommandError> {
    let before = rustix::termios::tcgetattr(std::io::stdin()).ok();
    let mut asked = tokio::task::spawn_blocking(move || {
        let line = editor.readline("sftp> ");
        (editor, line)
    });
    loop {
        match until_signal(&mut asked).await? {
            Ended::Done(asked) => return Ok(Some(asked.map_err(unusable)?)),
            // Not typed, which is no signal here, but sent by somebody else.
            Ended::Signalled(signal) if signal == SignalKind::interrupt() => {}
            Ended::Signalled(_) => {
                // The editor does not get to this any more.
                if let Some(before) = before {
                    let now = rustix::termios::OptionalActions::Now;
                    let _ = rustix::termios::tcsetattr(std::io::stdin(), now, &before);
                }
                return Ok(None);
            }
        }
    }
}

fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::Machine { what: "cannot read from the terminal".to_owned(), source: std::io::Error::other(error) }
}

/// Where typed commands are kept: the folder for state of the XDG base directory specification.
fn history_file() -> Option<PathBuf> {
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let state = state.or_else(|| std::env::home_dir().map(|home| home.join(".local/state")))?;
    Some(state.join("wharf/sftp-history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_shown_no_control_characters() {
        assert_eq!(harmless("ä b\tc\n"), "ä b\tc\n");
        assert_eq!(harmless("a\u{1b}[31m\u{9b}\r"), "a\\033[31m\\302\\233\\015");
        assert_eq!(harmless(&text_of(b"a\xff\x9b")), "a\\377\\233");
    }
}
