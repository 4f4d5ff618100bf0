"""Predictions of a Ray run, also after an interruption and with a killed worker."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ghostnets.artefacts import Prediction, load_classifier
from ghostnets.cli.main import main
from ghostnets.predict import PredictionFile, find_inputs, predict_images, predict_on_ray

ray = pytest.importorskip("ray", reason="needs Ray (extra ray)")
parquet = pytest.importorskip("pyarrow.parquet", reason="Parquet needs pyarrow (extra parquet)")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(300):
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:03}.png")
    (folder / "123.png").write_bytes(b"x")
    return folder


@pytest.fixture(scope="module", autouse=True)
def machine() -> Iterator[None]:
    """A local cluster of two cores, whatever this machine has."""
    ray.init(num_cpus=2, object_store_memory=200_000_000, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def actors() -> list[int]:
    """Ids of the Ray worker processes below this one."""
    parents, titles = {}, {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
                titles[int(folder.name)] = (folder / "cmdline").read_text()
            except OSError:
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])

    def is_below(process: int) -> bool:
        while process in parents and process != os.getpid():
            process = parents[process]
        return process == os.getpid()

    return [process for process, title in titles.items() if title.startswith("ray::MapWorker") and is_below(process)]


def test_ray_predictions_equal_local_ones(tiny_run: Path, images: Path, tmp_path: Path):
    network = tiny_run / "best.safetensors"
    tables = []
    for name in ("local", "ray"):
        out = tmp_path / f"{name}.parquet"
        options = ["--out", str(out), "--engine", name, "--features"]
        assert main(["predict", str(network), str(images), *options]) == 1  # one image cannot be read
        tables.append(parquet.read_table(out))
    assert tables[0].num_rows == 300
    assert tables[0].schema == tables[1].schema
    assert tables[0].to_pylist() == tables[1].to_pylist()


def test_interrupted_ray_run_is_resumed(tiny_run: Path, images: Path, tmp_path: Path, monkeypatch, capsys):
    line = ["predict", str(tiny_run / "best.safetensors"), str(images), "--engine"]
    assert main([*line, "local", "--out", str(tmp_path / "local.parquet")]) == 1
    write, written = PredictionFile.write, []

    def write_three(file: PredictionFile, batch: list[Prediction]) -> None:
        write(file, batch)
        written.append(len(batch))
        if len(written) == 3:
            raise KeyboardInterrupt

    out = tmp_path / "ray.parquet"
    with monkeypatch.context() as patched:
        patched.setattr(PredictionFile, "write", write_three)
        assert main([*line, "ray", "--out", str(out)]) == 130
    assert not out.exists()
    capsys.readouterr()
    assert main([*line, "ray", "--out", str(out)]) == 1
    assert f"resuming after {sum(written)} images" in capsys.readouterr().err
    assert parquet.read_table(out).to_pylist() == parquet.read_table(tmp_path / "local.parquet").to_pylist()


def test_killed_worker_changes_nothing(tiny_run: Path, images: Path):
    network = tiny_run / "best.safetensors"
    inputs = [source for _ in range(40) for source in find_inputs([images])]
    wanted = [p for batch in predict_images(load_classifier(network, threads=1), inputs, top=2) for p in batch]
    killed: list[int] = []
    done = threading.Event()

    def kill() -> None:
        """Kills the first worker after a moment."""
        while not done.wait(0.1) and not killed:
            for process in actors()[:1]:
                time.sleep(0.3)
                os.kill(process, signal.SIGKILL)
                killed.append(process)

    killer = threading.Thread(target=kill)
    killer.start()
    found = [p for batch in predict_on_ray(network, inputs, top=2) for p in batch]
    done.set()
    killer.join()
    assert killed
    assert found == wanted
