//! `files/get_metadata` and `files/download` (files.stone; ranges by RFC 9110, section 14).

use http::header::{ACCEPT_RANGES, CONTENT_RANGE, ETAG, IF_NONE_MATCH, RANGE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::Value;

use super::{Call, path_failure};
use crate::reply::{Body, Failure, Reply};
use crate::store::LookupError;

pub(super) fn get_metadata(call: &Call<'_>) -> Result<Value, Failure> {
    let mut fields = call.fields()?;
    fields.ignore(&["include_media_info", "include_has_explicit_shared_members", "include_property_groups"]);
    let path = fields.read_path("path")?;
    let include_deleted = fields.boolean("include_deleted", false)?;
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let namespace = call.account.namespace();
    let found = if include_deleted { namespace.find_with_deleted(&path) } else { namespace.find(&path) };
    found.map(|metadata| metadata.to_tagged_json()).map_err(path_failure)
}

pub(super) fn download(call: &Call<'_>) -> Result<Reply, Failure> {
    let mut fields = call.fields()?;
    let rev = fields.revision("rev")?;
    let path = fields.read_path("path")?;
    fields.finish()?;
    let path = path.map_err(|error| path_failure(LookupError::from(error)))?;
    let (metadata, file) = call.account.namespace().find_file(&path).map_err(path_failure)?;
    if super::files_more::is_exported(&metadata) {
        return Err(Failure::endpoint(&["unsupported_file"]));
    }
    if rev.is_some_and(|rev| rev != file.rev) {
        return Err(path_failure(LookupError::NotFound));
    }
    let mut headers = vec![(ACCEPT_RANGES, HeaderValue::from_static("bytes"))];
    let etag = format!("\"{}\"", file.rev);
    if let Ok(etag) = HeaderValue::try_from(&etag) {
        headers.push((ETAG, etag));
    }
    if call.headers.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes()) {
        return Ok(Reply { status: StatusCode::NOT_MODIFIED, headers, body: Body::Empty });
    }
    let size = file.content.size();
    let (status, start, end) = match range(call.headers, size) {
        Range::Whole => (StatusCode::OK, 0, size),
        Range::Part { start, end } => {
            if let Ok(range) = HeaderValue::try_from(format!("bytes {start}-{}/{size}", end - 1)) {
                headers.push((CONTENT_RANGE, range));
            }
            (StatusCode::PARTIAL_CONTENT, start, end)
        }
        Range::Unsatisfiable => return Err(Failure::UnsatisfiableRange { size }),
    };
    let body = Body::Content { result: metadata.to_json(), blocks: file.content.range(start, end), cut_after: None };
    Ok(Reply { status, headers, body })
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    /// From `start` up to but not including `end`; never empty.
    Part {
        start: u64,
        end: u64,
    },
    Unsatisfiable,
}

/// The asked range of content of `size` bytes. Several ranges, other units and malformed headers mean the whole, as the
/// RFC allows.
fn range(headers: &HeaderMap, size: u64) -> Range {
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let Some((first, last)) = asked.and_then(|text| text.strip_prefix("bytes=")?.split_once('-')) else {
        return Range::Whole;
    };
    let part = match (first.trim(), last.trim()) {
        ("", suffix) => suffix.parse::<u64>().map(|length| (size.saturating_sub(length), size)),
        (first, "") => first.parse().map(|first: u64| (first, size)),
        (first, last) => match (first.parse::<u64>(), last.parse::<u64>()) {
            (Ok(first), Ok(last)) if first > last => return Range::Whole,
            (Ok(first), Ok(last)) => Ok((first, last.saturating_add(1).min(size))),
            (Err(error), _) | (_, Err(error)) => Err(error),
        },
    };
    match part {
        Ok((start, end)) if start < end => Range::Part { start, end },
        Ok(_) => Range::Unsatisfiable,
        Err(_) => Range::Whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_rfc() {
        let parse =
            |text: &'static str, size| range(&HeaderMap::from_iter([(RANGE, HeaderValue::from_static(text))]), size);
        assert_eq!(parse("bytes=0-3", 10), Range::Part { start: 0, end: 4 });
        assert_eq!(parse("bytes=4-", 10), Range::Part { start: 4, end: 10 });
        assert_eq!(parse("bytes=4-99", 10), Range::Part { start: 4, end: 10 });
        assert_eq!(parse("bytes=-3", 10), Range::Part { start: 7, end: 10 });
        assert_eq!(parse("bytes=-30", 10), Range::Part { start: 0, end: 10 });
        assert_eq!(parse("bytes=10-", 10), Range::Unsatisfiable);
        assert_eq!(parse("bytes=-0", 10), Range::Unsatisfiable);
        assert_eq!(parse("bytes=0-", 0), Range::Unsatisfiable);
        for whole in ["bytes=5-2", "bytes=0-1,3-4", "lines=0-1", "bytes=a-b"] {
            assert_eq!(parse(whole, 10), Range::Whole, "{whole}");
        }
        assert_eq!(range(&HeaderMap::new(), 10), Range::Whole);
    }
}
