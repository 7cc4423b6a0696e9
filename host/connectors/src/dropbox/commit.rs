//! The one place where the files of a connection become visible in numbers: sessions that wait are committed together.
//!
//! Dropbox changes a namespace one call at a time, and turns callers away who come all at once. A writer that is alone
//! commits for itself, without delay. Where several write, a few do, and the sessions of all others are committed by
//! one call with up to a thousand entries; while it is under way, the next ones gather. The connections of one account
//! take turns, each with a batch of its own: what a path means is said in the headers of a call, which are the
//! connection's. Knows nothing of content.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use super::call::{Caller, paused};
use super::failure::{Call, Failure, refused_entry};
use super::pace::{OutOfPatience, Pace, Patience, pause_between};
use super::wire::Metadata;
use crate::deadline;
use crate::error::{Error, ErrorKind, layers};
use crate::path::RemotePath;

/// Entries of one call (files.stone, `UploadSessionFinishBatchArg`).
const BATCH_ENTRIES_MAX: usize = 1000;

/// How long a batch waits for writers that are still on their way with their content: about as long as one request
/// takes, so that waiting costs nobody much, and never when nobody is on their way.
const GATHERING_MAX: Duration = Duration::from_millis(150);

/// How often an entry is committed whose answer was lost.
const COMMITS_MAX: u32 = 4;

const ROUTE: &str = "files/upload_session/finish_batch_v2";

/// The writers of one connection.
pub(super) struct Commits {
    state: Mutex<State>,
    /// A writer is no longer on its way, or has arrived.
    moved: Notify,
}

#[derive(Default)]
struct State {
    on_their_way: usize,
    /// Never more than the connection has operations at once, for each of them waits for its answer.
    waiting: VecDeque<Waiting>,
    /// Whether someone looks after those that wait.
    looked_after: bool,
}

struct Waiting {
    entry: Value,
    path: String,
    patience: Patience,
    losses: u32,
    answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    /// Tells the writer what became of its session, unless it has gone.
    fn tell(self, outcome: Outcome) {
        let _ = self.answer.send(outcome);
    }
}

/// What became of a session.
pub(super) enum Outcome {
    /// It is a file.
    Done(Metadata),
    /// It is not, or that is not known.
    Failed(Failure),
}

/// Held by a writer that may soon want to commit.
pub(super) struct Approach(Arc<Commits>);

impl Drop for Approach {
    fn drop(&mut self) {
        self.0.state().on_their_way -= 1;
        self.0.moved.notify_one();
    }
}

impl Commits {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), moved: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a writer.
    pub(super) fn approach(self: &Arc<Self>) -> Approach {
        self.state().on_their_way += 1;
        Approach(Arc::clone(self))
    }

    /// Waits until nobody is on their way, a batch is full, or it has taken long enough.
    async fn gathered(&self) {
        let deadline = Instant::now() + GATHERING_MAX;
        loop {
            {
                let state = self.state();
                if state.on_their_way == 0 || state.waiting.len() >= BATCH_ENTRIES_MAX {
                    return;
                }
            }
            if tokio::time::timeout_at(deadline, self.moved.notified()).await.is_err() {
                return;
            }
        }
    }

    /// Those that wait, but for those whose writer has gone; `None` ends the looking after.
    fn take(&self) -> Option<Vec<Waiting>> {
        let mut state = self.state();
        state.waiting.retain(|waiting| !waiting.answer.is_closed());
        let count = state.waiting.len().min(BATCH_ENTRIES_MAX);
        if count == 0 {
            state.looked_after = false;
            return None;
        }
        Some(state.waiting.drain(..count).collect())
    }
}

#[derive(Deserialize)]
struct Committed {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(tag = ".tag", rename_all = "snake_case")]
enum Entry {
    Success(Box<Metadata>),
    Failure {
        failure: Value,
    },
    #[serde(other)]
    Unknown,
}

impl Caller {
    /// Commits a session together with those of others. Dropping this before its turn leaves the session uncommitted.
    pub(super) async fn commit(
        self: &Arc<Self>,
        path: &RemotePath,
        session: &str,
        size: u64,
        commit_info: Value,
        approach: Approach,
    ) -> Outcome {
        let entry = json!({ "cursor": { "session_id": session, "offset": size }, "commit": commit_info });
        let (answer, answered) = oneshot::channel();
        let patience = Patience::new(self.wait_budget, deadline::of_caller());
        let waiting = Waiting { entry, path: path.as_str().to_owned(), patience, losses: 0, answer };
        let unattended = {
            let mut state = self.commits.state();
            state.waiting.push_back(waiting);
            !std::mem::replace(&mut state.looked_after, true)
        };
        drop(approach);
        if unattended {
            // Not part of any one operation: that may be dropped while the others wait.
            tokio::spawn(Arc::clone(self).look_after_waiting());
        }
        answered.await.unwrap_or_else(|_| {
            Outcome::Failed(Error::new(ErrorKind::Internal, "the commit of an upload was given up").into())
        })
    }

    async fn look_after_waiting(self: Arc<Self>) {
        loop {
            self.commits.gathered().await;
            let account = self.membership.shared();
            let _turn = account.batch_turn().await;
            let Some(batch) = self.commits.take() else { return };
            self.commit_batch(batch, &account.calls).await;
        }
    }

    async fn commit_batch(&self, batch: Vec<Waiting>, calls: &Pace) {
        let Some(batch) = in_turn(batch, calls).await else { return };
        let subject = match batch.as_slice() {
            [one] => one.path.clone(),
            all => format!("{} files", all.len()),
        };
        let call = Call { route: ROUTE, subject: &subject, repeatable: false };
        let entries: Vec<&Value> = batch.iter().map(|waiting| &waiting.entry).collect();
        // How long to wait is for those who wait to say, not for the call.
        let now = Instant::now();
        let answered = deadline::until(now, self.rpc::<Committed>(&call, &json!({ "entries": entries }))).await;
        let failures: Vec<(Waiting, Failure)> = match answered {
            Ok(Committed { entries }) if entries.len() == batch.len() => {
                batch.into_iter().zip(entries).filter_map(|(waiting, entry)| committed(waiting, entry)).collect()
            }
            Ok(_) => {
                let error = Error::new(ErrorKind::Interrupted, format!("{ROUTE}: the answer is not about {subject}"));
                batch.into_iter().map(|waiting| (waiting, alike(&error).into())).collect()
            }
            Err(failure) => {
                let error = Error::from(failure);
                batch.into_iter().map(|waiting| (waiting, alike(&error).into())).collect()
            }
        };
        let mut again = Vec::new();
        let mut losses = 0;
        for (mut waiting, failure) in failures {
            if failure.is_throttled() {
                match waiting.patience.told_to_wait(calls, None) {
                    Ok(_) => again.push(waiting),
                    Err(OutOfPatience(wait)) => {
                        let error = Error::from(failure);
                        let wait = error.retry_after().unwrap_or(wait);
                        waiting.tell(Outcome::Failed(error.with_retry_after(wait).into()));
                    }
                }
            // A session that was committed is gone, which shows in the next answer, and then in the file.
            } else if (failure.is_lost() || failure.is_out_of_reach()) && waiting.losses + 1 < COMMITS_MAX {
                waiting.losses += 1;
                losses = losses.max(waiting.losses);
                again.push(waiting);
            } else {
                waiting.tell(Outcome::Failed(failure));
            }
        }
        if losses > 0 {
            pause_between(losses).await;
        }
        if !again.is_empty() {
            tracing::debug!(entries = again.len(), "uploads are committed again");
            let mut state = self.commits.state();
            for waiting in again.into_iter().rev() {
                state.waiting.push_front(waiting);
            }
        }
    }
}

/// Those who may wait until the account may be called, then; the others learn at once that they may not.
async fn in_turn(mut batch: Vec<Waiting>, calls: &Pace) -> Option<Vec<Waiting>> {
    let turns = futures::future::join_all(batch.iter_mut().map(|waiting| waiting.patience.turn(calls))).await;
    let mut in_turn = Vec::with_capacity(batch.len());
    for (waiting, turn) in batch.into_iter().zip(turns) {
        match turn {
            Ok(()) => in_turn.push(waiting),
            Err(OutOfPatience(wait)) => {
                let error = paused(&Call { route: ROUTE, subject: &waiting.path, repeatable: false }, wait);
                waiting.tell(Outcome::Failed(error.into()));
            }
        }
    }
    Some(in_turn).filter(|batch| !batch.is_empty())
}

/// Tells a writer that its session is a file; `Some` when it is not.
fn committed(waiting: Waiting, entry: Entry) -> Option<(Waiting, Failure)> {
    let failure = match entry {
        Entry::Success(metadata) => {
            waiting.tell(Outcome::Done(*metadata));
            return None;
        }
        Entry::Failure { failure } => refused_entry(ROUTE, &waiting.path, &failure),
        Entry::Unknown => refused_entry(ROUTE, &waiting.path, &Value::Null),
    };
    Some((waiting, failure))
}

/// The same error for another operation; its causes become part of the message.
fn alike(error: &Error) -> Error {
    let copy = Error::new(error.kind(), layers(error));
    match error.retry_after() {
        Some(wait) => copy.with_retry_after(wait),
        None => copy,
    }
}
