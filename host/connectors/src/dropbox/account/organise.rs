//! Moving, copying, deleting, making folders, one at a time or a thousand in one call, and revisions of files.
//!
//! Every path is within the root, from and to. What Dropbox does in its own time is a [`Job`] to ask about.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Account, Metadata, bounded, told};
use crate::dropbox::failure::{Call, refused_entry};
use crate::dropbox::wire::{self, Changed, write_path};
use crate::error::{Error, ErrorKind};
use crate::operation::Effect;
use crate::path::RemotePath;

/// Entries of one batch (files.stone, `RelocationBatchArgBase`).
pub const BATCH_ENTRIES_MAX: usize = 1000;

/// Revisions of one answer (files.stone, `ListRevisionsArg`).
const REVISIONS_MAX: u32 = 100;

/// The pauses between two questions about a job: Dropbox needs about a second for most, minutes for thousands.
const JOB_PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_millis(200)..=Duration::from_secs(5);

/// What becomes of a batch.
#[derive(Debug)]
pub enum Batch {
    /// Dropbox does it in its own time.
    UnderWay(Job),
    /// It is over: what became of each entry, in the order in which they were given.
    Done(Vec<Result<Metadata, Error>>),
}

/// Something that Dropbox does in its own time. Its text can be kept, and read again by another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    kind: JobKind,
    id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JobKind {
    Move,
    Copy,
    Delete,
    CreateFolder,
    SaveUrl,
}

const JOB_KINDS: [(JobKind, &str, &str); 5] = [
    (JobKind::Move, "move", "files/move_batch/check_v2"),
    (JobKind::Copy, "copy", "files/copy_batch/check_v2"),
    (JobKind::Delete, "delete", "files/delete_batch/check"),
    (JobKind::CreateFolder, "create-folder", "files/create_folder_batch/check"),
    (JobKind::SaveUrl, "save-url", "files/save_url/check_job_status"),
];

impl JobKind {
    fn described(self) -> (&'static str, &'static str) {
        let found = JOB_KINDS.iter().find(|(kind, _, _)| *kind == self);
        found.map_or(("", ""), |(_, word, route)| (word, route))
    }
}

impl fmt::Display for Job {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}", self.kind.described().0, self.id)
    }
}

impl FromStr for Job {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let invalid = || Error::new(ErrorKind::Invalid, "this is no job of Dropbox");
        let (word, id) = text.split_once(':').ok_or_else(invalid)?;
        bounded("job", id)?;
        let (kind, _, _) = JOB_KINDS.iter().find(|(_, known, _)| *known == word).ok_or_else(invalid)?;
        Ok(Self { kind: *kind, id: id.to_owned() })
    }
}

/// The revisions of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revisions {
    /// Newest first.
    pub entries: Vec<Metadata>,
    /// Whether the file is deleted now.
    pub deleted: bool,
}

#[derive(Deserialize)]
struct WireRevisions {
    entries: Vec<wire::Metadata>,
    #[serde(default)]
    is_deleted: bool,
}

/// The answer to a launch or to a question about a job.
#[derive(Deserialize)]
struct Launched {
    #[serde(rename = ".tag")]
    tag: String,
    async_job_id: Option<String>,
    entries: Option<Vec<Value>>,
    failed: Option<Value>,
    #[serde(flatten)]
    rest: Value,
}

impl Account {
    /// Moves a file, or a folder with all that is in it (ten thousand entries at most).
    ///
    /// # Errors
    /// `NotFound` for the source; `AlreadyExists` for the target, unless `autorename` lets Dropbox choose a free name;
    /// `Unsupported` for a change of case only, and for folders that Dropbox does not move there.
    pub async fn move_to(&self, from: &RemotePath, to: &RemotePath, autorename: bool) -> Result<Metadata, Error> {
        self.relocate("files/move_v2", "dropbox-move", from, to, autorename).await
    }

    /// Copies a file, or a folder with all that is in it, within Dropbox.
    ///
    /// # Errors
    /// As [`Account::move_to`].
    pub async fn copy_to(&self, from: &RemotePath, to: &RemotePath, autorename: bool) -> Result<Metadata, Error> {
        self.relocate("files/copy_v2", "dropbox-copy", from, to, autorename).await
    }

    async fn relocate(
        &self,
        route: &'static str,
        name: &'static str,
        from: &RemotePath,
        to: &RemotePath,
        autorename: bool,
    ) -> Result<Metadata, Error> {
        self.not_the_root("move or copy", from)?;
        self.not_the_root("move or copy to", to)?;
        let (source, target) = (from.below(&self.root), to.below(&self.root));
        let subject = format!("{source} to {target}");
        let call = Call { route, subject: &subject, repeatable: false };
        let argument = json!({
            "from_path": write_path(&source),
            "to_path": write_path(&target),
            "autorename": autorename,
        });
        let work = async { Ok(self.client.caller.rpc::<Changed>(&call, &argument).await?) };
        let changed = self.remote.once(name, from, Effect::Unknown, work).await?;
        Ok(self.told_of(to, changed.metadata))
    }

    /// Moves up to [`BATCH_ENTRIES_MAX`] entries in one call.
    ///
    /// # Errors
    /// `Invalid` for none, or too many. What is wrong with an entry is in its own result.
    pub async fn move_batch(&self, entries: &[(RemotePath, RemotePath)], autorename: bool) -> Result<Batch, Error> {
        self.relocate_batch("files/move_batch_v2", JobKind::Move, entries, autorename).await
    }

    /// Copies up to [`BATCH_ENTRIES_MAX`] entries in one call.
    ///
    /// # Errors
    /// As [`Account::move_batch`].
    pub async fn copy_batch(&self, entries: &[(RemotePath, RemotePath)], autorename: bool) -> Result<Batch, Error> {
        self.relocate_batch("files/copy_batch_v2", JobKind::Copy, entries, autorename).await
    }

    async fn relocate_batch(
        &self,
        route: &'static str,
        kind: JobKind,
        entries: &[(RemotePath, RemotePath)],
        autorename: bool,
    ) -> Result<Batch, Error> {
        let mut written = Vec::new();
        for (from, to) in entries {
            self.not_the_root("move or copy", from)?;
            self.not_the_root("move or copy to", to)?;
            let (source, target) = (from.below(&self.root), to.below(&self.root));
            written.push(json!({ "from_path": write_path(&source), "to_path": write_path(&target) }));
        }
        self.launch(route, kind, entries.len(), json!({ "entries": written, "autorename": autorename })).await
    }

    /// Deletes up to [`BATCH_ENTRIES_MAX`] files and folders, those with all that is in them, in one call.
    ///
    /// # Errors
    /// As [`Account::move_batch`].
    pub async fn delete_batch(&self, paths: &[RemotePath]) -> Result<Batch, Error> {
        let mut written = Vec::new();
        for path in paths {
            self.not_the_root("delete", path)?;
            written.push(json!({ "path": write_path(&path.below(&self.root)) }));
        }
        self.launch("files/delete_batch", JobKind::Delete, paths.len(), json!({ "entries": written })).await
    }

    /// Creates up to [`BATCH_ENTRIES_MAX`] folders in one call.
    ///
    /// # Errors
    /// As [`Account::move_batch`].
    pub async fn create_folder_batch(&self, paths: &[RemotePath], autorename: bool) -> Result<Batch, Error> {
        let mut written = Vec::new();
        for path in paths {
            self.not_the_root("create", path)?;
            written.push(write_path(&path.below(&self.root)).to_owned());
        }
        let argument = json!({ "paths": written, "autorename": autorename });
        self.launch("files/create_folder_batch", JobKind::CreateFolder, paths.len(), argument).await
    }

    async fn launch(&self, route: &'static str, kind: JobKind, count: usize, argument: Value) -> Result<Batch, Error> {
        if count == 0 || count > BATCH_ENTRIES_MAX {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("a batch has 1 to {BATCH_ENTRIES_MAX} entries, this one {count}"),
            ));
        }
        let subject = format!("{count} entries");
        let call = Call { route, subject: &subject, repeatable: false };
        let work = async { Ok(self.client.caller.rpc::<Launched>(&call, &argument).await?) };
        let launched = self.remote.once("dropbox-batch", &RemotePath::root(), Effect::Partial, work).await?;
        self.outcome(&call, kind, launched)
    }

    /// How a job stands.
    ///
    /// # Errors
    /// `NotFound` for a job that Dropbox does not know, or no longer; what made the job fail as a whole.
    pub async fn check(&self, job: &Job) -> Result<Batch, Error> {
        let (word, route) = job.kind.described();
        let call = Call { route, subject: word, repeatable: true };
        let argument = json!({ "async_job_id": job.id });
        let work = async { Ok(self.client.caller.rpc::<Launched>(&call, &argument).await?) };
        let launched = self.remote.once("dropbox-check", &RemotePath::root(), Effect::None, work).await?;
        match launched.tag.as_str() {
            "in_progress" => Ok(Batch::UnderWay(job.clone())),
            _ => self.outcome(&call, job.kind, launched),
        }
    }

    /// Waits for the end of a batch. Dropping it ends the wait, not the job.
    ///
    /// # Errors
    /// As [`Account::check`].
    pub async fn done(&self, mut batch: Batch) -> Result<Vec<Result<Metadata, Error>>, Error> {
        let mut pause = *JOB_PAUSE.start();
        loop {
            match batch {
                Batch::Done(results) => return Ok(results),
                Batch::UnderWay(job) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(*JOB_PAUSE.end());
                    batch = self.check(&job).await?;
                }
            }
        }
    }

    fn outcome(&self, call: &Call<'_>, kind: JobKind, launched: Launched) -> Result<Batch, Error> {
        match (launched.tag.as_str(), launched.async_job_id, launched.entries) {
            ("async_job_id", Some(id), _) => Ok(Batch::UnderWay(Job { kind, id })),
            ("complete", _, Some(entries)) => {
                Ok(Batch::Done(entries.into_iter().map(|entry| self.entry_result(call, entry)).collect()))
            }
            ("complete", _, None) if kind == JobKind::SaveUrl => {
                Ok(Batch::Done(vec![self.result_of(call, launched.rest)]))
            }
            ("failed", _, _) => {
                Err(refused_entry(call.route, call.subject, &launched.failed.unwrap_or_default()).into())
            }
            (other, _, _) => Err(refused_entry(call.route, call.subject, &json!({ ".tag": other })).into()),
        }
    }

    fn entry_result(&self, call: &Call<'_>, mut entry: Value) -> Result<Metadata, Error> {
        if entry[".tag"] == "success" {
            let under = if entry["success"].is_object() { "success" } else { "metadata" };
            return self.result_of(call, entry[under].take());
        }
        let failure = entry.get("failure").unwrap_or(&entry);
        // A move tells its error one level deeper.
        let failure = failure.get("relocation_error").unwrap_or(failure);
        Err(refused_entry(call.route, call.subject, failure).into())
    }

    fn result_of(&self, call: &Call<'_>, metadata: Value) -> Result<Metadata, Error> {
        let unreadable = |error| {
            let message = format!("{}: the result of an entry is not one of Dropbox", call.route);
            Error::new(ErrorKind::Unavailable, message).with_source(error)
        };
        let metadata: wire::Metadata = serde_json::from_value(metadata).map_err(unreadable)?;
        let name = metadata.name.clone();
        self.told_within(metadata).ok_or_else(|| {
            // A job's text may have come from anywhere.
            Error::new(ErrorKind::Denied, format!("{name} is not within the root of this connection"))
        })
    }

    /// The revisions of the file at a path, newest first.
    ///
    /// # Errors
    /// `NotFound` when there never was one; `Conflict` for a folder.
    pub async fn revisions(&self, path: &RemotePath, limit: u32) -> Result<Revisions, Error> {
        let outside = path.below(&self.root);
        let call = Call { route: "files/list_revisions", subject: outside.as_str(), repeatable: true };
        let limit = limit.clamp(1, REVISIONS_MAX);
        let argument = json!({ "path": write_path(&outside), "mode": "path", "limit": limit });
        let work = async { Ok(self.client.caller.rpc::<WireRevisions>(&call, &argument).await?) };
        let found = self.remote.once("dropbox-revisions", path, Effect::None, work).await?;
        let entries = found.entries.into_iter().map(|metadata| told(path.clone(), metadata)).collect();
        Ok(Revisions { entries, deleted: found.is_deleted })
    }

    /// Makes an earlier revision of a file the current one.
    ///
    /// # Errors
    /// `NotFound` when the file never had this revision.
    pub async fn restore(&self, path: &RemotePath, revision: &str) -> Result<Metadata, Error> {
        bounded("revision", revision)?;
        let outside = path.below(&self.root);
        let call = Call { route: "files/restore", subject: outside.as_str(), repeatable: false };
        let argument = json!({ "path": write_path(&outside), "rev": revision });
        let work = async { Ok(self.client.caller.rpc::<wire::Metadata>(&call, &argument).await?) };
        let metadata = self.remote.once("dropbox-restore", path, Effect::Unknown, work).await?;
        Ok(self.told_of(path, metadata))
    }

    /// Lets Dropbox fetch a URL into a file. It takes minutes at most (15).
    ///
    /// # Errors
    /// `Invalid` for what is no URL.
    pub async fn save_url(&self, path: &RemotePath, url: &str) -> Result<Batch, Error> {
        self.not_the_root("save to", path)?;
        bounded("URL", url)?;
        let outside = path.below(&self.root);
        let call = Call { route: "files/save_url", subject: outside.as_str(), repeatable: false };
        let argument = json!({ "path": write_path(&outside), "url": url });
        let work = async { Ok(self.client.caller.rpc::<Launched>(&call, &argument).await?) };
        let launched = self.remote.once("dropbox-save-url", path, Effect::Unknown, work).await?;
        self.outcome(&call, JobKind::SaveUrl, launched)
    }
}
