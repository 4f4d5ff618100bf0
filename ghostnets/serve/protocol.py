"""HTTP as uvicorn speaks it, with limits that it does not have: size of heads, slow clients, number of connections."""

import json
import math
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from ghostnets.serve.request_error import RETRY_AFTER
from ghostnets.serve.settings import Settings

__all__ = ["MAX_HEAD_BYTES", "LimitedProtocol"]

MAX_HEAD_BYTES = 32_768  # request line and headers
MAX_PIPELINED = 32  # requests of one connection that wait for the answer to the one before
SENTENCES = {
    400: "this is no HTTP request; send one.",
    429: f"{MAX_PIPELINED} requests wait on this connection already; send the next when one is answered.",
    431: f"the request's head is larger than {MAX_HEAD_BYTES} bytes; send fewer and shorter headers.",
}


class LimitedProtocol(HttpToolsProtocol):
    """One connection. ``Server`` calls ``expire`` of each now and then.

    Attributes:
        deadline: Loop time by which the client must have sent a head or a body; infinite while it is our turn.
        taking_deadline: Loop time by which it must have taken what was written; infinite where nothing waits.
    """

    def __init__(self, settings: Settings, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.settings = settings

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.head_bytes = 0
        self.in_head = self.is_draining = False
        self.refusal = 400
        self.taking_deadline = math.inf
        self.running: Any = None  # the cycle being answered; ``cycle`` is the last that came
        self.await_client(self.settings.head_timeout)
        if len(self.connections) > self.settings.max_connections:
            self.answer(429, f"all {self.settings.max_connections} connections are taken; come again in a second.")

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        super().data_received(data)
        if self.in_head:
            self.head_bytes += len(data)
            if self.head_bytes > MAX_HEAD_BYTES:
                self.answer(431, SENTENCES[431])
        if self.deadline == math.inf and self.is_idle:
            self.await_client(self.settings.head_timeout)  # empty lines between requests, for one

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.head_bytes = 0
        self.in_head = True
        self.await_client(self.settings.head_timeout)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._count(len(name) + len(value) + 4)  # ": " and the end of the line

    def on_headers_complete(self) -> None:
        self.in_head = False
        if len(self.pipeline) == MAX_PIPELINED:
            self.refusal = 429
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
        self.deadline = math.inf
        super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.taking_deadline = self.loop.time() + self.settings.body_timeout

    def resume_writing(self) -> None:
        super().resume_writing()
        self.taking_deadline = math.inf

    def send_400_response(self, msg: str) -> None:
        """Uvicorn calls this where the parser gave up."""
        self.answer(self.refusal, SENTENCES[self.refusal])

    @property
    def is_idle(self) -> bool:
        """Whether it is between two requests."""
        return not self.in_head and (self.cycle is None or self.cycle.response_complete)

    def drain(self, linger: float) -> None:
        """From now on the next answer is the last; where no request is under way, one may come for so many seconds."""
        self.is_draining = True
        if self.is_idle:
            self.await_client(linger)
        elif self.cycle is not None:
            self.cycle.keep_alive = False

    def await_client(self, seconds: float) -> None:
        """From now it is the client's turn, for so long."""
        self.deadline = self.loop.time() + seconds

    def expire(self, now: float) -> None:
        """Ends the connection where a deadline has passed."""
        if self.transport.is_closing() and self.taking_deadline == math.inf:
            self.taking_deadline = now + self.settings.body_timeout  # the last of an answer waits to be taken
        if now >= self.taking_deadline:
            self.transport.abort()
        elif now < self.deadline or self.transport.is_closing():
            pass
        elif self.is_idle:
            self.transport.close()
        else:
            self.answer(408, "the request did not arrive in time; send it faster, or in parts.")
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()

    def answer(self, status: int, sentence: str) -> None:
        """Writes an answer from here, without the application, and closes."""
        if self.transport.is_closing():
            return
        body = json.dumps({"error": sentence}).encode()
        headers = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n" % len(body)
        if status == 429:
            headers += b"retry-after: %d\r\n" % RETRY_AFTER
        self.transport.write(STATUS_LINE[status] + headers + b"\r\n" + body)
        self.transport.close()

    def _count(self, size: int) -> None:
        self.head_bytes += size
        if self.head_bytes > MAX_HEAD_BYTES:
            self.refusal = 431
            raise ValueError("httptools stops, and uvicorn calls send_400_response")
