//! Following a configuration while the host runs: notice an edit, check the whole, apply it or keep the last good one.
//!
//! What the operating system reports is a hint; the truth is a regular look at the content of every file that the
//! configuration is made of, those of secrets included. Knows nothing of what the settings do.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode};
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, spawn_blocking};
use wharf_runtime::LiveSettings;

use super::Configuration;
use super::files::Files;
use super::problem::ConfigurationError;

/// How often the files are looked at when nothing is reported, as on network file systems.
const SCAN_INTERVAL: Duration = Duration::from_secs(2);
/// Files must stay the same for so long before they are read: an editor may empty a file first and fill it then.
const SETTLE_TIME: Duration = Duration::from_millis(250);
/// A file that is still changing after so many looks is read as it is; checking it tells whether it is whole.
const SETTLE_LOOKS_MAX: usize = 20;
/// How often a configuration that cannot be used is tried again although its files did not change: what it lacks may
/// lie elsewhere, such as a folder that does not exist yet.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);

/// A configuration that is being followed. Following ends when this is dropped.
pub(crate) struct Watch {
    error: watch::Receiver<Option<Arc<ConfigurationError>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Why the files as they are now are not in force; `None` when they are.
    pub(crate) fn last_error(&self) -> Option<Arc<ConfigurationError>> {
        self.error.borrow().clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the files of a configuration that is in force. `apply` gets the settings of every good edit; it must not
/// block. Must be called on a tokio runtime.
pub(crate) fn watch(started: Configuration, apply: impl FnMut(LiveSettings) + Send + 'static) -> Watch {
    let (sender, error) = watch::channel(None);
    let task = tokio::spawn(Follower::new(started, apply, sender).run());
    Watch { error, task }
}

pub(super) struct Follower<A> {
    started: Configuration,
    in_force: Configuration,
    /// The files as they were at the last attempt, good or bad.
    seen: Files,
    /// When the last attempt failed, and what it said.
    failure: Option<(Instant, String)>,
    /// The keys that were reported as waiting for a restart.
    reported_waiting: Vec<&'static str>,
    apply: A,
    error: watch::Sender<Option<Arc<ConfigurationError>>>,
}

impl<A: FnMut(LiveSettings)> Follower<A> {
    pub(super) fn new(started: Configuration, apply: A, error: watch::Sender<Option<Arc<ConfigurationError>>>) -> Self {
        Self {
            in_force: started.clone(),
            seen: started.files.clone(),
            started,
            failure: None,
            reported_waiting: Vec::new(),
            apply,
            error,
        }
    }

    async fn run(mut self) {
        if self.seen.is_empty() {
            return;
        }
        let mut hints = Hints::new();
        loop {
            hints.follow(self.seen.folders());
            hints.next().await;
            let retry = self.failure.as_ref().is_some_and(|(failed, _)| failed.elapsed() >= RETRY_INTERVAL);
            if !edited(&self.seen).await && !retry {
                continue;
            }
            let before = self.in_force.clone();
            match spawn_blocking(move || before.reload()).await {
                Ok(Ok(configuration)) => self.succeeded(configuration),
                Ok(Err(error)) => self.failed(error),
                Err(error) => tracing::error!(%error, "reading the configuration ended unexpectedly"),
            }
        }
    }

    pub(super) fn succeeded(&mut self, configuration: Configuration) {
        self.seen = configuration.files.clone();
        self.failure = None;
        for warning in configuration.warnings.iter().filter(|warning| !self.in_force.warnings.contains(warning)) {
            tracing::warn!("{warning}");
        }
        let waiting = configuration.waiting_for_restart(&self.started);
        if !waiting.is_empty() && waiting != self.reported_waiting {
            tracing::warn!(settings = waiting.join(", "), "changed settings take effect at the next start of the host");
        }
        self.reported_waiting = waiting;
        (self.apply)(configuration.live.clone());
        tracing::info!(fingerprint = configuration.fingerprint, "applied the changed configuration");
        self.in_force = configuration;
        self.error.send_replace(None);
    }

    pub(super) fn failed(&mut self, error: ConfigurationError) {
        self.seen = error.files().clone();
        let text = error.to_string();
        if self.failure.as_ref().is_none_or(|(_, said)| *said != text) {
            tracing::error!("the changed configuration is not applied, the last good one stays in force:\n{text}");
        }
        self.failure = Some((Instant::now(), text));
        self.error.send_replace(Some(Arc::new(error)));
    }
}

/// Whether the files differ from those of the last attempt, once they stay the same for a moment.
async fn edited(seen: &Files) -> bool {
    let mut now = look_again(seen).await;
    if now == *seen {
        return false;
    }
    for _ in 0..SETTLE_LOOKS_MAX {
        tokio::time::sleep(SETTLE_TIME).await;
        let later = look_again(&now).await;
        if later == now {
            break;
        }
        now = later;
    }
    now != *seen
}

async fn look_again(files: &Files) -> Files {
    let files_then = files.clone();
    // Only a panic or the end of the runtime can prevent the look; then nothing was seen.
    spawn_blocking(move || files_then.again()).await.unwrap_or_else(|_| files.clone())
}

/// Wakes up when something happens in the folders, and at regular intervals whatever happens.
struct Hints {
    folders: Vec<PathBuf>,
    watcher: Option<RecommendedWatcher>,
    sender: mpsc::Sender<()>,
    receiver: mpsc::Receiver<()>,
}

impl Hints {
    fn new() -> Self {
        // One place: a hint says that something happened, not what or how often.
        let (sender, receiver) = mpsc::channel(1);
        Self { folders: Vec::new(), watcher: None, sender, receiver }
    }

    /// Watches these folders and no others.
    fn follow(&mut self, folders: Vec<PathBuf>) {
        if folders == self.folders {
            return;
        }
        let sender = self.sender.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| may_change_content(event.kind)) {
                // A full channel holds a hint already.
                let _ = sender.try_send(());
            }
        });
        self.watcher = match watcher {
            Ok(mut watcher) => {
                for folder in &folders {
                    if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
                        tracing::debug!(folder = %folder.display(), %error, "the folder is only scanned for changes");
                    }
                }
                Some(watcher)
            }
            Err(error) => {
                tracing::debug!(%error, "the configuration is only scanned for changes");
                None
            }
        };
        self.folders = folders;
    }

    async fn next(&mut self) {
        // Both the hint and the end of the wait lead to the same look at the files. The channel cannot close: this
        // holds a sender.
        let _ = tokio::time::timeout(SCAN_INTERVAL, self.receiver.recv()).await;
    }
}

/// Reading a file is an event, too; following it would mean to look for ever.
fn may_change_content(kind: EventKind) -> bool {
    !matches!(kind, EventKind::Access(access) if access != AccessKind::Close(AccessMode::Write))
}
