//! Two names of one place: where a transfer would copy a folder into itself, delete a file that it has replaced by itself,
//! or write two files under one name.
//!
//! Names alone do not tell: connections share servers, links lead to folders, and case may make no difference. What is
//! known of a place is compared, and where that is not enough, a new file shows it. Knows nothing of how files are moved.

use std::collections::HashSet;

use super::{IfPresent, Work};
use crate::backend::{Entry, EntryKind, IfExists};
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;
use crate::{Remote, temporary};

/// Whether a path is known to be a folder, or below it, by whatever connections the two are reached.
pub(super) async fn is_within(remote: &Remote, path: &RemotePath, of: &Remote, folder: &RemotePath) -> bool {
    match (remote.location(path).await, of.location(folder).await) {
        (Some(path), Some(folder)) => path.is_within(&folder),
        _ => false,
    }
}

/// Names that a walk has come by, for targets where upper and lower case are the same.
#[derive(Default)]
pub(super) struct Names {
    folder: Option<RemotePath>,
    /// Those of this folder, in lower case.
    seen: HashSet<String>,
    /// Whether the target is such, once that mattered.
    mix_case: Option<bool>,
    /// Folders that would be one with another folder there.
    taken: HashSet<RemotePath>,
}

impl Names {
    /// Whether an earlier entry of the same folder had the same name but for its case. A walk tells a folder's entries
    /// one after the other.
    fn have_one_alike(&mut self, entry: &Entry) -> bool {
        let folder = entry.path.parent();
        if self.folder != folder {
            (self.folder, self.seen) = (folder, HashSet::new());
        }
        !self.seen.insert(entry.path.name().to_lowercase())
    }
}

impl Work {
    /// Fails when the target is the source itself, by another name of its connection or its folder: a move that replaces
    /// a file by itself would delete it afterwards.
    ///
    /// Only a target that is there, of the same size and name, can be the source. Whether it is shows a new file, which
    /// is put beside the target and looked for beside the source.
    pub(super) async fn check_is_another(&self, entry: &Entry, target: &RemotePath) -> Result<(), Error> {
        let there = match self.target.stat(target).await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            there => there?,
        };
        let (Some(beside_source), Some(beside_target)) = (entry.path.parent(), target.parent()) else { return Ok(()) };
        if there.size != entry.size || !entry.path.name().eq_ignore_ascii_case(target.name()) {
            return Ok(());
        }
        let mark = temporary::name_for(target.name());
        let marked = beside_target.join(&mark)?;
        self.target.write(&marked, Content::from_bytes(""), IfExists::Fail).await?;
        let is_same = self.source.exists(&beside_source.join(&mark)?).await;
        self.target.delete(&marked).await?;
        if is_same? {
            let (source, from) = (self.source.name(), &entry.path);
            let message = format!("{from} on {source} and {target} on {} are the same file", self.target.name());
            return Err(Error::new(ErrorKind::Invalid, message));
        }
        Ok(())
    }

    /// Whether the target takes the name of an entry for that of another one of this transfer, which it would replace.
    pub(super) async fn is_taken(&self, names: &mut Names, entry: &Entry) -> Result<bool, Error> {
        if !matches!(self.options.if_present, IfPresent::Replace | IfPresent::Update) {
            return Ok(false);
        }
        let is_below = entry.path.parent().is_some_and(|folder| names.taken.contains(&folder));
        let is_alike = !is_below && names.have_one_alike(entry);
        if is_alike && names.mix_case.is_none() {
            names.mix_case = Some(self.mixes_case().await?);
        }
        let is_taken = is_below || is_alike && names.mix_case == Some(true);
        if is_taken && entry.kind == EntryKind::Directory {
            names.taken.insert(entry.path.clone());
        }
        Ok(is_taken)
    }

    /// Whether the target takes names that differ in case alone for the same: a new file there shows it.
    async fn mixes_case(&self) -> Result<bool, Error> {
        let mark = temporary::name_for("case");
        let marked = self.to.join(&mark)?;
        self.target.write(&marked, Content::from_bytes(""), IfExists::Fail).await?;
        let is_found = self.target.exists(&self.to.join(&mark.to_uppercase())?).await;
        self.target.delete(&marked).await?;
        is_found
    }

    /// Fails an entry whose name is taken.
    pub(super) async fn collides(&self, entry: Entry, target: RemotePath) {
        let message = format!(
            "cannot write {target} on {}: another file of this transfer has that name there, where upper and lower case \
             are the same",
            self.target.name()
        );
        self.failed(entry.path, target, Error::new(ErrorKind::AlreadyExists, message)).await;
    }
}
