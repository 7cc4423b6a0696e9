//! The folders that no symbolic link leads out of, as one session with a server knows them: where they truly are, and what
//! was found to lie in them.
//!
//! Knows no protocol: where a path leads is asked by whoever speaks with the server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// How long what was found to be inside is believed to be there. Somebody else can exchange it for a link at any moment,
/// also right after it was looked at.
pub(crate) const INSIDE_FOR: Duration = Duration::from_secs(2);

/// How long a folder that paths stay in is believed to be where it was: it may be a link itself, which its operator may
/// lead elsewhere.
const SURVEYED_FOR: Duration = Duration::from_secs(60);

/// Paths that are remembered to be inside.
const INSIDE_MAX: usize = 1000;

/// The folders that paths stay in, whatever links there are.
pub(crate) struct Borders {
    root: RemotePath,
    /// The root among them.
    folders: Arc<[RemotePath]>,
    /// Where these folders truly are, and since when that is known.
    real: HashMap<RemotePath, (Bytes, Instant)>,
    inside: HashMap<RemotePath, Instant>,
}

impl Borders {
    pub(crate) fn new(root: RemotePath) -> Self {
        Self { folders: Arc::new([root.clone()]), root, real: HashMap::new(), inside: HashMap::new() }
    }

    /// From now on these are the folders. The root is one of them.
    pub(crate) fn stay_within(&mut self, folders: Arc<[RemotePath]>) {
        if self.folders != folders {
            self.inside.clear();
            self.folders = folders;
        }
    }

    /// The root of the connection.
    pub(crate) fn root(&self) -> &RemotePath {
        &self.root
    }

    /// The innermost folder around a path.
    pub(crate) fn around(&self, path: &RemotePath) -> &RemotePath {
        path.innermost(&self.folders).unwrap_or(&self.root)
    }

    /// Whether it has to be asked where a path leads: not where nothing is outside, nor so soon after the last time.
    pub(crate) fn is_in_doubt(&self, path: &RemotePath) -> bool {
        let is_known = || self.inside.get(path).is_some_and(|since| since.elapsed() < INSIDE_FOR);
        !self.around(path).is_root() && !is_known()
    }

    /// The next folder of which it has to be found out where it truly is, before that can be said of a path in it: the
    /// outer ones first.
    pub(crate) fn unsurveyed(&self, path: &RemotePath) -> Option<RemotePath> {
        let is_known = |folder: &RemotePath| self.real.get(folder).is_some_and(|(_, at)| at.elapsed() < SURVEYED_FOR);
        let around = self.around(path);
        let unknown =
            self.folders.iter().filter(|folder| around.is_within(folder) && !folder.is_root() && !is_known(folder));
        unknown.min_by_key(|folder| folder.as_str().len()).cloned()
    }

    /// Where one of the folders truly is.
    ///
    /// # Errors
    /// `Denied` when that is outside of another one around it.
    pub(crate) fn survey(&mut self, folder: &RemotePath, real: Bytes) -> Result<(), Error> {
        if let Some(outer) = folder.parent().map(|parent| self.around(&parent).clone())
            && folder.is_within(&outer)
            && !outer.is_root()
            && outer != *folder
            && self.rest_in(&outer, &real).is_none()
        {
            return Err(self.leads_out_of(&outer, folder));
        }
        self.real.insert(folder.clone(), (real, Instant::now()));
        Ok(())
    }

    /// What a true path has behind that of the folder around `path`; `None` when it is not in there.
    pub(crate) fn rest<'a>(&self, path: &RemotePath, real: &'a [u8]) -> Option<&'a [u8]> {
        self.rest_in(self.around(path), real)
    }

    fn rest_in<'a>(&self, folder: &RemotePath, real: &'a [u8]) -> Option<&'a [u8]> {
        let folder = self.real.get(folder).map(|(real, _)| real.as_ref()).unwrap_or_default();
        let rest = real.strip_prefix(folder.strip_suffix(b"/").unwrap_or(folder))?;
        let has_parent_steps = real.split(|&byte| byte == b'/').any(|step| step == b"..");
        ((rest.is_empty() || rest.starts_with(b"/")) && !has_parent_steps).then_some(rest)
    }

    /// Refuses a path that leads to a place outside; remembers that it does not.
    ///
    /// # Errors
    /// `Denied`.
    pub(crate) fn check(&mut self, path: &RemotePath, real: &[u8]) -> Result<(), Error> {
        if self.rest(path, real).is_none() {
            return Err(self.leads_out(path));
        }
        self.remember(path);
        Ok(())
    }

    /// Remembers that a path was found to be inside.
    pub(crate) fn remember(&mut self, path: &RemotePath) {
        if self.inside.len() >= INSIDE_MAX {
            self.inside.clear();
        }
        self.inside.insert(path.clone(), Instant::now());
    }

    /// What was known of the way to an entry may hold no longer.
    pub(crate) fn forget(&mut self, path: &RemotePath) {
        self.inside.retain(|known, _| !known.is_within(path));
    }

    pub(crate) fn leads_out(&self, path: &RemotePath) -> Error {
        self.leads_out_of(self.around(path), path)
    }

    /// For a link of which nobody says where it leads.
    pub(crate) fn may_lead_out(&self, path: &RemotePath) -> Error {
        let folder = self.named(self.around(path));
        let message =
            format!("{path} is a symbolic link to a file, which is not followed: it could lead out of {folder}");
        Error::new(ErrorKind::Denied, message)
    }

    fn leads_out_of(&self, folder: &RemotePath, path: &RemotePath) -> Error {
        let folder = self.named(folder);
        let message = format!("a symbolic link on the way to {path} leads out of {folder}");
        Error::new(ErrorKind::Denied, message)
    }

    fn named(&self, folder: &RemotePath) -> String {
        if folder == self.root() { "the root of the connection".to_owned() } else { folder.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> RemotePath {
        RemotePath::parse(text).unwrap()
    }

    #[test]
    fn a_path_is_inside_of_the_innermost_folder_around_it_and_of_nothing_that_is_named_alike() {
        let mut borders = Borders::new(path("/team"));
        borders.stay_within(Arc::new([path("/team"), path("/team/in")]));
        assert_eq!(borders.unsurveyed(&path("/team/in/a")), Some(path("/team")), "the outer one comes first");
        borders.survey(&path("/team"), Bytes::from_static(b"/srv/team")).unwrap();
        assert_eq!(borders.unsurveyed(&path("/team/a")), None);
        assert_eq!(borders.unsurveyed(&path("/team/in/a")), Some(path("/team/in")));
        borders.survey(&path("/team/in"), Bytes::from_static(b"/srv/elsewhere")).unwrap_err();
        borders.survey(&path("/team/in"), Bytes::from_static(b"/srv/team/real")).unwrap();
        for (asked, real, is_inside) in [
            ("/team/a", "/srv/team/b", true),
            ("/team/a", "/srv/team", true),
            ("/team/a", "/srv/teammates/b", false),
            ("/team/a", "/srv/team/../secret", false),
            ("/team/in/a", "/srv/team/real/a", true),
            ("/team/in/a", "/srv/team/a", false),
        ] {
            assert_eq!(borders.check(&path(asked), real.as_bytes()).is_ok(), is_inside, "{asked} leads to {real}");
        }
        assert!(!borders.is_in_doubt(&path("/team/in/a")));
        borders.forget(&path("/team/in"));
        assert!(borders.is_in_doubt(&path("/team/in/a")));
    }

    #[test]
    fn nothing_is_in_doubt_where_nothing_is_outside() {
        let mut borders = Borders::new(RemotePath::root());
        assert!(!borders.is_in_doubt(&path("/a")));
        borders.stay_within(Arc::new([RemotePath::root(), path("/in")]));
        assert!(borders.is_in_doubt(&path("/in/a")) && !borders.is_in_doubt(&path("/a")));
        borders.survey(&path("/in"), Bytes::from_static(b"/")).unwrap();
        assert!(borders.check(&path("/in/a"), b"/anything").is_ok(), "the folder is everything by another name");
    }
}
