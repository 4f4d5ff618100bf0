"""Service process and load generator; the clients share the cores with the service, so they must be cheap."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class ServiceProcess:
    """``ghostnets serve`` in its own process, on a free port; a context manager."""

    def __init__(self, artefact: Path, *arguments: str, port: int | None = None) -> None:
        self.port = port or _free_port()
        self.command = [sys.executable, "-m", "ghostnets", "serve", str(artefact), f"--port={self.port}", *arguments]

    def start(self) -> None:
        """Start the process and wait until it listens."""
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(self.command, stderr=self.log)
        end = time.monotonic() + 60
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        self.log.seek(0)
        raise RuntimeError(self.log.read())

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> "ServiceProcess":
        self.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.poll() is None:
            self.stop()

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / 100

    def memory_mb(self, name: str = "VmRSS") -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(rf"{name}:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]

    def peak_mb(self) -> int:
        return self.memory_mb("VmHWM")


class LoadGenerator:
    """Clients in a closed loop: each sends its next request when it has received the previous response.

    Attributes:
        statuses: Number of responses by status.
        latencies: Latency of each response with status 200, in seconds.
        lost: Number of requests sent at least in part without a complete response.
        refused: Number of refused connections.
    """

    def __init__(self, port: int, files: list[bytes]) -> None:
        head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
        self.requests = [head % len(file) + file for file in files]
        self.port = port
        self.next = 0
        self.reset()

    def reset(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.latencies: list[float] = []
        self.lost = self.refused = 0

    async def run(self, clients: int, seconds: float) -> None:
        """Send requests for ``seconds``, then wait for the last responses."""
        self.end = time.perf_counter() + seconds
        await asyncio.gather(*(self._client() for _ in range(clients)))

    async def _client(self) -> None:
        loop = asyncio.get_running_loop()
        while time.perf_counter() < self.end:
            try:
                _, connection = await loop.create_connection(lambda: _Connection(self), "127.0.0.1", self.port)
            except OSError:
                self.refused += 1
                await asyncio.sleep(0.05)
                continue
            await connection.closed


class _Connection(asyncio.Protocol):
    def __init__(self, load: LoadGenerator) -> None:
        self.load = load
        self.closed = asyncio.get_running_loop().create_future()
        self.buffer = b""
        self.is_waiting = False

    def connection_made(self, transport: Any) -> None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport = transport
        self._send_request()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return
        length = int(LENGTH.search(self.buffer)[1])  # type: ignore[index]
        if len(self.buffer) < head_end + 4 + length:
            return
        status = int(self.buffer[9:12])
        self.load.statuses[status] += 1
        if status == 200:
            self.load.latencies.append(time.perf_counter() - self.start)
        is_last = b"connection: close" in self.buffer[:head_end]
        self.is_waiting, self.buffer = False, b""
        if is_last or time.perf_counter() > self.load.end:
            self.transport.close()
        elif status == 429:  # sooner than Retry-After, so that the overload lasts
            asyncio.get_running_loop().call_later(0.05, self._send_request)
        else:
            self._send_request()

    def connection_lost(self, error: Exception | None) -> None:
        if self.is_waiting:
            self.load.lost += 1
        self.closed.set_result(None)

    def _send_request(self) -> None:
        if self.transport.is_closing():
            return
        request = self.load.requests[self.load.next % len(self.load.requests)]
        self.load.next += 1
        self.is_waiting = True
        self.start = time.perf_counter()
        self.transport.write(request)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
