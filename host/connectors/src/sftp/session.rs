//! A session as the runtime sees it: jobs go to its thread one after the other, and their results come back.
//!
//! A job always runs to its end, also when nobody waits for it any more: what it began it cleans up. Knows neither how
//! a session is opened nor what the jobs do.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::dialer::Facts;
use super::tree::Tree;
use super::watch::Watch;
use crate::error::{Error, ErrorKind};

type Job = Box<dyn FnOnce(&mut Tree) + Send>;

/// Jobs of one session that wait behind the one that runs: a session is used by one operation at a time.
const JOBS_WAITING_MAX: usize = 1;

/// What a thread works on.
pub(super) struct Jobs {
    queue: mpsc::Receiver<Job>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    /// Jobs that were given and have not ended.
    open: AtomicU32,
}

/// Where the jobs of a session are put.
pub(super) struct Queue {
    jobs: mpsc::Sender<Job>,
    state: Arc<State>,
}

/// Both ends of a queue of jobs.
pub(super) fn queue() -> (Queue, Jobs) {
    let (sender, queue) = mpsc::channel(JOBS_WAITING_MAX);
    let state = Arc::new(State::default());
    let jobs = Jobs { queue, state: Arc::clone(&state) };
    (Queue { jobs: sender, state }, jobs)
}

/// An open session; its thread ends when it is dropped.
pub(super) struct Session {
    queue: Queue,
    watch: Arc<Watch>,
    facts: Facts,
    began: Instant,
}

impl Session {
    pub(super) fn new(queue: Queue, watch: Arc<Watch>, facts: Facts) -> Self {
        Self { queue, watch, facts, began: Instant::now() }
    }

    /// What is known of the server since the session was opened.
    pub(super) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// How long ago it was opened.
    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    /// Whether a job is still running, though nobody waits for it.
    pub(super) fn is_busy(&self) -> bool {
        self.queue.state.open.load(Ordering::Acquire) > 0
    }

    /// Whether it may take another job, as far as is known without asking the server.
    pub(super) fn is_usable(&self) -> bool {
        !self.queue.jobs.is_closed() && !self.watch.is_closed()
    }

    /// Does something on the thread of the session.
    ///
    /// # Errors
    /// `Unavailable` when the session ended before.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Tree) -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (sender, result) = oneshot::channel();
        self.start(move |tree| {
            // Nobody may be there any more to hear of it.
            let _heard = sender.send(work(tree));
        })
        .await?;
        result.await.map_err(|_| ended())
    }

    /// Begins something on the thread of the session, which tells of it by itself.
    ///
    /// # Errors
    /// `Unavailable` when the session ended before.
    pub(super) async fn start(&self, work: impl FnOnce(&mut Tree) + Send + 'static) -> Result<(), Error> {
        let place = self.queue.jobs.reserve().await.map_err(|_| ended())?;
        self.queue.state.open.fetch_add(1, Ordering::AcqRel);
        place.send(Box::new(work));
        Ok(())
    }
}

/// That the thread is gone.
pub(super) fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, "the SFTP session ended")
}

/// The work of a thread: jobs, until there is nobody left to give any, or one has broken the conversation.
pub(super) fn work(tree: &mut Tree, mut jobs: Jobs) {
    while let Some(job) = jobs.queue.blocking_recv() {
        job(tree);
        let goes_on = tree.client.is_in_step();
        if !goes_on {
            jobs.queue.close();
        }
        jobs.state.open.fetch_sub(1, Ordering::AcqRel);
        if !goes_on {
            return;
        }
    }
}
