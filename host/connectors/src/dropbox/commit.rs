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

use super::call::Caller;
use super::failure::{Call, Failure, refused_entry};
use super::pace::pause_between;
use super::wire::Metadata;
use crate::error::{Error, ErrorKind, chain};
use crate::path::RemotePath;

/// Entries of one call (files.stone, `UploadSessionFinishBatchArg`).
const BATCH_ENTRIES_MAX: usize = 1000;

/// How long a batch waits for writers that are still on their way with their content: about as long as one request
/// takes, so that waiting costs nobody much, and never when nobody is on their way.
const GATHERING_MAX: Duration = Duration::from_millis(150);

/// How often an entry is committed that Dropbox turned away, or whose answer was lost.
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
    commits: u32,
    answer: oneshot::Sender<Outcome>,
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
        let unattended = {
            let mut state = self.commits.state();
            state.waiting.push_back(Waiting { entry, path: path.as_str().to_owned(), commits: 0, answer });
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
            self.commit_batch(batch).await;
        }
    }

    async fn commit_batch(&self, batch: Vec<Waiting>) {
        let subject = match batch.as_slice() {
            [one] => one.path.clone(),
            all => format!("{} files", all.len()),
        };
        // A session that was committed is gone, which shows in the answer, and then in the file.
        let call = Call { route: ROUTE, subject: &subject, repeatable: true };
        let entries: Vec<&Value> = batch.iter().map(|waiting| &waiting.entry).collect();
        let answered = self.rpc::<Committed>(&call, &json!({ "entries": entries })).await;
        let mut again = Vec::new();
        match answered {
            Ok(Committed { entries }) if entries.len() == batch.len() => {
                for (mut waiting, entry) in batch.into_iter().zip(entries) {
                    waiting.commits += 1;
                    let failure = match entry {
                        Entry::Success(metadata) => {
                            // Who has gone needs no answer.
                            let _ = waiting.answer.send(Outcome::Done(*metadata));
                            continue;
                        }
                        Entry::Failure { failure } => refused_entry(ROUTE, &waiting.path, &failure),
                        Entry::Unknown => refused_entry(ROUTE, &waiting.path, &Value::Null),
                    };
                    if failure.is("too_many_write_operations") && waiting.commits < COMMITS_MAX {
                        again.push(waiting);
                    } else {
                        let _ = waiting.answer.send(Outcome::Failed(failure));
                    }
                }
            }
            Ok(_) => {
                let error = Error::new(ErrorKind::Interrupted, format!("{ROUTE}: the answer is not about {subject}"));
                answer_all(batch, &error);
            }
            Err(failure) if failure.is_lost() => {
                let error = Error::from(failure);
                for mut waiting in batch {
                    waiting.commits += 1;
                    if waiting.commits < COMMITS_MAX {
                        again.push(waiting);
                    } else {
                        let _ = waiting.answer.send(Outcome::Failed(alike(&error).into()));
                    }
                }
            }
            Err(failure) => answer_all(batch, &Error::from(failure)),
        }
        if let Some(first) = again.first() {
            let commits = first.commits;
            tracing::debug!(entries = again.len(), "uploads are committed again");
            pause_between(commits).await;
            let mut state = self.commits.state();
            for waiting in again.into_iter().rev() {
                state.waiting.push_front(waiting);
            }
        }
    }
}

fn answer_all(batch: Vec<Waiting>, error: &Error) {
    for waiting in batch {
        let _ = waiting.answer.send(Outcome::Failed(alike(error).into()));
    }
}

/// The same error for another operation; its causes become part of the message.
fn alike(error: &Error) -> Error {
    let copy = Error::new(error.kind(), chain(error));
    match error.retry_after() {
        Some(wait) => copy.with_retry_after(wait),
        None => copy,
    }
}
