//! A file on its way from the server. Its end is believed only when the server confirms it and the size is as told.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;

use super::pool::Pool;
use super::session::{Session, Transfer};
use crate::content::CHUNK_BYTES;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

/// The free part of a read buffer below which a new one is taken: a smaller rest would make for tiny reads.
const READ_BYTES_MIN: usize = 8 * 1024;

/// A file on its way. Dropped before its end, its connection is closed.
pub(super) struct Download {
    pub(super) pool: Arc<Pool>,
    pub(super) path: RemotePath,
    pub(super) open: Option<(Session, Transfer)>,
    pub(super) buffer: BytesMut,
    /// Bytes to come, where that is known or limited.
    pub(super) left: Option<u64>,
    /// What the server has of the file is `left`, so less is a failure.
    pub(super) is_exact: bool,
    /// The end of the range is the end of the file, where the server says whether all of it was sent.
    pub(super) reaches_end: bool,
    pub(super) read_timeout: Duration,
}

impl Download {
    pub(super) async fn next_chunk(mut self) -> Result<Option<(Bytes, Self)>, Error> {
        let Some((mut session, mut transfer)) = self.open.take() else { return Ok(None) };
        if self.left == Some(0) && !self.reaches_end {
            self.abort(session, transfer).await;
            return Ok(None);
        }
        session.keep_alive().await?;
        if self.buffer.capacity() < READ_BYTES_MIN {
            self.buffer.reserve(CHUNK_BYTES);
        }
        let read = tokio::time::timeout(self.read_timeout, transfer.read_buf(&mut self.buffer)).await;
        let read = match read {
            Ok(Ok(read)) => read as u64,
            // Only the size tells then whether it was all.
            Ok(Err(error)) if session.is_unannounced_end(&error) && self.left == Some(0) => 0,
            Ok(Err(error)) => return Err(self.interrupted("the data connection broke").with_source(error)),
            Err(_) => return Err(session.late(&format!("sending more of {}", self.path))),
        };
        if read == 0 {
            self.end(session, transfer).await?;
            return Ok(None);
        }
        let mut chunk = self.buffer.split();
        if let Some(left) = self.left {
            if read > left && self.reaches_end {
                return Err(self.interrupted("the FTP server sent more than it said there is"));
            }
            chunk.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            self.left = Some(left - chunk.len() as u64);
        }
        self.open = Some((session, transfer));
        Ok(Some((chunk.freeze(), self)))
    }

    /// The end of the data is the end of the file only if the server says so, and if it is where it should be: a
    /// connection that was cut looks the same.
    async fn end(&mut self, mut session: Session, transfer: Transfer) -> Result<(), Error> {
        let finished = session
            .finish(transfer)
            .await
            .map_err(|error| self.interrupted("the FTP server did not confirm the end").with_source(error))?;
        self.pool.put(session);
        match finished {
            Err(reply) => Err(self.interrupted(&reply.text())),
            Ok(_) if self.is_exact && self.left.is_some_and(|left| left > 0) => {
                Err(self.interrupted("the FTP server ended it before the size that it had told"))
            }
            Ok(_) => Ok(()),
        }
    }

    /// Ends a transfer of which the rest is not wanted.
    async fn abort(&self, mut session: Session, transfer: Transfer) {
        if session.finish(transfer).await.is_ok() {
            session.check_before_reuse();
            self.pool.put(session);
        }
    }

    fn interrupted(&self, why: &str) -> Error {
        Error::new(ErrorKind::Interrupted, format!("reading {} broke off: {why}", self.path))
    }
}
