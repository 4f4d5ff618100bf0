"""Read mutated files of weights and tars: each is read, or rejected by one sentence; nothing crashes, hangs or takes
memory.

python scripts/fuzz_checkpoints.py --count 5000

Mutates small files of every reader: safetensors, torch (zip and legacy), Paddle, Keras, this package's checkpoints, and
tar archives (whose checksums are corrected, so that the changed headers are read). Exits with 1 at the first other
exception, after writing the file to fuzz_failure; prints the slowest file and how much the memory grew.
"""

import argparse
import io
import logging
import pickle
import random
import resource
import sys
import tarfile
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import h5py
import torch
from safetensors.torch import save_file

from ghostnets.checkpoints import Checkpoint, read_checkpoint, read_weights, save_checkpoint
from ghostnets.data.tar_members import BLOCK, open_regular, walk_tar
from ghostnets.errors import GhostNetsError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

ARGUMENTS = {"num_classes": 2, "width": 0.1, "stages": [[[3, 16, 16, 0.0, 1]], [[3, 16, 16, 0.25, 2]]]}
EDGES = (0, 1, 127, 128, 254, 255)


def whole_files(folder: Path) -> Iterator[Path]:
    """Write one valid file for each reader."""
    state = create_model("ghostnet_050", **ARGUMENTS).state_dict()
    floating = {name: tensor.numpy() for name, tensor in state.items() if tensor.is_floating_point()}
    save_file(state, folder / "plain.safetensors")
    preprocessing = Preprocessing.standard(32, 3)
    own = Checkpoint("ghostnet_050", ARGUMENTS, state, ("a", "b"), preprocessing)
    save_checkpoint(folder / "own.safetensors", own)
    training = {"model": {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 3}
    torch.save(training, folder / "zip.pth")
    torch.save(training, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    (folder / "paddle.pdparams").write_bytes(pickle.dumps(floating, protocol=4))
    with h5py.File(folder / "keras.h5", "w") as file:
        for name, array in floating.items():
            file[f"{name}/kernel:0"] = array
    for name, tar_format in (("gnu", tarfile.GNU_FORMAT), ("pax", tarfile.PAX_FORMAT)):
        with tarfile.open(folder / f"{name}.tar", "w", format=tar_format) as tar:
            for key in range(3):
                for member in (tarfile.TarInfo(f"{key}" + "n" * 120 * key + ".jpg"), tarfile.TarInfo(f"{key}.cls")):
                    member.size, member.mtime = 700, 1.5
                    tar.addfile(member, io.BytesIO(bytes(700)))
    yield from sorted(folder.iterdir())


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Change, cut, repeat, insert or exchange some bytes, mostly in the headers at both ends."""
    changed = bytearray(content)
    for _ in range(chance.choice([1, 1, 2, 5, 20])):
        at = chance.randrange(len(changed))
        if chance.random() < 0.7:
            at = (
                min(at, chance.randrange(3000))
                if chance.random() < 0.6
                else len(changed) - 1 - at % 3000 % len(changed)
            )
        match chance.randrange(6):
            case 0 | 1:
                changed[at] = chance.choice([*EDGES, chance.randrange(256)])
            case 2:
                changed[at : at + 8] = chance.choice([0, 1, 2**31, 2**32 - 1, 2**62]).to_bytes(8, "little")
            case 3:
                changed[at:at] = changed[at : at + chance.randrange(1, 60)]
            case 4:
                del changed[at : at + chance.randrange(1, 60)]
            case _:
                if chance.random() < 0.2:
                    del changed[at:]
        if not changed:
            return b""
    return bytes(changed)


def correct_checksums(content: bytes) -> bytes:
    """Correct the checksum of every block that looks like the header of a tar member."""
    changed = bytearray(content)
    for start in range(0, len(content) - BLOCK + 1, BLOCK):
        if content[start + 257 : start + 262] == b"ustar":
            changed[start + 148 : start + 156] = b" " * 8
            changed[start + 148 : start + 156] = b"%06o\0 " % sum(changed[start : start + BLOCK])
    return bytes(changed)


def read(path: Path) -> None:
    """Read a file as what its name says."""
    if path.suffix == ".tar":
        with open_regular(path) as stream:
            for member in walk_tar(stream):
                stream.seek(member.offset)
                stream.read(member.size)
    elif path.name.startswith("own"):
        read_checkpoint(path)
    else:
        read_weights(path)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=5000, help="files for each reader")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    logging.getLogger("ghostnets.checkpoints").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    chance, before = random.Random(options.seed), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as name:
        for whole in whole_files(Path(name)):
            content, outcomes, slowest = whole.read_bytes(), Counter[str](), 0.0
            for _ in range(options.count):
                changed = mutate(content, chance)
                whole.write_bytes(correct_checksums(changed) if whole.suffix == ".tar" else changed)
                start = time.perf_counter()
                try:
                    read(whole)
                    outcomes["read"] += 1
                except GhostNetsError as error:
                    outcomes["rejected" if "\n" not in str(error) else "rejected by several lines"] += 1
                except BaseException:
                    traceback.print_exc()
                    Path("fuzz_failure").write_bytes(whole.read_bytes())
                    print(f"{whole.name}: unexpected exception; the file is fuzz_failure")
                    return 1
                slowest = max(slowest, time.perf_counter() - start)
            grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
            print(f"{whole.name}: {dict(outcomes)}, slowest {slowest:.2f} s, memory grown by {grown} MiB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
