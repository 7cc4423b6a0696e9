//! From one TOML value to one typed value, or to a sentence that says what was expected.
//!
//! Each function here reads one form: sizes, durations, counts, addresses. Knows no key, no table and no file.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use jiff::SignedDuration;
use jiff::fmt::friendly::SpanParser;
use toml::de::DeValue;
use wharf_connectors::RemotePath;

/// Characters of a bad value that a message repeats: enough to find it, whatever was pasted there.
const QUOTED_CHARACTERS_MAX: usize = 60;

/// Longest name of a service or a connection in bytes: fits a file name with its ending, a label and a log line.
const NAME_BYTES_MAX: usize = 128;

/// `true` or `false`.
pub(super) fn flag(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| expected("true or false", value))
}

/// A string that is not empty.
pub(super) fn text(value: &DeValue<'_>) -> Result<String, String> {
    match string("a string", value)? {
        "" => Err("must not be empty".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// A path in the file system of this machine.
pub(super) fn path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    match string("a path as a string", value)? {
        "" => Err("must not be empty".to_owned()),
        text if text.contains('\0') => Err("must not contain a NUL character".to_owned()),
        text => Ok(PathBuf::from(text)),
    }
}

/// A path on a connection.
pub(super) fn remote_path(value: &DeValue<'_>) -> Result<RemotePath, String> {
    RemotePath::parse(string("a path such as \"/inbox\"", value)?).map_err(|error| error.to_string())
}

/// A whole number within bounds.
pub(super) fn count<N>(bounds: RangeInclusive<N>) -> impl Fn(&DeValue<'_>) -> Result<N, String>
where
    N: TryFrom<i128> + PartialOrd + fmt::Display,
{
    move |value| {
        let integer = value.as_integer().ok_or_else(|| expected("a whole number", value))?;
        let number = i128::from_str_radix(integer.as_str(), integer.radix());
        match number.map(N::try_from) {
            Ok(Ok(number)) if bounds.contains(&number) => Ok(number),
            _ => Err(out_of_bounds(&integer, bounds.start(), bounds.end())),
        }
    }
}

/// A size in bytes within bounds, written as `"64MiB"` (2^20) or `"64MB"` (10^6).
pub(super) fn size(bounds: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let text = string("a size such as \"64MiB\" or \"500KB\"", value)?;
        let size: ByteSize = text.trim().parse().map_err(|_| {
            format!("{} is not a size; write a number and a unit, such as \"64MiB\" or \"500KB\"", quoted(text))
        })?;
        if bounds.contains(&size.0) {
            Ok(size.0)
        } else {
            Err(out_of_bounds(&quoted(text), &shown_size(*bounds.start()), &shown_size(*bounds.end())))
        }
    }
}

/// A duration within bounds, written as `"30s"`, `"500ms"` or `"1h 30m"`.
pub(super) fn duration(bounds: RangeInclusive<Duration>) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| {
        let text = string("a duration such as \"30s\" or \"500ms\"", value)?;
        let duration = SpanParser::new().parse_unsigned_duration(text.trim()).map_err(|_| {
            format!(
                "{} is not a duration; write a number and a unit, such as \"500ms\", \"30s\" or \"2m\"",
                quoted(text)
            )
        })?;
        if bounds.contains(&duration) {
            Ok(duration)
        } else {
            Err(out_of_bounds(&quoted(text), &shown_duration(*bounds.start()), &shown_duration(*bounds.end())))
        }
    }
}

/// One of a few words.
pub(super) fn choice<T: Copy>(choices: &'static [(&'static str, T)]) -> impl Fn(&DeValue<'_>) -> Result<T, String> {
    move |value| {
        let words = || {
            let quoted: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
            quoted.join(", ")
        };
        let Some(text) = value.as_str() else { return Err(expected(&format!("one of {}", words()), value)) };
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, choice)) => Ok(*choice),
            None => Err(match nearest(text, choices.iter().map(|(word, _)| *word)) {
                Some(word) => format!("unknown value {}; did you mean \"{word}\"?", quoted(text)),
                None => format!("unknown value {}; it must be one of {}", quoted(text), words()),
            }),
        }
    }
}

/// An address and a port to listen on.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    let text = string("an address such as \"127.0.0.1:8080\"", value)?;
    text.parse().map_err(|_| {
        format!(
            "{} is not an address with a port; write one such as \"127.0.0.1:8080\" or \"[::1]:8080\"",
            quoted(text)
        )
    })
}

/// A list of networks; a single address stands for the network of that address alone.
pub(super) fn networks(value: &DeValue<'_>) -> Result<Vec<IpNet>, String> {
    const FORM: &str = "a list of networks such as [\"10.0.0.0/8\"]";
    let items = value.as_array().ok_or_else(|| expected(FORM, value))?;
    items
        .iter()
        .map(|item| {
            let text = item.get_ref().as_str().ok_or_else(|| {
                format!("expected {FORM}, found {} in the list", with_article(item.get_ref().type_str()))
            })?;
            let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
            network.map_err(|_| {
                format!("{} is not a network; write one such as \"10.0.0.0/8\" or \"192.168.1.7\"", quoted(text))
            })
        })
        .collect()
}

/// Why a text is not a name of a service or a connection, if it is not.
pub(super) fn name_problem(name: &str) -> Option<String> {
    let allowed = |character: char| character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-');
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.starts_with('.') || !name.chars().all(allowed) {
        return Some(format!(
            "{} is not a name; it must have 1 to {NAME_BYTES_MAX} characters from A-Z, a-z, 0-9, '.', '_' and '-', \
             and not begin with '.'",
            quoted(name)
        ));
    }
    None
}

/// The sentence for a value of the wrong type.
pub(super) fn expected(what: &str, value: &DeValue<'_>) -> String {
    format!("expected {what}, found {}", with_article(value.type_str()))
}

/// The known word that was probably meant: one that is a few slips of the fingers away, or that begins alike.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    // Fewer letters begin too many words.
    const BEGINNING_MIN: usize = 3;
    // Comparing longer ones letter by letter costs time, and no known word is that long.
    const WORD_BYTES_MAX: usize = 2 * NAME_BYTES_MAX;
    if word.len() > WORD_BYTES_MAX {
        return None;
    }
    let slips = |candidate: &str| {
        let length = candidate.chars().count();
        // Damerau counts a swapped pair of letters as one. With a third of its letters wrong, two at least, a word
        // can still be recognised.
        let slips = strsim::damerau_levenshtein(word, candidate);
        let near = slips <= (length / 3).max(2) && slips < length;
        let begins_alike = word.len().min(candidate.len()) >= BEGINNING_MIN
            && (word.starts_with(candidate) || candidate.starts_with(word));
        (near || begins_alike).then_some(slips)
    };
    let near = known.into_iter().filter_map(|candidate| slips(candidate).map(|slips| (slips, candidate)));
    near.min_by_key(|(slips, _)| *slips).map(|(_, candidate)| candidate)
}

/// A value as a message repeats it: in quotes, with control characters escaped, cut when long.
pub(super) fn quoted(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED_CHARACTERS_MAX).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}

fn string<'v>(what: &str, value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(|| expected(what, value))
}

fn out_of_bounds(value: &dyn fmt::Display, least: &dyn fmt::Display, most: &dyn fmt::Display) -> String {
    format!("{value} is out of bounds; it must be from {least} to {most}")
}

fn with_article(noun: &str) -> String {
    let article = if noun.starts_with(['a', 'i']) { "an" } else { "a" };
    format!("{article} {noun}")
}

fn shown_duration(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| format!("{duration:?}"), |duration| format!("{duration:#}"))
}

/// A size in the largest unit that divides it.
fn shown_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut number = bytes;
    let mut unit = 0;
    while number != 0 && number.is_multiple_of(1024) && unit + 1 < UNITS.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number}{}", UNITS[unit])
}
