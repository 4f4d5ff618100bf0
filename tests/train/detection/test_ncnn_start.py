"""Training from an ncnn file: folded batch normalisation is restored, outputs of other classes are new."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from ghostnets.checkpoints import create_model
from ghostnets.checkpoints.sources.ncnn import _trace
from ghostnets.errors import CheckpointError
from ghostnets.models.detection import Detector, create_detector
from ghostnets.train import Callback, train_model
from ghostnets.train.detection.network import build_initial_detector
from ghostnets.train.folded_norms import find_folded_norms, restore_norms
from ghostnets.train.recipes import RECIPES

CLASSES = ("fish", "shark")
IMAGES = [torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))]
MEASURED = "{} has batch normalisation folded into its convolutions: its statistics are measured on 2 training images"
OTHER_CLASSES = "{} has other classes (5 classes), so the outputs of classes are new"


def published() -> Detector:
    torch.manual_seed(0)
    return create_detector("nanodet_plus_m", num_classes=5).eval()


def write_ncnn(detector: Detector, path: Path) -> None:
    """Write the convolutions of a detector, with random biases in place of the normalisation, as ncnn does."""
    generator = torch.Generator().manual_seed(0)
    lines, content = ["Input data 0 1 data"], b""
    for number, (_, conv, _, act) in enumerate(_trace(detector, 3, 64)):
        weight = conv.weight.detach().flip(1) if number == 0 else conv.weight.detach()  # BGR
        bias = torch.randn(len(weight), generator=generator) * 0.1
        kind, groups = ("ConvolutionDepthWise", f" 7={conv.groups}") if conv.groups > 1 else ("Convolution", "")
        activation = "" if act is None else " 9=2 -23310=1,0.1"
        sizes = f"0={len(weight)} 1={conv.kernel_size[0]} 3={conv.stride[0]} 4={conv.padding[0]} 5=1 6={weight.numel()}"
        lines.append(f"{kind} c{number} 1 1 a b {sizes}{groups}{activation}")
        content += struct.pack("<I", 0) + weight.numpy().tobytes() + bias.numpy().tobytes()
    path.write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    path.with_suffix(".bin").write_bytes(content)


@pytest.fixture(scope="module")
def nanodet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ncnn") / "nanodet.param"
    write_ncnn(published(), path)
    return path


def test_restored_norms_keep_the_outputs_in_both_modes():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 7, 3, bias=False), nn.BatchNorm2d(7), nn.ReLU(), nn.Conv2d(7, 5, 1), nn.BatchNorm2d(5)
    )
    own = network[4]
    for norm in (network[1], own):  # as load_ncnn leaves them
        norm.bias.data.normal_()
        norm.running_var.fill_(1 - norm.eps)
    images = torch.randn(4, 3, 9, 8) * 3 + 1
    expected = network.eval()(images)
    assert not torch.allclose(network.train()(images), expected, atol=0.1)
    for norm in (network[1], own):
        norm.reset_running_stats()
        norm.running_var.fill_(1 - norm.eps)
    assert find_folded_norms(network) == [network[1], own]
    restore_norms(network, find_folded_norms(network), [images[:1], images[1:]])
    assert network.training
    torch.testing.assert_close(network.eval()(images), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(network.train()(images), expected, atol=1e-5, rtol=1e-5)
    assert not find_folded_norms(network)
    assert not find_folded_norms(nn.BatchNorm2d(3))  # new, not folded


def test_detector_of_an_ncnn_file_keeps_all_but_the_scores(nanodet: Path):
    recipe, messages = RECIPES["detect"].changed(model="nanodet_plus_m", weights=str(nanodet)), []
    detector = build_initial_detector(recipe, {"num_classes": 2}, CLASSES, images=IMAGES, on_message=messages.append)
    assert messages == [MEASURED.format(nanodet), OTHER_CLASSES.format(nanodet)]
    source = published().state_dict()
    for name, value in detector.state_dict().items():
        if name.startswith("head.predict.") and name.endswith("weight"):
            assert torch.equal(value[2:], source[name][5:])  # the distances
        elif value.ndim == 4:
            assert torch.equal(value, source[name]), name
    assert not find_folded_norms(detector)


def test_another_detector_takes_neck_and_head_of_an_ncnn_file(nanodet: Path):
    recipe, messages = RECIPES["detect"].changed(weights=str(nanodet)), []
    detector = build_initial_detector(recipe, {"num_classes": 2}, CLASSES, images=IMAGES, on_message=messages.append)
    assert messages == [
        MEASURED.format(nanodet),
        f"{nanodet} is of nanodet_plus_m: ghostdet_100 takes its neck and head, and the weights that come with the"
        " package of ghostnet_100; new are the convolutions between them",
        OTHER_CLASSES.format(nanodet),
    ]
    own = RECIPES["detect"].changed(model="nanodet_plus_m", weights=str(nanodet))
    source = build_initial_detector(own, {"num_classes": 2}, CLASSES, images=IMAGES, on_message=str).state_dict()
    found = detector.state_dict()
    taken = [name for name in found if name.startswith(("pan.", "head.")) and not name.startswith("pan.reduce.")]
    for name in taken:  # with the statistics that they have in the published network
        rows = 2 if name.startswith("head.predict.") else 0
        assert torch.equal(found[name][rows:] if rows else found[name], source[name][rows:] if rows else source[name])
    assert len(taken) > 100
    outputs = detector.backbone.out_indices
    embedded = create_model("ghostnet_100", pretrained="embedded", features_only=True, out_indices=outputs)
    for name, value in embedded.state_dict().items():
        assert torch.equal(found[f"backbone.{name}"], value), name
    small = recipe.changed(model="ghostdet_050")
    with pytest.raises(
        CheckpointError, match="have 96 channels, and those of ghostdet_050 48; choose --model ghostdet_1"
    ):
        build_initial_detector(small, {"num_classes": 2}, CLASSES, images=IMAGES, on_message=str)


def test_training_starts_from_an_ncnn_file(nanodet: Path, tmp_path: Path):
    for split in ("train", "val"):
        for folder in ("images", "labels"):
            (tmp_path / "data" / split / folder).mkdir(parents=True)
        for index in range(2):
            pixels = np.random.default_rng(index).integers(0, 255, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / split / "images" / f"{index}.png")
            (tmp_path / "data" / split / "labels" / f"{index}.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "data" / "data.yaml").write_text("train: train/images\nval: val/images\nnames: [fish, shark]\n")
    sentences: list[str] = []

    class Messages(Callback):
        def on_message(self, sentence: str) -> None:
            sentences.append(sentence)

    result = train_model(
        tmp_path / "data",
        folder=tmp_path / "run",
        model="nanodet_plus_m",
        weights=str(nanodet),
        image_size=64,
        epochs=1,
        progress=False,
        report=False,
        callbacks=[Messages()],
    )
    assert any(sentence.endswith("its statistics are measured on 2 training images") for sentence in sentences)
    assert len(result.history) == 1
