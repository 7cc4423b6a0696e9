//! What the fuzz targets call: the parsers of what a server sent. No part of the crate's interface.

/// Judges an answer of Dropbox that is no success: two bytes of status, the rest its body.
pub fn dropbox_refusal(input: &[u8]) {
    crate::dropbox::judge_refusal(input);
}
