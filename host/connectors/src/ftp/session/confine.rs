//! That no symbolic link leads a path out of the folder that it shall stay in.
//!
//! Servers follow links by themselves and hardly tell. Where a folder truly is, `PWD` says once it was entered, so a link to
//! a folder is followed where that lies inside. Where a link to a file leads nobody says in a form that a name could not
//! forge, so it is not followed. What is a link, `MLST` tells, or the listing of its folder; what is neither shown to be
//! none nor missing is refused.
//!
//! A server whose `PWD` repeats what was sent, or that tells nothing of links, cannot be kept in; nor can somebody who
//! exchanges a file for a link between the look and the transfer.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Slot;
use std::sync::Arc;
use std::time::Instant;

use super::commands::LINK_MODE;
use super::{Answer, Session};
use crate::backend::EntryKind;
use crate::border::INSIDE_FOR;
use crate::error::{Error, ErrorKind};
use crate::ftp::listing::{self, Line, Listed};
use crate::ftp::reply::Reply;
use crate::path::RemotePath;

/// Names of a folder that are remembered: of a larger one, only the name that was asked for.
const NAMES_MAX: usize = 20_000;

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Missing,
    /// Neither a folder nor a link.
    Plain,
    /// A folder, or a link to one.
    Folder,
    Link,
    /// Told in several ways, or not at all.
    Unclear,
}

/// What a listing of a folder told, for as long as it is believed.
pub(super) struct Snapshot {
    folder: RemotePath,
    taken: Instant,
    names: HashMap<String, Nature>,
}

impl Session {
    /// From now on no link leads out of these folders. The root is one of them.
    pub(in crate::ftp) fn stay_within(&mut self, borders: Arc<[RemotePath]>) {
        self.borders.stay_within(borders);
    }

    /// Makes sure that what is at a path lies inside, wherever links lead: before it is read or changed.
    ///
    /// # Errors
    /// `Denied` when it lies outside, or when that cannot be told; `NotFound` when its folder is missing. What is missing
    /// itself is inside: the operation will tell.
    pub(in crate::ftp) async fn confine(&mut self, path: &RemotePath) -> Result<(), Error> {
        self.confine_parent(path).await?;
        if !self.borders.is_in_doubt(path) {
            return Ok(());
        }
        if path == self.borders.root() {
            return self.and_back(path, false).await;
        }
        let nature = self.nature(path).await;
        self.leave().await?;
        match nature? {
            Nature::Missing => Ok(()),
            Nature::Plain => {
                self.borders.remember(path);
                Ok(())
            }
            Nature::Folder => self.and_back(path, false).await,
            // Asked first, for Pure-FTPd answers to CWD later and later where there is no folder.
            Nature::Link if self.size(path).await?.is_some() => Err(self.borders.may_lead_out(path)),
            Nature::Link => self.and_back(path, true).await,
            Nature::Unclear => {
                let message = format!("cannot use {path}: its FTP server does not tell whether it is a symbolic link");
                Err(Error::new(ErrorKind::Denied, message))
            }
        }
    }

    /// The same for the folder that holds a path: before something there is looked at, made, renamed or deleted.
    ///
    /// # Errors
    /// As [`Session::confine`].
    pub(in crate::ftp) async fn confine_parent(&mut self, path: &RemotePath) -> Result<(), Error> {
        match path.parent() {
            // The root itself lies in a folder that is outside of it.
            Some(folder) if path != self.borders.root() && self.borders.is_in_doubt(&folder) => {
                self.and_back(&folder, false).await
            }
            _ => Ok(()),
        }
    }

    /// What is at a path of which the folder was confined; `None` where it does not matter what links lead to.
    pub(super) async fn nature_in_doubt(&mut self, path: &RemotePath) -> Result<Option<Nature>, Error> {
        if !self.borders.is_in_doubt(path) || path == self.borders.root() {
            return Ok(None);
        }
        let nature = self.nature(path).await;
        self.leave().await?;
        nature.map(Some)
    }

    /// What was known of a path, and of what is below it, holds no longer: nothing is there now.
    pub(in crate::ftp) fn forget(&mut self, path: &RemotePath) {
        self.borders.forget(path);
        match &mut self.snapshot {
            Some(snapshot) if path.parent().as_ref() == Some(&snapshot.folder) => {
                snapshot.names.remove(path.name());
            }
            Some(snapshot) if snapshot.folder.is_within(path) => self.snapshot = None,
            _ => {}
        }
    }

    /// What was at one path is at another now.
    pub(in crate::ftp) fn forget_both(&mut self, source: &RemotePath, target: &RemotePath) {
        self.borders.forget(source);
        self.borders.forget(target);
        self.snapshot = None;
    }

    /// A file was put at a path in place of whatever was there.
    pub(in crate::ftp) fn note_file(&mut self, path: &RemotePath) {
        self.forget(path);
        if let Some(snapshot) = &mut self.snapshot
            && path.parent().as_ref() == Some(&snapshot.folder)
        {
            snapshot.names.insert(path.name().to_owned(), Nature::Plain);
        }
    }

    /// Enters a folder that must lie inside, and goes back to where it is harmless to be: when the folder that it is in is
    /// deleted, Pure-FTPd ends the session.
    async fn and_back(&mut self, folder: &RemotePath, is_link: bool) -> Result<(), Error> {
        let entered = self.enter_inside(folder, is_link).await;
        self.leave().await?;
        entered
    }

    async fn enter_inside(&mut self, folder: &RemotePath, is_link: bool) -> Result<(), Error> {
        while let Some(border) = self.borders.unsurveyed(folder) {
            match self.enter(&border).await? {
                Ok(real) => self.borders.survey(&border, real.into())?,
                Err(reply) => return Err(self.not_entered(&border, &reply)),
            }
        }
        match self.enter(folder).await? {
            Ok(real) => self.borders.check(folder, real.as_bytes()),
            Err(_) if is_link => Err(self.borders.may_lead_out(folder)),
            Err(reply) => Err(self.not_entered(folder, &reply)),
        }
    }

    fn not_entered(&self, folder: &RemotePath, reply: &Reply) -> Error {
        if reply.is_missing() && !reply.speaks_of_permission() {
            return Error::new(ErrorKind::NotFound, format!("{folder} is not there, or no folder"));
        }
        self.refused(&format!("enter {folder}"), reply)
    }

    /// Where a folder truly is.
    async fn enter(&mut self, folder: &RemotePath) -> Answer<String> {
        let entered = self.command(&format!("CWD {folder}")).await?;
        if !entered.is_positive() {
            return Ok(Err(entered));
        }
        self.is_elsewhere = true;
        let told = self.command("PWD").await?;
        let lines = told.lines(self.encoding());
        match lines.first().and_then(|line| quoted_path(line)) {
            Some(real) if told.code == 257 => Ok(Ok(self.encoding().name(&real))),
            _ => {
                // A name may have the end of a line in it, and what looks like a reply behind that.
                self.in_step = false;
                let server = self.dialer.server();
                let message = format!(
                    "the FTP server {server} does not say where {folder} leads, so nothing can be kept in a folder of \
                     it: {}; leave out root, and path of the grants",
                    told.text()
                );
                Err(Error::new(ErrorKind::Unsupported, message))
            }
        }
    }

    async fn leave(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_elsewhere) && self.is_in_step() {
            self.command("CWD /").await?;
        }
        Ok(())
    }

    /// What is at a path, of which the folder is known to lie inside. To be followed by [`Session::leave`].
    async fn nature(&mut self, path: &RemotePath) -> Result<Nature, Error> {
        if self.abilities().await?.machine_listings {
            let reply = self.command(&format!("MLST {path}")).await?;
            match reply.code {
                200..=299 => match self.facts(&reply) {
                    Some(told) if told.kind == EntryKind::Symlink => return Ok(Nature::Link),
                    Some(told) if told.kind == EntryKind::Directory => return Ok(Nature::Folder),
                    // The servers that tell it tell that of the link itself.
                    Some(Listed { mode: Some(mode), .. }) if mode != LINK_MODE => return Ok(Nature::Plain),
                    _ => {}
                },
                500 | 502 | 504 => self.abilities().await?.machine_listings = false,
                _ if reply.is_missing() => return self.or_missing(path, None).await,
                _ => return Err(self.refused(&format!("look at {path}"), &reply)),
            }
        }
        if !self.abilities().await?.machine_listings && self.command(&format!("CWD {path}")).await?.is_positive() {
            self.is_elsewhere = true;
            return Ok(Nature::Folder);
        }
        match self.remembered(path) {
            Some(Some(nature)) => return Ok(nature),
            // Somebody may have put it there since.
            Some(None) if self.size(path).await?.is_none() => return Ok(Nature::Missing),
            _ => {}
        }
        let nature = self.list_names_beside(path).await?;
        self.or_missing(path, nature).await
    }

    /// What is not listed is missing, unless it can be asked for all the same.
    async fn or_missing(&mut self, path: &RemotePath, nature: Option<Nature>) -> Result<Nature, Error> {
        match nature {
            Some(nature) => Ok(nature),
            None if self.size(path).await?.is_some() => Ok(Nature::Unclear),
            None => Ok(Nature::Missing),
        }
    }

    /// What the last listing told of a path, if that is not too long ago; `Some(None)` when it did not have it.
    fn remembered(&self, path: &RemotePath) -> Option<Option<Nature>> {
        let snapshot = self.snapshot.as_ref()?;
        let is_valid = path.parent().as_ref() == Some(&snapshot.folder) && snapshot.taken.elapsed() < INSIDE_FOR;
        is_valid.then(|| snapshot.names.get(path.name()).copied())
    }

    /// Lists the folder that holds a path; what it tells of the path.
    async fn list_names_beside(&mut self, path: &RemotePath) -> Result<Option<Nature>, Error> {
        let folder = path.parent().unwrap_or_else(RemotePath::root);
        let (mut names, mut asked) = (HashMap::new(), HashMap::new());
        let entered = self.command(&format!("CWD {folder}")).await?;
        if !entered.is_positive() {
            return Err(self.not_entered(&folder, &entered));
        }
        self.is_elsewhere = true;
        let mut lines = match self.open_human_listing_here().await? {
            Ok(lines) => lines,
            Err(reply) => return Err(self.refused(&format!("list {folder}"), &reply)),
        };
        while let Some(line) = lines.next(self.dialer.read_timeout).await? {
            let Line::Entry(listed) = lines.read(&line) else { continue };
            for name in listing::names_told(&listed) {
                if name == path.name() {
                    note(&mut asked, name, &listed);
                } else if names.len() < NAMES_MAX {
                    note(&mut names, name, &listed);
                }
            }
        }
        if let Err(reply) = self.finish(lines.into_transfer()).await? {
            return Err(self.refused(&format!("list {folder}"), &reply));
        }
        let nature = asked.get(path.name()).copied();
        let is_whole = names.len() < NAMES_MAX;
        names.extend(asked);
        self.snapshot = is_whole.then(|| Snapshot { folder, taken: Instant::now(), names });
        Ok(nature)
    }
}

/// Takes note of what one line tells of a name. A name with the end of a line in it can forge a line, but not do away with
/// the one that tells the truth.
fn note(names: &mut HashMap<String, Nature>, name: String, listed: &Listed) {
    let nature = match listed.kind {
        EntryKind::Symlink => Nature::Link,
        EntryKind::Directory => Nature::Folder,
        EntryKind::File | EntryKind::Other => Nature::Plain,
    };
    match names.entry(name) {
        Slot::Occupied(mut slot) => drop(slot.insert(Nature::Unclear)),
        Slot::Vacant(slot) => drop(slot.insert(nature)),
    }
}

/// The path in the reply to `PWD`: in quotes, each quote in it doubled (RFC 959, appendix II).
fn quoted_path(reply: &str) -> Option<String> {
    let mut characters = reply.split_once('"')?.1.chars().peekable();
    let mut path = String::new();
    loop {
        match characters.next()? {
            '"' if characters.peek() == Some(&'"') => path.extend(characters.next()),
            '"' => return path.starts_with('/').then_some(path),
            character => path.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_a_reply_to_pwd_is_what_stands_in_its_quotes() {
        for (reply, path) in [
            (r#"257 "/" is the current directory"#, Some("/")),
            (r#"257 "/a ""b""" is your current location"#, Some(r#"/a "b""#)),
            (r#"257 "/in"#, None),
            (r#"257 "C:\in" is current"#, None),
            ("257 /in", None),
        ] {
            assert_eq!(quoted_path(reply).as_deref(), path, "{reply}");
        }
    }

    #[test]
    fn what_is_told_twice_is_unclear() {
        let mut names = HashMap::new();
        let now = std::time::SystemTime::now();
        for line in [
            "-rw-r--r--   1 0 0   4 Nov 22 00:01 plain",
            "lrwxrwxrwx   1 0 0   9 Nov 22 00:01 link -> ../secret",
            "-rw-r--r--   1 0 0   4 Nov 22 00:01 forged",
            "lrwxrwxrwx   1 0 0   9 Nov 22 00:01 forged -> ../secret",
        ] {
            let Line::Entry(listed) = listing::human_line(line, now) else { panic!("{line}") };
            listing::names_told(&listed).into_iter().for_each(|name| note(&mut names, name, &listed));
        }
        let told = |name: &str| names.get(name).copied();
        assert_eq!((told("plain"), told("link")), (Some(Nature::Plain), Some(Nature::Link)));
        assert_eq!((told("forged"), told("missing")), (Some(Nature::Unclear), None));
    }
}
