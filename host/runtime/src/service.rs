//! A named service: the generation that serves at the moment, who may enter, what is counted, and what an operator is
//! told of it. Knows nothing of files; the deployer puts generations in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::generation::{ContentHash, Generation, Outcome, Reporter};
use crate::invocation::{Failure, FailureKind, InvocationId};
use crate::lane::Pace;
use crate::output::on_one_line;
use crate::settings::ServiceSettings;

/// When a caller that was refused should try again, when nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// One service.
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) current: ArcSwapOption<Generation>,
    pub(crate) pace: Arc<Pace>,
    admission: ArcSwap<Admission>,
    counters: Counters,
    record: Mutex<Record>,
}

struct Admission {
    limit: usize,
    places: Arc<Semaphore>,
}

#[derive(Default)]
struct Counters {
    invocations: AtomicU64,
    failures: AtomicU64,
    in_flight: AtomicU64,
}

#[derive(Default)]
struct Record {
    deployed_at: Option<Timestamp>,
    refused: Option<RefusedVersion>,
    last_failure: Option<FailedInvocation>,
}

/// A version that does not serve, and why.
#[derive(Debug, Clone)]
pub struct RefusedVersion {
    /// When it was refused.
    pub at: Timestamp,
    /// Which content, where it could be read.
    pub content: Option<ContentHash>,
    /// What is wrong with it.
    pub reason: String,
}

/// An invocation that failed by the service's fault.
#[derive(Debug, Clone)]
pub struct FailedInvocation {
    /// When it ended.
    pub at: Timestamp,
    /// Its id.
    pub id: InvocationId,
    /// What happened.
    pub message: String,
    /// The backtrace and the last lines of standard error.
    pub details: Option<String>,
}

/// What an operator is told of a service.
#[derive(Debug, Clone)]
pub struct ServiceStatus {
    /// Its name.
    pub name: String,
    /// What it does at the moment.
    pub state: ServiceState,
    /// The generation that serves.
    pub generation: Option<ContentHash>,
    /// The size of its component in bytes.
    pub component_bytes: Option<u64>,
    /// The interface by which it is called.
    pub export: Option<&'static str>,
    /// Since when this generation serves.
    pub deployed_at: Option<Timestamp>,
    /// The newest version, when that one does not serve.
    pub refused: Option<RefusedVersion>,
    /// The last invocation that failed by the service's fault.
    pub last_failure: Option<FailedInvocation>,
    /// Invocations begun.
    pub invocations: u64,
    /// Invocations that failed, by whomever's fault.
    pub failures: u64,
    /// Invocations running or waiting.
    pub in_flight: u64,
}

/// What a service does at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServiceState {
    /// Its first version is being compiled.
    Preparing,
    /// It answers.
    Serving,
    /// It never had a version that could serve.
    Failed,
}

impl Service {
    pub(crate) fn new(name: &str) -> Arc<Self> {
        Arc::new(Self {
            name: name.into(),
            current: ArcSwapOption::empty(),
            pace: Arc::default(),
            admission: ArcSwap::from_pointee(Admission { limit: 0, places: Arc::new(Semaphore::new(0)) }),
            counters: Counters::default(),
            record: Mutex::default(),
        })
    }

    /// Puts a generation in place and gives back the one that served until now.
    pub(crate) fn replace(&self, generation: Option<Arc<Generation>>) -> Option<Arc<Generation>> {
        let mut record = self.record();
        record.deployed_at = generation.as_ref().map(|_| Timestamp::now());
        record.refused = None;
        self.current.swap(generation)
    }

    /// Notes that a version does not serve. What serves goes on.
    pub(crate) fn refuse(&self, content: Option<ContentHash>, reason: String) {
        self.record().refused = Some(RefusedVersion { at: Timestamp::now(), content, reason });
    }

    /// Forgets a refused version, because the file is again what serves.
    pub(crate) fn clear_refused(&self) {
        self.record().refused = None;
    }

    /// Waits for a place among the invocations of this service.
    ///
    /// # Errors
    /// `Overloaded` when none was free in time, `Deadline` when the deadline came first.
    pub(crate) async fn admit(
        &self,
        settings: &ServiceSettings,
        deadline: Instant,
    ) -> Result<OwnedSemaphorePermit, Failure> {
        let places = self.places(settings.concurrency);
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            return Ok(place);
        }
        let patience = Instant::now() + settings.queue_timeout;
        match timeout_at(patience.min(deadline), places.acquire_owned()).await {
            Ok(Ok(place)) => Ok(place),
            Ok(Err(_)) => Err(Failure::new(FailureKind::Internal, "the service's queue is closed")),
            Err(_) if deadline <= patience => {
                Err(Failure::new(FailureKind::Deadline, "the deadline passed while the invocation waited for its turn"))
            }
            Err(_) => Err(Failure::new(
                FailureKind::Overloaded,
                format!("service {} is busy with {} invocations at once, its limit", self.name, settings.concurrency),
            )
            .with_retry_after(RETRY_AFTER)),
        }
    }

    /// The places for this limit. When the limit changed, invocations under the old one end as they began.
    fn places(&self, limit: usize) -> Arc<Semaphore> {
        let admission = self.admission.load();
        if admission.limit == limit {
            return Arc::clone(&admission.places);
        }
        let places = Arc::new(Semaphore::new(limit.clamp(1, Semaphore::MAX_PERMITS)));
        self.admission.store(Arc::new(Admission { limit, places: Arc::clone(&places) }));
        places
    }

    /// Counts an invocation from now on until the returned reporter is told how it ended.
    pub(crate) fn begin(self: &Arc<Self>, id: InvocationId, generation: Option<&Generation>) -> InvocationRecord {
        self.counters.invocations.fetch_add(1, Ordering::Relaxed);
        self.counters.in_flight.fetch_add(1, Ordering::Relaxed);
        InvocationRecord {
            service: Arc::clone(self),
            id,
            generation: generation.map(|generation| generation.content.clone()),
            begun: Instant::now(),
            place: None,
        }
    }

    pub(crate) fn status(&self) -> ServiceStatus {
        let generation = self.current.load_full();
        let record = self.record();
        ServiceStatus {
            name: self.name.to_string(),
            state: match (&generation, &record.refused) {
                (Some(_), _) => ServiceState::Serving,
                (None, Some(_)) => ServiceState::Failed,
                (None, None) => ServiceState::Preparing,
            },
            component_bytes: generation.as_ref().map(|generation| generation.component_bytes),
            export: generation.as_ref().map(|generation| generation.export_name()),
            generation: generation.map(|generation| generation.content.clone()),
            deployed_at: record.deployed_at,
            refused: record.refused.clone(),
            last_failure: record.last_failure.clone(),
            invocations: self.counters.invocations.load(Ordering::Relaxed),
            failures: self.counters.failures.load(Ordering::Relaxed),
            in_flight: self.counters.in_flight.load(Ordering::Relaxed),
        }
    }

    fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one place where an invocation ends: one line in the log, one record, the counters, the place given back.
pub(crate) struct InvocationRecord {
    service: Arc<Service>,
    id: InvocationId,
    generation: Option<ContentHash>,
    begun: Instant,
    pub(crate) place: Option<OwnedSemaphorePermit>,
}

impl Reporter for InvocationRecord {
    fn report(&mut self, outcome: Outcome) {
        self.place = None;
        let counters = &self.service.counters;
        counters.in_flight.fetch_sub(1, Ordering::Relaxed);
        let service = &*self.service.name;
        let invocation = self.id.as_str();
        let duration_ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let generation = self.generation.as_ref().map_or("", |content| &content.as_str()[..12]);
        match outcome {
            Outcome::Answered(status) => {
                let status = status.as_u16();
                tracing::info!(service, invocation, generation, status, duration_ms, "answered");
            }
            Outcome::Cancelled => {
                tracing::info!(service, invocation, generation, duration_ms, "cancelled: its connection was closed");
            }
            Outcome::Failed(failure) => {
                counters.failures.fetch_add(1, Ordering::Relaxed);
                let kind = format!("{:?}", failure.kind);
                let details = failure.details.as_deref();
                let message = on_one_line(&failure.message);
                match failure.kind {
                    FailureKind::Guest(_) => {
                        tracing::info!(service, invocation, generation, kind, duration_ms, "refused: {message}");
                    }
                    _ => {
                        tracing::warn!(
                            service,
                            invocation,
                            generation,
                            kind,
                            duration_ms,
                            details,
                            "failed: {message}"
                        );
                    }
                }
                if matches!(failure.kind, FailureKind::Trap | FailureKind::Deadline | FailureKind::Internal) {
                    self.service.record().last_failure = Some(FailedInvocation {
                        at: Timestamp::now(),
                        id: self.id.clone(),
                        message: failure.message,
                        details: failure.details,
                    });
                }
            }
        }
    }
}
