"""Lets `urllib.request` work in a service: `install()` once, and `urlopen` goes by `wasi:http`.

By itself it cannot: it wants sockets, which no service has, and `https` wants the module `ssl`, which is not in a
component. What goes this way reaches the origins of the HTTP connections that are granted, with their credentials.

A component that imports this is built with the world `service-with-http-client`; the README says how.
"""

import http.client
import io
import urllib.error
import urllib.parse
import urllib.request
import urllib.response

from componentize_py_types import Err, Ok
from wit_world.imports import outgoing_handler
from wit_world.imports.http_types import Fields, IncomingResponse, Method_Other, OutgoingBody, OutgoingRequest
from wit_world.imports.http_types import Scheme_Http, Scheme_Https
from wit_world.imports.streams import StreamError_Closed

# What one call of the stream takes at most.
WRITE_MAX_BYTES = 4096

# Set by the host; a request that has them is refused.
SET_BY_THE_HOST = {"host", "connection"}


def install() -> None:
    urllib.request.install_opener(urllib.request.build_opener(WasiHandler))


class WasiHandler(urllib.request.AbstractHTTPHandler):
    # Before those that `urllib` has of its own.
    handler_order = 100

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_

    def http_open(self, request: urllib.request.Request) -> urllib.response.addinfourl:
        try:
            response = send(request)
        except Err as failure:
            raise urllib.error.URLError(failure.value) from failure
        headers = http.client.HTTPMessage()
        # What is in the response is used up before the response is: the order matters.
        with response.headers() as fields:
            for name, value in fields.entries():
                headers.add_header(name, value.decode("latin-1"))
        status = response.status()
        content = io.BufferedReader(Content(response))
        answer = urllib.response.addinfourl(content, headers, request.full_url, status)
        answer.msg = http.client.responses.get(status, "")
        return answer

    https_open = http_open


def send(request: urllib.request.Request) -> IncomingResponse:
    address = urllib.parse.urlsplit(request.full_url)
    headers = [(name.lower(), value.encode("latin-1")) for name, value in request.header_items()]
    outgoing = OutgoingRequest(Fields.from_list([header for header in headers if header[0] not in SET_BY_THE_HOST]))
    outgoing.set_method(Method_Other(request.get_method()))
    outgoing.set_scheme(Scheme_Https() if address.scheme == "https" else Scheme_Http())
    outgoing.set_authority(address.netloc)
    outgoing.set_path_with_query(urllib.parse.urlunsplit(("", "", address.path or "/", address.query, "")))
    body = outgoing.body() if request.data else None
    with outgoing_handler.handle(outgoing, None) as future:
        if body:
            write(body, request.data)
        with future.subscribe() as answered:
            answered.block()
        outcome = future.get()
    # The answer is there, and it is taken for the first time: what is left is the answer or its error.
    assert isinstance(outcome, Ok)
    if isinstance(outcome.value, Err):
        raise outcome.value
    return outcome.value.value


def write(body: OutgoingBody, content: bytes) -> None:
    with body.write() as stream:
        for start in range(0, len(content), WRITE_MAX_BYTES):
            stream.blocking_write_and_flush(content[start : start + WRITE_MAX_BYTES])
    OutgoingBody.finish(body, None)


class Content(io.RawIOBase):
    """The body of an answer, read piece by piece."""

    def __init__(self, response: IncomingResponse) -> None:
        self.response = response
        self.body = response.consume()
        self.stream = self.body.stream()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        try:
            piece = self.stream.blocking_read(len(buffer))
        except Err as failure:
            if isinstance(failure.value, StreamError_Closed):
                return 0
            raise OSError(f"the answer broke off: {failure.value}") from failure
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        if not self.closed:
            for held in (self.stream, self.body, self.response):
                held.__exit__(None, None, None)
        super().close()
