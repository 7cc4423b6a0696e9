//! `docs/configuration.md` is held to what the program does: its examples, its tables, its defaults.

use std::collections::BTreeSet;

use super::*;

const DOCUMENT: &str = include_str!("../../../../../docs/configuration.md");

/// What stands between the fences of the blocks in TOML.
fn examples() -> Vec<&'static str> {
    let blocks = DOCUMENT.split("\n```toml\n").skip(1);
    blocks.map(|block| block.split_once("\n```").expect("a block that ends").0).collect()
}

/// A place with everything that the examples refer to.
fn place() -> Place {
    let mut place = Place::new();
    for name in ["PARTNER_PASSWORD", "DROPBOX_APP_SECRET"] {
        place.variables.insert(name.to_owned(), "secret".into());
    }
    place.write("secrets/partner.password", "secret");
    place.write("secrets/partner_ed25519", "a private key");
    place.write("partner-files/kept", "");
    place
}

#[test]
fn every_example_is_a_good_configuration() {
    let examples = examples();
    assert!(examples.len() > 8, "found only {} examples", examples.len());
    for example in examples {
        let place = place();
        let text = format!("{example}\n");
        assert_eq!(place.problems(&text), "no problem", "for:\n{text}");
    }
}

#[test]
fn the_documented_defaults_are_those_of_the_program() {
    let defaults = examples().pop().unwrap();
    let place = place();
    let written = place.load(defaults).unwrap();
    let built_in = place.load("").unwrap();
    let settings = |configuration: &Configuration| {
        let settings = configuration.fixed_settings().into_iter();
        settings.map(|(key, value)| (key, value.replace("/./", "/"))).collect::<Vec<_>>()
    };
    assert_eq!(settings(&written), settings(&built_in));
    assert_eq!(written.egress_networks, built_in.egress_networks);
    assert_eq!(format!("{:?}", written.live.service_defaults), format!("{:?}", built_in.live.service_defaults));
    for (key, _) in built_in.fixed_settings() {
        let (_, name) = key.split_once('.').unwrap();
        // The one setting that has no default.
        assert!(key == "http.body-max" || defaults.contains(&format!("\n{name} = ")), "{key} is left out");
    }
}

/// The tables of the document by their headings, and a table of TOML that each describes.
const TABLES: [(&str, &str); 11] = [
    ("\n## `[host]`", "[host]"),
    ("\n## `[http]`", "[http]"),
    ("\n## `[admin]`", "[admin]"),
    ("\n## `[services.NAME]`", "[services.a]"),
    ("\n| Key of a grant", "[[services.a.grants]]"),
    ("\n## `[connections.NAME]`", "[connections.a]\ntype = 'local'"),
    ("\n### `type = \"local\"`", "[connections.a]\ntype = 'local'"),
    ("\n### `type = \"ftp\"`", "[connections.a]\ntype = 'ftp'"),
    ("\n### `type = \"sftp\"`", "[connections.a]\ntype = 'sftp'"),
    ("\n### `type = \"dropbox\"`", "[connections.a]\ntype = 'dropbox'"),
    ("\n### `type = \"http\"`", "[connections.a]\ntype = 'http'"),
];

/// The rows of the first table after a heading, cell by cell.
fn rows(heading: &str) -> Vec<Vec<&'static str>> {
    let (_, section) = DOCUMENT.split_once(heading).unwrap_or_else(|| panic!("no heading {heading}"));
    let (_, table) = section.split_once("\n|---").expect("a table");
    let lines = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    lines.map(|line| line.trim_matches('|').split(" | ").map(|cell| cell.trim().trim_matches('`')).collect()).collect()
}

fn documented_keys(heading: &str) -> BTreeSet<&'static str> {
    rows(heading).into_iter().map(|row| row[0]).collect()
}

#[test]
fn every_key_is_documented_and_every_documented_key_exists() {
    let place = place();
    for (heading, table) in TABLES {
        let problems = place.problems(format!("{table}\nno-such-setting-anywhere = 1"));
        let (_, known) = problems.split_once("known here: ").unwrap();
        let known: BTreeSet<&str> = known.lines().next().unwrap().split(", ").collect();
        let mut documented = documented_keys(heading);
        if table.contains("[connections") {
            documented.extend(documented_keys("\n## `[connections.NAME]`"));
            if heading.contains("NAME") {
                documented.insert("folder");
            }
        }
        assert_eq!(documented, known, "below {heading}");
    }
}

#[test]
fn the_documented_limits_are_those_of_the_program() {
    let place = place();
    let mut checked = 0;
    for (heading, table) in TABLES.into_iter().filter(|(heading, _)| heading.contains('#')) {
        for row in rows(heading) {
            let (key, form, limits) = (row[0], row[1], row[3]);
            let too_much = match form {
                "size" => "'15EiB'",
                "duration" => "'99999h'",
                "number" => "99999999999",
                _ => continue,
            };
            let problems = place.problems(format!("{table}\n{key} = {too_much}"));
            let expected =
                format!(".{key}: {} is out of bounds; it must be from {limits}", too_much.replace('\'', "\""));
            assert!(problems.lines().any(|line| line.ends_with(&expected)), "{key} {limits}, but:\n{problems}");
            checked += 1;
        }
    }
    assert!(checked >= 20, "found only {checked} limits");
}
