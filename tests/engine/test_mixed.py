"""Plans of int8 in which some layers compute in float32."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from conftest import enliven
from torch import nn

from ghostnets import engine
from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.errors import ConfigurationError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

NETWORKS = {
    "ghostnet_100": lambda: create_model("ghostnet_100", num_classes=5, width=0.3),
    "ghostnetv2_100": lambda: create_model("ghostnetv2_100", num_classes=5, width=0.3),
    "mobilenet_v3_small": lambda: torchvision.models.mobilenet_v3_small(num_classes=5),
    "shufflenet_v2_x0_5": lambda: torchvision.models.shufflenet_v2_x0_5(num_classes=5),
}


@functools.cache
def network(name: str) -> tuple[nn.Module, np.ndarray, np.ndarray, list[str]]:
    """Return a network, images, its outputs in float32, and the names of its nodes."""
    torch.manual_seed(0)
    model = enliven(NETWORKS[name]()).eval()
    images = torch.randn(3, 3, 40, 33).numpy()
    session = engine.compile(model, threads=1)
    return model, images, session(images), sorted({node["name"] for node in session.plan.nodes if node["name"]})


def quantized(name: str, float_layers: list[str], threads: int = 1) -> engine.Session:
    model, images, _, _ = network(name)
    return engine.compile(
        model, precision="int8", calibration=[images], method="minmax", float_layers=float_layers, threads=threads
    )


def error(name: str, got: np.ndarray) -> float:
    _, _, expected, _ = network(name)
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_all_layers_in_float_give_the_bits_of_float32(name: str):
    _, images, expected, names = network(name)
    assert error(name, quantized(name, [])(images)) > 1e-3
    np.testing.assert_array_equal(quantized(name, names)(images), expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_second_layer_in_float_is_bounded_and_independent_of_threads_and_batch(name: str):
    _, images, _, names = network(name)
    session = quantized(name, names[::2])
    got = session(images)
    kinds = [node["kind"] for node in session.plan.nodes]
    assert "convert" in kinds
    assert 0 < len(session.plan.floats) < len(session.plan.layouts)
    assert error(name, got) < 2 * error(name, quantized(name, [])(images))  # a wrong conversion gives 1
    np.testing.assert_array_equal(quantized(name, names[::2], threads=2)(images), got)
    alone = np.concatenate([session(image[None]) for image in images])
    np.testing.assert_allclose(alone, got, atol=0.03 * np.abs(got).max())


def test_layer_with_one_huge_channel_in_float_lowers_the_error():
    """The input of the second convolution needs one range: the first channel leaves three steps for the others."""
    torch.manual_seed(0)
    convs = [nn.Conv2d(3, 16, 3), nn.Conv2d(16, 24, 3, padding=1), nn.Conv2d(24, 16, 1)]
    with torch.no_grad():
        convs[0].weight[0] *= 300
        convs[1].weight[:, 0] = 0
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)]
    model = nn.Sequential(convs[0], nn.ReLU(), convs[1], nn.ReLU(), convs[2], nn.ReLU(), *head).eval()
    images = torch.randn(4, 3, 20, 20)
    expected = engine.compile(model, threads=1)(images)
    options = {"precision": "int8", "calibration": [images], "threads": 1, "method": "minmax"}
    errors = [
        float((engine.compile(model, float_layers=kept, **options)(images) - expected).abs().max())
        for kept in ([], ["0", "2"])
    ]
    assert errors[1] < errors[0] / 5


def test_layers_in_float_leave_the_others_their_ranges_by_channel():
    name, (*_, names) = "ghostnet_100", network("ghostnet_100")

    def count_by_channel(kept: list[str]) -> int:
        plan = quantized(name, kept).plan
        ranges = [plan.tensors[key] for index, key in enumerate(plan.ranges) if key and index not in plan.floats]
        return sum(bool(np.ptp(high - low) > 0) for low, high in ranges)

    everything = count_by_channel([])
    assert everything > len(names) / 2
    for layer in names[1:-1:4]:
        assert count_by_channel([layer]) >= everything - 3  # maps of the layer itself are in float32


def test_save_and_load_keep_the_types_of_maps(tmp_path: Path):
    _, images, _, names = network("mobilenet_v3_small")
    session = quantized("mobilenet_v3_small", names[::3])
    session.save(tmp_path / "plan.engine")
    np.testing.assert_array_equal(engine.load(tmp_path / "plan.engine", threads=1)(images), session(images))


def test_part_of_a_ghost_module_keeps_the_module(tmp_path: Path):
    plan = quantized("ghostnet_100", ["blocks.1.0.ghost1.primary_conv.0"]).plan
    (node,) = [node for node in plan.nodes if node["name"] == "blocks.1.0.ghost1" and node["kind"] == "ghost"]
    assert node["output"] in plan.floats
    assert node["input"] in plan.floats


def test_float_layers_of_a_checkpoint_are_kept(tmp_path: Path):
    model, images, _, _ = network("ghostnet_100")
    arguments, names = {"num_classes": 5, "width": 0.3}, tuple("abcde")
    save_checkpoint(
        tmp_path / "a.safetensors",
        Checkpoint(
            "ghostnet_100",
            arguments,
            model.state_dict(),
            names,
            Preprocessing.standard(40, 3),
            float_layers=("blocks.0",),
        ),
    )
    read = read_checkpoint(tmp_path / "a.safetensors")
    assert read.float_layers == ("blocks.0",)
    session = engine.compile(read, precision="int8", calibration=[images], threads=1)
    assert {node["name"] for node in session.plan.nodes if node.get("output") in session.plan.floats} >= {
        "blocks.0.0.ghost1",
        "blocks.0.0.ghost2",
    }
    assert engine.compile(read, threads=1).plan.floats == []


def test_sums_and_resizing_of_float_maps_stay_in_float():
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.low, self.high = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            maps = self.body(x).relu()
            return nn.functional.interpolate(
                self.low(maps) + self.high(maps), x.shape[2:], mode="bilinear", align_corners=False
            )

    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 12).numpy()
    options = {"precision": "int8", "calibration": [images], "threads": 1}
    session = engine.compile(Head().eval(), float_layers=("low", "high"), **options)
    kinds = [node["kind"] for node in session.plan.nodes]
    assert kinds.count("convert") == 1  # of the map that both convolutions read
    assert len(np.unique(session(images)[0][0, 0])) > 150  # of 192 pixels: not 256 levels that were interpolated


def test_unknown_layer_raises():
    with pytest.raises(ConfigurationError, match="has no layer 'nothing' to keep in float32"):
        quantized("ghostnet_100", ["nothing"])
