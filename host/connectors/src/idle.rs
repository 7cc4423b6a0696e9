//! The open sessions of a connection that nobody uses at the moment, each closed when it was idle for too long.
//!
//! How many are in use is not decided here, and whether one that comes back can serve again is for its protocol to know.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::Common;

/// A session that can be kept open.
pub(crate) trait Session: Send + 'static {
    /// How long ago it was opened.
    fn age(&self) -> Duration;

    /// Ends it, as politely as its protocol has it.
    fn close(self) -> impl Future<Output = ()> + Send;
}

pub(crate) struct Idle<S> {
    sessions_max: usize,
    idle_timeout: Duration,
    life_time: Duration,
    list: Mutex<List<S>>,
}

struct List<S> {
    /// The one that came back last is the last.
    sessions: Vec<(Instant, S)>,
    is_watched: bool,
}

impl<S: Session> Idle<S> {
    pub(crate) fn new(common: &Common) -> Arc<Self> {
        Arc::new(Self {
            sessions_max: common.operations_max.max(1),
            idle_timeout: common.idle_timeout,
            life_time: common.life_time,
            list: Mutex::new(List { sessions: Vec::new(), is_watched: false }),
        })
    }

    /// The session that came back last, and when that was. Those that are too old, or were idle for too long, are closed.
    pub(crate) fn take(&self) -> Option<(Instant, S)> {
        loop {
            let (since, session) = self.lock().sessions.pop()?;
            if since.elapsed() < self.idle_timeout && session.age() < self.life_time {
                return Some((since, session));
            }
            tokio::spawn(session.close());
        }
    }

    /// Keeps a session, if there is room for it; otherwise it is dropped.
    pub(crate) fn put(self: &Arc<Self>, session: S) {
        let mut list = self.lock();
        if list.sessions.len() >= self.sessions_max {
            return;
        }
        list.sessions.push((Instant::now(), session));
        // Outside of a runtime, as when one is being shut down, nothing can be watched.
        if !list.is_watched
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            list.is_watched = true;
            runtime.spawn(close_expired(Arc::downgrade(self), self.idle_timeout));
        }
    }

    /// The sessions that were idle for too long, and when to look again; `None` when there is nothing to look after.
    fn expired(&self) -> (Vec<S>, Option<Instant>) {
        let mut list = self.lock();
        let now = Instant::now();
        let fresh = list.sessions.partition_point(|(since, _)| now.duration_since(*since) >= self.idle_timeout);
        let expired = list.sessions.drain(..fresh).map(|(_, session)| session).collect();
        let next = list.sessions.first().map(|(since, _)| *since + self.idle_timeout);
        list.is_watched = next.is_some();
        (expired, next)
    }

    fn lock(&self) -> MutexGuard<'_, List<S>> {
        // Every change of the list is complete in itself.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Closes sessions as they expire; ends when none is left, or all that hold the list are gone.
async fn close_expired<S: Session>(idle: Weak<Idle<S>>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let Some(idle) = idle.upgrade() else { return };
        let (expired, again) = idle.expired();
        drop(idle);
        join_all(expired.into_iter().map(S::close)).await;
        match again {
            Some(time) => next = time,
            None => return,
        }
    }
}
