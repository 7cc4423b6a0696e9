//! A final reply of an FTP server (RFC 959, section 4.2): its code, and what can be read from its text.
//!
//! Knows no command and no connection.

use suppaftp::types::Response;

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

    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    pub(super) fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
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

    /// The lines between the first and the last.
    pub(super) fn lines(&self) -> impl Iterator<Item = &str> {
        self.body.split(|byte| *byte == b'\n').skip(1).filter_map(|line| std::str::from_utf8(line).ok())
    }

    /// Whether the reply to `FEAT` lists a feature.
    pub(super) fn lists(&self, name: &str) -> bool {
        self.lines().any(|line| {
            line.trim_start().split([' ', '\r', ';']).next().is_some_and(|word| word.eq_ignore_ascii_case(name))
        })
    }

    /// What follows the code, of a reply of one line.
    pub(super) fn argument(&self) -> Option<&str> {
        std::str::from_utf8(self.body.get(4..)?).ok().map(str::trim)
    }

    pub(super) fn speaks_of_encryption(&self) -> bool {
        let text = self.text().to_ascii_lowercase();
        ["tls", "ssl", "encrypt", "cleartext"].iter().any(|word| text.contains(word))
    }

    pub(super) fn speaks_of_permission(&self) -> bool {
        let text = self.text().to_ascii_lowercase();
        text.contains("permission") || text.contains("denied")
    }
}
