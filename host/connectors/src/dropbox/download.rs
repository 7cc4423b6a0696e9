//! One file out of Dropbox: its head, and its content verified on its way.
//!
//! A whole file is checked against its content hash, a part against the length and place that were asked for. Knows
//! nothing of who downloads.

use ::http::{HeaderValue, StatusCode, header};
use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, TryStreamExt};
use serde_json::json;

use super::call::{Answer, Caller};
use super::failure::{Call, Failure};
use super::hash::ContentHasher;
use super::wire::{Kind, Metadata, write_path};
use crate::backend::ByteRange;
use crate::content::Content;
use crate::error::{Error, ErrorKind};
use crate::path::RemotePath;

impl Caller {
    /// A file's metadata and all of its content. A mismatch of the content hash is an error item at the end.
    pub(super) async fn download(&self, path: &RemotePath) -> Result<(Metadata, Content), Failure> {
        let answer = self.open(path, None).await?;
        let metadata = described(path, &answer)?;
        let (Some(size), Some(hash)) = (metadata.size, metadata.content_hash.clone()) else {
            return Err(unusable(path, "has no size or no content hash").into());
        };
        let content = Content::from_stream(Some(size), verified(path.clone(), answer.into_stream(), hash));
        Ok((metadata, content))
    }

    /// Some revision of some file: whose, its metadata tells.
    pub(super) async fn download_revision(
        &self,
        path: &RemotePath,
        revision: &str,
    ) -> Result<(Metadata, Content), Failure> {
        let call = Call { route: "files/download", subject: path.as_str(), repeatable: true };
        let argument = json!({ "path": format!("rev:{revision}") });
        let (metadata, answer) = self.open_content::<Metadata>(&call, &argument).await?;
        let content = answer.into_content(path, metadata.size, metadata.content_hash.clone());
        Ok((metadata, content))
    }

    /// A part of a file.
    pub(super) async fn download_range(&self, path: &RemotePath, range: ByteRange) -> Result<Content, Failure> {
        let ByteRange { offset, length } = range;
        if length == Some(0) {
            let found = self.get_metadata(path).await?;
            return match found.kind() {
                Kind::File | Kind::Symlink => Ok(Content::from_bytes(Bytes::new())),
                _ => Err(Error::new(ErrorKind::Conflict, format!("{path} is not a file")).into()),
            };
        }
        let last = length.map(|length| offset.saturating_add(length - 1));
        let wanted = match last {
            Some(last) => format!("bytes={offset}-{last}"),
            None => format!("bytes={offset}-"),
        };
        let wanted = HeaderValue::from_str(&wanted)
            .map_err(|error| Error::new(ErrorKind::Internal, "cannot write a range").with_source(error))?;
        let answer = self.open(path, Some(wanted)).await?;
        if answer.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(Content::from_bytes(Bytes::new()));
        }
        let field = |name| answer.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let size = field(header::CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        let from = field(header::CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes ")?.split('-').next()?.parse::<u64>().ok());
        let fits = from == Some(offset) && size.is_some_and(|size| length.is_none_or(|length| size <= length));
        if answer.status() != StatusCode::PARTIAL_CONTENT || !fits {
            return Err(unusable(path, "is not the part that was asked for").into());
        }
        Ok(Content::from_stream(size, answer.into_stream()))
    }

    async fn open(&self, path: &RemotePath, range: Option<HeaderValue>) -> Result<Answer, Failure> {
        let call = Call { route: "files/download", subject: path.as_str(), repeatable: true };
        let argument = json!({ "path": write_path(path) });
        // The head is made again for each try, but cannot fail differently.
        self.content_request(&call, &argument)?;
        self.send_repeatably(&call, || {
            let mut request = self.content_request(&call, &argument).ok()?;
            if let Some(range) = range.clone() {
                request.headers_mut().insert(header::RANGE, range);
            }
            Some(request)
        })
        .await
    }
}

/// The metadata in the head of a download. Its bytes are UTF-8, whether or not they are escaped.
fn described(path: &RemotePath, answer: &Answer) -> Result<Metadata, Error> {
    let Some(result) = answer.headers().get("dropbox-api-result") else {
        return Err(unusable(path, "has no metadata"));
    };
    serde_json::from_slice(result.as_bytes())
        .map_err(|error| unusable(path, "has unreadable metadata").with_source(error))
}

fn unusable(path: &RemotePath, what: &str) -> Error {
    Error::new(ErrorKind::Interrupted, format!("the answer to the download of {path} {what}; try again"))
}

pub(super) fn verified(
    path: RemotePath,
    chunks: BoxStream<'static, Result<Bytes, Error>>,
    hash: String,
) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    stream::try_unfold((chunks, ContentHasher::new(), path, hash), |(mut chunks, mut hasher, path, hash)| async move {
        match chunks.try_next().await? {
            Some(chunk) => {
                hasher.update(&chunk);
                Ok(Some((chunk, (chunks, hasher, path, hash))))
            }
            None if hasher.finish() == hash => Ok(None),
            None => Err(Error::new(
                ErrorKind::Interrupted,
                format!("the content of {path} was damaged on its way from Dropbox: its hash is wrong; read it again"),
            )),
        }
    })
}
