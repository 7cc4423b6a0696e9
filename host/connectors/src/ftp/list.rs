//! A listing on its way from the server, line by line and page by page, in memory that does not grow with it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::stream::{self, StreamExt};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::time::timeout;

use super::encoding::Encoding;
use super::listing::{self, Line, Listed};
use super::pool::Pool;
use super::session::{Session, Transfer};
use crate::backend::{Entry, Pages};
use crate::content::CHUNK_BYTES;
use crate::error::{Error, ErrorKind};
use crate::path::{PATH_BYTES_MAX, RemotePath};

/// Longest line of a listing: a path as long as can be and as much again for what is told of it.
const LINE_BYTES_MAX: usize = 2 * PATH_BYTES_MAX;

/// Entries of one page of a listing.
const PAGE_ENTRIES: usize = 256;

/// Lines of one listing, those that are left out included: far more than a folder that anybody works with, and an end
/// for a server that has none.
const LISTING_LINES_MAX: usize = 1_000_000;

/// No server is known that leaves something out of a listing with fewer lines (10,000 with Pure-FTPd, unless it is told
/// otherwise). It costs a command to learn of it.
const LISTING_LINES_NEVER_CUT: usize = 1_000;

/// Entries left out of one listing that are told one by one in the log; beyond that only their number is.
const LEFT_OUT_TOLD_MAX: usize = 5;

/// A listing on its way. Dropped before its end, its connection is closed.
pub(super) struct Listing {
    pool: Arc<Pool>,
    open: Option<(Session, Lines)>,
    folder: RemotePath,
    left_out: usize,
}

impl Listing {
    pub(super) fn pages(pool: Arc<Pool>, session: Session, lines: Lines, folder: &RemotePath) -> Pages {
        let listing = Self { pool, open: Some((session, lines)), folder: folder.clone(), left_out: 0 };
        stream::try_unfold(listing, Self::next_page).boxed()
    }

    async fn next_page(mut self) -> Result<Option<(Vec<Entry>, Self)>, Error> {
        let Some((session, mut lines)) = self.open.take() else { return Ok(None) };
        let mut page = Vec::new();
        while page.len() < PAGE_ENTRIES {
            let Some(line) = lines.next(session.read_timeout()).await? else {
                self.end(session, lines).await?;
                return Ok((!page.is_empty()).then_some((page, self)));
            };
            match lines.read(&line) {
                Line::Entry(listed) if listed.name == "." || listed.name == ".." => {}
                Line::Entry(listed) => match self.folder.join(&listed.name) {
                    Ok(path) => page.push(listed.at(path)),
                    Err(_) => self.leave_out(&listed.name),
                },
                Line::Nothing => {}
                Line::Unreadable => self.leave_out(&String::from_utf8_lossy(&line)),
            }
        }
        self.open = Some((session, lines));
        Ok(Some((page, self)))
    }

    /// The end of the data is the end of the listing only if the server says so, and says that it is all.
    async fn end(&self, mut session: Session, lines: Lines) -> Result<(), Error> {
        if self.left_out > LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, entries = self.left_out, "left entries out of a listing");
        }
        let is_short = lines.count < LISTING_LINES_NEVER_CUT;
        let transfer = lines.into_transfer();
        let finished = match is_short {
            true => session.finish(transfer).await?,
            false => session.finish_heard(transfer).await?,
        };
        self.pool.put(session);
        match finished {
            Err(reply) => {
                let message =
                    format!("the listing of {} was broken off by the FTP server: {}", self.folder, reply.text());
                Err(Error::new(ErrorKind::Interrupted, message))
            }
            Ok(reply) if reply.speaks_of_a_cut() => Err(Error::new(
                ErrorKind::TooLarge,
                format!(
                    "the FTP server does not list all of {}: {}; ask its operator to allow longer listings \
                     (LimitRecursion of Pure-FTPd)",
                    self.folder,
                    reply.text()
                ),
            )),
            Ok(_) => Ok(()),
        }
    }

    fn leave_out(&mut self, line: &str) {
        self.left_out += 1;
        if self.left_out <= LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, line, "left an entry out of a listing: it has no valid name");
        }
    }
}

/// The two forms of a listing.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Machine,
    Human,
}

/// The lines of a listing as they arrive.
pub(super) struct Lines {
    reader: BufReader<Transfer>,
    form: Form,
    encoding: Encoding,
    now: SystemTime,
    /// Lines so far.
    count: usize,
}

impl Lines {
    pub(super) fn new(transfer: Transfer, form: Form, encoding: Encoding) -> Self {
        let reader = BufReader::with_capacity(CHUNK_BYTES, transfer);
        Self { reader, form, encoding, now: SystemTime::now(), count: 0 }
    }

    /// The next line without its end; `None` after the last.
    ///
    /// # Errors
    /// `TooLarge` for a line, or a listing, without end; `Timeout`; `Interrupted`.
    pub(super) async fn next(&mut self, limit: Duration) -> Result<Option<Vec<u8>>, Error> {
        self.count += 1;
        if self.count > LISTING_LINES_MAX {
            let message = format!("an FTP listing has more than {LISTING_LINES_MAX} lines");
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        let mut line = Vec::new();
        loop {
            let available = match timeout(limit, self.reader.fill_buf()).await {
                Ok(Ok(available)) => available,
                // An end that TLS did not announce: between two lines the server's verdict decides.
                Ok(Err(error)) if line.is_empty() && error.kind() == std::io::ErrorKind::UnexpectedEof => &[],
                Ok(Err(error)) => {
                    return Err(Error::new(ErrorKind::Interrupted, "an FTP listing broke off").with_source(error));
                }
                Err(_) => {
                    let message = format!("an FTP listing did not go on within {limit:?}");
                    return Err(Error::new(ErrorKind::Timeout, message));
                }
            };
            if available.is_empty() {
                return Ok((!line.is_empty()).then_some(line));
            }
            let (length, used) = match available.iter().position(|byte| *byte == b'\n') {
                Some(end) => (end, end + 1),
                None => (available.len(), available.len()),
            };
            if line.len() + length > LINE_BYTES_MAX {
                return Err(Error::new(
                    ErrorKind::TooLarge,
                    format!("an FTP listing has a line of more than {LINE_BYTES_MAX} bytes"),
                ));
            }
            line.extend_from_slice(&available[..length]);
            self.reader.consume(used);
            if used > length {
                if line.last() == Some(&b'\r') {
                    line.pop();
                }
                return Ok(Some(line));
            }
        }
    }

    /// What a line says.
    pub(super) fn read(&self, line: &[u8]) -> Line {
        let line = self.encoding.text(line);
        let line = match self.form {
            Form::Machine => listing::machine_line(&line),
            Form::Human => listing::human_line(&line, self.now),
        };
        match line {
            Line::Entry(listed) => Line::Entry(Listed {
                name: self.encoding.name(&listed.name),
                leads_to: listed.leads_to.map(|path| self.encoding.name(&path)),
                ..listed
            }),
            other => other,
        }
    }

    pub(super) fn into_transfer(self) -> Transfer {
        self.reader.into_inner()
    }
}

impl Listed {
    pub(super) fn at(self, path: RemotePath) -> Entry {
        Entry { path, kind: self.kind, size: self.size, modified: self.modified, mode: None, revision: None }
    }
}
