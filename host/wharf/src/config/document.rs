//! A configuration file being read: its text, the place of everything in it, and the problems found so far.
//!
//! A [`Section`] is one table. Asking it for a key makes the key known, so the keys that are read and the keys that
//! are allowed cannot differ. A bad value is noted with its line, and reading goes on: a person sees all problems at
//! once. Knows TOML; knows nothing of what the keys mean.

use std::cell::RefCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::files::{ContentHash, Files};
use super::problem::{PROBLEMS_MAX, Problem};
use super::values::{expected, nearest};

/// What reading a configuration needs and gathers.
pub(super) struct Document<'d> {
    /// The file; none when there is no configuration file.
    pub(super) file: Option<&'d Path>,
    /// The text of the file.
    pub(super) text: &'d str,
    /// Relative paths in the file begin here.
    pub(super) folder: PathBuf,
    /// The value of an environment variable.
    pub(super) environment: &'d dyn Fn(&str) -> Option<OsString>,
    /// What was read.
    pub(super) files: RefCell<Files>,
    /// What is wrong.
    pub(super) problems: RefCell<Vec<Problem>>,
    /// What is allowed but unwise.
    pub(super) warnings: RefCell<Vec<Problem>>,
}

impl Document<'_> {
    /// Notes a problem at a byte of the text.
    pub(super) fn problem(&self, offset: Option<usize>, key: impl Into<String>, message: impl Into<String>) {
        self.note(&self.problems, offset, key.into(), message.into());
    }

    /// Notes a problem with an option of the command line.
    pub(super) fn command_line_problem(&self, option: &str, message: String) {
        self.problems.borrow_mut().push(Problem { file: None, line: None, key: option.to_owned(), message });
    }

    fn note(&self, notes: &RefCell<Vec<Problem>>, offset: Option<usize>, key: String, message: String) {
        if notes.borrow().len() == PROBLEMS_MAX {
            return;
        }
        let line = offset.map(|offset| {
            let before = self.text.as_bytes().iter().take(offset);
            before.filter(|byte| **byte == b'\n').count() + 1
        });
        notes.borrow_mut().push(Problem { file: self.file.map(Path::to_owned), line, key, message });
    }

    /// A path of the file system as the configuration writes it.
    pub(super) fn resolve(&self, path: &Path) -> PathBuf {
        // Joining with "." would show every path as "./…" in messages.
        if self.folder == Path::new(".") { path.to_owned() } else { self.folder.join(path) }
    }
}

/// One table of a document; it may be absent, and then every key of it is.
pub(super) struct Section<'d> {
    document: &'d Document<'d>,
    key: String,
    /// Where it begins in the text.
    offset: Option<usize>,
    table: Option<&'d DeTable<'d>>,
    known: Vec<&'static str>,
    /// Keys that other tables have, and what is meant by them in this one.
    misnomers: Vec<(&'static str, &'static str)>,
    /// Contents that the table refers to, for its fingerprint.
    contents: Sha256,
}

impl<'d> Section<'d> {
    /// The whole document.
    pub(super) fn root(document: &'d Document<'d>, table: &'d DeTable<'d>) -> Self {
        Self::new(document, String::new(), None, Some(table))
    }

    fn new(document: &'d Document<'d>, key: String, offset: Option<usize>, table: Option<&'d DeTable<'d>>) -> Self {
        Self { document, key, offset, table, known: Vec::new(), misnomers: Vec::new(), contents: Sha256::new() }
    }

    /// The same table as if it was not written.
    pub(super) fn absent(self) -> Self {
        Self { table: None, ..self }
    }

    /// The document that this is a part of.
    pub(super) fn document(&self) -> &'d Document<'d> {
        self.document
    }

    /// Its key with the tables around it.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Reads the value of a key. `None` when it is absent or bad; a bad one is noted.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.value(key)?;
        match parse(value.get_ref()) {
            Ok(parsed) => Some(parsed),
            Err(message) => {
                self.problem_at(key, message);
                None
            }
        }
    }

    /// As [`Section::read`], for a key that must be there; `what` says what it stands for.
    pub(super) fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl FnOnce(&DeValue<'_>) -> Result<T, String>,
    ) -> Option<T> {
        if !self.has(key) {
            self.missing(key, what);
        }
        self.read(key, parse)
    }

    /// The table under a key; an absent one when there is none.
    pub(super) fn section(&mut self, key: &'static str) -> Self {
        let path = join(&self.key, key);
        let Some(value) = self.value(key) else { return Self::new(self.document, path, None, None) };
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.problem_at(key, expected("a table", value.get_ref()));
        }
        Self::new(self.document, path, Some(self.offset_of(key, value)), table)
    }

    /// The tables under a key by their names, which the operator chose.
    pub(super) fn named_sections(&mut self, key: &'static str) -> Vec<(String, Self)> {
        let parent = self.section(key);
        let Some(table) = parent.table else { return Vec::new() };
        let mut sections = Vec::new();
        for (name, value) in table {
            let path = join(&parent.key, name.get_ref());
            match value.get_ref().as_table() {
                Some(table) => {
                    let offset = Some(name.span().start);
                    sections.push((name.get_ref().to_string(), Self::new(self.document, path, offset, Some(table))));
                }
                None => {
                    let message = expected("a table", value.get_ref());
                    self.document.problem(Some(value.span().start), path, message);
                }
            }
        }
        sections
    }

    /// The tables of a list; `None` when the key is absent or no list.
    pub(super) fn listed_sections(&mut self, key: &'static str) -> Option<Vec<Self>> {
        let value = self.value(key)?;
        let Some(items) = value.get_ref().as_array() else {
            self.problem_at(key, expected("a list of tables", value.get_ref()));
            return None;
        };
        let mut sections = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let path = format!("{}[{index}]", join(&self.key, key));
            let offset = Some(item.span().start);
            match item.get_ref().as_table() {
                Some(table) => sections.push(Self::new(self.document, path, offset, Some(table))),
                None => self.document.problem(offset, path, expected("a table", item.get_ref())),
            }
        }
        Some(sections)
    }

    /// The value of a key, whatever it is. The key is known from here on.
    pub(super) fn value(&mut self, key: &'static str) -> Option<&'d Spanned<DeValue<'d>>> {
        if !self.known.contains(&key) {
            self.known.push(key);
        }
        self.table?.get(key)
    }

    /// Says what who writes an unknown key means, where the letters of it do not tell.
    pub(super) fn would_mean(&mut self, unknown: &'static str, known: &'static str) {
        self.misnomers.push((unknown, known));
    }

    /// Whether the key is written here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// The names of the keys that are written here.
    pub(super) fn keys(&self) -> impl Iterator<Item = &'d str> {
        self.table.into_iter().flat_map(|table| table.keys()).map(|key| key.get_ref().as_ref())
    }

    /// Notes a problem with this table as a whole.
    pub(super) fn problem(&self, message: impl Into<String>) {
        self.document.problem(self.offset, self.key.clone(), message);
    }

    /// Notes a problem with a key of this table.
    pub(super) fn problem_at(&self, key: &str, message: impl Into<String>) {
        self.document.problem(self.offset_at(key), join(&self.key, key), message);
    }

    /// Notes that a key that must be there is absent; `what` says what it stands for.
    pub(super) fn missing(&self, key: &str, what: &str) {
        self.problem_at(key, format!("missing: {what}"));
    }

    /// Notes what is allowed but unwise.
    pub(super) fn warning(&self, key: &str, message: impl Into<String>) {
        self.document.note(&self.document.warnings, self.offset_at(key), join(&self.key, key), message.into());
    }

    /// The last step: every key that nobody asked for is a problem.
    pub(super) fn reject_unknown_keys(self) {
        let Some(table) = self.table else { return };
        for key in table.keys() {
            let name: &str = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let meant = self.misnomers.iter().find(|(unknown, _)| *unknown == name).map(|(_, known)| *known);
            let message = match meant.or_else(|| nearest(name, self.known.iter().copied())) {
                Some(near) => format!("unknown key; did you mean \"{near}\"?"),
                None => format!("unknown key; known here: {}", self.known.join(", ")),
            };
            self.document.problem(Some(key.span().start), join(&self.key, name), message);
        }
    }

    /// Makes the content of a file or a variable that a key refers to count for the fingerprint.
    pub(super) fn count_content(&mut self, key: &str, content: &[u8]) {
        hash_bytes(&mut self.contents, key.as_bytes());
        hash_bytes(&mut self.contents, content);
    }

    /// A hash over all that is written here and over the contents that it refers to, whatever its place in the file.
    pub(super) fn fingerprint(&self) -> ContentHash {
        let mut hash = self.contents.clone();
        if let Some(table) = self.table {
            hash_table(&mut hash, table);
        }
        hash.into()
    }

    fn offset_at(&self, key: &str) -> Option<usize> {
        match self.table.and_then(|table| table.get(key)) {
            Some(value) => Some(self.offset_of(key, value)),
            None => self.offset,
        }
    }

    /// Where to point for a value: a table under its own header is named by its key, which may come before.
    fn offset_of(&self, key: &str, value: &Spanned<DeValue<'_>>) -> usize {
        let header = self.table.filter(|_| value.get_ref().is_table()).and_then(|table| table.get_key_value(key));
        header.map_or(value.span().start, |(key, _)| key.span().start)
    }
}

/// A key below a table as TOML writes it: quoted where it is not a bare key.
pub(super) fn join(parent: &str, key: &str) -> String {
    let bare = |character: char| character.is_ascii_alphanumeric() || matches!(character, '_' | '-');
    let key = if !key.is_empty() && key.chars().all(bare) { key.to_owned() } else { format!("{key:?}") };
    if parent.is_empty() { key } else { format!("{parent}.{key}") }
}

fn hash_table(hash: &mut Sha256, table: &DeTable<'_>) {
    hash_bytes(hash, b"table");
    hash.update((table.len() as u64).to_le_bytes());
    for (key, value) in table {
        hash_bytes(hash, key.get_ref().as_bytes());
        hash_value(hash, value.get_ref());
    }
}

fn hash_value(hash: &mut Sha256, value: &DeValue<'_>) {
    match value {
        DeValue::Table(table) => hash_table(hash, table),
        DeValue::Array(items) => {
            hash_bytes(hash, b"array");
            hash.update((items.len() as u64).to_le_bytes());
            for item in items.iter() {
                hash_value(hash, item.get_ref());
            }
        }
        DeValue::String(text) => {
            hash_bytes(hash, b"string");
            hash_bytes(hash, text.as_bytes());
        }
        DeValue::Integer(number) => hash_bytes(hash, format!("integer {number}").as_bytes()),
        DeValue::Float(number) => hash_bytes(hash, format!("float {number}").as_bytes()),
        DeValue::Boolean(flag) => hash_bytes(hash, format!("boolean {flag}").as_bytes()),
        DeValue::Datetime(time) => hash_bytes(hash, format!("datetime {time}").as_bytes()),
    }
}

/// With its length, so that two neighbours cannot be cut in another place and give the same hash.
fn hash_bytes(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}
