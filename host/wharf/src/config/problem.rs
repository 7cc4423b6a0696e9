//! What is wrong with a configuration, told so that a person can go and mend it: file, line, key, reason.
//!
//! Knows nothing of TOML, and nothing of what a key means. A message never holds a value that may be a secret.

use std::fmt;
use std::path::PathBuf;

use serde::{Serialize, Serializer};

use super::files::Files;

/// Problems that are gathered at most; more do not help a person, and a file of garbage has thousands.
pub(super) const PROBLEMS_MAX: usize = 100;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Problem {
    /// The configuration file; none for what the command line says.
    #[serde(serialize_with = "shown")]
    pub(crate) file: Option<PathBuf>,
    /// The line in the file, from 1.
    pub(crate) line: Option<usize>,
    /// The key with the tables around it, such as `connections.partner.host`; empty for the file as a whole.
    pub(crate) key: String,
    /// What is wrong, and what to write instead.
    pub(crate) message: String,
}

/// A path as a message shows it: a name that is not UTF-8 is not a reason to say nothing.
fn shown<S: Serializer>(file: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    file.as_ref().map(|file| file.display().to_string()).serialize(serializer)
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(formatter, "{}:", file.display())?;
            if let Some(line) = self.line {
                write!(formatter, "{line}:")?;
            }
            formatter.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(formatter, "{}: ", self.key)?;
        }
        formatter.write_str(&self.message)
    }
}

/// A configuration that cannot be used. `Display` tells every problem, one per line, in the order of the file.
#[derive(Debug, thiserror::Error)]
pub(crate) struct ConfigurationError {
    problems: Vec<Problem>,
    files: Files,
}

impl ConfigurationError {
    /// The problems, and the files that were read until they were found.
    pub(super) fn new(mut problems: Vec<Problem>, files: Files) -> Self {
        problems.sort_by_key(|problem| problem.line);
        Self { problems, files }
    }

    /// What is wrong, in the order of the file.
    pub(crate) fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// The files that the outcome depended on: a change of one of them is a reason to try again.
    pub(super) fn files(&self) -> &Files {
        &self.files
    }
}

impl fmt::Display for ConfigurationError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(formatter, "{separator}{problem}")?;
        }
        if self.problems.len() == PROBLEMS_MAX {
            formatter.write_str("\nfurther problems are not shown")?;
        }
        Ok(())
    }
}
