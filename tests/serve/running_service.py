"""Fixtures: a small network as an engine plan or a checkpoint, image files, and a service in its own process."""

import http.client
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import enliven
from PIL import Image

import ghostnets
from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.preprocessing import Preprocessing

NAMES = ("ant", "bee", "cat")
PREPROCESSING = Preprocessing(32, 36)  # used by write_checkpoint


def write_plan(path: Path, *, seed: int = 0, names: tuple[str, ...] = NAMES) -> Path:
    """Write an engine plan of a few thousand weights for 32-pixel images; its predictions depend on ``seed``."""
    torch.manual_seed(seed)
    arguments = {"width": 0.1, "num_classes": len(names)}
    network = ghostnets.create_model("ghostnet_100", **arguments)
    torch.nn.init.normal_(network.classifier.bias)
    preprocessing = Preprocessing.standard(32, 3)
    description = Description("ghostnet_100", arguments, names, preprocessing, any_size=True)
    session = engine.compile(network.eval(), threads=1, mean=preprocessing.mean, std=preprocessing.std)
    session.save(path, metadata={METADATA_KEY: description.to_json()})
    return path


def write_checkpoint(path: Path, architecture: str = "ghostnet_100", **arguments: Any) -> Path:
    """Write a checkpoint for 32-pixel images whose predictions are sensitive to its feature maps."""
    torch.manual_seed(3)
    arguments |= {"num_classes": len(NAMES)}
    model = enliven(ghostnets.create_model(architecture, **arguments))
    with torch.no_grad():
        for parameter in list(model.parameters())[
            -2:
        ]:  # of the classifier, so that small changes of the maps are visible
            parameter *= 30
    save_checkpoint(path, Checkpoint(architecture, arguments, model.state_dict(), NAMES, PREPROCESSING))
    return path


def encode_image(seed: int = 0, kind: str = "JPEG", size: tuple[int, int] = (48, 40)) -> bytes:
    """Encode a random image in the file format ``kind``."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


class ServiceProcess:
    """``ghostnets serve`` in its own process."""

    def __init__(self, plan: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "ghostnets", "serve", str(plan), "--port=0", "--threads=1", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.events: list[dict[str, Any]] = []
        self.num_read = 0
        self.reader = threading.Thread(target=self._read)  # an unread pipe would block the service
        self.reader.start()
        self.port = int(self.wait_for("listening")["port"])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self.events.append(json.loads(line))

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the next log event with this name."""
        while True:
            wait_until(lambda: len(self.events) > self.num_read or not self.reader.is_alive())
            assert len(self.events) > self.num_read, f"event {event!r} is not in {self.events}"
            found = self.events[self.num_read]
            self.num_read += 1
            if found["event"] == event:
                return found

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def open_sockets(self) -> int:
        """Return the number of sockets that the process has open."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(str(link.readlink()).startswith("socket:") for link in links)

    def resident_bytes(self) -> int:
        """Return the memory that the process has in use."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def request(
        self, method: str, path: str, body: bytes | None = None, content_type: str = "image/jpeg"
    ) -> tuple[int, Any]:
        """Send a request on a new connection; return its status and JSON."""
        connection = self.connect()
        connection.request(method, path, body, {"Content-Type": content_type} if body is not None else {})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content) if content.startswith(b"{") else content

    def __enter__(self) -> "ServiceProcess":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> int:
        """Send SIGTERM if the process is running; return the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Wait for the process to exit; return the exit code."""
        self.reader.join(20)
        return self.process.wait(20)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.02)
