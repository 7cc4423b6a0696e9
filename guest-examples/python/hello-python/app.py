"""Greets whom the parameter `name` says."""

from wit_world import exports
from wit_world.imports.types import Body, Request, Response


class Handler(exports.Handler):
    def handle(self, request: Request) -> Response:
        name = dict(request.params).get("name", "world")
        greeting = f"Hello, {name}, from Python\n"
        return Response(200, [("content-type", "text/plain; charset=utf-8")], Body(greeting.encode()))
