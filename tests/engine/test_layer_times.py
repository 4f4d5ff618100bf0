"""Times by layer: the multiply-adds are those that ``measure.count`` finds in the network, the rows its modules."""

import numpy as np
import pytest
import torch

from ghostnets import engine
from ghostnets.errors import ConfigurationError
from ghostnets.measure import MachineLimits, count
from ghostnets.models import create_model


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_050", "ghost_resnet18", "ghost_vgg16"])
@pytest.mark.parametrize("threads", [1, 2])
def test_macs_match_count(name: str, threads: int):
    model = create_model(name, num_classes=7).eval()
    layers = engine.compile(model, threads=threads).profile(torch.randn(3, 3, 64, 64), runs=2)
    assert sum(layer.macs for layer in layers) == pytest.approx(3 * count(model, (3, 64, 64)).macs)
    modules = dict(model.named_modules())
    assert all(layer.name in modules for layer in layers)
    assert all(layer.seconds > 0 for layer in layers[:-1])
    assert layers[-1].kind == "waiting"


def test_profile_rows_of_a_small_run():
    model = create_model("ghostnet_050", num_classes=10).eval()
    first, *_, last, _ = engine.compile(model, threads=1).profile(np.zeros((1, 3, 32, 32), np.float32), runs=1)
    assert (first.name, first.kind, first.macs) == ("conv_stem", "stem", 16 * 16 * 8 * 27)
    assert (last.name, last.kind, last.macs) == ("classifier", "linear", 10 * 1280)
    assert last.weight_bytes >= 4 * 10 * 1280


def test_time_layers_has_every_convolution():
    model = create_model("resnet20", num_classes=10, depths=(1, 1, 1)).eval()
    seconds = engine.time_layers(model, (3, 24, 32), runs=2)
    assert {layer.name for layer in count(model, (3, 24, 32)).layers} <= seconds.keys()
    assert min(seconds.values()) >= 0


def test_ideal_seconds_is_the_slower_of_arithmetic_and_weights():
    limits = MachineLimits(1, {"f32": 1e9}, ((10**9, 1e6),))
    layers = [
        engine.LayerProfile("a", "conv", macs=2e9, weight_bytes=1e6, map_bytes=0, seconds=4),
        engine.LayerProfile("b", "linear", macs=1e6, weight_bytes=3e6, map_bytes=0, seconds=4),
        engine.LayerProfile("", "waiting", macs=0, weight_bytes=0, map_bytes=0, seconds=1),
    ]
    assert engine.ideal_seconds(layers, limits, precision="f32") == [2.0, 3.0, None]
    assert engine.ideal_seconds(layers, limits, precision="bf16") == [None, None, None]


def test_profile_rejects_an_empty_batch():
    session = engine.compile(create_model("ghostnet_050"), threads=1)
    with pytest.raises(ConfigurationError, match="there are 0 images and 20 runs"):
        session.profile(torch.zeros(0, 3, 32, 32))
