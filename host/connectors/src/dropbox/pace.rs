//! When to try again: one pace for all operations on an account.
//!
//! Dropbox limits an account, not a call, and calls that are refused count, too: when one operation is told to wait,
//! the others wait with it. Sleeps only inside the operation that waits, so dropping that ends the wait. Knows no
//! request.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// All waits of one operation together, unless it is configured: shorter than the 30 s that a caller waits by default,
/// so that it learns why.
pub(super) const WAIT_BUDGET: Duration = Duration::from_secs(20);

/// The backoff is doubled no more often than this: half a minute is longer than any lock is held.
const DOUBLINGS_MAX: u32 = 6;

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

/// How long one operation bears with a busy account; each connection's own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Tries of one operation, the first included.
    pub(super) tries_max: u32,
    /// All of its waits together.
    pub(super) wait_budget: Duration,
}

/// What one operation has left of its tries and its time.
#[derive(Debug)]
pub(super) struct Patience<'a> {
    pace: &'a Pace,
    limits: Limits,
    waited: Duration,
    tries: u32,
}

/// The operation would have to wait for so long, which is more than it may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct OutOfPatience(pub(super) Duration);

impl Pace {
    pub(super) fn patience(&self, limits: Limits) -> Patience<'_> {
        Patience { pace: self, limits, waited: Duration::ZERO, tries: 0 }
    }

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

impl Patience<'_> {
    /// Waits until the account may be called.
    pub(super) async fn turn(&mut self) -> Result<(), OutOfPatience> {
        loop {
            let remaining = self.pace.remaining();
            if remaining.is_zero() {
                return Ok(());
            }
            if self.waited + remaining > self.limits.wait_budget {
                return Err(OutOfPatience(remaining));
            }
            let wait = remaining + SPREAD.mul_f64(rand::random());
            self.waited += wait;
            tokio::time::sleep(wait).await;
        }
    }

    /// Notes that the account must not be called for a while, and whether this operation may wait for that.
    pub(super) fn told_to_wait(&mut self, asked: Option<Duration>) -> Result<(), OutOfPatience> {
        let wait = asked.filter(|asked| !asked.is_zero()).unwrap_or_else(|| backoff(self.tries));
        self.pace.pause(wait);
        self.tries += 1;
        if self.tries >= self.limits.tries_max || self.waited + wait > self.limits.wait_budget {
            return Err(OutOfPatience(wait));
        }
        Ok(())
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

    const LIMITS: Limits = Limits { tries_max: 5, wait_budget: WAIT_BUDGET };

    #[tokio::test(start_paused = true)]
    async fn when_one_operation_is_told_to_wait_the_others_wait_too() {
        let pace = Pace::default();
        assert_eq!(pace.patience(LIMITS).told_to_wait(Some(Duration::from_secs(3))), Ok(()));
        let started = Instant::now();
        assert_eq!(pace.patience(LIMITS).turn().await, Ok(()));
        assert!(started.elapsed() >= Duration::from_secs(3), "{:?}", started.elapsed());
        assert!(started.elapsed() <= Duration::from_secs(3) + 2 * SPREAD, "{:?}", started.elapsed());
        assert_eq!(pace.patience(LIMITS).turn().await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_budget_is_not_begun() {
        let pace = Pace::default();
        let long = WAIT_BUDGET + Duration::from_secs(1);
        assert_eq!(pace.patience(LIMITS).told_to_wait(Some(long)), Err(OutOfPatience(long)));
        let started = Instant::now();
        assert_eq!(pace.patience(LIMITS).turn().await, Err(OutOfPatience(long)));
        assert_eq!(started.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn an_account_that_stays_busy_ends_an_operation_within_its_budget() {
        let pace = Pace::default();
        let started = Instant::now();
        let mut patience = pace.patience(LIMITS);
        let mut tries = 1;
        while patience.turn().await.is_ok() && patience.told_to_wait(None).is_ok() {
            tries += 1;
        }
        assert_eq!(tries, LIMITS.tries_max);
        assert!(started.elapsed() <= WAIT_BUDGET, "{:?}", started.elapsed());
        assert!(started.elapsed() >= BACKOFF_FIRST, "{:?}", started.elapsed());
    }
}
