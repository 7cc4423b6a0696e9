//! The open connections to one server that nobody uses at the moment.
//!
//! How many are in use is not decided here: every operation holds a place of its connection. A session comes back only
//! when it is in step with its server; a session that is dropped instead is closed. Knows no command.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::dialer::Dialer;
use super::session::Session;
use crate::Common;
use crate::error::Error;

pub(super) struct Pool {
    dialer: Arc<Dialer>,
    sessions_max: usize,
    idle_timeout: Duration,
    life_time: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one that came back last is the last.
    sessions: Vec<(Instant, Session)>,
    is_watched: bool,
}

impl Pool {
    pub(super) fn new(dialer: Dialer, common: &Common) -> Arc<Self> {
        Arc::new(Self {
            dialer: Arc::new(dialer),
            sessions_max: common.operations_max,
            idle_timeout: common.idle_timeout,
            life_time: common.life_time,
            idle: Mutex::default(),
        })
    }

    /// A session that was used before and seems to be alive, or a new one.
    pub(super) async fn take(&self) -> Result<Session, Error> {
        while let Some((since, mut session)) = self.pop() {
            let idle_for = since.elapsed();
            if session.age() >= self.life_time {
                tokio::spawn(session.quit());
            } else if idle_for < self.idle_timeout && session.is_usable(idle_for).await {
                return Ok(session);
            }
        }
        self.connect().await
    }

    /// A new session.
    pub(super) async fn connect(&self) -> Result<Session, Error> {
        self.dialer.connect().await
    }

    /// Keeps a session for the next operation, if it can serve one.
    pub(super) fn put(self: &Arc<Self>, session: Session) {
        if !session.is_reusable() {
            return;
        }
        let mut idle = self.lock();
        if idle.sessions.len() >= self.sessions_max {
            return;
        }
        idle.sessions.push((Instant::now(), session));
        if !idle.is_watched
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            idle.is_watched = true;
            runtime.spawn(close_idle(Arc::downgrade(self), self.idle_timeout));
        }
    }

    fn pop(&self) -> Option<(Instant, Session)> {
        self.lock().sessions.pop()
    }

    /// The sessions that were idle for too long, and when to look again; `None` when there is nothing to look after.
    fn expired(&self) -> (Vec<Session>, Option<Instant>) {
        let mut idle = self.lock();
        let now = Instant::now();
        let fresh = idle.sessions.partition_point(|(since, _)| now.duration_since(*since) >= self.idle_timeout);
        let expired = idle.sessions.drain(..fresh).map(|(_, session)| session).collect();
        let next = idle.sessions.first().map(|(since, _)| *since + self.idle_timeout);
        idle.is_watched = next.is_some();
        (expired, next)
    }

    fn lock(&self) -> MutexGuard<'_, Idle> {
        // Every change of the list is complete in itself.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes sessions as they expire; ends when none is left, or the pool is gone.
async fn close_idle(pool: Weak<Pool>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let Some(pool) = pool.upgrade() else { return };
        let (expired, again) = pool.expired();
        drop(pool);
        futures::future::join_all(expired.into_iter().map(Session::quit)).await;
        match again {
            Some(time) => next = time,
            None => return,
        }
    }
}
