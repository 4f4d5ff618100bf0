"""What the service costs beside the network that it serves, on real JPEGs over loopback.

    python benchmarks/serve.py net.engine IMAGES

In one run, on the same files, with the same number of threads:

1. network     the artefact's own throughput: its copies, one thread each, on pixels that are ready, in batches of
               --max-batch. Nothing is decoded.
2. + decoding  the same threads decode, resize and cut each file before it goes into a batch. No HTTP, no queue.
3. service     ``ghostnets serve`` in a process of its own, asked by --clients connections, each of which sends the next
               image as soon as it has its answer. The clients are one process on the same cores, so their time is part
               of what is measured; it is printed.

1 and 2 are measured before and after 3. Then the service is overloaded (a queue of 16 images) and left in peace again,
and at last ended by SIGTERM under load and started anew: a request that was sent to it and has no answer is lost.
"""

import asyncio
import json
import resource
import statistics
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from service_client import Load, Served

from ghostnets.artefacts import open_artefact
from ghostnets.data import Preprocessing
from ghostnets.measure import processor_name


@dataclass(frozen=True)
class Options:
    """See the top of the file."""

    artefact: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[Path]
    """A folder of JPEGs."""
    seconds: float = 60
    """Of the load."""
    clients: int = 64
    threads: int = 2
    """Networks that run side by side, and decoding threads."""
    max_batch: int = 8
    max_wait: float = 0.002
    json: Path | None = None
    """Write the figures here."""


@dataclass
class Figures:
    """Images a second before and after, and what the service did."""

    processor: str = ""
    runtime: str = ""
    network: list[float] = field(default_factory=list)
    with_decoding: list[float] = field(default_factory=list)
    service: dict = field(default_factory=dict)
    overload: dict = field(default_factory=dict)
    restart: dict = field(default_factory=dict)


def main() -> None:
    options = tyro.cli(Options)
    files = [path.read_bytes() for path in sorted(options.images.rglob("*.jp*g"))]
    figures = Figures(processor=processor_name())
    copies = [open_artefact(options.artefact, threads=1) for _ in range(options.threads)]
    figures.runtime = copies[0].runtime
    print(f"{len(files)} JPEGs, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average; {figures.runtime}")

    measure_own(figures, copies, files, options.max_batch)
    arguments = [f"--threads={options.threads}", f"--max-batch={options.max_batch}", f"--max-wait={options.max_wait}"]
    with Served(options.artefact, *arguments) as served:
        figures.service = asyncio.run(steady(served, files, options))
    measure_own(figures, copies, files, options.max_batch)
    with Served(options.artefact, *arguments, "--max-queue=16", "--max-images=16") as served:
        figures.overload = asyncio.run(overload(served, files, options))
    figures.restart = asyncio.run(restart(options, arguments, files))

    own, decoded = statistics.mean(figures.network), statistics.mean(figures.with_decoding)
    print(f"\nnetwork alone          {own:7.1f} images/s   {figures.network}")
    print(f"decoding and network   {decoded:7.1f} images/s   {figures.with_decoding}")
    rate = figures.service["images_per_second"]
    print(f"service                {rate:7.1f} images/s   {rate / own:.0%} of the first, {rate / decoded:.0%} of the second")
    for name in ("service", "overload", "restart"):
        print(f"{name}: {json.dumps(getattr(figures, name))}")
    if options.json:
        options.json.write_text(json.dumps(figures.__dict__, indent=2))


def measure_own(figures: Figures, copies: list, files: list[bytes], max_batch: int, seconds: float = 5) -> None:
    """One figure more in ``network`` and ``with_decoding``."""
    preprocessing = Preprocessing.from_dict(copies[0].description.preprocessing)
    ready = np.stack([preprocessing.pixels(_stream(file)) for file in files[:64]])

    def network(artefact, index: int) -> int:
        start = index % (len(ready) - max_batch)
        return len(artefact.probabilities(ready[start : start + max_batch]))

    def decoding(artefact, index: int) -> int:
        chosen = [files[(index * max_batch + i) % len(files)] for i in range(max_batch)]
        return len(artefact.probabilities(np.stack([preprocessing.pixels(_stream(file)) for file in chosen])))

    figures.network.append(round(in_threads(copies, network, seconds), 1))
    figures.with_decoding.append(round(in_threads(copies, decoding, seconds), 1))


def in_threads(copies: list, work, seconds: float) -> float:
    """Images a second of ``work(artefact, index)``, one thread for each artefact."""
    done, end = [0] * len(copies), time.perf_counter() + seconds

    def run(number: int) -> None:
        index = number * 1000
        while time.perf_counter() < end:
            done[number] += work(copies[number], index)
            index += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(copies))]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(done) / (time.perf_counter() - start)


async def steady(served: Served, files: list[bytes], options: Options) -> dict:
    """Load for the whole time, after a second of warming up."""
    load = Load(served.port, files)
    await load.run(options.clients, 1.5)
    load.reset()
    before, cpu, own = time.perf_counter(), served.cpu_seconds(), _cpu_seconds()
    await load.run(options.clients, options.seconds)
    took = time.perf_counter() - before
    p50, p99 = (round(1000 * q, 1) for q in np.quantile(load.latencies, (0.5, 0.99)))
    return {
        "images_per_second": round(load.statuses[200] / took, 1),
        "p50_ms": p50,
        "p99_ms": p99,
        "max_ms": round(1000 * max(load.latencies), 1),
        "statuses": dict(load.statuses),
        "lost": load.lost,
        "seconds": round(took, 1),
        "service_cores": round((served.cpu_seconds() - cpu) / took, 2),
        "client_cores": round((_cpu_seconds() - own) / took, 2),
        "service_peak_mb": served.peak_mb(),
    }


async def overload(served: Served, files: list[bytes], options: Options) -> dict:
    """More clients than places, then fewer."""
    load = Load(served.port, files)
    await load.run(options.clients, 5)
    during, load.statuses = dict(load.statuses), Counter()
    load.latencies.clear()
    await load.run(8, 3)
    return {"during": during, "after": dict(load.statuses), "after_p50_ms": 1000 * statistics.median(load.latencies)}


async def restart(options: Options, arguments: list[str], files: list[bytes]) -> dict:
    """SIGTERM under load; a new process on the same port; the clients come again where nobody listens."""
    first = Served(options.artefact, *arguments)
    first.start()
    load = Load(first.port, files)
    clients = asyncio.create_task(load.run(options.clients, 12))
    await asyncio.sleep(3)
    answered_before = load.statuses[200]
    start = time.perf_counter()
    code = await asyncio.to_thread(first.stop)
    took = time.perf_counter() - start
    second = Served(options.artefact, *arguments, port=first.port)
    await asyncio.to_thread(second.start)
    await clients
    second.stop()
    return {
        "exit_code": code,
        "seconds_to_exit": round(took, 2),
        "answered_before_sigterm": answered_before,
        "statuses": dict(load.statuses),
        "lost": load.lost,
        "refused_connections": load.refused,
    }


def _stream(content: bytes):
    import io

    return io.BytesIO(content)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
