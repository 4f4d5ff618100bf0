"""scripts/pack_images.py and scripts/make_backbone.py on a few images, with a stub of the teacher."""

import sys
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from ghostnets import create_model
from ghostnets.checkpoints import Checkpoint, embedded_weights, read_checkpoint, save_checkpoint
from ghostnets.preprocessing import Preprocessing

SCRIPTS = str(Path(__file__).parents[1] / "scripts")


class StubTeacherMaps(nn.Module):
    def __init__(self, **_: bool) -> None:
        super().__init__()
        self.network = nn.Module()
        self.network._fc = nn.Linear(1280, 1000)


class StubTeacher:
    """Maps of the teacher's shapes; pooled features that depend on the mean colour."""

    num_features = 1280

    def __init__(self, *, symmetric: bool) -> None:
        self.symmetric = symmetric

    def __call__(self, pixels: Tensor) -> list[Tensor]:
        count, side = len(pixels), pixels.shape[2]
        generator = torch.Generator().manual_seed(0)
        sides = {16: side // 2, 24: side // 4, 40: side // 8, 80: side // 16, 112: side // 16}
        maps = [torch.rand(count, c, n, n, generator=generator) for c, n in sides.items()]
        pooled = (pixels.mean((2, 3)) / 255) @ torch.rand(3, 1280, generator=generator)
        return [*maps, pooled, torch.zeros(count, 1000)]


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """The module make_backbone with a stub of the teacher and phases of a few small crops."""
    stub = ModuleType("efficientnet_lite")
    stub.Teacher, stub.TeacherMaps = StubTeacher, StubTeacherMaps  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(SCRIPTS)
        patch.setitem(sys.modules, "efficientnet_lite", stub)
        import make_backbone

        phases = {name: make_backbone.Phase(p.share, 4, 32, 64) for name, p in make_backbone.PHASES.items()}
        patch.setattr(make_backbone, "PHASES", phases)
        yield make_backbone
        for name in ("make_backbone", "backbone_student", "pack_images"):
            del sys.modules[name]


@pytest.fixture(scope="module")
def cache(scripts: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of two classes, a labelled photograph and an unlabelled one, packed; the teacher's features."""
    folder = tmp_path_factory.mktemp("backbone")
    generator = np.random.default_rng(0)
    sizes = {"small/a": (64, 2), "small/b": (64, 2), "photos/c": (150, 1), "more/x": (300, 1), "held/d": (64, 1)}
    for name, (side, count) in sizes.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = generator.integers(256, size=(8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((side, side)).save(folder / name / f"{number}.png")
    Image.open(folder / "held/d/0.png").transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(folder / "small/a/copy.png")
    labelled = [(folder / "small", "0.5"), (folder / "photos", "0.25")]
    options = Namespace(
        cache=folder / "cache", labelled=labelled, unlabelled=[(folder / "more", "0.25")], held_out=[folder / "held"]
    )
    sys.modules["pack_images"].pack(options)
    scripts.precompute(options)
    return folder / "cache"


def test_draw_meets_the_share_of_each_folder(scripts: Any, cache: Path):
    images = scripts.PackedImages(cache)
    assert images.labels.tolist() == [0, 0, 1, 1, 2, -1]  # without the mirrored copy of the held-out image
    numbers = images.draw(np.random.default_rng(1), 8)
    assert (numbers < 4).sum() == 4
    assert numbers[4:].tolist() == [4, 4, 5, 5]
    assert images.pixels(5).shape == (224, 224, 3)


def test_soft_labels_are_distributions_or_zero(scripts: Any, cache: Path, tmp_path: Path):
    options = Namespace(cache=cache, run=tmp_path, minutes=1, start=embedded_weights("ghostnet_100"))
    training = scripts.Training(scripts.PackedImages(cache), options)
    labels = training.soft_labels(np.array([0, 3, 4, 5]))
    assert labels.sum(1).tolist() == pytest.approx([1, 1, 1, 0], abs=1e-3)
    assert labels.argmax(1)[:3].tolist() == [0, 1, 2]
    assert labels[2, 2] == pytest.approx(0.9 + 0.1 / 3)


def test_train_passes_through_all_phases_and_restarts_warm(scripts: Any, cache: Path, tmp_path: Path):
    images = scripts.PackedImages(cache)
    options = Namespace(cache=cache, run=tmp_path / "run", minutes=1, start=None)
    training = scripts.Training(images, options)
    training.seconds, training.limit = 0.0, 1e-9  # one step
    training.run()
    resumed = scripts.Training(images, options)
    assert (resumed.kind, resumed.step) == ("stagewise", 1)
    resumed.seconds, resumed.limit = 30.0, 30.0001
    resumed.run()
    state = torch.load(tmp_path / "run/state.pt")
    assert (state["kind"], state["step"]) == ("joint", 2)
    output = tmp_path / "backbone.safetensors"
    scripts.export(Namespace(state=tmp_path / "run/state.pt", output=output))
    checkpoint = read_checkpoint(output)
    assert (checkpoint.architecture, checkpoint.preprocessing.image_size) == ("ghostnet_100", 160)
    averaged = checkpoint.state_dict["conv_stem.weight"]
    assert averaged.dtype == torch.float16
    restart = Namespace(cache=cache, run=tmp_path / "run2", minutes=1, start=tmp_path / "run/state.pt")
    restarted = scripts.Training(images, restart)
    assert (restarted.kind, restarted.step, restarted.seconds) == ("joint", 0, 0.0)
    assert torch.equal(restarted.student.network.conv_stem.weight.half(), averaged)
    restarted.save()
    pair = {"first": tmp_path / "run/state.pt", "second": tmp_path / "run2/state.pt", "output": tmp_path / "mean.pt"}
    end = torch.load(pair["second"])
    end["average"]["module.network.conv_stem.weight"] += 4.0
    torch.save(end, pair["second"])
    scripts.interpolate(Namespace(share=0.25, **pair))
    mean = scripts.load_averaged_student(pair["output"]).network.conv_stem.weight
    assert torch.allclose(mean, restarted.student.network.conv_stem.weight + 1.0)


def test_learning_rate_reaches_zero_in_the_last_phase(scripts: Any):
    phases = [scripts.Moment.at(x, stagewise=True).phase for x in (0, 0.2, 0.7, 0.99)]
    assert phases == list(scripts.PHASES)
    assert scripts.Moment.at(0, stagewise=False).phase == "joint 64"
    end = scripts.Moment.at(1, stagewise=False)
    assert (end.phase, end.learning_rate) == ("joint 128", 0.0)
    assert sum(phase.share for phase in scripts.PHASES.values()) == pytest.approx(1)


def test_interpolate_rejects_a_share_above_one(scripts: Any, tmp_path: Path):
    with pytest.raises(SystemExit, match=r"must be between 0 and 1, got 1\.5"):
        scripts.interpolate(Namespace(first=tmp_path, second=tmp_path, share=1.5, output=tmp_path))


def test_start_rejects_a_network_with_classifier(scripts: Any, tmp_path: Path):
    weights = create_model("ghostnet_050", num_classes=2).state_dict()
    preprocessing = Preprocessing.standard(32, 3)
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, Checkpoint("ghostnet_050", {"num_classes": 2}, weights, ("a", "b"), preprocessing))
    with pytest.raises(SystemExit, match=r"--start needs ghostnet_100 with num_classes=0, got ghostnet_050"):
        scripts.load_start(path, 3)
