//! Upload sessions: content that arrives in several requests before it becomes a file (files.stone, `upload_session`).
//!
//! Knows the rules of both kinds, sequential and concurrent. Knows nothing of paths: committing is the namespace's part.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::content::{Content, lower_hex};

/// Sessions open at a time; each holds little beside its content, which the quota bounds.
const MAX_SESSIONS: usize = 100_000;

/// Offsets and lengths in a concurrent session are multiples of this (files.stone).
const CONCURRENT_UNIT: u64 = 4 * 1024 * 1024;

/// The largest file (files.stone, UploadSessionLookupError.too_large).
const MAX_FILE_BYTES: u64 = (1 << 41) - (1 << 22);

/// How the requests of a session follow each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionKind {
    Sequential,
    Concurrent,
}

/// files.stone: UploadSessionLookupError and what the unions around it add.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionError {
    NotFound,
    IncorrectOffset(u64),
    Closed,
    NotClosed,
    TooLarge,
    InvalidOffset,
    InvalidDataSize,
    DataNotAllowed,
    CloseNotAllowed,
    ConcurrentNotClosed,
    MissingData,
    TooManySessions,
}

struct Session {
    kind: SessionKind,
    /// By offset; without gaps in a sequential session.
    parts: BTreeMap<u64, Arc<Content>>,
    closed: bool,
}

/// The sessions of one account that were neither committed nor forgotten.
#[derive(Default)]
pub(crate) struct Sessions {
    open: HashMap<String, Session>,
}

impl Session {
    fn end(&self) -> u64 {
        self.parts.last_key_value().map_or(0, |(offset, part)| offset + part.size())
    }

    fn append(&mut self, offset: u64, close: bool, content: Arc<Content>) -> Result<(), SessionError> {
        if offset.saturating_add(content.size()) > MAX_FILE_BYTES {
            return Err(SessionError::TooLarge);
        }
        if self.closed {
            return Err(SessionError::Closed);
        }
        match self.kind {
            SessionKind::Sequential => {
                if offset != self.end() {
                    return Err(SessionError::IncorrectOffset(self.end()));
                }
            }
            SessionKind::Concurrent => {
                if !offset.is_multiple_of(CONCURRENT_UNIT) {
                    return Err(SessionError::InvalidOffset);
                }
                if !close && !content.size().is_multiple_of(CONCURRENT_UNIT) {
                    return Err(SessionError::InvalidDataSize);
                }
            }
        }
        if content.size() > 0 {
            self.parts.insert(offset, content);
        }
        self.closed |= close;
        Ok(())
    }

    /// Everything, for a file that ends at `offset`.
    fn whole(&self, offset: u64) -> Result<Arc<Content>, SessionError> {
        let mut end = 0;
        for (start, part) in &self.parts {
            if *start != end {
                return Err(SessionError::MissingData);
            }
            end += part.size();
        }
        if offset != end {
            return Err(SessionError::IncorrectOffset(end));
        }
        let parts: Vec<_> = self.parts.values().cloned().collect();
        Ok(Content::join(&parts))
    }
}

impl Sessions {
    /// Opens a session, with first content if there is any; its id.
    pub(crate) fn start(
        &mut self,
        kind: SessionKind,
        close: bool,
        content: Option<Arc<Content>>,
    ) -> Result<String, SessionError> {
        let mut session = Session { kind, parts: BTreeMap::new(), closed: false };
        let content = content.filter(|content| content.size() > 0);
        match kind {
            SessionKind::Concurrent if content.is_some() => return Err(SessionError::DataNotAllowed),
            SessionKind::Concurrent if close => return Err(SessionError::CloseNotAllowed),
            _ => {}
        }
        if let Some(content) = content {
            session.append(0, false, content)?;
        }
        session.closed = close;
        if self.open.len() >= MAX_SESSIONS {
            return Err(SessionError::TooManySessions);
        }
        let id = format!("pid_upload_session:{}", lower_hex(&rand::random::<[u8; 32]>()));
        self.open.insert(id.clone(), session);
        Ok(id)
    }

    pub(crate) fn append(
        &mut self,
        id: &str,
        offset: u64,
        close: bool,
        content: Arc<Content>,
    ) -> Result<(), SessionError> {
        self.open.get_mut(id).ok_or(SessionError::NotFound)?.append(offset, close, content)
    }

    /// The content of a session that may be committed by itself, after `content` was appended to it.
    pub(crate) fn finish(
        &mut self,
        id: &str,
        offset: u64,
        content: Arc<Content>,
    ) -> Result<Arc<Content>, SessionError> {
        let session = self.open.get_mut(id).ok_or(SessionError::NotFound)?;
        let length = content.size();
        match session.kind {
            SessionKind::Sequential if length > 0 => session.append(offset, false, content)?,
            SessionKind::Sequential => {}
            SessionKind::Concurrent if length > 0 => return Err(SessionError::DataNotAllowed),
            SessionKind::Concurrent if !session.closed => return Err(SessionError::ConcurrentNotClosed),
            SessionKind::Concurrent => {}
        }
        session.whole(offset + length)
    }

    /// The content of a session that is committed with others, and so must be closed.
    pub(crate) fn finish_closed(&self, id: &str, offset: u64) -> Result<Arc<Content>, SessionError> {
        let session = self.open.get(id).ok_or(SessionError::NotFound)?;
        if !session.closed {
            return Err(match session.kind {
                SessionKind::Sequential => SessionError::NotClosed,
                SessionKind::Concurrent => SessionError::ConcurrentNotClosed,
            });
        }
        session.whole(offset)
    }

    /// Forgets a session: it became a file.
    pub(crate) fn remove(&mut self, id: &str) {
        self.open.remove(id);
    }

    /// How many are open.
    pub(crate) fn len(&self) -> usize {
        self.open.len()
    }
}
