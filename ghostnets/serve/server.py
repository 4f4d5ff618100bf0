"""Server process: listen, handle signals, drain, reload."""

import asyncio
import ctypes
import logging
import math
import signal
import socket
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from ghostnets.errors import ConfigurationError
from ghostnets.serve.hosts import AllowedHosts
from ghostnets.serve.logs import configure_logging
from ghostnets.serve.protocol import LimitedProtocol
from ghostnets.serve.service import Service
from ghostnets.serve.settings import ServiceSettings

__all__ = ["run"]

logger = logging.getLogger("ghostnets.serve")

M_MMAP_THRESHOLD, MMAP_THRESHOLD = -3, 4 << 20  # parameter of glibc's mallopt; bytes
LINGER = 1.0  # seconds to keep an idle connection while draining: its next request may be on its way


def run(app: FastAPI, settings: ServiceSettings) -> bool:
    """Run the server until a signal stops it; see ``ghostnets.serve.serve``."""
    log_handler = configure_logging()
    _return_large_blocks()
    uvicorn_config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(LimitedProtocol, settings)),  # any callable works
        ws="none",
        lifespan="off",  # run_service starts and closes the service, so that errors keep their type
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than load balancers use, so that they close first
        timeout_graceful_shutdown=1,
    )
    server = Server(uvicorn_config, app.state.service, log_handler)
    with asyncio.Runner(loop_factory=uvicorn_config.get_loop_factory()) as runner:
        return runner.run(server.run_service())


class Server(uvicorn.Server):
    """uvicorn server that drains before it stops and reloads the artefact on SIGHUP."""

    def __init__(self, config: uvicorn.Config, service: Service, log_handler: logging.Handler) -> None:
        super().__init__(config)
        self.log_handler = log_handler
        self.service, self.settings = service, service.settings
        self.reloads: set[asyncio.Task[bool]] = set()
        self.deadline = math.inf

    async def run_service(self) -> bool:
        """Open the artefact, serve, and close after the last response; return whether all work ended in time."""
        loop = asyncio.get_running_loop()
        listener = _listen(self.settings.host, self.settings.port)
        try:
            await self.service.start()
            for number in (signal.SIGTERM, signal.SIGINT):
                _on_signal(number, partial(self._stop, number))
            if hasattr(signal, "SIGHUP"):  # missing on Windows
                _on_signal(signal.SIGHUP, self._reload)
            host, port, *_ = listener.getsockname()
            self.service.hosts = AllowedHosts(host, self.settings.allow_host)
            logger.info("listening", extra={"host": host, "port": port})
            await self.serve([listener])
            for task in self.reloads:
                task.cancel()
            await asyncio.gather(*self.reloads, return_exceptions=True)
            has_ended = await self.service.close(max(0.2, self.deadline - loop.time()))
            logger.info("stopped", extra={} if has_ended else {"abandoned": "work that exceeded --drain-timeout"})
            return has_ended
        finally:
            listener.close()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Disable uvicorn's signal handling; ``run_service`` installs its own."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Expire slow connections and flush the log; uvicorn calls this ten times a second."""
        self._expire_connections()
        self.log_handler.flush()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, answer open requests, and close all connections."""
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            await self._accept_pending(listener)
        for server in self.servers:
            server.close()
        for connection in self._connections():
            connection.drain(LINGER)
        self.deadline = loop.time() + self.settings.drain_timeout
        while self.server_state.connections and loop.time() < self.deadline:
            self._expire_connections()
            self.log_handler.flush()
            await asyncio.sleep(0.05)
        if self.server_state.connections:
            logger.warning("requests dropped", extra={"connections": len(self.server_state.connections)})
            self.config.timeout_graceful_shutdown = 0
        await super().shutdown(sockets)

    def _stop(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second signal kills the process
        signal.signal(signal.SIGINT, signal.default_int_handler)
        logger.info("draining", extra={"signal": signal.Signals(number).name, "images": self.service.images})
        self.service.draining = True
        loop.call_later(self.settings.drain_delay if number == signal.SIGTERM else 0, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.create_task(self.service.reload())
        self.reloads.add(task)
        task.add_done_callback(self.reloads.discard)

    async def _accept_pending(self, listener: socket.socket) -> None:
        """Accept connections in the kernel's backlog, which would be reset when the listener closes."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            connection.setblocking(False)
            await loop.connect_accepted_socket(self._protocol, connection)

    def _protocol(self) -> LimitedProtocol:
        return LimitedProtocol(self.settings, self.config, self.server_state, {})

    def _connections(self) -> list[LimitedProtocol]:
        return [c for c in self.server_state.connections if isinstance(c, LimitedProtocol)]

    def _expire_connections(self) -> None:
        now = asyncio.get_running_loop().time()
        for connection in self._connections():
            connection.expire(now)


def _on_signal(number: int, action: Callable[[], None]) -> None:
    """Run ``action`` in the running event loop upon a signal; ``loop.add_signal_handler`` does not exist on Windows."""
    loop = asyncio.get_running_loop()
    signal.signal(number, lambda *_: loop.call_soon_threadsafe(action))


def _return_large_blocks() -> None:
    """Let glibc give blocks of ``MMAP_THRESHOLD`` bytes back when they are freed.

    By default that threshold grows to the size of the largest request, and each thread keeps the blocks it has freed.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)


def _listen(host: str, port: int) -> socket.socket:
    """Bind a listening socket; raises ConfigurationError if the address cannot be bound."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port} ({error}); choose another --host or --port."
        ) from error
    listener.setblocking(False)
    return listener
