//! Paths on a remote: absolute, `/`-separated, UTF-8, and unable to leave the folder they are put under.
//!
//! The only constructors refuse what could escape a jail. Knows no protocol and no file system.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Longest path in bytes: PATH_MAX of Linux, more than any server here accepts.
pub const PATH_BYTES_MAX: usize = 4096;

/// An absolute path within a connection, such as `/inbox/report.csv`. The root is `/`.
///
/// Holds no `..`, no `.`, no empty component, no backslash (a separator for servers on Windows) and no control
/// character (CR and LF end a command in FTP).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RemotePath(String);

impl RemotePath {
    /// The root, `/`.
    pub fn root() -> Self {
        Self("/".to_owned())
    }

    /// Parses a path as a person or a guest writes it: a missing leading `/` is added, a trailing one dropped.
    ///
    /// # Errors
    /// `Invalid`, naming the offending part, for anything that [`RemotePath`] cannot hold, and for more than
    /// [`PATH_BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let invalid = |why: &str| Err(Error::new(ErrorKind::Invalid, format!("path {text:?} {why}")));
        if text.len() > PATH_BYTES_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a path of {} bytes is longer than {PATH_BYTES_MAX}", text.len()),
            ));
        }
        let trimmed = text.strip_prefix('/').unwrap_or(text);
        let trimmed = trimmed.strip_suffix('/').unwrap_or(trimmed);
        if trimmed.is_empty() {
            return Ok(Self::root());
        }
        for component in trimmed.split('/') {
            match component {
                "" => return invalid("has an empty component"),
                "." | ".." => return invalid("must not have '.' or '..' as a component"),
                _ if component.contains('\\') => return invalid("must not contain a backslash"),
                _ if component.chars().any(char::is_control) => {
                    return invalid("must not contain a control character");
                }
                _ => {}
            }
        }
        Ok(Self(format!("/{trimmed}")))
    }

    /// This path with one more component.
    ///
    /// # Errors
    /// `Invalid` when `name` is not a single valid component: what a hostile server lists is checked here.
    pub fn join(&self, name: &str) -> Result<Self, Error> {
        if name.is_empty() || name.contains('/') {
            return Err(Error::new(ErrorKind::Invalid, format!("{name:?} is not a file name")));
        }
        Self::parse(&if self.is_root() { format!("/{name}") } else { format!("{}/{name}", self.0) })
    }

    /// The text, beginning with `/`.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0 == "/"
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder that holds this path; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match self.0.rfind('/') {
            None | Some(0) => Some(Self::root()),
            Some(end) => Some(Self(self.0[..end].to_owned())),
        }
    }

    /// Whether this path is `folder` or lies below it.
    pub fn is_within(&self, folder: &Self) -> bool {
        folder.is_root()
            || self.0.strip_prefix(folder.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// This path as seen from outside a jail whose root is `folder`.
    #[must_use]
    pub fn below(&self, folder: &Self) -> Self {
        match (folder.is_root(), self.is_root()) {
            (true, _) => self.clone(),
            (false, true) => folder.clone(),
            (false, false) => Self(format!("{}{}", folder.0, self.0)),
        }
    }

    /// This path as seen from inside a jail whose root is `folder`; `None` when it is not within.
    pub fn relative_to(&self, folder: &Self) -> Option<Self> {
        if !self.is_within(folder) {
            return None;
        }
        if folder.is_root() {
            return Some(self.clone());
        }
        match &self.0[folder.0.len()..] {
            "" => Some(Self::root()),
            rest => Some(Self(rest.to_owned())),
        }
    }

    /// The components in order; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|component| !component.is_empty())
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}
