//! A listing on its way from the server, page by page, in memory that does not grow with it.

use std::sync::Arc;

use futures::stream::{self, StreamExt};

use super::listing::Line;
use super::pool::Pool;
use super::session::{Lines, Session};
use crate::backend::{Entry, Pages};
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// Entries of one page of a listing.
const PAGE_ENTRIES: usize = 256;

/// Lines of one listing, those that are left out included: far more than a folder that anybody works with, and an end
/// for a server that has none.
const LISTING_LINES_MAX: usize = 1_000_000;

/// Entries left out of one listing that are told one by one in the log; beyond that only their number is.
const LEFT_OUT_TOLD_MAX: usize = 5;

/// A listing on its way. Dropped before its end, its connection is closed.
pub(super) struct Listing {
    pool: Arc<Pool>,
    open: Option<(Session, Lines)>,
    folder: RemotePath,
    lines: usize,
    left_out: usize,
}

impl Listing {
    pub(super) fn pages(pool: Arc<Pool>, session: Session, lines: Lines, folder: &RemotePath) -> Pages {
        let listing = Self { pool, open: Some((session, lines)), folder: folder.clone(), lines: 0, left_out: 0 };
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
            self.lines += 1;
            if self.lines > LISTING_LINES_MAX {
                let message = format!("the listing of {} has more than {LISTING_LINES_MAX} lines", self.folder);
                return Err(Error::new(ErrorKind::TooLarge, message));
            }
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

    async fn end(&self, mut session: Session, lines: Lines) -> Result<(), Error> {
        if self.left_out > LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, entries = self.left_out, "left entries out of a listing");
        }
        let finished = session.finish(lines.into_transfer()).await?;
        let ended = finished.map_err(|reply| {
            let message = format!("the listing of {} was broken off by the FTP server: {}", self.folder, reply.text());
            Error::new(ErrorKind::Interrupted, message)
        });
        self.pool.put(session);
        ended
    }

    fn leave_out(&mut self, line: &str) {
        self.left_out += 1;
        if self.left_out <= LEFT_OUT_TOLD_MAX {
            tracing::warn!(folder = %self.folder, line, "left an entry out of a listing: it has no valid name");
        }
    }
}
