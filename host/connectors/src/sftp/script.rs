//! Scripts of sftp batch commands (sftp(1), "INTERACTIVE COMMANDS"), line by line and with a state.
//!
//! Every path stays within the handle. The local side is whatever connection the caller hands over, below a folder, or
//! none. How a line is read is in `line`, what a path or a pattern stands for on either side in `side`, how a listing
//! looks in `table`, `get` and `put` are in `copy`.

mod copy;
mod line;
mod side;
mod table;

use std::time::{Duration, Instant};

use super::handle::Handle;
use super::posix::{Info, Owner};
use crate::Remote;
use crate::backend::{EntryKind, IfExists};
use crate::error::{Error, ErrorKind, chain};
use crate::path::RemotePath;
use line::{Command, Line, Word, invalid};
use side::{Files, Match, Side};
use table::Listing;

/// Output of one command; what goes beyond is left out and said so.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// Commands of one script: a person writes fewer, and a program that needs more calls again.
const COMMANDS_MAX: usize = 10_000;

const HELP: &str = "\
cd [path]                          go to a folder
chgrp [-h] group path              change the group, by number or name
chmod [-h] mode path               change permissions, such as 640
chown [-h] user path               change the user, by number or name
copy source target                 copy a file on the server (also cp)
df [-hi] [path]                    tell the space of a file system
get [-afpr] remote [local]         download
lcd [path], lls [-1afhlnrSt] [path], lmkdir path, lpwd
                                   the same on the local side
ln [-s] existing new               make a link (also symlink)
ls [-1afhlnrSt] [path]             list
mkdir path, rmdir path             make or delete a folder
put [-afpr] local [remote]         upload
pwd                                tell the folder
reget, reput                       go on with a download or upload
rename old new                     rename, replacing
rm path                            delete files
version                            tell the version of the protocol
exit, bye, quit                    end
-command                           go on if the command fails
@command                           do not repeat the command in the output
";

/// What one command came to.
#[derive(Debug)]
pub struct CommandResult {
    /// As it was written.
    pub command: String,
    /// What it printed, lines that end with a line feed.
    pub output: String,
    /// Whether it succeeded.
    pub outcome: Result<(), Error>,
    /// It began with `-`: its failure ends no script.
    pub ignores_errors: bool,
    /// It began with `@`: it is not to be shown.
    pub is_quiet: bool,
    /// How long it took.
    pub took: Duration,
}

/// What a script came to.
#[derive(Debug)]
pub struct Script {
    /// The commands that were run, in order.
    pub results: Vec<CommandResult>,
    /// Whether all of it was run: no command failed, other than those that may.
    pub is_complete: bool,
}

/// An interpreter with its state: the folders it is in, on both sides.
pub struct Shell {
    handle: Handle,
    /// Known from the first command that needs it on.
    current: Option<RemotePath>,
    local: Option<Side>,
    /// Where the local side begins, and `lcd` without a path leads.
    first_local: RemotePath,
    is_over: bool,
}

/// What is written to while a command runs.
#[derive(Default)]
struct Output {
    text: String,
    is_full: bool,
}

impl Output {
    fn line(&mut self, line: impl AsRef<str>) {
        let line = line.as_ref();
        if self.is_full {
            return;
        }
        self.is_full = self.text.len() + line.len() >= OUTPUT_BYTES_MAX;
        self.text.push_str(if self.is_full { "... more was left out" } else { line });
        self.text.push('\n');
    }
}

impl Shell {
    pub(super) fn new(handle: Handle, local: Option<Remote>) -> Self {
        let root = RemotePath::root;
        let local = local.map(|remote| Side { files: Files::Local { remote, folder: root() }, current: root() });
        Self { handle, current: None, local, first_local: root(), is_over: false }
    }

    /// Confines the local side to a folder of its connection.
    #[must_use]
    pub fn with_local_folder(mut self, within: &RemotePath) -> Self {
        if let Some(Side { files: Files::Local { folder, .. }, .. }) = &mut self.local {
            *folder = within.clone();
        }
        self
    }

    /// Lets the local side begin in a folder below the one that it is confined to.
    #[must_use]
    pub fn beginning_in(mut self, folder: &RemotePath) -> Self {
        self.first_local = folder.clone();
        if let Some(local) = &mut self.local {
            local.current = folder.clone();
        }
        self
    }

    /// Whether a command has ended it.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// The folder it is in; `None` before the first command that asked for it.
    pub fn folder(&self) -> Option<&RemotePath> {
        self.current.as_ref()
    }

    /// The folder that the local side is in, below the one that it is confined to.
    pub fn local_folder(&self) -> Option<&RemotePath> {
        self.local.as_ref().map(|local| &local.current)
    }

    /// Runs the lines of a script; stops at the first command that fails and does not begin with `-`.
    pub async fn execute(&mut self, script: &str) -> Script {
        let mut results = Vec::new();
        for line in script.lines().filter_map(Line::parse) {
            if self.is_over {
                break;
            }
            let result = if results.len() < COMMANDS_MAX {
                self.run_parsed(line).await
            } else {
                let message =
                    format!("a script has {COMMANDS_MAX} commands at most; this one and the rest were not run");
                let refused = Err(Error::new(ErrorKind::TooLarge, message));
                self.run_parsed(Line { ignores_errors: false, command: refused, ..line }).await
            };
            let is_failed = result.outcome.is_err() && !result.ignores_errors;
            results.push(result);
            if is_failed {
                return Script { results, is_complete: false };
            }
        }
        Script { results, is_complete: true }
    }

    /// Runs one line; `None` when it holds no command.
    pub async fn run_line(&mut self, line: &str) -> Option<CommandResult> {
        Some(self.run_parsed(Line::parse(line)?).await)
    }

    async fn run_parsed(&mut self, line: Line) -> CommandResult {
        let started = Instant::now();
        let mut output = Output::default();
        let outcome = match line.command {
            Ok(command) => self.run(command, &mut output).await,
            Err(error) => Err(error),
        };
        if self.handle.tells_commands() {
            tracing::info!(
                connection = self.handle.remote().name(),
                command = line.text,
                outcome = outcome.as_ref().err().map_or("ok".to_owned(), |error| chain(error)),
                duration_ms = started.elapsed().as_millis() as u64,
                "sftp command"
            );
        }
        CommandResult {
            command: line.text,
            output: output.text,
            outcome,
            ignores_errors: line.ignores_errors,
            is_quiet: line.is_quiet,
            took: started.elapsed(),
        }
    }

    async fn run(&mut self, mut command: Command, output: &mut Output) -> Result<(), Error> {
        match command.name.as_str() {
            "ls" | "dir" => ls(&self.server().await?, command, output).await,
            "cd" | "chdir" => self.cd(command).await,
            "pwd" => {
                command.take(0, 0)?;
                output.line(format!("Remote working directory: {}", self.current().await?));
                Ok(())
            }
            "mkdir" => {
                let path = self.one_path(command).await?;
                self.handle.remote().make_directory(&self.on(&path)).await
            }
            "rmdir" => {
                let path = self.one_path(command).await?;
                self.handle.delete_directory(&path).await
            }
            "rm" | "delete" => self.rm(command, output).await,
            "rename" => {
                let (from, to) = self.two_paths(command).await?;
                self.handle.remote().rename(&self.on(&from), &self.on(&to), IfExists::Replace).await
            }
            "copy" | "cp" => {
                let (from, to) = self.two_paths(command).await?;
                self.handle.remote().copy(&self.on(&from), &self.on(&to), IfExists::Replace).await.map(drop)
            }
            "ln" | "symlink" => self.ln(command).await,
            "chmod" | "chown" | "chgrp" => self.change(command, output).await,
            "df" => {
                let options = command.options("hi")?;
                let word = command.take(0, 1)?.pop();
                let path = self.path_or_current(word).await?;
                let told = self.handle.statvfs(&path).await?;
                output.line(table::space(&told, options.contains('h'), options.contains('i')).trim_end());
                Ok(())
            }
            "get" | "reget" => {
                let (local, server) = (self.local(&command.name)?.clone(), self.server().await?);
                copy::copy(command, &server, &local, self.handle.preserves(), output).await
            }
            "put" | "reput" => {
                let (local, server) = (self.local(&command.name)?.clone(), self.server().await?);
                copy::copy(command, &local, &server, self.handle.preserves(), output).await
            }
            "lcd" | "lpwd" | "lls" | "lmkdir" => self.on_the_local_side(command, output).await,
            "version" => {
                command.take(0, 0)?;
                output.line("SFTP protocol version 3");
                Ok(())
            }
            "help" | "?" => {
                output.line(HELP.trim_end());
                Ok(())
            }
            "progress" => command.take(0, 1).map(drop),
            "exit" | "bye" | "quit" => {
                self.is_over = true;
                Ok(())
            }
            "lumask" => Err(Error::new(ErrorKind::Unsupported, "the local side has no mask of permissions (lumask)")),
            other => Err(invalid(format!("{other:?} is no command; help tells those that there are"))),
        }
    }

    // ---- Paths -----------------------------------------------------------------------------------------------------

    /// The folder that paths begin in: at first the configured one, or the one of the login.
    async fn current(&mut self) -> Result<RemotePath, Error> {
        if let Some(current) = &self.current {
            return Ok(current.clone());
        }
        let first = match self.handle.directory() {
            Some(directory) => directory.clone(),
            None => self.handle.login_folder().await?.unwrap_or_else(RemotePath::root),
        };
        self.current = Some(first.clone());
        Ok(first)
    }

    async fn server(&mut self) -> Result<Side, Error> {
        Ok(Side { current: self.current().await?, files: Files::Server(self.handle.clone()) })
    }

    fn local(&mut self, command: &str) -> Result<&mut Side, Error> {
        self.local.as_mut().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{command} needs a local side, and there is none here"))
        })
    }

    /// A path of the handle as one of the connection.
    fn on(&self, path: &RemotePath) -> RemotePath {
        self.handle.on_the_connection(path)
    }

    async fn path_or_current(&mut self, word: Option<Word>) -> Result<RemotePath, Error> {
        let server = self.server().await?;
        word.map_or(Ok(server.current.clone()), |word| server.path(&word))
    }

    async fn one_path(&mut self, mut command: Command) -> Result<RemotePath, Error> {
        self.server().await?.path(&command.take(1, 1)?[0])
    }

    async fn two_paths(&mut self, mut command: Command) -> Result<(RemotePath, RemotePath), Error> {
        let (words, server) = (command.take(2, 2)?, self.server().await?);
        Ok((server.path(&words[0])?, server.path(&words[1])?))
    }

    // ---- Commands --------------------------------------------------------------------------------------------------

    async fn cd(&mut self, mut command: Command) -> Result<(), Error> {
        let Some(word) = command.take(0, 1)?.pop() else {
            self.current = None;
            self.current().await?;
            return Ok(());
        };
        let server = self.server().await?;
        self.current = Some(folder(&server, &word).await?);
        Ok(())
    }

    async fn rm(&mut self, mut command: Command, output: &mut Output) -> Result<(), Error> {
        let words = command.take(1, 1)?;
        for Match { typed, path, info } in self.server().await?.matches(&words[0]).await? {
            let is_folder = match info {
                Some(info) => info.kind == EntryKind::Directory,
                None => self.handle.is_directory(&path).await?,
            };
            if is_folder {
                let message = format!("cannot delete {path}: it is a folder; use rmdir");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.handle.delete(&path).await?;
            output.line(format!("Removing {typed}"));
        }
        Ok(())
    }

    async fn ln(&mut self, mut command: Command) -> Result<(), Error> {
        let is_symbolic = command.options("s")?.contains('s') || command.name == "symlink";
        let (words, server) = (command.take(2, 2)?, self.server().await?);
        let link = server.path(&words[1])?;
        if is_symbolic {
            return self.handle.symlink(&words[0].text(), &link).await;
        }
        self.handle.hard_link(&server.path(&words[0])?, &link).await
    }

    async fn change(&mut self, mut command: Command, output: &mut Output) -> Result<(), Error> {
        let follow = !command.options("h")?.contains('h');
        let words = command.take(2, 2)?;
        let value = words[0].text();
        for Match { typed, path, .. } in self.server().await?.matches(&words[1]).await? {
            match command.name.as_str() {
                "chmod" => {
                    let mode = u32::from_str_radix(&value, 8)
                        .map_err(|_| invalid(format!("{value:?} is no mode such as 640")))?;
                    if follow {
                        self.handle.chmod(&path, mode).await?;
                    } else {
                        self.handle.chmod_link(&path, mode).await?;
                    }
                    output.line(format!("Changing mode on {typed}"));
                }
                "chown" => {
                    self.handle.chown(&path, Some(Owner::parse(&value)), None, follow).await?;
                    output.line(format!("Changing owner on {typed}"));
                }
                _ => {
                    self.handle.chown(&path, None, Some(Owner::parse(&value)), follow).await?;
                    output.line(format!("Changing group on {typed}"));
                }
            }
        }
        Ok(())
    }

    async fn on_the_local_side(&mut self, mut command: Command, output: &mut Output) -> Result<(), Error> {
        let first = self.first_local.clone();
        let local = self.local(&command.name)?;
        match command.name.as_str() {
            "lls" => ls(local, command, output).await,
            "lcd" => {
                local.current = match command.take(0, 1)?.pop() {
                    Some(word) => folder(local, &word).await?,
                    None => first,
                };
                Ok(())
            }
            "lpwd" => {
                command.take(0, 0)?;
                output.line(format!("Local working directory: {}", local.current));
                Ok(())
            }
            _ => {
                let path = local.path(&command.take(1, 1)?[0])?;
                local.files.remote().make_directory(&local.files.on(&path)).await
            }
        }
    }
}

/// The path of a folder that is to be gone to.
async fn folder(side: &Side, word: &Word) -> Result<RemotePath, Error> {
    let path = side.path(word)?;
    if side.files.follow(&path).await?.kind != EntryKind::Directory {
        return Err(Error::new(ErrorKind::Conflict, format!("cannot go to {path}: it is not a folder")));
    }
    Ok(path)
}

async fn ls(side: &Side, mut command: Command, output: &mut Output) -> Result<(), Error> {
    let listing = Listing::new(&command.options("1afhlnrSt")?);
    let matches = match command.take(0, 1)?.pop() {
        Some(word) => side.matches_of_any(&word.alternatives()?).await?,
        None => vec![Match { typed: String::new(), path: side.current.clone(), info: None }],
    };
    let is_single = matches.len() == 1;
    let mut infos = Vec::new();
    for Match { typed, path, info } in matches {
        let info = match info {
            Some(info) => info,
            None => side.files.info(&path).await?,
        };
        if is_single && side.files.is_folder(&info).await {
            infos = content_of(side, &typed, &path, listing.has_hidden).await?;
        } else {
            infos.push((typed, info));
        }
    }
    listing.sort(&mut infos);
    for (name, info) in infos {
        if output.is_full {
            break;
        }
        let link = if listing.is_long { side.files.link(&info).await } else { None };
        output.line(listing.line(&name, &info, link.as_deref()));
    }
    Ok(())
}

/// What is in a folder, under the names that it would be typed by.
async fn content_of(
    side: &Side,
    typed: &str,
    path: &RemotePath,
    has_hidden: bool,
) -> Result<Vec<(String, Info)>, Error> {
    let prefix = match typed.trim_end_matches('/') {
        "" if typed.is_empty() => String::new(),
        folder => format!("{folder}/"),
    };
    let mut infos = Vec::new();
    if has_hidden {
        let above = path.parent().unwrap_or_else(RemotePath::root);
        infos.push((format!("{prefix}."), side.files.follow(path).await?));
        infos.push((format!("{prefix}.."), side.files.follow(&above).await?));
    }
    let found = side.files.list(path, move |name| has_hidden || !name.starts_with('.')).await?;
    infos.extend(found.into_iter().map(|info| (format!("{prefix}{}", info.path.name()), info)));
    Ok(infos)
}

/// For the fuzz targets.
pub(super) fn read_any_line(line: &str) {
    if let Some(Line { command: Ok(mut command), .. }) = Line::parse(line) {
        let _refused_or_not = command.options("la");
        for word in &command.words {
            let _fits_or_not = (word.fits("a.b"), word.is_pattern(), word.components(), word.alternatives());
            let _refused_or_not = line::resolve(&RemotePath::root(), &word.text());
        }
    }
}
