"""Teachers: what they are asked, and what is made of their answers."""

from pathlib import Path

import pytest
import torch
from conftest import make_images
from torch import nn
from torch.nn import functional as F

from ghostnets.checkpoints import read_checkpoint
from ghostnets.data import ArrayDataset
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Recipe, RunFolder, train_model
from ghostnets.train.distill import Distillation, FeatureStudent, Teacher, load_teacher

COLOUR = Preprocessing(8, 8)


class Means(nn.Module):
    """Logits are linear in the mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x
        return self.linear(x.mean((2, 3)))


def test_soft_labels_against_the_formula():
    teacher = Teacher(Means(), COLOUR)
    recipe = Recipe(temperature=3.0)
    pixels, logits = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8), torch.randn(5, 4)
    losses = Distillation(teacher, recipe).losses(pixels, torch.arange(5), logits, None)
    taught = teacher.model(COLOUR.normalize(pixels))
    for loss, ours, theirs in zip(losses, logits, taught, strict=True):
        p, q = (theirs / 3).softmax(0), (ours / 3).softmax(0)
        assert loss.item() == pytest.approx(-9 * (p * q.log()).sum().item(), rel=1e-5)
    # Up to the teacher's own entropy this is the divergence: it is smallest for the teacher's own answers.
    own = Distillation(teacher, recipe).losses(pixels, torch.arange(5), taught, None)
    assert (own <= losses).all()


def test_features_against_the_formula():
    teacher = Teacher(Means(), COLOUR)
    pixels, features = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8), torch.randn(5, 3)
    losses = Distillation(teacher, Recipe()).losses(pixels, torch.arange(5), torch.zeros(5, 4), features)
    shown = COLOUR.normalize(pixels).mean((2, 3))
    torch.testing.assert_close(losses, 2 - 2 * F.cosine_similarity(features, shown))


@pytest.mark.parametrize("preprocessing", [Preprocessing(16, 16), Preprocessing(8, 8, (0.5,), (0.2,))])
def test_the_teacher_sees_its_own_size_and_colours(preprocessing: Preprocessing):
    class Seeing(Means):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.seen = x
            return self.linear(x.mean((2, 3)).expand(-1, 3))

    teacher = Teacher(Seeing(), preprocessing)
    teacher(torch.full((2, 3, 8, 8), 51, dtype=torch.uint8))
    size, channels = preprocessing.image_size, preprocessing.channels
    assert teacher.model.seen.shape == (2, channels, size, size)
    expected = (0.2 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    torch.testing.assert_close(teacher.model.seen[0, :, 3, 3], expected, rtol=1e-4, atol=1e-5)


def test_features_of_other_libraries_are_what_their_classifier_takes():
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


def test_the_student_of_features_has_the_logits_of_its_network():
    network = create_model("ghost_resnet20", num_classes=3).eval()
    student = FeatureStudent(network, 7).eval()
    x = torch.randn(2, 3, 8, 8)
    logits, features = student(x)
    assert torch.equal(logits, network(x))
    assert features.shape == (2, 7)


def test_a_teacher_that_was_asked_once_gives_the_same_answers(tmp_path: Path):
    images = ArrayDataset(torch.randint(0, 256, (9, 3, 8, 8), dtype=torch.uint8), torch.zeros(9, dtype=torch.long))
    teacher, recipe = Teacher(Means(), COLOUR), Recipe()
    asked, remembering = Distillation(teacher, recipe), Distillation(teacher, recipe)
    remembering.remember(images, COLOUR, tmp_path / "teacher.safetensors")
    indices, logits = torch.tensor([7, 2, 2]), torch.randn(3, 4)
    expected = asked.losses(images.pixels[indices], indices, logits, None)
    torch.testing.assert_close(remembering.losses(torch.zeros(3, 3, 8, 8), indices, logits, None), expected)
    again = Distillation(Teacher(Means(), COLOUR), recipe)  # other weights: the file answers
    again.remember(images, COLOUR, tmp_path / "teacher.safetensors")
    torch.testing.assert_close(again.losses(torch.zeros(3, 3, 8, 8), indices, logits, None), expected)


def test_a_student_learns_from_a_run(tiny_run: Path, tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"dark": 20, "light": 20})
    common = Recipe(
        model="ghost_resnet20", epochs=1, batch_size=8, teacher=str(tiny_run / "best.safetensors"), temperature=2.0
    )
    train_model(photos, folder=tmp_path / "fresh", recipe=common)
    assert not RunFolder(tmp_path / "fresh").teacher.exists()  # images differ each time
    train_model(photos, folder=tmp_path / "kept", recipe=common.changed(shift=0, flip=False))
    assert RunFolder(tmp_path / "kept").teacher.exists()


def test_teachers_that_cannot_be_had(tiny_run: Path):
    file = str(tiny_run / "best.safetensors")
    assert load_teacher(file, ("dark", "light")).class_names == ("dark", "light")
    with pytest.raises(ConfigurationError, match=r"knows 2 classes \(dark, light, ...\), the data has 2 \(light, dark"):
        load_teacher(file, ("light", "dark"))
    with pytest.raises(ConfigurationError, match="torchvision has no network 'resnet19'"):
        load_teacher("torchvision:resnet19", ("a", "b"))
    with pytest.raises(CheckpointError, match="there is no"):
        load_teacher("nothing.safetensors", ("a", "b"))
    with pytest.raises(ConfigurationError, match="no linear layer"):
        Teacher(nn.Conv2d(3, 3, 1), COLOUR)


def test_frozen_runs_change_the_classifier_alone(tiny_run: Path, tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"x": 20, "y": 20})
    start = read_checkpoint(tiny_run / "best.safetensors").state_dict
    recipe = Recipe(weights=str(tiny_run / "best.safetensors"), frozen=True, epochs=4, batch_size=8, lr=0.3)
    result = train_model(photos, folder=tmp_path / "run", recipe=recipe)
    end = read_checkpoint(result.checkpoint).state_dict
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert changed == {"classifier.weight", "classifier.bias"}
    # The figure that was chosen on features is that of the whole network on images.
    assert result.evaluation.top1 == max(row.val_top1 for row in result.history)
