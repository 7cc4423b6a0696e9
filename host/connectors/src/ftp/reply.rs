//! A final reply of an FTP server (RFC 959, section 4.2): its code, and what can be read from its text.
//!
//! Knows no command and no connection.

use suppaftp::types::Response;

use super::encoding::Encoding;

/// How much of a reply goes into a message: what people need, and no more than a log line bears.
const REPLY_CHARS_MAX: usize = 300;

/// A final reply of the server.
pub(super) struct Reply {
    pub(super) code: u32,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(response: Response) -> Self {
        let digits = response.body.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| response.status.code());
        Self { code, body: response.body }
    }

    /// The success of a transfer.
    pub(super) fn complete() -> Self {
        Self { code: 226, body: b"226".to_vec() }
    }

    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub(super) fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// Whether it refuses a path, be it that nothing is there or that it is of the wrong kind.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.code, 501 | 550 | 551 | 553)
    }

    /// The reply without a secret, in case the server repeated what it was told.
    pub(super) fn without(self, secret: &str) -> Self {
        if secret.is_empty() {
            return self;
        }
        let text = String::from_utf8_lossy(&self.body).replace(secret, "***");
        Self { body: text.into_bytes(), ..self }
    }

    /// The whole reply on one line, shortened.
    pub(super) fn text(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        let mut line = String::new();
        for word in text.split_whitespace() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word.chars().filter(|character| !character.is_control()));
        }
        if line.chars().count() > REPLY_CHARS_MAX {
            line = line.chars().take(REPLY_CHARS_MAX).chain(['…']).collect();
        }
        line
    }

    /// All lines, without their ends.
    pub(super) fn lines(&self, encoding: Encoding) -> Vec<String> {
        let body = self.body.strip_suffix(b"\n").unwrap_or(&self.body);
        let lines = body.split(|byte| *byte == b'\n');
        lines.map(|line| encoding.text(line.strip_suffix(b"\r").unwrap_or(line))).collect()
    }

    /// What the reply to `FEAT` lists: the lines between the first and the last (RFC 2389, section 3.2).
    pub(super) fn features(&self) -> Vec<String> {
        let mut lines = self.lines(Encoding::default());
        lines.pop();
        lines.into_iter().skip(1).map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    }

    /// What follows the code, of a reply of one line.
    pub(super) fn argument(&self) -> Option<&str> {
        std::str::from_utf8(self.body.get(4..)?).ok().map(str::trim)
    }

    /// The hash in a reply to a command that asks for one: the only word of so many hexadecimal digits. Servers put
    /// the algorithm, a range and the name before or behind it, or nothing at all.
    pub(super) fn hash(&self, digits: usize) -> Option<String> {
        let text = String::from_utf8_lossy(self.body.get(3..)?).to_ascii_lowercase();
        let is_hash = |word: &&str| word.len() == digits && word.bytes().all(|byte| byte.is_ascii_hexdigit());
        text.split_whitespace().find(is_hash).map(str::to_owned)
    }

    pub(super) fn speaks_of_encryption(&self) -> bool {
        let text = self.text().to_ascii_lowercase();
        ["tls", "ssl", "encrypt", "cleartext"].iter().any(|word| text.contains(word))
    }

    /// Whether a listing that succeeded is not all of it: "Output truncated to 10000 matches" (Pure-FTPd).
    pub(super) fn speaks_of_a_cut(&self) -> bool {
        self.text().to_ascii_lowercase().contains("truncated")
    }

    pub(super) fn speaks_of_permission(&self) -> bool {
        let text = self.text().to_ascii_lowercase();
        ["permission", "denied", "not permitted"].iter().any(|word| text.contains(word))
    }
}
