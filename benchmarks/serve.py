"""Throughput of the service relative to the network that it serves, on JPEGs over loopback.

    python benchmarks/serve.py net.engine IMAGES

One run measures, on the same files and with the same number of threads:

1. network     copies of the artefact, one thread each, on decoded pixels in batches of --max-batch.
2. + decoding  the same threads also decode, resize and crop each file. No HTTP, no queue.
3. service     ``ghostnets serve`` in its own process with --clients connections, each of which sends its next image
               when it has received the previous response. The clients are one process on the same cores; their CPU
               time is reported.

The three alternate for --rounds; the result is the median of the ratios. Afterwards the service is overloaded (a queue
of 16 images), measured under light load, and finally stopped by SIGTERM under load and restarted: a request that was
sent and got no response counts as lost.
"""

import asyncio
import json
import resource
import statistics
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import tyro
from service_client import LoadGenerator, ServiceProcess

from ghostnets.artefacts import load_classifier
from ghostnets.measure import processor_name


@dataclass(frozen=True)
class Options:
    """Measure the service; see the module docstring."""

    artefact: tyro.conf.Positional[Path]
    images: tyro.conf.Positional[Path]
    """Folder of JPEGs."""
    seconds: float = 60
    """Duration of the load, all rounds together."""
    rounds: int = 6
    clients: int = 64
    threads: int = 2
    """Number of copies of the network, one thread each."""
    max_batch: int = 8
    max_wait: float = 0.002
    json: Path | None = None
    """Write the results to this file."""


@dataclass
class Results:
    """Measurements; lists have one entry per round."""

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
    first = load_classifier(options.artefact, threads=1)
    copies = [first, *(first.copy() for _ in range(options.threads - 1))]
    results = Results(processor=processor_name(), runtime=first.model.runtime)
    print(f"{len(files)} JPEGs, {sum(map(len, files)) / len(files) / 1000:.0f} kB on average; {results.runtime}")

    arguments = [f"--threads={options.threads}", f"--max-batch={options.max_batch}", f"--max-wait={options.max_wait}"]
    with ServiceProcess(options.artefact, *arguments) as service:
        load = LoadGenerator(service.port, files)
        asyncio.run(load.run(options.clients, 1.5))  # warm-up
        latencies: list[float] = []
        for _ in range(options.rounds):
            measure_network(results, copies, files, options.max_batch)
            results.service.append(asyncio.run(measure_service(service, load, options)))
            latencies += load.latencies
        peak = service.peak_mb()
    with ServiceProcess(options.artefact, *arguments, "--max-queue=16", "--max-images=16") as service:
        results.overload = asyncio.run(measure_overload(service, files, options))
    results.restart = asyncio.run(measure_restart(options, arguments, files))
    print_results(results, latencies, peak)
    if options.json:
        options.json.write_text(json.dumps(asdict(results), indent=2))


def print_results(results: Results, latencies: list[float], peak_mb: int) -> None:
    for name in ("network", "with_decoding", "service"):
        rows = getattr(results, name)
        rates, costs = ([row[key] for row in rows] for key in ("images_per_second", "cpu_ms_per_image"))
        print(
            f"{name:<14} images/s: median {statistics.median(rates):.1f} of {rates}; CPU ms: {statistics.median(costs)}"
        )
    for name in ("network", "with_decoding"):
        ratios = [
            service["images_per_second"] / baseline["images_per_second"]
            for service, baseline in zip(results.service, getattr(results, name), strict=True)
        ]
        print(f"service / {name}: median {statistics.median(ratios):.0%}, {min(ratios):.0%} to {max(ratios):.0%}")
    p50, p99 = (1000 * q for q in np.quantile(latencies, (0.5, 0.99)))
    print(f"latency of {len(latencies)} responses: p50 {p50:.1f} ms, p99 {p99:.1f} ms, ratio {p99 / p50:.2f}")
    print(f"peak memory: {peak_mb} MB")
    print(f"rounds: {json.dumps(results.service)}")
    for name in ("overload", "restart"):
        print(f"{name}: {json.dumps(getattr(results, name))}")


def measure_network(results: Results, copies: list, files: list[bytes], max_batch: int, seconds: float = 2) -> None:
    """Append a round to ``network`` and ``with_decoding``."""
    preprocessing = copies[0].model.description.preprocessing
    decoded = np.stack([preprocessing.pixels(file) for file in files[:64]])

    def run_network(classifier, index: int) -> int:
        start = index % (len(decoded) - max_batch)
        return len(classifier.run(decoded[start : start + max_batch]).scores)

    def decode_and_run(classifier, index: int) -> int:
        batch = [files[(index * max_batch + i) % len(files)] for i in range(max_batch)]
        return len(classifier.run(np.stack([preprocessing.pixels(file) for file in batch])).scores)

    results.network.append(measure_threads(copies, run_network, seconds))
    results.with_decoding.append(measure_threads(copies, decode_and_run, seconds))


def measure_threads(copies: list, work, seconds: float) -> dict:
    """Measure throughput and CPU time of ``work(classifier, index) -> images`` in one thread per classifier."""
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


async def measure_service(service: ServiceProcess, load: LoadGenerator, options: Options) -> dict:
    """Measure one round of steady load."""
    load.reset()
    start, cpu, client_cpu = time.perf_counter(), service.cpu_seconds(), _cpu_seconds()
    await load.run(options.clients, options.seconds / options.rounds)
    seconds = time.perf_counter() - start
    cpu, client_cpu = service.cpu_seconds() - cpu, _cpu_seconds() - client_cpu
    p50, p99 = (round(1000 * q, 1) for q in np.quantile(load.latencies, (0.5, 0.99)))
    return {
        "images_per_second": round(load.statuses[200] / seconds, 1),
        "cpu_ms_per_image": round(1000 * cpu / load.statuses[200], 3),
        "cores": round(cpu / seconds, 2),
        "client_cores": round(client_cpu / seconds, 2),
        "p50_ms": p50,
        "p99_ms": p99,
        "statuses": dict(load.statuses),
        "lost": load.lost,
    }


async def measure_overload(service: ServiceProcess, files: list[bytes], options: Options) -> dict:
    """Count responses by status with more clients than the queue holds, then with fewer."""
    load = LoadGenerator(service.port, files)
    await load.run(options.clients, 5)
    during, load.statuses = dict(load.statuses), Counter()
    load.latencies.clear()
    await load.run(8, 3)
    return {"during": during, "after": dict(load.statuses), "after_p50_ms": 1000 * statistics.median(load.latencies)}


async def measure_restart(options: Options, arguments: list[str], files: list[bytes]) -> dict:
    """Send SIGTERM under load and start a new process on the same port; clients retry refused connections."""
    first = ServiceProcess(options.artefact, *arguments)
    first.start()
    load = LoadGenerator(first.port, files)
    clients = asyncio.create_task(load.run(options.clients, 12))
    await asyncio.sleep(3)
    answered_before = load.statuses[200]
    start = time.perf_counter()
    code = await asyncio.to_thread(first.stop)
    seconds = time.perf_counter() - start
    second = ServiceProcess(options.artefact, *arguments, port=first.port)
    await asyncio.to_thread(second.start)
    await clients
    second.stop()
    return {
        "exit_code": code,
        "seconds_to_exit": round(seconds, 2),
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
