//! What is in an account and what becomes of it: listings, the changes since, waiting for the next one, search.
//!
//! A cursor or a search may have come from anywhere; whatever it tells, only what is within the root comes out.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Account, Metadata, Page, bounded, same_to_dropbox};
use crate::dropbox::PAGE_ENTRIES;
use crate::dropbox::failure::Call;
use crate::dropbox::wire::{self, Listing, write_path};
use crate::error::{Error, ErrorKind};
use crate::operation::Effect;
use crate::path::RemotePath;

/// The longest search text: more than Dropbox takes, which says so itself.
const QUERY_BYTES_MAX: usize = 4096;

/// The shortest and the longest wait of one long poll in seconds (files.stone, `ListFolderLongpollArg`).
const LONGPOLL_SECONDS: std::ops::RangeInclusive<u64> = 30..=480;

/// What a listing tells.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListOptions {
    /// Everything below the folder, not only what is in it.
    pub recursive: bool,
    /// What was deleted, too.
    pub include_deleted: bool,
    /// About so many entries of one page, 1 to 2000; 500 when absent.
    pub limit: Option<u32>,
}

impl ListOptions {
    fn argument(&self, path: &RemotePath) -> Value {
        json!({
            "path": write_path(path),
            "recursive": self.recursive,
            "include_deleted": self.include_deleted,
            "limit": self.limit.unwrap_or(PAGE_ENTRIES).clamp(1, 2000),
        })
    }
}

/// What happened since a cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// The entries as they are now, in the order in which to apply them. May be empty although there is more.
    pub entries: Vec<Metadata>,
    /// Where to go on: at once if `has_more`, otherwise whenever there may be changes.
    pub cursor: String,
    /// Whether there is more now.
    pub has_more: bool,
    /// The entries begin anew: what is not told from here on, until `has_more` is false, is no longer there. So it is
    /// without a cursor, and when Dropbox no longer knows the one that was given.
    pub reset: bool,
}

/// The answer to a long poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll {
    /// Whether the cursor has changes.
    pub changes: bool,
    /// How long Dropbox asks to wait before the next poll; the next one of this connection waits that long by itself.
    pub backoff: Option<Duration>,
}

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchOptions {
    /// At most so many matches of one page, 1 to 1000; 100 when absent.
    pub limit: Option<u32>,
    /// Names only, not what is in the files.
    pub names_only: bool,
    /// What was deleted, instead of what is there.
    pub deleted: bool,
    /// Only files with one of these endings, without the dot; any when empty.
    pub extensions: Vec<String>,
}

/// One page of matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matches {
    /// May be empty although there is more; one entry may be told twice.
    pub entries: Vec<Metadata>,
    /// For [`Account::search_continue`]; absent when there is no more.
    pub cursor: Option<String>,
}

#[derive(Deserialize)]
struct Cursor {
    cursor: String,
}

#[derive(Deserialize)]
struct Found {
    matches: Vec<Match>,
    cursor: Option<String>,
    #[serde(default)]
    has_more: bool,
}

#[derive(Deserialize)]
struct Match {
    metadata: MatchMetadata,
}

#[derive(Deserialize)]
struct MatchMetadata {
    /// Absent for kinds of matches from the future.
    metadata: Option<wire::Metadata>,
}

impl Account {
    /// The first page of a folder.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not a folder.
    pub async fn list_folder_with(&self, path: &RemotePath, options: &ListOptions) -> Result<Page, Error> {
        let outside = path.below(&self.root);
        let call = Call { route: "files/list_folder", subject: outside.as_str(), repeatable: true };
        let work = async { Ok(self.client.caller.rpc::<Listing>(&call, &options.argument(&outside)).await?) };
        let listing = self.remote.once("dropbox-list-folder", path, Effect::None, work).await?;
        let mut page = self.page(listing);
        // A recursive listing begins with the folder itself.
        page.entries.retain(|entry| !same_to_dropbox(entry.path.as_str(), path.as_str()));
        Ok(page)
    }

    /// A cursor for what happens in a folder from now on.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not a folder.
    pub async fn latest_cursor(&self, path: &RemotePath, options: &ListOptions) -> Result<String, Error> {
        let outside = path.below(&self.root);
        let call = Call { route: "files/list_folder/get_latest_cursor", subject: outside.as_str(), repeatable: true };
        let work = async { Ok(self.client.caller.rpc::<Cursor>(&call, &options.argument(&outside)).await?) };
        Ok(self.remote.once("dropbox-latest-cursor", path, Effect::None, work).await?.cursor)
    }

    /// What happened in a folder since a cursor, or everything in it without one. A cursor that Dropbox no longer
    /// knows is no failure: the entries then begin anew. A cursor from elsewhere gives nothing but what is within
    /// this root.
    ///
    /// # Errors
    /// `NotFound`; `Conflict` when it is not a folder; `Invalid` for what has never been a cursor.
    pub async fn changes(
        &self,
        path: &RemotePath,
        cursor: Option<&str>,
        options: &ListOptions,
    ) -> Result<Changes, Error> {
        let (page, reset) = match cursor {
            None => (self.list_folder_with(path, options).await?, true),
            Some(cursor) => {
                bounded("cursor", cursor)?;
                let work = async {
                    match self.client.caller.list_folder_continue(&self.root, cursor.to_owned()).await {
                        Ok(listing) => Ok(Some(listing)),
                        Err(failure) if failure.is("reset") => Ok(None),
                        Err(failure) => Err(failure.into()),
                    }
                };
                match self.remote.once("dropbox-changes", path, Effect::None, work).await? {
                    Some(listing) => (self.page(listing), false),
                    None => (self.list_folder_with(path, options).await?, true),
                }
            }
        };
        let mut entries = page.entries;
        entries.retain(|entry| {
            let inside = path.components().zip(entry.path.components()).all(|(one, other)| same_to_dropbox(one, other));
            inside && entry.path.components().count() > path.components().count()
        });
        Ok(Changes { entries, cursor: page.cursor, has_more: page.has_more, reset })
    }

    /// Waits until a cursor has changes, at most for `timeout`, which is brought between 30 s and 480 s, and up to
    /// 90 s more as Dropbox likes. Takes no place among the connection's operations. Dropping it ends the wait.
    ///
    /// # Errors
    /// `Conflict`: the cursor was reset, see [`Account::changes`]. `Invalid` for what has never been a cursor.
    pub async fn longpoll(&self, cursor: &str, timeout: Duration) -> Result<Poll, Error> {
        bounded("cursor", cursor)?;
        let seconds = timeout.as_secs().clamp(*LONGPOLL_SECONDS.start(), *LONGPOLL_SECONDS.end());
        Ok(self.client.caller.longpoll(cursor, seconds).await?)
    }

    /// Searches below a folder. Dropbox finds changes some seconds to minutes late, and ten thousand matches at most.
    ///
    /// # Errors
    /// `NotFound` for the folder, `Invalid` for a query that Dropbox does not take.
    pub async fn search(&self, path: &RemotePath, query: &str, options: &SearchOptions) -> Result<Matches, Error> {
        if query.is_empty() || query.len() > QUERY_BYTES_MAX {
            return Err(Error::new(ErrorKind::Invalid, "a search needs some words, and not endless ones"));
        }
        let outside = path.below(&self.root);
        let mut argument = json!({
            "query": query,
            "options": {
                "path": write_path(&outside),
                "max_results": options.limit.unwrap_or(100).clamp(1, 1000),
                "filename_only": options.names_only,
                "file_status": if options.deleted { "deleted" } else { "active" },
            },
        });
        if !options.extensions.is_empty() {
            argument["options"]["file_extensions"] = json!(options.extensions);
        }
        let call = Call { route: "files/search_v2", subject: outside.as_str(), repeatable: true };
        let work = async { Ok(self.client.caller.rpc::<Found>(&call, &argument).await?) };
        let found = self.remote.once("dropbox-search", path, Effect::None, work).await?;
        Ok(self.matches(found))
    }

    /// The next page of matches.
    ///
    /// # Errors
    /// `Conflict`: the cursor is no longer valid, search anew. `Invalid` for what has never been a cursor.
    pub async fn search_continue(&self, cursor: &str) -> Result<Matches, Error> {
        bounded("cursor", cursor)?;
        let call = Call { route: "files/search/continue_v2", subject: self.root.as_str(), repeatable: true };
        let work = async { Ok(self.client.caller.rpc::<Found>(&call, &json!({ "cursor": cursor })).await?) };
        let found = self.remote.once("dropbox-search-continue", &RemotePath::root(), Effect::None, work).await?;
        Ok(self.matches(found))
    }

    fn matches(&self, found: Found) -> Matches {
        let entries =
            found.matches.into_iter().filter_map(|found| self.told_within(found.metadata.metadata?)).collect();
        Matches { entries, cursor: found.cursor.filter(|_| found.has_more) }
    }
}
