"""Requests that nobody should send: is the service still there, did it ever say 5xx, does its memory grow?

    python benchmarks/hostile_requests.py net.engine --count 10000

Every request is drawn from a seed: damaged, cut and huge files of all kinds, wrong types, broken forms, JSON and HTTP,
huge heads, bodies that stop or drip, connections that say nothing, answers that nobody reads. Now and then a right one
among them must get its right answer. tests/serve/test_hostile.py sends a few hundred.
"""

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from pathlib import Path

from hostile_cases import RARE, WHOLE, http, image
from service_client import Served

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def attack(port: int, number: int, seed: int = 0) -> tuple[str, bytes]:
    """Sends the request of this number; its kind, and what came back."""
    dice = random.Random(f"{seed} {number}")
    make = dice.choice(RARE) if dice.random() < 0.05 else dice.choice(WHOLE)
    content, manner = make(dice), dice.random()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        if manner < 0.02:  # drips
            for start in range(40):
                if writer.transport.is_closing():
                    break
                writer.write(content[start : start + 1])
                await asyncio.sleep(0.05)
        elif manner < 0.05:  # stops in the middle
            writer.write(content[: len(content) // 2])
        elif manner < 0.08:  # goes away without reading
            writer.write(content)
            return f"{make.__name__}, gone", b""
        else:
            writer.write(content)
        await writer.drain()
        async with asyncio.timeout(20):
            while block := await reader.read(65536):
                received += block
    except (ConnectionError, TimeoutError):
        pass
    finally:
        writer.transport.abort()
    return make.__name__, received


async def attack_all(port: int, numbers: range, clients: int, seed: int = 0) -> Counter[tuple[str, int]]:
    """Counts of (kind, status); 0 where nothing came back."""
    found: Counter[tuple[str, int]] = Counter()
    todo = iter(numbers)

    async def client() -> None:
        for number in todo:
            kind, received = await attack(port, number, seed)
            statuses = STATUS.findall(received)
            found[kind, int(statuses[-1]) if statuses else 0] += 1

    await asyncio.gather(*(client() for _ in range(clients)))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artefact", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with Served(options.artefact, "--head-timeout=1", "--body-timeout=1.5") as served:
        found: Counter[tuple[str, int]] = Counter()
        start = time.perf_counter()
        for part in range(10):
            numbers = range(options.count * part // 10, options.count * (part + 1) // 10)
            found += asyncio.run(attack_all(served.port, numbers, options.clients, options.seed))
            took = time.perf_counter() - start
            asyncio.run(idle(served.port))
            memory = f"{served.memory_mb()} MB at rest, {served.peak_mb()} MB at the most so far"
            print(f"{numbers.stop} requests, {took:.0f} s: {memory}", flush=True)
        right = http("image/png", image(random.Random(0), "PNG"))
        _, answer = asyncio.run(_send(served.port, right))
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        assert served.stop() == 0
    kinds = sorted({kind for kind, _ in found})
    for kind in kinds:
        print(f"{kind:<20}", {status: n for (k, status), n in sorted(found.items()) if k == kind})
    failures = sum(n for (_, status), n in found.items() if status >= 500)
    print(f"{sum(found.values())} requests, {failures} answers of 5xx; a right one afterwards is answered, exit code 0")
    raise SystemExit(failures != 0)


async def idle(port: int) -> None:
    """Waits until the service has answered or given up everything."""
    question = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    await asyncio.sleep(2)  # longer than its timeouts
    while b"\nghostnets_images_in_service 0.0\n" not in (await _send(port, question))[1]:
        await asyncio.sleep(0.1)


async def _send(port: int, content: bytes) -> tuple[str, bytes]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    received = await reader.read()
    writer.close()
    return "right", received


if __name__ == "__main__":
    main()
