//! When a request may be sent again, and after which wait.
//!
//! Only what is idempotent and can be repeated is: a method that RFC 9110 section 9.2.2 calls so, with a body that is
//! empty or in memory. Knows no connection; sleeps nowhere.

use std::time::{Duration, SystemTime};

use ::http::{HeaderMap, Method, StatusCode, header};
use tokio::time::Instant;

use crate::deadline;
use crate::error::ErrorKind;

/// The wait before the second try where the server asks for none, doubled each time: about a restart of a worker.
const BACKOFF_FIRST: Duration = Duration::from_millis(250);

/// The longest wait that nobody asked for.
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// Those who were told the same time to wait start again within this, not at one instant.
const SPREAD: Duration = Duration::from_millis(250);

/// From the first try on; no try begins later: less than the 30 s that a caller waits by default, so that it learns why.
pub(super) const BUDGET: Duration = Duration::from_secs(20);

/// What one request has left of its tries and its time.
#[derive(Debug)]
pub(super) struct Patience {
    retries: u32,
    budget: Duration,
    began: Instant,
    tries: u32,
}

impl Patience {
    pub(super) fn new(retries: u32, budget: Duration) -> Self {
        Self { retries, budget, began: Instant::now(), tries: 1 }
    }

    /// Tries so far.
    pub(super) fn tries(&self) -> u32 {
        self.tries
    }

    /// How long to wait before the next try; `None` when there is none, because the tries are used up or the wait
    /// would end after the budget, or when the caller has given up.
    pub(super) fn next_try(&mut self, asked: Option<Duration>) -> Option<Duration> {
        if self.tries > self.retries {
            return None;
        }
        let wait = match asked {
            Some(asked) => asked + SPREAD.mul_f64(rand::random()),
            // Half of the wait is certain, so that it helps; half is chance, so that those who met part ways.
            None => {
                let longest = BACKOFF_FIRST.saturating_mul(1 << (self.tries - 1).min(16)).min(BACKOFF_MAX);
                longest.mul_f64(0.5 + 0.5 * rand::random::<f64>())
            }
        };
        if self.began.elapsed() + wait > self.budget || !deadline::allows(wait) {
            return None;
        }
        self.tries += 1;
        Some(wait)
    }
}

/// Methods that may be repeated without another effect (RFC 9110 section 9.2.2).
pub(super) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE)
}

/// Answers that say "not now": another try may have another answer (RFC 6585 section 4, RFC 9110 section 15.6).
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Failures after which another try may succeed.
pub(super) fn is_passing_failure(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Interrupted)
}

/// The wait that a server asks for, in seconds or as a date (RFC 9110 section 10.2.3).
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More than fits is for ever, and still a time that others can be added to.
        return Some(Duration::from_secs(text.parse::<u32>().unwrap_or(u32::MAX).into()));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(value: &str) -> Option<Duration> {
        retry_after(&HeaderMap::from_iter([(header::RETRY_AFTER, value.parse().unwrap())]))
    }

    #[test]
    fn a_server_may_ask_for_seconds_or_name_a_date() {
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("0"), Some(Duration::ZERO));
        assert!(asked("99999999999999999999999").unwrap() > Duration::from_secs(1 << 30));
        assert_eq!(asked("Sun, 06 Nov 1994 08:49:37 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("Sunday, 06-Nov-94 08:49:37 GMT"), Some(Duration::ZERO));
        let soon = asked(&httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(90))).unwrap();
        assert!((Duration::from_secs(85)..=Duration::from_secs(90)).contains(&soon), "{soon:?}");
        for junk in ["", "-1", "7 s", "1.5", "soon"] {
            assert_eq!(asked(junk), None, "{junk}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end_with_the_tries() {
        let mut patience = Patience::new(3, Duration::from_secs(60));
        for longest in [250, 500, 1000] {
            let wait = patience.next_try(None).unwrap();
            assert!((longest / 2..=longest).contains(&(wait.as_millis() as u64)), "{wait:?} of {longest}");
        }
        assert_eq!(patience.next_try(None), None);
        assert_eq!(patience.tries(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_beyond_the_budget_is_not_begun() {
        let mut patience = Patience::new(9, Duration::from_secs(5));
        assert_eq!(patience.next_try(Some(Duration::from_secs(6))), None);
        assert!(patience.next_try(Some(Duration::from_secs(4))).is_some());
        tokio::time::advance(Duration::from_secs(4)).await;
        assert_eq!(patience.next_try(Some(Duration::from_secs(2))), None);
        assert_eq!(patience.next_try(asked("18446744073709551615")), None);
    }
}
