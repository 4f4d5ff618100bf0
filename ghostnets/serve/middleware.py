"""Middleware around every route: host, token, HEAD, body size, response headers, metrics, access log."""

import asyncio
import hmac
import json
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ghostnets.serve.request_error import REJECTED, RequestError, body_too_large, out_of_memory
from ghostnets.serve.service import Service

__all__ = ["ServiceMiddleware"]

logger = logging.getLogger("ghostnets.serve.request")

AUTHENTICATED = ("/v1/", "/v2/models", "/metrics")  # path prefixes that require the token
UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics", "/v2/health/live", "/v2/health/ready"})  # unless they fail
CLIENT_GONE = 499  # in log and metrics only: the client disconnected before the response
SECURITY_HEADERS = [
    # The page may load what this service serves, and nothing else.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;"
        b" connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class ServiceMiddleware:
    """ASGI middleware of the service.

    Args:
        app: Wrapped application.
        service: Source of settings and metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self.service, scope, receive, send)
        try:
            exchange.check_host()
            exchange.check_token()
            await self.app(exchange.scope, exchange.receive, exchange.send)
        except RequestError as error:
            await exchange.send_error(error)
        except asyncio.CancelledError:  # by the server, when --drain-timeout has passed
            if exchange.status or exchange.client_gone:
                raise
            await exchange.send_error(RequestError(503, "the service ended before the answer; send the request again."))
        except Exception as error:
            if not exchange.client_gone:
                known = out_of_memory(error)
                if known is None:
                    logger.exception("internal error")
                else:
                    logger.error("out of memory", extra={"error": f"{type(error).__name__}: {error}"})
                if not exchange.status:
                    response = known or RequestError(500, "internal error of the service; see its log.")
                    await exchange.send_error(response)
        finally:
            exchange.finish()


class _Exchange:
    """A request and its response."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service = service
        self.method = scope["method"]
        # Routes see HEAD as GET; ``send`` drops the body.
        self.scope = {**scope, "method": "GET"} if self.method == "HEAD" else scope
        self._receive, self._send = receive, send
        self.start = time.perf_counter()
        self.body_bytes = 0
        self.status = 0
        self.is_complete = False  # the response was handed over; the server then reports every client as disconnected
        self.client_gone = False

    def check_host(self) -> None:
        hosts = [value for name, value in self.scope["headers"] if name == b"host"]
        if self.service.hosts is None or all(map(self.service.hosts.accept, hosts)):
            return  # a request without the header is not a browser's
        name = hosts[0].decode("latin-1")[:100]
        raise RequestError(421, f"the service does not answer for the host {name!r}; start it with --allow-host NAME.")

    def check_token(self) -> None:
        token, path = self.service.token, self.scope["path"]
        if token is None or not path.startswith(AUTHENTICATED):
            return
        header = dict(self.scope["headers"]).get(b"authorization", b"")
        scheme, _, value = header.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(value.strip(), token):
            raise RequestError(401, "the token is missing or wrong; send the header 'Authorization: Bearer TOKEN'.")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.is_complete:
            self.client_gone = True
        body = len(message.get("body", b""))
        if body:
            self.body_bytes += body
            self.service.buffered_bytes += body
            settings = self.service.settings
            if self.body_bytes > settings.max_request_bytes:
                raise body_too_large(settings.max_request_bytes)
            if self.service.buffered_bytes > settings.max_buffered_bytes:
                raise RequestError(429, "the service buffers too many bytes of other requests; retry in a second.")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *SECURITY_HEADERS]
        elif self.method == "HEAD":
            message = {**message, "body": b""}
        self.is_complete = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def send_error(self, error: RequestError) -> None:
        body = json.dumps({"error": str(error)}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})

    def finish(self) -> None:
        """Release the buffered bytes, update the metrics and write the access log."""
        self.service.buffered_bytes -= self.body_bytes
        state = self.scope.get("state", {})
        status = state.get(REJECTED) or (CLIENT_GONE if self.client_gone else self.status)
        seconds = time.perf_counter() - self.start
        route = getattr(self.scope.get("route"), "path", "other")
        metrics = self.service.metrics
        metrics.requests.labels(route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        if route in UNLOGGED and status == 200:
            return
        line: dict[str, Any] = {
            "method": self.method,
            "path": self.scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "bytes": self.body_bytes,
            "client": (self.scope.get("client") or ("",))[0],
        }
        if "images" in state:
            line["images"] = state["images"]
        logger.info("request", extra=line)
