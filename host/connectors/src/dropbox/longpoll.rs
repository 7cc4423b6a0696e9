//! Waiting for changes: one question that Dropbox answers when there is something to tell, or when time is up.
//!
//! Asked of another host, without a token, and answered late: it has a client of its own and takes no place among the
//! operations. Knows nothing of what changed.

use std::time::Duration;

use ::http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Semaphore;
use url::Url;

use super::account::Poll;
use super::call::{Answer, Caller};
use super::failure::{Call, Failure, Problem};
use crate::error::{Error, ErrorKind};
use crate::http::client::Client;

/// What Dropbox may add to a wait, so that not all are answered at once (files.stone, `list_folder/longpoll`: up to
/// 90 s), and the longest wait that can be asked for.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(480 + 90 + 30);

/// Waits of one connection at once: they cost little, but are not without end.
const POLLS_MAX: usize = 64;

/// The longest backoff that is believed.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);

/// The long polls of one connection.
pub(super) struct Polls {
    client: Client,
    url: Url,
    places: Semaphore,
}

#[derive(Deserialize)]
struct Polled {
    changes: bool,
    backoff: Option<u64>,
}

impl Polls {
    pub(super) fn new(client: Client, url: Url) -> Self {
        Self { client, url, places: Semaphore::new(POLLS_MAX) }
    }
}

impl Caller {
    /// Waits for changes behind a cursor for so many seconds.
    pub(super) async fn longpoll(&self, cursor: &str, seconds: u64) -> Result<Poll, Failure> {
        let polls = &self.polls;
        let Ok(_place) = polls.places.try_acquire() else {
            let message = format!("{POLLS_MAX} services wait for changes of this connection already; try again later");
            return Err(Error::new(ErrorKind::Unavailable, message).into());
        };
        let account = self.membership.shared();
        // Dropbox asked the account not to poll before.
        tokio::time::sleep(account.polls.remaining()).await;
        let call = Call { route: "files/list_folder/longpoll", subject: "a cursor", repeatable: true };
        let url = polls
            .url
            .join(&format!("2/{}", call.route))
            .map_err(|error| Error::new(ErrorKind::Invalid, "no URL can be made from notify-url").with_source(error))?;
        let mut request = reqwest::Request::new(Method::POST, url);
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *request.body_mut() = Some(json!({ "cursor": cursor, "timeout": seconds }).to_string().into());
        let answer = Answer::new(&call, polls.client.send(request).await?);
        if !answer.status().is_success() {
            return Err(match answer.into_problem(&call, |_| None).await {
                Problem::Final(failure) => failure,
                other => other.given_up().into(),
            });
        }
        let polled: Polled = answer.json(&call).await?;
        let backoff = polled.backoff.map(|seconds| Duration::from_secs(seconds).min(BACKOFF_MAX));
        if let Some(backoff) = backoff {
            account.polls.pause(backoff);
        }
        Ok(Poll { changes: polled.changes, backoff })
    }
}
