import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.checkpoints.save import METADATA_KEY
from ghostnets.cli.main import main
from ghostnets.errors import CheckpointError
from ghostnets.models import create_model
from ghostnets.models.detection import create_detector
from ghostnets.models.names import DETECTOR_NAMES
from ghostnets.preprocessing import Preprocessing

ARGUMENTS = {"num_classes": 2, "channels": 16}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    weights = create_detector("ghostdet_050", **ARGUMENTS).state_dict()
    return Checkpoint("ghostdet_050", ARGUMENTS, weights, ("fish", "shark"), Preprocessing.for_boxes(64))


@pytest.fixture
def path(tmp_path: Path, checkpoint: Checkpoint) -> Path:
    save_checkpoint(tmp_path / "fish.safetensors", checkpoint)
    return tmp_path / "fish.safetensors"


def classifier_file(folder: Path) -> Path:
    arguments = {"num_classes": 2, "width": 0.1}
    weights = create_model("ghostnet_050", **arguments).state_dict()
    save_checkpoint(
        folder / "c.safetensors", Checkpoint("ghostnet_050", arguments, weights, ("a", "b"), Preprocessing(16, 16))
    )
    return folder / "c.safetensors"


def rewrite(path: Path, checkpoint: Checkpoint, **changes) -> Path:
    with safe_open(path, framework="pt") as file:
        description = json.loads(file.metadata()[METADATA_KEY])
    save_file(checkpoint.state_dict, path, {METADATA_KEY: json.dumps({**description, **changes})})
    return path


def test_detector_comes_back_with_its_task_and_outputs(path: Path, checkpoint: Checkpoint):
    back = read_checkpoint(path, task="detect")
    assert (back.task, back.class_names, back.preprocessing) == ("detect", ("fish", "shark"), checkpoint.preprocessing)
    x = torch.randn(1, 3, 64, 64)
    detector = create_detector("ghostdet_050", **ARGUMENTS)
    detector.load_state_dict(checkpoint.state_dict)
    assert torch.equal(back.build()(x), detector.eval()(x))


def test_names_without_torch_are_those_of_the_registry():
    from ghostnets.models.detection import DETECTORS

    assert DETECTORS.keys() == DETECTOR_NAMES


def test_wrong_task_is_one_sentence(path: Path, tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"is a detector .ghostdet_050., and a classifier is needed here; find"):
        read_checkpoint(path)
    with pytest.raises(CheckpointError, match=r"is a classifier .ghostnet_050., and a detector is needed here; class"):
        read_checkpoint(classifier_file(tmp_path), task="detect")
    assert read_checkpoint(path, task=None).task == "detect"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "classify"}, "task is 'classify', but ghostdet_050 is a detector"),
        ({"task": ["detect"]}, "task is"),
        ({"preprocessing": Preprocessing(64, 64).to_dict()}, "fit is 'crop', not for a detector"),
        ({"preprocessing": {**Preprocessing.for_boxes(64).to_dict(), "fit": "bend"}}, "fit is 'bend'"),
        ({"class_names": ["fish"]}, "2 outputs but 1 class names"),
        ({"architecture": "ghostdet_100"}, "does not fit the network Detector"),
        ({"arguments": {**ARGUMENTS, "backbone": "ghostnet_9"}}, "ghostnet_9"),
        ({"arguments": {**ARGUMENTS, "channels": -1}}, "channels is -1"),
    ],
)
def test_changed_description_is_rejected(path: Path, checkpoint: Checkpoint, changes: dict, message: str):
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(rewrite(path, checkpoint, **changes), task="detect")


def test_file_of_a_classifier_has_no_word_of_tasks(tmp_path: Path):
    with safe_open(classifier_file(tmp_path), framework="pt") as file:
        description = json.loads(file.metadata()[METADATA_KEY])
    assert "task" not in description
    assert description["preprocessing"].keys() == {"image_size", "resize_to", "mean", "std", "interpolation"}


def test_info_and_refusals_of_commands(path: Path, capsys):
    assert main(["info", str(path)]) == 0
    assert "ghostdet_050(num_classes=2, channels=16), one image of 3 x 64 x 64" in capsys.readouterr().out
    assert main(["ghostify", str(path), str(path.parent), "--out", "small.safetensors"]) == 1
    assert "is a detector (ghostdet_050), and a classifier is needed here" in capsys.readouterr().err
    assert main(["eval", str(path), "fashion-mnist"]) == 1
    assert "fashion-mnist has no labelled boxes; pass a folder with boxes" in capsys.readouterr().err


def test_letterbox_keeps_the_shape_and_stretch_fills():
    import numpy as np

    wide = np.full((30, 60, 3), 200, np.uint8)
    letterbox = Preprocessing.for_boxes(32, fit="letterbox")
    fitted = letterbox.fitted(wide)
    assert fitted.size == (60, 30)
    assert (fitted.pixels[:16] == 200).all()
    assert (fitted.pixels[16:] == 114).all()
    assert letterbox.scale((60, 30)) == (60 / 32, 30 / 16)
    stretch = replace(letterbox, fit="stretch")
    assert (stretch.fitted(wide).pixels == 200).all()
    assert stretch.scale((60, 30)) == (60 / 32, 30 / 32)
    assert (stretch.pixels(wide) == stretch.fitted(wide).pixels).all()
    assert stretch.center(stretch.read(wide)).shape == (3, 32, 32)
    assert letterbox.fitted(np.zeros((1, 5000, 3), np.uint8)).pixels.shape == (32, 32, 3)
