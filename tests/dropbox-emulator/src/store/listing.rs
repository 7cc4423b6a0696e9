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
        let first = if scope.recursive {
            folder.clone()
        } else {
            folder.below().start
        };
        Ok(self.walk(&folder, scope, &first, self.sequence))
    }

    /// A cursor for the changes from now on.
    pub(crate) fn latest_cursor(
        &self,
        folder: &Locator,
        scope: Scope,
    ) -> Result<String, LookupError> {
        let folder = self.folder_key(folder)?;
        Ok(self.cursor(
            &folder,
            scope,
            Position::Changes {
                since: self.sequence,
            },
        ))
    }

    /// The page after the one that gave `cursor`.
    pub(crate) fn continue_listing(&self, cursor: &str) -> Result<Page, ContinueError> {
        let cursor = Cursor::parse(cursor).ok_or(ContinueError::Invalid)?;
        if cursor.instance != self.instance {
            return Err(ContinueError::Reset);
        }
        let folder = Key::from_text(&cursor.folder);
        if !folder.as_text().is_empty()
            && !self
                .live(&folder)
                .is_some_and(|node| matches!(node.state, State::Folder { .. }))
        {
            return Err(ContinueError::Lookup(LookupError::NotFound));
        }
        match cursor.position {
            Position::Walk { next, began } => {
                Ok(self.walk(&folder, cursor.scope, &Key::from_text(&next), began))
            }
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
            && let Some((key, node)) = self
                .nodes
                .range((Bound::Included(&next), Bound::Excluded(&end)))
                .next()
        {
            if entries.len() == scope.limit {
                let position = Position::Walk {
                    next: key.as_text().to_owned(),
                    began,
                };
                return Page {
                    entries,
                    cursor: self.cursor(folder, scope, position),
                    has_more: true,
                };
            }
            if !node.is_deleted() || scope.include_deleted {
                entries.push(metadata_of(node));
            }
            next = if scope.recursive {
                key.below().start
            } else {
                key.after_subtree()
            };
        }
        let cursor = self.cursor(folder, scope, Position::Changes { since: began });
        Page {
            entries,
            cursor,
            has_more: false,
        }
    }

    fn changes(&self, folder: &Key, scope: Scope, since: u64) -> Page {
        let mut entries = Vec::new();
        for (number, key) in self
            .journal
            .range((Bound::Excluded(since), Bound::Unbounded))
        {
            let listed = if scope.recursive {
                folder.holds(key)
            } else {
                folder.is_parent_of(key)
            };
            if !listed {
                continue;
            }
            if entries.len() == scope.limit {
                let position = Position::Changes { since: number - 1 };
                return Page {
                    entries,
                    cursor: self.cursor(folder, scope, position),
                    has_more: true,
                };
            }
            entries.extend(self.nodes.get(key).map(metadata_of));
        }
        let cursor = self.cursor(
            folder,
            scope,
            Position::Changes {
                since: self.sequence,
            },
        );
        Page {
            entries,
            cursor,
            has_more: false,
        }
    }

    fn cursor(&self, folder: &Key, scope: Scope, position: Position) -> String {
        Cursor {
            instance: self.instance,
            folder: folder.as_text().to_owned(),
            scope,
            position,
        }
        .to_text()
    }
}

impl Cursor {
    /// Hexadecimal, so that nobody is tempted to read or build one.
    fn to_text(&self) -> String {
        let json = serde_json::to_vec(self).unwrap_or_default();
        lower_hex(&json)
    }

    fn parse(text: &str) -> Option<Self> {
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| {
                digit
                    .to_digit(16)
                    .and_then(|digit| u8::try_from(digit).ok())
            })
            .collect();
        let digits = digits?;
        if digits.len() % 2 != 0 {
            return None;
        }
        let json: Vec<u8> = digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        serde_json::from_slice(&json).ok()
    }
}
