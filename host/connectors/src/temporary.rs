//! The names of files on their way: unique, hidden, recognisable, and within what file systems take.

use crate::backend::ResumeKey;

/// Longest name in bytes on nearly every file system (NAME_MAX of Linux; NTFS counts UTF-16 units, which are fewer).
const NAME_BYTES_MAX: usize = 255;

/// A name for the content of `name` until it is complete: `.report.csv.1f0c9a7be2d45c3b.part`. A long name is cut.
pub(crate) fn name_for(name: &str) -> String {
    marked(name, &format!("{:016x}", rand::random::<u64>()))
}

/// The name of content that can be continued: the same for the same key.
pub(crate) fn name_for_key(name: &str, key: &ResumeKey) -> String {
    marked(name, key.as_str())
}

fn marked(name: &str, mark: &str) -> String {
    let suffix = format!(".{mark}.part");
    let mut kept = name.len().min(NAME_BYTES_MAX - 1 - suffix.len());
    while !name.is_char_boundary(kept) {
        kept -= 1;
    }
    format!(".{}{suffix}", &name[..kept])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temporary_name_is_hidden_and_tells_what_it_becomes() {
        let name = name_for("report.csv");
        assert!(name.starts_with(".report.csv."), "{name}");
        assert!(name.ends_with(".part"), "{name}");
        assert_ne!(name, name_for("report.csv"));
    }

    #[test]
    fn the_temporary_name_of_a_name_as_long_as_can_be_fits_too() {
        for name in ["n".repeat(255), "ä".repeat(127), "🚢".repeat(63)] {
            let temporary = name_for(&name);
            assert!(temporary.len() <= NAME_BYTES_MAX, "{} bytes", temporary.len());
            assert!(temporary.len() > NAME_BYTES_MAX - 4, "{} bytes", temporary.len());
        }
    }
}
