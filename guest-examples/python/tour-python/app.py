"""Uses every function of every interface once: the place to look how a call is written in Python.

It wants the connections `disk` (local), `partner` (FTP), `vault` (SFTP), `team` (Dropbox) and `api` (HTTP), the service
`hello`, and the parameter `url`, something at the origin of `api`. The parameter `only` names one of the chapters. The
answer is a JSON list of steps: what each got. A chapter ends with the first step that fails, and its error.
"""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import wasi_urllib
from componentize_py_types import Err, Ok
from wit_world import exports
from wit_world.imports import ftp, http, services, sftp
from wit_world.imports.dropbox import Account, Audience, Batch, Batch_UnderWay, CallStyle, LinkSettings, ListOptions
from wit_world.imports.dropbox import Metadata, Relocation, SearchOptions, SharedLink, UploadOptions
from wit_world.imports.dropbox import WriteMode_Add, WriteMode_Overwrite, WriteMode_Update
from wit_world.imports.files import Filter, IfExists, IfPresent, Listing, Outcome_Transferred, Remote, Transfer
from wit_world.imports.files import TransferOptions, Upload, Verification, WriteOptions
from wit_world.imports.http_types import ErrorCode_HttpRequestDenied
from wit_world.imports.streams import StreamError_Closed
from wit_world.imports.types import Body, Error, Request, Response, Trigger_Http
from wit_world.imports.wall_clock import Datetime

LONG_AGO = Datetime(seconds=1_000_000_000, nanoseconds=0)
STREAM_BYTES = 4096

wasi_urllib.install()


class Handler(exports.Handler):
    def handle(self, request: Request) -> Response:
        params = dict(request.params)
        chapters = [chapter for name, chapter in CHAPTERS.items() if params.get("only", name) == name]
        tour = Tour(params.get("url", ""))
        status = 200
        for chapter in chapters:
            try:
                chapter(tour)
            except Stopped:
                status = 502
        return Response(status, [("content-type", "application/json")], Body(json.dumps(tour.steps).encode()))


class Stopped(Exception):
    """A step failed; the error is among the steps."""


class Tour:
    def __init__(self, url: str) -> None:
        self.url = url
        self.steps: list[dict[str, Any]] = []

    def step(self, name: str, action: Callable[[], Any], show: Callable[[Any], Any] = lambda got: got) -> Any:
        """Does something and keeps what there is to show of what it got.

        An error of the contract is raised as `Err`; its `value` is the record `Error`.
        """
        try:
            got = action()
            self.steps.append({"step": name, "got": show(got)})
        except Err as failure:
            self.steps.append({"step": name, "error": told(failure.value)})
            raise Stopped from failure
        return got


def nothing(_: Any) -> None:
    """What there is to show of a resource."""


def told(error: Error) -> dict[str, str]:
    return {"code": error.code.name.lower().replace("_", "-"), "message": error.message}


def text(body: Body) -> str:
    return Body.bytes(body).decode()


def body(content: str) -> Body:
    return Body(content.encode())


# ---- services -----------------------------------------------------------------------------------------------------


def use_services(tour: Tour) -> None:
    def invoke() -> str:
        # Of a request to another service, the host ignores the id and the trigger.
        asked = Request("", Trigger_Http(), "GET", "", [("name", "tour")], [], body(""))
        return text(services.invoke("hello", asked).body)

    tour.step("services.invoke", invoke)


# ---- files --------------------------------------------------------------------------------------------------------


def use_files(tour: Tour) -> None:
    step = tour.step
    disk = step("files.remote.open", lambda: Remote.open("disk"), nothing)
    options = WriteOptions(if_exists=IfExists.FAIL, parents=True, modified=LONG_AGO)
    step("files.ping", lambda: disk.ping().milliseconds >= 0)
    step("files.make-directory", lambda: disk.make_directory("/tour"))
    step("files.make-directories", lambda: disk.make_directories("/tour/a/b"))
    step("files.write", lambda: disk.write("/tour/report.csv", body("one,two\n"), IfExists.FAIL).size)
    step("files.write-with", lambda: disk.write_with("/tour/c/old.txt", body("old"), options).modified.seconds)
    step("files.create", lambda: produce(disk.create("/tour/a/made.txt", IfExists.REPLACE), b"made here"))
    step("files.create-with", lambda: produce(disk.create_with("/tour/d/made.txt", options), b"made there"))
    step("files.append", lambda: disk.append("/tour/report.csv", body("three\n")).size)
    step("files.exists", lambda: [disk.exists("/tour/report.csv"), disk.exists("/tour/missing")])
    step("files.stat", lambda: disk.stat("/tour/report.csv").kind.name.lower())
    step("files.list", lambda: sorted(entry.name for entry in disk.list("/tour")))
    step("files.open-listing", lambda: sorted(entry.name for entry in pages(disk.open_listing("/tour/c"))))
    step("files.walk", lambda: sorted(entry.path for entry in pages(disk.walk("/tour", Filter(["*.txt"], ["d"])))))
    step("files.read", lambda: text(disk.read("/tour/report.csv")))
    step("files.read-range", lambda: text(disk.read_range("/tour/report.csv", 4, 3)))
    step("types.body.size", lambda: disk.read("/tour/report.csv").size())
    step("types.body.stream", lambda: b"".join(pieces(disk.read("/tour/report.csv"))).decode())
    step("types.body.from-stream", lambda: write_from_stream(disk, "/tour/report.csv", "/tour/streamed.csv"))
    step("files.copy", lambda: disk.copy("/tour/report.csv", "/tour/copy.csv", IfExists.RENAME).name)
    step("files.checksum", lambda: disk.checksum("/tour/report.csv").algorithm)
    step("files.set-modified", lambda: disk.set_modified("/tour/copy.csv", LONG_AGO))
    step("files.rename", lambda: disk.rename("/tour/copy.csv", "/tour/renamed.csv", IfExists.FAIL))
    step("files.delete", lambda: disk.delete("/tour/streamed.csv"))
    step("files.delete-tree", lambda: disk.delete_tree("/tour/d"))
    # An error is an exception like any other.
    step("an error", lambda: error_of(lambda: disk.write("/tour/report.csv", body("other"), IfExists.FAIL)))
    # The files go from server to server, and never enter this service.
    for connection in ("partner", "vault", "team"):
        target = step(f"files.remote.open {connection}", lambda: Remote.open(connection), nothing)
        step(f"files.transfer to {connection}", lambda: transfer(disk, "/tour", target, "/tour"))


def produce(upload: Upload, content: bytes) -> int:
    """Content that the service itself makes, piece by piece. The stream ends before the upload is finished."""
    with upload.content() as stream:
        for start in range(0, len(content), STREAM_BYTES):
            stream.blocking_write_and_flush(content[start : start + STREAM_BYTES])
    return Upload.finish(upload).size


def pages(listing: Listing) -> Iterator[Any]:
    while entries := listing.next():
        yield from entries


def pieces(content: Body) -> Iterator[bytes]:
    with Body.stream(content) as stream:
        while True:
            try:
                yield stream.blocking_read(STREAM_BYTES)
            except Err as failure:
                # Any other error is a source that broke off.
                if isinstance(failure.value, StreamError_Closed):
                    return
                raise


def write_from_stream(remote: Remote, source: str, target: str) -> int:
    content = Body.from_stream(Body.stream(remote.read(source)))
    return remote.write(target, content, IfExists.REPLACE).size


def error_of(action: Callable[[], Any]) -> str:
    try:
        action()
    except Err as failure:
        return told(failure.value)["code"]
    return "none"


def transfer(source: Remote, source_path: str, target: Remote, target_path: str) -> list[Any]:
    options = TransferOptions(
        if_present=IfPresent.FAIL,
        filter=Filter(patterns=["*.csv"], exclude=[]),
        verification=Verification.CONTENT,
        delete_source=False,
        resume=False,
        keep_modified=True,
        parallel=0,
    )
    under_way = Transfer.start(source, source_path, target, target_path, options)
    results = []
    while result := under_way.next():
        if isinstance(result.outcome, Outcome_Transferred):
            results.append([result.target, result.outcome.value.bytes])
        else:
            results.append([result.target, str(result.outcome)])
    return [*sorted(results), under_way.progress().files_transferred]


# ---- dropbox ------------------------------------------------------------------------------------------------------


def use_dropbox(tour: Tour) -> None:
    step = tour.step
    team = step("dropbox.account.open", lambda: Account.open("team"), nothing)
    everything = ListOptions(recursive=True, include_deleted=False, limit=None)

    def upload(path: str, content: str, mode: Any) -> Metadata:
        return team.upload(path, body(content), UploadOptions(mode, autorename=False, client_modified=None, mute=True))

    step("dropbox.create-folder", lambda: team.create_folder("/trip").path)
    cursor = step("dropbox.latest-cursor", lambda: team.latest_cursor("/trip", everything), bool)
    plan = step("dropbox.upload", lambda: upload("/trip/plan.txt", "first plan", WriteMode_Add()), size_of)
    first = plan.revision
    step("dropbox.upload an update", lambda: upload("/trip/plan.txt", "second plan", WriteMode_Update(first)).size)
    step("dropbox.upload over it", lambda: upload("/trip/notes.paper", "# Notes", WriteMode_Overwrite()).name)
    step("dropbox.longpoll", lambda: team.longpoll(cursor, 30).changes)
    step("dropbox.changes", lambda: sorted(entry.path for entry in team.changes("/trip", cursor, everything).entries))
    step("dropbox.get-metadata", lambda: team.get_metadata("/trip/plan.txt").kind.name.lower())
    step("dropbox.download", lambda: text(team.download("/trip/plan.txt")[1]))
    step("dropbox.list-folder", lambda: sorted(entry.name for entry in team.list_folder("/trip", False).entries))
    step("dropbox.list-folder-with", lambda: all_pages(team, "/trip"))
    step("dropbox.search", lambda: all_matches(team, "/trip", "n"))
    step("dropbox.revisions", lambda: len(team.revisions("/trip/plan.txt", 10).entries))
    step("dropbox.download-revision", lambda: text(team.download_revision("/trip/plan.txt", first)[1]))
    step("dropbox.restore", lambda: team.restore("/trip/plan.txt", first).size)
    step("dropbox.export", lambda: team.export("/trip/notes.paper", None), lambda got: [got[0], text(got[1])])
    step("dropbox.download-zip", lambda: Body.bytes(team.download_zip("/trip"))[:2].decode())
    step("dropbox.copy", lambda: team.copy("/trip/plan.txt", "/trip/copy.txt", False).name)
    step("dropbox.move", lambda: team.move("/trip/copy.txt", "/trip/plan.txt", True).name)

    def both(of: str, to: str) -> list[Relocation]:
        return [Relocation(f"/trip/{of}{number}", f"/trip/{to}{number}") for number in (1, 2)]

    # Of a batch each entry has a result of its own.
    folders = ["/trip/x1", "/trip/x2", "/trip"]
    step("dropbox.create-folder-batch", lambda: done(team, team.create_folder_batch(folders, False)))
    step("dropbox.copy-batch", lambda: done(team, team.copy_batch(both("x", "y"), False)))
    step("dropbox.move-batch", lambda: done(team, team.move_batch(both("y", "z"), False)))
    step("dropbox.delete-batch", lambda: done(team, team.delete_batch(["/trip/z1", "/trip/nothing"])))
    step("dropbox.save-url", lambda: done(team, team.save_url("/trip/saved", "https://example.com/saved")))
    step("dropbox.delete", lambda: team.delete("/trip/x1").path)
    use_links(tour, team)
    step("dropbox.space-usage", lambda: team.space_usage().used > 0)
    step("dropbox.current-account", lambda: team.current_account().email)
    use_calls(tour, team)


def size_of(metadata: Metadata) -> int:
    return metadata.size


def all_pages(team: Account, path: str) -> list[str]:
    page = team.list_folder_with(path, ListOptions(recursive=False, include_deleted=False, limit=1))
    names = [entry.name for entry in page.entries]
    while page.has_more:
        page = team.list_folder_continue(page.cursor)
        names += [entry.name for entry in page.entries]
    return sorted(names)


def all_matches(team: Account, path: str, query: str) -> list[str]:
    options = SearchOptions(limit=1, names_only=True, deleted=False, extensions=[])
    matches = team.search(path, query, options)
    names = [entry.name for entry in matches.entries]
    while matches.cursor is not None:
        matches = team.search_continue(matches.cursor)
        names += [entry.name for entry in matches.entries]
    return sorted(names)


def done(team: Account, batch: Batch) -> list[str]:
    """What became of each entry. For a large batch, keep the text and check it in a later invocation."""
    while isinstance(batch, Batch_UnderWay):
        time.sleep(0.05)
        batch = team.check(batch.value)
    return [result.value.path if isinstance(result, Ok) else told(result.value)["code"] for result in batch.value]


def name_of(link: SharedLink) -> str:
    return link.name


def use_links(tour: Tour, team: Account) -> None:
    step = tour.step
    plain = LinkSettings(password=None, expires=None, audience=None, allow_download=None)
    closed = LinkSettings(password="sesame", expires=None, audience=Audience.PUBLIC, allow_download=None)
    made = step("dropbox.create-shared-link", lambda: team.create_shared_link("/trip/plan.txt", plain), name_of)
    link = made.url
    step("dropbox.shared-links", lambda: [link.path for link in team.shared_links("/trip/plan.txt")])
    step("dropbox.modify-shared-link", lambda: team.modify_shared_link("/trip/plan.txt", link, closed).name)
    step("dropbox.shared-link-metadata", lambda: team.shared_link_metadata(link, "sesame").path)
    step("dropbox.shared-link-file", lambda: text(team.shared_link_file(link, "sesame")[1]))
    step("dropbox.revoke-shared-link", lambda: team.revoke_shared_link("/trip/plan.txt", link))
    step("dropbox.temporary-link", lambda: team.temporary_link("/trip/plan.txt"))
    step("dropbox.temporary-upload-link", lambda: team.temporary_upload_link("/trip/sent.txt", 600))


def use_calls(tour: Tour, team: Account) -> None:
    """Routes that have no function of their own, by their names in Dropbox's documentation."""

    def call(style: CallStyle, route: str, argument: dict[str, Any], content: Body | None) -> tuple[Any, Body | None]:
        result, answer = team.call(style, route, json.dumps(argument), content)
        return json.loads(result), answer

    plan = {"path": "/trip/plan.txt"}
    step = tour.step
    step("dropbox.call rpc", lambda: call(CallStyle.RPC, "files/get_metadata", plan, None)[0]["name"])
    called = {"path": "/trip/called.txt"}
    step("dropbox.call upload", lambda: call(CallStyle.UPLOAD, "files/upload", called, body("called"))[0]["size"])
    step("dropbox.call download", lambda: text(call(CallStyle.DOWNLOAD, "files/download", plan, None)[1]))


# ---- http, and the client of the language -------------------------------------------------------------------------


def use_http(tour: Tour) -> None:
    def send(method: str, content: str) -> list[Any]:
        params, headers = [("q", "a&b")], [("x-own", "mine")]
        answer = http.send("api", http.Request(method, "/things", params, headers, body(content)))
        return [answer.status, dict(answer.headers)["content-type"], text(answer.body)]

    tour.step("http.send GET", lambda: send("GET", ""))
    tour.step("http.send POST", lambda: send("POST", "a thing"))


def use_client(tour: Tour) -> None:
    def ask(content: bytes | None) -> list[Any]:
        request = urllib.request.Request(tour.url, data=content, headers={"X-Own": "mine"})
        try:
            with urllib.request.urlopen(request) as answer:
                return [answer.status, answer.headers["content-type"], answer.read().decode()]
        except urllib.error.URLError as failure:
            # As `urllib` tells it: the reason is an error of `wasi:http`, which has codes of its own.
            return ["denied" if isinstance(failure.reason, ErrorCode_HttpRequestDenied) else str(failure)]

    tour.step("client GET", lambda: ask(None))
    tour.step("client POST", lambda: ask(b"a thing"))


# ---- ftp, sftp ----------------------------------------------------------------------------------------------------


def use_ftp(tour: Tour) -> None:
    step = tour.step
    partner = step("ftp.server.open", lambda: ftp.Server.open("partner"), nothing)
    step("files.write to partner", lambda: Remote.open("partner").write("/raw.txt", body("raw"), IfExists.REPLACE).size)
    step("ftp.command", lambda: partner.command("SIZE /raw.txt").lines)
    step("ftp.site", lambda: partner.site("CHMOD 600 /raw.txt").code)
    step("ftp.features", lambda: "UTF8" in partner.features())


def use_sftp(tour: Tour) -> None:
    step = tour.step
    vault = step("sftp.server.open", lambda: sftp.Server.open("vault"), nothing)
    files = step("files.remote.open vault", lambda: Remote.open("vault"), nothing)
    step("files.make-directories on vault", lambda: files.make_directories("/safe/empty"))
    step("files.write to vault", lambda: files.write("/safe/file", body("content"), IfExists.REPLACE).size)
    info = step("sftp.get-info", lambda: vault.get_info("/safe/file"), lambda info: [info.kind.name.lower(), info.size])
    step("sftp.symlink", lambda: vault.symlink("file", "/safe/link"))
    step("sftp.hard-link", lambda: vault.hard_link("/safe/file", "/safe/second"))
    step("sftp.follow-info", lambda: vault.follow_info("/safe/link").kind.name.lower())
    step("sftp.list", lambda: sorted(entry.name for entry in vault.list("/safe")))
    step("sftp.is-directory", lambda: [vault.is_directory("/safe"), vault.is_directory("/safe/link")])
    step("sftp.is-file", lambda: [vault.is_file("/safe/file"), vault.is_file("/safe")])
    step("sftp.is-symlink", lambda: [vault.is_symlink("/safe/link"), vault.is_symlink("/safe/file")])
    step("sftp.read-link", lambda: vault.read_link("/safe/link"))
    step("sftp.realpath", lambda: vault.realpath("/safe/link"))
    step("sftp.chmod", lambda: vault.chmod("/safe/file", 0o640))
    step("sftp.chown", lambda: vault.chown("/safe/file", sftp.Owner_Id(info.user), sftp.Owner_Id(info.group)))
    step("sftp.set-times", lambda: vault.set_times("/safe/file", None, LONG_AGO))
    step("sftp.statvfs", lambda: vault.statvfs("/safe").bytes > 0)
    step("sftp.fsync", lambda: vault.fsync("/safe/file"))
    step("sftp.download-file", lambda: text(vault.download_file("/safe/second")))
    step("sftp.execute", lambda: script(vault.execute("cd /safe\nrename second third\n-rm missing\n")))
    disk = step("files.remote.open disk", lambda: Remote.open("disk"), nothing)
    step("files.write to disk", lambda: disk.write("/local.txt", body("local"), IfExists.REPLACE).size)
    step("sftp.execute-with", lambda: script(vault.execute_with("put local.txt /safe/put.txt\n", disk, "/")))
    step("sftp.delete-file", lambda: vault.delete_file("/safe/third"))
    step("sftp.delete-symlink", lambda: vault.delete_symlink("/safe/link"))
    step("sftp.delete-directory", lambda: vault.delete_directory("/safe/empty"))
    step("sftp.delete", lambda: vault.delete("/safe/put.txt"))


def script(result: sftp.ScriptResult) -> list[Any]:
    errors = [told(command.error)["code"] if command.error else None for command in result.commands]
    return [result.is_complete, errors]


CHAPTERS: dict[str, Callable[[Tour], None]] = {
    "services": use_services,
    "files": use_files,
    "dropbox": use_dropbox,
    "http": use_http,
    "client": use_client,
    "ftp": use_ftp,
    "sftp": use_sftp,
}
