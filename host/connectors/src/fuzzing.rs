//! What the fuzz targets call: the parsers of what a server sent. No part of the crate's interface.

/// Judges an answer of Dropbox that is no success: two bytes of status, the rest its body.
pub fn dropbox_refusal(input: &[u8]) {
    crate::dropbox::judge_refusal(input);
}

/// Reads an FTP listing, line by line, in several encodings.
pub fn ftp_listing(input: &[u8]) {
    crate::ftp::read_any_listing(input);
}

/// Reads a reply on an FTP control connection as everything that it could be: features, checksums, facts, times.
pub fn ftp_reply(input: &[u8]) {
    crate::ftp::read_any_reply(input);
}

/// Reads a packet of an SFTP server as everything that it could be: its length, its version, a reply, the space of a file
/// system.
pub fn sftp_packet(input: &[u8]) {
    crate::sftp::read_any_packet(input);
}

/// Reads a file of known hosts, a file of options of ssh, and a line of a script.
pub fn sftp_texts(input: &[u8]) {
    crate::sftp::read_any_text(input);
}

/// Reads what an HTTP origin or a token endpoint answers besides content: two bytes of status, a line that is a wait or
/// a place, the rest the body.
pub fn http_answer(input: &[u8]) {
    crate::http::read_any_answer(input);
}
