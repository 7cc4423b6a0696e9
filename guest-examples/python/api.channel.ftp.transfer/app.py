"""Moves every file from the root of an FTP server to the Dropbox connector.

A file is deleted from the FTP server only when the connector confirmed it with the same size, and the file did not
change meanwhile. Whatever goes wrong, at any moment, costs at most a repeated upload in the next run, which the
connector recognises; so this service may be run at any time, as often as one likes, and after any crash.

The answer is JSON: what became of each file (`moved`, `failed` with the reason, `gone` when another run was quicker). Its
status is 502 when at least one failed, for a scheduler looks at the status only.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports import services
from wit_world.imports.files import Entry, EntryKind, Remote
from wit_world.imports.types import Body, ErrorCode, Request, Response, Trigger_Http

CONNECTION = "partner"
FOLDER = "/"
CONNECTOR = "api.connector.dropbox"

# What programs call a file that they have not finished writing.
UNFINISHED_SUFFIXES = (".tmp", ".temp", ".part", ".partial", ".filepart", ".crdownload", "~")


class NotMoved(Exception):
    """Why a file stays on the FTP server, for people."""


class Handler(exports.Handler):
    def handle(self, request: Request) -> Response:
        remote = Remote.open(CONNECTION)
        results = [transfer(remote, entry) for entry in list_files(remote)]
        moved = sum(result["result"] == "moved" for result in results)
        failed = sum(result["result"] == "failed" for result in results)
        answer = {"moved": moved, "failed": failed, "files": results}
        return Response(
            502 if failed else 200,
            [("content-type", "application/json")],
            Body(json.dumps(answer).encode()),
        )


def list_files(remote: Remote) -> list[Entry]:
    """The files that are there now. A listing by pages has no limit to how many there may be."""
    listing = remote.open_listing(FOLDER)
    files = []
    while entries := listing.next():
        files += [entry for entry in entries if entry.kind == EntryKind.FILE and is_finished(entry.name)]
    return files


def is_finished(name: str) -> bool:
    return not name.startswith(".") and not name.lower().endswith(UNFINISHED_SUFFIXES)


def transfer(remote: Remote, entry: Entry) -> dict:
    """Moves one file. A failure is a result, too: the other files have their turn all the same."""
    try:
        return {"file": entry.path} | move(remote, entry)
    except Err as failure:
        return {"file": entry.path, "result": "failed", "reason": failure.value.message}
    except NotMoved as reason:
        return {"file": entry.path, "result": "failed", "reason": str(reason)}


def move(remote: Remote, entry: Entry) -> dict:
    before = stat(remote, entry.path)
    if before is None:
        return {"result": "gone"}
    # The body is handed on unread: the bytes go from server to server and never enter this service's memory.
    response = services.invoke(
        CONNECTOR,
        Request(
            id="",
            trigger=Trigger_Http(),
            method="POST",
            path="",
            params=[("file_name", entry.name)],
            headers=[],
            body=remote.read(entry.path),
        ),
    )
    answer = Body.bytes(response.body)
    if not 200 <= response.status < 300:
        raise NotMoved(f"{CONNECTOR} answered {response.status}: {answer[:500].decode(errors='replace')}")
    stored = confirmed(answer)
    after = stat(remote, entry.path)
    if after is not None:
        if (after.size, after.modified) != (before.size, before.modified):
            raise NotMoved("the file changed while it was transferred: it stays for the next run")
        if after.size is not None and stored.get("size") != after.size:
            raise NotMoved(f"{CONNECTOR} confirmed {stored.get('size')} bytes of {after.size}: the file stays")
        delete(remote, entry.path)
    return {"result": "moved", "stored": stored}


def stat(remote: Remote, path: str) -> Entry | None:
    """What is at a path; nothing when another run was quicker."""
    try:
        return remote.stat(path)
    except Err as failure:
        if failure.value.code == ErrorCode.NOT_FOUND:
            return None
        raise


def confirmed(answer: bytes) -> dict:
    try:
        stored = json.loads(answer)
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise NotMoved(f"{CONNECTOR} confirmed nothing: its answer is no JSON object")
    return stored


def delete(remote: Remote, path: str) -> None:
    try:
        remote.delete(path)
    except Err as failure:
        # Another run was quicker; what it deleted it had confirmed.
        if failure.value.code != ErrorCode.NOT_FOUND:
            raise
