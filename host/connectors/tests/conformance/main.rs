//! The promises of the contract between a connection and its protocol, checked on every protocol against real servers,
//! and what single protocols promise beyond them.
//!
//! `contract` and `trees` have the promises, `places` the remotes that must keep them: this file puts them together. A server that
//! is not installed is a failure.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on ends, and tells why")]

mod contract;
mod fake_ftp;
mod ftp_faults;
mod ftp_server;
mod ftp_servers;
mod ftps;
mod local_jail;
mod openssh;
mod places;
mod transfers;
mod trees;
mod sftp_hostile;
mod sftp_only;

/// One module for each remote, with one test for each promise. A promise that is missing here is dead code, which the
/// compiler reports.
macro_rules! promises {
    ($($promise:ident)+) => {
        promises!(@remotes [local ftp ftp_without_mlsd ftps_explicit ftps_implicit vsftpd pure_ftpd sftp dropbox] [$($promise)+]);
    };
    (@remotes [$($remote:ident)+] $promises:tt) => {
        $( promises!(@remote $remote $promises); )+
    };
    (@remote $remote:ident [$($promise:ident)+]) => {
        mod $remote {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    crate::contract::$promise(&crate::places::$remote().await).await;
                }
            )+
        }
    };
}

promises! {
    it_answers_a_ping
    what_was_written_is_read_back
    an_empty_file_is_a_file
    content_of_unknown_size_is_written
    names_are_kept_as_they_are
    a_name_as_long_as_can_be_is_kept
    the_root_is_a_folder
    a_listing_tells_kinds_and_sizes
    a_listing_of_more_than_a_thousand_is_complete
    a_listing_that_is_not_read_to_its_end_holds_nothing_up
    a_range_is_read
    reading_what_is_not_there_or_no_file_fails
    content_that_is_not_read_to_its_end_holds_nothing_up
    a_file_is_copied_within_the_connection
    an_existing_file_is_kept_replaced_or_evaded_as_asked
    a_file_cannot_take_the_place_of_a_folder
    a_missing_folder_is_made_or_reported
    content_that_fails_leaves_nothing_and_changes_nothing
    content_that_is_too_short_leaves_nothing_and_changes_nothing
    a_dropped_write_leaves_nothing_and_changes_nothing
    the_mark_of_a_revision_changes_with_the_content
    a_file_is_deleted
    only_an_empty_folder_is_deleted
    a_file_is_renamed
    a_rename_replaces_only_when_asked
    a_folder_is_renamed_with_what_is_in_it
    a_folder_is_made_once
    the_root_stays
    many_operations_at_once_wait_for_their_turn
    missing_folders_are_made_when_asked
    a_time_of_last_change_is_kept_where_it_can_be
    content_is_appended
    a_copy_is_another_file
    a_tree_is_deleted_whole
    a_checksum_is_that_of_the_content
    a_tree_is_moved_there_and_back
    a_file_with_the_same_size_that_is_not_older_is_left_out_of_an_update
    a_write_that_broke_off_can_be_continued
}
