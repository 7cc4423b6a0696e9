//! One line of a script: prefixes, words with quotes as in sftp(1), patterns.
//!
//! Knows no command.

use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// Longest line: room for two paths as long as can be, every character escaped.
const LINE_BYTES_MAX: usize = 4 * crate::path::PATH_BYTES_MAX;

/// What some editors put before the first line of a file.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Words that one with braces stands for: each pair multiplies them.
const ALTERNATIVES_MAX: usize = 1000;

/// A line that holds a command.
#[derive(Debug)]
pub(super) struct Line {
    /// As it was written.
    pub(super) text: String,
    /// `-`: the script goes on when the command fails.
    pub(super) ignores_errors: bool,
    /// `@`: the command is not repeated in the output.
    pub(super) is_quiet: bool,
    /// What it says, unless that cannot be understood.
    pub(super) command: Result<Command, Error>,
}

/// A command with its options and arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    pub(super) name: String,
    pub(super) words: Vec<Word>,
}

/// One word; what was quoted is literal in it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Word(Vec<(char, bool)>);

impl Line {
    /// `None` for an empty line or a comment.
    pub(super) fn parse(line: &str) -> Option<Self> {
        let text = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line).trim();
        let mut rest = text;
        let (mut ignores_errors, mut is_quiet) = (false, false);
        while let Some(prefix) = rest.chars().next().filter(|prefix| matches!(prefix, '-' | '@')) {
            ignores_errors |= prefix == '-';
            is_quiet |= prefix == '@';
            rest = rest[1..].trim_start();
        }
        let command = Command::parse(rest).transpose()?;
        Some(Self { text: text.to_owned(), ignores_errors, is_quiet, command })
    }
}

impl Command {
    fn parse(text: &str) -> Result<Option<Self>, Error> {
        if text.len() > LINE_BYTES_MAX {
            return Err(invalid(format!("a line of {} bytes is longer than {LINE_BYTES_MAX}", text.len())));
        }
        if text.starts_with('!') {
            return Err(Error::new(ErrorKind::Unsupported, "a script runs no programs of this machine (!)"));
        }
        let mut words = split(text)?;
        if words.is_empty() {
            return Ok(None);
        }
        let name = words.remove(0).text().to_ascii_lowercase();
        Ok(Some(Self { name, words }))
    }

    /// Takes the letters of leading options such as `-la`; any other letter than those `allowed` is an error.
    pub(super) fn options(&mut self, allowed: &str) -> Result<String, Error> {
        let mut options = String::new();
        while let Some(word) = self.words.first().map(Word::text).filter(|word| word.starts_with('-') && word.len() > 1)
        {
            self.words.remove(0);
            if word == "--" {
                break;
            }
            if let Some(unknown) = word.chars().skip(1).find(|letter| !allowed.contains(*letter)) {
                return Err(invalid(format!("{} has no option -{unknown}", self.name)));
            }
            options.push_str(&word[1..]);
        }
        Ok(options)
    }

    /// As many words as the command takes.
    pub(super) fn take(&mut self, least: usize, most: usize) -> Result<Vec<Word>, Error> {
        if self.words.len() < least {
            return Err(invalid(format!("{} needs {least} arguments, not {}", self.name, self.words.len())));
        }
        if self.words.len() > most {
            return Err(invalid(format!("{} takes {most} arguments at most, not {}", self.name, self.words.len())));
        }
        Ok(std::mem::take(&mut self.words))
    }
}

impl Word {
    /// Its text, without quotes.
    pub(super) fn text(&self) -> String {
        self.0.iter().map(|(character, _)| character).collect()
    }

    pub(super) fn is_pattern(&self) -> bool {
        self.0.iter().any(|&(character, is_quoted)| !is_quoted && matches!(character, '*' | '?' | '['))
    }

    pub(super) fn ends_with_slash(&self) -> bool {
        self.0.last().is_some_and(|(character, _)| *character == '/')
    }

    /// The words that this one stands for by `{a,b}`, of which there may be several, also one within another.
    pub(super) fn alternatives(&self) -> Result<Vec<Self>, Error> {
        let (mut done, mut left) = (Vec::new(), vec![self.clone()]);
        while let Some(word) = left.pop() {
            match word.first_braces() {
                Some(alternatives) => left.extend(alternatives.into_iter().rev()),
                None => done.push(word),
            }
            if done.len() + left.len() > ALTERNATIVES_MAX {
                return Err(invalid(format!("{} stands for more than {ALTERNATIVES_MAX} words", self.text())));
            }
        }
        Ok(done)
    }

    /// This word with each of the alternatives in its first braces; `None` without any. As in glob(3), `{}` and a brace
    /// that is not closed are themselves.
    fn first_braces(&self) -> Option<Vec<Self>> {
        let open =
            (0..self.0.len()).find(|&at| self.0[at] == ('{', false) && self.0.get(at + 1) != Some(&('}', false)))?;
        let (mut depth, mut ends) = (0, vec![open]);
        let close = (open..self.0.len()).find(|&at| {
            match self.0[at] {
                ('{', false) => depth += 1,
                ('}', false) => depth -= 1,
                (',', false) if depth == 1 => ends.push(at),
                _ => {}
            }
            depth == 0
        })?;
        ends.push(close);
        let alternative = |part: &[usize]| {
            let parts = [&self.0[..open], &self.0[part[0] + 1..part[1]], &self.0[close + 1..]];
            Self(parts.concat())
        };
        Some(ends.windows(2).map(alternative).collect())
    }

    pub(super) fn is_absolute(&self) -> bool {
        self.0.first().is_some_and(|(character, _)| *character == '/')
    }

    /// Its parts between `/`.
    pub(super) fn components(&self) -> Vec<Self> {
        let parts = self.0.split(|(character, _)| *character == '/');
        parts.filter(|part| !part.is_empty()).map(|part| Self(part.to_vec())).collect()
    }

    /// Whether the pattern fits a name. A leading dot is only fitted by a dot.
    pub(super) fn fits(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        if name.first() == Some(&'.') && self.0.first().map(|(character, _)| *character) != Some('.') {
            return false;
        }
        fits(&self.0, &name)
    }
}

fn split(line: &str) -> Result<Vec<Word>, Error> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(open), '\\') => match characters.next() {
                Some(escaped) if escaped == open || escaped == '\\' => push(&mut word, escaped, true),
                Some(escaped) => {
                    push(&mut word, '\\', true);
                    push(&mut word, escaped, true);
                }
                None => return Err(invalid("the line ends after a backslash")),
            },
            (Some(_), _) => push(&mut word, character, true),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, '\\') => match characters.next() {
                Some(escaped) => push(&mut word, escaped, true),
                None => return Err(invalid("the line ends after a backslash")),
            },
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, '#') if word.is_none() => break,
            (None, _) => push(&mut word, character, false),
        }
    }
    if let Some(open) = quote {
        return Err(invalid(format!("a quote {open} is not closed")));
    }
    words.extend(word);
    Ok(words)
}

fn push(word: &mut Option<Word>, character: char, is_quoted: bool) {
    word.get_or_insert_default().0.push((character, is_quoted));
}

/// `*`, `?` and `[a-z]` as in glob(7).
fn fits(pattern: &[(char, bool)], name: &[char]) -> bool {
    let (mut at, mut from) = (0, 0);
    // Where to go on when what follows the last star does not fit.
    let mut star = None;
    while from < name.len() {
        match pattern.get(at) {
            Some(('*', false)) => {
                star = Some((at, from));
                at += 1;
                continue;
            }
            Some(&(wanted, is_quoted)) => {
                let one = match (wanted, is_quoted) {
                    ('?', false) => Some(1),
                    ('[', false) => set(&pattern[at..], name[from]),
                    _ => (wanted == name[from]).then_some(1),
                };
                if let Some(length) = one {
                    at += length;
                    from += 1;
                    continue;
                }
            }
            None => {}
        }
        let Some((starred, eaten)) = star else { return false };
        star = Some((starred, eaten + 1));
        at = starred + 1;
        from = eaten + 1;
    }
    pattern[at..].iter().all(|part| *part == ('*', false))
}

/// The length of a set such as `[!a-z]` when it has a character; one that is not closed is a `[`.
fn set(pattern: &[(char, bool)], character: char) -> Option<usize> {
    let mut at = 1;
    let is_negated = matches!(pattern.get(at), Some(('!' | '^', false)));
    at += usize::from(is_negated);
    let first = at;
    let mut has = false;
    loop {
        let Some(&(low, is_quoted)) = pattern.get(at) else {
            return (character == '[').then_some(1);
        };
        if low == ']' && !is_quoted && at > first {
            break;
        }
        match (pattern.get(at + 1), pattern.get(at + 2)) {
            (Some(('-', false)), Some(&(high, _))) if high != ']' => {
                has |= (low..=high).contains(&character);
                at += 3;
            }
            _ => {
                has |= low == character;
                at += 1;
            }
        }
    }
    (has != is_negated).then_some(at + 1)
}

/// A path as it is typed, seen from a folder; `..` ends at the root.
pub(super) fn resolve(folder: &RemotePath, text: &str) -> Result<RemotePath, Error> {
    let mut path = if text.starts_with('/') { RemotePath::root() } else { folder.clone() };
    for step in text.split('/') {
        path = step_to(&path, step)?;
    }
    Ok(path)
}

/// One step of a path.
pub(super) fn step_to(path: &RemotePath, step: &str) -> Result<RemotePath, Error> {
    match step {
        "" | "." => Ok(path.clone()),
        ".." => Ok(path.parent().unwrap_or_else(RemotePath::root)),
        name => path.join(name),
    }
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(line: &str) -> Vec<String> {
        split(line).unwrap().iter().map(Word::text).collect()
    }

    fn pattern(text: &str) -> Word {
        split(text).unwrap().remove(0)
    }

    #[test]
    fn words_are_quoted_as_in_sftp() {
        let cases: [(&str, &[&str]); 9] = [
            ("get a b", &["get", "a", "b"]),
            ("  get\ta  ", &["get", "a"]),
            (r#"get "a b" 'c d'"#, &["get", "a b", "c d"]),
            (r"get a\ b", &["get", "a b"]),
            (r#"get "a\"b" 'c\'d'"#, &["get", "a\"b", "c'd"]),
            (r#"get "a\nb""#, &["get", r"a\nb"]),
            ("get a # comment", &["get", "a"]),
            ("get a#b", &["get", "a#b"]),
            (r#"get """#, &["get", ""]),
        ];
        for (line, expected) in cases {
            assert_eq!(words(line), expected, "{line}");
        }
        for line in ["get \"a", "get 'a", "get a\\", "get \"a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    #[test]
    fn prefixes_are_told_from_the_command() {
        let line = Line::parse("\u{feff} -@rm x\r").unwrap();
        assert_eq!((line.text.as_str(), line.ignores_errors, line.is_quiet), ("-@rm x", true, true));
        assert_eq!(line.command.unwrap().name, "rm");
        for empty in ["", "   ", "# comment", "-", "@ # comment", "\u{feff}"] {
            assert!(Line::parse(empty).is_none(), "{empty}");
        }
        for (text, kind) in [("-!rm -rf /", ErrorKind::Unsupported), ("-get \"x", ErrorKind::Invalid)] {
            let line = Line::parse(text).unwrap();
            assert_eq!((line.ignores_errors, line.command.unwrap_err().kind()), (true, kind), "{text}");
        }
    }

    #[test]
    fn options_end_where_arguments_begin() {
        let command = |text| Command::parse(text).unwrap().unwrap();
        let mut ls = command("ls -l -a -- -file");
        assert_eq!(ls.options("la").unwrap(), "la");
        assert_eq!(ls.take(0, 1).unwrap(), [Word("-file".chars().map(|c| (c, false)).collect())]);
        assert!(command("ls -lx").options("la").unwrap_err().to_string().contains("-x"));
        assert!(command("mkdir a b").take(1, 1).is_err());
    }

    #[test]
    fn patterns_fit_as_in_a_shell() {
        let fitting = [
            ("*", "a"),
            ("*.csv", "x.csv"),
            ("?b", "ab"),
            ("[a-c]x", "bx"),
            ("[!a]x", "bx"),
            ("[]]", "]"),
            (".*", ".a"),
            ("a[", "a["),
            ("*a*b*", "xxaxxbxx"),
            (r"\*", "*"),
            ("'*'x", "*x"),
        ];
        for (text, name) in fitting {
            assert!(pattern(text).fits(name), "{text} {name}");
        }
        let others = [
            ("*", ".a"),
            ("?a", ".a"),
            ("*.csv", "x.csvx"),
            ("[a-c]x", "dx"),
            ("[!a]x", "ax"),
            (r"\*", "a"),
            ("a", "b"),
        ];
        for (text, name) in others {
            assert!(!pattern(text).fits(name), "{text} {name}");
        }
        assert!(pattern("a*").is_pattern() && !pattern(r"a\*").is_pattern() && !pattern("'a*'").is_pattern());
    }

    #[test]
    fn braces_hold_alternatives_as_in_a_shell() {
        let cases: [(&str, &[&str]); 8] = [
            ("a", &["a"]),
            ("{a,b}.txt", &["a.txt", "b.txt"]),
            ("{a,b}{1,2}", &["a1", "a2", "b1", "b2"]),
            ("x{a,{b,c}d,}", &["xa", "xbd", "xcd", "x"]),
            ("{a}", &["a"]),
            ("{}", &["{}"]),
            ("{a,b", &["{a,b"]),
            (r"\{a,b}", &["{a,b}"]),
        ];
        for (text, expected) in cases {
            let words: Vec<String> = pattern(text).alternatives().unwrap().iter().map(Word::text).collect();
            assert_eq!(words, expected, "{text}");
        }
        assert!(pattern(&"{a,b}".repeat(20)).alternatives().is_err());
    }

    #[test]
    fn no_path_climbs_above_the_root() {
        let folder = RemotePath::parse("/a/b").unwrap();
        for (text, expected) in
            [("c", "/a/b/c"), ("../c", "/a/c"), ("/c/./d//e/", "/c/d/e"), ("../../../..", "/"), ("", "/a/b")]
        {
            assert_eq!(resolve(&folder, text).unwrap().as_str(), expected, "{text}");
        }
        assert!(resolve(&folder, "a\nb").is_err());
    }

    proptest! {
        #[test]
        fn no_line_makes_the_parser_fail_otherwise_than_by_an_error(line in r#"[-@ a"'\\*\[\]{},!#/]{0,40}|.{0,60}"#) {
            if let Ok(Some(command)) = Command::parse(&line) {
                for word in command.words {
                    let _refused_or_not = word.alternatives();
                    let _fits_or_not = word.fits("a]b");
                    let _resolved_or_not = resolve(&RemotePath::root(), &word.text());
                }
            }
        }

        #[test]
        fn what_is_quoted_is_itself(text in "[a-z *?#'\\[]{1,20}") {
            prop_assert_eq!(words(&format!("\"{text}\"")), [text.clone()]);
            let is_pattern = pattern(&format!("\"{text}\"")).is_pattern();
            prop_assert!(!is_pattern);
        }
    }
}
