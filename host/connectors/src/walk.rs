//! Whole trees of a connection: listing everything below a folder, choosing by patterns, and deleting it.
//!
//! Symbolic links are told as entries and never followed. Memory is bounded by the entries of one folder and the number
//! of folders.

use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use globset::{GlobBuilder, GlobSet, GlobSetBuilder};

use crate::Remote;
use crate::backend::{Entry, EntryKind};
use crate::error::{Error, ErrorKind};
use crate::operation::Effect;
use crate::path::RemotePath;

/// Folders of one tree at most: some ten megabytes of paths, and an end for a server that invents folders.
pub const WALK_FOLDERS_MAX: usize = 100_000;

/// Entries of one folder in a walk at most: some fifty megabytes.
pub const WALK_FOLDER_ENTRIES_MAX: usize = 200_000;

/// Which entries of a tree are meant.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    include: Option<GlobSet>,
    exclude: GlobSet,
}

impl Filter {
    /// Entries that match one of `include`, or all when there are none, and none of `exclude`.
    ///
    /// A pattern has `*`, `?`, `[a-z]`, `{a,b}`, and `**` for any number of folders. One without `/` is held against the
    /// name, one with `/` against the path below the folder that the walk begins at.
    ///
    /// # Errors
    /// `Invalid` for a malformed pattern.
    pub fn new<'a>(
        include: impl IntoIterator<Item = &'a str>,
        exclude: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, Error> {
        let mut include = include.into_iter().peekable();
        Ok(Self { include: include.peek().is_some().then(|| set(include)).transpose()?, exclude: set(exclude)? })
    }

    /// Whether a file is meant whose path below the folder of the walk is `path`.
    pub fn matches(&self, path: &RemotePath) -> bool {
        let path = path.as_str().trim_start_matches('/');
        self.include.as_ref().is_none_or(|include| include.is_match(path)) && !self.exclude.is_match(path)
    }

    /// Whether it leaves nothing out.
    pub(crate) fn is_everything(&self) -> bool {
        self.include.is_none() && self.exclude.is_empty()
    }

    /// Whether nothing below a folder can be meant.
    pub(crate) fn excludes(&self, path: &RemotePath) -> bool {
        self.exclude.is_match(path.as_str().trim_start_matches('/'))
    }
}

fn set<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<GlobSet, Error> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let invalid = |error| Error::new(ErrorKind::Invalid, format!("{pattern:?} is no pattern")).with_source(error);
        let anchored = match pattern.strip_prefix('/') {
            Some(anchored) => anchored.to_owned(),
            None if pattern.contains('/') => pattern.to_owned(),
            None => format!("**/{pattern}"),
        };
        set.add(GlobBuilder::new(&anchored).literal_separator(true).build().map_err(invalid)?);
    }
    set.build().map_err(|error| Error::new(ErrorKind::Invalid, "the patterns are too large").with_source(error))
}

/// Folders still to be listed.
struct Pending {
    remote: Remote,
    filter: Filter,
    top: RemotePath,
    folders: Vec<RemotePath>,
    seen: usize,
}

impl Remote {
    /// Everything below a folder, folder by folder; a folder comes before what is in it. Folders are told whatever
    /// `include` of the filter says, and left out with all below them by `exclude`.
    ///
    /// # Errors
    /// As [`Remote::list_pages`], as an item; `TooLarge` with more than [`WALK_FOLDERS_MAX`] folders, or
    /// [`WALK_FOLDER_ENTRIES_MAX`] entries that are meant in one of them.
    pub fn walk(&self, path: &RemotePath, filter: Filter) -> impl Stream<Item = Result<Entry, Error>> + Send + use<> {
        let (remote, top) = (self.clone(), path.clone());
        let pending = Pending { remote, filter, folders: vec![top.clone()], top, seen: 1 };
        stream::try_unfold(pending, |mut pending| async move {
            let Some(folder) = pending.folders.pop() else { return Ok::<_, Error>(None) };
            let entries = pending.choose(&folder).await?;
            Ok(Some((stream::iter(entries.into_iter().map(Ok)), pending)))
        })
        .try_flatten()
    }

    /// Deletes a file, or a folder with all that is in it. A symbolic link is deleted itself, never what it leads to.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the root; what the remote reports of the first entry that it does not delete. What was
    /// deleted before stays deleted.
    pub async fn delete_tree(&self, path: &RemotePath) -> Result<(), Error> {
        self.not_the_root("delete", path)?;
        let (backend, outside) = (self.backend("delete")?, self.outside(path));
        if self.once("delete-tree", path, Effect::Partial, backend.delete_tree(&outside)).await? {
            return Ok(());
        }
        if self.stat(path).await?.kind != EntryKind::Directory {
            return self.delete(path).await;
        }
        let mut folders = vec![path.clone()];
        let mut seen = 1;
        while let Some(folder) = folders.last().cloned() {
            // A first page at a time, so that nothing is deleted from a listing that is still open.
            let pages = self.list_pages(&folder).await?;
            let page = { std::pin::pin!(pages).try_next().await? };
            let Some(page) = page else {
                gone(self.delete(&folder).await)?;
                folders.pop();
                continue;
            };
            let (inner, others): (Vec<_>, Vec<_>) =
                page.into_iter().partition(|entry| entry.kind == EntryKind::Directory);
            let deletions = others.into_iter().map(|entry| {
                let remote = self.clone();
                async move { gone(remote.delete(&entry.path).await) }
            });
            stream::iter(deletions).buffer_unordered(DELETIONS_MAX).try_collect::<()>().await?;
            seen += inner.len();
            if seen > WALK_FOLDERS_MAX {
                return Err(too_many_folders(path));
            }
            folders.extend(inner.into_iter().map(|entry| entry.path));
        }
        Ok(())
    }
}

/// Files of one folder that are deleted at once: the delay of the line matters less, and others get their turn.
const DELETIONS_MAX: usize = 4;

/// What is not there any more was deleted by somebody else.
fn gone(deleted: Result<(), Error>) -> Result<(), Error> {
    match deleted {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

fn too_many_folders(path: &RemotePath) -> Error {
    Error::new(ErrorKind::TooLarge, format!("there are more than {WALK_FOLDERS_MAX} folders below {path}"))
}

impl Pending {
    /// The entries of a folder that are meant; folders in it are put with the pending ones. The folder is listed to its
    /// end at once: who uses a walk may take minutes for an entry, and a server does not wait with an open listing.
    async fn choose(&mut self, folder: &RemotePath) -> Result<Vec<Entry>, Error> {
        let pages = self.remote.list_pages(folder).await?;
        let mut pages = std::pin::pin!(pages);
        let mut chosen = Vec::new();
        while let Some(page) = pages.try_next().await? {
            for entry in page {
                let below = entry.path.relative_to(&self.top).unwrap_or_else(|| entry.path.clone());
                let is_folder = entry.kind == EntryKind::Directory;
                if is_folder && !self.filter.excludes(&below) {
                    self.seen += 1;
                    if self.seen > WALK_FOLDERS_MAX {
                        return Err(too_many_folders(&self.top));
                    }
                    self.folders.push(entry.path.clone());
                    chosen.push(entry);
                } else if !is_folder && self.filter.matches(&below) {
                    chosen.push(entry);
                }
            }
            if chosen.len() > WALK_FOLDER_ENTRIES_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("{folder} has more than {WALK_FOLDER_ENTRIES_MAX} entries, more than a walk keeps in mind"),
                ));
            }
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(include: &[&str], exclude: &[&str], path: &str) -> bool {
        let filter = Filter::new(include.iter().copied(), exclude.iter().copied()).unwrap();
        filter.matches(&RemotePath::parse(path).unwrap())
    }

    #[test]
    fn a_pattern_without_a_slash_is_held_against_the_name() {
        assert!(matches(&["*.csv"], &[], "/a/b/report.csv"));
        assert!(matches(&["*.csv"], &[], "/report.csv"));
        assert!(!matches(&["*.csv"], &[], "/report.csv.bak"));
        assert!(matches(&["{a,b}?"], &[], "/x/b1"));
    }

    #[test]
    fn a_pattern_with_a_slash_is_held_against_the_path() {
        assert!(matches(&["/*.csv"], &[], "/report.csv"));
        assert!(!matches(&["/*.csv"], &[], "/a/report.csv"));
        assert!(matches(&["a/**/*.csv"], &[], "/a/b/c/report.csv"));
        assert!(!matches(&["a/*.csv"], &[], "/a/b/report.csv"));
    }

    #[test]
    fn what_is_excluded_is_not_included() {
        assert!(matches(&[], &["*.tmp"], "/a"));
        assert!(!matches(&[], &["*.tmp"], "/a.tmp"));
        assert!(!matches(&["a*"], &["*.tmp"], "/a.tmp"));
        assert!(Filter::new(["[a"], []).is_err());
    }
}
