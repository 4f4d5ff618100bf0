"""Properties of the networks in the registry, of each graph or of all."""

import copy
import pickle
import re
from typing import Any

import pytest
import torch
from conftest import assert_same, enliven
from graphs import EVERY_GRAPH, create_shallow
from torch import nn

from ghostnets.errors import ConfigurationError
from ghostnets.models import Backbone, GhostVGG, Network, list_models, model_arguments

CLASSES = 3


@pytest.fixture(scope="module", params=EVERY_GRAPH)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name: str) -> Network:
    """Network in evaluation mode whose output depends on the input; tests must not modify it."""
    torch.manual_seed(0)
    return enliven(create_shallow(name, num_classes=CLASSES))


def without_values(name: str, **arguments: Any) -> nn.Module:
    """Network on the meta device."""
    with torch.device("meta"):
        return create_shallow(name, **arguments)


def with_weights(model: nn.Module, name: str, **arguments: Any) -> nn.Module:
    """Another network in evaluation mode with the weights of ``model``, which are neither initialised nor copied."""
    other = without_values(name, **arguments)
    other.load_state_dict(model.state_dict(), assign=True)
    return other.eval()


class TestEveryGraph:
    def test_accepts_common_arguments(self, name: str):
        arguments = {"num_classes": 5, "in_chans": 2, "drop_rate": 0.5, "output_stride": 16, "drop_path_rate": 0.3}
        if "drop_path_rate" not in model_arguments(name):
            assert isinstance(without_values(name), GhostVGG)  # which has no residual blocks to leave out
            del arguments["drop_path_rate"]
        model = create_shallow(name, **arguments)
        assert model.training
        assert model(torch.randn(2, 2, 40, 40)).shape == (2, 5)
        assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]

    @pytest.mark.parametrize(
        "wrong", [{"num_classes": -1}, {"in_chans": 0}, {"drop_rate": 1.0}, {"output_stride": 4}, {"no_such": 1}]
    )
    def test_invalid_arguments_raise(self, name: str, wrong: dict):
        with pytest.raises(ConfigurationError, match=next(iter(wrong))):
            without_values(name, **wrong)

    def test_sizes_from_one_pixel(self, model: Network):
        for height, width in [(1, 1), (32, 32), (33, 47)]:
            with torch.inference_mode():
                assert model(torch.randn(2, 3, height, width)).shape == (2, CLASSES)

    def test_output_depends_on_image(self, model: Network):
        """Precondition of the comparisons below."""
        with torch.inference_mode():
            first, second = model(torch.randn(2, 3, 64, 64))
        assert (first - second).abs().max() > 1e-2 * max(1, first.abs().max())

    def test_head(self, name: str, model: Network):
        x = torch.randn(2, 3, 32, 32)
        other = with_weights(model, name, num_classes=CLASSES)
        other.reset_classifier(0)
        with torch.inference_mode():
            features = other(x)
            assert_same(model.get_submodule(model.classifier_name)(features), model(x))
            assert other.forward_features(x).shape[:2] == (2, model.num_features)
        other.reset_classifier(4)
        with torch.inference_mode():
            assert (other(x).shape, other.num_classes) == ((2, 4), 4)

    def test_backbone(self, model: Network):
        x = torch.randn(1, 3, 64, 96)
        levels = model.feature_levels
        assert Backbone(model).feature_levels == levels[: len(levels) - model.has_wide_map]
        everything = Backbone(model, out_indices=range(len(levels))).eval()
        assert everything.state_dict().keys() <= model.state_dict().keys()
        with torch.inference_mode():
            maps = everything(x)
            expected = [(level.channels, 64 // level.stride, 96 // level.stride) for level in levels]
            assert [tuple(m.shape[1:]) for m in maps] == expected
            last = model.forward_features(x)
        if model.path[-1] == levels[-1].module:
            torch.testing.assert_close(maps[-1], last, rtol=0, atol=0)
        sides = [level.stride for level in levels]
        assert sides == sorted(sides)

    def test_backbone_of_some_levels_has_no_unused_parameters(self, name: str, model: Network):
        backbone = create_shallow(name, features_only=True, out_indices=(-1, 0))
        sum(m.square().sum() for m in backbone(torch.randn(2, 3, 32, 32))).backward()
        assert [key for key, p in backbone.named_parameters() if p.grad is None] == []
        first = Backbone(model, out_indices=(0,))
        assert len(list(first.parameters())) < len(list(backbone.parameters()))

    @pytest.mark.parametrize("output_stride", [8, 16])
    def test_output_stride(self, name: str, model: Network, output_stride: int):
        dilated = with_weights(model, name, num_classes=CLASSES, output_stride=output_stride)
        strides = [min(level.stride, output_stride) for level in model.feature_levels]
        assert [level.stride for level in dilated.feature_levels] == strides
        with torch.inference_mode():
            x = torch.randn(1, 3, 64, 96)
            side = min(output_stride, 64 // model.forward_features(x).shape[2])
            assert dilated.forward_features(x).shape[2:] == (64 // side, 96 // side)

    def test_pickle_and_deepcopy(self, model: Network):
        x = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
                torch.testing.assert_close(other(x), model(x), rtol=0, atol=0)

    def test_channels_last_and_bfloat16(self, model: Network):
        x = torch.randn(1, 3, 32, 32)
        with torch.inference_mode():
            last = copy.deepcopy(model).to(memory_format=torch.channels_last)
            assert_same(last(x.to(memory_format=torch.channels_last)), model(x), tolerance=1e-4)  # other kernels
            half = last.to(torch.bfloat16)(x.to(torch.bfloat16))
        assert half.dtype == torch.bfloat16
        assert half.isfinite().all()

    def test_training_has_no_unused_parameters(self, name: str):
        model = create_shallow(name, num_classes=CLASSES)
        model(torch.randn(2, 3, 32, 32)).square().sum().backward()
        assert [key for key, p in model.named_parameters() if p.grad is None] == []

    def test_ratio_one_has_no_cheap_operations(self, name: str):
        if "ratio" not in model_arguments(name):
            assert "d_li14" in name or "g_ghost" in name
            return
        plain = without_values(name, ratio=1)
        assert not [key for key in plain.state_dict() if "cheap_operation" in key]


def test_list_models_is_sorted_and_complete():
    assert list_models() == sorted(list_models())
    resnets = [f"{ghost}resnet{depth}" for ghost in ("", "ghost_") for depth in (20, 32, 44, 56, 110)]
    ghosts = [f"ghostnet{v}" for v in ("_050", "_100", "_130", "v2_100", "v2_130", "v2_160", "v3_050", "v3_160")]
    regnets = [f"g_ghost_regnetx_{size}" for size in ("002", "032", "160", "320")]
    assert {*resnets, *ghosts, *regnets, "ghost_resnet50", "vgg16", "ghost_vgg16"} <= set(list_models())


def test_drop_path_rate_grows_linearly():
    for name in list_models():
        if "drop_path_rate" in model_arguments(name) and re.search("_050|20|002|d_li14|18", name):
            model = without_values(name, drop_path_rate=0.3)
            rates = [m.p for m in model.modules() if type(m).__name__ == "StochasticDepth"]
            assert rates == pytest.approx([0.3 * i / len(rates) for i in range(1, len(rates) + 1)])
