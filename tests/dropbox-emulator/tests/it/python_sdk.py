"""Drives the official Dropbox SDK against the emulator. Argument: the file of the certificate authority to trust.

Ends with status 0 if the SDK saw what it would see from Dropbox; any difference is an AssertionError.
"""

import datetime
import io
import sys
import zipfile

import dropbox
from dropbox.exceptions import ApiError, AuthError, BadInputError
from dropbox.files import DeletedMetadata, FileMetadata, FolderMetadata, WriteMode

CA_FILE = sys.argv[1]
APP = {"app_key": "emulator-app-key", "ca_certs": CA_FILE}


def fails(call, *arguments, **named):
    try:
        call(*arguments, **named)
    except ApiError as error:
        return error.error
    raise AssertionError(f"{call.__name__}{arguments} succeeded")


def entries(client, path, **named):
    page = client.files_list_folder(path, **named)
    pages, found = 1, list(page.entries)
    while page.has_more:
        page = client.files_list_folder_continue(page.cursor)
        pages, found = pages + 1, found + page.entries
    return found, page.cursor, pages


client = dropbox.Dropbox(
    oauth2_refresh_token="emulator-refresh-token", app_secret="emulator-app-secret", max_retries_on_rate_limit=3, **APP
)

# Who and how much; the emulator goes wrong four times before it answers the second question.
account = client.users_get_current_account()
assert account.account_type.is_basic() and account.root_info.root_namespace_id == account.root_info.home_namespace_id
usage = client.users_get_space_usage()
assert usage.used == 0 and usage.allocation.get_individual().allocated == 2 * 1024**3, usage
assert client.check_user("hello").result == "hello"

# Up and down, with names beyond ASCII and beyond 16 bits.
names = ["plain.txt", "Grüße.txt", "日本語.txt", "😀 smile.txt", "quote\"s 'n' {braces}.txt", "tab\tand\x01.txt"]
modified = datetime.datetime(2021, 3, 4, 5, 6, 7)
for number, name in enumerate(names):
    content = name.encode() * (number + 1)
    uploaded = client.files_upload(content, f"/In/{name}", client_modified=modified)
    assert isinstance(uploaded, FileMetadata) and uploaded.name == name and uploaded.size == len(content)
    assert uploaded.client_modified == modified
    metadata, response = client.files_download(f"/in/{name}")
    assert response.content == content and metadata == uploaded, (metadata, uploaded)
    assert client.files_get_metadata(uploaded.id) == uploaded

large = bytes(range(256)) * (9 * 4096)
uploaded = client.files_upload(large, "/in/large", mode=WriteMode.overwrite)
_, response = client.files_download("/in/large")
assert response.content == large

# Conflicts and revisions.
assert fails(client.files_upload, b"other", "/in/plain.txt").get_path().reason.get_conflict().is_file()
assert fails(client.files_upload, b"x", "/in", mode=WriteMode.overwrite).get_path().reason.get_conflict().is_folder()
assert fails(client.files_upload, b"x", "/in/plain.txt/y").get_path().reason.get_conflict().is_file_ancestor()
second = client.files_upload(b"second", "/in/large", mode=WriteMode.update(uploaded.rev))
assert second.rev != uploaded.rev and second.id == uploaded.id
assert fails(client.files_upload, b"x", "/in/large", WriteMode.update(uploaded.rev)).get_path().reason.is_conflict()
assert client.files_upload(b"third", "/in/large", autorename=True).name == "large (1)"
assert fails(client.files_upload, b"x", "/in/y", content_hash="0" * 64).is_content_hash_mismatch()

# Listings in several pages, and the changes since.
found, cursor, pages = entries(client, "", recursive=True)
assert pages == 3 and [entry for entry in found if isinstance(entry, FolderMetadata)][0].path_display == "/In"
assert sorted(entry.name for entry in found if isinstance(entry, FileMetadata)) == sorted(names + ["large", "large (1)"])
client.files_delete_v2("/in/large")
client.files_create_folder_v2("/new")
changes = client.files_list_folder_continue(cursor).entries
assert [type(entry) for entry in changes] == [DeletedMetadata, FolderMetadata], changes
assert fails(client.files_create_folder_v2, "/new").get_path().get_conflict().is_folder()
latest = client.files_list_folder_get_latest_cursor("", recursive=True).cursor
assert client.files_list_folder_continue(latest).entries == []

# Moves and copies.
moved = client.files_move_v2("/in/large (1)", "/new/moved").metadata
assert isinstance(moved, FileMetadata) and moved.path_display == "/new/moved"
assert client.files_copy_v2("/new", "/copied").metadata.name == "copied"
assert fails(client.files_move_v2, "/nowhere", "/x").get_from_lookup().is_not_found()
assert fails(client.files_move_v2, "/new", "/copied").get_to().get_conflict().is_folder()

# Sessions of both kinds, alone and in batches.
start = client.files_upload_session_start(b"abc")
cursor = dropbox.files.UploadSessionCursor(start.session_id, 3)
client.files_upload_session_append_v2(b"def", cursor)
assert fails(client.files_upload_session_append_v2, b"def", cursor).get_incorrect_offset().correct_offset == 6
cursor.offset = 6
commit = dropbox.files.CommitInfo("/sessions/one")
assert client.files_upload_session_finish(b"ghi", cursor, commit).size == 9
assert fails(client.files_upload_session_finish, b"", cursor, commit).get_lookup_failed().is_not_found()
block = bytes(4 * 1024 * 1024)
concurrent = client.files_upload_session_start(b"", session_type=dropbox.files.UploadSessionType.concurrent).session_id
at = lambda offset: dropbox.files.UploadSessionCursor(concurrent, offset)
client.files_upload_session_append_v2(block, at(0))
two = dropbox.files.CommitInfo("/sessions/two")
assert fails(client.files_upload_session_finish, b"", at(len(block)), two).is_concurrent_session_not_closed()
client.files_upload_session_append_v2(b"end", at(len(block)), close=True)
assert fails(client.files_upload_session_append_v2, block, at(0)).is_closed()
ids = client.files_upload_session_start_batch(2).session_ids
entry = dropbox.files.UploadSessionAppendBatchArgEntry
entries_of_batch = [entry(dropbox.files.UploadSessionCursor(id, 0), 3, True) for id in ids]
appended = client.files_upload_session_append_batch(b"onetwo", entries_of_batch).entries
assert all(result.is_success() for result in appended), appended
finish = dropbox.files.UploadSessionFinishArg
cursors = [at(len(block) + 3)] + [dropbox.files.UploadSessionCursor(id, 3) for id in ids]
commits = [two] + [dropbox.files.CommitInfo(f"/sessions/{number}") for number in range(2)]
finished = client.files_upload_session_finish_batch_v2([finish(*pair) for pair in zip(cursors, commits)]).entries
assert [result.get_success().size for result in finished] == [len(block) + 3, 3, 3]
assert client.files_download("/sessions/1")[1].content == b"two"

# Waiting, searching, earlier revisions, links, archives.
waiting = client.files_list_folder_get_latest_cursor("", recursive=True).cursor
first = client.files_get_metadata("/sessions/0")
client.files_upload(b"changed", "/sessions/0", mode=WriteMode.overwrite)
assert client.files_list_folder_longpoll(waiting).changes
assert [match.metadata.get_metadata().name for match in client.files_search_v2("TWO").matches] == ["two"]
assert [entry.size for entry in client.files_list_revisions("/sessions/0").entries] == [7, 3]
assert client.files_restore("/sessions/0", first.rev).size == 3
link = client.sharing_create_shared_link_with_settings("/sessions/0")
assert fails(client.sharing_create_shared_link_with_settings, "/sessions/0").is_shared_link_already_exists()
assert client.sharing_get_shared_link_file(link.url)[1].content == b"one"
client.sharing_revoke_shared_link(link.url)
archive = zipfile.ZipFile(io.BytesIO(client.files_download_zip("/sessions")[1].content))
assert archive.read("sessions/one") == b"abcdefghi" and archive.testzip() is None
launch = client.files_delete_batch([dropbox.files.DeleteArg("/sessions"), dropbox.files.DeleteArg("/nowhere")])
job = launch.get_async_job_id()
assert client.files_delete_batch_check(job).is_in_progress()
deleted, missing = client.files_delete_batch_check(job).get_complete().entries
assert deleted.is_success() and missing.get_failure().get_path_lookup().is_not_found()

# What is not there, and what cannot be.
assert fails(client.files_download, "/nowhere").get_path().is_not_found()
assert fails(client.files_get_metadata, "/in/large").get_path().is_not_found()
assert isinstance(client.files_get_metadata("/in/large", include_deleted=True), DeletedMetadata)
assert fails(client.files_list_folder, "/in/plain.txt").get_path().is_not_folder()
assert fails(client.files_delete_v2, "/nowhere").get_path_lookup().is_not_found()
assert fails(client.files_download, "/a//b").get_path().is_malformed_path()
assert fails(client.files_upload, b"", "/.DS_Store").get_path().reason.is_disallowed_name()
try:
    client.files_list_folder_continue("senseless")
    raise AssertionError("a senseless cursor was continued")
except BadInputError as error:
    assert "cursor" in error.message

for path in ["/in", "/new", "/copied"]:
    assert client.files_delete_v2(path).metadata.path_lower == path
assert entries(client, "", recursive=True)[0] == []

# A revoked refresh token needs a person; a client without a secret does not need one.
try:
    dropbox.Dropbox(oauth2_refresh_token="revoked", **APP).users_get_current_account()
    raise AssertionError("a revoked refresh token was accepted")
except AuthError:
    pass
public = dropbox.Dropbox(oauth2_refresh_token="emulator-refresh-token", **APP)
public.files_upload(b"from Python", "/left behind 😀.txt")
