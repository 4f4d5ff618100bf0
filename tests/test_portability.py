"""Systems that lack what Linux has: macOS has no processor affinity, Windows neither that nor pread, SIGHUP, ..."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import make_images

from ghostnets import cores
from ghostnets.data import open_folder, write_shards

WITHOUT = """
import errno, importlib, os, pkgutil, signal, sys
sys.modules["fcntl"] = None
for module, name in [(os, "sched_getaffinity"), (os, "pread"), (os, "fork"), (signal, "SIGHUP")]:
    delattr(module, name)
open_file = os.open
def open_no_folder(path, *arguments, **options):
    if os.path.isdir(path) and not options:  # shutil.rmtree opens folders where it can
        raise PermissionError(errno.EACCES, "Permission denied", path)
    return open_file(path, *arguments, **options)
os.open = open_no_folder

import ghostnets
from ghostnets.errors import MissingExtraError
for module in pkgutil.walk_packages(ghostnets.__path__, "ghostnets."):
    if not module.name.endswith("__main__"):
        try:
            importlib.import_module(module.name)
        except MissingExtraError:
            pass
from ghostnets.artefacts import load_classifier
from ghostnets.predict import find_inputs, predict_images
options = {"model": "ghost_resnet20", "epochs": 1, "batch_size": 8, "progress": False, "report": False}
result = ghostnets.train_model("shards", folder="run", **options)
assert result.evaluation.images == 4
classifier = load_classifier(result.checkpoint)
assert sum(map(len, predict_images(classifier, find_inputs(["photos"]), top=1))) == 20
"""


def test_everything_imports_trains_and_predicts_without_what_other_systems_lack(tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"dark": 10, "light": 10}, size=(8, 8))
    write_shards(open_folder(photos), tmp_path / "shards", images_per_shard=7)
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(cores.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8),
        ({"cpu.max": "max 100000"}, 8),
        ({"cpu.max": "150000 100000"}, 2),
        ({"cpu.max": "5000 100000"}, 1),
        ({"cpu.max": "1600000 100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu.max": "nonsense"}, 8),
    ],
)
def test_usable_cores_are_limited_by_the_container(
    files: dict[str, str], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(cores, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert cores.usable_cores() == expected
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    assert cores.usable_cores() == min(expected, 4)
