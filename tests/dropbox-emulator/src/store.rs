//! The state of one account: a namespace of files and folders, and the journal of its changes.
//!
//! Knows Dropbox's rules of conflict, implicit parents, identity and revision. Knows nothing of HTTP, JSON arguments
//! or tokens. Deleted entries stay as tombstones so that cursors can report them; `listing` reads the journal.

pub(crate) mod content;
pub(crate) mod jobs;
pub(crate) mod listing;
pub(crate) mod metadata;
pub(crate) mod path;
pub(crate) mod sessions;
pub(crate) mod zip;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use content::{Content, lower_hex};
use metadata::{Entry, FileState, Metadata};
use path::{Key, PathError, RemotePath};

/// Files, folders and tombstones together. An entry takes well under 1 KiB beside its content, so this keeps the
/// bookkeeping below 1 GiB whatever is uploaded.
const MAX_ENTRIES: usize = 1_000_000;

/// Tombstones kept for cursors. Past this the older half is forgotten and cursors from before answer `reset`.
const MAX_TOMBSTONES: usize = 100_000;

/// The most entries one move or copy may involve (files.stone, RelocationError.too_many_files).
const MAX_RELOCATED_ENTRIES: usize = 10_000;

/// Earlier revisions of one file that are kept.
const MAX_REVISIONS: usize = 20;

/// Larger files keep no earlier revisions: those do not count against the quota.
const MAX_REVISION_BYTES: u64 = 64 * 1024;

/// Names tried when `autorename` looks for a free one.
const MAX_RENAME_ATTEMPTS: u32 = 1000;

/// How a request names a file or folder (files.stone, ReadPath).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Locator {
    Path(RemotePath),
    /// `id:…`, possibly followed by a path below that folder.
    Id {
        id: String,
        below: String,
    },
    /// `rev:…`: one revision of a file.
    Revision(String),
    /// A namespace this account does not have.
    UnknownNamespace,
}

/// files.stone: LookupError.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LookupError {
    MalformedPath,
    NotFound,
    NotFile,
    NotFolder,
}

/// files.stone: WriteError.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WriteError {
    MalformedPath,
    DisallowedName,
    ConflictFile,
    ConflictFolder,
    ConflictFileAncestor,
    InsufficientSpace,
    TooManyWriteOperations,
}

/// files.stone: DeleteError.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeleteError {
    Lookup(LookupError),
    Write(WriteError),
}

/// files.stone: RelocationError.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelocationError {
    FromLookup(LookupError),
    To(WriteError),
    CantMoveFolderIntoItself,
    TooManyFiles,
}

impl From<PathError> for WriteError {
    fn from(error: PathError) -> Self {
        match error {
            PathError::Malformed => Self::MalformedPath,
            PathError::Disallowed => Self::DisallowedName,
        }
    }
}

impl From<PathError> for LookupError {
    /// A name that cannot be stored cannot be found either, but only a malformed one is a mistake of form.
    fn from(error: PathError) -> Self {
        match error {
            PathError::Malformed => Self::MalformedPath,
            PathError::Disallowed => Self::NotFound,
        }
    }
}

/// files.stone: WriteMode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum WriteMode {
    Add,
    Overwrite,
    Update(String),
}

/// What to do with uploaded content (files.stone: CommitInfo).
pub(crate) struct Commit {
    pub(crate) mode: WriteMode,
    pub(crate) autorename: bool,
    pub(crate) strict_conflict: bool,
    pub(crate) client_modified: Option<Timestamp>,
}

/// Whether a relocation leaves the original.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Relocation {
    Move,
    Copy,
}

struct Node {
    path: RemotePath,
    state: State,
    /// The journal entry of the last change to this key.
    changed: u64,
}

enum State {
    File(FileState),
    Folder { id: String },
    Deleted,
}

/// All entries of one account.
pub(crate) struct Namespace {
    nodes: BTreeMap<Key, Node>,
    /// The last change of each key, oldest first.
    journal: BTreeMap<u64, Key>,
    /// The number of the newest change.
    sequence: u64,
    /// Changes up to and including this one may have been forgotten.
    forgotten: u64,
    tombstones: usize,
    ids: HashMap<String, Key>,
    revisions: HashMap<String, Key>,
    /// Revisions of what is or was at a key, oldest first, the current one among them.
    history: HashMap<Key, Vec<FileState>>,
    /// Tells cursors of this emulator run from those of another.
    instance: u64,
}

impl Namespace {
    pub(crate) fn new() -> Self {
        Self {
            nodes: BTreeMap::new(),
            journal: BTreeMap::new(),
            sequence: 0,
            forgotten: 0,
            tombstones: 0,
            ids: HashMap::new(),
            revisions: HashMap::new(),
            history: HashMap::new(),
            instance: rand::random(),
        }
    }

    /// The file or folder a request names.
    pub(crate) fn find(&self, locator: &Locator) -> Result<Metadata, LookupError> {
        let key = self.locate(locator)?;
        self.live(&key).map(metadata_of).ok_or(LookupError::NotFound)
    }

    /// The same, but a deleted entry is an answer too.
    pub(crate) fn find_with_deleted(&self, locator: &Locator) -> Result<Metadata, LookupError> {
        let key = self.locate(locator)?;
        self.nodes.get(&key).map(metadata_of).ok_or(LookupError::NotFound)
    }

    /// The file a request names.
    pub(crate) fn find_file(&self, locator: &Locator) -> Result<(Metadata, FileState), LookupError> {
        if let Locator::Revision(rev) = locator
            && !self.revisions.contains_key(rev)
        {
            let earlier = |(key, revisions): (&Key, &Vec<FileState>)| {
                let file = revisions.iter().find(|file| file.rev == *rev)?.clone();
                let entry = metadata_of(self.nodes.get(key)?).entry().clone();
                Some((Metadata::File { entry, file: file.clone() }, file))
            };
            return self.history.iter().find_map(earlier).ok_or(LookupError::NotFound);
        }
        match self.find(locator)? {
            Metadata::File { entry, file } => Ok((Metadata::File { entry, file: file.clone() }, file)),
            _ => Err(LookupError::NotFile),
        }
    }

    /// The revisions of the file that is or was at a path, newest first, and whether it is deleted.
    pub(crate) fn revisions(&self, locator: &Locator) -> Result<(Vec<Metadata>, bool), LookupError> {
        let key = self.locate(locator)?;
        let node = self.nodes.get(&key).ok_or(LookupError::NotFound)?;
        let entry = metadata_of(node).entry().clone();
        let current = match &node.state {
            State::File(file) => Some(file.clone()),
            State::Folder { .. } => return Err(LookupError::NotFile),
            State::Deleted => None,
        };
        let mut files = self.history.get(&key).cloned().unwrap_or_default();
        files.retain(|file| current.as_ref().is_none_or(|current| current.rev != file.rev));
        files.extend(current);
        let revisions = files.into_iter().rev().map(|file| Metadata::File { entry: entry.clone(), file }).collect();
        Ok((revisions, node.is_deleted()))
    }

    /// Everything that is or was there, in path order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Metadata> {
        self.nodes.values().map(metadata_of)
    }

    /// Every file, in path order.
    pub(crate) fn files(&self) -> impl Iterator<Item = (&RemotePath, &FileState)> {
        self.nodes.values().filter_map(|node| match &node.state {
            State::File(file) => Some((&node.path, file)),
            _ => None,
        })
    }

    /// Commits uploaded content, by the conflict rules of `WriteMode`.
    pub(crate) fn write(
        &mut self,
        target: &Locator,
        commit: &Commit,
        content: Arc<Content>,
    ) -> Result<Metadata, WriteError> {
        let mut path = self.write_path(target)?;
        let mut replaced_id = None;
        if let Some(node) = self.live(&path.key()) {
            let conflict = match (&node.state, &commit.mode) {
                (State::File(file), mode) => {
                    let conflict = match mode {
                        WriteMode::Add => true,
                        WriteMode::Overwrite => false,
                        WriteMode::Update(rev) => *rev != file.rev,
                    };
                    if file.content.hash() == content.hash() && !(conflict && commit.strict_conflict) {
                        // Identical content is no new revision, not even for another client_modified.
                        return Ok(metadata_of(node));
                    }
                    if !conflict {
                        replaced_id = Some(file.id.clone());
                    }
                    conflict.then_some(WriteError::ConflictFile)
                }
                _ => Some(WriteError::ConflictFolder),
            };
            match conflict {
                Some(_) if commit.autorename => path = self.free_name(&path, rename_label(&commit.mode))?,
                Some(conflict) => return Err(conflict),
                None => {}
            }
        } else if matches!(commit.mode, WriteMode::Update(_)) && commit.strict_conflict {
            return Err(WriteError::ConflictFile);
        }
        self.make_parents(&path)?;
        let server_modified = now();
        let file = FileState {
            id: replaced_id.unwrap_or_else(new_id),
            rev: new_rev(),
            client_modified: commit.client_modified.unwrap_or(server_modified),
            server_modified,
            content,
        };
        Ok(self.put(path, State::File(file)))
    }

    /// Creates a folder and the folders above it.
    pub(crate) fn create_folder(&mut self, target: &Locator, autorename: bool) -> Result<Metadata, WriteError> {
        let mut path = self.write_path(target)?;
        match self.live(&path.key()).map(|node| &node.state) {
            None => {}
            Some(_) if autorename => path = self.free_name(&path, numbered_label)?,
            Some(State::File(_)) => return Err(WriteError::ConflictFile),
            Some(_) => return Err(WriteError::ConflictFolder),
        }
        self.make_parents(&path)?;
        Ok(self.put(path, State::Folder { id: new_id() }))
    }

    /// Deletes a file, or a folder with everything in it. With `parent_rev` only that revision of a file.
    pub(crate) fn delete(&mut self, target: &Locator, parent_rev: Option<&str>) -> Result<Metadata, DeleteError> {
        let key = self.locate(target).map_err(DeleteError::Lookup)?;
        let node = self.live(&key).ok_or(DeleteError::Lookup(LookupError::NotFound))?;
        if let Some(rev) = parent_rev {
            match &node.state {
                State::File(file) if file.rev == rev => {}
                State::File(_) => return Err(DeleteError::Write(WriteError::ConflictFile)),
                _ => return Err(DeleteError::Lookup(LookupError::NotFile)),
            }
        }
        let deleted = metadata_of(node);
        for path in self.subtree(&key) {
            self.put(path, State::Deleted);
        }
        self.forget_old_tombstones();
        Ok(deleted)
    }

    /// Moves or copies a file, or a folder with everything in it.
    pub(crate) fn relocate(
        &mut self,
        kind: Relocation,
        from: &Locator,
        to: &Locator,
        autorename: bool,
    ) -> Result<Metadata, RelocationError> {
        let from_key = self.locate(from).map_err(RelocationError::FromLookup)?;
        let original = self.live(&from_key).ok_or(RelocationError::FromLookup(LookupError::NotFound))?;
        let from_path = original.path.clone();
        let from_folder = matches!(original.state, State::Folder { .. });
        let mut to_path = self.write_path(to).map_err(RelocationError::To)?;
        if from_folder && from_key != to_path.key() && from_key.holds(&to_path.key()) {
            return Err(RelocationError::CantMoveFolderIntoItself);
        }
        // A target that differs in case only is the same entry, and so a conflict: Dropbox has no case-only rename.
        match self.live(&to_path.key()).map(|node| &node.state) {
            None => {}
            Some(_) if autorename => to_path = self.free_name(&to_path, numbered_label).map_err(RelocationError::To)?,
            Some(State::File(_)) => return Err(RelocationError::To(WriteError::ConflictFile)),
            Some(_) => return Err(RelocationError::To(WriteError::ConflictFolder)),
        }
        let moved = self.subtree(&from_key);
        if moved.len() > MAX_RELOCATED_ENTRIES {
            return Err(RelocationError::TooManyFiles);
        }
        self.make_parents(&to_path).map_err(RelocationError::To)?;
        if self.nodes.len() + moved.len() > MAX_ENTRIES {
            return Err(RelocationError::To(WriteError::InsufficientSpace));
        }
        for path in &moved {
            let below = path.as_str().get(from_path.as_str().len()..).unwrap_or_default();
            let target = below.split('/').skip(1).fold(to_path.clone(), |folder, name| folder.child(name));
            self.relocate_one(kind, path, target);
        }
        self.forget_old_tombstones();
        self.live(&to_path.key()).map(metadata_of).ok_or(RelocationError::FromLookup(LookupError::NotFound))
    }

    fn relocate_one(&mut self, kind: Relocation, from: &RemotePath, to: RemotePath) {
        let Some(node) = self.live(&from.key()) else {
            return;
        };
        let id = |old: &String| {
            if kind == Relocation::Move { old.clone() } else { new_id() }
        };
        let state = match &node.state {
            State::File(file) => {
                State::File(FileState { id: id(&file.id), rev: new_rev(), server_modified: now(), ..file.clone() })
            }
            State::Folder { id: old } => State::Folder { id: id(old) },
            State::Deleted => return,
        };
        if kind == Relocation::Move {
            self.put(from.clone(), State::Deleted);
        }
        self.put(to, state);
    }

    /// The key a request names, whether or not something is there.
    fn locate(&self, locator: &Locator) -> Result<Key, LookupError> {
        match locator {
            Locator::Path(path) => Ok(path.key()),
            Locator::Id { id, below } => {
                let node = self.ids.get(id).and_then(|key| self.live(key)).ok_or(LookupError::NotFound)?;
                Ok(RemotePath::parse(&format!("{}{below}", node.path.as_str()))?.key())
            }
            Locator::Revision(rev) => self.revisions.get(rev).cloned().ok_or(LookupError::NotFound),
            Locator::UnknownNamespace => Err(LookupError::NotFound),
        }
    }

    /// The path to write to: as existing folders are spelt where they exist, as asked below them.
    fn write_path(&self, locator: &Locator) -> Result<RemotePath, WriteError> {
        let asked = match locator {
            Locator::Path(path) => path.clone(),
            Locator::Id { id, below } => {
                let node = self.ids.get(id).and_then(|key| self.live(key)).ok_or(WriteError::MalformedPath)?;
                RemotePath::parse(&format!("{}{below}", node.path.as_str()))?
            }
            Locator::Revision(_) | Locator::UnknownNamespace => {
                return Err(WriteError::MalformedPath);
            }
        };
        if asked.is_root() {
            return Err(WriteError::MalformedPath);
        }
        if let Some(node) = self.live(&asked.key()) {
            return Ok(node.path.clone());
        }
        let existing = asked
            .ancestors()
            .into_iter()
            .filter_map(|folder| self.live(&folder.key()))
            .map(|node| &node.path)
            .next_back();
        let depth = existing.map_or(0, |folder| folder.as_str().matches('/').count());
        let start = existing.cloned().unwrap_or_else(RemotePath::root);
        Ok(asked.as_str().split('/').skip(1 + depth).fold(start, |folder, name| folder.child(name)))
    }

    fn make_parents(&mut self, path: &RemotePath) -> Result<(), WriteError> {
        let mut missing = Vec::new();
        for folder in path.ancestors() {
            match self.live(&folder.key()).map(|node| &node.state) {
                Some(State::File(_)) => return Err(WriteError::ConflictFileAncestor),
                Some(_) => {}
                None => missing.push(folder),
            }
        }
        if self.nodes.len() + missing.len() + 1 > MAX_ENTRIES {
            return Err(WriteError::InsufficientSpace);
        }
        for folder in missing {
            self.put(folder, State::Folder { id: new_id() });
        }
        Ok(())
    }

    fn free_name(&self, path: &RemotePath, label: fn(u32) -> String) -> Result<RemotePath, WriteError> {
        (1..=MAX_RENAME_ATTEMPTS)
            .map(|attempt| path.labelled(&label(attempt)))
            .find(|candidate| self.live(&candidate.key()).is_none())
            .ok_or(WriteError::ConflictFile)
    }

    /// The live entries at and below `key`, parents before children.
    fn subtree(&self, key: &Key) -> Vec<RemotePath> {
        let own = self.live(key).into_iter();
        let below = self.nodes.range(key.below()).map(|(_, node)| node).filter(|node| !node.is_deleted());
        own.chain(below).map(|node| node.path.clone()).collect()
    }

    fn live(&self, key: &Key) -> Option<&Node> {
        self.nodes.get(key).filter(|node| !node.is_deleted())
    }

    /// Replaces what is at `path` and records the change. Every change of the namespace goes through here.
    fn put(&mut self, path: RemotePath, state: State) -> Metadata {
        let key = path.key();
        self.take(&key);
        match &state {
            State::File(file) => {
                self.ids.insert(file.id.clone(), key.clone());
                self.revisions.insert(file.rev.clone(), key.clone());
                if file.content.size() <= MAX_REVISION_BYTES {
                    let revisions = self.history.entry(key.clone()).or_default();
                    if revisions.len() == MAX_REVISIONS {
                        revisions.remove(0);
                    }
                    revisions.push(FileState { content: file.content.beside_the_quota(), ..file.clone() });
                }
            }
            State::Folder { id } => {
                self.ids.insert(id.clone(), key.clone());
            }
            State::Deleted => self.tombstones += 1,
        }
        self.sequence += 1;
        let node = Node { path, state, changed: self.sequence };
        let metadata = metadata_of(&node);
        self.journal.insert(self.sequence, key.clone());
        self.nodes.insert(key, node);
        metadata
    }

    fn take(&mut self, key: &Key) {
        let Some(node) = self.nodes.remove(key) else {
            return;
        };
        self.journal.remove(&node.changed);
        match node.state {
            State::File(file) => {
                self.ids.remove(&file.id);
                self.revisions.remove(&file.rev);
            }
            State::Folder { id } => {
                self.ids.remove(&id);
            }
            State::Deleted => self.tombstones -= 1,
        }
    }

    fn forget_old_tombstones(&mut self) {
        if self.tombstones <= MAX_TOMBSTONES {
            return;
        }
        let tombstones = self.journal.iter().filter(|(_, key)| self.nodes.get(*key).is_some_and(Node::is_deleted));
        let oldest: Vec<_> = tombstones
            .take(self.tombstones - MAX_TOMBSTONES / 2)
            .map(|(changed, key)| (*changed, key.clone()))
            .collect();
        for (changed, key) in oldest {
            self.take(&key);
            self.forgotten = changed;
        }
    }
}

impl Node {
    fn is_deleted(&self) -> bool {
        matches!(self.state, State::Deleted)
    }
}

fn metadata_of(node: &Node) -> Metadata {
    let entry = Entry {
        name: node.path.name().to_owned(),
        path_lower: node.path.key().path_lower(),
        path_display: node.path.as_str().to_owned(),
    };
    match &node.state {
        State::File(file) => Metadata::File { entry, file: file.clone() },
        State::Folder { id } => Metadata::Folder { entry, id: id.clone() },
        State::Deleted => Metadata::Deleted { entry },
    }
}

fn rename_label(mode: &WriteMode) -> fn(u32) -> String {
    match mode {
        WriteMode::Update(_) => |attempt| match attempt {
            1 => "conflicted copy".to_owned(),
            _ => format!("conflicted copy {attempt}"),
        },
        WriteMode::Add | WriteMode::Overwrite => numbered_label,
    }
}

fn numbered_label(attempt: u32) -> String {
    attempt.to_string()
}

fn now() -> Timestamp {
    Timestamp::now()
}

/// `id:` and 22 characters, like Dropbox's own.
fn new_id() -> String {
    format!("id:{}", &lower_hex(&rand::random::<[u8; 11]>()))
}

/// At least nine hexadecimal digits (files.stone, Rev).
fn new_rev() -> String {
    format!("01{}", lower_hex(&rand::random::<[u8; 12]>()))
}
