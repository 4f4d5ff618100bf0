#!/usr/bin/env python3
"""Check that predictions are correct and memory is bounded under load: many images, uploads or threads.

links: ``predict`` on a folder of 100,000 links to photographs writes a row for each, and needs little more memory than
for 100 links.
uploads: 400 clients upload a photograph at the same time and retry while the service is at capacity. Each gets the
prediction of its photograph, and the service needs little more memory than for one upload at a time.
threads: 16 threads share one session of the engine, with batches of different sizes; all outputs are bit-exact.

    scripts/check_load.py                    all three, a few minutes
    scripts/check_load.py links --count 1000
"""

import argparse
import http.client
import io
import json
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets import create_model, engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.preprocessing import Preprocessing

NAMES = ("a", "b", "c")
GROWTH = {"links": 40, "uploads": 400}  # limit of the growth of peak memory under load, in MB; measured: 33 and 84
COUNTS = {"links": 100_000, "uploads": 400, "threads": 16}
CALLS = 40  # per thread


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*COUNTS, []], default=list(COUNTS))
    parser.add_argument("--count", type=int, help="number of links, uploads or threads; default: as above")
    options = parser.parse_args()
    cases = {"links": check_links, "uploads": check_uploads, "threads": check_threads}
    with tempfile.TemporaryDirectory() as folder:
        plan = write_plan(Path(folder) / "net.engine")
        results = [cases[case](plan, options.count or COUNTS[case]) for case in options.cases]
    return 0 if all(results) else 1


def write_plan(path: Path) -> Path:
    preprocessing = Preprocessing.standard(32, 3)
    arguments = {"width": 0.1, "num_classes": len(NAMES)}
    network = create_model("ghostnet_100", **arguments).eval()
    session = engine.compile(network, threads=1, mean=preprocessing.mean, std=preprocessing.std)
    description = Description("ghostnet_100", arguments, NAMES, preprocessing, any_size=True)
    session.save(path, metadata={METADATA_KEY: description.to_json()})
    return path


def encode_photos(count: int, side: int) -> list[bytes]:
    """Encode smooth random images as JPEG files."""
    photos = []
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(stream, "JPEG", quality=95)
        photos.append(stream.getvalue())
    return photos


def check_links(plan: Path, count: int) -> bool:
    """Predict a folder of ``count`` links; return whether rows, predictions and memory are as expected."""
    photos = plan.with_name("photos")
    photos.mkdir()
    for number, photo in enumerate(encode_photos(4, 48)):
        (photos / f"{number}.jpg").write_bytes(photo)
    peaks = {}
    for total in (100, count):
        folder, rows = plan.with_name(f"links{total}"), plan.with_name(f"{total}.jsonl")
        folder.mkdir()
        for number in range(total):
            (folder / f"{number:06}.jpg").symlink_to(photos / f"{number % 4}.jpg")
        command = [sys.executable, "-m", "ghostnets", "predict", str(plan), str(folder), "--out", str(rows)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peaks[total] = 0
        while (status := process.poll()) is None:  # ru_maxrss would be at least that of this process
            peaks[total] = max(peaks[total], read_peak_memory(process.pid))
            time.sleep(0.02)
        kinds, paths = set(), set()
        with rows.open(encoding="utf-8") as stream:
            for line in stream:
                row = json.loads(line)
                paths.add(row.pop("path"))
                kinds.add(json.dumps(row))
        if status or len(paths) != total or len(kinds) != 4:
            print(
                f"links: exit status {status}, {len(paths)} of {total} rows, {len(kinds)} predictions of 4 photographs"
            )
            return False
    print(
        f"links: {count:,} rows, 4 predictions of 4 photographs; peak memory {peaks[count]} MB, {peaks[100]} MB for 100"
        " links"
    )
    return peaks[count] - peaks[100] <= GROWTH["links"]


def check_uploads(plan: Path, count: int) -> bool:
    """Upload ``count`` photographs to a service at once; return whether predictions and memory are as expected."""
    photos = encode_photos(8, 2000)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "ghostnets", "serve", str(plan), f"--port={port}", "--threads=2"]
    with plan.with_suffix(".log").open("w") as log:
        process = subprocess.Popen(command, stderr=log)
    statuses: Counter[int] = Counter()
    failures: list[str] = []

    def upload(number: int) -> str:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
            connection.request("POST", "/v1/predict", photos[number % 8], {"Content-Type": "image/jpeg"})
            response = connection.getresponse()
            content = response.read().decode()
            connection.close()
            statuses[response.status] += 1
            if response.status not in (429, 503):
                return json.dumps(json.loads(content)["images"][0]["answers"])
            time.sleep(float(response.headers["Retry-After"]))

    def check_upload(number: int) -> None:
        try:
            if upload(number) != expected[number % 8]:
                failures.append(f"upload {number} has the prediction of another photograph")
        except Exception as error:
            failures.append(f"upload {number}: {type(error).__name__}: {error}")

    try:
        wait_until_listening(port)
        expected = [upload(number) for number in range(8)]
        before = read_peak_memory(process.pid)
        statuses.clear()
        clients = [threading.Thread(target=check_upload, args=(number,)) for number in range(count)]
        for client in clients:
            client.start()
        for client in clients:
            client.join()
        after = read_peak_memory(process.pid)
    finally:
        process.terminate()
        status = process.wait()
    print(
        f"uploads: {count} at once, {statuses[200]} predictions, {statuses.total() - statuses[200]} responses without;"
        f" peak memory {after} MB, {before} MB for one at a time; {len(failures)} failures, exit status {status}"
    )
    print(*failures[:5], sep="\n", end="\n" if failures else "")
    return not failures and status == 0 and statuses[200] == count and after - before <= GROWTH["uploads"]


def wait_until_listening(port: int) -> None:
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise TimeoutError("the service did not start within a minute")


def read_peak_memory(process: int) -> int:
    """Return the peak resident memory of a process in MB; 0 if the process has ended."""
    found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{process}/status").read_text())
    return int(found[1]) >> 10 if found else 0


def check_threads(plan: Path, count: int) -> bool:
    """Call one session from ``count`` threads; return whether all outputs equal those of single calls."""
    session = engine.load(plan, threads=2)
    generator = np.random.default_rng(0)
    batches = [generator.integers(0, 256, (1 + i % 5, 32 + 8 * i, 40, 3), dtype=np.uint8) for i in range(8)]

    def run(pixels: np.ndarray) -> list[bytes]:
        outputs = session(pixels)
        return [output.tobytes() for output in (outputs if isinstance(outputs, list) else [outputs])]

    expected = [run(batch) for batch in batches]
    wrong: list[int] = []

    def call(number: int) -> None:
        for i in range(CALLS):
            chosen = (number + i) % len(batches)
            if run(batches[chosen]) != expected[chosen]:
                wrong.append(chosen)

    callers = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    print(f"threads: {count} threads, {count * CALLS} calls of one session, {len(wrong)} with different outputs")
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
