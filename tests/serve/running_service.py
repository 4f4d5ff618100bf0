"""A small network as a plan of the engine and as a checkpoint, image files, and a service in a process of its own."""

import http.client
import io
import json
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
PREPROCESSING = Preprocessing(32, 36)  # of the checkpoint


def write_plan(path: Path, *, seed: int = 0, names: tuple[str, ...] = NAMES) -> Path:
    """A network of a few thousand weights for images of 32 pixels, whose answers depend on ``seed``."""
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
    """A network for images of 32 pixels, whose answers change where its maps do."""
    torch.manual_seed(3)
    arguments |= {"num_classes": len(NAMES)}
    model = enliven(ghostnets.create_model(architecture, **arguments))
    with torch.no_grad():
        for parameter in list(model.parameters())[-2:]:  # of the classifier: small changes of the maps shall be seen
            parameter *= 30
    save_checkpoint(path, Checkpoint(architecture, arguments, model.state_dict(), NAMES, PREPROCESSING))
    return path


def encoded(colour: int = 0, kind: str = "JPEG", size: tuple[int, int] = (48, 40)) -> bytes:
    """The bytes of an image file with some pattern."""
    pixels = np.random.default_rng(colour).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


class Process:
    """``ghostnets serve`` in a process of its own."""

    def __init__(self, plan: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "ghostnets", "serve", str(plan), "--port=0", "--threads=1", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.events: list[dict[str, Any]] = []
        self.seen = 0
        self.reader = threading.Thread(target=self._read)  # a log that nobody reads would stop the service
        self.reader.start()
        self.port = int(self.wait_for("listening")["port"])

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as log:
            for line in log:
                self.events.append(json.loads(line))

    def wait_for(self, event: str) -> dict[str, Any]:
        """The next event of this name in the log."""
        while True:
            wait_until(lambda: len(self.events) > self.seen or not self.reader.is_alive())
            assert len(self.events) > self.seen, f"no {event!r} in {self.events}"
            found = self.events[self.seen]
            self.seen += 1
            if found["event"] == event:
                return found

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)

    def socket(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def sockets(self) -> int:
        """Sockets that the process has open."""
        links = Path(f"/proc/{self.process.pid}/fd").iterdir()
        return sum(str(link.readlink()).startswith("socket:") for link in links)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "image/jpeg") -> tuple[int, Any]:
        """Status and JSON of one request on a connection of its own."""
        connection = self.connect()
        connection.request(method, path, body, {"Content-Type": kind} if body is not None else {})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, json.loads(content) if content.startswith(b"{") else content

    def __enter__(self) -> "Process":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> int:
        """SIGTERM where it still runs, and the exit code."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """The exit code, when it has come to its end."""
        self.reader.join(20)
        return self.process.wait(20)


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)
