//! Scripts of sftp batch commands (sftp(1), "INTERACTIVE COMMANDS"), line by line and with a state.
//!
//! Every path stays within the handle. The local side is whatever connection the caller hands over, below a folder, or
//! none. How a line is read is in `line`, how a listing looks in `table`.

mod line;
mod table;

use std::time::{Duration, Instant};

use futures::future::BoxFuture;

use super::handle::Handle;
use super::posix::{Info, Owner};
use crate::Remote;
use crate::backend::{ByteRange, EntryKind, IfExists, WriteOptions};
use crate::error::{Error, ErrorKind, chain};
use crate::path::RemotePath;
use crate::transfer::{IfPresent, Outcome, TransferOptions, transfer};
use crate::walk::Filter;
use line::{Line, Word, invalid, resolve, step_to};
use table::Listing;

/// Output of one command; what goes beyond is left out and said so.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// Commands of one script: a person writes fewer, and a program that needs more calls again.
const COMMANDS_MAX: usize = 10_000;

/// Paths that one pattern stands for.
const MATCHES_MAX: usize = 10_000;

const HELP: &str = "\
cd [path]                          go to a folder
chgrp [-h] group path              change the group, by number or name
chmod [-h] mode path               change permissions, such as 640
chown [-h] user path               change the user, by number or name
copy source target                 copy a file on the server (also cp)
df [-hi] [path]                    tell the space of a file system
get [-afpr] remote [local]         download
lcd path, lls [path], lmkdir path, lpwd
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

/// What `get` and `put` move files from and to: a folder of a connection, which they do not leave.
#[derive(Debug, Clone)]
struct Local {
    remote: Remote,
    folder: RemotePath,
    /// Where it begins, below `folder`, and `lcd` without a path leads.
    first: RemotePath,
    /// Below `folder`.
    current: RemotePath,
}

/// An interpreter with its state: the folders it is in, on both sides.
pub struct Shell {
    handle: Handle,
    local: Option<Local>,
    /// Known from the first command that needs it on.
    current: Option<RemotePath>,
    is_over: bool,
}

/// What is written to while a command runs.
struct Output(String);

impl Output {
    fn line(&mut self, line: impl AsRef<str>) {
        const LEFT_OUT: &str = "... more was left out\n";
        let line = line.as_ref();
        if self.0.len() + line.len() < OUTPUT_BYTES_MAX {
            self.0.push_str(line);
            self.0.push('\n');
        } else if !self.0.ends_with(LEFT_OUT) {
            self.0.push_str(LEFT_OUT);
        }
    }
}

impl Shell {
    pub(super) fn new(handle: Handle, local: Option<Remote>) -> Self {
        let root = RemotePath::root;
        let local = local.map(|remote| Local { remote, folder: root(), first: root(), current: root() });
        Self { handle, local, current: None, is_over: false }
    }

    /// Confines the local side to a folder of its connection.
    #[must_use]
    pub fn with_local_folder(mut self, folder: &RemotePath) -> Self {
        if let Some(local) = &mut self.local {
            local.folder = folder.clone();
        }
        self
    }

    /// Lets the local side begin in a folder below the one that it is confined to.
    #[must_use]
    pub fn beginning_in(mut self, folder: &RemotePath) -> Self {
        if let Some(local) = &mut self.local {
            local.first = folder.clone();
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
        for line in script.lines() {
            if self.is_over {
                break;
            }
            let Some(mut result) = self.run_line(line).await else { continue };
            if results.len() == COMMANDS_MAX {
                let message = format!("a script has {COMMANDS_MAX} commands at most; the rest was not run");
                result = CommandResult {
                    outcome: Err(Error::new(ErrorKind::TooLarge, message)),
                    ignores_errors: false,
                    ..result
                };
            }
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
        let started = Instant::now();
        let command = line.trim().to_owned();
        let (outcome, output, ignores_errors, is_quiet) = match Line::parse(line) {
            Ok(None) => return None,
            Ok(Some(line)) => {
                let (ignores_errors, is_quiet) = (line.ignores_errors, line.is_quiet);
                let mut output = Output(String::new());
                let outcome = self.run(line, &mut output).await;
                (outcome, output.0, ignores_errors, is_quiet)
            }
            Err(error) => (Err(error), String::new(), false, false),
        };
        if self.handle.tells_commands() {
            tracing::info!(
                connection = self.handle.remote().name(),
                command,
                outcome = outcome.as_ref().err().map_or("ok".to_owned(), |error| chain(error)),
                duration_ms = started.elapsed().as_millis() as u64,
                "sftp command"
            );
        }
        Some(CommandResult { command, output, outcome, ignores_errors, is_quiet, took: started.elapsed() })
    }

    async fn run(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        match line.command.as_str() {
            "ls" | "dir" => self.ls(line, output).await,
            "cd" | "chdir" => self.cd(line).await,
            "pwd" => {
                line.take(0, 0)?;
                output.line(format!("Remote working directory: {}", self.current().await?));
                Ok(())
            }
            "mkdir" => {
                let path = self.one_path(line).await?;
                self.remote_make(&path).await
            }
            "rmdir" => {
                let path = self.one_path(line).await?;
                self.handle.delete_directory(&path).await
            }
            "rm" | "delete" => self.rm(line, output).await,
            "rename" => {
                let (from, to) = self.two_paths(line).await?;
                let (from, to) = (self.on(&from), self.on(&to));
                self.handle.remote().rename(&from, &to, IfExists::Replace).await
            }
            "copy" | "cp" => {
                let (from, to) = self.two_paths(line).await?;
                let (from, to) = (self.on(&from), self.on(&to));
                self.handle.remote().copy(&from, &to, IfExists::Replace).await.map(drop)
            }
            "ln" | "symlink" => self.ln(line).await,
            "chmod" | "chown" | "chgrp" => self.change(line, output).await,
            "df" => {
                let options = line.options("hi")?;
                let word = line.take(0, 1)?.pop();
                let path = self.path_or_current(word).await?;
                let told = self.handle.statvfs(&path).await?;
                output.line(table::space(&told, options.contains('h'), options.contains('i')).trim_end());
                Ok(())
            }
            "get" | "reget" => self.get(line, output).await,
            "put" | "reput" => self.put(line, output).await,
            "lcd" | "lpwd" | "lls" | "lmkdir" => self.on_the_local_side(line, output).await,
            "version" => {
                line.take(0, 0)?;
                output.line("SFTP protocol version 3");
                Ok(())
            }
            "help" | "?" => {
                output.line(HELP.trim_end());
                Ok(())
            }
            "progress" => line.take(0, 1).map(drop),
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

    /// A path of the handle as one of the connection.
    fn on(&self, path: &RemotePath) -> RemotePath {
        self.handle.on_the_connection(path)
    }

    async fn path(&mut self, word: &Word) -> Result<RemotePath, Error> {
        resolve(&self.current().await?, &word.text())
    }

    async fn path_or_current(&mut self, word: Option<Word>) -> Result<RemotePath, Error> {
        match word {
            Some(word) => self.path(&word).await,
            None => self.current().await,
        }
    }

    async fn one_path(&mut self, mut line: Line) -> Result<RemotePath, Error> {
        let words = line.take(1, 1)?;
        self.path_or_current(words.into_iter().next()).await
    }

    async fn two_paths(&mut self, mut line: Line) -> Result<(RemotePath, RemotePath), Error> {
        let words = line.take(2, 2)?;
        Ok((self.path(&words[0]).await?, self.path(&words[1]).await?))
    }

    /// What a word stands for: each path as it was typed, and as it is.
    async fn matches(&mut self, word: &Word) -> Result<Vec<(String, RemotePath)>, Error> {
        if !word.is_pattern() {
            return Ok(vec![(word.text(), self.path(word).await?)]);
        }
        let current = self.current().await?;
        let names = |folder: RemotePath| -> Names {
            let handle = self.handle.clone();
            Box::pin(async move {
                let infos = handle.list(&folder).await?;
                Ok(infos.into_iter().map(|info| (info.path.name().to_owned(), info.kind)).collect())
            })
        };
        expand(&current, word, names).await
    }

    // ---- Commands --------------------------------------------------------------------------------------------------

    async fn cd(&mut self, mut line: Line) -> Result<(), Error> {
        let Some(word) = line.take(0, 1)?.pop() else {
            self.current = None;
            self.current().await?;
            return Ok(());
        };
        let path = self.path(&word).await?;
        if self.handle.follow_info(&path).await?.kind != EntryKind::Directory {
            return Err(Error::new(ErrorKind::Conflict, format!("cannot go to {path}: it is not a folder")));
        }
        self.current = Some(path);
        Ok(())
    }

    async fn ls(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let listing = Listing::new(&line.options("1afhlnrSt")?);
        let word = line.take(0, 1)?.pop();
        let mut infos = Vec::new();
        let matches = match &word {
            Some(word) => self.matches(word).await?,
            None => vec![(String::new(), self.current().await?)],
        };
        let is_single = matches.len() == 1;
        for (typed, path) in matches {
            let info = self.handle.get_info(&path).await?;
            let is_folder = info.kind == EntryKind::Directory
                || (info.kind == EntryKind::Symlink
                    && self.handle.follow_info(&path).await.is_ok_and(|info| info.kind == EntryKind::Directory));
            if !is_single || !is_folder {
                infos.push((typed, info));
                continue;
            }
            let prefix = match typed.trim_end_matches('/') {
                "" if typed.is_empty() => String::new(),
                folder => format!("{folder}/"),
            };
            for info in self.handle.list(&path).await? {
                let name = info.path.name();
                if listing.has_hidden || !name.starts_with('.') {
                    infos.push((format!("{prefix}{name}"), info));
                }
            }
        }
        listing.sort(&mut infos);
        for (name, info) in infos {
            let link = if listing.is_long && info.kind == EntryKind::Symlink {
                self.handle.read_link(&info.path).await.ok()
            } else {
                None
            };
            output.line(listing.line(&name, &info, link.as_deref()));
        }
        Ok(())
    }

    async fn remote_make(&self, path: &RemotePath) -> Result<(), Error> {
        self.handle.remote().make_directory(&self.on(path)).await
    }

    async fn rm(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let words = line.take(1, 1)?;
        for (typed, path) in self.matches(&words[0]).await? {
            if self.handle.is_directory(&path).await? {
                let message = format!("cannot delete {path}: it is a folder; use rmdir");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            self.handle.delete(&path).await?;
            output.line(format!("Removing {typed}"));
        }
        Ok(())
    }

    async fn ln(&mut self, mut line: Line) -> Result<(), Error> {
        let is_symbolic = line.options("s")?.contains('s') || line.command == "symlink";
        let words = line.take(2, 2)?;
        let link = self.path(&words[1]).await?;
        if is_symbolic {
            return self.handle.symlink(&words[0].text(), &link).await;
        }
        let existing = self.path(&words[0]).await?;
        self.handle.hard_link(&existing, &link).await
    }

    async fn change(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let follow = !line.options("h")?.contains('h');
        let words = line.take(2, 2)?;
        let value = words[0].text();
        for (typed, path) in self.matches(&words[1]).await? {
            match line.command.as_str() {
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

    // ---- Files to and from the local side --------------------------------------------------------------------------

    fn local(&mut self, command: &str) -> Result<&mut Local, Error> {
        self.local.as_mut().ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, format!("{command} needs a local side, and there is none here"))
        })
    }

    async fn on_the_local_side(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let command = line.command.clone();
        if command == "lls" {
            line.options("1afhlnrSt")?;
        }
        let word = line.take(0, 1)?.pop();
        let local = self.local(&command)?;
        let path = match &word {
            Some(word) => resolve(&local.current, &word.text())?,
            None => local.current.clone(),
        };
        match command.as_str() {
            "lcd" if word.is_none() => local.current = local.first.clone(),
            "lcd" => {
                if local.remote.stat(&local.on(&path)).await?.kind != EntryKind::Directory {
                    return Err(Error::new(ErrorKind::Conflict, format!("cannot go to {path}: it is not a folder")));
                }
                local.current = path;
            }
            "lpwd" => output.line(format!("Local working directory: {}", local.current)),
            "lmkdir" => local.remote.make_directory(&local.on(&path)).await?,
            _ => {
                let mut names: Vec<String> = local
                    .remote
                    .list(&local.on(&path))
                    .await?
                    .iter()
                    .map(|entry| entry.path.name().to_owned())
                    .collect();
                names.sort();
                for name in names {
                    output.line(name);
                }
            }
        }
        Ok(())
    }

    async fn get(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let copy = Copy::new(&mut line, "reget", self.handle.preserves())?;
        let words = line.take(1, 2)?;
        let local = self.local(&line.command)?.clone();
        let matches = self.matches(&words[0]).await?;
        let several = matches.len() > 1;
        for (typed, path) in matches {
            let info = self.handle.follow_info(&path).await?;
            copy.takes(&typed, &info)?;
            let target = local.target(words.get(1), path.name(), several).await?;
            output.line(format!("Fetching {typed} to {target}"));
            let (from, to) = (self.on(&path), local.on(&target));
            copy.run((self.handle.remote(), &from), (&local.remote, &to), &info, output).await?;
        }
        Ok(())
    }

    async fn put(&mut self, mut line: Line, output: &mut Output) -> Result<(), Error> {
        let copy = Copy::new(&mut line, "reput", self.handle.preserves())?;
        let words = line.take(1, 2)?;
        let local = self.local(&line.command)?.clone();
        let matches = local.matches(&words[0]).await?;
        let several = matches.len() > 1;
        for (typed, path) in matches {
            let entry = local.remote.stat(&local.on(&path)).await?;
            let info = Info::of(&entry);
            copy.takes(&typed, &info)?;
            let target = self.target(words.get(1), path.name(), several).await?;
            output.line(format!("Uploading {typed} to {target}"));
            let (from, to) = (local.on(&path), self.on(&target));
            copy.run((&local.remote, &from), (self.handle.remote(), &to), &info, output).await?;
        }
        Ok(())
    }

    /// Where something of this name goes: into a folder, or under the name that is given.
    async fn target(&mut self, word: Option<&Word>, name: &str, several: bool) -> Result<RemotePath, Error> {
        let Some(word) = word else { return self.current().await?.join(name) };
        let path = self.path(word).await?;
        let found = self.handle.follow_info(&path).await;
        into(path, found.map(|info| info.kind == EntryKind::Directory), name, several)
    }
}

impl Local {
    fn on(&self, path: &RemotePath) -> RemotePath {
        path.below(&self.folder)
    }

    async fn matches(&self, word: &Word) -> Result<Vec<(String, RemotePath)>, Error> {
        if !word.is_pattern() {
            return Ok(vec![(word.text(), resolve(&self.current, &word.text())?)]);
        }
        let names = |folder: RemotePath| -> Names {
            let (remote, folder) = (self.remote.clone(), self.on(&folder));
            Box::pin(async move {
                let entries = remote.list(&folder).await?;
                Ok(entries.into_iter().map(|entry| (entry.path.name().to_owned(), entry.kind)).collect())
            })
        };
        expand(&self.current, word, names).await
    }

    async fn target(&self, word: Option<&Word>, name: &str, several: bool) -> Result<RemotePath, Error> {
        let Some(word) = word else { return self.current.join(name) };
        let path = resolve(&self.current, &word.text())?;
        let found = self.remote.stat(&self.on(&path)).await;
        into(path, found.map(|entry| entry.kind == EntryKind::Directory), name, several)
    }
}

/// The target in a folder, or the path itself where nothing or a file is.
fn into(path: RemotePath, is_folder: Result<bool, Error>, name: &str, several: bool) -> Result<RemotePath, Error> {
    match is_folder {
        Ok(true) => path.join(name),
        Ok(false) | Err(_) if several => {
            Err(Error::new(ErrorKind::Conflict, format!("several files need a folder to go to, and {path} is none")))
        }
        Ok(false) => Ok(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(path),
        Err(error) => Err(error),
    }
}

/// How `get` or `put` was asked to copy.
struct Copy {
    is_recursive: bool,
    is_continued: bool,
    /// Times of last change, and permissions.
    keeps_metadata: bool,
}

impl Copy {
    fn new(line: &mut Line, continuing: &str, preserves: bool) -> Result<Self, Error> {
        let options = line.options("afpPrR")?;
        let has = |letters: &[char]| options.contains(letters);
        Ok(Self {
            is_recursive: has(&['r', 'R']),
            is_continued: has(&['a']) || line.command == continuing,
            keeps_metadata: preserves || has(&['p', 'P']),
        })
    }

    fn takes(&self, typed: &str, info: &Info) -> Result<(), Error> {
        match info.kind {
            EntryKind::File => Ok(()),
            EntryKind::Directory if self.is_recursive && !self.is_continued => Ok(()),
            EntryKind::Directory if self.is_recursive => {
                Err(Error::new(ErrorKind::Unsupported, "only a file can be continued, not a folder"))
            }
            EntryKind::Directory => {
                Err(Error::new(ErrorKind::Conflict, format!("{typed} is a folder; add -r to copy what is in it")))
            }
            _ => Err(Error::new(ErrorKind::Conflict, format!("{typed} is no file"))),
        }
    }

    async fn run(
        &self,
        (source, from): (&Remote, &RemotePath),
        (target, to): (&Remote, &RemotePath),
        info: &Info,
        output: &mut Output,
    ) -> Result<(), Error> {
        if self.is_continued {
            return go_on(source, from, target, to).await;
        }
        if info.kind == EntryKind::File {
            // Read by its path, so that a link is followed as sftp does.
            let content = source.read(from, ByteRange::ALL).await?;
            let modified = info.modified.filter(|_| self.keeps_metadata);
            let mode = info.mode.filter(|_| self.keeps_metadata);
            let options = WriteOptions { modified, mode, ..WriteOptions::new(IfExists::Replace) };
            return target.write_with(to, content, &options).await.map(drop);
        }
        let options = TransferOptions {
            if_present: IfPresent::Replace,
            filter: Filter::default(),
            keep_modified: self.keeps_metadata,
            keep_mode: self.keeps_metadata,
            ..TransferOptions::default()
        };
        let mut transfer = transfer(source, from, target, to, options).await?;
        let mut failed = None;
        while let Some(result) = transfer.next().await {
            let told = match &result.outcome {
                Ok(Outcome::Transferred { bytes, .. }) => format!("{bytes} bytes"),
                Ok(Outcome::Skipped(why)) => format!("left out, {why}"),
                Err(error) => chain(error),
            };
            output.line(format!("{} to {}: {told}", result.source, result.target));
            if let Err(error) = result.outcome {
                failed.get_or_insert(error);
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

/// Puts the rest of a file behind what is there of it.
async fn go_on(source: &Remote, from: &RemotePath, target: &Remote, to: &RemotePath) -> Result<(), Error> {
    let held = match target.stat(to).await {
        Ok(entry) if entry.kind == EntryKind::File => entry.size.unwrap_or_default(),
        Ok(_) => return Err(Error::new(ErrorKind::Conflict, format!("cannot go on with {to}: it is no file"))),
        Err(error) if error.kind() == ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    let whole = source.stat(from).await?.size;
    if whole.is_some_and(|whole| held > whole) {
        let message = format!("cannot go on with {to}: it is longer than {from} already");
        return Err(Error::new(ErrorKind::Conflict, message));
    }
    if whole == Some(held) && held > 0 {
        return Ok(());
    }
    let content = source.read(from, ByteRange { offset: held, length: None }).await?;
    target.append(to, content).await.map(drop)
}

/// For the fuzz targets.
pub(super) fn read_any_line(line: &str) {
    if let Ok(Some(mut line)) = Line::parse(line) {
        let _refused_or_not = line.options("la");
        for word in &line.words {
            let _fits_or_not = (word.fits("a.b"), word.is_pattern(), word.components());
            let _refused_or_not = resolve(&RemotePath::root(), &word.text());
        }
    }
}

/// The names in a folder, on their way.
type Names = BoxFuture<'static, Result<Vec<(String, EntryKind)>, Error>>;

/// The paths that a pattern stands for, sorted: each as it would have been typed, and as it is.
async fn expand(
    current: &RemotePath,
    word: &Word,
    names: impl Fn(RemotePath) -> Names + Send + Sync,
) -> Result<Vec<(String, RemotePath)>, Error> {
    let components = word.components();
    let mut found = match word.is_absolute() {
        true => vec![("/".to_owned(), RemotePath::root())],
        false => vec![(String::new(), current.clone())],
    };
    for (index, component) in components.iter().enumerate() {
        let is_last = index + 1 == components.len();
        let mut next = Vec::new();
        for (typed, folder) in &found {
            let join = |name: &str| {
                if typed.is_empty() || typed == "/" { format!("{typed}{name}") } else { format!("{typed}/{name}") }
            };
            if !component.is_pattern() {
                let text = component.text();
                next.push((join(&text), step_to(folder, &text)?));
                continue;
            }
            let mut names = match names(folder.clone()).await {
                Ok(names) => names,
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Conflict) => continue,
                Err(error) => return Err(error),
            };
            names.retain(|(name, kind)| {
                component.fits(name) && (is_last || matches!(kind, EntryKind::Directory | EntryKind::Symlink))
            });
            names.sort_by(|(name, _), (other, _)| name.cmp(other));
            for (name, _) in names {
                next.push((join(&name), folder.join(&name)?));
            }
            if next.len() > MATCHES_MAX {
                let message = format!("{} stands for more than {MATCHES_MAX} paths", word.text());
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
        }
        found = next;
    }
    if found.is_empty() {
        return Err(Error::new(ErrorKind::NotFound, format!("nothing is like {}", word.text())));
    }
    Ok(found)
}
