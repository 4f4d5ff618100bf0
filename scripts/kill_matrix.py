#!/usr/bin/env python3
"""Kill commands before and after every call that changes files, repeat them, and compare the resulting files.

The calls are fsync, mkdir, touch, rename, rmdir and unlink in train (new and resumed), export (over an older file),
predict --out, shard and import. For each point, a process that is forked after all imports runs the command and kills
itself there with SIGKILL. Then the command is repeated, or the run resumed. The files, report.html included, must equal
those of an uninterrupted command, apart from dates and durations; TensorBoard's are compared by their scalars and
images. There must be no further files.

The process that verifies an export is replaced by a constant comparison; tests/export/test_verify.py tests that it ends
with its parent. The curves of each history are drawn once and stored: drawing them takes two thirds of the time and is
not under test.

    scripts/kill_matrix.py                         all points, a few minutes
    scripts/kill_matrix.py predict shard           all points of some cases
    scripts/kill_matrix.py --every 10 --start 3    every tenth point, from the fourth
"""

import argparse
import csv
import functools
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import matplotlib.figure  # noqa: F401  imported once, before the forks
import numpy as np
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils import tensorboard  # noqa: F401

from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli import convert, export, predict, shard  # noqa: F401
from ghostnets.cli.main import main as ghostnets
from ghostnets.explain import page, progress, report
from ghostnets.export import exporter
from ghostnets.export.report import ExportComparison
from ghostnets.models import create_model
from ghostnets.predict import prediction_file, streaming
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Callback, Recipe, derived, resume_training, train_model

RECIPE = Recipe(model="ghost_resnet20", epochs=4, batch_size=8, lr=0.02, warmup=0.2, drop_rate=0.3, ema_decay=0.5)
CALLS = [(os, name) for name in ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink", "remove")]
CALLS += [(Path, "touch")]
MINUTES = re.compile(rb"[0-9.]+ min\b")
TIMES = ("seconds", "val_seconds", "images_per_second", "date")
COMPARISON = ExportComparison(
    *(1e-6, 1e-7, 1e-6, 1.0, None, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (2.0, 2.0, 2.0), 40, 1, "runtime", False, "cpu")
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", choices=[*CASES, []], help=f"from {', '.join(CASES)}; default: all")
    parser.add_argument("--every", type=int, default=1, help="kill only at every n-th point")
    parser.add_argument("--start", type=int, default=0, help="first point, from 0")
    options = parser.parse_args()
    derived.REPORT_SECONDS, derived.REPORT_COST = -1, 0  # a live report after every epoch
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        inputs = make_inputs(Path(folder) / "inputs")
        store_curves(Path(folder) / "curves")
        for name in options.cases or CASES:
            failures += kill_everywhere(name, inputs, Path(folder), options.start, options.every)
    sys.exit(1 if failures else 0)


def store_curves(folder: Path) -> None:
    """Store drawn curves in a folder that all processes share, and compile the templates before the forks."""
    folder.mkdir()
    for name in ("report.html.jinja", "progress.html.jinja"):
        page.environment().get_template(name)
    render_curves = report.render_curves

    def stored(epochs: Any, curves: Any) -> str:
        file = folder / hashlib.sha256(repr((epochs, curves)).encode()).hexdigest()
        if not file.exists():
            file.write_bytes(render_curves(epochs, curves).encode())
        return file.read_bytes().decode()

    report.render_curves = progress.render_curves = stored


def make_inputs(folder: Path) -> Path:
    """Write an image folder, a checkpoint and weights to import; return their folder."""
    noise = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for name in ("a", "b"):
            (folder / "images" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "images" / split / name / f"{index}.png")
    run_in_child(functools.partial(save_network, folder))
    return folder


def save_network(folder: Path) -> None:
    torch.manual_seed(0)
    arguments = {"num_classes": 2, "width": 0.1}
    model = create_model("ghostnet_100", **arguments)
    preprocessing = Preprocessing(32, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    checkpoint = Checkpoint("ghostnet_100", arguments, model.state_dict(), ("a", "b"), preprocessing)
    save_checkpoint(folder / "net.safetensors", checkpoint)
    torch.save(create_model("ghostnet_100", num_classes=2).state_dict(), folder / "weights.pth")


class StopInSecondEpoch(Callback):
    """Interrupts the run within its second epoch."""

    def on_step_end(self, *, epoch: int, **_: object) -> None:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


def run_train(inputs: Path) -> None:
    if Path("run/config.json").exists():
        resume_training("run", progress=False)
    else:
        train_model(inputs / "images", folder="run", recipe=RECIPE, progress=False)


def prepare_resume(inputs: Path) -> None:
    try:
        train_model(inputs / "images", folder="run", recipe=RECIPE, progress=False, callbacks=[StopInSecondEpoch()])
    except Exception as error:
        if getattr(error, "signal", None) != signal.SIGTERM:
            raise


def prepare_finished(inputs: Path) -> None:
    train_model(inputs / "images", folder="run", recipe=RECIPE, progress=False)


def run_export(inputs: Path) -> None:
    exporter.verify = lambda *_: COMPARISON
    check(ghostnets(["export", str(inputs / "net.safetensors"), "--format", "engine", "--to", "net.engine"]))


def prepare_export(inputs: Path) -> None:
    del inputs
    Path("net.engine").write_text("older")
    Path("net.engine.report.json").write_text("older")


def run_predict(inputs: Path) -> None:
    streaming.BATCH_SIZE, prediction_file.CHUNK_SECONDS = 4, -1
    check(ghostnets(["predict", str(inputs / "net.safetensors"), str(inputs / "images"), "--out", "out.csv"]))


def run_shard(inputs: Path) -> None:
    if not Path("shards/index.json").exists():
        check(ghostnets(["shard", str(inputs / "images"), "shards", "--images-per-shard", "4"]))


def run_import(inputs: Path) -> None:
    options = ["--model", "ghostnet_100", "--to", "imported.safetensors", "--overwrite"]
    check(ghostnets(["import", str(inputs / "weights.pth"), *options]))


def prepare_nothing(inputs: Path) -> None:
    del inputs


CASES: dict[str, tuple[Callable[[Path], None], Callable[[Path], None]]] = {
    "train": (prepare_nothing, run_train),
    "resume": (prepare_resume, run_train),
    "resume-finished": (prepare_finished, run_train),
    "export": (prepare_export, run_export),
    "predict": (prepare_nothing, run_predict),
    "shard": (prepare_nothing, run_shard),
    "import": (prepare_nothing, run_import),
}


def check(code: int) -> None:
    if code:
        raise RuntimeError(f"the command ended with {code}")


def kill_everywhere(name: str, inputs: Path, work: Path, start: int, every: int) -> int:
    """Kill the command of a case at its points; print and return the number of failures."""
    prepare, command = CASES[name]
    prepared, uninterrupted, killed = (work / f"{name}-{kind}" for kind in ("prepared", "uninterrupted", "killed"))
    prepared.mkdir()
    run_in_child(lambda: prepare(inputs), prepared)
    shutil.copytree(prepared, uninterrupted)
    counted = work / f"{name}-points"
    run_in_child(lambda: count_points(counted, lambda: command(inputs)), uninterrupted)
    points = int(counted.read_text())
    expected = read_contents(uninterrupted)
    failures, chosen = [], range(start, points, every)
    for point in chosen:
        shutil.copytree(prepared, killed)
        code = run_in_child(lambda point=point: run_killed_at(point, lambda: command(inputs)), killed, may_die=True)
        try:
            if code != -signal.SIGKILL:
                raise RuntimeError(f"it was not killed, but ended with {code}")
            run_in_child(lambda: command(inputs), killed)
            found = read_contents(killed)
            if wrong := sorted(path for path in {*found, *expected} if found.get(path) != expected.get(path)):
                raise RuntimeError(f"these files differ: {', '.join(wrong)}")
        except RuntimeError as error:
            failures.append(point)
            print(f"{name}, point {point}: {error}", flush=True)
        shutil.rmtree(killed)
    print(f"{name}: {len(chosen)} of {points} points, {len(failures)} failures", flush=True)
    return len(failures)


def run_in_child(action: Callable[[], Any], folder: Path | None = None, *, may_die: bool = False) -> int:
    """Run an action in a forked process and return its exit code, negative for a signal."""
    with tempfile.TemporaryFile() as output:
        process = os.fork()
        if process == 0:
            code = 1
            try:
                os.dup2(output.fileno(), 1)
                os.dup2(output.fileno(), 2)
                if folder is not None:
                    os.chdir(folder)
                torch.set_num_threads(1)
                action()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        if code and not (may_die and code < 0):
            output.seek(0)
            raise RuntimeError(f"it ended with {code}: {output.read().decode()[-2000:]}")
        return code


def watch_calls(at_point: Callable[[], None]) -> None:
    """Call ``at_point`` before and after each call that changes files."""

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def wrapper(*arguments: Any, **options: Any) -> Any:
            at_point()
            result = call(*arguments, **options)
            at_point()
            return result

        return wrapper

    for module, name in CALLS:
        setattr(module, name, watched(getattr(module, name)))


def count_points(file: Path, command: Callable[[], None]) -> None:
    """Run a command, and write the number of its points to a file."""
    points = [0]

    def count() -> None:
        points[0] += 1

    watch_calls(count)
    command()
    file.write_text(str(points[0]))


def run_killed_at(point: int, command: Callable[[], None]) -> None:
    """Run a command, and kill this process at a point, counted from 0."""
    remaining = [point]

    def kill() -> None:
        if remaining[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        remaining[0] -= 1

    watch_calls(kill)
    command()


def read_contents(folder: Path) -> dict[str, Any]:
    """Return the content of each file without dates and durations; for TensorBoard's events, scalars and images."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.parent.name == "tensorboard":
            found[f"{path.parent.name}/events"] = found.get(f"{path.parent.name}/events", 0) + 1
        elif path.name == "tensorboard":
            found[name] = read_events(path)
        elif path.is_dir():
            found[name] = "folder"
        else:
            found[name] = read_content(path)
    return found


def read_content(path: Path) -> Any:
    """Return a file's content without dates and durations, or a digest of it."""
    if path.name == "metrics.csv":
        with path.open(newline="") as stream:
            return [remove_times(row) for row in csv.DictReader(stream)]
    if path.suffix == ".json" and path.name != "config.json":
        return remove_times(json.loads(path.read_text()))
    if path.name == "last.pt":
        return hash_tensors(remove_times(torch.load(path, weights_only=True)))
    content = path.read_bytes()
    if path.suffix == ".html":
        content = MINUTES.sub(b"", content)
    return hashlib.sha256(content).hexdigest()


def remove_times(value: Any) -> Any:
    """Return nested containers without the entries of ``TIMES``."""
    if isinstance(value, dict):
        return {key: remove_times(each) for key, each in value.items() if key not in TIMES}
    return [remove_times(each) for each in value] if isinstance(value, list) else value


def hash_tensors(value: Any) -> Any:
    """Return nested containers with tensors replaced by digests of their bits."""
    if isinstance(value, torch.Tensor):
        return hashlib.sha256(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()).hexdigest()
    if isinstance(value, dict):
        return {key: hash_tensors(each) for key, each in value.items()}
    return [hash_tensors(each) for each in value] if isinstance(value, list | tuple) else value


def read_events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the scalars without times, and the sizes of the images, of a folder of TensorBoard events."""
    events = EventAccumulator(str(folder))
    events.Reload()
    tags = events.Tags()
    found = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in tags["scalars"] if tag not in TIMES}
    return found | {tag: [(e.step, len(e.encoded_image_string)) for e in events.Images(tag)] for tag in tags["images"]}


if __name__ == "__main__":
    main()
