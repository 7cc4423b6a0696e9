//! Secrets are references, never values: `{ env = "NAME" }` or `{ file = "path" }`. Here they are followed.
//!
//! What was found goes into a type that cannot print itself; no message here holds a part of it. Files that are not
//! secret, such as certificates, are followed here too. Knows nothing of what a secret is for.

use std::io::ErrorKind;

use secrecy::SecretString;
use toml::de::DeValue;

use super::document::Section;
use super::files::{Exposure, exposure};
use super::values;

/// What to write where somebody wrote something else.
const FORM: &str = "write { env = \"NAME\" } or { file = \"path\" }";

/// The secret that a key refers to. `None` when the key is absent or leads nowhere; the latter is noted.
pub(super) fn read(section: &mut Section<'_>, key: &'static str) -> Option<SecretString> {
    read_or(section, key, "")
}

/// As [`read`], with advice for who refers to a file that is not there.
pub(super) fn read_or(section: &mut Section<'_>, key: &'static str, advice: &str) -> Option<SecretString> {
    match section.value(key)?.get_ref() {
        DeValue::Table(_) => {}
        DeValue::String(_) => {
            section.problem_at(key, format!("a secret is not written into this file; {FORM} instead"));
            return None;
        }
        other => {
            section.problem_at(key, values::expected(&format!("a reference to a secret, {FORM}"), other));
            return None;
        }
    }
    let mut reference = section.section(key);
    let written: Vec<&'static str> = ["env", "file", "secret"].into_iter().filter(|form| reference.has(form)).collect();
    let content = match written.as_slice() {
        ["env"] => from_variable(&mut reference),
        ["file"] => from_file(&mut reference, advice),
        ["secret"] => {
            reference
                .problem(format!("this host has no store of secrets yet, so {{ secret = ... }} leads nowhere; {FORM}"));
            None
        }
        [] if reference.keys().next().is_none() => {
            reference.problem(format!("an empty reference; {FORM}"));
            None
        }
        [] => None,
        _ => {
            reference.problem(format!("{} exclude each other; {FORM}", written.join(" and ")));
            None
        }
    };
    // Known whichever form was taken, so that an unknown key is compared with each.
    for form in written.into_iter().chain(["env", "file"]) {
        let _ = reference.value(form);
    }
    reference.reject_unknown_keys();
    let content = content?;
    section.count_content(key, content.as_bytes());
    Some(SecretString::from(content))
}

/// As [`read`], for a secret that must be there; `what` says what it is.
pub(super) fn required(section: &mut Section<'_>, key: &'static str, what: &str) -> Option<SecretString> {
    if !section.has(key) {
        section.missing(key, &format!("{what}; {FORM}"));
    }
    read(section, key)
}

/// The content of the file that a key names, such as a certificate: not secret, but followed like a secret.
pub(super) fn content(section: &mut Section<'_>, key: &'static str) -> Option<Vec<u8>> {
    let path = section.read(key, values::path)?;
    let path = section.document().resolve(&path);
    let content = section.document().files.borrow_mut().read(&path);
    match content {
        Ok(content) => {
            section.count_content(key, &content);
            Some(content)
        }
        Err(error) => {
            section.problem_at(key, format!("the file {} cannot be read: {error}", path.display()));
            None
        }
    }
}

fn from_variable(reference: &mut Section<'_>) -> Option<String> {
    let name = reference.read("env", |value| {
        let name = values::text(value)?;
        let plain = |character: char| character.is_ascii_alphanumeric() || character == '_';
        // What is no name may be the secret itself, so it is not repeated.
        if name.chars().all(plain) && !name.starts_with(|first: char| first.is_ascii_digit()) {
            Ok(name)
        } else {
            Err("this is not the name of an environment variable (letters, digits, _)".to_owned())
        }
    })?;
    let problem = match (reference.document().environment)(&name).map(std::ffi::OsString::into_string) {
        Some(Ok(content)) if !content.is_empty() => return Some(content),
        Some(Ok(_)) => format!("the environment variable {name} is empty"),
        Some(Err(_)) => format!("the environment variable {name} is not UTF-8 text"),
        None => format!("the environment variable {name} is not set"),
    };
    reference.problem_at("env", problem);
    None
}

fn from_file(reference: &mut Section<'_>, advice: &str) -> Option<String> {
    let path = reference.read("file", values::path)?;
    let path = reference.document().resolve(&path);
    let shown = path.display();
    let content = reference.document().files.borrow_mut().read(&path);
    let problem = match content.map(String::from_utf8) {
        Err(error) if error.kind() == ErrorKind::NotFound && !advice.is_empty() => {
            format!("the file {shown} cannot be read: {error}; {advice}")
        }
        Err(error) => format!("the file {shown} cannot be read: {error}"),
        Ok(Err(_)) => format!("the file {shown} is not UTF-8 text"),
        Ok(Ok(content)) => match (trimmed(content), exposure(&path)) {
            (_, Ok(Exposure::Write)) => {
                format!(
                    "everybody on this machine may change the file {shown}; take that right away: chmod o-w {shown}"
                )
            }
            (content, _) if content.is_empty() => format!("the file {shown} is empty"),
            (content, Ok(Exposure::Read)) => {
                reference
                    .warning("file", format!("everybody on this machine may read the file {shown}; chmod o-r {shown}"));
                return Some(content);
            }
            (content, _) => return Some(content),
        },
    };
    reference.problem_at("file", problem);
    None
}

/// Without the one line ending that an editor or `echo` puts at the end.
fn trimmed(mut content: String) -> String {
    if content.ends_with('\n') {
        content.pop();
        if content.ends_with('\r') {
            content.pop();
        }
    }
    content
}
