"""Hostile requests against the service: does it stay up, does it ever return 5xx, does its memory grow?

    python benchmarks/hostile_requests.py net.engine --count 10000

Each request is drawn from a seed: damaged, truncated and huge files, wrong content types, malformed forms, JSON, HTTP,
huge headers, bodies that stall or drip, responses that are not read. A valid request afterwards must succeed.
tests/serve/test_hostile.py sends 300 of them.
"""

import argparse
import asyncio
import random
import re
import time
from collections import Counter
from pathlib import Path

from hostile_cases import COMMON, RARE, http, image
from service_client import ServiceProcess

STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


async def send_hostile(port: int, number: int, seed: int = 0) -> tuple[str, bytes]:
    """Send request ``number``; return its kind and the bytes received."""
    rng = random.Random(f"{seed} {number}")
    make = rng.choice(RARE) if rng.random() < 0.05 else rng.choice(COMMON)
    content, behaviour = make(rng), rng.random()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = b""
    try:
        if behaviour < 0.02:  # sends byte by byte
            for start in range(40):
                if writer.transport.is_closing():
                    break
                writer.write(content[start : start + 1])
                await asyncio.sleep(0.05)
        elif behaviour < 0.05:  # stalls halfway
            writer.write(content[: len(content) // 2])
        elif behaviour < 0.08:  # disconnects without reading
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


async def send_all(port: int, numbers: range, clients: int, seed: int = 0) -> Counter[tuple[str, int]]:
    """Count responses by (kind, status); status 0 is no response."""
    found: Counter[tuple[str, int]] = Counter()
    remaining = iter(numbers)

    async def client() -> None:
        for number in remaining:
            kind, received = await send_hostile(port, number, seed)
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
    with ServiceProcess(options.artefact, "--head-timeout=1", "--body-timeout=1.5") as service:
        found: Counter[tuple[str, int]] = Counter()
        start = time.perf_counter()
        for part in range(10):
            numbers = range(options.count * part // 10, options.count * (part + 1) // 10)
            found += asyncio.run(send_all(service.port, numbers, options.clients, options.seed))
            took = time.perf_counter() - start
            asyncio.run(wait_idle(service.port))
            memory = f"{service.memory_mb()} MB idle, {service.peak_mb()} MB peak"
            print(f"{numbers.stop} requests, {took:.0f} s: {memory}", flush=True)
        valid = http("image/png", image(random.Random(0), "PNG"))
        response = asyncio.run(_send(service.port, valid))
        assert response.startswith(b"HTTP/1.1 200 "), response
        assert service.stop() == 0
    kinds = sorted({kind for kind, _ in found})
    for kind in kinds:
        print(f"{kind:<20}", {status: n for (k, status), n in sorted(found.items()) if k == kind})
    failures = sum(n for (_, status), n in found.items() if status >= 500)
    print(f"{sum(found.values())} requests, {failures} responses with 5xx; a valid request succeeds, exit code 0")
    raise SystemExit(failures != 0)


async def wait_idle(port: int) -> None:
    """Wait until the service has answered or dropped all requests."""
    request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    await asyncio.sleep(2)  # longer than the timeouts of the service
    while b"\nghostnets_images_in_service 0.0\n" not in await _send(port, request):
        await asyncio.sleep(0.1)


async def _send(port: int, content: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(content)
    received = await reader.read()
    writer.close()
    return received


if __name__ == "__main__":
    main()
