//! When to try again: one pace for all operations on an account.
//!
//! Dropbox limits an account, not a call, and calls that are refused count, too: when one operation is told to wait,
//! the others wait with it. Sleeps only inside the operation that waits, so dropping that ends the wait. Knows no
//! request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// All waits of one call together where nothing else limits them: what a person bears before a prompt.
const WAIT_BUDGET: Duration = Duration::from_secs(20);

/// The backoff is doubled no more often than this: eight seconds are longer than a lock is held, and short beside the
/// time that is left to most callers.
const DOUBLINGS_MAX: u32 = 4;

/// The wait before the second try where Dropbox asks for none, doubled each time: a lock on a folder is held for about
/// as long as a change takes.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);

/// Operations that waited together start again within this time, not at one instant.
const SPREAD: Duration = Duration::from_millis(250);

/// The pace of one account.
#[derive(Debug, Default)]
pub(super) struct Pace {
    resume: Mutex<Option<Instant>>,
}

/// What one call has left of its time for waits.
#[derive(Debug)]
pub(super) struct Patience {
    /// All waits together.
    budget: Duration,
    /// When the caller gives up.
    deadline: Option<Instant>,
    waited: Duration,
    refusals: u32,
}

/// The operation would have to wait for so long, which is more than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfPatience(pub(super) Duration);

impl Pace {
    /// The account must not be called for so long.
    pub(super) fn pause(&self, wait: Duration) {
        self.pause_until(Instant::now() + wait);
    }

    /// What holds for the other one holds here, too.
    pub(super) fn join(&self, other: &Self) {
        if let Some(until) = *other.resume() {
            self.pause_until(until);
        }
    }

    /// How long the account must not be called yet.
    pub(super) fn remaining(&self) -> Duration {
        self.resume().map_or(Duration::ZERO, |resume| resume.saturating_duration_since(Instant::now()))
    }

    fn pause_until(&self, until: Instant) {
        let mut resume = self.resume();
        *resume = (*resume).max(Some(until));
    }

    fn resume(&self) -> MutexGuard<'_, Option<Instant>> {
        self.resume.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A jittered pause of one operation before it does something again that was lost. Others go on.
pub(super) async fn pause_between(times: u32) {
    tokio::time::sleep(backoff(times.saturating_sub(1))).await;
}

impl Patience {
    /// Of a call that may wait for `budget` in all, and not beyond the deadline of its caller. Without a budget, the
    /// deadline alone decides.
    pub(super) fn new(budget: Option<Duration>, deadline: Option<Instant>) -> Self {
        let budget = budget.unwrap_or(if deadline.is_some() { Duration::MAX } else { WAIT_BUDGET });
        Self { budget, deadline, waited: Duration::ZERO, refusals: 0 }
    }

    /// Waits until the account may be called.
    pub(super) async fn turn(&mut self, pace: &Pace) -> Result<(), OutOfPatience> {
        loop {
            let remaining = pace.remaining();
            if remaining.is_zero() {
                return Ok(());
            }
            self.may_wait(remaining)?;
            let wait = remaining + SPREAD.mul_f64(rand::random());
            self.waited += wait;
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes that the account must not be called for a while: for how long, if this call may wait for that.
    pub(super) fn told_to_wait(&mut self, pace: &Pace, asked: Option<Duration>) -> Result<Duration, OutOfPatience> {
        let wait = asked.filter(|asked| !asked.is_zero()).unwrap_or_else(|| backoff(self.refusals));
        self.refusals += 1;
        pace.pause(wait);
        self.may_wait(wait).map(|()| wait)
    }

    fn may_wait(&self, wait: Duration) -> Result<(), OutOfPatience> {
        let budget_left = self.budget.saturating_sub(self.waited);
        let time_left = self.deadline.map_or(Duration::MAX, |end| end.saturating_duration_since(Instant::now()));
        if wait > budget_left.min(time_left) { Err(OutOfPatience(wait)) } else { Ok(()) }
    }
}

/// Half of the wait is certain, so that it helps; half is chance, so that those who met part ways.
fn backoff(doublings: u32) -> Duration {
    let longest = BACKOFF_FIRST * 2_u32.pow(doublings.min(DOUBLINGS_MAX));
    longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience() -> Patience {
        Patience::new(None, None)
    }

    #[tokio::test(start_paused = true)]
    async fn when_one_operation_is_told_to_wait_the_others_wait_too() {
        let pace = Pace::default();
        let wait = Duration::from_secs(3);
        assert_eq!(patience().told_to_wait(&pace, Some(wait)), Ok(wait));
        let started = Instant::now();
        assert_eq!(patience().turn(&pace).await, Ok(()));
        assert!(started.elapsed() >= wait, "{:?}", started.elapsed());
        assert!(started.elapsed() <= wait + 2 * SPREAD, "{:?}", started.elapsed());
        assert_eq!(patience().turn(&pace).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_does_not_fit_is_not_begun() {
        let fits = Duration::from_secs(60);
        let long = fits + Duration::from_secs(1);
        let deadline = Instant::now() + fits;
        for (budget, deadline) in [
            (Some(fits), None),
            (None, Some(deadline)),
            (Some(fits), Some(deadline + fits)),
            (Some(fits * 10), Some(deadline)),
        ] {
            let (pace, patience) = (Pace::default(), || Patience::new(budget, deadline));
            assert_eq!(patience().told_to_wait(&pace, Some(fits)), Ok(fits));
            assert_eq!(patience().told_to_wait(&pace, Some(long)), Err(OutOfPatience(long)));
            let started = Instant::now();
            assert_eq!(patience().turn(&pace).await, Err(OutOfPatience(long)));
            assert_eq!(started.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_stays_busy_is_borne_with_for_as_long_as_there_is_time() {
        for (budget, deadline, limit) in [
            (None, None, WAIT_BUDGET),
            (Some(Duration::from_secs(90)), None, Duration::from_secs(90)),
            (None, Some(Duration::from_secs(50)), Duration::from_secs(50)),
        ] {
            let (pace, started) = (Pace::default(), Instant::now());
            let mut patience = Patience::new(budget, deadline.map(|time| started + time));
            while patience.turn(&pace).await.is_ok() && patience.told_to_wait(&pace, None).is_ok() {}
            let (took, last_wait) = (started.elapsed(), BACKOFF_FIRST * 2_u32.pow(DOUBLINGS_MAX));
            assert!(took <= limit + SPREAD && took + last_wait >= limit, "{took:?} of {limit:?}");
        }
    }
}
