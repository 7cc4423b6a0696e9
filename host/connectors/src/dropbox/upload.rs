//! One file into Dropbox, of any size, whole and verified or not at all.
//!
//! What fits into one part goes in one request, or, when other files are on their way, in a session that is committed
//! together with theirs; anything larger goes in a session of its own. A lost answer is resolved by looking for the
//! content. Knows nothing of who uploads.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::call::Caller;
use super::commit::Outcome;
use super::failure::{Call, Failure};
use super::pace::pause_between;
use super::parts::{Part, Parts};
use super::session::{Closed, PARTS_AT_ONCE, PARTS_IN_A_ROW};
use super::wire::{Metadata, write_path};
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// The largest file: Dropbox's limit for upload sessions (files.stone, `UploadSessionLookupError.too_large`).
pub(super) const UPLOAD_BYTES_MAX: u64 = (1 << 41) - (1 << 22);

/// How often a file is looked for whose upload was not answered, and the pauses before: Dropbox may still be at
/// work on the last bytes when the connection breaks.
const LOOKS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(500), Duration::from_secs(2)];

/// How often a session is committed whose answer was lost.
const FINISHES_MAX: u32 = 3;

/// Where a file goes and what holds if something is there.
pub(super) struct Upload<'a> {
    pub(super) path: &'a RemotePath,
    /// Dropbox's `WriteMode`.
    pub(super) mode: Value,
    pub(super) autorename: bool,
    /// Whether identical content is a conflict, too.
    pub(super) strict_conflict: bool,
    /// As [`super::wire::write_time`] writes it.
    pub(super) client_modified: Option<String>,
    pub(super) mute: bool,
}

impl Upload<'_> {
    /// files.stone: CommitInfo.
    fn commit_info(&self) -> Value {
        let mut info = json!({
            "path": write_path(self.path),
            "mode": self.mode,
            "autorename": self.autorename,
            "strict_conflict": self.strict_conflict,
            "mute": self.mute,
        });
        if let Some(time) = &self.client_modified {
            info["client_modified"] = json!(time);
        }
        info
    }
}

impl Caller {
    /// Uploads and verifies. When the answer is lost after everything was sent, the upload counts as done if the file
    /// is there with this content: a strict upload that lost its answer thus cannot tell an identical file that was
    /// there before.
    pub(super) async fn upload(self: &Arc<Self>, upload: &Upload<'_>, content: Content) -> Result<Metadata, Failure> {
        let path = upload.path;
        let size = content.size();
        if let Some(size) = size.filter(|size| *size > UPLOAD_BYTES_MAX) {
            let message = format!("{path} with {size} bytes is larger than {UPLOAD_BYTES_MAX}, the most of one file");
            return Err(Error::new(ErrorKind::TooLarge, message).into());
        }
        let approach = self.commits.approach();
        let parts_in_memory = if size.is_some() { PARTS_AT_ONCE } else { PARTS_IN_A_ROW };
        let parts = Parts::new(content, self.window_bytes / parts_in_memory, self.memory.clone());
        let (first, rest) = parts.next().await?;
        let Some(rest) = rest else {
            // An empty session is nothing that Dropbox promises to commit.
            let lane = if first.length == 0 { Some(None) } else { self.membership.shared().lane().map(Some) };
            if let Some(_lane) = lane {
                drop(approach);
                return self.upload_at_once(upload, &first).await;
            }
            let closed = self.session_of(path.as_str(), &first).await?;
            return self.commit_with_others(upload, closed, approach).await;
        };
        drop(approach);
        let closed = match size {
            Some(_) => self.session_at_once(path.as_str(), first, rest).await?,
            None => self.session_in_a_row(path.as_str(), first, rest).await?,
        };
        match self.membership.shared().lane() {
            Some(_lane) => self.finish(upload, closed).await,
            None => self.commit_with_others(upload, closed, self.commits.approach()).await,
        }
    }

    /// In one request, which Dropbox verifies before anything is replaced.
    async fn upload_at_once(&self, upload: &Upload<'_>, part: &Part) -> Result<Metadata, Failure> {
        let call = Call { route: "files/upload", subject: upload.path.as_str(), repeatable: false };
        let mut argument = upload.commit_info();
        argument["content_hash"] = json!(part.hash);
        let answered = async {
            let answer = self.send_content(&call, &argument, Some((part, 0))).await?;
            answer.json::<Metadata>(&call).await
        };
        match answered.await {
            Ok(metadata) => self.verified(upload.path, metadata, &part.hash).await,
            Err(failure) => self.look_for(upload.path, &part.hash, failure).await,
        }
    }

    /// Commits one session by itself.
    async fn finish(&self, upload: &Upload<'_>, closed: Closed) -> Result<Metadata, Failure> {
        let call = Call { route: "files/upload_session/finish", subject: upload.path.as_str(), repeatable: true };
        let argument = json!({
            "cursor": { "session_id": closed.id, "offset": closed.size },
            "commit": upload.commit_info(),
        });
        let mut finishes = 1;
        loop {
            let answered = async {
                let answer = self.send_content(&call, &argument, None).await?;
                answer.json::<Metadata>(&call).await
            };
            match answered.await {
                Ok(metadata) => return self.verified(upload.path, metadata, &closed.hash).await,
                // If the lost one was done, the session is gone, and the next answer says so.
                Err(failure) if (failure.is_lost() || failure.is_out_of_reach()) && finishes < FINISHES_MAX => {
                    pause_between(finishes).await;
                    finishes += 1;
                }
                Err(failure) => return self.look_for(upload.path, &closed.hash, failure).await,
            }
        }
    }

    /// Commits one session in one call with those of others.
    async fn commit_with_others(
        self: &Arc<Self>,
        upload: &Upload<'_>,
        closed: Closed,
        approach: super::commit::Approach,
    ) -> Result<Metadata, Failure> {
        let Closed { id, size, hash } = closed;
        match self.commit(upload.path, &id, size, upload.commit_info(), approach).await {
            Outcome::Done(metadata) => self.verified(upload.path, metadata, &hash).await,
            Outcome::Failed(failure) => self.look_for(upload.path, &hash, failure).await,
        }
    }

    async fn verified(&self, path: &RemotePath, metadata: Metadata, hash: &str) -> Result<Metadata, Failure> {
        if metadata.content_hash.as_deref() == Some(hash) {
            return Ok(metadata);
        }
        let at = metadata.path_lower.as_deref().unwrap_or(path.as_str());
        let call = Call { route: "files/delete_v2", subject: at, repeatable: false };
        let removed = match &metadata.rev {
            Some(rev) => self.rpc::<Value>(&call, &json!({ "path": at, "parent_rev": rev })).await.map(|_| ()),
            None => Ok(()),
        };
        let what_became = match removed {
            Ok(()) => "was deleted again",
            Err(failure) => {
                tracing::warn!(path = at, ?failure, "a file that was damaged on its way could not be deleted");
                "could not be deleted; delete it"
            }
        };
        Err(Error::new(
            ErrorKind::Interrupted,
            format!("the content of {path} was damaged on its way: what arrived {what_became}, and upload it again"),
        )
        .into())
    }

    /// Everything was sent, but whether it was committed is not known: the answer did not come, or the session is gone.
    async fn look_for(&self, path: &RemotePath, hash: &str, failure: Failure) -> Result<Metadata, Failure> {
        let gone = failure.is("lookup_failed/not_found") || failure.is("lookup_failed/closed");
        if !gone && !failure.is_lost() {
            return Err(failure);
        }
        let mut is_absent = true;
        for pause in LOOKS {
            tokio::time::sleep(pause).await;
            match self.get_metadata(path).await {
                Ok(metadata) if metadata.content_hash.as_deref() == Some(hash) => return Ok(metadata),
                Ok(_) => {}
                Err(failure) if failure.is("path/not_found") => {}
                Err(failure) => {
                    tracing::warn!(path = path.as_str(), ?failure, "cannot look whether the upload was done");
                    is_absent = false;
                    break;
                }
            }
        }
        let lost = Error::from(failure);
        let (kind, what_became) = match is_absent {
            true if gone => (ErrorKind::Interrupted, "the file is not there; upload it again"),
            true => (lost.kind(), "the file is not there; upload it again"),
            // No kind that says that nothing was done.
            false if lost.kind() == ErrorKind::Timeout => {
                (ErrorKind::Timeout, "whether the file is there is not known")
            }
            false => (ErrorKind::Unavailable, "whether the file is there is not known"),
        };
        let error = Error::new(kind, format!("{path} was sent, but the answer did not come, and {what_became}"));
        let error = error.with_source(lost);
        Err(if is_absent { error.telling_effect() } else { error }.into())
    }
}
