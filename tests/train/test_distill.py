"""Distillation: teachers, their inputs, and the losses."""

import shutil
from pathlib import Path

import pytest
import torch
from conftest import make_images
from quiet import train_model
from torch import nn
from torch.nn import functional as F

from ghostnets.checkpoints import read_checkpoint
from ghostnets.data import ArrayDataset
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Recipe, RunFolder
from ghostnets.train.distill import Distillation, FeatureStudent, Teacher, load_teacher
from ghostnets.train.network import _absolute, _absolute_teacher

COLOUR = Preprocessing(8, 8)


class Means(nn.Module):
    """Logits are linear in the mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.inputs = x
        return self.linear(x.mean((2, 3)))


def test_soft_label_loss_matches_the_formula():
    teacher = Teacher(Means(), COLOUR)
    recipe = Recipe(temperature=3.0)
    pixels, logits = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8), torch.randn(5, 4)
    losses = Distillation(teacher, recipe).losses(pixels, torch.arange(5), logits, None)
    teacher_logits = teacher.model(COLOUR.normalize(pixels))
    for loss, ours, theirs in zip(losses, logits, teacher_logits, strict=True):
        p, q = (theirs / 3).softmax(0), (ours / 3).softmax(0)
        assert loss.item() == pytest.approx(-9 * (p * q.log()).sum().item(), rel=1e-5)
    # Up to the teacher's entropy this is the KL divergence, which is smallest for the teacher's own logits.
    own = Distillation(teacher, recipe).losses(pixels, torch.arange(5), teacher_logits, None)
    assert (own <= losses).all()


def test_feature_loss_matches_the_formula():
    teacher = Teacher(Means(), COLOUR)
    pixels, features = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8), torch.randn(5, 3)
    losses = Distillation(teacher, Recipe()).losses(pixels, torch.arange(5), torch.zeros(5, 4), features)
    teacher_features = COLOUR.normalize(pixels).mean((2, 3))
    torch.testing.assert_close(losses, 2 - 2 * F.cosine_similarity(features, teacher_features))


@pytest.mark.parametrize("preprocessing", [Preprocessing(16, 16), Preprocessing(8, 8, (0.5,), (0.2,))])
def test_teacher_gets_its_own_image_size_and_channels(preprocessing: Preprocessing):
    class Recording(Means):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.inputs = x
            return self.linear(x.mean((2, 3)).expand(-1, 3))

    teacher = Teacher(Recording(), preprocessing)
    teacher(torch.full((2, 3, 8, 8), 51, dtype=torch.uint8))
    size, channels = preprocessing.image_size, preprocessing.channels
    assert teacher.model.inputs.shape == (2, channels, size, size)
    expected = (0.2 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    torch.testing.assert_close(teacher.model.inputs[0, :, 3, 3], expected, rtol=1e-4, atol=1e-5)


def test_features_of_timm_and_torchvision_are_the_classifier_inputs():
    timm = pytest.importorskip("timm", reason="timm is the peer")
    torchvision = pytest.importorskip("torchvision.models")
    for model, channels in [
        (timm.create_model("ghostnet_050", num_classes=5), 1280),
        (torchvision.mobilenet_v3_small(num_classes=5), 1024),
    ]:
        teacher = Teacher(model, Preprocessing(32, 32))
        logits, features = teacher(torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8))
        assert teacher.feature_channels == channels
        torch.testing.assert_close(teacher.classifier(features), logits)
        assert not any(p.requires_grad for p in model.parameters())


def test_feature_student_keeps_the_logits_of_its_network():
    network = create_model("ghost_resnet20", num_classes=3).eval()
    student = FeatureStudent(network, 7).eval()
    x = torch.randn(2, 3, 8, 8)
    logits, features = student(x)
    assert torch.equal(logits, network(x))
    assert features.shape == (2, 7)


def test_feature_student_normalises_its_head_once():
    student = FeatureStudent(create_model("ghostnet_100_d_li14", num_classes=3), 7)
    student(torch.randn(2, 3, 32, 32))
    assert {int(value) for name, value in student.named_buffers() if name.endswith("num_batches_tracked")} == {1}


def test_cached_teacher_gives_the_same_losses(tmp_path: Path):
    images = ArrayDataset(torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8), torch.zeros(9, dtype=torch.long))
    teacher, recipe = Teacher(Means(), COLOUR), Recipe()
    live, cached = Distillation(teacher, recipe), Distillation(teacher, recipe)
    cached.cache_teacher(images, COLOUR, tmp_path / "teacher.safetensors")
    indices, logits = torch.tensor([7, 2, 2]), torch.randn(3, 4)
    expected = live.losses(images.pixels[indices], indices, logits, None)
    torch.testing.assert_close(cached.losses(torch.zeros(3, 3, 8, 8), indices, logits, None), expected)
    again = Distillation(Teacher(Means(), COLOUR), recipe)  # other weights, same file
    again.cache_teacher(images, COLOUR, tmp_path / "teacher.safetensors")
    torch.testing.assert_close(again.losses(torch.zeros(3, 3, 8, 8), indices, logits, None), expected)


def test_teacher_is_cached_only_without_augmentation(tiny_run: Path, tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"dark": 20, "light": 20})
    common = Recipe(
        model="ghost_resnet20", epochs=1, batch_size=8, teacher=str(tiny_run / "best.safetensors"), temperature=2.0
    )
    train_model(photos, folder=tmp_path / "fresh", recipe=common)
    assert not RunFolder(tmp_path / "fresh").teacher.exists()  # images are augmented
    train_model(photos, folder=tmp_path / "cached", recipe=common.changed(shift=0, flip=False))
    assert RunFolder(tmp_path / "cached").teacher.exists()


@pytest.mark.parametrize("form", ["{}", "ghostnet_050={}"])
def test_teacher_of_a_run_has_its_preprocessing_and_classes(tiny_run: Path, tmp_path: Path, form: str):
    """Whatever its path: ``lr=0.1`` is a name of a run, not a network ``runs/lr`` with the file ``0.1``."""
    (folder := tmp_path / "lr=0.1").mkdir()
    shutil.copy(tiny_run / "best.safetensors", folder)
    checkpoint = read_checkpoint(folder)
    name = form.format(folder / "best.safetensors").replace("ghostnet_050", checkpoint.architecture)
    teacher = load_teacher(name, checkpoint.class_names)
    assert teacher.preprocessing == checkpoint.preprocessing
    with pytest.raises(ConfigurationError, match="class 0 is dark there, and cat in the data"):
        load_teacher(name, ("cat", "dog"))


def test_locations_of_weights_and_teacher_are_absolute(tiny_run: Path, tmp_path: Path, monkeypatch):
    shutil.copytree(tiny_run, tmp_path / "runs" / "lr=0.1")
    (tmp_path / "pretrained").mkdir()  # not the published weights, whose name this is
    monkeypatch.chdir(tmp_path)
    best = str(tmp_path / "runs" / "lr=0.1" / "best.safetensors")
    assert _absolute("runs/lr=0.1") == _absolute_teacher("runs/lr=0.1") == best
    assert _absolute_teacher("ghostnet_050=runs/lr=0.1/best.safetensors") == f"ghostnet_050={best}"
    for name in ("pretrained", "embedded", None):
        assert _absolute(name) == name
    for name in ("pretrained", "ghostnet_100", "timm:resnet18", "ghostnet_100=hf://a/b", None):
        assert _absolute_teacher(name) == name


def test_unusable_teachers_are_rejected(tiny_run: Path):
    file = str(tiny_run / "best.safetensors")
    assert load_teacher(file, ("dark", "light")).class_names == ("dark", "light")
    with pytest.raises(ConfigurationError, match=r"has 2 \(class 0 is dark there, and light in the data"):
        load_teacher(file, ("light", "dark"))
    with pytest.raises(ConfigurationError, match="torchvision has no classifier 'resnet19'"):
        load_teacher("torchvision:resnet19", ("a", "b"))
    with pytest.raises(CheckpointError, match="there is no"):
        load_teacher("nothing.safetensors", ("a", "b"))
    with pytest.raises(ConfigurationError, match="no linear classifier"):
        Teacher(nn.Conv2d(3, 3, 1), COLOUR)


def test_frozen_run_changes_only_the_classifier(tiny_run: Path, tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"x": 20, "y": 20})
    start = read_checkpoint(tiny_run / "best.safetensors").state_dict
    recipe = Recipe(weights=str(tiny_run / "best.safetensors"), frozen=True, epochs=4, batch_size=8, lr=0.3)
    result = train_model(photos, folder=tmp_path / "run", recipe=recipe)
    end = read_checkpoint(result.checkpoint).state_dict
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    # The accuracy on features equals that of the whole network on images.
    assert result.evaluation.top1 == max(row.val_top1 for row in result.history)
