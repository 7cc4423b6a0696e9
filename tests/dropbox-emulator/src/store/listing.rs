//! Pages of entries and the cursors between them.
//!
//! A cursor first walks the folder in key order, then follows the journal from where it stood when the walk began: what
//! changes during a walk is told after it, so no change is ever lost. Cursors carry their whole state; the server keeps
//! none. Knows nothing of JSON arguments.

use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::content::lower_hex;
use super::metadata::Metadata;
use super::path::Key;
use super::{Locator, LookupError, Namespace, State, metadata_of};

/// What to list (files.stone: ListFolderArg).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Scope {
    pub(crate) recursive: bool,
    pub(crate) include_deleted: bool,
    /// The most entries of one page.
    pub(crate) limit: usize,
}

/// One page.
pub(crate) struct Page {
    pub(crate) entries: Vec<Metadata>,
    pub(crate) cursor: String,
    pub(crate) has_more: bool,
}

/// Why a cursor cannot be continued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ContinueError {
    /// Not one of our cursors.
    Invalid,
    /// The changes it asks for are no longer known: list from the start.
    Reset,
    Lookup(LookupError),
}

#[derive(Serialize, Deserialize)]
struct Cursor {
    instance: u64,
    /// The key of the listed folder.
    folder: String,
    scope: Scope,
    position: Position,
}

#[derive(Serialize, Deserialize)]
enum Position {
    /// In the walk: the next key to look at, and the change at which the walk began.
    Walk { next: String, began: u64 },
    /// Past the walk: every later change is still to be told.
    Changes { since: u64 },
}

impl Namespace {
    /// The first page of a folder.
    pub(crate) fn list(&self, folder: &Locator, scope: Scope) -> Result<Page, LookupError> {
        let folder = self.folder_key(folder)?;
        // A recursive listing names the listed folder itself first; the root has no entry to name.
        let first = if scope.recursive { folder.clone() } else { folder.below().start };
        Ok(self.walk(&folder, scope, &first, self.sequence))
    }

    /// A cursor for the changes from now on.
    pub(crate) fn latest_cursor(&self, folder: &Locator, scope: Scope) -> Result<String, LookupError> {
        let folder = self.folder_key(folder)?;
        Ok(self.cursor(&folder, scope, Position::Changes { since: self.sequence }))
    }

    /// The page after the one that gave `cursor`.
    pub(crate) fn continue_listing(&self, cursor: &str) -> Result<Page, ContinueError> {
        let cursor = Cursor::parse(cursor).ok_or(ContinueError::Invalid)?;
        if cursor.instance != self.instance {
            return Err(ContinueError::Reset);
        }
        let folder = Key::from_text(&cursor.folder);
        if !folder.as_text().is_empty()
            && !self.live(&folder).is_some_and(|node| matches!(node.state, State::Folder { .. }))
        {
            return Err(ContinueError::Lookup(LookupError::NotFound));
        }
        match cursor.position {
            Position::Walk { next, began } => Ok(self.walk(&folder, cursor.scope, &Key::from_text(&next), began)),
            Position::Changes { since } if since < self.forgotten => Err(ContinueError::Reset),
            Position::Changes { since } => Ok(self.changes(&folder, cursor.scope, since)),
        }
    }

    fn folder_key(&self, folder: &Locator) -> Result<Key, LookupError> {
        let key = self.locate(folder)?;
        if key.as_text().is_empty() {
            return Ok(key);
        }
        match &self.live(&key).ok_or(LookupError::NotFound)?.state {
            State::Folder { .. } => Ok(key),
            _ => Err(LookupError::NotFolder),
        }
    }

    fn walk(&self, folder: &Key, scope: Scope, first: &Key, began: u64) -> Page {
        let mut entries = Vec::new();
        let mut next = first.clone();
        let end = folder.after_subtree();
        // A range that starts past its end is a panic, and `next` may come from a cursor somebody tampered with.
        while next < end
            && let Some((key, node)) = self.nodes.range((Bound::Included(&next), Bound::Excluded(&end))).next()
        {
            if entries.len() == scope.limit {
                let position = Position::Walk { next: key.as_text().to_owned(), began };
                return Page { entries, cursor: self.cursor(folder, scope, position), has_more: true };
            }
            if !node.is_deleted() || scope.include_deleted {
                entries.push(metadata_of(node));
            }
            next = if scope.recursive { key.below().start } else { key.after_subtree() };
        }
        let cursor = self.cursor(folder, scope, Position::Changes { since: began });
        Page { entries, cursor, has_more: false }
    }

    fn changes(&self, folder: &Key, scope: Scope, since: u64) -> Page {
        let mut entries = Vec::new();
        for (number, key) in self.journal.range((Bound::Excluded(since), Bound::Unbounded)) {
            let listed = if scope.recursive { folder.holds(key) } else { folder.is_parent_of(key) };
            if !listed {
                continue;
            }
            if entries.len() == scope.limit {
                let position = Position::Changes { since: number - 1 };
                return Page { entries, cursor: self.cursor(folder, scope, position), has_more: true };
            }
            entries.extend(self.nodes.get(key).map(metadata_of));
        }
        let cursor = self.cursor(folder, scope, Position::Changes { since: self.sequence });
        Page { entries, cursor, has_more: false }
    }

    fn cursor(&self, folder: &Key, scope: Scope, position: Position) -> String {
        Cursor { instance: self.instance, folder: folder.as_text().to_owned(), scope, position }.to_text()
    }
}

impl Cursor {
    /// Hexadecimal, so that nobody is tempted to read or build one.
    fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        lower_hex(&json)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> =
            text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
        let digits = digits?;
        if digits.len() % 2 != 0 {
            return None;
        }
        let json: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
        serde_json::from_slice(&json).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::content::{ContentWriter, Quota};
    use super::super::path::RemotePath;
    use super::super::{Commit, MAX_TOMBSTONES, Relocation, WriteMode};
    use super::*;

    fn at(path: &str) -> Locator {
        Locator::Path(RemotePath::parse(path).unwrap())
    }

    fn write(namespace: &mut Namespace, path: &str, content: &[u8]) {
        let mut writer = ContentWriter::new(&Quota::new(u64::MAX));
        writer.push(content).unwrap();
        let commit =
            Commit { mode: WriteMode::Overwrite, autorename: false, strict_conflict: false, client_modified: None };
        // Some random targets are taken by folders or lie below files: such a write changes nothing.
        let _ = namespace.write(&at(path), &commit, writer.finish());
    }

    /// A local copy kept by the rules that files.stone gives for `list_folder`.
    #[derive(Default)]
    struct Mirror {
        entries: BTreeSet<(String, String)>,
    }

    impl Mirror {
        fn remove_subtree(&mut self, path: &str) {
            let below = format!("{path}/");
            self.entries.retain(|(other, _)| other != path && !other.starts_with(&below));
        }

        fn apply(&mut self, entry: &Metadata) {
            match entry {
                Metadata::File { entry, file } => {
                    self.remove_subtree(&entry.path_lower);
                    self.entries.insert((entry.path_lower.clone(), file.rev.clone()));
                }
                Metadata::Folder { entry, .. } => {
                    self.entries.retain(|(path, _)| *path != entry.path_lower);
                    self.entries.insert((entry.path_lower.clone(), "folder".into()));
                }
                Metadata::Deleted { entry } => self.remove_subtree(&entry.path_lower),
            }
        }
    }

    #[test]
    fn a_mirror_that_follows_cursors_becomes_equal_whatever_happens_meanwhile() {
        let scope = |limit| Scope { recursive: true, include_deleted: false, limit };
        for seed in 1..1000_u64 {
            let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
            let mut random = move |below: u64| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state % below
            };
            let mut namespace = Namespace::new();
            let mut mirror = Mirror::default();
            let mut cursor: Option<String> = None;
            // Short, so that what a cursor misses is not made good by a later change of the same path.
            for step in 0..60_u64 {
                let mut path =
                    || (0..=random(3)).map(|_| ["/a", "/B", "/a b", "/É"][random(4) as usize]).collect::<String>();
                let (one, other) = (path(), path());
                let choice = match step {
                    0..20 => 0,
                    20 => 5,
                    _ => random(6),
                };
                match choice {
                    0 | 1 => write(&mut namespace, &one, &step.to_be_bytes()),
                    2 => drop(namespace.create_folder(&at(&one), false)),
                    3 => drop(namespace.delete(&at(&one), None)),
                    4 => drop(namespace.relocate(Relocation::Move, &at(&one), &at(&other), false)),
                    _ => {
                        let page = match &cursor {
                            None => namespace.list(&Locator::Path(RemotePath::root()), scope(3)).unwrap(),
                            Some(cursor) => namespace.continue_listing(cursor).unwrap(),
                        };
                        page.entries.iter().for_each(|entry| mirror.apply(entry));
                        cursor = Some(page.cursor);
                    }
                }
            }
            let mut cursor = cursor.unwrap();
            // The end of a walk has no more and may be empty; the changes made during the walk come after it.
            let mut quiet = 0;
            while quiet < 2 {
                let page = namespace.continue_listing(&cursor).unwrap();
                page.entries.iter().for_each(|entry| mirror.apply(entry));
                quiet = if page.entries.is_empty() && !page.has_more { quiet + 1 } else { 0 };
                cursor = page.cursor;
            }
            let mut truth = Mirror::default();
            let all = namespace.list(&Locator::Path(RemotePath::root()), scope(usize::MAX)).unwrap();
            all.entries.iter().for_each(|entry| truth.apply(entry));
            assert_eq!(mirror.entries, truth.entries, "seed {seed}");
        }
    }

    #[test]
    fn a_cursor_from_before_what_was_forgotten_is_reset() {
        let scope = || Scope { recursive: false, include_deleted: false, limit: 10 };
        let mut namespace = Namespace::new();
        write(&mut namespace, "/kept", b"");
        let old = namespace.latest_cursor(&at(""), scope()).unwrap();
        for number in 0..=MAX_TOMBSTONES {
            let path = format!("/{number}");
            write(&mut namespace, &path, b"");
            namespace.delete(&at(&path), None).unwrap();
        }
        assert_eq!(namespace.continue_listing(&old).err(), Some(ContinueError::Reset));
        assert!(namespace.tombstones <= MAX_TOMBSTONES);
        let new = namespace.latest_cursor(&at(""), scope()).unwrap();
        namespace.delete(&at("/kept"), None).unwrap();
        assert_eq!(namespace.continue_listing(&new).unwrap().entries.len(), 1);
    }

    #[test]
    fn a_cursor_that_was_tampered_with_does_no_harm() {
        let namespace = Namespace::new();
        let position = Position::Walk { next: "\u{10ffff}".into(), began: u64::MAX };
        let scope = Scope { recursive: true, include_deleted: true, limit: 0 };
        let cursor = namespace.cursor(&Key::from_text(""), scope, position);
        assert!(namespace.continue_listing(&cursor).unwrap().entries.is_empty());
        let scope = Scope { recursive: false, include_deleted: true, limit: 0 };
        let cursor = namespace.cursor(&Key::from_text(""), scope, Position::Changes { since: u64::MAX });
        assert!(namespace.continue_listing(&cursor).unwrap().entries.is_empty());
    }
}
