//! `wharf cp`: files and trees from one place to another, with a progress bar on a terminal and a line per file
//! elsewhere.

use std::io::Write;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use wharf_connectors::{
    EntryKind, ErrorKind, FileResult, Filter, IfPresent, Outcome as FileOutcome, Permissions, Progress, Transfer,
    TransferOptions, Verify, chain, transfer,
};

use super::{CommandError, Opened, Outcome, Place, Setting, interruptible, is_terminal, operation_json, print, say};

/// How often a progress bar is drawn again: as often as the eye follows.
const REDRAW: Duration = Duration::from_millis(100);

/// Copy files and folders between connections, and between a connection and this machine.
///
/// A place is NAME:/path on a connection, anything else is a path of this machine. As with cp, what is copied goes into
/// a target that is a folder or ends with `/`; a source that ends with `/` means what is in it. A file appears whole
/// under its name or not at all.
#[derive(Args)]
pub(crate) struct Copy {
    /// What is copied: NAME:/path, or a path of this machine.
    #[arg(value_name = "SOURCE")]
    source: Place,
    /// Where it goes.
    #[arg(value_name = "TARGET")]
    target: Place,
    /// Copy a folder with all that is in it.
    #[arg(short, long)]
    recursive: bool,
    /// Delete each source after its copy was verified.
    #[arg(long = "move")]
    delete_source: bool,
    /// What to do with a file whose target exists.
    #[arg(long, value_enum, default_value_t = Present::Fail)]
    if_exists: Present,
    /// Only files that match; `*.csv` is held against names, `in/**/*.csv` against paths. May be repeated.
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    include: Vec<String>,
    /// No files or folders that match. May be repeated.
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    exclude: Vec<String>,
    /// Compare the content of each copy with its source, not only the size.
    #[arg(long)]
    verify: bool,
    /// Go on where an earlier copy broke off, and leave what arrived when this one does. To Dropbox every copy begins
    /// anew.
    #[arg(long)]
    resume: bool,
    /// Give the copies the time of the copying instead of the times of their sources.
    #[arg(long)]
    no_times: bool,
    /// Give the copies the permissions of their sources, where both sides have them (local folders, SFTP).
    #[arg(long)]
    permissions: bool,
    /// Files at once.
    #[arg(long, value_name = "NUMBER", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    parallel: u16,
    /// Print nothing but errors.
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    pub(crate) setting: Setting,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Present {
    /// The file fails, its target stays.
    Fail,
    /// Replace it.
    Replace,
    /// Take the first free name, as in `report (1).csv`.
    Rename,
    /// Leave the file out.
    Skip,
    /// Replace it unless it is as large and not older.
    Update,
}

impl Copy {
    pub(crate) async fn run(&self) -> Result<Outcome, CommandError> {
        self.copy().await.map_err(|error| self.setting.hinted(&self.source, error))
    }

    async fn copy(&self) -> Result<Outcome, CommandError> {
        let source = self.setting.open_place(&self.source)?;
        let mut target = self.setting.open_place(&self.target)?;
        if self.source.is_on_same_connection(&self.target) {
            // One handle, so that what stays within a connection is moved by its server.
            target.remote = source.remote.clone();
        }
        let entry = source.remote.follow(&source.path).await?;
        if entry.kind == EntryKind::Directory && !self.recursive {
            let message = format!("{} is a folder; write -r to copy it with all that is in it", self.source);
            return Err(wharf_connectors::Error::new(ErrorKind::Invalid, message).into());
        }
        let names_content = source.ends_with_slash && entry.kind == EntryKind::Directory;
        if !names_content && !source.path.is_root() && is_folder(&target).await? {
            target.path = target.path.join(source.path.name())?;
        }
        let options = TransferOptions {
            if_present: match self.if_exists {
                Present::Fail => IfPresent::Fail,
                Present::Replace => IfPresent::Replace,
                Present::Rename => IfPresent::Rename,
                Present::Skip => IfPresent::Skip,
                Present::Update => IfPresent::Update,
            },
            filter: Filter::new(self.include.iter().map(String::as_str), self.exclude.iter().map(String::as_str))?,
            verify: if self.verify { Verify::Content } else { Verify::Size },
            delete_source: self.delete_source,
            resume: self.resume,
            keep_modified: !self.no_times,
            keep_mode: if self.permissions { Some(Permissions::Exactly) } else { None },
            parallel: self.parallel.into(),
        };
        let transfer = transfer(&source.remote, &source.path, &target.remote, &target.path, options).await?;
        let bar = self.bar();
        let outcome = interruptible(self.follow(transfer, &bar)).await;
        bar.finish_and_clear();
        outcome
    }

    async fn follow(&self, mut transfer: Transfer, bar: &ProgressBar) -> Result<Outcome, CommandError> {
        let started = Instant::now();
        let mut redraw = tokio::time::interval(REDRAW);
        loop {
            tokio::select! {
                result = transfer.next() => match result {
                    Some(result) => bar.suspend(|| self.report(&result))?,
                    None => break,
                },
                _ = redraw.tick() => draw(bar, &transfer.progress()),
            }
        }
        bar.finish_and_clear();
        let progress = transfer.progress();
        self.sum_up(&progress, started.elapsed())?;
        Ok(match (progress.files_failed, progress.files_transferred + progress.files_skipped) {
            (0, _) => Outcome::Done,
            (_, 0) => Outcome::Failed,
            _ => Outcome::Partial,
        })
    }

    fn bar(&self) -> ProgressBar {
        if self.quiet || self.setting.json || !is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(0);
        let form = "{bar:30} {binary_bytes} of {binary_total_bytes}, {binary_bytes_per_sec}, {eta} left  {msg}";
        match ProgressStyle::with_template(form) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    fn report(&self, result: &FileResult) -> Result<(), CommandError> {
        let took = result.took.as_millis() as u64;
        if self.setting.json {
            let (outcome, details) = match &result.outcome {
                Ok(FileOutcome::Transferred { bytes, resumed_at }) => {
                    ("transferred", json!({ "bytes": bytes, "resumed_at": resumed_at }))
                }
                Ok(FileOutcome::Skipped(reason)) => ("skipped", json!({ "reason": reason })),
                Err(error) => ("failed", json!({ "error": operation_json(error) })),
            };
            let mut line = json!({
                "source": result.source.as_str(),
                "target": result.target.as_str(),
                "outcome": outcome,
                "milliseconds": took,
            });
            if let (Value::Object(line), Value::Object(details)) = (&mut line, details) {
                line.extend(details);
            }
            return print(&line);
        }
        match &result.outcome {
            Err(error) => {
                // Nobody is left to be told when standard error is closed.
                let _ = writeln!(std::io::stderr(), "wharf: {}: {}", result.source, chain(error));
                Ok(())
            }
            Ok(_) if self.quiet || is_terminal() => Ok(()),
            Ok(FileOutcome::Transferred { bytes, .. }) => {
                say(format_args!("{} -> {} ({bytes} bytes, {took} ms)", result.source, result.target))
            }
            Ok(FileOutcome::Skipped(reason)) => say(format_args!("{} left out: {reason}", result.source)),
        }
    }

    fn sum_up(&self, progress: &Progress, took: Duration) -> Result<(), CommandError> {
        let seconds = took.as_secs_f64();
        if self.setting.json {
            return print(&json!({
                "transferred": progress.files_transferred,
                "skipped": progress.files_skipped,
                "failed": progress.files_failed,
                "bytes": progress.bytes_transferred,
                "seconds": (seconds * 1000.0).round() / 1000.0,
            }));
        }
        if self.quiet {
            return Ok(());
        }
        let files = |count: u64| format!("{count} file{}", if count == 1 { "" } else { "s" });
        let done = if self.delete_source { "moved" } else { "copied" };
        let rate = progress.bytes_transferred as f64 / seconds.max(0.001);
        let mut line = format!(
            "{} {done}, {} in {} ({}/s)",
            files(progress.files_transferred),
            HumanBytes(progress.bytes_transferred),
            HumanDuration(took),
            HumanBytes(rate as u64),
        );
        for (count, what) in [(progress.files_skipped, "left out"), (progress.files_failed, "failed")] {
            if count > 0 {
                line.push_str(&format!(", {} {what}", files(count)));
            }
        }
        say(line)
    }
}

impl Place {
    fn is_on_same_connection(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Connection { name, .. }, Self::Connection { name: other, .. }) => name == other,
            (Self::Machine { .. }, Self::Machine { .. }) => true,
            _ => false,
        }
    }
}

/// Whether what is copied goes into the target.
async fn is_folder(target: &Opened) -> Result<bool, CommandError> {
    if target.ends_with_slash || target.path.is_root() {
        return Ok(true);
    }
    match target.remote.stat(&target.path).await {
        Ok(entry) => Ok(entry.kind == EntryKind::Directory),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn draw(bar: &ProgressBar, progress: &Progress) {
    bar.set_length(progress.bytes_found);
    bar.set_position(progress.bytes_transferred);
    let more = if progress.is_counted { "" } else { "+" };
    bar.set_message(format!("{}/{}{more} files", progress.files_transferred, progress.files_found));
}
