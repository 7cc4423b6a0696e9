//! How `ls` and `df` print what the server told.
//!
//! Knows no connection.

use std::cmp::Ordering;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::backend::EntryKind;
use crate::sftp::{FileSystem, Info};

/// What `ls` was asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Listing {
    pub(super) is_long: bool,
    pub(super) is_numeric: bool,
    pub(super) has_hidden: bool,
    pub(super) is_human: bool,
    pub(super) is_unsorted: bool,
    pub(super) is_reversed: bool,
    pub(super) by_size: bool,
    pub(super) by_time: bool,
}

impl Listing {
    pub(super) fn new(options: &str) -> Self {
        let has = |letter| options.contains(letter);
        Self {
            is_long: has('l') || has('n'),
            is_numeric: has('n'),
            has_hidden: has('a'),
            is_human: has('h'),
            is_unsorted: has('f'),
            is_reversed: has('r'),
            by_size: has('S'),
            by_time: has('t'),
        }
    }

    pub(super) fn sort(&self, infos: &mut [(String, Info)]) {
        if self.is_unsorted {
            return;
        }
        infos.sort_by(|(name, info), (other_name, other)| {
            let order = if self.by_size {
                other.size.cmp(&info.size)
            } else if self.by_time {
                other.modified.cmp(&info.modified)
            } else {
                Ordering::Equal
            };
            let order = order.then_with(|| name.cmp(other_name));
            if self.is_reversed { order.reverse() } else { order }
        });
    }

    pub(super) fn line(&self, name: &str, info: &Info, link: Option<&str>) -> String {
        if !self.is_long {
            return name.to_owned();
        }
        let owner = |id: Option<u32>, name: &Option<String>| match (name, id) {
            (Some(name), _) if !self.is_numeric => name.clone(),
            (_, Some(id)) => id.to_string(),
            _ => "?".to_owned(),
        };
        let size = info.size.unwrap_or_default();
        let size = if self.is_human { human(size) } else { size.to_string() };
        let modified = info.modified.and_then(|time| Timestamp::try_from(time).ok());
        let modified = modified.map_or_else(
            || "?".to_owned(),
            |time| time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        );
        let arrow = link.map(|target| format!(" -> {target}")).unwrap_or_default();
        format!(
            "{} {:<8} {:<8} {size:>12} {modified} {name}{arrow}",
            permissions(info),
            owner(info.user, &info.user_name),
            owner(info.group, &info.group_name),
        )
    }
}

/// As `ls -l` prints a mode.
fn permissions(info: &Info) -> String {
    let kind = match info.kind {
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::File => '-',
        EntryKind::Other => '?',
    };
    let Some(mode) = info.mode else { return format!("{kind}?????????") };
    let mut text = String::from(kind);
    for (shift, special, with, without) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => with,
            (true, false) => without,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// As `df` of sftp prints the space of a file system.
pub(super) fn space(told: &FileSystem, is_human: bool, has_files: bool) -> String {
    let percent = |used: u64, all: u64| if all == 0 { 0 } else { u128::from(used) * 100 / u128::from(all) };
    if has_files {
        let used = told.files.saturating_sub(told.files_free);
        let header = format!("{:>12} {:>12} {:>12} {:>12} {:>12}", "Inodes", "Used", "Avail", "(root)", "%Capacity");
        return format!(
            "{header}\n{:>12} {used:>12} {:>12} {:>12} {:>11}%\n",
            told.files,
            told.files_available,
            told.files_free,
            percent(used, told.files)
        );
    }
    let bytes = |blocks: u64| {
        let bytes = blocks.saturating_mul(told.fragment_bytes);
        if is_human { human(bytes) } else { (bytes / 1024).to_string() }
    };
    let used = told.blocks.saturating_sub(told.blocks_free);
    let header = format!("{:>12} {:>12} {:>12} {:>12} {:>12}", "Size", "Used", "Avail", "(root)", "%Capacity");
    format!(
        "{header}\n{:>12} {:>12} {:>12} {:>12} {:>11}%\n",
        bytes(told.blocks),
        bytes(used),
        bytes(told.blocks_available),
        bytes(told.blocks_free),
        percent(used, told.blocks)
    )
}

fn human(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["K", "M", "G", "T", "P", "E"];
    if bytes < 1024 {
        return format!("{bytes}B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_that_is_used_is_rounded_as_by_sftp() {
        let told = FileSystem {
            block_bytes: 4096,
            fragment_bytes: 4096,
            blocks: 66_053_021,
            blocks_free: 47_709_821,
            blocks_available: 5_478_272,
            files: 1000,
            files_free: 861,
            files_available: 861,
            name_bytes_max: 255,
            is_read_only: false,
        };
        let line = |has_files| space(&told, false, has_files).lines().nth(1).unwrap().to_owned();
        assert_eq!(line(false), "   264212084     73372800     21913088    190839284          27%");
        assert!(line(true).ends_with(" 13%"), "{}", line(true));
        assert!(space(&FileSystem { blocks: 0, ..told }, true, false).ends_with(" 0%\n"));
    }
}
