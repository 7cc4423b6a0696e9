//! The table of API routes, and what a handler gets.
//!
//! A handler is a plain function from a checked request to a result: it does no I/O and never waits, because an upload's
//! content is complete in memory before its handler runs. A new route is one line in the table and one function.

mod batches;
mod files_more;
mod files_read;
mod files_write;
mod list_folder;
pub(crate) mod sharing;
mod upload_session;
mod users;

use std::sync::Arc;

use http::HeaderMap;
use serde_json::Value;

use crate::account::Account;
use crate::argument::Fields;
use crate::faults::FaultKind;
use crate::reply::{Failure, Reply};
use crate::store::content::Content;
use crate::store::{LookupError, WriteError};

/// The one route that takes a cursor.
pub(crate) const CONTINUE_ROUTE: &str = "files/list_folder/continue";

/// The one route whose content may be kept in part.
pub(crate) const APPEND_ROUTE: &str = "files/upload_session/append_v2";

/// The route that reports write errors for each of its entries.
pub(crate) const FINISH_BATCH_ROUTE: &str = "files/upload_session/finish_batch_v2";

/// One API function.
pub(crate) struct Route {
    /// As it is called, with version suffix and without `/2/`.
    pub(crate) name: &'static str,
    pub(crate) handler: Handler,
    /// How this route reports a write error, if it writes.
    pub(crate) write_failure: Option<fn(WriteError) -> Failure>,
}

/// The three styles of routes (stone_cfg.stone).
pub(crate) enum Handler {
    /// Argument and result are JSON bodies.
    Rpc(fn(&Call<'_>) -> Result<Value, Failure>),
    /// The argument is in a header, the content in the body.
    Upload(fn(&Call<'_>, Arc<Content>) -> Result<Value, Failure>),
    /// The argument is in a header, the result too, and the answer's body is the content.
    Download(fn(&Call<'_>) -> Result<Reply, Failure>),
    /// Without a token: a cursor to wait for, and for how many seconds.
    Poll(fn(&Call<'_>) -> Result<(String, u64), Failure>),
}

/// One authorized request.
pub(crate) struct Call<'request> {
    pub(crate) account: &'request Account,
    pub(crate) headers: &'request HeaderMap,
    /// The fault that strikes this call, for those that change what a handler does.
    pub(crate) fault: Option<&'request FaultKind>,
    /// Where the argument came from, as Dropbox's messages name it.
    pub(crate) source: &'static str,
    /// The argument; null if there was none.
    pub(crate) argument: Value,
}

impl Call<'_> {
    fn fields(&self) -> Result<Fields, Failure> {
        Fields::new(self.source, self.argument.clone())
    }

    /// For routes without argument.
    fn expect_no_argument(&self) -> Result<(), Failure> {
        match self.argument {
            Value::Null => Ok(()),
            _ => Err(Failure::BadInput(format!("{}: expected null, got value", self.source))),
        }
    }
}

static ROUTES: &[Route] = &[
    read("check/user", Handler::Rpc(users::check_user)),
    read("files/copy_batch/check_v2", Handler::Rpc(batches::check)),
    read("files/copy_batch_v2", Handler::Rpc(batches::copy_batch)),
    write("files/copy_v2", Handler::Rpc(files_write::copy), files_write::relocation_write_failure),
    read("files/create_folder_batch", Handler::Rpc(batches::create_folder_batch)),
    read("files/create_folder_batch/check", Handler::Rpc(batches::check)),
    write("files/create_folder_v2", Handler::Rpc(files_write::create_folder), files_write::create_folder_failure),
    read("files/delete_batch", Handler::Rpc(batches::delete_batch)),
    read("files/delete_batch/check", Handler::Rpc(batches::check)),
    write("files/delete_v2", Handler::Rpc(files_write::delete), files_write::delete_write_failure),
    read("files/download", Handler::Download(files_read::download)),
    read("files/download_zip", Handler::Download(files_more::download_zip)),
    read("files/export", Handler::Download(files_more::export)),
    read("files/get_temporary_link", Handler::Rpc(sharing::get_temporary_link)),
    read("files/get_temporary_upload_link", Handler::Rpc(sharing::get_temporary_upload_link)),
    read("files/get_metadata", Handler::Rpc(files_read::get_metadata)),
    read("files/list_folder", Handler::Rpc(list_folder::list_folder)),
    read(CONTINUE_ROUTE, Handler::Rpc(list_folder::list_folder_continue)),
    read("files/list_folder/get_latest_cursor", Handler::Rpc(list_folder::get_latest_cursor)),
    read("files/list_folder/longpoll", Handler::Poll(list_folder::longpoll)),
    read("files/list_revisions", Handler::Rpc(files_more::list_revisions)),
    read("files/move_batch/check_v2", Handler::Rpc(batches::check)),
    read("files/move_batch_v2", Handler::Rpc(batches::move_batch)),
    write("files/move_v2", Handler::Rpc(files_write::relocate), files_write::relocation_write_failure),
    write("files/restore", Handler::Rpc(files_more::restore), restore_failure),
    write("files/save_url", Handler::Rpc(files_more::save_url), files_more::save_url_failure),
    read("files/save_url/check_job_status", Handler::Rpc(batches::check)),
    read("files/search/continue_v2", Handler::Rpc(files_more::search_continue)),
    read("files/search_v2", Handler::Rpc(files_more::search)),
    write("files/upload", Handler::Upload(files_write::upload), files_write::upload_write_failure),
    read("files/upload_session/append_batch", Handler::Upload(upload_session::append_batch)),
    read(APPEND_ROUTE, Handler::Upload(upload_session::append)),
    write("files/upload_session/finish", Handler::Upload(upload_session::finish), upload_session::finish_write_failure),
    read(FINISH_BATCH_ROUTE, Handler::Rpc(upload_session::finish_batch)),
    read("files/upload_session/start", Handler::Upload(upload_session::start)),
    read("files/upload_session/start_batch", Handler::Rpc(upload_session::start_batch)),
    read("sharing/create_shared_link_with_settings", Handler::Rpc(sharing::create_shared_link)),
    read("sharing/get_shared_link_file", Handler::Download(sharing::get_shared_link_file)),
    read("sharing/get_shared_link_metadata", Handler::Rpc(sharing::get_shared_link_metadata)),
    read("sharing/list_shared_links", Handler::Rpc(sharing::list_shared_links)),
    read("sharing/modify_shared_link_settings", Handler::Rpc(sharing::modify_shared_link)),
    read("sharing/revoke_shared_link", Handler::Rpc(sharing::revoke_shared_link)),
    read("users/get_current_account", Handler::Rpc(users::get_current_account)),
    read("users/get_space_usage", Handler::Rpc(users::get_space_usage)),
];

const fn read(name: &'static str, handler: Handler) -> Route {
    Route { name, handler, write_failure: None }
}

const fn write(name: &'static str, handler: Handler, failure: fn(WriteError) -> Failure) -> Route {
    Route { name, handler, write_failure: Some(failure) }
}

/// The route of this name.
pub(crate) fn find(name: &str) -> Option<&'static Route> {
    ROUTES.iter().find(|route| route.name == name)
}

impl LookupError {
    fn tag(self) -> &'static str {
        match self {
            Self::MalformedPath => "malformed_path",
            Self::NotFound => "not_found",
            Self::NotFile => "not_file",
            Self::NotFolder => "not_folder",
        }
    }
}

impl WriteError {
    fn tags(self) -> &'static [&'static str] {
        match self {
            Self::MalformedPath => &["malformed_path"],
            Self::DisallowedName => &["disallowed_name"],
            Self::ConflictFile => &["conflict", "file"],
            Self::ConflictFolder => &["conflict", "folder"],
            Self::ConflictFileAncestor => &["conflict", "file_ancestor"],
            Self::InsufficientSpace => &["insufficient_space"],
            Self::TooManyWriteOperations => &["too_many_write_operations"],
        }
    }

    /// This error as a member of the route's own union.
    fn within(self, outer: &'static str) -> Failure {
        let tags: Vec<_> = [outer].iter().chain(self.tags()).copied().collect();
        Failure::endpoint(&tags)
    }
}

fn restore_failure(error: WriteError) -> Failure {
    error.within("path_write")
}

/// A lookup error under `path`, as most routes report it.
fn path_failure(error: LookupError) -> Failure {
    Failure::endpoint(&["path", error.tag()])
}
