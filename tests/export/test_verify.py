"""The comparison must be able to fail."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import randomized

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, Description
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.errors import ExportError
from ghostnets.export.report import TOLERANCES, Comparison, complaint
from ghostnets.export.verify import verify
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

GOOD = Comparison(
    *(1e-6, 1e-7, 1e-6, 1.0, None, (1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (2.0, 2.0, 2.0), 40, 1, "runtime", False, "cpu")
)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"max_difference": 1e-3}, "the max difference is 0.001, at most 0.0001 is allowed"),
        ({"mean_difference": float("nan")}, "the mean difference is nan"),
        ({"max_feature_difference": 0.5}, "the max difference is 0.5"),
        ({"max_feature_difference": 1e-5}, None),
        ({"top1_agreement": 0.9}, "90.0% of the images get the same class, at least 98% must"),
    ],
    ids=str,
)
def test_what_is_beyond_the_tolerance(changes: dict, message: str | None):
    found = complaint(replace(GOOD, **changes), TOLERANCES["f32"])
    assert found is None if message is None else message in str(found)


@pytest.mark.skipif(not engine.session.is_built(), reason="the engine needs a C++ compiler")
def test_another_network_and_another_normalisation_are_noticed(tmp_path: Path):
    preprocessing = Preprocessing(32, 32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
    shifted = Preprocessing(32, 32, (0.4, 0.5, 0.5), (0.2, 0.3, 0.3))
    arguments = {"num_classes": 3, "width": 0.1}

    def write(seed: int, used: Preprocessing) -> Path:
        torch.manual_seed(seed)
        weights = randomized(create_model("ghostnet_100", **arguments)).state_dict()
        path = tmp_path / f"{seed}-{used.mean[2]}.safetensors"
        save_checkpoint(path, Checkpoint("ghostnet_100", arguments, weights, tuple("abc"), used))
        return path

    description = Description("ghostnet_100", arguments, tuple("abc"), preprocessing)
    session = engine.compile(write(0, preprocessing))
    session.save(tmp_path / "net.engine", metadata={METADATA_KEY: description.to_json()})
    images = [np.random.default_rng(0).integers(0, 256, (18, 32, 32, 3), dtype=np.uint8)]
    for seed, used in [(1, preprocessing), (0, shifted)]:
        wrong = verify(tmp_path / "net.engine", write(seed, used), images, tmp_path)
        assert "max difference" in str(complaint(wrong, TOLERANCES["f32"]))
        assert wrong.max_difference > 2 * TOLERANCES["f32"].max_difference
    with pytest.raises(ExportError, match=r"did not run in a process of its own \(.*ArtefactError: there is no file"):
        verify(tmp_path / "none.engine", write(0, preprocessing), images, tmp_path)
