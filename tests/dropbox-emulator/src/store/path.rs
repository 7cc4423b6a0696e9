//! Paths in a namespace: case-preserving to show, case-insensitive to find.
//!
//! Knows which names Dropbox refuses. Does not know what exists. Unicode normal forms are kept apart, as received.

use std::ops::Range;

/// Names Dropbox never stores, in lower case (Dropbox help, "files that don't sync").
const DISALLOWED_NAMES: [&str; 6] = ["desktop.ini", "thumbs.db", ".ds_store", "icon\r", ".dropbox", ".dropbox.attr"];

/// The longest name of one file or folder, in characters.
const MAX_NAME_CHARACTERS: usize = 255;

/// Why a path cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathError {
    Malformed,
    Disallowed,
}

/// A path relative to the root of the namespace: `""` is the root, everything else starts with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotePath(String);

impl RemotePath {
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Ok(Self::root());
        }
        let names = text.strip_prefix('/').ok_or(PathError::Malformed)?;
        for name in names.split('/') {
            check_name(name)?;
        }
        Ok(Self(text.to_owned()))
    }

    pub(crate) fn root() -> Self {
        Self(String::new())
    }

    /// The path as it is shown.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; empty for the root.
    pub(crate) fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or_default()
    }

    /// The folder it is in; the root's parent is the root.
    pub(crate) fn parent(&self) -> Self {
        Self(self.0.rsplit_once('/').map(|(parent, _)| parent.to_owned()).unwrap_or_default())
    }

    /// This path with `name`, which is already known to be a fit name, below it.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(format!("{}/{name}", self.0))
    }

    /// Every folder above it from the top down, without the root and itself.
    pub(crate) fn ancestors(&self) -> Vec<Self> {
        self.0
            .char_indices()
            .skip(1)
            .filter(|(_, character)| *character == '/')
            .map(|(at, _)| Self(self.0[..at].to_owned()))
            .collect()
    }

    pub(crate) fn key(&self) -> Key {
        Key(self.0.to_lowercase().replace('/', "\0"))
    }

    /// The same path with ` (label)` before the extension of its name.
    pub(crate) fn labelled(&self, label: &str) -> Self {
        let name = self.name();
        let (stem, extension) = match name.rfind('.') {
            Some(at) if at > 0 => name.split_at(at),
            _ => (name, ""),
        };
        self.parent().child(&format!("{stem} ({label}){extension}"))
    }
}

fn check_name(name: &str) -> Result<(), PathError> {
    let malformed = name.is_empty()
        || name == "."
        || name == ".."
        || name.ends_with(' ')
        || name.contains(['\\', '\0', '\u{7f}'])
        || name.chars().count() > MAX_NAME_CHARACTERS;
    if malformed {
        return Err(PathError::Malformed);
    }
    if DISALLOWED_NAMES.contains(&name.to_lowercase().as_str()) {
        return Err(PathError::Disallowed);
    }
    Ok(())
}

/// Where a path is filed: lower case, with NUL for the slash, so that everything below a folder is one contiguous
/// range directly after it (with `/` itself, `/a b` would sort between `/a` and `/a/x`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key(String);

impl Key {
    /// The path in lower case, as Dropbox shows it in `path_lower`.
    pub(crate) fn path_lower(&self) -> String {
        self.0.replace('\0', "/")
    }

    /// The range of everything below it, without itself.
    pub(crate) fn below(&self) -> Range<Self> {
        Self(format!("{}\0", self.0))..self.after_subtree()
    }

    /// The first key that can follow everything below it.
    pub(crate) fn after_subtree(&self) -> Self {
        Self(format!("{}\u{1}", self.0))
    }

    pub(crate) fn is_parent_of(&self, other: &Self) -> bool {
        self.rest_of(other).is_some_and(|rest| !rest.contains('\0'))
    }

    /// Whether `other` is this or below it.
    pub(crate) fn holds(&self, other: &Self) -> bool {
        self == other || self.rest_of(other).is_some()
    }

    fn rest_of<'other>(&self, other: &'other Self) -> Option<&'other str> {
        other.0.strip_prefix(&self.0)?.strip_prefix('\0')
    }

    /// For a cursor: the exact key as text, and back.
    pub(crate) fn as_text(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_text(text: &str) -> Self {
        Self(text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(path: &str) -> Key {
        RemotePath::parse(path).unwrap().key()
    }

    #[test]
    fn unfit_names_are_refused() {
        for path in ["a", "/", "//a", "/a/", "/a//b", "/a/../b", "/.", "/a ", "/a\\b", "/a\0b", "/a\u{7f}"] {
            assert_eq!(RemotePath::parse(path), Err(PathError::Malformed), "{path:?}");
        }
        assert_eq!(RemotePath::parse(&format!("/{}", "é".repeat(256))), Err(PathError::Malformed));
        assert!(RemotePath::parse(&format!("/{}", "é".repeat(255))).is_ok());
        for path in ["/Thumbs.db", "/a/.DS_Store/b", "/icon\r"] {
            assert_eq!(RemotePath::parse(path), Err(PathError::Disallowed), "{path:?}");
        }
    }

    #[test]
    fn a_subtree_is_one_contiguous_range() {
        let mut keys = ["/a b", "/a/x", "/a", "/A/x/y", "/a-b", "/a/Z"].map(key);
        keys.sort();
        assert_eq!(keys.each_ref().map(Key::path_lower), ["/a", "/a/x", "/a/x/y", "/a/z", "/a b", "/a-b"]);
        assert!(key("/a").below().contains(&key("/a/x/y")));
        assert!(!key("/a").below().contains(&key("/a b")));
        assert!(key("/a").is_parent_of(&key("/A/X")) && !key("/a").is_parent_of(&key("/a/x/y")));
        assert!(key("").is_parent_of(&key("/a")) && key("").holds(&key("/a/x")));
    }

    #[test]
    fn a_label_goes_before_the_extension() {
        let labelled = |path: &str| RemotePath::parse(path).unwrap().labelled("1").as_str().to_owned();
        assert_eq!(labelled("/d/a.tar.gz"), "/d/a.tar (1).gz");
        assert_eq!(labelled("/.profile"), "/.profile (1)");
        assert_eq!(labelled("/plain"), "/plain (1)");
    }

    #[test]
    fn ancestors_come_from_the_top_down() {
        let path = RemotePath::parse("/a/é/c").unwrap();
        assert_eq!(path.ancestors().iter().map(RemotePath::as_str).collect::<Vec<_>>(), ["/a", "/a/é"]);
        assert_eq!((path.name(), path.parent().as_str()), ("c", "/a/é"));
    }
}
