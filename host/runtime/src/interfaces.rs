//! The names of the interfaces that a component may import, for telling the author of one that asks for something
//! else what is nearest. Knows names and versions alone; what is really linked is in [`crate::imports`].

/// Every interface that the host offers, without versions of the patch level: `package/interface@major.minor`.
const OFFERED: &[(&str, &[&str], &str)] = &[
    ("wharf:host", &["types", "services", "files", "dropbox", "http", "ftp", "sftp"], "0.1.0"),
    ("wasi:io", &["error", "poll", "streams"], "0.2.12"),
    ("wasi:clocks", &["monotonic-clock", "wall-clock", "timezone"], "0.2.12"),
    ("wasi:random", &["random", "insecure", "insecure-seed"], "0.2.12"),
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        "0.2.12",
    ),
    ("wasi:filesystem", &["types", "preopens"], "0.2.12"),
    (
        "wasi:sockets",
        &["network", "instance-network", "ip-name-lookup", "tcp", "tcp-create-socket", "udp", "udp-create-socket"],
        "0.2.12",
    ),
    ("wasi:http", &["types", "outgoing-handler"], "0.2.12"),
    ("wasi:clocks", &["types", "monotonic-clock", "system-clock", "timezone"], "0.3.0"),
    ("wasi:random", &["random", "insecure", "insecure-seed"], "0.3.0"),
    (
        "wasi:cli",
        &[
            "environment",
            "exit",
            "stdin",
            "stdout",
            "stderr",
            "types",
            "terminal-input",
            "terminal-output",
            "terminal-stdin",
            "terminal-stdout",
            "terminal-stderr",
        ],
        "0.3.0",
    ),
    ("wasi:filesystem", &["types", "preopens"], "0.3.0"),
    ("wasi:sockets", &["types", "ip-name-lookup"], "0.3.0"),
    ("wasi:http", &["types", "client", "handler"], "0.3.0"),
];

/// Why an import cannot be met, or `None` when an interface of this name and a compatible version is offered.
pub(crate) fn why_not_offered(import: &str) -> Option<String> {
    let (name, version) = match import.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (import, None),
    };
    let offered = || {
        OFFERED.iter().flat_map(|(package, interfaces, version)| {
            interfaces.iter().map(move |interface| (format!("{package}/{interface}"), *version))
        })
    };
    let same_name: Vec<&str> = offered().filter(|(offer, _)| offer == name).map(|(_, version)| version).collect();
    if let Some(wanted) = version
        && same_name.iter().any(|offer| is_compatible(wanted, offer))
    {
        return None;
    }
    if !same_name.is_empty() {
        return Some(format!(
            "it imports {import}; this host has {name} in version {}: build it against that",
            same_name.join(" and ")
        ));
    }
    let nearest = offered()
        .max_by(|(left, _), (right, _)| strsim::jaro_winkler(left, name).total_cmp(&strsim::jaro_winkler(right, name)));
    let nearest = nearest.map_or_else(String::new, |(offer, version)| format!("; the nearest is {offer}@{version}"));
    Some(format!("it imports {import}, which this host does not have{nearest}"))
}

/// Whether what was built against `wanted` can be given `offered`: the same up to the first number that is not zero
/// (Semantic Versioning 2.0.0, items 4 and 8), no pre-release involved. A patch or minor version that is newer than
/// the one offered is tried: the linker decides by what is really used.
fn is_compatible(wanted: &str, offered: &str) -> bool {
    let numbers = |version: &str| -> Option<Vec<u64>> { version.split('.').map(|part| part.parse().ok()).collect() };
    let (Some(wanted), Some(offered)) = (numbers(wanted), numbers(offered)) else { return false };
    let significant = offered.iter().position(|&number| number != 0).unwrap_or(offered.len().saturating_sub(1));
    wanted.len() == offered.len() && wanted[..=significant] == offered[..=significant]
}

#[cfg(test)]
mod tests {
    use super::why_not_offered;

    #[test]
    fn older_and_newer_patch_versions_are_offered() {
        assert_eq!(why_not_offered("wasi:io/streams@0.2.0"), None);
        assert_eq!(why_not_offered("wharf:host/files@0.1.7"), None);
        assert_eq!(why_not_offered("wasi:http/types@0.3.0"), None);
    }

    #[test]
    fn another_version_names_the_one_that_is_there() {
        let why = why_not_offered("wharf:host/files@0.9.0").unwrap();
        assert!(why.contains("in version 0.1.0"), "{why}");
    }

    #[test]
    fn an_unknown_interface_names_the_nearest_one() {
        let why = why_not_offered("wharf:host/file@0.1.0").unwrap();
        assert!(why.contains("the nearest is wharf:host/files@0.1.0"), "{why}");
    }
}
