//! Until when the caller of an operation waits for it, where it says so: whoever runs an invocation tells it once, for
//! everything that the invocation does.
//!
//! Ends nothing: an operation that is no longer wanted is dropped. This is for those who would wait for something that
//! cannot come in time, and better say so at once. Knows no operation.

use std::time::Duration;

use tokio::time::Instant;

tokio::task_local! {
    static DEADLINE: Instant;
}

/// Does work whose caller gives up at `deadline`.
pub async fn until<W: Future>(deadline: Instant, work: W) -> W::Output {
    DEADLINE.scope(deadline, work).await
}

/// Work for a task of its own, with the deadline of whoever makes it.
pub fn kept<W: Future>(work: W) -> impl Future<Output = W::Output> {
    let deadline = of_caller();
    async move {
        match deadline {
            Some(deadline) => until(deadline, work).await,
            None => work.await,
        }
    }
}

/// Whether the caller still waits after a pause from now on.
pub(crate) fn allows(pause: Duration) -> bool {
    of_caller().is_none_or(|deadline| Instant::now() + pause < deadline)
}

/// When the caller gives up.
pub(crate) fn of_caller() -> Option<Instant> {
    DEADLINE.try_get().ok()
}
