//! `wharf ls`: what is in a folder of a connection, page by page, so that a folder of any size is listed.

use std::time::SystemTime;

use clap::Args;
use futures::stream::{StreamExt, TryStreamExt};
use serde_json::json;
use wharf_connectors::{Entry, EntryKind, Error, ErrorKind, Filter};

use super::{CommandError, Opened, Outcome, Place, Setting, print, say};

/// List a folder, or show one file.
#[derive(Args)]
pub(crate) struct List {
    /// The folder or file: NAME:/path.
    #[arg(value_name = "NAME:/PATH")]
    place: Place,
    /// Everything below the folder.
    #[arg(short, long)]
    recursive: bool,
    /// Only files that match; `*.csv` is held against names, `in/**/*.csv` against paths. May be repeated.
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    include: Vec<String>,
    /// No files or folders that match. May be repeated.
    #[arg(long, value_name = "PATTERN", requires = "recursive")]
    exclude: Vec<String>,
    #[command(flatten)]
    pub(crate) setting: Setting,
}

impl List {
    pub(crate) async fn run(&self) -> Result<Outcome, CommandError> {
        self.list().await.map_err(|error| self.setting.hinted(&self.place, error))
    }

    async fn list(&self) -> Result<Outcome, CommandError> {
        let Opened { remote, path, .. } = self.setting.open_place(&self.place)?;
        match remote.stat(&path).await {
            Ok(entry) if entry.kind != EntryKind::Directory => {
                self.show(&entry)?;
                return Ok(Outcome::Done);
            }
            // Asked again, a server that is out of reach takes as long again, and one that refuses the login counts it.
            Err(error) if error.step().is_some() || is_out_of_reach(&error) => return Err(error.into()),
            // What cannot be asked for may still be listed, and if not, the listing says why.
            _ => {}
        }
        if self.recursive {
            let filter = Filter::new(self.include.iter().map(String::as_str), self.exclude.iter().map(String::as_str))?;
            let mut entries = remote.walk(&path, filter).boxed();
            while let Some(entry) = entries.try_next().await? {
                self.show(&entry)?;
            }
        } else {
            let mut pages = remote.list_pages(&path).await?.boxed();
            while let Some(page) = pages.try_next().await? {
                page.iter().try_for_each(|entry| self.show(entry))?;
            }
        }
        Ok(Outcome::Done)
    }

    fn show(&self, entry: &Entry) -> Result<(), CommandError> {
        let kind = match entry.kind {
            EntryKind::File => "file",
            EntryKind::Directory => "directory",
            EntryKind::Symlink => "symlink",
            EntryKind::Other => "other",
        };
        if self.setting.json {
            return print(&json!({
                "path": entry.path.as_str(),
                "kind": kind,
                "size": entry.size,
                "modified": entry.modified.and_then(timestamp).map(|time| time.to_string()),
                "revision": entry.revision,
            }));
        }
        let size = entry.size.map_or("-".to_owned(), |size| size.to_string());
        let modified = entry.modified.and_then(timestamp);
        let modified = modified.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string());
        let name = if self.recursive { entry.path.as_str() } else { entry.path.name() };
        let mark = match entry.kind {
            EntryKind::Directory => "/",
            EntryKind::Symlink => "@",
            _ => "",
        };
        say(format_args!("{size:>14}  {modified:19}  {name}{mark}"))
    }
}

fn is_out_of_reach(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Interrupted | ErrorKind::Timeout | ErrorKind::RateLimited
    )
}

fn timestamp(time: SystemTime) -> Option<jiff::Timestamp> {
    // To the second: a listing is for comparing, and most servers know no more.
    jiff::Timestamp::try_from(time).ok().and_then(|time| time.round(jiff::Unit::Second).ok())
}
