//! The sessions with one server: how many there are, and which of them nobody uses at the moment.
//!
//! Knows no operation. Each runs as a task of its own, to its end also when nobody waits for it any more: what it began it
//! cleans up. A session that is closed, too old or out of step is not kept.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tracing::Instrument;

use super::dialer::Dialer;
use super::session::Session;
use crate::Common;
use crate::error::{Error, ErrorKind};
use crate::idle::Idle;
use crate::path::RemotePath;

/// A session that was idle for so long is asked whether it is still there before it is used: when a firewall has
/// forgotten it, the first request would wait for its timeout.
const CHECK_AFTER: Duration = Duration::from_secs(5);

/// How long that question may take; then a new session is quicker.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);

/// How long an operation waits for a session when all are in use.
const SESSION_WAIT_MAX: Duration = Duration::from_secs(20);

pub(super) struct Pool {
    shared: Arc<Shared>,
    /// Folders that no link leads out of for those who use it by this handle.
    borders: Arc<[RemotePath]>,
}

struct Shared {
    dialer: Dialer,
    sessions_max: usize,
    places: Arc<Semaphore>,
    idle: Arc<Idle<Session>>,
    /// When a session was found broken: what broke it may have broken those that were idle then.
    doubted_at: Mutex<Option<Instant>>,
}

/// A session, and the place that it takes among those that there may be.
struct Lease {
    session: Session,
    place: OwnedSemaphorePermit,
}

impl Pool {
    pub(super) fn new(dialer: Dialer, common: &Common) -> Arc<Self> {
        let sessions_max = common.operations_max.max(1);
        let shared = Shared {
            dialer,
            sessions_max,
            places: Arc::new(Semaphore::new(sessions_max)),
            idle: Idle::new(common),
            doubted_at: Mutex::default(),
        };
        Arc::new(Self { shared: Arc::new(shared), borders: Arc::new([common.root.clone()]) })
    }

    /// The same sessions, with other borders.
    pub(super) fn within(&self, borders: Vec<RemotePath>) -> Self {
        Self { shared: Arc::clone(&self.shared), borders: borders.into() }
    }

    /// Begins something on a session that was used before and seems to be alive, or on a new one.
    pub(super) async fn start<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl for<'session> FnOnce(&'session mut Session) -> BoxFuture<'session, T> + Send + 'static,
    ) -> Result<JoinHandle<T>, Error> {
        let lease = self.shared.take().await?;
        Ok(self.work(lease, job))
    }

    /// The same on a new session.
    pub(super) async fn start_on_new<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl for<'session> FnOnce(&'session mut Session) -> BoxFuture<'session, T> + Send + 'static,
    ) -> Result<JoinHandle<T>, Error> {
        let place = self.shared.place().await?;
        let session = self.shared.dialer.connect().await?;
        Ok(self.work(Lease { session, place }, job))
    }

    fn work<T: Send + 'static>(
        self: &Arc<Self>,
        lease: Lease,
        job: impl for<'session> FnOnce(&'session mut Session) -> BoxFuture<'session, T> + Send + 'static,
    ) -> JoinHandle<T> {
        let (shared, borders) = (Arc::clone(&self.shared), Arc::clone(&self.borders));
        let work = async move {
            let Lease { mut session, place } = lease;
            session.borders.stay_within(borders);
            let result = job(&mut session).await;
            shared.put(session);
            drop(place);
            result
        };
        tokio::spawn(work.in_current_span())
    }
}

impl Shared {
    async fn take(&self) -> Result<Lease, Error> {
        let place = self.place().await?;
        while let Some((since, mut session)) = self.idle.take() {
            if !session.is_usable() {
                continue;
            }
            let is_doubted = self.doubted_at().is_some_and(|doubted_at| since <= doubted_at);
            if since.elapsed() < CHECK_AFTER && !is_doubted || answers(&mut session).await {
                return Ok(Lease { session, place });
            }
        }
        let session = self.dialer.connect().await?;
        Ok(Lease { session, place })
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

    fn put(&self, session: Session) {
        if session.is_usable() {
            self.idle.put(session);
        } else {
            *self.doubted_at() = Some(Instant::now());
        }
    }

    fn doubted_at(&self) -> MutexGuard<'_, Option<Instant>> {
        // It is replaced as a whole.
        self.doubted_at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answers(session: &mut Session) -> bool {
    matches!(tokio::time::timeout(CHECK_TIMEOUT, session.ping()).await, Ok(Ok(())))
}
