"""Read mutated images of all formats: each must be read or rejected with a sentence, in bounded time and memory.

python scripts/fuzz_images.py --count 10000 --seed 0
"""

import argparse
import contextlib
import io
import resource
import time
import warnings

import numpy as np
from PIL import Image, features

from ghostnets.errors import ImageError
from ghostnets.preprocessing import decode
from ghostnets.preprocessing.decoding import read_header

MAX_PIXELS = 1_000_000
SAVE_OPTIONS: dict[str, list[dict[str, object]]] = {
    "png": [{}, {"exif": b"Exif\0\0II*\0\x08\0\0\0"}],
    "jpeg": [{}, {"progressive": True}],
    "webp": [{}, {"lossless": True}],
    "tiff": [{}, {"compression": "tiff_lzw"}, {"compression": "jpeg"}, {"compression": "tiff_adobe_deflate"}],
    "bmp": [{}],
    "gif": [{}],
    "ppm": [{}],
    "avif": [{}] if features.check("avif") else [],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000, help="number of mutated files")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    generator = np.random.default_rng(options.seed)
    seeds = make_seeds(generator)
    before = peak_memory()
    num_read, slowest = 0, 0.0
    for index in range(options.count):
        content = mutate(seeds[index % len(seeds)], generator)
        start = time.perf_counter()
        with contextlib.suppress(ImageError):  # rejected with a sentence; any other exception ends the run
            num_read += decode(content, max_pixels=MAX_PIXELS).mode in ("L", "RGB")
        with contextlib.suppress(ImageError):
            read_header(content)
        slowest = max(slowest, time.perf_counter() - start)
    print(f"{options.count} files, {num_read} read, {options.count - num_read} rejected, slowest {slowest:.2f} s,")
    print(f"memory grew by {peak_memory() - before} MB at its peak")


def make_seeds(generator: np.random.Generator) -> list[bytes]:
    """Small files of each format."""
    image = Image.fromarray(generator.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    contents = []
    for suffix, variants in SAVE_OPTIONS.items():
        for variant in variants:
            stream = io.BytesIO()
            image.save(stream, suffix, **variant)
            contents.append(stream.getvalue())
    return contents


def mutate(content: bytes, generator: np.random.Generator) -> bytes:
    """Change up to eight bytes, mostly of the header; sometimes repeat, remove or cut a range."""
    values = bytearray(content)
    for _ in range(generator.integers(1, 9)):
        end = min(len(values), 200) if generator.random() < 0.7 else len(values)
        values[generator.integers(0, end)] = generator.choice([0, 1, 127, 255, generator.integers(0, 256)])
    start, stop = sorted(generator.integers(0, len(values), 2))
    kind = generator.random()
    if kind < 0.1:
        values[start:start] = values[start:stop] * 3
    elif kind < 0.2:
        del values[start:stop]
    elif kind < 0.25:
        del values[start:]
    return bytes(values)


def peak_memory() -> int:
    """Peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


if __name__ == "__main__":
    main()
