"""Copies a file from one connection to another.

Parameters: `source` and `target`, each as `connection:/path`, and `if_exists`: `fail`, `rename` or `replace` (when not
given). The answer is JSON: what is at the target now. The content is moved by the host: a file of any size passes
without entering this service's memory.
"""

import json

from componentize_py_types import Err
from wit_world import exports
from wit_world.imports.files import IfExists, Remote
from wit_world.imports.types import Body, Error, ErrorCode, Request, Response


class Handler(exports.Handler):
    def handle(self, request: Request) -> Response:
        params = dict(request.params)
        source, source_path = open_location(params, "source")
        target, target_path = open_location(params, "target")
        entry = target.write(target_path, source.read(source_path), if_exists(params))
        answer = {"path": entry.path, "name": entry.name, "size": entry.size, "revision": entry.revision}
        return Response(200, [("content-type", "application/json")], Body(json.dumps(answer).encode()))


def open_location(params: dict[str, str], name: str) -> tuple[Remote, str]:
    connection, colon, path = params.get(name, "").partition(":")
    if not colon:
        raise invalid(f"the parameter {name} is missing or not of the form connection:/path, such as partner:/a.csv")
    return Remote.open(connection), path


def if_exists(params: dict[str, str]) -> IfExists:
    name = params.get("if_exists", "replace")
    try:
        return IfExists[name.upper()]
    except KeyError:
        raise invalid(f"if_exists is {name}: give fail, rename or replace") from None


def invalid(message: str) -> Err[Error]:
    return Err(Error(ErrorCode.INVALID, message))
