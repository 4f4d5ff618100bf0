"""What the service costs beside the network that it serves, on real JPEGs over loopback.

    python benchmarks/serve.py net.engine IMAGES

In one run, on the same files, with the same number of threads:

1. network     the artefact's own throughput: its copies, one thread each, on pixels that are ready, in batches of
               --max-batch. Nothing is decoded.
2. + decoding  the same threads decode, resize and cut each file before it goes into a batch. No HTTP, no queue.
3. service     ``ghostnets serve`` in a process of its own, asked by --clients connections, each of which sends the next
               image as soon as it has its answer. The clients are one process on the same cores, so their time is part
               of what is measured; it is printed.

The three take turns, in --rounds; what counts is the median of the rounds' ratios. Then the service is overloaded (a
queue of 16 images) and left in peace again,
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

from ghostnets.artefacts import load_classifier
from ghostnets.measure import processor_name


@dataclass(frozen=True)
class Options:
    """See the top of the file."""

    artefact: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[Path]
    """A folder of JPEGs."""
    seconds: float = 60
    """Of the load, in all rounds together."""
    rounds: int = 6
    clients: int = 64
    threads: int = 2
    """Networks that run side by side, and decoding threads."""
    max_batch: int = 8
    max_wait: float = 0.002
    json: Path | None = None
    """Write the figures here."""


@dataclass
class Figures:
    """What was measured; lists have an entry for each round."""

    processor: str = ""
    runtime: str = ""
    network: list[dict] = field(default_factory=list)
    with_decoding: list[dict] = field(default_factory=list)
    service: list[dict] = field(default_factory=list)
    overload: dict = field(default_factory=dict)
    restart: dict = field(default_factory=dict)


def main() -> None:
    options = tyro.cli(Options)
    files = [path.read_bytes() for path in sorted(options.images.rglob("*.jp*g"))]
    figures = Figures(processor=processor_name())
    first = load_classifier(options.artefact, threads=1)
    copies = [first, *(first.copy() for _ in range(options.threads - 1))]
    figures.runtime = first.model.runtime
    print(f"{len(files)} JPEGs, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average; {figures.runtime}")

    arguments = [f"--threads={options.threads}", f"--max-batch={options.max_batch}", f"--max-wait={options.max_wait}"]
    with Served(options.artefact, *arguments) as served:
        load = Load(served.port, files)
        asyncio.run(load.run(options.clients, 1.5))
        latencies: list[float] = []
        for _ in range(options.rounds):
            measure_own(figures, copies, files, options.max_batch)
            figures.service.append(asyncio.run(steady(served, load, options)))
            latencies += load.latencies
        peak = served.peak_mb()
    with Served(options.artefact, *arguments, "--max-queue=16", "--max-images=16") as served:
        figures.overload = asyncio.run(overload(served, files, options))
    figures.restart = asyncio.run(restart(options, arguments, files))

    for name in ("network", "with_decoding", "service"):
        rows = getattr(figures, name)
        rates, costs = ([row[key] for row in rows] for key in ("images_per_second", "cpu_ms_per_image"))
        print(
            f"{name:<14} images/s: median {statistics.median(rates):.1f} of {rates}; CPU ms: {statistics.median(costs)}"
        )
    for name in ("network", "with_decoding"):
        ratios = [
            mine["images_per_second"] / own["images_per_second"]
            for mine, own in zip(figures.service, getattr(figures, name), strict=True)
        ]
        print(f"service / {name}: median {statistics.median(ratios):.0%}, {min(ratios):.0%} to {max(ratios):.0%}")
    p50, p99 = (1000 * q for q in np.quantile(latencies, (0.5, 0.99)))
    print(f"latency of {len(latencies)} answers: p50 {p50:.1f} ms, p99 {p99:.1f} ms, {p99 / p50:.2f} times; {peak} MB")
    print(f"rounds: {json.dumps(figures.service)}")
    for name in ("overload", "restart"):
        print(f"{name}: {json.dumps(getattr(figures, name))}")
    if options.json:
        options.json.write_text(json.dumps(figures.__dict__, indent=2))


def measure_own(figures: Figures, copies: list, files: list[bytes], max_batch: int, seconds: float = 2) -> None:
    """One figure more in ``network`` and ``with_decoding``."""
    preprocessing = copies[0].model.description.preprocessing
    ready = np.stack([preprocessing.pixels(file) for file in files[:64]])

    def network(classifier, index: int) -> int:
        start = index % (len(ready) - max_batch)
        return len(classifier.run(ready[start : start + max_batch]).scores)

    def decoding(classifier, index: int) -> int:
        chosen = [files[(index * max_batch + i) % len(files)] for i in range(max_batch)]
        return len(classifier.run(np.stack([preprocessing.pixels(file) for file in chosen])).scores)

    figures.network.append(in_threads(copies, network, seconds))
    figures.with_decoding.append(in_threads(copies, decoding, seconds))


def in_threads(copies: list, work, seconds: float) -> dict:
    """What ``work(classifier, index)`` does and costs, one thread per classifier."""
    done, end = [0] * len(copies), time.perf_counter() + seconds

    def run(number: int) -> None:
        index = number * 1000
        while time.perf_counter() < end:
            done[number] += work(copies[number], index)
            index += 1

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(copies))]
    start, cpu = time.perf_counter(), _cpu_seconds()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate, cpu = sum(done) / (time.perf_counter() - start), _cpu_seconds() - cpu
    return {"images_per_second": round(rate, 1), "cpu_ms_per_image": round(1000 * cpu / sum(done), 3)}


async def steady(served: Served, load: Load, options: Options) -> dict:
    """Load for a round."""
    load.reset()
    start, cpu, own = time.perf_counter(), served.cpu_seconds(), _cpu_seconds()
    await load.run(options.clients, options.seconds / options.rounds)
    took, cpu, own = time.perf_counter() - start, served.cpu_seconds() - cpu, _cpu_seconds() - own
    p50, p99 = (round(1000 * q, 1) for q in np.quantile(load.latencies, (0.5, 0.99)))
    return {
        "images_per_second": round(load.statuses[200] / took, 1),
        "cpu_ms_per_image": round(1000 * cpu / load.statuses[200], 3),
        "cores": round(cpu / took, 2),
        "client_cores": round(own / took, 2),
        "p50_ms": p50,
        "p99_ms": p99,
        "statuses": dict(load.statuses),
        "lost": load.lost,
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


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
