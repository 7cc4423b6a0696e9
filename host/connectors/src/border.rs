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
const INSIDE_FOR: Duration = Duration::from_secs(2);

/// Paths that are remembered to be inside.
const INSIDE_MAX: usize = 1000;

/// The folders that paths stay in, whatever links there are.
pub(crate) struct Borders {
    root: RemotePath,
    /// The root among them.
    folders: Arc<[RemotePath]>,
    /// Where these folders truly are; asked for once.
    real: HashMap<RemotePath, Bytes>,
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

    /// Whether it is known where the folder around a path truly is.
    pub(crate) fn is_surveyed(&self, path: &RemotePath) -> bool {
        self.real.contains_key(self.around(path))
    }

    /// Where one of the folders truly is.
    pub(crate) fn survey(&mut self, folder: RemotePath, real: Bytes) {
        self.real.insert(folder, real);
    }

    /// What a true path has behind that of the folder around `path`; `None` when it is not in there.
    pub(crate) fn rest<'a>(&self, path: &RemotePath, real: &'a [u8]) -> Option<&'a [u8]> {
        let folder = self.real.get(self.around(path)).map(Bytes::as_ref).unwrap_or_default();
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
        let folder = match self.around(path) {
            folder if *folder == self.root => "the root of the connection".to_owned(),
            folder => folder.to_string(),
        };
        let message = format!("a symbolic link on the way to {path} leads out of {folder}");
        Error::new(ErrorKind::Denied, message)
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
        borders.survey(path("/team"), Bytes::from_static(b"/srv/team"));
        borders.survey(path("/team/in"), Bytes::from_static(b"/srv/in"));
        for (asked, real, is_inside) in [
            ("/team/a", "/srv/team/b", true),
            ("/team/a", "/srv/team", true),
            ("/team/a", "/srv/teammates/b", false),
            ("/team/a", "/srv/team/../secret", false),
            ("/team/a", "/srv/in/a", false),
            ("/team/in/a", "/srv/in/a", true),
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
        borders.survey(path("/in"), Bytes::from_static(b"/"));
        assert!(borders.check(&path("/in/a"), b"/anything").is_ok(), "the folder is everything by another name");
    }
}
