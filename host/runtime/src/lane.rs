//! Two lanes for guests: a fast one, where an invocation begins, and a slow one with less of the processor's favour, to
//! which it moves when it computes for longer than a slice without letting go. After such an invocation the next one of
//! the same service begins in the slow lane: were each of them given its slice first, a few in a second would be felt.
//!
//! So a guest that spins takes what is left over, and never the turn of one that answers at once. Knows nothing of
//! guests: the epoch callback says when a slice is over, the future that it suspends is moved here.

use std::cell::Cell;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

use crate::engine::EPOCH_TICK;

/// How long a guest may compute in one go before its invocation moves to the slow lane: shorter than one tick of the
/// epoch, so that the first tick that finds it computing decides.
const SLICE: Duration = EPOCH_TICK.saturating_sub(Duration::from_millis(2));

/// Niceness of the threads of the slow lane: about a tenth of the processor's share of a thread of the fast lane when
/// both want it, all of it when nobody else does.
const SLOW_LANE_NICENESS: i32 = 10;

/// The slow lane's threads.
pub(crate) struct Lanes {
    slow: Handle,
    runtime: Option<Runtime>,
}

impl Lanes {
    pub(crate) fn new() -> std::io::Result<Self> {
        // One processor is left to the fast lane. Priorities alone do not see to that: a thread of the slow lane that
        // loses its processor while it holds the kernel's lock on the memory map, as one that allocates does, would
        // keep the fast lane waiting for its next turn.
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(processors.saturating_sub(1).max(1))
            .thread_name("slow-lane")
            .on_thread_start(|| lower_priority_of_this_thread(SLOW_LANE_NICENESS))
            .enable_all()
            .build()?;
        Ok(Self { slow: runtime.handle().clone(), runtime: Some(runtime) })
    }

    /// Runs an invocation here until its clock says that it computes too long, from then on in the slow lane.
    /// Dropping the returned future cancels the invocation in either lane.
    pub(crate) fn run<F>(&self, clock: Arc<SliceClock>, invocation: F) -> LaneChange<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        LaneChange { state: State::Fast(Box::pin(invocation)), clock, slow: self.slow.clone() }
    }
}

impl Drop for Lanes {
    fn drop(&mut self) {
        // A runtime must not be dropped on a thread of another one, where waiting is not allowed.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of the calling thread alone. Failure is harmless: the thread keeps its priority.
pub(crate) fn lower_priority_of_this_thread(niceness: i32) {
    if let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), niceness) {
        tracing::debug!(%error, "the priority of a background thread could not be lowered");
    }
}

/// What is known of how long a service's invocations compute.
#[derive(Default)]
pub(crate) struct Pace {
    /// The last one to end computed for longer than a slice.
    slow: AtomicBool,
}

/// Knows for how long an invocation has been computing, and whether it was found to compute too long.
pub(crate) struct SliceClock {
    pace: Arc<Pace>,
    begins_slow: bool,
    /// Nanoseconds of processor time that the thread had used when it last resumed the invocation.
    resumed: AtomicU64,
    slow: AtomicBool,
}

impl SliceClock {
    pub(crate) fn start(pace: Arc<Pace>) -> Arc<Self> {
        let begins_slow = pace.slow.load(Ordering::Relaxed);
        Arc::new(Self { pace, begins_slow, resumed: AtomicU64::new(0), slow: AtomicBool::new(false) })
    }

    fn resume(&self) {
        self.resumed.store(recent_processor_time_of_this_thread(), Ordering::Relaxed);
    }

    /// Whether the slice is over, which also marks the invocation as one for the slow lane. Counted is processor time:
    /// a guest is not to blame for the time in which it waited, or in which another thread had its processor. Must be
    /// called on the thread that resumed the invocation.
    pub(crate) fn slice_is_over(&self) -> bool {
        let computing = processor_time_of_this_thread().saturating_sub(self.resumed.load(Ordering::Relaxed));
        let over = computing >= u64::try_from(SLICE.as_nanos()).unwrap_or(u64::MAX);
        if over {
            self.slow.store(true, Ordering::Relaxed);
        }
        over
    }
}

/// How old a reading of the processor's clock may be where an invocation is resumed. It is a system call, the other clock
/// is none; an invocation resumed by an old reading may lose so much of its slice to the one before it.
const READING_AGE_MAX: Duration = Duration::from_millis(1);

thread_local! {
    /// The last reading of this thread's processor clock, and when it was taken.
    static READING: Cell<Option<(Instant, u64)>> = const { Cell::new(None) };
}

/// As [`processor_time_of_this_thread`], or a reading that is not older than [`READING_AGE_MAX`].
fn recent_processor_time_of_this_thread() -> u64 {
    let now = Instant::now();
    READING.with(|reading| match reading.get() {
        Some((taken, time)) if now.duration_since(taken) < READING_AGE_MAX => time,
        _ => {
            let time = processor_time_of_this_thread();
            reading.set(Some((now, time)));
            time
        }
    })
}

/// In nanoseconds.
fn processor_time_of_this_thread() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0).saturating_mul(1_000_000_000).saturating_add(nanoseconds.unwrap_or(0))
}

/// An invocation on its way through the lanes.
pub(crate) struct LaneChange<T> {
    state: State<T>,
    clock: Arc<SliceClock>,
    slow: Handle,
}

enum State<T> {
    Fast(Pin<Box<dyn Future<Output = T> + Send>>),
    Slow(JoinHandle<T>),
    Finished,
}

impl<T: Send + 'static> Future for LaneChange<T> {
    type Output = Result<T, tokio::task::JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let State::Fast(invocation) = &mut this.state {
            if !this.clock.begins_slow {
                this.clock.resume();
                if let Poll::Ready(output) = invocation.as_mut().poll(context) {
                    this.state = State::Finished;
                    return Poll::Ready(Ok(output));
                }
                if !this.clock.slow.load(Ordering::Relaxed) {
                    return Poll::Pending;
                }
            }
            if let State::Fast(invocation) = std::mem::replace(&mut this.state, State::Finished) {
                let resumed = Resumed { clock: Arc::clone(&this.clock), invocation };
                this.state = State::Slow(this.slow.spawn(resumed));
            }
        }
        match &mut this.state {
            State::Slow(handle) => Pin::new(handle).poll(context),
            State::Fast(_) | State::Finished => Poll::Pending,
        }
    }
}

impl<T> Drop for LaneChange<T> {
    fn drop(&mut self) {
        self.clock.pace.slow.store(self.clock.slow.load(Ordering::Relaxed), Ordering::Relaxed);
        if let State::Slow(handle) = &self.state {
            handle.abort();
        }
    }
}

/// An invocation in the slow lane, whose clock goes on.
struct Resumed<T> {
    clock: Arc<SliceClock>,
    invocation: Pin<Box<dyn Future<Output = T> + Send>>,
}

impl<T> Future for Resumed<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        self.clock.resume();
        self.invocation.as_mut().poll(context)
    }
}
