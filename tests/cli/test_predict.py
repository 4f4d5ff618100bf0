"""The command ``ghostnets predict``."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import read_csv
from PIL import Image

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.main import main
from ghostnets.engine.session import is_built

needs_engine = pytest.mark.skipif(not is_built(), reason="the engine was not built")


def run(*words: object) -> int:
    return main([str(word) for word in words])


def fails(capsys, *words: object) -> str:
    assert run(*words) == 1
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error


@pytest.fixture(scope="session")
def plan(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny run as an engine plan."""
    checkpoint = read_checkpoint(tiny_run / "best.safetensors")
    description = Description(
        checkpoint.architecture, checkpoint.arguments, checkpoint.class_names, checkpoint.preprocessing, any_size=True
    )
    path = tmp_path_factory.mktemp("plan") / "net.engine"
    engine.compile(checkpoint, threads=1).save(path, metadata={METADATA_KEY: description.to_json()})
    return path


def test_table_json_and_files_agree(tiny_run: Path, photos: Path, tmp_path: Path, capsys):
    network = tiny_run / "best.safetensors"
    assert run("predict", network, photos / "dark" / "000.png") == 0
    assert re.search(r"000\.png .* dark .*%", capsys.readouterr().out)
    assert run("predict", network, photos, "--json", "--top", "9") == 0
    printed = json.loads(capsys.readouterr().out)
    assert [row["path"] for row in printed] == [str(path) for path in sorted(photos.rglob("*.png"))]
    assert all(len(row["answers"]) == 2 for row in printed)
    assert run("predict", network, photos, "--out", tmp_path / "a.csv", "--top", "9") == 0
    rows = read_csv(tmp_path / "a.csv")
    assert list(rows[0]) == ["path", "class_1", "probability_1", "class_2", "probability_2", "error"]
    assert [row["class_1"] for row in rows] == [row["answers"][0]["class"] for row in printed]
    assert run("predict", network, photos, "--out", tmp_path / "a.jsonl", "--top", "9", "--features") == 0
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [{key: line[key] for key in ("path", "answers", "error")} for line in lines] == printed
    assert {len(line["features"]) for line in lines} == {1280}


def test_threshold_answers_in_the_table_json_and_csv(tiny_run: Path, photos: Path, tmp_path: Path, capsys):
    command = ("predict", tiny_run / "best.safetensors", photos / "dark" / "000.png", "--tta", "flip", "--threshold")
    assert run(*command, "1", "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["answer"] == "none of these"
    best = row["answers"][0]["class"]  # which of the two depends on the last bits of the training
    assert best in ("dark", "light")
    assert run(*command, "0.01", "--out", tmp_path / "a.csv") == 0
    assert read_csv(tmp_path / "a.csv")[0]["answer"] == best
    capsys.readouterr()
    assert run(*command, "1") == 0
    assert "none of these" in capsys.readouterr().out


def test_unreadable_images_do_not_stop_the_run(tiny_run: Path, photos: Path, tmp_path: Path, capsys):
    for index in range(12):
        (photos / "dark" / f"{index:03}.png").write_bytes(b"x")
    for index in range(12):
        (photos / "light" / f"{index:03}.png").write_bytes(b"")
    error = fails(capsys, "predict", tiny_run / "best.safetensors", photos, "--out", tmp_path / "a.csv")
    assert "24 of 40 images without a prediction" in error
    assert error.count("cannot be read as an image") == 20
    rows = read_csv(tmp_path / "a.csv")
    assert [bool(row["error"]) for row in rows].count(True) == 24
    assert (
        run("predict", tiny_run / "best.safetensors", photos / "light" / "013.png", tmp_path / "a.csv", "--json") == 1
    )
    assert [row["error"] is None for row in json.loads(capsys.readouterr().out)] == [True, False]


def test_wrong_arguments_fail_with_one_sentence(tiny_run: Path, photos: Path, tmp_path: Path, capsys):
    (tmp_path / "x.safetensors").write_text("hello")
    for name, sentence in {
        "no.safetensors": "there is no file",
        "x.safetensors": "not a safetensors file",
        "last.pt": "has no suffix of a known format",
        "photos": "is a folder without best.safetensors",
        "nowhere": "there is no run",
    }.items():
        assert sentence in fails(capsys, "predict", tmp_path / name, photos)
    network = tiny_run / "best.safetensors"
    assert "no image is given" in fails(capsys, "predict", network)
    assert "there is no image or folder" in fails(capsys, "predict", network, "no.jpg")
    assert "--top is 0" in fails(capsys, "predict", network, photos, "--top", "0")
    assert "pass one of the two" in fails(capsys, "predict", network, photos, "--json", "--out", "a.csv")
    assert "only written to a file" in fails(capsys, "predict", network, photos, "--features")
    assert "cannot hold --features" in fails(capsys, "predict", network, photos, "--features", "--out", "a.csv")
    assert "it must end in .csv" in fails(capsys, "predict", network, photos, "--out", tmp_path / "a.txt")
    assert not list(tmp_path.glob("a.*"))


@needs_engine
def test_plan_loads_no_torch(plan: Path, photos: Path, tmp_path: Path):
    code = (
        "import sys\n"
        "from ghostnets.cli.main import main\n"
        "code = main(sys.argv[1:])\n"
        "loaded = {'torch', 'torchvision', 'pandas', 'pyarrow', 'ray', 'onnx', 'scipy'} & set(sys.modules)\n"
        "loaded |= {'filelock', 'http.client', 'PIL.PdfImagePlugin'} & set(sys.modules)\n"  # slow to import
        "assert not loaded, loaded\n"
        "sys.exit(code)"
    )
    for options in ([photos / "dark" / "000.png"], [photos, "--out", tmp_path / "a.csv"]):
        command = [sys.executable, "-c", code, "predict", str(plan), *map(str, options)]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
    assert len(read_csv(tmp_path / "a.csv")) == 40


@needs_engine
def test_plan_without_features_is_rejected(plan: Path, photos: Path, capsys):
    assert "gives no features" in fails(capsys, "predict", plan, photos, "--features", "--out", "a.jsonl")


@needs_engine
def test_killed_run_is_resumed(plan: Path, tmp_path: Path):
    """kill -9 and Ctrl-C at random points; the file is that of an uninterrupted run, byte for byte."""
    generator = np.random.default_rng()
    seed = int(generator.integers(1 << 31))
    generator = np.random.default_rng(seed)
    (tmp_path / "x").mkdir()
    for index in range(240):
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), np.uint8)).save(tmp_path / "x" / f"{index:03}.png")
    (tmp_path / "x" / "123.png").write_bytes(b"x")
    code = (
        "import os, signal, sys, time, ghostnets.predict.prediction_file as file\n"
        "from ghostnets.cli.main import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # background jobs of a shell ignore it
        "file.CHUNK_SECONDS = -1\n"
        "write = file.PredictionFile.write\n"
        "waits = iter([0.01] * int(os.environ['QUICK']) + [60] * 100)\n"  # so that it never ends before it is killed
        "file.PredictionFile.write = lambda self, batch: (time.sleep(next(waits)), write(self, batch))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "predict", str(plan), str(tmp_path / "x"), "--out"]
    uninterrupted = os.environ | {"QUICK": "100"}
    whole = subprocess.run([*command, str(tmp_path / "whole.csv")], env=uninterrupted, capture_output=True, check=False)
    assert whole.returncode == 1
    out, manifest = tmp_path / "a.csv", tmp_path / "a.csv.partial" / "manifest.json"
    parts = 0
    for kind in (signal.SIGKILL, signal.SIGINT):
        more = int(generator.integers(1, 6))
        wanted, environment = parts + more, os.environ | {"QUICK": str(more + 1)}
        process = subprocess.Popen([*command, str(out)], env=environment, stderr=subprocess.PIPE, text=True)
        while parts < wanted and process.poll() is None:
            parts = len(json.loads(manifest.read_text())["parts"]) if manifest.exists() else 0
            time.sleep(0.003)
        os.kill(process.pid, kind)
        _, error = process.communicate()
        assert process.returncode == (-signal.SIGKILL if kind == signal.SIGKILL else 130), (seed, error)
        assert not out.exists()
        parts = len(json.loads(manifest.read_text())["parts"])
    last = subprocess.run([*command, str(out)], env=uninterrupted, capture_output=True, text=True, check=False)
    assert (last.returncode, "resuming after" in last.stderr) == (1, True), (seed, last.stderr)
    assert "1 of 240 images without a prediction" in last.stderr
    assert out.read_bytes() == (tmp_path / "whole.csv").read_bytes(), seed
    assert not (tmp_path / "a.csv.partial").exists()


@needs_engine
def test_prediction_is_independent_of_the_batch(plan: Path, tmp_path: Path):
    paths = []
    for index in range(40):
        paths.append(tmp_path / f"{index}.png")
        pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
        Image.fromarray(pixels).save(paths[-1])
    for name, order in (("a", paths), ("b", paths[::-1][3:])):
        assert run("predict", plan, *order, "--out", tmp_path / f"{name}.jsonl") == 0
    texts = [(tmp_path / f"{name}.jsonl").read_text() for name in "ab"]
    found = [{row["path"]: row for row in map(json.loads, text.splitlines())} for text in texts]
    assert len(found[1]) == 37
    assert all(found[0][path] == row for path, row in found[1].items())
