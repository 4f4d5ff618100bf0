"""A session inside somebody's program: forks, failed allocations, outliers, arguments."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostnets import engine
from ghostnets.engine import Session
from ghostnets.errors import ConfigurationError
from ghostnets.models import create_model

STATISTICS = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
RANDOM = np.random.default_rng(0)


def pixels(side: int, count: int = 1) -> np.ndarray:
    return RANDOM.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def session() -> Session:
    return engine.compile(create_model("ghostnet_050", width=0.1, num_classes=3), threads=2, **STATISTICS)


def ends_well(child: int) -> bool:
    """Whether a forked child ends with status 0 within 20 seconds."""
    end = time.monotonic() + 20
    while time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status == 0
        time.sleep(0.01)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("is_busy", [False, True])
def test_session_runs_in_a_forked_child(session: Session, is_busy: bool):
    images, large = pixels(32), pixels(160, 8)
    expected = session(images)
    stops = threading.Event()

    def keep_busy() -> None:
        while not stops.is_set():
            session(large)

    other = threading.Thread(target=keep_busy)
    if is_busy:
        other.start()
        time.sleep(0.05)
    try:
        for _ in range(3):
            child = os.fork()
            if not child:
                status = 1
                try:
                    equal = np.array_equal(session(images), expected) and np.array_equal(session(images), expected)
                    status = 0 if equal and np.array_equal(session.copy(threads=1)(images), expected) else 2
                finally:
                    os._exit(status)
            assert ends_well(child)
    finally:
        stops.set()
        if is_busy:
            other.join()
    assert np.array_equal(session(images), expected)


def test_session_is_correct_after_failed_allocations(session: Session, tmp_path: Path):
    session.save(tmp_path / "net.engine")
    code = (
        "import resource, numpy as np; from ghostnets import engine; from ghostnets.errors import EngineError\n"
        "sizes = (32, 64, 200, 600)\n"
        "images = [np.full((1, side, side, 3), 77, np.uint8) for side in sizes]\n"
        "expected = [engine.load('net.engine', threads=2)(x) for x in images]\n"
        "large = np.zeros((1, 3000, 3000, 3), np.uint8); failed = 0\n"
        "for megabytes in (1, 5, 10, 20, 40, 60, 80, 100):\n"
        "    session = engine.load('net.engine', threads=2); session(images[0])\n"
        "    used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (used + megabytes * 10**6, -1))\n"
        "    try: session(large)\n"
        "    except EngineError as error: assert 'not enough memory' in str(error); failed += 1\n"
        "    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))\n"
        "    assert all(np.array_equal(session(x), y) for x, y in zip(images, expected)), megabytes\n"
        "print(failed)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert int(done.stdout) >= 3


def test_memory_of_an_outlier_is_given_back(session: Session):
    alone = session.copy(threads=1)
    expected = alone(images := pixels(64))
    small = alone.memory_bytes
    alone(pixels(2400))
    assert alone.memory_bytes > 64 << 20
    for _ in range(16):
        assert np.array_equal(alone(images), expected)
    assert alone.memory_bytes == small


@pytest.mark.parametrize("images", [None, [[1]], "photo.jpg", 3, memoryview(b"abc")])
def test_images_of_other_types_are_rejected(session: Session, images: object):
    with pytest.raises(ConfigurationError, match=r"the images are a .*; pass an array of NumPy or a tensor"):
        session(images)  # type: ignore[call-overload]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64])
def test_tensors_of_other_types_are_rejected(session: Session, dtype: torch.dtype):
    with pytest.raises(ConfigurationError, match="float32"):
        session(torch.zeros(1, 3, 8, 8, dtype=dtype))


@pytest.mark.parametrize("threads", [2.5, "2", True, 0, 1025, np.array([1, 2])])
def test_threads_must_be_an_integer(session: Session, threads: object):
    with pytest.raises(ConfigurationError, match="it must be an integer from 1 to 1024"):
        session.copy(threads=threads)  # type: ignore[arg-type]


def test_arrays_of_any_strides_equal_contiguous_ones(session: Session):
    images = pixels(40, 4)
    expected = session(images)
    assert np.array_equal(session(np.asfortranarray(images)), expected)
    assert np.array_equal(session(np.repeat(images, 2, 0)[::2]), expected)
    assert np.array_equal(session(images[:, ::-1, ::-1]), session(images[:, ::-1, ::-1].copy()))
    with pytest.raises(ConfigurationError, match=">f4"):
        session(np.zeros((1, 3, 8, 8), ">f4"))
