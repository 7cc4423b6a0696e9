//! Gives out sessions with one server: those that are open already, or new ones.
//!
//! How many are in use is not decided here: every operation holds a place of its connection. A session comes back only
//! when it is in step with its server; a session that is dropped instead is closed. Knows no command.

use std::sync::Arc;

use super::dialer::Dialer;
use super::session::Session;
use crate::Common;
use crate::error::Error;
use crate::idle::Idle;
use crate::path::RemotePath;

pub(super) struct Pool {
    dialer: Arc<Dialer>,
    idle: Arc<Idle<Session>>,
    /// Folders that no link leads out of for those who use it by this handle.
    borders: Arc<[RemotePath]>,
}

impl Pool {
    pub(super) fn new(dialer: Dialer, common: &Common) -> Arc<Self> {
        Arc::new(Self { dialer: Arc::new(dialer), idle: Idle::new(common), borders: Arc::new([common.root.clone()]) })
    }

    /// The same sessions, with other borders.
    pub(super) fn within(&self, borders: Vec<RemotePath>) -> Self {
        Self { dialer: Arc::clone(&self.dialer), idle: Arc::clone(&self.idle), borders: borders.into() }
    }

    /// A session that was used before and seems to be alive, or a new one.
    pub(super) async fn take(&self) -> Result<Session, Error> {
        while let Some((since, mut session)) = self.idle.take() {
            if session.is_usable(since.elapsed()).await {
                session.stay_within(Arc::clone(&self.borders));
                return Ok(session);
            }
        }
        self.connect().await
    }

    /// A new session.
    pub(super) async fn connect(&self) -> Result<Session, Error> {
        let mut session = self.dialer.connect().await?;
        session.stay_within(Arc::clone(&self.borders));
        Ok(session)
    }

    /// Keeps a session for the next operation, if it can serve one.
    pub(super) fn put(&self, session: Session) {
        if session.is_reusable() {
            self.idle.put(session);
        }
    }
}
