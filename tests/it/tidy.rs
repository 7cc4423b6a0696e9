//! Rules of this repository that no compiler knows: which crate may use which, how long a file may be, what must not
//! be left in one, and that every guest is there for a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The longest a source file may be, for one that reads from top to bottom.
const LINES_MAX: usize = 900;

/// Made by tools, brought from elsewhere, or made by running the program.
const NOT_OURS: [&str; 9] =
    [".git", "target", "node_modules", "build", "__pycache__", "services", "state", "deps", ".venv"];

/// What is written by hand and read by people.
const SOURCES: [&str; 10] = ["rs", "py", "js", "mjs", "c", "wit", "toml", "md", "yml", "sh"];

struct Source {
    /// From the root of the repository.
    path: String,
    text: String,
}

impl Source {
    fn is(&self, extension: &str) -> bool {
        self.path.ends_with(&format!(".{extension}"))
    }
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// Every file that people wrote: by its ending, or because it begins as a script does.
fn sources() -> Vec<Source> {
    let root = repository();
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                // The sources of the host have a folder of the same name as one that the program makes.
                if !NOT_OURS.contains(&name) || path.starts_with(root.join("host")) && name != "target" {
                    folders.push(path);
                }
                continue;
            }
            let extension = path.extension().and_then(|extension| extension.to_str());
            let Ok(bytes) = fs::read(&path) else { continue };
            if extension.is_some_and(|extension| SOURCES.contains(&extension)) || bytes.starts_with(b"#!") {
                let text = String::from_utf8(bytes).unwrap_or_else(|_| panic!("{} is not UTF-8", path.display()));
                sources.push(Source { path: path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned(), text });
            }
        }
    }
    assert!(sources.len() > 100, "the repository is found: {}", sources.len());
    sources
}

/// The files and lines of which `is_wrong` holds, as `path:line: text`.
fn lines_where(is_wrong: impl Fn(&Source, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if is_wrong(&source, line) {
                found.push(format!("{}:{}: {line}", source.path, number + 1));
            }
        }
    }
    found
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn connectors_know_no_webassembly_and_the_runtime_knows_no_program() {
    let uses = |manifest: &str| -> BTreeSet<String> {
        let text = fs::read_to_string(repository().join(manifest)).unwrap();
        let document: toml::Table = text.parse().unwrap();
        let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
        let tables = tables.iter().filter_map(|table| document.get(*table)?.as_table());
        tables.flat_map(|table| table.keys().cloned()).collect()
    };
    let forbidden = [
        (
            "host/connectors/Cargo.toml",
            ["wharf-runtime", "wharf", "wasmtime", "wasmtime-wasi", "wasmtime-wasi-http"].as_slice(),
        ),
        ("host/runtime/Cargo.toml", &["wharf", "clap", "toml"]),
        ("tests/dropbox-emulator/Cargo.toml", &["wharf", "wharf-runtime", "wharf-connectors"]),
    ];
    for (manifest, forbidden) in forbidden {
        let uses = uses(manifest);
        assert!(uses.contains("tokio"), "{manifest} was read: {uses:?}");
        let wrong: Vec<&&str> = forbidden.iter().filter(|name| uses.contains(**name)).collect();
        assert!(wrong.is_empty(), "{manifest} uses {wrong:?}");
    }
    assert!(uses("host/runtime/Cargo.toml").contains("wharf-connectors"));
}

#[test]
fn no_source_file_is_longer_than_one_can_read() {
    let sources = sources().into_iter().filter(|source| !source.is("md"));
    let long: Vec<String> = sources
        .map(|source| (source.text.lines().count(), source.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_eq!(long, nothing());
}

#[test]
fn every_rust_file_begins_by_saying_what_it_is() {
    let without: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.is("rs") && !source.text.starts_with("//! "))
        .map(|source| source.path)
        .collect();
    assert_eq!(without, nothing());
}

#[test]
fn no_work_is_left_to_be_done_later() {
    // Put together, so that this file is no find of itself.
    let words = [["TO", "DO"], ["FIX", "ME"], ["XX", "X"]].map(|halves| halves.concat());
    let is_word = |line: &str, word: &str| {
        line.match_indices(word).any(|(at, _)| {
            let before = line[..at].chars().next_back();
            let after = line[at + word.len()..].chars().next();
            [before, after].into_iter().flatten().all(|beside| !beside.is_alphanumeric())
        })
    };
    let found = lines_where(|_, line| words.iter().any(|word| is_word(line, word)));
    assert_eq!(found, nothing());
}

#[test]
fn no_test_is_switched_off() {
    let switch = ["#[", "ignore"].concat();
    assert_eq!(lines_where(|source, line| source.is("rs") && line.trim_start().starts_with(&switch)), nothing());
}

#[test]
fn no_file_names_the_home_of_a_person() {
    let homes = [["/", "root/"], ["/", "home/"], ["/", "Users/"]].map(|halves| halves.concat());
    let is_absolute = |line: &str, home: &str| {
        line.match_indices(home).any(|(at, _)| {
            // In the middle of a path it is a folder of that name.
            let before = line[..at].chars().next_back();
            !before.is_some_and(|before| before.is_alphanumeric() || matches!(before, '}' | '.' | '~' | '_' | '-'))
        })
    };
    assert_eq!(lines_where(|_, line| homes.iter().any(|home| is_absolute(line, home))), nothing());
}

#[test]
fn every_guest_is_used_by_a_test() {
    let root = repository();
    let mut guests = BTreeSet::new();
    for entry in fs::read_dir(root.join("tests/guests/examples")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            guests.insert(path.file_stem().unwrap().to_str().unwrap().to_owned());
        }
    }
    for language in ["rust", "javascript", "python", "c"] {
        for entry in fs::read_dir(root.join("guest-examples").join(language)).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            if path.is_dir() && !NOT_OURS.contains(&name.as_str()) {
                guests.insert(name);
            }
        }
    }
    assert!(guests.len() > 25, "the guests are found: {guests:?}");
    let tests: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path.starts_with("tests/it/") && source.path != "tests/it/tidy.rs")
        .map(|source| source.text)
        .collect();
    let is_used = |guest: &String| tests.iter().any(|text| text.contains(&format!("\"{guest}\"")));
    let unused: Vec<String> = guests.into_iter().filter(|guest| !is_used(guest)).collect();
    assert_eq!(unused, nothing());
}
