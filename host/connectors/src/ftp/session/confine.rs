//! That no symbolic link leads a path out of the folder that it shall stay in.
//!
//! Servers follow links by themselves and hardly tell. Where a folder truly is, `PWD` says once it was entered; whether a
//! file is a link, `STAT` or a listing of its folder. What is neither shown to be inside nor missing is refused. A server
//! whose `PWD` repeats what was sent, instead of saying where it led, cannot be kept in: none of those tested is one.

use std::iter;
use std::sync::Arc;
use std::time::SystemTime;

use super::Session;
use crate::error::{Error, ErrorKind};
use crate::ftp::listing::{self, Found, Line};
use crate::path::RemotePath;

/// Links that lead to links, after which it is a circle (the limit of Linux for a path is 40).
const LINKS_MAX: usize = 8;

impl Session {
    /// From now on no link leads out of these folders. The root is one of them.
    pub(in crate::ftp) fn stay_within(&mut self, borders: Arc<[RemotePath]>) {
        self.borders.stay_within(borders);
    }

    /// Makes sure that what is at a path lies inside, wherever links lead: before it is read or changed.
    ///
    /// # Errors
    /// `Denied` when it lies outside, or when that cannot be told. What is missing is inside: the operation itself will
    /// tell.
    pub(in crate::ftp) async fn confine(&mut self, path: &RemotePath) -> Result<(), Error> {
        if !self.borders.is_in_doubt(path) {
            return Ok(());
        }
        let confined = self.follow_inside(path).await;
        self.leave().await?;
        confined
    }

    /// The same for the folder that holds a path: before something there is looked at, made, renamed or deleted.
    ///
    /// # Errors
    /// As [`Session::confine`].
    pub(in crate::ftp) async fn confine_parent(&mut self, path: &RemotePath) -> Result<(), Error> {
        let folder = match path.parent() {
            // The root itself lies in a folder that is outside of it.
            Some(folder) if path != self.borders.root() => folder,
            _ => return Ok(()),
        };
        if !self.borders.is_in_doubt(&folder) {
            return Ok(());
        }
        let confined = self.enter_inside(&folder).await;
        self.leave().await?;
        confined
    }

    /// Whether something at a path leads out of the folder that it shall stay in.
    pub(super) async fn leads_out(&mut self, path: &RemotePath) -> Result<bool, Error> {
        match self.confine(path).await {
            Ok(()) => Ok(false),
            Err(error) if error.kind() == ErrorKind::Denied => Ok(true),
            Err(error) => Err(error),
        }
    }

    async fn enter_inside(&mut self, folder: &RemotePath) -> Result<(), Error> {
        if self.survey(folder).await?
            && let Some(real) = self.enter(folder.as_str()).await?
        {
            self.borders.check(folder, real.as_bytes())?;
        }
        Ok(())
    }

    async fn follow_inside(&mut self, path: &RemotePath) -> Result<(), Error> {
        if !self.survey(path).await? {
            return Ok(());
        }
        // Of a folder, and of a link to one, this is all.
        if let Some(real) = self.enter(path.as_str()).await? {
            return self.borders.check(path, real.as_bytes());
        }
        let (place, folder) = (path.as_str(), path.parent().unwrap_or_else(RemotePath::root));
        if self.borders.is_in_doubt(&folder) {
            self.enter_inside(&folder).await?;
        }
        if !self.borders.is_in_doubt(&folder) && self.find_by_status(place, path.name()).await? == Some(Found::NoLink) {
            self.borders.remember(path);
            return Ok(());
        }
        let mut at = place.to_owned();
        for _ in 0..=LINKS_MAX {
            let (folder, name) = at.rsplit_once('/').unwrap_or_default();
            let Some(folder) = self.enter(if folder.is_empty() { "/" } else { folder }).await? else { return Ok(()) };
            let folder = folder.trim_end_matches('/');
            let place = format!("{folder}/{name}");
            if self.borders.rest(path, place.as_bytes()).is_none() || matches!(name, "" | "." | "..") {
                break;
            }
            at = match self.find(path, &place, name).await? {
                None => return Ok(()),
                Some(Found::NoLink) => return self.borders.check(path, place.as_bytes()),
                Some(Found::Link(target)) if target.starts_with('/') => target,
                Some(Found::Link(target)) => format!("{folder}/{target}"),
            };
        }
        Err(self.borders.leads_out(path))
    }

    /// Finds out where the folder around a path truly is; whether it is there at all.
    async fn survey(&mut self, path: &RemotePath) -> Result<bool, Error> {
        if self.borders.is_surveyed(path) {
            return Ok(true);
        }
        let border = self.borders.around(path).clone();
        match self.enter(border.as_str()).await? {
            Some(real) => self.borders.survey(border, real.into()),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Where a folder truly is; `None` when there is no folder.
    async fn enter(&mut self, folder: &str) -> Result<Option<String>, Error> {
        let entered = self.command(&format!("CWD {folder}")).await?;
        if entered.speaks_of_permission() && !entered.is_positive() {
            return Err(self.refused(&format!("enter {folder}"), &entered));
        }
        if !entered.is_positive() {
            return Ok(None);
        }
        self.is_elsewhere = true;
        let told = self.command("PWD").await?;
        let lines = told.lines(self.encoding());
        match lines.first().and_then(|line| quoted_path(line)) {
            Some(real) if told.code == 257 => Ok(Some(real)),
            _ => {
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

    /// Goes back to where it is harmless to be: when the folder that it is in is deleted, Pure-FTPd ends the session.
    async fn leave(&mut self) -> Result<(), Error> {
        if std::mem::take(&mut self.is_elsewhere) && self.is_in_step() {
            self.command("CWD /").await?;
        }
        Ok(())
    }

    /// What is in the folder that was entered, under a name; `None` when nothing is.
    async fn find(&mut self, path: &RemotePath, place: &str, name: &str) -> Result<Option<Found>, Error> {
        if place.contains(char::is_control) {
            return Err(self.borders.leads_out(path));
        }
        if let Some(found) = self.find_by_status(place, name).await? {
            return Ok(Some(found));
        }
        if !self.may_be_there(place).await? {
            return Ok(None);
        }
        match self.find_in_listing_here(name).await? {
            Some(found) => Ok(Some(found)),
            None => {
                let message = format!("cannot use {path}: its FTP server does not tell whether it is a symbolic link");
                Err(Error::new(ErrorKind::Denied, message))
            }
        }
    }

    /// The same by what the server tells on the control connection, which not every server does.
    async fn find_by_status(&mut self, place: &str, name: &str) -> Result<Option<Found>, Error> {
        // To some servers these are patterns.
        if place.contains(['*', '?', '[', ']', '{', '}', '~', '\\']) {
            return Ok(None);
        }
        let mut found = None;
        // What is behind a space is another argument to Pure-FTPd. As a pattern it finds more, and the name, too.
        let pattern = place.contains(' ').then(|| place.replace(' ', "?"));
        for asked in iter::once(place).chain(pattern.as_deref()) {
            let status = self.command(&format!("STAT {asked}")).await?;
            for line in status.lines(self.encoding()) {
                if let Line::Entry(listed) = listing::human_line(line.trim_start(), SystemTime::now()) {
                    note(&mut found, listed.tells_of(name).or_else(|| listed.tells_of(place)));
                }
            }
            if found.is_some() {
                break;
            }
        }
        Ok(found)
    }

    /// Whether something can be at a path, which may be a link to a file.
    async fn may_be_there(&mut self, path: &str) -> Result<bool, Error> {
        let size = self.command(&format!("SIZE {path}")).await?;
        if !matches!(size.code, 550 | 551 | 553) {
            return Ok(true);
        }
        if !self.abilities().await?.machine_listings {
            return Ok(false);
        }
        let facts = self.command(&format!("MLST {path}")).await?;
        Ok(!matches!(facts.code, 501 | 550 | 551 | 553))
    }

    async fn find_in_listing_here(&mut self, name: &str) -> Result<Option<Found>, Error> {
        let Ok(mut lines) = self.open_human_listing_here().await? else { return Ok(None) };
        let mut found = None;
        while let Some(line) = lines.next(self.dialer.read_timeout).await? {
            if let Line::Entry(listed) = lines.read(&line) {
                note(&mut found, listed.tells_of(name));
            }
        }
        match self.finish(lines.into_transfer()).await? {
            Ok(_) => Ok(found),
            Err(reply) => Err(self.refused(&format!("list the folder of {name}"), &reply)),
        }
    }
}

/// Takes note of what one more line tells. Should several tell of a name, one that has it a link counts.
fn note(found: &mut Option<Found>, told: Option<Found>) {
    if !matches!(found, Some(Found::Link(_))) && told.is_some() {
        *found = told;
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
}
