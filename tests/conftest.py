"""Shared fixtures and helpers: random networks, small learnable image folders, and a browser."""

import csv
import gc
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from torch import nn

from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.main import main
from ghostnets.engine.session import is_built
from ghostnets.models.detection import create_detector
from ghostnets.models.segmentation import create_segmenter
from ghostnets.preprocessing import Preprocessing


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests of the engine without a C++ compiler; with one, a missing engine is a failure."""
    if not is_built() and not any(map(shutil.which, ("c++", "g++", "clang++"))):
        for item in items:
            if "tests/engine/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason="the engine needs a C++ compiler"))


# Tracing a network makes millions of objects, few of them garbage: collecting less often saves a tenth of its time.
gc.set_threshold(10_000, 10, 10)


def pytest_collection_finish() -> None:
    """Exempt everything that is imported from garbage collection."""
    gc.collect()
    gc.freeze()


# For fixtures of modules and for child processes too. Oversubscribed cores are ten times slower, and the number of
# threads changes the last bits of a training run.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _one_seed_and_one_thread(monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # the default of training asks for published weights


@pytest.fixture(params=["avx512", "avx2", "sse2", "neon"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set of the fused training kernels that this processor has."""
    native = import_module("ghostnets.train.fused._training")
    best = native.isa()
    if not native.set_isa(request.param):
        pytest.skip(f"this processor has no {request.param}")
    yield request.param
    native.set_isa(best)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """One thread of torch, and several."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture
def randomize() -> Callable[[nn.Module], nn.Module]:
    """The function ``randomized``."""
    return randomized


def randomized(model: nn.Module) -> nn.Module:
    """Randomize batch-normalisation weights and statistics, without vanishing or exploding activations."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def assert_same(got: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    """Assert equality up to ``tolerance`` times the largest expected value, or 1."""
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance * max(1, expected.abs().max().item()))


def enliven(model: nn.Module) -> nn.Module:
    """Randomize a network and set its statistics from noise, so that deep networks depend on their input."""
    randomized(model)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    in_chans = next(model.parameters()).shape[1]
    with torch.no_grad():
        model.train()(torch.randn(16, in_chans, 64, 64))
    for norm in norms:
        norm.momentum = 0.1
        assert norm.running_var is not None
        norm.running_var.clamp_(min=norm.running_var.mean().item() / 10)  # for channels that are zero everywhere
    return model.eval()


def make_images(folder: Path, *, classes: dict[str, int], size: tuple[int, int] = (16, 16), grey: bool = False) -> Path:
    """Create one folder per class of noise images whose brightness depends on the class."""
    generator = np.random.default_rng(0)
    for index, (name, count) in enumerate(classes.items()):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.normal(60 + 120 * index / max(1, len(classes) - 1), 30, (size[1], size[0], 3))
            image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
            (image.convert("L") if grey else image).save(folder / name / f"{number:03d}.png")
    return folder


def build_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    """Build a folder once for all processes of a test run: files that take long to make and that no test changes."""
    base = factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with FileLock(base / f"{name}.lock"):
        if not folder.exists():
            partial = base / f"{name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            build(partial)
            partial.rename(folder)
    return folder


def python_examples(document: str) -> list[tuple[int, str]]:
    """Return the Python blocks of a document, a path below the repository, each with the number of its line."""
    text = (Path(__file__).parents[1] / document).read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```$", text, flags=re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in blocks]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


class Page(HTMLParser):
    """Parsed HTML: its tags and attributes; parsing fails unless tags are nested correctly."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def requests(self) -> list[str]:
        """Everything that a browser would fetch or run: external URLs, scripts, style-sheet imports."""
        addresses = [
            str(attributes[name])
            for tag, attributes in self.found
            for name in ("src", "href", "xlink:href", "action", "srcset")
            if attributes.get(name) and (tag, name) != ("a", "href")
        ]
        outside = [address for address in addresses if not address.startswith(("data:", "#"))]
        return outside + re.findall(r"<script[^>]+src|@import|url\((?!#)", self.text)


class Browser:
    """Chromium.

    Attributes:
        complaints: Console messages of its pages.
        addresses: URLs that they requested.
    """

    ARGUMENTS = (
        "--disable-background-networking",
        "--use-fake-device-for-media-stream",
        "--use-fake-ui-for-media-stream",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    )

    def __init__(self, chromium: Any) -> None:
        self.chromium = chromium
        self.complaints: list[str] = []
        self.addresses: list[str] = []

    def open(self, address: str, **context: Any) -> Any:
        """Open ``address`` in a new window; arguments as of playwright's ``new_context``."""
        page = self.chromium.new_context(**context).new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.addresses.append(request.url))
        page.goto(address)
        return page


def wait_for(page: Any, expression: str, argument: Any = None, *, seconds: float = 15) -> None:
    """Wait until a JavaScript expression is true; playwright's own wait uses eval, which the page's policy forbids."""
    end = time.monotonic() + seconds
    while not page.evaluate(expression, argument):
        assert time.monotonic() < end, f"{expression} {argument!r}: {page.inner_text('main')}"
        page.wait_for_timeout(30)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Chromium, per module: while it runs, its thread cannot run another event loop."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if path is None:
        pytest.skip("the page is tested in Chromium, which is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=Browser.ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Browser]:
    """Browser whose pages must not write to the console or contact another host."""
    browser = Browser(chromium)
    yield browser
    for context in chromium.contexts:
        context.close()
    assert browser.complaints == []
    assert [url for url in browser.addresses if not url.startswith(("http://127.0.0.1:", "blob:", "data:"))] == []


@contextmanager
def serve_folder(folder: Path) -> Iterator[str]:
    """Serve a folder over HTTP and yield its URL."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of 20 small RGB images, one folder per class."""
    return make_images(tmp_path / "photos", classes={"dark": 20, "light": 20})


# A network of a few thousand weights, for fast training.
TINY = ["--width", "0.1", "--epochs", "2", "--batch-size", "8", "--lr", "0.05"]


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Finished training run on two classes; tests must not modify it."""
    folder = tmp_path_factory.mktemp("session")
    photos = make_images(folder / "photos", classes={"dark": 20, "light": 20})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["train", str(photos), "--name", "tiny", *TINY, "--epochs", "12"]) == 0
    return folder / "runs" / "tiny"


@pytest.fixture(scope="session")
def tiny_detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a detector with random weights, whose scores and distances differ; tests must not modify it."""
    return make_detector(tmp_path_factory.mktemp("detector") / "fish.safetensors")


def make_detector(path: Path, *, fit: str = "stretch") -> Path:
    """Write a detector of two classes for images of 64 x 64."""
    torch.manual_seed(0)
    arguments = {"num_classes": 2, "channels": 16}
    network = randomized(create_detector("ghostdet_050", **arguments))
    for layer in network.head.predict:
        nn.init.normal_(layer.weight, std=1.0)
        nn.init.normal_(layer.bias, std=1.0)
    preprocessing = Preprocessing.for_boxes(64, fit=fit)
    weights = network.state_dict()
    save_checkpoint(path, Checkpoint("ghostdet_050", arguments, weights, ("fish", "shark"), preprocessing))
    return path


@pytest.fixture(scope="session")
def tiny_segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoint of a segmentation network with random weights, whose classes differ within an image; as above."""
    return make_segmenter(tmp_path_factory.mktemp("segmenter") / "fields.safetensors")


def make_segmenter(path: Path, **arguments: Any) -> Path:
    """Write a segmentation network of three classes for images of 48 x 48."""
    torch.manual_seed(0)
    arguments = {"num_classes": 3, "channels": 16, **arguments}
    network = create_segmenter("ghostseg_050", **arguments)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.startswith("head.") and parameter.ndim == 4:
                parameter.mul_(8)
    preprocessing = Preprocessing(48, 48, fit="stretch")
    names = ("land", "water", "road")
    save_checkpoint(path, Checkpoint("ghostseg_050", arguments, network.state_dict(), names, preprocessing))
    return path
