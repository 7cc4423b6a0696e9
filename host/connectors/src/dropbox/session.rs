//! Upload sessions: content of any size, in parts that are each verified, sent again where they were lost, and put
//! together by Dropbox before anything is visible.
//!
//! A session takes its parts one after the other, where Dropbox tells how far it came, or several at once, where it
//! does not and a lost part is sent again as a whole. Commits nothing. Knows nothing of who uploads.

use std::sync::{Arc, Mutex, PoisonError};

use ::http::{HeaderValue, header};
use futures::stream::{self, TryStreamExt};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

use super::call::{Answer, Caller};
use super::failure::{Call, Failure};
use super::pace::pause_between;
use super::parts::{Part, Parts};
use crate::error::{Error, ErrorKind};
use crate::http::client::streamed;

/// How often a part is sent whose request was lost or damaged: a line that fails this often in a row is no line.
const SENDS_MAX: u32 = 5;

/// Parts of one upload at once where its size is known: one on its way, one being stored, one being filled.
pub(super) const PARTS_AT_ONCE: u64 = 3;

/// Parts of one upload in memory where its size is not known: one on its way, one being filled.
pub(super) const PARTS_IN_A_ROW: u64 = 2;

const APPEND: &str = "files/upload_session/append_v2";
const START: &str = "files/upload_session/start";

/// A session that has all of its content and waits to be committed.
pub(super) struct Closed {
    pub(super) id: String,
    pub(super) size: u64,
    /// The content hash of everything.
    pub(super) hash: String,
}

#[derive(Deserialize)]
struct Started {
    session_id: String,
}

impl Caller {
    /// A session with all of a content that is one part.
    pub(super) async fn session_of(&self, subject: &str, part: &Part) -> Result<Closed, Failure> {
        let argument = json!({ "close": true, "content_hash": part.hash });
        let call = Call { route: START, subject, repeatable: true };
        let started: Started = self.send_persistently(&call, &argument, Some(part)).await?.json(&call).await?;
        let hash = part.whole.clone().unwrap_or_else(|| part.hash.clone());
        Ok(Closed { id: started.session_id, size: part.length, hash })
    }

    /// A session with all of a content, beginning with its first part, one part after the other.
    pub(super) async fn session_in_a_row(&self, subject: &str, first: Part, rest: Parts) -> Result<Closed, Failure> {
        let id = self.start_session(subject, "sequential").await?;
        let (mut part, mut rest) = (first, Some(rest));
        loop {
            // The next part is filled while this one is on its way.
            let filled = async {
                match rest {
                    Some(rest) => rest.next().await.map(Some).map_err(Failure::from),
                    None => Ok(None),
                }
            };
            let ((), next) = futures::try_join!(self.append(&id, subject, &part), filled)?;
            let Some((next, more)) = next else {
                return closed(id, &part);
            };
            (part, rest) = (next, more);
        }
    }

    /// The same with several parts at once. The last one, which closes the session, goes when all others are there:
    /// after it Dropbox takes no more.
    pub(super) async fn session_at_once(&self, subject: &str, first: Part, rest: Parts) -> Result<Closed, Failure> {
        let id = self.start_session(subject, "concurrent").await?;
        let last = Arc::new(Mutex::new(None));
        let kept = Arc::clone(&last);
        let parts = stream::try_unfold((Some(first), Some(rest)), move |(first, rest)| {
            let kept = Arc::clone(&kept);
            async move {
                let (part, rest) = match (first, rest) {
                    (Some(part), rest) => (part, rest),
                    (None, Some(rest)) => rest.next().await?,
                    (None, None) => return Ok::<_, Error>(None),
                };
                if part.is_last() {
                    *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(part);
                    return Ok(None);
                }
                Ok(Some((part, (None, rest))))
            }
        });
        let at_once = usize::try_from(PARTS_AT_ONCE).unwrap_or(1);
        let id_of_each = &id;
        parts
            .map_err(Failure::from)
            .map_ok(|part| async move { self.append(id_of_each, subject, &part).await })
            .try_buffer_unordered(at_once)
            .try_collect::<()>()
            .await?;
        let last = last.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(no_end)?;
        self.append(&id, subject, &last).await?;
        closed(id, &last)
    }

    async fn start_session(&self, subject: &str, kind: &str) -> Result<String, Failure> {
        let call = Call { route: START, subject, repeatable: true };
        let answer = self.send_persistently(&call, &json!({ "session_type": kind }), None).await?;
        Ok(answer.json::<Started>(&call).await?.session_id)
    }

    /// Sends one part, and what is missing of it again, until Dropbox has all of it.
    async fn append(&self, id: &str, subject: &str, part: &Part) -> Result<(), Failure> {
        let call = Call { route: APPEND, subject, repeatable: true };
        let (mut taken, mut sends) = (0, 0);
        loop {
            let argument = json!({
                "cursor": { "session_id": id, "offset": part.offset + taken },
                "close": part.is_last(),
                "content_hash": part.hash_from(taken),
            });
            sends += 1;
            let failure = match self.send_content(&call, &argument, Some((part, taken))).await {
                Ok(answer) => match answer.json::<IgnoredAny>(&call).await {
                    Ok(_) => return Ok(()),
                    Err(failure) => failure,
                },
                Err(failure) => failure,
            };
            // Only the last part closes a session, and only this one is it.
            if failure.is("closed") && part.is_last() && sends > 1 {
                return Ok(());
            }
            if let Some(place) = failure.correct_offset() {
                taken = place.checked_sub(part.offset).filter(|taken| *taken <= part.length).ok_or_else(|| {
                    Error::new(
                        ErrorKind::Interrupted,
                        format!("Dropbox lost its place in the upload of {subject}: it is at byte {place}; try again"),
                    )
                })?;
                if taken == part.length && !part.is_last() {
                    return Ok(());
                }
            } else if !may_pass(&failure) {
                return Err(failure);
            }
            if sends == SENDS_MAX {
                return Err(failure);
            }
            tracing::debug!(subject, offset = part.offset + taken, ?failure, "a part of an upload is sent again");
            pause_between(sends).await;
        }
    }

    /// Sends a request that does no harm when it is done twice, again when it was lost.
    async fn send_persistently(
        &self,
        call: &Call<'_>,
        argument: &Value,
        part: Option<&Part>,
    ) -> Result<Answer, Failure> {
        let mut sends = 1;
        loop {
            match self.send_content(call, argument, part.map(|part| (part, 0))).await {
                Err(failure) if sends < SENDS_MAX && may_pass(&failure) => {
                    pause_between(sends).await;
                    sends += 1;
                }
                done => return done,
            }
        }
    }

    /// Sends a call with content: of a part what follows its first bytes, or nothing.
    pub(super) async fn send_content(
        &self,
        call: &Call<'_>,
        argument: &Value,
        content: Option<(&Part, u64)>,
    ) -> Result<Answer, Failure> {
        // The head is made again for each try, but cannot fail differently.
        self.content_request(call, argument)?;
        self.send(call, || {
            let mut request = self.content_request(call, argument).ok()?;
            let octets = HeaderValue::from_static("application/octet-stream");
            request.headers_mut().insert(header::CONTENT_TYPE, octets);
            *request.body_mut() = Some(match content {
                Some((part, skip)) => {
                    let pieces = part.bytes_from(skip).map(Ok::<_, Error>);
                    streamed(Some(part.length - skip), stream::iter(pieces))
                }
                None => reqwest::Body::from(""),
            });
            Some(request)
        })
        .await
    }
}

/// Whether sending the same again may help.
fn may_pass(failure: &Failure) -> bool {
    failure.is_lost() || failure.is_out_of_reach() || failure.is("content_hash_mismatch")
}

fn closed(id: String, last: &Part) -> Result<Closed, Failure> {
    let hash = last.whole.clone().ok_or_else(no_end)?;
    Ok(Closed { id, size: last.end(), hash })
}

fn no_end() -> Error {
    Error::new(ErrorKind::Internal, "an upload came to its end without a last part")
}
