//! `get` and `put`, which are the same with the sides exchanged.

use super::Output;
use super::line::Command;
use super::side::{Match, Side, Target};
use crate::backend::{ByteRange, EntryKind, IfExists, Permissions, WriteOptions};
use crate::error::{Error, ErrorKind, chain};
use crate::path::RemotePath;
use crate::sftp::Info;
use crate::transfer::{IfPresent, Outcome, TransferOptions, transfer};

/// Copies what the first word stands for to where the second one says.
pub(super) async fn copy(
    mut command: Command,
    from: &Side,
    to: &Side,
    keeps_metadata: bool,
    output: &mut Output,
) -> Result<(), Error> {
    let copy = Copy::new(&mut command, from, to, keeps_metadata)?;
    let words = command.take(1, 2)?;
    let matches = from.matches(&words[0]).await?;
    let target = to.target(words.get(1)).await?;
    let several = matches.len() > 1;
    if several {
        target.takes_several()?;
    }
    let (mut failed, mut first) = (0, None);
    for found in &matches {
        match copy.one(found, &target, output).await {
            Ok(()) => {}
            // The others can go on.
            Err(error) if several && concerns_one_file(&error) => {
                output.line(format!("Skipping {}: {}", found.typed, chain(&error)));
                failed += 1;
                first.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    let Some(first) = first else { return Ok(()) };
    let message = format!("{failed} of {} were not copied", matches.len());
    Err(Error::new(first.kind(), message).with_source(first))
}

/// Whether a failure says nothing of other files.
fn concerns_one_file(error: &Error) -> bool {
    use ErrorKind::{AlreadyExists, Conflict, Denied, Invalid, NotFound, TooLarge, Unsupported};
    error.step().is_none()
        && matches!(error.kind(), NotFound | AlreadyExists | Conflict | Denied | Invalid | TooLarge | Unsupported)
}

/// How something is copied, as it was asked for.
struct Copy<'a> {
    from: &'a Side,
    to: &'a Side,
    /// How each copy is told.
    verb: &'static str,
    is_recursive: bool,
    is_continued: bool,
    /// Times of last change, and permissions as they are.
    keeps_metadata: bool,
}

impl<'a> Copy<'a> {
    fn new(command: &mut Command, from: &'a Side, to: &'a Side, keeps_metadata: bool) -> Result<Self, Error> {
        let options = command.options("afpPrR")?;
        let has = |letters: &[char]| options.contains(letters);
        Ok(Self {
            from,
            to,
            verb: if command.name.ends_with("get") { "Fetching" } else { "Uploading" },
            is_recursive: has(&['r', 'R']),
            is_continued: has(&['a']) || command.name.starts_with("re"),
            keeps_metadata: keeps_metadata || has(&['p', 'P']),
        })
    }

    async fn one(&self, found: &Match, target: &Target, output: &mut Output) -> Result<(), Error> {
        let typed = &found.typed;
        let info = self.from.files.follow(&found.path).await?;
        let is_folder = info.kind == EntryKind::Directory;
        match info.kind {
            EntryKind::Directory if !self.is_recursive => {
                let message = format!("{typed} is a folder; add -r to copy what is in it");
                return Err(Error::new(ErrorKind::Conflict, message));
            }
            EntryKind::Directory if self.is_continued => {
                return Err(Error::new(ErrorKind::Unsupported, "only a file can be continued, not a folder"));
            }
            EntryKind::Directory | EntryKind::File => {}
            _ => return Err(Error::new(ErrorKind::Conflict, format!("{typed} is no file"))),
        }
        let path = target.of(name_of(found), is_folder)?;
        output.line(format!("{} {typed} to {path}", self.verb));
        let path = self.to.files.on(&path);
        match () {
            () if is_folder => self.tree(&found.path, &path, output).await,
            () if self.is_continued => self.rest(&info, &path).await,
            () => self.file(&info, &path).await,
        }
    }

    async fn file(&self, info: &Info, to: &RemotePath) -> Result<(), Error> {
        // Read by its path, so that a link is followed.
        let content = self.from.files.remote().read(&self.from.files.on(&info.path), ByteRange::ALL).await?;
        let options = WriteOptions {
            modified: info.modified.filter(|_| self.keeps_metadata),
            mode: info.mode.map(self.permissions()),
            ..WriteOptions::new(IfExists::Replace)
        };
        self.to.files.remote().write_with(to, content, &options).await.map(drop)
    }

    /// A copy that does not keep the permissions of its source does not give more, either.
    fn permissions(&self) -> fn(u32) -> Permissions {
        if self.keeps_metadata { Permissions::Exactly } else { Permissions::AtMost }
    }

    /// Puts the rest of a file behind what is there of it.
    async fn rest(&self, info: &Info, to: &RemotePath) -> Result<(), Error> {
        let (source, target) = (self.from.files.remote(), self.to.files.remote());
        let held = match target.follow(to).await {
            Ok(entry) if entry.kind == EntryKind::File => entry.size.unwrap_or_default(),
            Ok(_) => return Err(Error::new(ErrorKind::Conflict, format!("cannot go on with {to}: it is no file"))),
            Err(error) if error.kind() == ErrorKind::NotFound => 0,
            Err(error) => return Err(error),
        };
        if info.size.is_some_and(|whole| held > whole) {
            let message = format!("cannot go on with {to}: it is longer than {} already", info.path);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        if held > 0 && info.size == Some(held) {
            return Ok(());
        }
        let content = source.read(&self.from.files.on(&info.path), ByteRange { offset: held, length: None }).await?;
        target.append(to, content).await.map(drop)
    }

    async fn tree(&self, path: &RemotePath, to: &RemotePath, output: &mut Output) -> Result<(), Error> {
        let options = TransferOptions {
            if_present: IfPresent::Replace,
            keep_modified: self.keeps_metadata,
            keep_mode: Some(self.permissions()),
            ..TransferOptions::default()
        };
        let (source, target) = (self.from.files.remote(), self.to.files.remote());
        let mut transfer = transfer(source, &self.from.files.on(path), target, to, options).await?;
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

/// The name that a copy gets in a folder; none for `/` and what ends with `.` or `..`: its content is meant.
fn name_of(found: &Match) -> Option<&str> {
    let last = found.typed.trim_end_matches('/').rsplit('/').next();
    let is_itself = matches!(last, None | Some("" | "." | ".."));
    Some(found.path.name()).filter(|name| !is_itself && !name.is_empty())
}
