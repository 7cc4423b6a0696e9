//! The circuit breaker: an origin that keeps failing is left alone for a while, so that callers learn at once what
//! they would learn after a timeout, and the origin can recover.
//!
//! Closed, it counts. Open, it refuses until its pause is over. Then it is half open: one request goes through, and
//! its outcome decides. Knows no request; what counts as a failure is the caller's to say.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};

/// Parts of the window of the ratio: old outcomes leave it in steps of a tenth.
const WINDOW_PARTS: usize = 10;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// Failures in a row; 0 turns this condition off.
    pub failures: u32,
    /// The share of failures within the window, in percent; 0 turns this condition off.
    pub percent: u32,
    /// Over which time the share is taken.
    pub window: Duration,
    /// Requests within the window below which the share says nothing.
    pub requests_min: u32,
    /// How long an open breaker refuses everything.
    pub pause: Duration,
}

impl Default for Breaker {
    /// Ten failures in a row are no accident; a quarter of a minute is what a restart takes.
    fn default() -> Self {
        Self {
            failures: 10,
            percent: 0,
            window: Duration::from_secs(60),
            requests_min: 20,
            pause: Duration::from_secs(15),
        }
    }
}

/// The breaker of one origin.
#[derive(Debug)]
pub(super) struct Circuit {
    /// The name of the connection, for the log.
    connection: String,
    settings: Breaker,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Closed {
        in_a_row: u32,
        window: Window,
    },
    Open {
        until: Instant,
        why: String,
    },
    /// One request is on its way to find out.
    HalfOpen {
        why: String,
    },
}

/// The right to send one request, whose outcome is told here. Dropped without one, it says nothing.
#[derive(Debug)]
pub(super) struct Admission<'c> {
    circuit: &'c Circuit,
    probe: bool,
    told: bool,
}

impl Circuit {
    pub(super) fn new(connection: &str, settings: Breaker) -> Self {
        Self { connection: connection.to_owned(), settings, state: Mutex::new(State::closed()) }
    }

    /// Asks to send one request.
    ///
    /// # Errors
    /// `Unavailable` while the breaker is open, with the time until it tries again.
    pub(super) fn admit(&self) -> Result<Admission<'_>, Error> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (wait, why) = match &*state {
            State::Closed { .. } => return Ok(Admission { circuit: self, probe: false, told: false }),
            State::Open { until, why } => (until.saturating_duration_since(Instant::now()), why.clone()),
            State::HalfOpen { why } => (Duration::from_secs(1), why.clone()),
        };
        if wait.is_zero() {
            *state = State::HalfOpen { why };
            return Ok(Admission { circuit: self, probe: true, told: false });
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!(
                "nothing is sent to this origin for another {} s, because {why}; then one request tries again",
                wait.as_secs_f32().ceil()
            ),
        )
        .with_retry_after(wait))
    }

    fn told(&self, probe: bool, failed: bool, reason: &str) {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *state {
            State::HalfOpen { .. } if probe && failed => {
                *state = self.open(now, format!("it still fails ({reason})"));
            }
            State::HalfOpen { .. } if probe => *state = State::closed(),
            State::Closed { in_a_row, window } => {
                *in_a_row = if failed { in_a_row.saturating_add(1) } else { 0 };
                let (total, failures) = window.add(now, self.settings.window, failed);
                let row = self.settings.failures > 0 && *in_a_row >= self.settings.failures;
                let share = self.settings.percent > 0
                    && total >= self.settings.requests_min
                    && u64::from(failures) * 100 >= u64::from(total) * u64::from(self.settings.percent);
                if failed && (row || share) {
                    let why = if row {
                        format!("the last {in_a_row} requests failed (the last one: {reason})")
                    } else {
                        format!("{failures} of the last {total} requests failed (the last one: {reason})")
                    };
                    let (connection, pause_s) = (&self.connection, self.settings.pause.as_secs_f32());
                    tracing::warn!(connection, why, pause_s, "a circuit breaker opens");
                    *state = self.open(now, why);
                }
            }
            // What began before it opened says nothing new.
            State::Open { .. } | State::HalfOpen { .. } => {}
        }
    }

    fn open(&self, now: Instant, why: String) -> State {
        State::Open { until: now + self.settings.pause, why }
    }
}

impl State {
    fn closed() -> Self {
        Self::Closed { in_a_row: 0, window: Window::default() }
    }
}

impl Admission<'_> {
    pub(super) fn succeeded(mut self) {
        self.told = true;
        self.circuit.told(self.probe, false, "");
    }

    /// `reason` is shown to those who are refused; it never holds a secret.
    pub(super) fn failed(mut self, reason: &str) {
        self.told = true;
        self.circuit.told(self.probe, true, reason);
    }
}

impl Drop for Admission<'_> {
    /// A probe that was cancelled lets the next request be the probe.
    fn drop(&mut self) {
        if self.told || !self.probe {
            return;
        }
        let mut state = self.circuit.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let State::HalfOpen { why } = &*state {
            *state = State::Open { until: Instant::now(), why: why.clone() };
        }
    }
}

/// Requests and failures of the last while, in parts.
#[derive(Debug, Default)]
struct Window {
    parts: [Part; WINDOW_PARTS],
    began: Option<Instant>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Part {
    /// Which stretch of time since the beginning this part counts.
    stretch: u64,
    total: u32,
    failures: u32,
}

impl Window {
    /// Adds one outcome; the totals within the window.
    fn add(&mut self, now: Instant, length: Duration, failed: bool) -> (u32, u32) {
        let began = *self.began.get_or_insert(now);
        let stretch_nanos = (length / WINDOW_PARTS as u32).as_nanos().max(1);
        let stretch = ((now - began).as_nanos() / stretch_nanos) as u64;
        let part = &mut self.parts[(stretch % WINDOW_PARTS as u64) as usize];
        if part.stretch != stretch {
            *part = Part { stretch, ..Part::default() };
        }
        part.total = part.total.saturating_add(1);
        part.failures = part.failures.saturating_add(u32::from(failed));
        let recent = self.parts.iter().filter(|part| part.stretch + WINDOW_PARTS as u64 > stretch);
        recent.fold((0, 0), |(total, failures), part| {
            (total.saturating_add(part.total), failures.saturating_add(part.failures))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSE: Duration = Duration::from_secs(10);

    fn circuit(failures: u32, percent: u32) -> Circuit {
        let window = Duration::from_secs(60);
        Circuit::new("test", Breaker { failures, percent, window, requests_min: 4, pause: PAUSE })
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_open_it_and_one_success_after_the_pause_closes_it() {
        let circuit = circuit(3, 0);
        for failed in [true, true, false, true, true, true] {
            let admission = circuit.admit().unwrap();
            if failed { admission.failed("no answer") } else { admission.succeeded() }
        }
        let error = circuit.admit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert_eq!(error.retry_after(), Some(PAUSE));
        assert!(error.to_string().contains("the last 3 requests failed (the last one: no answer)"), "{error}");
        tokio::time::advance(PAUSE).await;
        let probe = circuit.admit().unwrap();
        circuit.admit().expect_err("one request at a time while it is half open");
        probe.succeeded();
        circuit.admit().unwrap().succeeded();
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_fails_opens_it_again_and_a_cancelled_one_lets_the_next_try() {
        let circuit = circuit(1, 0);
        circuit.admit().unwrap().failed("503");
        tokio::time::advance(PAUSE).await;
        drop(circuit.admit().unwrap());
        circuit.admit().unwrap().failed("503");
        assert!(circuit.admit().unwrap_err().to_string().contains("it still fails (503)"));
        tokio::time::advance(PAUSE).await;
        circuit.admit().unwrap().succeeded();
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_of_failures_opens_it_and_old_ones_are_forgotten() {
        let circuit = circuit(0, 50);
        for _ in 0..3 {
            circuit.admit().unwrap().failed("500");
        }
        circuit.admit().unwrap().succeeded();
        tokio::time::advance(Duration::from_secs(120)).await;
        for failed in [false, false, true, false] {
            let admission = circuit.admit().unwrap();
            if failed { admission.failed("503") } else { admission.succeeded() }
        }
        circuit.admit().unwrap().failed("503");
        circuit.admit().unwrap().failed("503");
        let error = circuit.admit().unwrap_err();
        assert!(error.to_string().contains("3 of the last 6 requests failed"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_conditions_it_never_opens() {
        let circuit = circuit(0, 0);
        for _ in 0..100 {
            circuit.admit().unwrap().failed("503");
        }
        circuit.admit().unwrap();
    }
}
