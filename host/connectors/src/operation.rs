//! What holds for every operation on every connection, whatever its protocol: a place among the operations at once,
//! retries where it is safe to repeat, the bandwidth limit, one log line, the metrics.
//!
//! Knows no protocol and no path jail. An operation that is dropped before its end says so in the log, and what is
//! known of its effect; one whose answer was lost says that in its error.

use std::error::Error as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use metrics::Counter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use tracing::Span;

use crate::content::{self, Content};
use crate::deadline;
use crate::error::{Error, ErrorKind, Step};
use crate::path::RemotePath;
use crate::{Remote, Shared};

/// How long an operation waits for a place among the operations of its connection: as long as a busy remote takes
/// for a few operations, and shorter than what a caller waits for an answer.
const PERMIT_WAIT_MAX: Duration = Duration::from_secs(20);

/// The pause before the first retry is random up to this; it doubles from retry to retry.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// No pause between retries is longer: a remote that needs longer is better asked by the next invocation.
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

/// What retries of one operation may take together, unless its caller gives up before.
const RETRY_BUDGET: Duration = Duration::from_secs(30);

/// The outcome of an operation that was dropped before its end, in the metrics.
pub(crate) const CUT_OFF: &str = "cut-off";

/// What an operation changes, and so what is known when it is cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    None,
    /// A file appears whole or not at all.
    WholeOrNot,
    /// The remote may have done it, or not.
    Unknown,
    /// A part of it may have been done.
    Partial,
}

impl Effect {
    pub(crate) fn when_cut_off(self) -> &'static str {
        match self {
            Self::None => "nothing was changed",
            Self::WholeOrNot => "the file is as it was before, or whole",
            Self::Unknown => "it may have happened",
            Self::Partial => "a part of it may have happened",
        }
    }

    /// An error with what is known of the effect, where the remote may have done what the error says nothing of,
    /// because its answer was lost.
    pub(crate) fn told_in(self, error: Error) -> Error {
        if was_lost(&error) { self.told_with(error) } else { error }
    }

    /// An error with what is known of the effect: it, or one before it, came in place of an answer.
    pub(crate) fn told_with(self, error: Error) -> Error {
        match self {
            Self::WholeOrNot | Self::Unknown => {
                error.with_effect(&format!("{}, so look before you repeat it", self.when_cut_off()))
            }
            // What of a part arrived stays, which the error says.
            Self::None | Self::Partial => error,
        }
    }
}

/// Whether the remote may have done what it was asked, because its answer was lost.
pub(crate) fn was_lost(error: &Error) -> bool {
    // Nothing was asked for before the way to the remote was gone.
    let was_asked = matches!(error.step(), None | Some(Step::Command));
    let is_lost = match error.kind() {
        ErrorKind::Timeout => true,
        // A refusal has no cause, a broken connection does.
        ErrorKind::Unavailable | ErrorKind::Interrupted => error.source().is_some(),
        _ => false,
    };
    was_asked && is_lost
}

/// One operation, from its beginning, before it waits for its place, to its one log line.
pub(crate) struct Operation {
    shared: Arc<Shared>,
    kind: &'static str,
    name: &'static str,
    path: RemotePath,
    effect: Effect,
    started: Instant,
    /// Content moved by it.
    bytes: Arc<AtomicU64>,
    /// How much content is still to be read, where that is known: a reader may stop at the last byte and never ask for
    /// the end.
    unread: Option<u64>,
    /// There is content for the remote, of which something is not on its way yet.
    has_unsent: Arc<AtomicBool>,
    /// Of the invocation, whose id the log line carries wherever the operation ends.
    span: Span,
    is_over: bool,
}

impl Operation {
    /// Begins one, and waits for its place.
    ///
    /// # Errors
    /// What [`Remote::permit`] reports.
    pub(crate) async fn begin(
        remote: &Remote,
        name: &'static str,
        path: &RemotePath,
        effect: Effect,
    ) -> Result<(Self, OwnedSemaphorePermit), Error> {
        let mut operation = Self {
            shared: Arc::clone(&remote.shared),
            kind: remote.kind(),
            name,
            path: path.clone(),
            // Until it has its place.
            effect: Effect::None,
            started: Instant::now(),
            bytes: Arc::default(),
            unread: None,
            has_unsent: Arc::default(),
            span: Span::current(),
            is_over: false,
        };
        match remote.permit().await {
            Ok(permit) => {
                operation.effect = effect;
                Ok((operation, permit))
            }
            Err(error) => operation.end(Err(error)),
        }
    }

    /// Ends the operation with its result, which is handed on.
    pub(crate) fn end<T>(mut self, result: Result<T, Error>) -> Result<T, Error> {
        self.tell(result.as_ref().err());
        result.map_err(|error| {
            let has_unsent = self.has_unsent.load(Ordering::Relaxed);
            let effect = match self.effect {
                // No file gets its name before its last byte; and by its kind nothing was done.
                Effect::WholeOrNot if has_unsent || error.kind() == ErrorKind::Interrupted => Effect::None,
                effect => effect,
            };
            effect.told_in(error.seen_from(&self.shared.common.root))
        })
    }

    fn tell(&mut self, error: Option<&Error>) {
        self.is_over = true;
        let outcome = error.map_or("ok", |error| error.kind().word());
        let step = error.and_then(Error::step).map(tracing::field::display);
        self.measure(outcome);
        let _invocation = self.span.enter();
        tracing::info!(
            connection = self.shared.name,
            operation = self.name,
            path = self.path.as_str(),
            bytes = self.bytes.load(Ordering::Relaxed),
            duration_ms = self.started.elapsed().as_millis() as u64,
            outcome,
            step,
            "connection operation"
        );
    }

    fn measure(&self, outcome: &str) {
        let meter = Meter::new(&self.shared.name, self.kind, self.name);
        meter.bytes().increment(self.bytes.load(Ordering::Relaxed));
        meter.ended(self.started.elapsed(), outcome);
    }

    /// The content of this operation on its way to the remote: counted, and within the bandwidth.
    pub(crate) fn measured(&self, content: Content) -> Content {
        let size = content.size();
        let (shared, bytes) = (Arc::clone(&self.shared), Arc::clone(&self.bytes));
        let (has_unsent, at_the_end) = (Arc::clone(&self.has_unsent), Arc::clone(&self.has_unsent));
        has_unsent.store(size != Some(0), Ordering::Relaxed);
        let chunks = content.into_stream().and_then(move |chunk| {
            let before = bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if size == Some(before + chunk.len() as u64) {
                has_unsent.store(false, Ordering::Relaxed);
            }
            let shared = Arc::clone(&shared);
            async move {
                if let Some(throttle) = &shared.throttle {
                    throttle.pass(chunk.len()).await;
                }
                Ok(chunk)
            }
        });
        let end = stream::poll_fn(move |_| {
            at_the_end.store(false, Ordering::Relaxed);
            Poll::Ready(None)
        });
        Content::from_stream(size, chunks.chain(end))
    }

    /// Content of the remote in chunks of at most [`crate::CHUNK_BYTES`]. The operation ends with it, and holds its
    /// place until then.
    pub(crate) fn with_content(mut self, content: Content, permit: OwnedSemaphorePermit) -> Content {
        let size = content.size();
        self.unread = size;
        let chunks = self.measured(content).into_stream_that_ends_well();
        let chunks = chunks.map_ok(|chunk| stream::iter(content::pieces(chunk)).map(Ok)).try_flatten().boxed();
        let state = (chunks, self, permit);
        Content::from_stream(
            size,
            stream::try_unfold(state, |(mut chunks, mut operation, permit)| async move {
                match chunks.try_next().await {
                    Ok(Some(chunk)) => {
                        operation.unread = operation.unread.map(|unread| unread.saturating_sub(chunk.len() as u64));
                        Ok(Some((chunk, (chunks, operation, permit))))
                    }
                    Ok(None) => {
                        operation.tell(None);
                        Ok(None)
                    }
                    Err(error) => {
                        operation.tell(Some(&error));
                        Err(error.seen_from(&operation.shared.common.root))
                    }
                }
            }),
        )
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        if self.unread == Some(0) {
            return self.tell(None);
        }
        self.measure(CUT_OFF);
        let _invocation = self.span.enter();
        tracing::info!(
            connection = self.shared.name,
            operation = self.name,
            path = self.path.as_str(),
            bytes = self.bytes.load(Ordering::Relaxed),
            duration_ms = self.started.elapsed().as_millis() as u64,
            effect = self.effect.when_cut_off(),
            "connection operation was cut off"
        );
    }
}

impl Remote {
    /// Does one operation that must not be repeated blindly.
    pub(crate) async fn once<T>(
        &self,
        name: &'static str,
        path: &RemotePath,
        effect: Effect,
        work: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let (operation, _permit) = Operation::begin(self, name, path, effect).await?;
        operation.end(work.await)
    }

    /// Does one operation that changes nothing, or the same however often it is done.
    pub(crate) async fn repeatably<T, W: Future<Output = Result<T, Error>>>(
        &self,
        name: &'static str,
        path: &RemotePath,
        effect: Effect,
        work: impl Fn() -> W,
    ) -> Result<T, Error> {
        let (operation, _permit) = Operation::begin(self, name, path, effect).await?;
        operation.end(self.retried(name, work).await)
    }

    /// Repeats what is safe to repeat while the remote is out of reach or breaks off.
    pub(crate) async fn retried<T, W: Future<Output = Result<T, Error>>>(
        &self,
        name: &'static str,
        work: impl Fn() -> W,
    ) -> Result<T, Error> {
        let retries = match self.backend(name)?.repeats_by_itself() {
            true => 0,
            false => self.shared.common.retries,
        };
        let started = Instant::now();
        let mut tried = 0;
        loop {
            let error = match work().await {
                Err(error) if is_passing(&error) && tried < retries => error,
                outcome => return outcome,
            };
            let pause = error.retry_after().unwrap_or_else(|| pause(tried));
            if started.elapsed() + pause > RETRY_BUDGET || !deadline::allows(pause) {
                return Err(error);
            }
            tried += 1;
            let (connection, error) = (self.name(), crate::chain(&error));
            tracing::info!(connection, operation = name, tried, error, "a connection operation is tried again");
            tokio::time::sleep(pause).await;
        }
    }

    /// Fails where content cannot be read and written at once.
    ///
    /// # Errors
    /// `Invalid` on a connection that allows one operation at once.
    pub(crate) fn check_room_to_copy(&self) -> Result<(), Error> {
        if self.shared.common.operations_max >= 2 {
            return Ok(());
        }
        let name = self.name();
        let message = format!(
            "connection {name} allows one operation at once, and copying within it takes two, one to read and one to \
             write; raise operations-max"
        );
        Err(Error::new(ErrorKind::Invalid, message))
    }

    /// Waits for a place among the operations of this connection. The wait is bounded, because operations that each
    /// hold one place and wait for a second one (a copy within the connection) would wait for each other for ever.
    async fn permit(&self) -> Result<OwnedSemaphorePermit, Error> {
        let permit = Arc::clone(&self.shared.permits).acquire_owned();
        match tokio::time::timeout(PERMIT_WAIT_MAX, permit).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(closed)) => {
                Err(Error::new(ErrorKind::Internal, format!("connection {} was closed", self.name()))
                    .with_source(closed))
            }
            Err(_) => Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "all {} operations that connection {} allows at once were busy for {} s; raise operations-max",
                    self.shared.common.operations_max,
                    self.name(),
                    PERMIT_WAIT_MAX.as_secs()
                ),
            )),
        }
    }
}

/// Whether the same operation may well succeed in a moment.
fn is_passing(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Interrupted | ErrorKind::RateLimited)
        && !error.is_lasting()
}

/// A random pause, so that many operations that failed together do not come back together.
pub(crate) fn pause(tried: u32) -> Duration {
    let longest = RETRY_PAUSE.saturating_mul(1 << tried.min(8)).min(RETRY_PAUSE_MAX);
    longest.mul_f64(rand::random_range(0.5..1.0))
}

/// The metrics of one kind of operation on one connection.
pub(crate) struct Meter {
    labels: [(&'static str, String); 3],
}

impl Meter {
    pub(crate) fn new(connection: &str, kind: &str, operation: &str) -> Self {
        let values = [("connection", connection), ("type", kind), ("operation", operation)];
        Self { labels: values.map(|(label, value)| (label, value.to_owned())) }
    }

    /// Notes that an operation ended.
    pub(crate) fn ended(self, took: Duration, outcome: &str) {
        metrics::histogram!("wharf_connection_operation_seconds", &self.labels).record(took.as_secs_f64());
        let [connection, kind, operation] = self.labels;
        let labels = [connection, kind, operation, ("outcome", outcome.to_owned())];
        metrics::counter!("wharf_connection_operations_total", &labels).increment(1);
    }

    /// Counts content.
    fn bytes(&self) -> Counter {
        metrics::counter!("wharf_connection_bytes_total", &self.labels)
    }
}

/// Content on its way, for protocols whose content outlives the operation: counted, and within the bandwidth.
#[derive(Clone)]
pub(crate) struct Flow {
    counter: Counter,
    throttle: Option<Arc<Throttle>>,
}

impl Flow {
    pub(crate) fn new(meter: &Meter, throttle: Option<Arc<Throttle>>) -> Self {
        Self { counter: meter.bytes(), throttle }
    }

    /// Counts so many more bytes; the wait that keeps them within the rate, where there is one.
    pub(crate) fn count(&self, bytes: usize) -> Option<impl Future<Output = ()> + Send + Sync + use<>> {
        self.counter.increment(bytes as u64);
        let throttle = self.throttle.clone()?;
        Some(async move { throttle.pass(bytes).await })
    }

    /// Counts so many more bytes, and waits until they are within the rate.
    pub(crate) async fn pass(&self, bytes: usize) {
        if let Some(within_the_rate) = self.count(bytes) {
            within_the_rate.await;
        }
    }
}

/// A limit of bytes per second that all transfers of a connection share.
pub(crate) struct Throttle {
    bytes_per_second: u64,
    /// When what was let through so far has passed at that rate.
    passed_at: Mutex<Instant>,
}

/// What may pass at once after a pause: without it, a rate would be missed by the grain of the timer.
const THROTTLE_BURST: Duration = Duration::from_millis(50);

impl Throttle {
    pub(crate) fn new(bytes_per_second: u64) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), passed_at: Mutex::new(Instant::now()) }
    }

    /// Waits until so many more bytes are within the rate.
    pub(crate) async fn pass(&self, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_per_second as f64);
        let until = {
            let mut passed_at = self.passed_at.lock().unwrap_or_else(PoisonError::into_inner);
            let earliest = Instant::now().checked_sub(THROTTLE_BURST).unwrap_or_else(Instant::now);
            *passed_at = (*passed_at).max(earliest) + takes;
            *passed_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_passes_a_throttle_takes_its_time() {
        let throttle = Throttle::new(1000);
        let started = Instant::now();
        futures::future::join_all((0..10).map(|_| throttle.pass(500))).await;
        let took = started.elapsed();
        assert!(took > Duration::from_millis(4900) && took < Duration::from_millis(5100), "{took:?}");
    }

    #[test]
    fn pauses_grow_and_stay_below_their_limit() {
        for tried in 0..40 {
            let pause = pause(tried);
            assert!(pause >= RETRY_PAUSE / 2 && pause <= RETRY_PAUSE_MAX, "{pause:?}");
        }
        assert!(pause(6) > pause(0));
    }
}
