//! What a line of a listing says: the machine form of `MLSD` and `MLST` (RFC 3659, section 7), and the forms that
//! `LIST` takes on Unix and on Windows, which no standard describes.
//!
//! Tolerant of what servers write and indifferent to what they mean by it: a name is returned as it stands, and whether
//! it is one is checked where it becomes a path. Knows no connection.

use std::time::{Duration, SystemTime};

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::backend::EntryKind;

/// An entry as it is listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: String,
    pub(super) kind: EntryKind,
    pub(super) size: Option<u64>,
    pub(super) modified: Option<SystemTime>,
    /// Where a link leads, as `LIST` writes it behind its name.
    pub(super) leads_to: Option<String>,
    /// The fact `UNIX.mode`.
    pub(super) mode: Option<u32>,
}

/// The names that a line may tell of: those of a link and of where it leads are told apart by an arrow that either may hold
/// as well.
pub(super) fn names_told(listed: &Listed) -> Vec<String> {
    let Some(leads_to) = &listed.leads_to else { return vec![listed.name.clone()] };
    let line = format!("{} -> {leads_to}", listed.name);
    line.match_indices(" -> ").map(|(end, _)| line[..end].to_owned()).collect()
}

/// What a line is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    Entry(Listed),
    /// Nothing to see: a sum, the folder itself, an empty line.
    Nothing,
    Unreadable,
}

/// A line of `MLSD`: `type=file;size=1024;modify=20260102030405; name`.
pub(super) fn machine_line(line: &str) -> Line {
    if line.is_empty() {
        return Line::Nothing;
    }
    // A value has no semicolon, so the first one before a space ends the facts; a line may also have none.
    let (facts, name) = match (line.strip_prefix(' '), line.split_once("; ")) {
        (Some(name), _) => ("", name),
        (None, Some((facts, name))) => (facts, name),
        (None, None) => return Line::Unreadable,
    };
    if name.is_empty() {
        return Line::Unreadable;
    }
    let (listed, is_folder_itself) = read_facts(facts);
    if is_folder_itself { Line::Nothing } else { Line::Entry(Listed { name: name.to_owned(), ..listed }) }
}

/// The line of the reply to `MLST` that has the facts; `None` for any other line. The name is left empty.
pub(super) fn facts(line: &str) -> Option<Listed> {
    let line = line.trim_start();
    let facts = line.split_once("; ").map_or(line, |(facts, _)| facts);
    let is_facts = facts.split(';').next().is_some_and(|fact| fact.contains('=') && !fact.contains(' '));
    is_facts.then(|| read_facts(facts).0)
}

/// The facts, and whether they are those of the listed folder itself or of its parent.
fn read_facts(facts: &str) -> (Listed, bool) {
    let mut listed =
        Listed { name: String::new(), kind: EntryKind::Other, size: None, modified: None, leads_to: None, mode: None };
    let mut is_folder_itself = false;
    for (name, value) in facts.split(';').filter_map(|fact| fact.split_once('=')) {
        match name.trim().to_ascii_lowercase().as_str() {
            "type" => {
                let value = value.to_ascii_lowercase();
                listed.kind = match value.as_str() {
                    "file" => EntryKind::File,
                    "dir" => EntryKind::Directory,
                    "cdir" | "pdir" => {
                        is_folder_itself = true;
                        EntryKind::Directory
                    }
                    _ if value.starts_with("os.unix=slink") || value.starts_with("os.unix=symlink") => {
                        EntryKind::Symlink
                    }
                    _ => EntryKind::Other,
                };
            }
            "size" => listed.size = value.parse().ok(),
            "modify" => listed.modified = timestamp(value),
            "unix.mode" => listed.mode = u32::from_str_radix(value, 8).ok(),
            _ => {}
        }
    }
    if listed.kind != EntryKind::File {
        listed.size = None;
    }
    (listed, is_folder_itself)
}

/// A time as `MDTM` and the fact `modify` write it: `YYYYMMDDHHMMSS` and perhaps a fraction, always UTC (RFC 3659,
/// section 2.3).
pub(super) fn timestamp(text: &str) -> Option<SystemTime> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.len() != 14 || !whole.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| whole.get(from..to)?.parse::<i16>().ok();
    let small = |from: usize, to: usize| whole.get(from..to)?.parse::<i8>().ok();
    let date = Date::new(number(0, 4)?, small(4, 6)?, small(6, 8)?).ok()?;
    // A leap second counts as the one before it.
    let time = Time::new(small(8, 10)?, small(10, 12)?, small(12, 14)?.min(59), 0).ok()?;
    let nanoseconds = match fraction.get(..fraction.len().min(9)) {
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("{digits:0<9}").parse().ok()?
        }
        _ => 0,
    };
    as_utc(date.to_datetime(time))?.checked_add(Duration::from_nanos(nanoseconds))
}

/// A time as `MFMT` and `MDTM` write it, in whole seconds; `None` for a year that has not four digits.
pub(super) fn time_stamp(time: SystemTime) -> Option<String> {
    let utc = Timestamp::try_from(time).ok()?.to_zoned(TimeZone::UTC);
    (0..=9999).contains(&utc.year()).then(|| utc.strftime("%Y%m%d%H%M%S").to_string())
}

/// A line of `LIST`. Its times are those of the server's clock and have no zone; they are taken as UTC. `now` tells
/// the year of those that have none.
pub(super) fn human_line(line: &str, now: SystemTime) -> Line {
    if line.trim().is_empty() || is_sum(line) {
        return Line::Nothing;
    }
    match unix_line(line, now).or_else(|| dos_line(line)) {
        Some(listed) if !listed.name.is_empty() => Line::Entry(listed),
        _ => Line::Unreadable,
    }
}

/// `total 1234`, in the language of the server.
fn is_sum(line: &str) -> bool {
    let mut words = line.split_whitespace();
    let (word, number, end) = (words.next(), words.next(), words.next());
    word.is_some_and(|word| word.chars().all(char::is_alphabetic))
        && number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        && end.is_none()
}

/// `drwxr-xr-x   2 owner group     4096 Jan  2 15:04 name`. Owner and group may be missing or have spaces, so the date
/// is searched for: three words of which the one before is a number.
fn unix_line(line: &str, now: SystemTime) -> Option<Listed> {
    let kind = match line.chars().next()? {
        '-' => EntryKind::File,
        'd' => EntryKind::Directory,
        'l' => EntryKind::Symlink,
        'b' | 'c' | 'p' | 's' => EntryKind::Other,
        _ => return None,
    };
    let words: Vec<(usize, &str)> = words(line).collect();
    // What stands first are the permissions: nine letters, perhaps with a mark behind them.
    if !(10..=11).contains(&words.first()?.1.chars().count()) {
        return None;
    }
    let (size, when, name_at) = (1..words.len()).find_map(|index| {
        let size: u64 = words[index].1.parse().ok()?;
        let (date, length) = unix_date(&words[index + 1..], now)?;
        let (at, last) = words[index + length];
        // One space belongs to the date, all others to the name.
        Some((size, date, at + last.len() + 1))
    })?;
    let name = line.get(name_at..)?;
    let (name, leads_to) = match (kind, name.split_once(" -> ")) {
        (EntryKind::Symlink, Some((name, leads_to))) => (name, Some(leads_to.to_owned())),
        _ => (name, None),
    };
    Some(Listed {
        name: name.to_owned(),
        kind,
        size: (kind == EntryKind::File).then_some(size),
        modified: as_utc(when),
        leads_to,
        mode: None,
    })
}

/// A date at the beginning of these words, and how many of them it is made of.
fn unix_date(words: &[(usize, &str)], now: SystemTime) -> Option<(DateTime, usize)> {
    let word = |index: usize| words.get(index).map(|(_, word)| *word);
    if let Ok(date) = word(0)?.parse::<Date>() {
        return Some((date.to_datetime(clock(word(1)?)?), 2));
    }
    let (month, day) = match (month(word(0)?), month(word(1)?)) {
        (Some(month), _) => (month, word(1)?),
        (None, Some(month)) => (month, word(0)?),
        (None, None) => return None,
    };
    let day: i8 = day.trim_end_matches('.').parse().ok()?;
    let last = word(2)?;
    if let Some(time) = clock(last) {
        let today = Timestamp::try_from(now).ok()?.to_zoned(TimeZone::UTC).datetime();
        // The server's clock may be ahead by its zone.
        let latest = today.checked_add(1.day()).ok()?;
        // The year before also when this one has no such day: the 29th of February.
        let this_year = Date::new(today.year(), month, day).ok().map(|date| date.to_datetime(time));
        return match this_year {
            Some(moment) if moment <= latest => Some((moment, 3)),
            _ => Some((Date::new(today.year() - 1, month, day).ok()?.to_datetime(time), 3)),
        };
    }
    let year: i16 = if last.len() == 4 { last.parse().ok()? } else { return None };
    Some((Date::new(year, month, day).ok()?.to_datetime(Time::midnight()), 3))
}

fn month(word: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
    let index = MONTHS.iter().position(|month| word.eq_ignore_ascii_case(month))?;
    i8::try_from(index + 1).ok()
}

/// `15:04`, perhaps with seconds.
fn clock(word: &str) -> Option<Time> {
    let mut parts = word.splitn(3, ':').map(|part| part.split('.').next().unwrap_or(part).parse::<i8>());
    let (hour, minute) = (parts.next()?.ok()?, parts.next()?.ok()?);
    let second = parts.next().unwrap_or(Ok(0)).ok()?;
    Time::new(hour, minute, second, 0).ok()
}

/// `01-02-26  03:04PM       <DIR>          name`, `2026-01-02  15:04      1,024 name`.
fn dos_line(line: &str) -> Option<Listed> {
    let words: Vec<(usize, &str)> = words(line).take(3).collect();
    let [(_, date), (_, time), (at, size)] = words.as_slice() else { return None };
    let when = dos_date(date)?.to_datetime(dos_clock(time)?);
    let rest = line.get(at + size.len()..)?;
    let (kind, size, name) = match size.strip_prefix('<') {
        // Padded to the column in which names begin.
        Some(mark) => {
            let kind = if mark.eq_ignore_ascii_case("DIR>") { EntryKind::Directory } else { EntryKind::Symlink };
            (kind, None, rest.trim_start())
        }
        None => {
            let digits: String = size.chars().filter(|character| !matches!(character, ',' | '.')).collect();
            (EntryKind::File, Some(digits.parse().ok()?), rest.strip_prefix(' ')?)
        }
    };
    Some(Listed { name: name.to_owned(), kind, size, modified: as_utc(when), leads_to: None, mode: None })
}

fn dos_date(word: &str) -> Option<Date> {
    let mut parts = word.split(['-', '/', '.']);
    let (first, second, third) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |part: &str| part.parse::<i16>().ok();
    let (year, month, day) = match first.len() {
        4 => (number(first)?, second, third),
        _ => (number(third)?, first, second),
    };
    let year = match year {
        0..70 => 2000 + year,
        70..100 => 1900 + year,
        _ => year,
    };
    Date::new(year, month.parse().ok()?, day.parse().ok()?).ok()
}

fn dos_clock(word: &str) -> Option<Time> {
    let upper = word.to_ascii_uppercase();
    let (digits, add) = match (upper.strip_suffix("AM"), upper.strip_suffix("PM")) {
        (Some(digits), _) => (digits, Some(0)),
        (_, Some(digits)) => (digits, Some(12)),
        _ => (upper.as_str(), None),
    };
    let time = clock(digits)?;
    match add {
        Some(add) => Time::new(time.hour() % 12 + add, time.minute(), time.second(), 0).ok(),
        None => Some(time),
    }
}

/// The words of a line with the offsets at which they begin.
fn words(line: &str) -> impl Iterator<Item = (usize, &str)> {
    line.split([' ', '\t'])
        .scan(0, |next, word| {
            let at = *next;
            *next += word.len() + 1;
            Some((at, word))
        })
        .filter(|(_, word)| !word.is_empty())
}

fn as_utc(moment: DateTime) -> Option<SystemTime> {
    moment.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time(text: &str) -> SystemTime {
        text.parse::<Timestamp>().unwrap().into()
    }

    fn now() -> SystemTime {
        time("2026-03-10T12:00:00Z")
    }

    fn human(line: &str) -> Listed {
        match human_line(line, now()) {
            Line::Entry(listed) => listed,
            other => panic!("{line:?} is {other:?}"),
        }
    }

    fn machine(line: &str) -> Listed {
        match machine_line(line) {
            Line::Entry(listed) => Listed { mode: None, ..listed },
            other => panic!("{line:?} is {other:?}"),
        }
    }

    fn listed(name: &str, kind: EntryKind, size: Option<u64>, modified: Option<&str>) -> Listed {
        Listed { name: name.to_owned(), kind, size, modified: modified.map(time), leads_to: None, mode: None }
    }

    #[test]
    fn the_permissions_of_an_entry_are_among_its_facts() {
        let mode = |line: &str| facts(line).unwrap().mode;
        assert_eq!(mode(" modify=20261122000134;size=13;type=file;UNIX.mode=0777; /in/link"), Some(0o777));
        assert_eq!(mode(" type=file;UNIX.mode=rw; a"), None);
        assert_eq!(mode(" type=file; UNIX.mode=0644"), None);
    }

    #[test]
    fn a_line_tells_of_a_link_also_when_its_name_has_an_arrow() {
        let linked = human("lrwxrwxrwx   1 alice    0   13 Nov 22 00:01 a -> b -> ../secret");
        assert_eq!(names_told(&linked), ["a", "a -> b"]);
        assert_eq!(names_told(&human("-rw-r--r--   1 alice    0   4 Nov 22 00:01 a -> b")), ["a -> b"]);
        assert_eq!(names_told(&machine("type=OS.unix=slink:; a")), ["a"]);
    }

    #[test]
    fn machine_listings_are_read_whatever_their_case_and_order() {
        let file = Some("2026-01-02T03:04:05Z");
        for line in [
            "type=file;size=1024;modify=20260102030405; report; final.csv",
            "Size=1024;Modify=20260102030405.000;Type=FILE;UNIX.mode=0644; report; final.csv",
            "modify=20260102030405;perm=adfrw;size=1024;type=file;unique=FE00U1;UNIX.ownername=a; report; final.csv",
        ] {
            assert_eq!(machine(line), listed("report; final.csv", EntryKind::File, Some(1024), file));
        }
        assert_eq!(machine("type=dir;sizd=4096;size=4096; a"), listed("a", EntryKind::Directory, None, None));
        assert_eq!(machine("type=OS.unix=slink:/etc; a"), listed("a", EntryKind::Symlink, None, None));
        assert_eq!(machine("type=OS.unix=chr-1/3; a"), listed("a", EntryKind::Other, None, None));
        assert_eq!(machine("  two spaces"), listed(" two spaces", EntryKind::Other, None, None));
        assert_eq!(machine("type=file;  a "), listed(" a ", EntryKind::File, None, None));
    }

    #[test]
    fn the_folder_itself_and_its_parent_are_not_among_its_entries() {
        assert_eq!(machine_line("type=cdir; ."), Line::Nothing);
        assert_eq!(machine_line("type=pdir;modify=20260102030405; /"), Line::Nothing);
        assert_eq!(human_line("total 48", now()), Line::Nothing);
        assert_eq!(human_line("insgesamt 48", now()), Line::Nothing);
        assert_eq!(human_line("", now()), Line::Nothing);
    }

    #[test]
    fn the_facts_of_a_single_entry_are_found_among_the_lines_of_the_reply() {
        assert!(facts("250 End").is_none());
        assert!(facts("250 End of list for a=b; c").is_none());
        let found = facts(" modify=20260102030405;type=file;size=7; /a b").unwrap();
        assert_eq!((found.kind, found.size), (EntryKind::File, Some(7)));
        assert_eq!(facts("type=dir; /").unwrap().kind, EntryKind::Directory);
        assert_eq!(facts(" type=cdir; /").unwrap().kind, EntryKind::Directory);
    }

    #[test]
    fn unix_listings_are_read_in_their_variants() {
        let cases = [
            ("-rw-r--r--   1 ftp      ftp          1024 Jan  2 03:04 a.txt", "2026-01-02T03:04:00Z"),
            ("-rw-r--r--   1 ftp      ftp          1024 Jan  2  2024 a.txt", "2024-01-02T00:00:00Z"),
            ("-rw-r--r--   1 ftp      ftp          1024 Dec 24 18:00 a.txt", "2025-12-24T18:00:00Z"),
            ("-rw-r--r--   1 ftp      ftp          1024 Mar 11 02:00 a.txt", "2026-03-11T02:00:00Z"),
            ("-rw-r--r--+  1 domain users          1024 Jan  2 03:04 a.txt", "2026-01-02T03:04:00Z"),
            ("-rw-r--r--   1 ftp                   1024 Jan  2 03:04 a.txt", "2026-01-02T03:04:00Z"),
            ("-rw-r--r-- 1 ftp ftp 1024 2 Jan 03:04 a.txt", "2026-01-02T03:04:00Z"),
            ("-rw-r--r-- 1 ftp ftp 1024 2024-01-02 03:04 a.txt", "2024-01-02T03:04:00Z"),
        ];
        for (line, modified) in cases {
            assert_eq!(human(line), listed("a.txt", EntryKind::File, Some(1024), Some(modified)), "{line}");
        }
        assert_eq!(human("drwxr-xr-x   2 0 0  4096 Jan  2  2024 a").kind, EntryKind::Directory);
        assert_eq!(human("crw-rw-rw-   1 0 0  1, 3 Jan  2  2024 null").kind, EntryKind::Other);
    }

    #[test]
    fn spaces_of_a_name_belong_to_it() {
        for name in ["  two before", "two  between", "two after  ", "Jan  2 03:04 x", "1024 Jan 2 2024"] {
            let line = format!("-rw-r--r--   1 ftp  ftp  7 Jan  2 03:04 {name}");
            assert_eq!(human(&line).name, name);
            assert_eq!(human(&format!("01-02-26  03:04PM  7 {name}")).name, name);
        }
    }

    #[test]
    fn where_a_link_leads_is_no_part_of_its_name() {
        let link = human("lrwxrwxrwx   1 0 0  7 Jan  2  2024 current -> releases/7");
        let named = listed("current", EntryKind::Symlink, None, Some("2024-01-02T00:00:00Z"));
        assert_eq!(link, Listed { leads_to: Some("releases/7".to_owned()), ..named });
        assert_eq!(human("-rw-r--r--   1 0 0  7 Jan  2  2024 a -> b").name, "a -> b");
    }

    #[test]
    fn a_day_that_this_year_does_not_have_was_last_year() {
        let leap = time("2025-01-10T12:00:00Z");
        let Line::Entry(found) = human_line("-rw-r--r-- 1 0 0 7 Feb 29 03:04 a", leap) else { panic!() };
        assert_eq!(found.modified, Some(time("2024-02-29T03:04:00Z")));
    }

    #[test]
    fn windows_listings_are_read_in_their_variants() {
        let at = Some("2026-01-02T15:04:00Z");
        for line in ["01-02-26  03:04PM  1024 a b", "01-02-2026  15:04  1,024 a b", "2026-01-02  15:04  1024 a b"] {
            assert_eq!(human(line), listed("a b", EntryKind::File, Some(1024), at), "{line}");
        }
        let folder = human("01-02-26  12:04AM       <DIR>          a b");
        assert_eq!(folder, listed("a b", EntryKind::Directory, None, Some("2026-01-02T00:04:00Z")));
        assert_eq!(human("01-02-99  12:04PM  7 a").modified, Some(time("1999-01-02T12:04:00Z")));
    }

    #[test]
    fn junk_is_unreadable() {
        for line in [
            "hello",
            "d",
            "drwxr-xr-x",
            "-rw-r--r-- 1 0 0 7 Foo 2 2024 a",
            "01-02-26 03:04PM",
            "é é é é é",
            "-rw-r--r-- 1 0 0 7 Jan 2 2024",
            "-rw-r--r-- 1 0 0 7 Jan 2 2024 ",
            "99-99-99 99:99PM 7 a",
        ] {
            assert_eq!(human_line(line, now()), Line::Unreadable, "{line}");
        }
        for line in ["hello", "type=file;", "type=file; ", " "] {
            assert_eq!(machine_line(line), Line::Unreadable, "{line:?}");
        }
    }

    #[test]
    fn times_are_exact_or_absent() {
        assert_eq!(timestamp("20260102030405.5"), Some(time("2026-01-02T03:04:05.5Z")));
        assert_eq!(timestamp("19700101000000"), Some(SystemTime::UNIX_EPOCH));
        assert_eq!(timestamp("20261231235960"), Some(time("2026-12-31T23:59:59Z")));
        for text in ["", "2026", "191260102030405", "20261302030405", "2026010203040x", "+0260102030405"] {
            assert_eq!(timestamp(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_line_is_too_strange(line in "(?s).{0,80}|[-dl][-rwx]{9} +[0-9]+ .{0,20} [0-9]{1,25} (Jan|Feb 3|Dec 99) .{0,30}") {
            human_line(&line, now());
            machine_line(&line);
            facts(&line);
            timestamp(&line);
        }

        #[test]
        fn a_name_comes_through_every_form(name in "[^\\s/][^/\r\n]{0,40}", size: u64) {
            let forms = [
                human(&format!("-rw-r--r--   1 ftp  ftp  {size} Jan  2 03:04 {name}")),
                human(&format!("01-02-26  03:04AM  {size} {name}")),
                machine(&format!("size={size};type=file;modify=20260102030400; {name}")),
            ];
            for form in forms {
                prop_assert_eq!(form, listed(&name, EntryKind::File, Some(size), Some("2026-01-02T03:04:00Z")));
            }
        }
    }
}
