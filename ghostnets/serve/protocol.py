"""HTTP/1.1 protocol of uvicorn with additional limits: header size, slow clients, number of connections."""

import json
import math
import sys
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ghostnets.serve.request_error import NO_MEMORY, REJECTED, RETRY_AFTER, out_of_memory
from ghostnets.serve.settings import ServiceSettings

__all__ = ["MAX_HEAD_BYTES", "LimitedProtocol"]

MAX_HEAD_BYTES = 32_768  # request line and headers
DISCARD_SECONDS = 2.0  # to read on after the response to a request that was rejected while it arrived
MAX_PIPELINED = 32  # requests of one connection that wait for the previous response
ERROR_MESSAGES = {
    400: "this is not a valid HTTP request; send HTTP/1.1.",
    429: f"{MAX_PIPELINED} requests are pipelined on this connection; wait for a response before sending the next.",
    503: NO_MEMORY,
    431: f"the request line and headers exceed {MAX_HEAD_BYTES} bytes; send fewer or shorter headers.",
}


class LimitedProtocol(HttpToolsProtocol):
    """One connection; ``Server`` calls ``expire`` on each of them periodically.

    Attributes:
        read_deadline: Loop time by which the client must have sent its headers or body; infinite while the service
            prepares the response.
        write_deadline: Loop time by which the client must have received what was written; infinite while nothing is
            pending.
    """

    def __init__(self, settings: ServiceSettings, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.settings = settings

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.head_bytes = 0
        self.in_head = self.is_draining = self.is_discarding = False
        self.parser_error = 400  # status if the parser fails
        self.write_deadline = math.inf
        self.running: Any = None  # cycle of the current request; ``cycle`` is that of the last one received
        self.await_client(self.settings.head_timeout)
        limit = self.settings.max_connections
        if sum(not getattr(each, "is_discarding", False) for each in self.connections) > limit:
            can_linger = len(self.connections) <= 2 * limit  # bounds those that are read on
            self.send_error(429, f"all {limit} connections are in use; retry in a second.", discard=can_linger)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing() or self.is_discarding:
            return
        super().data_received(data)
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.send_error(431, ERROR_MESSAGES[431], discard=True)
        if self.read_deadline == math.inf and self.is_idle:
            self.await_client(self.settings.head_timeout)  # for example empty lines between requests

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_bytes = 0
        self.in_head = True
        self.await_client(self.settings.head_timeout)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count_head(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count_head(len(name) + len(value) + 4)  # ": " and the end of the line

    def on_headers_complete(self) -> None:
        self.in_head = False
        if len(self.pipeline) == MAX_PIPELINED:
            self.parser_error = 429
            raise ValueError("httptools stops, and uvicorn calls send_400_response")
        super().on_headers_complete()
        if not self.pipeline:
            self.running = self.cycle
        if self.is_draining:
            self.cycle.keep_alive = False
        self.await_client(self.settings.body_timeout)

    def on_response_complete(self) -> None:
        if self.pipeline:
            self.running = self.pipeline[-1][0]
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self.running is not None:
            self.running.disconnected = True

    def on_message_complete(self) -> None:
        self.read_deadline = math.inf
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.write_deadline = self.loop.time() + self.settings.body_timeout

    def resume_writing(self) -> None:
        super().resume_writing()
        self.write_deadline = math.inf

    def send_400_response(self, msg: str) -> None:
        """Respond to a parser error, or to an error of the methods above; called by uvicorn while it handles it."""
        error = sys.exception()
        status = self.parser_error if error is None or out_of_memory(error) is None else 503
        self.send_error(status, ERROR_MESSAGES[status], discard=True)

    @property
    def is_idle(self) -> bool:
        """Whether the connection is between two requests."""
        return not self.in_head and (self.cycle is None or self.cycle.response_complete)

    def drain(self, linger: float) -> None:
        """Close after the next response; if no request is in progress, wait ``linger`` seconds for one."""
        self.is_draining = True
        if self.is_idle:
            self.await_client(linger)
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def await_client(self, seconds: float) -> None:
        """Start the read deadline."""
        self.read_deadline = self.loop.time() + seconds

    def expire(self, now: float) -> None:
        """Close the connection if a deadline has passed."""
        if self.transport.is_closing() and self.write_deadline == math.inf:
            self.write_deadline = now + self.settings.body_timeout  # the end of a response is still pending
        if now >= self.write_deadline:
            self.transport.abort()
        elif now < self.read_deadline or self.transport.is_closing():
            pass
        elif self.is_idle or self.is_discarding:
            self.transport.close()
        else:
            self.send_error(408, "the request did not arrive in time; send it faster, or in several requests.")
            if self.cycle is not None:
                self._abandon()

    def send_error(self, status: int, message: str, *, discard: bool = False) -> None:
        """Write a response without calling the application, and close the connection.

        Args:
            status: HTTP status.
            message: Text of the body.
            discard: Read what the client still sends, for ``DISCARD_SECONDS`` at most: closing a connection with unread
                input resets it, and the client may lose the response.
        """
        if self.transport.is_closing() or self.is_discarding:
            return
        body = json.dumps({"error": message}).encode()
        headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        if status in (429, 503):
            headers += b"retry-after: %d\r\n" % RETRY_AFTER
        self.transport.write(STATUS_LINE[status] + headers + b"\r\n" + body)
        if self.cycle is not None and self.cycle.more_body and not self.cycle.response_started:
            self.cycle.scope["state"][REJECTED] = status  # the application sees a client that disconnects
        if not discard:
            self.transport.close()
            return
        self.is_discarding = True
        for cycle in (self.running, self.cycle):
            if cycle is not None:  # nothing can be written any more
                cycle.disconnected = True
                cycle.message_event.set()
        self.transport.write_eof()
        self.flow.resume_reading()
        self.await_client(DISCARD_SECONDS)

    def _abandon(self) -> None:
        """Tell the application that the rest of the body will not come."""
        self.cycle.disconnected = True
        self.cycle.message_event.set()

    def _count_head(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > MAX_HEAD_BYTES:
            self.parser_error = 431
            raise ValueError("httptools stops, and uvicorn calls send_400_response")
