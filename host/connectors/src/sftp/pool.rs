//! The sessions with one server: how many there are, and which of them nobody uses at the moment.
//!
//! Knows no operation. A session that is closed, too old or out of step is not kept.

use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::dialer::Dialer;
use super::session::Session;
use crate::Common;
use crate::error::{Error, ErrorKind};

/// A session that was idle for so long is asked whether it is still there before it is used: when a firewall has
/// forgotten it, the first request would wait for its timeout.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// How long that question may take; then a new session is quicker.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an operation waits for a session when all are in use.
const SESSION_WAIT_MAX: Duration = Duration::from_secs(20);

pub(super) struct Pool {
    dialer: Arc<Dialer>,
    sessions_max: usize,
    places: Arc<Semaphore>,
    idle_timeout: Duration,
    life_time: Duration,
    idle: Mutex<Idle>,
}

#[derive(Default)]
struct Idle {
    /// The one that came back last is the last.
    sessions: Vec<(Instant, Arc<Session>)>,
    is_watched: bool,
    /// When a session was found broken: what broke it may have broken those that were idle then.
    doubted_at: Option<Instant>,
}

/// A session in use by one operation; goes back when dropped.
pub(super) struct Lease {
    pool: Arc<Pool>,
    session: Arc<Session>,
    _place: OwnedSemaphorePermit,
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Self::Target {
        &self.session
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.pool.put(Arc::clone(&self.session));
    }
}

impl Pool {
    pub(super) fn new(dialer: Dialer, common: &Common) -> Arc<Self> {
        let sessions_max = common.operations_max.max(1);
        Arc::new(Self {
            dialer: Arc::new(dialer),
            sessions_max,
            places: Arc::new(Semaphore::new(sessions_max)),
            idle_timeout: common.idle_timeout,
            life_time: common.life_time,
            idle: Mutex::default(),
        })
    }

    /// A session that was used before and seems to be alive, or a new one.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Lease, Error> {
        let place = self.place().await?;
        while let Some((since, session)) = self.pop() {
            let idle_for = since.elapsed();
            if idle_for >= self.idle_timeout || session.age() >= self.life_time || !session.is_usable() {
                continue;
            }
            let is_doubted = self.lock().doubted_at.is_some_and(|doubted_at| since <= doubted_at);
            if idle_for < CHECK_AFTER && !is_doubted || answers(&session).await {
                return Ok(self.lease(session, place));
            }
        }
        let session = self.dialer.connect().await?;
        Ok(self.lease(Arc::new(session), place))
    }

    /// A new session.
    pub(super) async fn connect(self: &Arc<Self>) -> Result<Lease, Error> {
        let place = self.place().await?;
        let session = self.dialer.connect().await?;
        Ok(self.lease(Arc::new(session), place))
    }

    fn lease(self: &Arc<Self>, session: Arc<Session>, place: OwnedSemaphorePermit) -> Lease {
        Lease { pool: Arc::clone(self), session, _place: place }
    }

    async fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        let place = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(SESSION_WAIT_MAX, place).await {
            Ok(Ok(place)) => Ok(place),
            _ => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {} sessions with the SFTP server {} were busy for {} s; raise operations-max",
                    self.sessions_max,
                    self.dialer.server(),
                    SESSION_WAIT_MAX.as_secs()
                ),
            )),
        }
    }

    fn put(self: &Arc<Self>, session: Arc<Session>) {
        let mut idle = self.lock();
        if !session.is_usable() {
            idle.doubted_at = Some(Instant::now());
            return;
        }
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

    /// The one that was used last and is free. One that still ends its last job is waited for only when there may be
    /// no further session.
    fn pop(&self) -> Option<(Instant, Arc<Session>)> {
        let mut idle = self.lock();
        let in_use = self.sessions_max.saturating_sub(self.places.available_permits());
        match idle.sessions.iter().rposition(|(_, session)| !session.is_busy()) {
            Some(free) => Some(idle.sessions.remove(free)),
            None if in_use + idle.sessions.len() > self.sessions_max => idle.sessions.pop(),
            None => None,
        }
    }

    /// The sessions that were idle for too long, and when to look again; `None` when there is nothing to look after.
    fn expired(&self) -> (Vec<Arc<Session>>, Option<Instant>) {
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

async fn answers(session: &Session) -> bool {
    let question = session.run(|tree| tree.ping().is_ok());
    matches!(tokio::time::timeout(CHECK_TIMEOUT, question).await, Ok(Ok(true)))
}

/// Drops sessions as they expire; ends when none is left, or the pool is gone.
async fn close_idle(pool: Weak<Pool>, idle_timeout: Duration) {
    let mut next = Instant::now() + idle_timeout;
    loop {
        tokio::time::sleep_until(next.into()).await;
        let Some(pool) = pool.upgrade() else { return };
        let (expired, again) = pool.expired();
        drop(pool);
        // Their threads say farewell.
        drop(expired);
        match again {
            Some(time) => next = time,
            None => return,
        }
    }
}
