"""Load and run mutated files of compiled networks; each must run or be rejected with a one-sentence error.

Saved plans of every family and precision are changed by structure: numbers and names of the description, layouts, nodes
and weights, and the bytes of the file. Each is loaded and run in a forked worker. A finding is a signal, an exception
other than EngineError and ConfigurationError, more than --seconds for one file, or --megabytes more of memory.

    python scripts/fuzz_engine.py --count 100000
    python scripts/fuzz_engine.py --count 10000 --sanitize
    python scripts/fuzz_engine.py --first 1234 --count 1      (one file again)
"""

import argparse
import json
import mmap
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from narrow_networks import NARROW_NETWORKS
from safetensors.numpy import load, save

from ghostnets import engine
from ghostnets.errors import ConfigurationError, EngineError

KEY = "ghostnets.engine"
NUMBERS = [0, -1, 1, 2, 3, 5, 7, 8, 64, 1023, 2**15, 2**20, 2**31 - 1, 2**31, -(2**31), 2**63, 10**400, 1.5, 1e308]
VALUES = [*NUMBERS, float("nan"), float("inf"), True, None, "x", "", [], {}, [[]], "relu", "sigmoid", "linear", "pool"]
FLOATS = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e-45, 0.0, 1e18, 1e17]

Description = dict[str, Any]
Tensors = dict[str, np.ndarray]


def plans(names: Iterable[str] = NARROW_NETWORKS) -> list[bytes]:
    """Saved files of narrow networks, in every precision."""
    files = []
    images = np.random.default_rng(0).standard_normal((2, 3, 32, 32), dtype=np.float32)
    for name in names:
        model = NARROW_NETWORKS[name]().eval()
        for precision in ("f32", "bf16", "int8"):
            options: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.2,) * 3}
            if precision == "int8":
                options["calibration"] = [images]
                options["float_layers"] = ["grouped"] if name == "every operation" else []  # adds convert nodes
            session = engine.compile(model, precision=precision, threads=1, **options)
            with tempfile.TemporaryDirectory() as folder:
                session.save(Path(folder) / "plan")
                files.append((Path(folder) / "plan").read_bytes())
    return files


def parts(content: bytes) -> tuple[Description, Tensors]:
    """Return the description and tensors of a file; the tensors are those of earlier calls, and not to be changed."""
    text, tensors = _parsed(content)
    return json.loads(text), dict(tensors)


@lru_cache(maxsize=64)
def _parsed(content: bytes) -> tuple[str, Tensors]:
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length])["__metadata__"][KEY], load(content)


def mutate(content: bytes, seed: int) -> bytes:
    """Return a changed file; the same one for the same seed."""
    draw = random.Random(seed)
    if draw.random() < 0.05:
        return _changed_bytes(content, draw)
    description, tensors = parts(content)
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        change = draw.choice([_change_value, _change_value, _change_value, _change_list, _change_tensor, _rewire])
        change(description, tensors, draw)
    text = json.dumps(description)
    if draw.random() < 0.005:
        text = text.replace('"nodes": [', '"nodes": [' + "[" * 100_000 + "]" * 100_000 + ", ")
    return save({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, metadata={KEY: text})


def _changed_bytes(content: bytes, draw: random.Random) -> bytes:
    changed = bytearray(content)
    if draw.random() < 0.3:
        return bytes(changed[: draw.randrange(len(changed))])
    end = len(changed) if draw.random() < 0.5 else min(len(changed), 20_000)
    for _ in range(draw.choice([1, 3, 20])):
        changed[draw.randrange(end)] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """All (container, key) of a JSON value."""
    keys: Any = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    return [place for key in keys for place in [(value, key), *_places(value[key])]]


def _change_value(description: Description, tensors: Tensors, draw: random.Random) -> None:
    inside = _places(description.get(draw.choice(["nodes", "nodes", "layouts", *description])))
    container, key = draw.choice(inside or [(description, draw.choice(list(description)))])
    old = container[key]
    if isinstance(container, dict) and draw.random() < 0.1:
        del container[key]
    elif isinstance(old, int) and draw.random() < 0.6:
        container[key] = draw.choice([old + 1, old - 1, old * 2, draw.choice(NUMBERS), draw.randrange(70)])
    elif isinstance(old, str) and old in tensors and draw.random() < 0.7:
        container[key] = draw.choice(list(tensors))
    else:
        container[key] = deepcopy(draw.choice(VALUES))


def _change_list(description: Description, tensors: Tensors, draw: random.Random) -> None:
    """Remove, duplicate, move or exchange entries of a list."""
    lists = [
        description.get(name) for name in ("nodes", "nodes", "layouts", "outputs", "ranges", "floats", "mean", "std")
    ]
    chosen = draw.choice([entries for entries in lists if isinstance(entries, list) and entries] or [[0]])
    i, j = draw.randrange(len(chosen)), draw.randrange(len(chosen))
    action = draw.randrange(5)
    if action == 0:
        del chosen[i]
    elif action == 1:
        chosen.insert(j, json.loads(json.dumps(chosen[i])))
    elif action == 2:
        chosen[i], chosen[j] = chosen[j], chosen[i]
    elif action == 3:
        chosen *= draw.choice([2, 40])
    else:
        del chosen[i:]


def _change_tensor(description: Description, tensors: Tensors, draw: random.Random) -> None:
    name = draw.choice(list(tensors))
    tensor = tensors[name]
    action = draw.randrange(7)
    if action == 0 and tensor.size:
        changed = tensor.copy()
        changed.reshape(-1)[draw.randrange(tensor.size)] = draw.choice(FLOATS)
    elif action == 1:
        changed = np.full_like(tensor, draw.choice(FLOATS))
    elif action == 2:
        changed = tensor.transpose(draw.sample(range(tensor.ndim), tensor.ndim))
    elif action == 3:
        shape = list(tensor.shape) or [1]
        shape[draw.randrange(len(shape))] = draw.choice([0, 1, 2, 3, 4, 8, 9, 33, 65])
        changed = np.resize(tensor, shape)
    elif action == 4:
        changed = tensor.reshape(-1) if draw.random() < 0.5 else tensor[None]
    elif action == 5:
        changed = tensor.astype(draw.choice(["float64", "int8", "float16", "int64", "bool"]))
    else:
        changed = tensors[draw.choice(list(tensors))]
    tensors[name] = changed


def _rewire(description: Description, tensors: Tensors, draw: random.Random) -> None:
    """Change several nodes so that they still fit roughly: kind, map, stride, dilation, activation, precision."""
    lists = [entries if isinstance(entries := description.get(name), list) else [] for name in ("nodes", "layouts")]
    nodes, maps = [node for node in lists[0] if isinstance(node, dict)], max(1, len(lists[1]))
    if not nodes:
        return
    for _ in range(draw.choice([1, 2, 5])):
        node = draw.choice(nodes)
        changes: list[tuple[str, Any]] = [
            ("input", draw.randrange(maps)),
            ("residual", draw.randrange(maps)),
            ("gate", draw.randrange(maps)),
            ("stride", draw.choice([1, 2, 3, 64])),
            ("dilation_h", draw.choice([1, 2, 7, 64])),
            ("dilation_w", draw.choice([1, 2, 7, 64])),
            ("primary_dilation", draw.choice([1, 2, 7, 64])),
            ("kernel", draw.choice([1, 2, 3, 15])),
            ("pad", draw.choice([0, 1, 14])),
            ("pad_end", draw.choice([0, 1, 14, 60])),
            ("pooled", [draw.randrange(maps) for _ in range(draw.choice([1, 2, 9]))]),
            ("activation", draw.choice(["none", "relu", "sigmoid", "clamp", "leaky_relu", "hard_swish", "silu"])),
            ("like", draw.randrange(maps)),
            ("factor", draw.choice([0, 1, 3, 64])),
            ("out_h", draw.choice([0, 1, 9, 999])),
            ("out_w", draw.choice([0, 1, 9, 999])),
            ("pads", [draw.choice([0, 1, 5, 999]) for _ in range(4)]),
            ("sources", [draw.randrange(-1, 20) for _ in range(draw.choice([1, 8, 12]))]),
            ("slope", draw.choice([0.0, 1e-9, 0.5, 1.0])),
            ("is_bilinear", draw.choice([0, 1])),
            ("counts_padding", draw.choice([0, 1])),
            ("kind", draw.choice(["average", "max_pool", "add", "pool", "conv", "ghost", "linear", "output"])),
            ("kind", draw.choice(["multiply", "scale", "arrange", "average_pool", "adaptive_pool", "resize"])),
        ]
        key, value = draw.choice(changes)
        node[key] = value
    if draw.random() < 0.1:
        description["precision"] = draw.choice(["f32", "bf16", "int8"])


def outcome(content: bytes, path: Path, seed: int) -> str:
    """Load and run a file: ``"runs"``, or the name of the error's class. Other exceptions pass."""
    path.write_bytes(content)
    pixels = np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, 33, 20 + seed % 9, 3), dtype=np.uint8)
    try:
        session = engine.load(path, threads=1 + seed % 2)
        session(pixels)
        session(np.zeros((1, 3, 1 + seed % 4, 5), np.float32))
    except (EngineError, ConfigurationError) as error:
        message = str(error)
        if not message or len(message) > 1000:
            raise AssertionError(f"a message of {len(message)} characters") from error
        return f"{type(error).__name__}, {'loading' if 'session' not in locals() else 'running'}"
    return "runs"


def work(files: list[bytes], seeds: range, shared: mmap.mmap, megabytes: int, path: Path) -> None:
    """Body of a worker: tries the seeds, and says in shared memory which one it is at."""
    counts: Counter[str] = Counter()
    for seed in seeds:
        shared[:8] = struct.pack("<q", seed)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            counts[outcome(mutate(files[seed % len(files)], seed), path, seed)] += 1
        except BaseException as error:  # reported as a finding
            print(f"seed {seed}: {type(error).__name__}: {str(error)[:200]}", flush=True)
            counts["FINDING"] += 1
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
        if grown > megabytes:
            print(f"seed {seed}: {grown} MB of memory", flush=True)
            counts["FINDING"] += 1
        text = json.dumps(counts).encode()
        shared[8 : 12 + len(text)] = struct.pack("<i", len(text)) + text


def fuzz(files: list[bytes], seeds: range, *, seconds: float, megabytes: int) -> Counter[str]:
    """Try all seeds in forked workers, one after the other; a new one after each that died or took too long."""
    totals: Counter[str] = Counter()
    in_memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=in_memory) as folder:
        while seeds:
            shared = mmap.mmap(-1, 1 << 16)
            shared[:8] = struct.pack("<q", seeds[0])
            child = os.fork()
            if not child:
                try:
                    work(files, seeds, shared, megabytes, Path(folder) / "plan")
                finally:
                    os._exit(0)
            status, reached = _wait(child, shared, seconds)
            (length,) = struct.unpack("<i", shared[8:12])
            totals.update(json.loads(shared[12 : 12 + length] or b"{}"))
            if status == 0:
                break
            print(f"seed {reached}: ended with signal or status {status}", flush=True)
            totals["FINDING"] += 1
            seeds = range(reached + 1, seeds.stop)
    return totals


def _wait(child: int, shared: mmap.mmap, seconds: float) -> tuple[int, int]:
    """Wait for a worker; kill it if it stays at one seed for too long. Returns its status, and the seed it was at."""
    last, since = -1, time.monotonic()
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        (seed,) = struct.unpack("<q", shared[:8])
        if ended:
            return status, seed
        if seed != last:
            last, since = seed, time.monotonic()
        elif time.monotonic() - since > seconds:
            print(f"seed {seed}: longer than {seconds:g} s", flush=True)
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1000, help="mutated files")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seconds", type=float, default=20, help="longest time for one file")
    parser.add_argument("--megabytes", type=int, default=700, help="most memory that one file may add")
    parser.add_argument("--sanitize", action="store_true", help="with the address and undefined-behaviour sanitizers")
    options = parser.parse_args()
    if options.sanitize:
        from sanitized_module import run_sanitized

        run_sanitized()
    seeds = range(options.first, options.first + options.count)
    totals = fuzz(plans(), seeds, seconds=options.seconds, megabytes=options.megabytes)
    print(f"{options.count} files:", ", ".join(f"{name} {count}" for name, count in sorted(totals.items())))
    return 1 if totals["FINDING"] else 0


if __name__ == "__main__":
    sys.exit(main())
