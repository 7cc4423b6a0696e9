//! The argument of a call: from JSON to checked values, with Dropbox's messages for what is wrong.
//!
//! Knows how Stone types are written in JSON (structs, unions with their string shorthand, paths, timestamps). Unknown
//! fields are refused, as Dropbox does, so that a client's typing error shows up in its tests.

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::account::ROOT_NAMESPACE;
use crate::reply::Failure;
use crate::store::Locator;
use crate::store::metadata::parse_timestamp;
use crate::store::path::{PathError, RemotePath};

/// A struct argument, whose fields are taken one by one.
pub(crate) struct Fields {
    /// Where the argument came from, as Dropbox's messages name it.
    source: &'static str,
    fields: Map<String, Value>,
}

/// A path argument that is right in form. What is wrong with its names is this route's own error, not a bad request.
pub(crate) type PathArgument = Result<Locator, PathError>;

impl Fields {
    pub(crate) fn new(source: &'static str, argument: Value) -> Result<Self, Failure> {
        match argument {
            Value::Object(fields) => Ok(Self { source, fields }),
            other => Err(Failure::BadInput(format!("{source}: expected object, got {}", kind(&other)))),
        }
    }

    fn bad(&self, name: &str, problem: &str) -> Failure {
        Failure::BadInput(format!("{}: {name}: {problem}", self.source))
    }

    fn take(&mut self, name: &str) -> Option<Value> {
        self.fields.remove(name).filter(|value| !value.is_null())
    }

    pub(crate) fn optional_string(&mut self, name: &str) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.bad(name, &format!("expected string, got {}", kind(&other)))),
        }
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<String, Failure> {
        let missing = Failure::BadInput(format!("{}: missing required field '{name}'", self.source));
        self.optional_string(name)?.ok_or(missing)
    }

    pub(crate) fn boolean(&mut self, name: &str, default: bool) -> Result<bool, Failure> {
        match self.take(name) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(value),
            Some(other) => Err(self.bad(name, &format!("expected boolean, got {}", kind(&other)))),
        }
    }

    pub(crate) fn integer(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Failure> {
        let Some(value) = self.take(name) else {
            return Ok(None);
        };
        match value.as_u64() {
            Some(number) if (least..=most).contains(&number) => Ok(Some(number)),
            _ => Err(self.bad(name, &format!("{value} is not within range [{least}, {most}]"))),
        }
    }

    pub(crate) fn required_integer(&mut self, name: &str, least: u64, most: u64) -> Result<u64, Failure> {
        let missing = Failure::BadInput(format!("{}: missing required field '{name}'", self.source));
        self.integer(name, least, most)?.ok_or(missing)
    }

    /// A structure within this one.
    pub(crate) fn structure(&mut self, name: &str) -> Result<Self, Failure> {
        let missing = Failure::BadInput(format!("{}: missing required field '{name}'", self.source));
        Self::new(self.source, self.take(name).ok_or(missing)?)
    }

    /// A list of structures within this one, never an empty one.
    pub(crate) fn structures(&mut self, name: &str, most: usize) -> Result<Vec<Self>, Failure> {
        match self.take(name) {
            Some(Value::Array(values)) if (1..=most).contains(&values.len()) => {
                values.into_iter().map(|value| Self::new(self.source, value)).collect()
            }
            _ => Err(self.bad(name, &format!("expected a list of 1 to {most} elements"))),
        }
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.fields.get(name).is_some_and(|value| !value.is_null())
    }

    /// A list of paths to write to, never an empty one.
    pub(crate) fn paths(&mut self, name: &str, most: usize) -> Result<Vec<PathArgument>, Failure> {
        let Some(Value::Array(values)) = self.take(name) else {
            return Err(self.bad(name, "expected a list of strings"));
        };
        if values.is_empty() || values.len() > most {
            return Err(self.bad(name, &format!("expected a list of 1 to {most} elements")));
        }
        let path = |value: Value| {
            let text = value.as_str().unwrap_or_default();
            locator(text).ok_or_else(|| self.bad_path(name, text))
        };
        values.into_iter().map(path).collect()
    }

    pub(crate) fn timestamp(&mut self, name: &str) -> Result<Option<Timestamp>, Failure> {
        let Some(text) = self.optional_string(name)? else {
            return Ok(None);
        };
        let problem = format!("time data '{text}' does not match format '%Y-%m-%dT%H:%M:%SZ'");
        parse_timestamp(&text).map(Some).ok_or_else(|| self.bad(name, &problem))
    }

    /// A hash in lower-case hexadecimal (files.stone, Sha256HexHash).
    pub(crate) fn content_hash(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(hash) = self.optional_string(name)? else {
            return Ok(None);
        };
        if hash.len() != 64 {
            return Err(self.bad(name, &format!("'{hash}' must have exactly 64 characters")));
        }
        Ok(Some(hash))
    }

    /// A revision (files.stone, Rev).
    pub(crate) fn revision(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let Some(rev) = self.optional_string(name)? else {
            return Ok(None);
        };
        if is_revision(&rev) {
            Ok(Some(rev))
        } else {
            Err(self.bad(name, &format!("'{rev}' did not match pattern '[0-9a-f]+'")))
        }
    }

    /// A union: its tag and, for a member with a value, that value. A bare string is short for a void member.
    pub(crate) fn union(&mut self, name: &str) -> Result<Option<(String, Option<Value>)>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(tag)) => Ok(Some((tag, None))),
            Some(Value::Object(mut fields)) => match fields.remove(".tag") {
                Some(Value::String(tag)) => {
                    let value = fields.remove(&tag);
                    Ok(Some((tag, value)))
                }
                _ => Err(self.bad(name, "missing '.tag' key")),
            },
            Some(other) => Err(self.bad(name, &format!("expected union, got {}", kind(&other)))),
        }
    }

    pub(crate) fn bad_union(&self, name: &str, tag: &str) -> Failure {
        self.bad(name, &format!("unknown or malformed tag '{tag}'"))
    }

    /// A path to read from: `/…`, `id:…`, `rev:…` or `ns:…` (files.stone, ReadPath).
    pub(crate) fn read_path(&mut self, name: &str) -> Result<PathArgument, Failure> {
        let text = self.string(name)?;
        if text.is_empty() {
            return Err(self.bad(name, "The root folder is unsupported."));
        }
        if let Some(rev) = text.strip_prefix("rev:") {
            return if is_revision(rev) {
                Ok(Ok(Locator::Revision(rev.to_owned())))
            } else {
                Err(self.bad_path(name, &text))
            };
        }
        locator(&text).ok_or_else(|| self.bad_path(name, &text))
    }

    /// A path to write to: `/…`, `id:…` or `ns:…` (files.stone, WritePathOrId).
    pub(crate) fn write_path(&mut self, name: &str) -> Result<PathArgument, Failure> {
        let text = self.string(name)?;
        if text.is_empty() {
            return Err(self.bad_path(name, &text));
        }
        locator(&text).ok_or_else(|| self.bad_path(name, &text))
    }

    /// A folder to list: `""` is the root (files.stone, PathROrId).
    pub(crate) fn folder_path(&mut self, name: &str) -> Result<PathArgument, Failure> {
        let text = self.string(name)?;
        match text.as_str() {
            "" => Ok(Ok(Locator::Path(RemotePath::root()))),
            "/" => Err(self.bad(name, "Specify the root folder as an empty string rather than as \"/\".")),
            _ => locator(&text).ok_or_else(|| self.bad_path(name, &text)),
        }
    }

    fn bad_path(&self, name: &str, text: &str) -> Failure {
        self.bad(name, &format!("'{text}' did not match pattern '(/(.|[\\r\\n])*)|(ns:[0-9]+(/.*)?)|(id:.*)'"))
    }

    /// Accepts fields that have no effect here.
    pub(crate) fn ignore(&mut self, names: &[&str]) {
        for name in names {
            self.fields.remove(*name);
        }
    }

    /// Refuses a field that Dropbox knows and the emulator does not, rather than answer another question than the one
    /// that was asked.
    pub(crate) fn refuse(&mut self, name: &str) -> Result<(), Failure> {
        match self.take(name) {
            None => Ok(()),
            Some(_) => Err(self.bad(name, "the emulator does not support this field")),
        }
    }

    /// Refuses what was not taken.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        match self.fields.keys().next() {
            None => Ok(()),
            Some(name) => Err(Failure::BadInput(format!("{}: unknown field '{name}'", self.source))),
        }
    }
}

fn is_revision(text: &str) -> bool {
    text.len() >= 9 && text.chars().all(|digit| matches!(digit, '0'..='9' | 'a'..='f'))
}

fn locator(text: &str) -> Option<PathArgument> {
    if let Some(id) = text.strip_prefix("id:") {
        let (id, below) = id.find('/').map_or((id, ""), |at| id.split_at(at));
        return Some(Ok(Locator::Id { id: format!("id:{id}"), below: below.to_owned() }));
    }
    if let Some(namespaced) = text.strip_prefix("ns:") {
        let (namespace, path) = namespaced.find('/').map_or((namespaced, ""), |at| namespaced.split_at(at));
        return Some(match namespace {
            ROOT_NAMESPACE => RemotePath::parse(path).map(Locator::Path),
            _ => Ok(Locator::UnknownNamespace),
        });
    }
    text.starts_with('/').then(|| RemotePath::parse(text).map(Locator::Path))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    }
}
