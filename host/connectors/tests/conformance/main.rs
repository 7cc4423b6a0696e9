//! The promises of the contract between a connection and its protocol, checked on every protocol against real servers,
//! and what single protocols promise beyond them.
//!
//! `contract`, `trees`, `limits` and `faults` have the promises, `places` and `faults` the remotes that must keep them: this
//! file puts them together. A server that is not installed is a failure.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test that cannot go on ends, and tells why")]

mod contract;
mod fake_ftp;
mod fault_proxy;
mod faults;
mod ftp_faults;
mod ftp_server;
mod ftp_servers;
mod ftps;
mod limits;
mod local_jail;
mod openssh;
mod places;
mod transfers;
mod trees;
mod sftp_hostile;
mod sftp_only;
mod sftp_scripts;

/// One module for each remote, with one test for each promise. A promise that is missing here is dead code, which the
/// compiler reports.
macro_rules! promises {
    ($promises:ident of $places:ident $remotes:tt { $($promise:ident)+ }) => {
        promises!(@remotes $promises $places $remotes [$($promise)+]);
    };
    (@remotes $promises:ident $places:ident [$($remote:ident)+] $list:tt) => {
        $( promises!(@remote $promises $places $remote $list); )+
    };
    (@remote $promises:ident $places:ident $remote:ident [$($promise:ident)+]) => {
        mod $remote {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $promise() {
                    let place = crate::$places::$remote().await;
                    crate::$promises::$promise(&place).await;
                    place.ends().await;
                }
            )+
        }
    };
}

promises! { contract of places [local ftp ftp_without_mlsd ftps_explicit ftps_implicit vsftpd pure_ftpd sftp dropbox] {
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
    a_tree_is_copied_within_the_connection
    a_file_with_the_same_size_that_is_not_older_is_left_out_of_an_update
    a_write_that_broke_off_can_be_continued
}}

mod at_the_limits {
    promises! { limits of places [local ftp ftp_without_mlsd ftps_explicit vsftpd pure_ftpd sftp dropbox] {
        a_folder_with_as_many_entries_as_may_be_listed_is_listed_whole
        a_file_that_is_replaced_while_it_is_read_is_the_old_one_or_an_error
    }}
}

mod in_folders_of_this_machine {
    promises! { limits of places [local ftp ftp_without_mlsd ftps_explicit vsftpd pure_ftpd sftp] {
        a_file_beyond_4_gib_has_its_size_and_is_read_in_ranges
        what_the_server_may_not_change_is_denied
    }}
}

mod under_faults {
    promises! { faults of faults [ftp sftp dropbox] {
        with_latency_all_basic_operations_work
        a_server_that_breaks_off_before_the_login_is_unavailable
        a_server_that_falls_silent_before_the_login_is_late
        an_upload_that_is_cut_changes_nothing
        an_upload_that_stalls_ends_in_time_and_changes_nothing
        a_download_that_is_cut_is_interrupted
        a_download_that_stalls_ends_in_time
        a_cut_after_the_last_byte_leaves_the_old_file_or_the_new_one
        a_stall_after_the_last_byte_leaves_the_old_file_or_the_new_one
        a_cut_in_a_small_operation_is_an_error_in_time_or_none
        idle_connections_are_closed
    }}
}
