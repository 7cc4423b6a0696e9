//! A ZIP archive of stored, uncompressed files (PKWARE APPNOTE 6.3, without ZIP64): enough for archives of test data.

use super::content::Content;

/// General purpose bit 11: names are UTF-8.
const UTF8_NAMES: u16 = 1 << 11;

/// Midnight of the first day that the format knows.
const DOS_DATE: u16 = (1 << 5) | 1;

/// An archive of these files and folders; a folder's name ends with a slash and has no content. `None` when the format
/// cannot hold it.
pub(crate) fn archive(entries: &[(String, Option<&Content>)]) -> Option<Vec<u8>> {
    let mut archive = Vec::new();
    let mut directory = Vec::new();
    for (name, content) in entries {
        let bytes = content.map(Content::to_vec).unwrap_or_default();
        let (offset, size) = (u32::try_from(archive.len()).ok()?, u32::try_from(bytes.len()).ok()?);
        let length = u16::try_from(name.len()).ok()?;
        let mut common = Vec::new();
        for field in [20, UTF8_NAMES, 0, 0, DOS_DATE] {
            common.extend(field.to_le_bytes());
        }
        for field in [crc32(&bytes), size, size] {
            common.extend(field.to_le_bytes());
        }
        common.extend(length.to_le_bytes());
        common.extend(0_u16.to_le_bytes());
        archive.extend(0x0403_4b50_u32.to_le_bytes());
        archive.extend(&common);
        archive.extend(name.as_bytes());
        archive.extend(bytes);
        directory.extend(0x0201_4b50_u32.to_le_bytes());
        directory.extend(20_u16.to_le_bytes());
        directory.extend(&common);
        // Comment, disk, attributes.
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, size) = (u32::try_from(archive.len()).ok()?, u32::try_from(directory.len()).ok()?);
    let count = u16::try_from(entries.len()).ok()?;
    archive.extend(directory);
    archive.extend(0x0605_4b50_u32.to_le_bytes());
    archive.extend([0; 4]);
    archive.extend(count.to_le_bytes());
    archive.extend(count.to_le_bytes());
    archive.extend(size.to_le_bytes());
    archive.extend(start.to_le_bytes());
    archive.extend([0; 2]);
    Some(archive)
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_that_of_the_format() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
