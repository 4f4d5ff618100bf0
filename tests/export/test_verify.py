"""Verification detects files that differ from their network."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomized

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.checkpoints import Checkpoint
from ghostnets.errors import ExportError
from ghostnets.export.report import TOLERANCES, ExportComparison, find_violation
from ghostnets.export.verify import verify
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

GOOD = ExportComparison(
    *(1e-6, 1e-7, 1e-6, 1.0, None, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (2.0, 2.0, 2.0), 40, 1, "runtime", False, "cpu")
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"max_difference": 1e-3}, "the max difference is 0.001, the limit is 0.0001"),
        ({"mean_difference": float("nan")}, "the mean difference is nan"),
        ({"max_feature_difference": 0.5}, "the max difference is 0.5"),
        ({"max_feature_difference": 1e-5}, None),
        ({"top1_agreement": 0.9}, "the top-1 class agrees for 90.00% of the images, the minimum is 98.0%"),
    ],
    ids=str,
)
def test_find_violation(changes: dict, message: str | None):
    found = find_violation(replace(GOOD, **changes), TOLERANCES["f32"])
    assert found is None if message is None else message in str(found)


@pytest.mark.skipif(not engine.session.is_built(), reason="the engine needs a C++ compiler")
def test_verify_detects_other_weights_and_other_normalisation(tmp_path: Path):
    preprocessing = Preprocessing(32, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    shifted = Preprocessing(32, 32, (0.4, 0.5, 0.5), (0.2, 0.3, 0.3))
    arguments = {"num_classes": 3, "width": 0.1}

    def make(seed: int, used: Preprocessing) -> Checkpoint:
        torch.manual_seed(seed)
        weights = randomized(create_model("ghostnet_100", **arguments)).state_dict()
        return Checkpoint("ghostnet_100", arguments, weights, tuple("abc"), used)

    description = Description("ghostnet_100", arguments, tuple("abc"), preprocessing)
    session = engine.compile(make(0, preprocessing))
    session.save(tmp_path / "net.engine", metadata={METADATA_KEY: description.to_json()})
    images = [np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)]
    for seed, used in [(1, preprocessing), (0, shifted)]:
        wrong = verify(tmp_path / "net.engine", make(seed, used), images, tmp_path)
        assert "max difference" in str(find_violation(wrong, TOLERANCES["f32"]))
        assert wrong.max_difference > 2 * TOLERANCES["f32"].max_difference
    with pytest.raises(ExportError, match=r"failed to run in a separate process \(.*ArtefactError: there is no file"):
        verify(tmp_path / "none.engine", make(0, preprocessing), images, tmp_path)


def test_verifying_process_ends_with_its_parent():
    code = (
        "import time; from ghostnets.export import verify\n"
        "verify.open_model = lambda *_, **__: (print('opened', flush=True), time.sleep(600))\n"
        "verify.main('net.onnx', 'images', 'outputs')"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == b"opened\n"
        assert process.poll() is None
        process.stdin.close()  # as the system does when the parent ends, however it ends
        assert process.wait(timeout=30) == 1
