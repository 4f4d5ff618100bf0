"""Around every route: the token, the size of bodies, headers, counting, the log."""

import hmac
import json
import logging
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ghostnets.serve.request_error import RequestError
from ghostnets.serve.service import Service

__all__ = ["Guard"]

logger = logging.getLogger("ghostnets.serve.request")

OPEN = ("/healthz", "/readyz")  # probes carry no token
GUARDED = ("/v1/", "/metrics")
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})
CLIENT_GONE = 499  # in log and metrics alone: there was nobody to answer
HEADERS = [
    # The page may use what this service serves, and nothing else.
    (
        b"content-security-policy",
        b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:;"
        b" connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


class Guard:
    """ASGI middleware around everything that answers.

    Args:
        app: What it guards.
        service: Its settings and counters.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = _Exchange(self.service, scope, receive, send)
        try:
            exchange.check_token()
            await self.app(scope, exchange.receive, exchange.send)
        except RequestError as error:
            await exchange.refuse(error)
        except Exception:
            if not exchange.client_gone:
                logger.exception("a defect of the service")
                if not exchange.status:
                    await exchange.refuse(RequestError(500, "the service has a defect, which its log describes."))
        finally:
            exchange.finish()


class _Exchange:
    """One request and its answer."""

    def __init__(self, service: Service, scope: Scope, receive: Receive, send: Send) -> None:
        self.service, self.scope = service, scope
        self._receive, self._send = receive, send
        self.start = time.perf_counter()
        self.body_bytes = 0
        self.status = 0
        self.client_gone = False

    def check_token(self) -> None:
        token, path = self.service.token, self.scope["path"]
        if token is None or not path.startswith(GUARDED):
            return
        given = dict(self.scope["headers"]).get(b"authorization", b"")
        scheme, _, value = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(value.strip(), token):
            raise RequestError(401, "the token is missing or wrong; send the header 'Authorization: Bearer TOKEN'.")

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.client_gone = True
        body = len(message.get("body", b""))
        if body:
            self.body_bytes += body
            self.service.buffered_bytes += body
            settings = self.service.settings
            if self.body_bytes > settings.max_request_bytes:
                raise RequestError(413, _too_large(settings.max_request_bytes))
            if self.service.buffered_bytes > settings.max_buffered_bytes:
                raise RequestError(429, "too many bytes of other requests are in memory; come again in a second.")
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await self._send(message)

    async def refuse(self, refusal: RequestError) -> None:
        body = json.dumps({"error": str(refusal)}).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **refusal.headers}
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": refusal.status, "headers": encoded})
        await self.send({"type": "http.response.body", "body": body})

    def finish(self) -> None:
        self.service.buffered_bytes -= self.body_bytes
        status = CLIENT_GONE if self.client_gone else self.status
        seconds = time.perf_counter() - self.start
        route = getattr(self.scope.get("route"), "path", "other")
        metrics = self.service.metrics
        metrics.requests.labels(route, status).inc()
        metrics.request_seconds.labels(route).observe(seconds)
        if route in QUIET and status == 200:
            return
        line: dict[str, Any] = {
            "method": self.scope["method"],
            "path": self.scope["path"],
            "status": status,
            "ms": round(seconds * 1000, 2),
            "bytes": self.body_bytes,
            "client": (self.scope.get("client") or ("",))[0],
        }
        if "images" in self.scope.get("state", {}):
            line["images"] = self.scope["state"]["images"]
        logger.info("request", extra=line)


def _too_large(limit: int) -> str:
    return f"the request is larger than {limit} bytes, the limit; send fewer or smaller images."
