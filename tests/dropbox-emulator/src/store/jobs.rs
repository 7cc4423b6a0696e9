//! What is done "later": results of batches that a client asks about, and links that it was given.
//!
//! Bounded: the oldest go first. Knows nothing of what the results mean.

use std::collections::VecDeque;

use serde_json::Value;

use super::content::lower_hex;

/// Jobs and links remembered, each.
const MAX_REMEMBERED: usize = 10_000;

/// How often a job answers that it is still under way.
const CHECKS_UNDER_WAY: u32 = 1;

/// Something remembered by a random name.
pub(crate) struct Remembered<T> {
    entries: VecDeque<(String, T)>,
}

impl<T> Default for Remembered<T> {
    fn default() -> Self {
        Self { entries: VecDeque::new() }
    }
}

impl<T> Remembered<T> {
    /// Remembers it; the name.
    pub(crate) fn put(&mut self, prefix: &str, value: T) -> String {
        if self.entries.len() == MAX_REMEMBERED {
            self.entries.pop_front();
        }
        let name = format!("{prefix}{}", lower_hex(&rand::random::<[u8; 16]>()));
        self.entries.push_back((name.clone(), value));
        name
    }

    pub(crate) fn get(&mut self, name: &str) -> Option<&mut T> {
        self.entries.iter_mut().find(|(known, _)| known == name).map(|(_, value)| value)
    }

    pub(crate) fn find(&mut self, mut wanted: impl FnMut(&T) -> bool) -> Option<&mut T> {
        self.entries.iter_mut().map(|(_, value)| value).find(|value| wanted(value))
    }

    pub(crate) fn remove(&mut self, name: &str) -> Option<T> {
        let at = self.entries.iter().position(|(known, _)| known == name)?;
        self.entries.remove(at).map(|(_, value)| value)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &T> {
        self.entries.iter().map(|(_, value)| value)
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.entries.retain(|(_, value)| keep(value));
    }
}

/// A job that is done, but does not say so at once.
pub(crate) struct Job {
    checks: u32,
    result: Value,
}

impl Job {
    pub(crate) fn new(result: Value) -> Self {
        Self { checks: 0, result }
    }

    /// The result, once it was asked for often enough.
    pub(crate) fn check(&mut self) -> Option<Value> {
        self.checks += 1;
        (self.checks > CHECKS_UNDER_WAY).then(|| self.result.clone())
    }
}
