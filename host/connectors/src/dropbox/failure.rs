//! What Dropbox's refusals mean: from a status, headers and a body to what to do next, and to words for people.
//!
//! Matches tags only; the summaries end in random characters, and unions grow
//! (<https://www.dropbox.com/developers/documentation/http/documentation>, "Errors"). Sends nothing, waits for
//! nothing.

use std::time::{Duration, SystemTime};

use ::http::StatusCode;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, ErrorKind, Step};

/// Tags within tags: Dropbox uses four at most.
const TAG_DEPTH_MAX: usize = 8;

/// Characters of a tag or a request id that are kept: all of Dropbox's are shorter.
const TAG_CHARACTERS_MAX: usize = 64;

/// Characters of a text from Dropbox that go into a message.
const TEXT_CHARACTERS_MAX: usize = 300;

/// Longest wait that an answer can impose; Dropbox asks for 300 s at most, and a broken answer must not shut the
/// account for days.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// One call, for messages and decisions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call<'a> {
    /// Such as `files/upload`.
    pub(super) route: &'a str,
    /// What it is about, for people: a path mostly.
    pub(super) subject: &'a str,
    /// Whether doing it twice is the same as doing it once.
    pub(super) repeatable: bool,
}

/// The route's own refusal (status 409).
#[derive(Debug)]
pub(super) struct Refusal {
    /// From the outermost to the innermost, such as `path/conflict/file`.
    pub(super) tags: String,
    message: String,
    /// Where an upload session stands, when a cursor did not fit.
    correct_offset: Option<u64>,
}

/// A call that failed for good.
#[derive(Debug)]
pub(super) enum Failure {
    /// The route refuses; some callers know better than the tags alone what that means.
    Refused(Refusal),
    /// Anything else.
    Other(Error),
}

impl Failure {
    /// Whether the route refused with these tags, or with ones within them.
    pub(super) fn is(&self, tags: &str) -> bool {
        let Self::Refused(refusal) = self else { return false };
        refusal.tags.strip_prefix(tags).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Whether there was no answer: it may have been done.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Other(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::Timeout))
    }

    /// Whether there was no connection, one that led elsewhere, or Dropbox failed. Waits that were too long are not
    /// meant.
    pub(super) fn is_out_of_reach(&self) -> bool {
        matches!(self, Self::Other(error) if error.kind() == ErrorKind::Unavailable && error.retry_after().is_none())
    }

    /// Whether the same may well succeed in a moment. A call that took too long is not meant: it took its time.
    pub(super) fn is_passing(&self) -> bool {
        let is_broken = matches!(self, Self::Other(error) if error.kind() == ErrorKind::Interrupted);
        is_broken || self.is_out_of_reach()
    }

    /// Whether Dropbox takes no such call for now.
    pub(super) fn is_throttled(&self) -> bool {
        match self {
            Self::Refused(refusal) => is_turned_away(&refusal.tags),
            Self::Other(error) => error.retry_after().is_some(),
        }
    }

    /// Where an upload session stands, when it was not where the call said.
    pub(super) fn correct_offset(&self) -> Option<u64> {
        match self {
            Self::Refused(refusal) => refusal.correct_offset,
            Self::Other(_) => None,
        }
    }

    /// The error, with another kind than the tags alone suggest.
    pub(super) fn of_kind(self, kind: ErrorKind) -> Error {
        match self {
            Self::Refused(refusal) => Error::new(kind, refusal.message),
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(refusal) => {
                let (kind, _) = judge(&refusal.tags);
                let is_full =
                    refusal.tags.split('/').any(|tag| matches!(tag, "insufficient_space" | "insufficient_quota"));
                let error = Self::new(kind, refusal.message);
                if is_full { error.lasting() } else { error }
            }
            Failure::Other(error) => error,
        }
    }
}

/// What an answer other than a success asks for.
#[derive(Debug)]
pub(super) enum Problem {
    /// Wait, for so long if it says so, and try again. The error is for when that is over.
    Busy {
        /// How long to wait.
        asked: Option<Duration>,
        /// What to report if there is no further try.
        error: Error,
    },
    /// Get another access token and try again.
    Expired(Error),
    /// Give up.
    Final(Failure),
}

impl Problem {
    /// The same, which happened at this step.
    pub(super) fn at(self, step: Step) -> Self {
        match self {
            Self::Busy { asked, error } => Self::Busy { asked, error: error.at(step) },
            Self::Expired(error) => Self::Expired(error.at(step)),
            Self::Final(Failure::Other(error)) => Self::Final(Failure::Other(error.at(step))),
            refused => refused,
        }
    }

    /// The error, when nothing more is tried.
    pub(super) fn given_up(self) -> Error {
        match self {
            Self::Final(failure) => failure.into(),
            Self::Expired(error) => error,
            Self::Busy { asked: Some(wait), error } => error.with_retry_after(wait),
            Self::Busy { asked: None, error } => error,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self::Final(Failure::Other(error))
    }
}

/// The facts of an answer.
pub(super) struct Refused<'a> {
    pub(super) status: StatusCode,
    /// The `Retry-After` header.
    pub(super) retry_after: Option<&'a str>,
    pub(super) request_id: &'a str,
    pub(super) body: &'a [u8],
}

#[derive(Deserialize, Default)]
struct ErrorBody {
    #[serde(default)]
    error: Value,
    /// In the language of the account, where Dropbox has something to say to its owner.
    #[serde(default)]
    user_message: Value,
}

/// Decides what an answer other than a success means.
pub(super) fn classify(call: &Call<'_>, refused: &Refused<'_>) -> Problem {
    let Call { route, subject, repeatable } = *call;
    let json = serde_json::from_slice::<ErrorBody>(refused.body).unwrap_or_default();
    let tags = tags(&json.error);
    let request = refused.request_id;
    let error = |kind, what: &str| Error::new(kind, format!("{route} of {subject}: {what} (request {request})"));
    let busy = |kind, what: &str| {
        let asked = refused
            .retry_after
            .and_then(parse_retry_after)
            .or_else(|| json.error.get("retry_after").and_then(Value::as_u64).map(Duration::from_secs));
        Problem::Busy { asked: asked.map(|wait| wait.min(RETRY_AFTER_MAX)), error: error(kind, what) }
    };
    match refused.status.as_u16() {
        400 => {
            let text = presentable(&String::from_utf8_lossy(refused.body));
            error(ErrorKind::Invalid, &format!("Dropbox finds the call malformed: {text}")).into()
        }
        401 if tags.starts_with("expired_access_token") => Problem::Expired(error(
            ErrorKind::Denied,
            "the access token has expired; log in again, or configure a refresh token, which lasts",
        )),
        401 if tags.starts_with("missing_scope") => {
            let scope = json.error.get("required_scope").and_then(Value::as_str).map(presentable).unwrap_or_default();
            error(
                ErrorKind::Denied,
                &format!("the application lacks the permission {scope}; grant it in the app console and log in again"),
            )
            .into()
        }
        401 if tags.starts_with("user_suspended") => error(ErrorKind::Denied, "the account is suspended").into(),
        401 if tags.starts_with("invalid_select_user") => error(
            ErrorKind::Denied,
            "the application may not act for the member in select-user; set it to the id (dbmid:...) of a member of \
             the application's team, or leave it out for an application of a single account",
        )
        .into(),
        401 if tags.starts_with("invalid_select_admin") => error(
            ErrorKind::Denied,
            "the application may not act as the administrator in select-admin; set it to the id (dbmid:...) of an \
             administrator of the application's team, or leave it out for an application of a single account",
        )
        .into(),
        401 => error(
            ErrorKind::Denied,
            "Dropbox does not accept the access token, which may have been revoked; log in again",
        )
        .into(),
        403 => error(ErrorKind::Denied, &format!("the account has no access to this ({tags})")).into(),
        409 if is_turned_away(&tags) => busy(ErrorKind::RateLimited, "too many changes to this account at once"),
        409 => {
            let (_, meaning) = judge(&tags);
            let said = json.user_message.get("text").and_then(Value::as_str).map(presentable);
            let said = said.map(|text| format!(" ({text})")).unwrap_or_default();
            let message = format!("{route} of {subject}: {meaning}{said} ({tags}, request {request})");
            let correct_offset = correct_offset(&json.error);
            Problem::Final(Failure::Refused(Refusal { tags, message, correct_offset }))
        }
        422 if tags.starts_with("invalid_root") => {
            let new = json.error.pointer("/invalid_root/root_namespace_id").and_then(Value::as_str);
            let new = new.map(|id| format!(": it is {} now", presentable(id))).unwrap_or_default();
            error(ErrorKind::Invalid, &format!("the path root is not that of the account{new}; see path-root")).into()
        }
        422 => {
            error(ErrorKind::Denied, &format!("the account may not use this path root ({tags}); see path-root")).into()
        }
        429 => busy(ErrorKind::RateLimited, "too many calls to this account"),
        503 => busy(ErrorKind::Unavailable, "Dropbox is overloaded"),
        status @ 500.. if repeatable => {
            error(ErrorKind::Unavailable, &format!("Dropbox failed with status {status}; try again later")).into()
        }
        status @ 500.. => error(
            ErrorKind::Unavailable,
            &format!("Dropbox failed with status {status}; look whether it was done, and try again"),
        )
        .into(),
        status => error(
            ErrorKind::Unavailable,
            &format!("the answer has status {status}, which Dropbox does not send; check the URLs of the connection"),
        )
        .into(),
    }
}

/// The refusal of one entry of a batch, by the union that stands in place of its result.
pub(super) fn refused_entry(route: &str, subject: &str, error: &Value) -> Failure {
    let tags = tags(error);
    let (_, meaning) = judge(&tags);
    let message = format!("{route} of {subject}: {meaning} ({tags})");
    Failure::Refused(Refusal { tags, message, correct_offset: correct_offset(error) })
}

/// Whether a change was refused because others are under way.
fn is_turned_away(tags: &str) -> bool {
    tags.split('/').any(|tag| tag == "too_many_write_operations")
}

fn correct_offset(error: &Value) -> Option<u64> {
    let session = error.get("lookup_failed").unwrap_or(error);
    session.get("correct_offset").and_then(Value::as_u64)
}

/// The tags of an error union from the outside in, joined by `/`. A union's value is under its own tag's name, or
/// under `reason` where the variant, or the error as a whole, is a structure.
fn tags(error: &Value) -> String {
    let mut tags = Vec::new();
    let mut next = Some(error);
    for _ in 0..TAG_DEPTH_MAX {
        next = match next {
            Some(Value::String(tag)) => {
                tags.push(clean_tag(tag));
                None
            }
            Some(Value::Object(fields)) => match fields.get(".tag").and_then(Value::as_str) {
                Some(tag) => {
                    tags.push(clean_tag(tag));
                    fields.get(tag).filter(|value| value.is_object()).or_else(|| fields.get("reason"))
                }
                None => fields.get("reason"),
            },
            _ => break,
        };
    }
    if tags.is_empty() { "other".to_owned() } else { tags.join("/") }
}

/// Lower-case words joined by underscores are tags; whatever else stands in their place is an unknown one.
fn clean_tag(tag: &str) -> &str {
    let clean = tag.len() <= TAG_CHARACTERS_MAX
        && !tag.is_empty()
        && tag.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if clean { tag } else { "other" }
}

/// The kind and the meaning of a route's refusal: the first tag that is known decides.
fn judge(tags: &str) -> (ErrorKind, &'static str) {
    let mut tags = tags.split('/');
    while let Some(tag) = tags.next() {
        return match tag {
            "not_found" => (ErrorKind::NotFound, "nothing is there"),
            "conflict" => match tags.next() {
                Some("file_ancestor") => (ErrorKind::Conflict, "a file is where a folder of the path should be"),
                Some("folder") => (ErrorKind::AlreadyExists, "a folder is there already"),
                Some("file") => (ErrorKind::AlreadyExists, "a file is there already"),
                _ => (ErrorKind::AlreadyExists, "something else is there already"),
            },
            "not_file" => (ErrorKind::Conflict, "it is not a file"),
            "not_folder" => (ErrorKind::Conflict, "it is not a folder"),
            "locked" => (ErrorKind::Conflict, "the file is locked by someone"),
            "reset" => (ErrorKind::Conflict, "the cursor is no longer valid; list the folder anew"),
            "operation_suppressed" => (ErrorKind::Conflict, "Dropbox does not allow it at this time"),
            "disallowed_name" => (ErrorKind::Invalid, "Dropbox does not allow this name; choose another"),
            "malformed_path" => (ErrorKind::Invalid, "Dropbox does not allow such a path"),
            "restricted_content" => (ErrorKind::Denied, "Dropbox restricted the file for legal reasons"),
            "no_write_permission" | "no_permission" | "access_denied" => {
                (ErrorKind::Denied, "the account may not write here; ask the owner of the folder")
            }
            "team_folder" => (ErrorKind::Denied, "team folders cannot be changed like this"),
            "shared_link_already_exists" => (ErrorKind::AlreadyExists, "there is a link to it already"),
            "shared_link_not_found" | "shared_link_malformed" => (ErrorKind::NotFound, "there is no such link"),
            "shared_link_access_denied" => (ErrorKind::Denied, "the link cannot be used without its password"),
            "shared_link_is_directory" => (ErrorKind::Conflict, "the link leads to a folder"),
            "email_not_verified" => (ErrorKind::Denied, "the account's address is not verified yet"),
            "settings_error" => (ErrorKind::Denied, "the account may not have such settings"),
            "invalid_revision" => (ErrorKind::NotFound, "the file has no such revision"),
            "invalid_async_job_id" => (ErrorKind::NotFound, "there is no such job, or no longer"),
            "invalid_url" => (ErrorKind::Invalid, "it is not a URL that Dropbox fetches"),
            "download_failed" => (ErrorKind::Unavailable, "Dropbox could not fetch it; look whether others can"),
            "invalid_argument" => (ErrorKind::Invalid, "Dropbox does not take such an argument"),
            "non_exportable" | "invalid_export_format" => {
                (ErrorKind::Unsupported, "it cannot be exported in this form; see whether it can be downloaded")
            }
            "insufficient_space" | "insufficient_quota" => {
                (ErrorKind::Unavailable, "the account is full; delete something or get more space")
            }
            "payload_too_large" | "too_large" => (ErrorKind::TooLarge, "it is too large for one request"),
            "too_many_files" => (ErrorKind::TooLarge, "it has more files than one call may change"),
            "content_hash_mismatch" => (ErrorKind::Interrupted, "the content was damaged on its way; try again"),
            "unsupported_file" | "unsupported_content_type" => {
                (ErrorKind::Unsupported, "this kind of file cannot be downloaded; Dropbox only exports it")
            }
            "cant_copy_shared_folder"
            | "cant_nest_shared_folder"
            | "cant_move_folder_into_itself"
            | "cant_move_shared_folder"
            | "cant_move_into_vault"
            | "cant_move_into_family"
            | "duplicated_or_nested_paths" => (ErrorKind::Unsupported, "Dropbox does not move such a folder there"),
            "cant_transfer_ownership" => (ErrorKind::Denied, "it would change the owner"),
            "incorrect_offset" | "closed" | "not_closed" => {
                (ErrorKind::Interrupted, "Dropbox lost its place in the upload; upload it again")
            }
            "too_many_write_operations" => (ErrorKind::RateLimited, "too many changes to this account at once"),
            "internal_error" => (ErrorKind::Unavailable, "Dropbox failed; look whether it was done, and try again"),
            _ => continue,
        };
    }
    (ErrorKind::Conflict, "Dropbox refuses it for a reason that is not known here")
}

/// The delay of a `Retry-After` header: seconds or a date (RFC 9110 section 10.2.3).
fn parse_retry_after(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let then = SystemTime::from(jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp());
    Some(then.duration_since(SystemTime::now()).unwrap_or_default())
}

/// Text from Dropbox that is fit for a message: no control characters, not endless.
pub(super) fn presentable(text: &str) -> String {
    text.trim()
        .chars()
        .take(TEXT_CHARACTERS_MAX)
        .map(|character| if character.is_control() { ' ' } else { character })
        .collect()
}

/// A request id that is fit for a log line.
pub(super) fn presentable_id(id: Option<&str>) -> String {
    id.unwrap_or("unknown").chars().filter(char::is_ascii_graphic).take(TAG_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const CALL: Call<'static> = Call { route: "files/x", subject: "/a", repeatable: false };

    fn classified(status: u16, retry_after: Option<&str>, body: &[u8]) -> Problem {
        let status = StatusCode::from_u16(status).unwrap();
        classify(&CALL, &Refused { status, retry_after, request_id: "r1", body })
    }

    fn refused(error: &Value) -> (ErrorKind, String) {
        let body = json!({ "error_summary": "path/conflict/..", "error": error }).to_string();
        let Problem::Final(failure) = classified(409, None, body.as_bytes()) else { panic!("{error}") };
        let Failure::Refused(refusal) = &failure else { panic!("{error}") };
        let tags = refusal.tags.clone();
        let error = Error::from(failure);
        assert!(error.to_string().contains("files/x of /a") && error.to_string().contains("request r1"), "{error}");
        (error.kind(), tags)
    }

    #[test]
    fn a_refusal_is_read_by_its_tags() {
        let nested = json!({ ".tag": "path", "path": { ".tag": "conflict", "conflict": { ".tag": "file" } } });
        assert_eq!(refused(&nested), (ErrorKind::AlreadyExists, "path/conflict/file".to_owned()));
        // UploadError: the variant is a structure, so that its union is under "reason".
        let upload = json!({ ".tag": "path", "reason": { ".tag": "conflict", "conflict": { ".tag": "folder" } } });
        assert_eq!(refused(&upload), (ErrorKind::AlreadyExists, "path/conflict/folder".to_owned()));
        let missing = json!({ ".tag": "from_lookup", "from_lookup": { ".tag": "not_found" } });
        assert_eq!(refused(&missing), (ErrorKind::NotFound, "from_lookup/not_found".to_owned()));
        let short = json!({ ".tag": "path", "path": { ".tag": "insufficient_space" } });
        assert_eq!(refused(&short).0, ErrorKind::Unavailable);
        assert_eq!(refused(&json!({ ".tag": "reset" })), (ErrorKind::Conflict, "reset".to_owned()));
    }

    #[test]
    fn an_unknown_tag_is_a_conflict_and_hostile_ones_are_not_repeated() {
        assert_eq!(refused(&json!({ ".tag": "from_the_future" })), (ErrorKind::Conflict, "from_the_future".to_owned()));
        for hostile in
            [json!(null), json!([1]), json!(7), json!({}), json!({ ".tag": 3 }), json!("a\nb"), json!({ ".tag": "" })]
        {
            assert_eq!(refused(&hostile), (ErrorKind::Conflict, "other".to_owned()), "{hostile}");
        }
        let circular = json!({ ".tag": "reason", "reason": { ".tag": "reason", "reason": { ".tag": "reason" } } });
        assert_eq!(refused(&circular).1, "reason/reason/reason");
        let deep = format!("{}1{}", "{\".tag\":\"a\",\"a\":".repeat(100), "}".repeat(100));
        assert!(refused(&serde_json::from_str(&deep).unwrap()).1.len() < 20);
    }

    #[test]
    fn a_wait_is_read_from_the_header_or_the_body_and_never_endless() {
        let wait = |retry_after, body: &[u8]| match classified(429, retry_after, body) {
            Problem::Busy { asked, error } => {
                assert_eq!(error.kind(), ErrorKind::RateLimited);
                asked
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(Some("15"), b"too many requests"), Some(Duration::from_secs(15)));
        assert_eq!(
            wait(None, br#"{"error":{"reason":{".tag":"too_many_requests"},"retry_after":7}}"#),
            Some(Duration::from_secs(7))
        );
        assert_eq!(wait(None, b""), None);
        assert_eq!(wait(Some("soon"), b""), None);
        assert_eq!(wait(Some("99999999999999"), b""), Some(RETRY_AFTER_MAX));
        assert_eq!(wait(Some("Sun, 06 Nov 1994 08:49:37 GMT"), b""), Some(Duration::ZERO));
        assert_eq!(wait(Some("Sat, 06 Nov 2094 08:49:37 GMT"), b""), Some(RETRY_AFTER_MAX));
    }

    #[test]
    fn each_status_leads_to_its_kind() {
        let kind = |status, body: &[u8]| match classified(status, None, body) {
            Problem::Final(failure) => Error::from(failure).kind(),
            Problem::Busy { error, .. } | Problem::Expired(error) => error.kind(),
        };
        assert_eq!(kind(400, b"Error in call to API function"), ErrorKind::Invalid);
        assert_eq!(kind(401, br#"{"error":{".tag":"invalid_access_token"}}"#), ErrorKind::Denied);
        assert_eq!(kind(403, b"{}"), ErrorKind::Denied);
        assert_eq!(kind(404, b"<html>"), ErrorKind::Unavailable);
        assert_eq!(kind(422, b"{}"), ErrorKind::Denied);
        assert_eq!(kind(422, br#"{"error":{".tag":"invalid_root"}}"#), ErrorKind::Invalid);
        assert_eq!(kind(500, b""), ErrorKind::Unavailable);
        let expired = br#"{"error_summary":"expired_access_token/..","error":{".tag":"expired_access_token"}}"#;
        assert!(matches!(classified(401, None, expired), Problem::Expired(_)));
        assert!(matches!(classified(503, None, b""), Problem::Busy { asked: None, .. }));
        assert!(matches!(classified(500, None, b""), Problem::Final(_)));
        let writes = br#"{"error":{".tag":"path","reason":{".tag":"too_many_write_operations"}}}"#;
        assert!(matches!(classified(409, None, writes), Problem::Busy { .. }));
    }

    #[test]
    fn a_missing_permission_is_named_and_remote_text_is_tamed() {
        let body = json!({ "error": { ".tag": "missing_scope", "required_scope": "files.content.write\n\u{1b}[2J" } });
        let Problem::Final(failure) = classified(401, None, body.to_string().as_bytes()) else { panic!("not final") };
        let message = Error::from(failure).to_string();
        assert!(message.contains("files.content.write"), "{message}");
        assert!(!message.chars().any(char::is_control), "{message:?}");
    }

    proptest! {
        #[test]
        fn any_answer_is_judged_without_panic(status in 300_u16..=999, retry in any::<String>(), body in any::<Vec<u8>>()) {
            let _ = classified(status, Some(&retry), &body);
        }
    }
}
