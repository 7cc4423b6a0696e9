//! How a file gets onto a server whole or not at all: a temporary name beside the target, the size checked, a rename.
//!
//! FTP has no rename that refuses to replace, and some servers have none that replaces. With [`IfExists::Fail`] and
//! [`IfExists::Rename`] a file that somebody else puts there between the last look and the rename is replaced on most
//! servers. Where replacing is refused, the target is deleted right before a second rename: for those two commands
//! nothing is there, and if the second fails, the temporary file is kept, for it is the only copy.

use std::sync::Arc;
use std::time::Duration;

use futures::stream::TryStreamExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tracing::Instrument;

use super::is_a_folder;
use super::pool::Pool;
use super::reply::Reply;
use super::session::{Answer, Open, Session, Transfer};
use crate::backend::{ALTERNATIVE_NAMES_MAX, Entry, EntryKind, IfExists, Resume, WriteOptions, alternative_name};
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// How often the removal of a leftover is tried on another connection: the server may create the file only after the
/// connection on which that was asked for is gone.
const REMOVE_TRIES: u32 = 3;

/// The pause between these tries.
const REMOVE_PAUSE: Duration = Duration::from_millis(300);

/// How long a failed upload waits for the removal of its leftover, which goes on behind its back.
const REMOVE_WAIT: Duration = Duration::from_secs(5);

/// Where the content comes from.
pub(super) enum Source<'a> {
    Content(Content),
    /// A file of the same server, which copies it.
    File(&'a RemotePath),
}

/// A file on its way. Dropped in the middle, it removes its temporary file in the background.
pub(super) struct Upload {
    pool: Arc<Pool>,
    temporary: RemotePath,
    transfer: Option<Transfer>,
    /// Taken by whoever ends the upload.
    session: Option<Session>,
    /// Whether the temporary file is to be removed.
    is_leftover: bool,
}

impl Upload {
    pub(super) fn new(pool: Arc<Pool>, session: Session, temporary: RemotePath) -> Self {
        Self { pool, temporary, transfer: None, session: Some(session), is_leftover: true }
    }

    /// Writes the file and gives it its name; on failure, removes what there is of it, unless it shall be continued.
    pub(super) async fn run(
        mut self,
        path: &RemotePath,
        source: Source<'_>,
        options: &WriteOptions,
    ) -> Result<Entry, Error> {
        self.is_leftover = options.resume.is_none();
        let written = self.write(path, source, options).await;
        if let Some(remains) = self.remains() {
            // A task of its own, so that it goes on when the caller goes away.
            let removal = tokio::spawn(remains.remove().in_current_span());
            if timeout(REMOVE_WAIT, removal).await.is_err() {
                tracing::debug!(path = %self.temporary, "a temporary file is still to be removed");
            }
        } else if let Some(mut session) = self.session.take() {
            // What arrived is kept by the server when it has seen the end of it.
            if let Some(transfer) = self.transfer.take()
                && session.finish(transfer).await.is_ok()
            {
                session.check_before_reuse();
            }
            self.pool.put(session);
        }
        written
    }

    async fn write(&mut self, path: &RemotePath, source: Source<'_>, options: &WriteOptions) -> Result<Entry, Error> {
        let Self { pool, session: Some(session), temporary, transfer, is_leftover } = self else {
            return Err(Error::new(ErrorKind::Internal, "an upload was used after its end"));
        };
        let size = match source {
            Source::Content(content) => {
                let resume = options.resume.as_ref();
                let mut opened = open(session, path, temporary, resume).await;
                // Nothing of the content is gone yet.
                if opened.is_err() && session.is_closed_unanswered() {
                    *session = pool.connect().await?;
                    opened = open(session, path, temporary, resume).await;
                }
                match opened? {
                    Ok(opened) => *transfer = Some(opened),
                    Err(reply) => return Err(session.not_put("write", path, &reply).await),
                }
                let offset = resume.map_or(0, |resume| resume.offset);
                Some(offset + send(session, transfer, path, content).await?)
            }
            Source::File(source) => {
                copy(session, source, temporary).await?;
                session.size(source).await?
            }
        };
        if let Some(time) = options.modified
            && !matches!(session.set_modified(temporary, time).await?, Some(Ok(())))
        {
            tracing::debug!(%path, "the FTP server does not set the time of a file");
        }
        let written = session.written(temporary).await?;
        if let (Some(stored), Some(size)) = (written.size, size)
            && stored != size
        {
            *is_leftover = true;
            return Err(Error::new(
                ErrorKind::Interrupted,
                format!("the FTP server kept {stored} of the {size} bytes of {path}; nothing was replaced"),
            ));
        }
        let if_exists = options.if_exists;
        let target = free_name(session, path, if_exists).await?;
        // From here on a failure is no matter of the content.
        give_name(session, temporary, &target, if_exists, is_leftover).await?;
        session.note_file(&target);
        if written.size.is_none() {
            // Under its own name the server may tell more. The file is there whatever this answers.
            let seen = session.stat(&target).await.ok().flatten();
            return Ok(seen.unwrap_or(Entry { path: target, size, ..written }));
        }
        Ok(Entry { path: target, ..written })
    }

    fn remains(&mut self) -> Option<Remains> {
        std::mem::take(&mut self.is_leftover).then(|| Remains {
            pool: Arc::clone(&self.pool),
            temporary: self.temporary.clone(),
            transfer: self.transfer.take(),
            session: self.session.take(),
        })
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let Some(remains) = self.remains()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(remains.remove().in_current_span());
        }
    }
}

/// Opens the temporary file for what comes behind the offset.
async fn open(
    session: &mut Session,
    path: &RemotePath,
    temporary: &RemotePath,
    resume: Option<&Resume>,
) -> Answer<Transfer> {
    match resume {
        None => session.confine_parent(temporary).await?,
        // Its name is no secret, so something may be there.
        Some(_) => session.confine(temporary).await?,
    }
    let offset = resume.map_or(0, |resume| resume.offset);
    let open = continued(session, path, temporary, offset).await?;
    session.open(open).await
}

/// How to go on at an offset. What a server has got of a file is seldom more than what it said, and then it is cut off.
async fn continued<'a>(
    session: &mut Session,
    path: &RemotePath,
    temporary: &'a RemotePath,
    offset: u64,
) -> Result<Open<'a>, Error> {
    if offset == 0 {
        return Ok(Open::Store { path: temporary, offset });
    }
    match session.size(temporary).await? {
        // The way that asks the least of a server.
        Some(size) if size == offset => Ok(Open::Append { path: temporary }),
        Some(size) if size > offset => Ok(Open::Store { path: temporary, offset }),
        found => Err(Error::new(
            ErrorKind::Interrupted,
            format!(
                "cannot go on writing {path} at byte {offset}: the FTP server has {} bytes of it; begin anew",
                found.unwrap_or(0)
            ),
        )),
    }
}

/// Copies a file on the server, by what ProFTPD calls `SITE CPFR` and `SITE CPTO` (mod_copy).
async fn copy(session: &mut Session, source: &RemotePath, target: &RemotePath) -> Result<(), Error> {
    for (command, path) in [("SITE CPFR", source), ("SITE CPTO", target)] {
        let reply = session.command(&format!("{command} {path}")).await?;
        if !(reply.is_positive() || reply.code == 350) {
            return Err(session.refused(&format!("copy {source} to {target}"), &reply));
        }
    }
    Ok(())
}

/// Sends the content and hears that the server has it; the number of bytes.
pub(super) async fn send(
    session: &mut Session,
    transfer: &mut Option<Transfer>,
    path: &RemotePath,
    content: Content,
) -> Result<u64, Error> {
    let limit = session.read_timeout();
    let mut chunks = content.into_stream();
    let mut sent = 0;
    let mut broken = None;
    while let Some(chunk) = chunks.try_next().await? {
        session.keep_alive().await?;
        let Some(open) = transfer.as_mut() else { break };
        match timeout(limit, open.write_all(&chunk)).await {
            Ok(Ok(())) => sent += chunk.len() as u64,
            Ok(Err(error)) => {
                broken = Some(error);
                break;
            }
            Err(_) => return Err(session.late(&format!("taking more of {path}"))),
        }
    }
    // The source may hold a place on a remote that somebody waits for.
    drop(chunks);
    let Some(finished) = transfer.take() else {
        return Err(Error::new(ErrorKind::Internal, "an upload was used after its end"));
    };
    let broke_off = || Error::new(ErrorKind::Interrupted, format!("writing {path} broke off after about {sent} bytes"));
    match (session.finish(finished).await, broken) {
        (Err(error), _) if error.kind() == ErrorKind::Timeout => Err(error),
        // The whole connection broke.
        (Err(error), _) => Err(broke_off().with_source(error)),
        (Ok(Err(reply)), _) => Err(session.refused(&format!("take all of {path}"), &reply)),
        (Ok(Ok(_)), None) => Ok(sent),
        (Ok(Ok(_)), Some(error)) => Err(broke_off().with_source(error)),
    }
}

/// The name to take, by what is there now.
async fn free_name(session: &mut Session, path: &RemotePath, if_exists: IfExists) -> Result<RemotePath, Error> {
    if if_exists == IfExists::Replace || session.stat(path).await?.is_none() {
        return Ok(path.clone());
    }
    if if_exists == IfExists::Rename {
        let folder = path.parent().unwrap_or_else(RemotePath::root);
        for number in 1..=ALTERNATIVE_NAMES_MAX {
            let candidate = folder.join(&alternative_name(path.name(), number))?;
            if session.stat(&candidate).await?.is_none() {
                return Ok(candidate);
            }
        }
    }
    Err(exists("write", path))
}

async fn give_name(
    session: &mut Session,
    temporary: &RemotePath,
    target: &RemotePath,
    if_exists: IfExists,
    is_leftover: &mut bool,
) -> Result<(), Error> {
    let reply = match session.rename(temporary, target).await? {
        Ok(()) => {
            *is_leftover = false;
            return Ok(());
        }
        Err(reply) => reply,
    };
    let found = session.stat(target).await?.map(|entry| entry.kind);
    if found == Some(EntryKind::Directory) {
        return Err(is_a_folder("write", target));
    }
    if if_exists != IfExists::Replace || found.is_none() {
        return Err(session.refused(&format!("rename {temporary} to {target}"), &reply));
    }
    let deleted = session.command(&format!("DELE {target}")).await?;
    if !deleted.is_positive() {
        return Err(session.refused(&format!("replace {target}"), &deleted));
    }
    *is_leftover = false;
    let kept = |reply: &str| {
        format!("{target} was deleted to be replaced, but its new content kept the name {}: {reply}", temporary.name())
    };
    match session.rename(temporary, target).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(reply)) => Err(Error::new(ErrorKind::Conflict, kept(&reply.text()))),
        Err(error) => {
            Err(Error::new(error.kind(), kept("the connection was lost")).with_source(error).telling_effect())
        }
    }
}

pub(super) fn exists(operation: &str, path: &RemotePath) -> Error {
    Error::new(ErrorKind::AlreadyExists, format!("cannot {operation} {path}: it exists already"))
}

/// What an upload that came to nothing has left.
struct Remains {
    pool: Arc<Pool>,
    temporary: RemotePath,
    transfer: Option<Transfer>,
    session: Option<Session>,
}

impl Remains {
    async fn remove(self) {
        let Self { pool, temporary, transfer, session } = self;
        let command = format!("DELE {temporary}");
        // On its own connection the order of things is certain.
        if let Some(mut session) = session {
            let in_step = match transfer {
                Some(transfer) => session.finish(transfer).await.is_ok(),
                None => session.is_in_step(),
            };
            if in_step && let Ok(reply) = session.command(&command).await {
                session.check_before_reuse();
                pool.put(session);
                // Refused means that it is not there, or that nobody could remove it.
                return told(&temporary, &reply);
            }
        }
        for attempt in 1..=REMOVE_TRIES {
            tokio::time::sleep(REMOVE_PAUSE * (attempt - 1)).await;
            let Ok(mut session) = pool.connect().await else { continue };
            let Ok(reply) = session.command(&command).await else { continue };
            pool.put(session);
            if reply.is_positive() || attempt == REMOVE_TRIES {
                return told(&temporary, &reply);
            }
        }
        tracing::warn!(path = %temporary, "a temporary file may be left: its FTP server cannot be reached");
    }
}

fn told(temporary: &RemotePath, reply: &Reply) {
    if !reply.is_positive() {
        tracing::debug!(path = %temporary, reply = reply.text(), "no temporary file was removed");
    }
}
