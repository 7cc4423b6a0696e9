//! `application/x-www-form-urlencoded` text and HTTP Basic credentials, the two encodings that are not JSON.
//!
//! Knows nothing of what the fields mean.

use percent_encoding::percent_decode;

/// The pairs of a query or form body, in order. Bytes that are not UTF-8 become U+FFFD.
pub(crate) fn pairs(text: &[u8]) -> Vec<(String, String)> {
    text.split(|byte| *byte == b'&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=');
            let (name, value) = at.map_or((pair, [].as_slice()), |at| (&pair[..at], &pair[at + 1..]));
            (decode(name), decode(value))
        })
        .collect()
}

/// The value of the first pair of this name.
pub(crate) fn value(pairs: &[(String, String)], name: &str) -> Option<String> {
    pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone())
}

fn decode(text: &[u8]) -> String {
    let spaced: Vec<u8> = text.iter().map(|byte| if *byte == b'+' { b' ' } else { *byte }).collect();
    percent_decode(&spaced).decode_utf8_lossy().into_owned()
}

/// User and password of an `Authorization: Basic …` header (RFC 7617).
pub(crate) fn basic_credentials(header: &str) -> Option<(String, String)> {
    let decoded = base64(header.strip_prefix("Basic ")?.trim())?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':').map(|(user, password)| (user.to_owned(), password.to_owned()))
}

fn base64(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for character in text.trim_end_matches('=').bytes() {
        let digit = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_decoded() {
        let pairs = pairs(b"a=1+2&b=%7B%22x%22%3A%20%22%C3%A9%22%7D&c");
        assert_eq!(value(&pairs, "a").as_deref(), Some("1 2"));
        assert_eq!(value(&pairs, "b").as_deref(), Some(r#"{"x": "é"}"#));
        assert_eq!(value(&pairs, "c").as_deref(), Some(""));
        assert_eq!(value(&pairs, "d"), None);
    }

    #[test]
    fn basic_credentials_are_decoded() {
        let (user, password) = basic_credentials("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==").unwrap();
        assert_eq!((user.as_str(), password.as_str()), ("Aladdin", "open sesame"));
        assert!(basic_credentials("Bearer abc").is_none());
    }
}
