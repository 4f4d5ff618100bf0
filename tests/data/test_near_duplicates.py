"""Near duplicates: groups against a comparison of all pairs, and what the hash survives."""

import numpy as np
import pytest
from PIL import Image, ImageOps

from ghostnets.data.near_duplicates import fingerprint, group_near_duplicates


def draw(seed: int) -> Image.Image:
    colors = np.random.default_rng(seed).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colors).resize((96, 80), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("threshold", [0, 3, 6, 15])
def test_groups_equal_those_of_all_pairs(threshold: int):
    generator = np.random.default_rng(threshold)
    hashes = generator.integers(0, 2**63, (120, 2, 2), dtype=np.uint64)
    for number in range(1, 40):  # chains: each differs in 0 to 2 bits per word from another image or its mirror image
        mask = np.uint64(1 << int(generator.integers(60)) | 1 << int(generator.integers(60)))
        hashes[number] = hashes[number - 1 if number % 3 else 40 + number][:: 1 if number % 2 else -1]
        hashes[number, 0, number % 2] ^= mask if number % 5 else np.uint64(0)
    indices = np.arange(3, 120)
    parents = {int(i): int(i) for i in indices}
    for one in indices.tolist():
        for other in indices.tolist():
            pairs = [(0, 0), (0, 1), (1, 0)]
            bits = min(sum(bin(int(x)).count("1") for x in hashes[one, a] ^ hashes[other, b]) for a, b in pairs)
            if bits <= threshold:
                old, new = parents[other], parents[one]
                parents = {key: new if value == old else value for key, value in parents.items()}
    expected = [tuple(i for i in parents if parents[i] == root) for root in sorted(set(parents.values()))]
    assert group_near_duplicates(hashes, indices, threshold) == sorted(e for e in expected if len(e) > 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image.resize((40, 33)),
        lambda image: image.point(lambda value: value * 0.8 + 20),
        lambda image: ImageOps.mirror(image),
        lambda image: image.convert("L"),
    ],
)
def test_hash_is_robust_to_image_changes_and_distinguishes_images(change):
    images = [draw(0), change(draw(0)), draw(1), draw(2)]
    hashes = np.stack([fingerprint(image).bits for image in images])
    assert group_near_duplicates(hashes, np.arange(4), 6) == [(0, 1)]


def test_image_without_structure_is_plain():
    assert fingerprint(Image.new("RGB", (30, 20), "white")).is_plain
    assert not fingerprint(draw(0)).is_plain
