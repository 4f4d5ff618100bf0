"""The process: listens, notes signals, drains, reloads."""

import asyncio
import logging
import signal
import socket
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import cast

import uvicorn
from fastapi import FastAPI

from ghostnets.errors import ConfigurationError
from ghostnets.serve.logs import log_as_json
from ghostnets.serve.protocol import LimitedProtocol
from ghostnets.serve.service import Service
from ghostnets.serve.settings import Settings

__all__ = ["run"]

logger = logging.getLogger("ghostnets.serve")

LINGER = 1.0  # seconds for which an idle connection is kept while the process ends: its next request may be on its way


def run(app: FastAPI, settings: Settings) -> None:
    """As ``ghostnets.serve.serve``."""
    log = log_as_json()
    uvicorn_config = uvicorn.Config(
        app,
        http=cast("type[asyncio.Protocol]", partial(LimitedProtocol, settings)),  # any callable does
        ws="none",
        lifespan="off",  # done below, where errors keep their type
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,  # longer than load balancers keep theirs, so that it is they who close
        timeout_graceful_shutdown=1,
    )
    server = Server(uvicorn_config, app.state.service, log)
    with asyncio.Runner(loop_factory=uvicorn_config.get_loop_factory()) as runner:
        runner.run(server.run_service())


class Server(uvicorn.Server):
    """uvicorn's server, which drains before it ends and takes a new artefact on SIGHUP."""

    def __init__(self, config: uvicorn.Config, service: Service, log: logging.Handler) -> None:
        super().__init__(config)
        self.log = log
        self.service, self.settings = service, service.settings
        self.reloads: set[asyncio.Task[bool]] = set()

    async def run_service(self) -> None:
        """From the opening of the artefact to the last answer."""
        loop = asyncio.get_running_loop()
        listener = _listen(self.settings.host, self.settings.port)
        try:
            await self.service.start()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop, number)
            loop.add_signal_handler(signal.SIGHUP, self._reload)
            host, port, *_ = listener.getsockname()
            logger.info("listening", extra={"host": host, "port": port})
            await self.serve([listener])
            for task in self.reloads:
                task.cancel()
            await asyncio.gather(*self.reloads, return_exceptions=True)
            await self.service.close()
            logger.info("stopped")
        finally:
            listener.close()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """They are dealt with here."""
        yield

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second."""
        self._expire_connections()
        self.log.flush()
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Closes the listener, answers what came before, and ends the connections."""
        loop = asyncio.get_running_loop()
        for listener in sockets or []:
            await self._accept_waiting(listener)
        for server in self.servers:
            server.close()
        for connection in self._connections():
            connection.drain(LINGER)
        give_up = loop.time() + self.settings.drain_timeout
        while self.server_state.connections and loop.time() < give_up:
            self._expire_connections()
            self.log.flush()
            await asyncio.sleep(0.05)
        await super().shutdown(sockets)

    def _stop(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        for handled in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(handled)  # a second one acts at once
        logger.info("draining", extra={"signal": signal.Signals(number).name, "images": self.service.images})
        self.service.draining = True
        loop.call_later(self.settings.drain_delay if number == signal.SIGTERM else 0, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    def _reload(self) -> None:
        task = asyncio.create_task(self.service.reload())
        self.reloads.add(task)
        task.add_done_callback(self.reloads.discard)

    async def _accept_waiting(self, listener: socket.socket) -> None:
        """Connections that the system made and nobody took yet would be reset when the listener closes."""
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


def _listen(host: str, port: int) -> socket.socket:
    """Raises ConfigurationError where the address cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"{host}:{port} cannot be listened on ({error}); choose --host or --port.") from error
    listener.setblocking(False)
    return listener
