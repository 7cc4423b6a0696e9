//! `[service-defaults]` and `[services.NAME]`: what one service may do and use.
//!
//! Knows which connections there are by name and kind, to check grants against; knows nothing of how they are opened.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use wharf_connectors::RemotePath;
use wharf_runtime::{Access, Grant, ServiceSettings};

use super::connection::Kind;
use super::document::Section;
use super::values::{self, nearest, quoted};

/// From the least that a small guest starts with to all that 32-bit memory can address.
const MEMORY_BYTES: RangeInclusive<u64> = 1024 * 1024..=4 * 1024 * 1024 * 1024;
/// A shorter deadline ends every call, a longer one is a job and not a call.
const TIMEOUT: RangeInclusive<Duration> = Duration::from_millis(10)..=Duration::from_secs(24 * 60 * 60);
/// 0 would switch a service off silently; 10,000 is all instances that a host can have.
const CONCURRENCY: RangeInclusive<usize> = 1..=10_000;
/// 0 refuses at once; nobody who calls over HTTP waits longer than the upper one.
const QUEUE_TIMEOUT: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(10 * 60);
/// 1: a fresh instance per invocation. The upper one only keeps the number readable.
const REUSE: RangeInclusive<u32> = 1..=1_000_000;

const ACCESS: &[(&str, Access)] = &[("read", Access::Read), ("write", Access::Write)];

/// The settings in one table; what is absent is as in `defaults`.
pub(super) fn read(
    mut section: Section<'_>,
    defaults: &ServiceSettings,
    connections: &BTreeMap<String, Option<Kind>>,
) -> ServiceSettings {
    let settings = ServiceSettings {
        grants: grants(&mut section, connections).unwrap_or_else(|| defaults.grants.clone()),
        memory_bytes_max: section.read("memory", values::size(MEMORY_BYTES)).unwrap_or(defaults.memory_bytes_max),
        timeout: section.read("timeout", values::duration(TIMEOUT)).unwrap_or(defaults.timeout),
        concurrency: section.read("concurrency", values::count(CONCURRENCY)).unwrap_or(defaults.concurrency),
        queue_timeout: section.read("queue-timeout", values::duration(QUEUE_TIMEOUT)).unwrap_or(defaults.queue_timeout),
        reuse: section.read("reuse", values::count(REUSE)).unwrap_or(defaults.reuse),
    };
    section.reject_unknown_keys();
    settings
}

fn grants(section: &mut Section<'_>, connections: &BTreeMap<String, Option<Kind>>) -> Option<Vec<Grant>> {
    let mut grants: Vec<Grant> = Vec::new();
    for mut item in section.listed_sections("grants")? {
        let connection = item.required("connection", "the name of a connection", values::text);
        let access = item.read("access", values::choice(ACCESS)).unwrap_or(Access::Read);
        let path = item.read("path", values::remote_path).unwrap_or_else(RemotePath::root);
        if let Some(connection) = connection {
            if !connections.contains_key(&connection) {
                item.problem_at("connection", unknown_connection(&connection, connections));
            }
            // Grants on one connection add up, each with its own path; a second one for the same path is a slip.
            if grants.iter().any(|grant| grant.connection == connection && grant.path == path) {
                item.problem(format!(
                    "{} is granted twice with path {}; keep one of the two",
                    quoted(&connection),
                    quoted(path.as_str())
                ));
            }
            grants.push(Grant { connection, access, path });
        }
        item.reject_unknown_keys();
    }
    Some(grants)
}

fn unknown_connection(name: &str, connections: &BTreeMap<String, Option<Kind>>) -> String {
    let no_such = format!("no connection {} is configured", quoted(name));
    if connections.is_empty() {
        return format!("{no_such}; add a table [connections.NAME]");
    }
    match nearest(name, connections.keys().map(String::as_str)) {
        Some(near) => format!("{no_such}; did you mean {}?", quoted(near)),
        None => {
            // As many as a person reads in one line.
            const SHOWN: usize = 10;
            let mut names: Vec<&str> = connections.keys().map(String::as_str).take(SHOWN).collect();
            if connections.len() > SHOWN {
                names.push("...");
            }
            format!("{no_such}; there are: {}", names.join(", "))
        }
    }
}
