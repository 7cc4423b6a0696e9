"""Asks an HTTP connection for something, and passes the answer on.

Parameters: `connection` and `path`. The credentials are the connection's: this service knows its name alone.
"""

from wit_world import exports
from wit_world.imports import http
from wit_world.imports.types import Body, Request, Response


class Handler(exports.Handler):
    def handle(self, request: Request) -> Response:
        params = dict(request.params)
        question = http.Request("GET", params.get("path", ""), [], [("accept", "application/json")], Body(b""))
        answer = http.send(params.get("connection", ""), question)
        kept = [(name, value) for name, value in answer.headers if name == "content-type"]
        return Response(answer.status, kept, answer.body)
