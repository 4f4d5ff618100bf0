"""timm's interface: levels, intermediates, classifier, parameter groups and activation checkpointing, as in timm."""

import copy
from functools import partial

import pytest
import timm
import torch
from conftest import enliven
from graphs import slow_unless
from timm.models import group_parameters
from torch import nn

from ghostnets.checkpoints import to_timm_state_dict
from ghostnets.errors import ConfigurationError
from ghostnets.layers import ConvBnAct
from ghostnets.models import Backbone, Network, create_model, list_models
from ghostnets.models.features import FeatureInfo
from ghostnets.models.recompute import run_with_recomputation

FAMILIES = (
    "g_ghost_regnetx_002",
    "ghost_resnet18",
    "ghost_resnet20",
    "ghost_vgg16",
    "ghostnet_050",
    "ghostnet_100_d_li14",
)
SMALLEST = ("ghostnet_050", "ghostnetv2_100", "ghostnetv3_050")  # of timm's, by family


@pytest.fixture(scope="module", params=SMALLEST)
def pair(request) -> tuple[Network, nn.Module]:
    """A network of this package and timm's, with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    ours = enliven(create_model(request.param, num_classes=3))
    theirs = timm.create_model(request.param, num_classes=3).eval()
    theirs.load_state_dict(to_timm_state_dict(ours))
    return ours, theirs


@pytest.fixture(scope="module", params=slow_unless(FAMILIES, list_models()))
def template(request) -> Network:
    """Each network, without memory for its weights."""
    with torch.device("meta"):
        return create_model(request.param, num_classes=3)


@pytest.fixture
def network(template: Network) -> Network:
    return copy.deepcopy(template)


def run(model: nn.Module, *arguments, **options):
    with torch.inference_mode():
        return model(*arguments, **options)


@pytest.mark.parametrize("name", slow_unless(SMALLEST, sorted({*list_models()} & {*timm.list_models("ghost*")})))
def test_levels_are_those_of_timm(name: str):
    with torch.device("meta"):
        network = create_model(name)
        ours, theirs = Backbone(network, like="timm"), timm.create_model(name, features_only=True)
    assert network.feature_info == [
        {key: level[key] for key in ("num_chs", "reduction", "module")} for level in theirs.feature_info.info
    ]
    assert ours.feature_info.info == theirs.feature_info.info
    for method in ("channels", "reduction", "module_name", "get_dicts"):
        for idx in (None, 1, [0, 3]):
            assert getattr(ours.feature_info, method)(idx=idx) == getattr(theirs.feature_info, method)(idx=idx)
    assert ours.feature_info.get_dicts(["num_chs"], [2]) == theirs.feature_info.get_dicts(["num_chs"], [2])
    assert ours.feature_info.from_other(2).channels() == theirs.feature_info.from_other(2).channels()
    assert (len(ours.feature_info), ours.feature_info[1]) == (len(theirs.feature_info), theirs.feature_info[1])


@pytest.mark.parametrize("out_indices", [None, 2, (0,), (1, 3), (-1, 2)])
def test_maps_are_those_of_timm(pair: tuple[Network, nn.Module], out_indices):
    ours, theirs = pair
    x = torch.randn(1, 3, 64, 48)
    indices = {} if out_indices is None else {"out_indices": out_indices}
    features = timm.models.FeatureListNet(theirs, flatten_sequential=True, **indices).eval()
    backbone = Backbone(ours, like="timm", **indices)
    for mine, expected in zip(run(backbone, x), run(features, x), strict=True):
        torch.testing.assert_close(mine, expected)
    assert backbone.feature_info.channels() == [mine.shape[1] for mine in run(backbone, x)]


@pytest.mark.parametrize("stop_early", [False, True])
@pytest.mark.parametrize("indices", [None, 2, [0], [1, 3], [-1]])
def test_intermediates_are_those_of_timm(pair: tuple[Network, nn.Module], indices, stop_early: bool):
    x = torch.randn(1, 3, 64, 48)
    (ours, maps), (theirs, expected) = (
        run(model.forward_intermediates, x, indices, stop_early=stop_early) for model in pair
    )
    torch.testing.assert_close([ours, *maps], [theirs, *expected])
    only = run(pair[0].forward_intermediates, x, indices, stop_early=stop_early, intermediates_only=True)
    assert all(map(torch.equal, only, maps))


def test_pooling_is_that_of_timm():
    ours = enliven(create_model("ghostnet_050", num_classes=3))
    theirs = timm.create_model("ghostnet_050", num_classes=3).eval()
    x = torch.randn(2, 3, 65, 96)
    for pool in ("max", "avgmax", "avg"):
        for model in (ours, theirs):
            model.reset_classifier(5, pool)
            assert (model.get_classifier().out_features, model.num_classes) == (5, 5)
        theirs.load_state_dict(to_timm_state_dict(ours))
        torch.testing.assert_close(run(ours, x), run(theirs, x))
    for model in (ours, theirs):
        model.reset_classifier(0, "")
        assert isinstance(model.get_classifier(), nn.Identity)
    torch.testing.assert_close(run(ours, x), run(theirs, x))
    assert run(ours, x).shape == (2, 1280, 3, 3)


@pytest.mark.parametrize("coarse", [False, True])
def test_groups_of_weights_are_those_of_timm(pair: tuple[Network, nn.Module], coarse: bool):
    ours, theirs = pair
    assert ours.group_matcher(coarse) == theirs.group_matcher(coarse)
    assert ours.no_weight_decay() == theirs.no_weight_decay()


class TestEveryNetwork:
    @pytest.mark.parametrize("coarse", [False, True])
    def test_groups_follow_the_path(self, network: Network, coarse: bool):
        """From the stem to the head, every weight in one group, and the classifier in the last."""
        groups = group_parameters(network, network.group_matcher(coarse))
        names = [name for group in groups.values() for name in group]
        assert sorted(names) == sorted(name for name, _ in network.named_parameters())
        assert list(groups) == sorted(groups)
        last = groups[max(groups)]
        assert f"{network.classifier_name}.weight" in last
        assert not [name for name in last if name.startswith(("features", "blocks", "layer"))]
        assert next(iter(network.state_dict())) in groups[0]
        assert len(groups) >= 4

    def test_timm_levels_are_maps_of_the_network(self, network: Network):
        x = torch.empty(1, 3, 64, 96, device="meta")
        final, maps = network.eval().forward_intermediates(x)
        assert final.shape[1] == network.num_features
        assert [(m.shape[1], 64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [
            (level["num_chs"], level["reduction"], level["reduction"]) for level in network.feature_info
        ]
        assert FeatureInfo(network.feature_info, 2).channels() == [m.shape[1] for m in maps[-2:]]
        backbone = Backbone(network, like="timm")
        assert [m.shape for m in backbone(x)] == [m.shape for m in maps]
        assert backbone.state_dict().keys() <= network.state_dict().keys()
        strides = [level.stride for level in network.timm_levels]
        assert strides == sorted(strides)

    def test_reset_classifier_keeps_device_type_and_mode(self, network: Network):
        network.eval().to(torch.bfloat16).reset_classifier(7, "max")
        weight = network.get_classifier().weight
        assert (weight.shape[0], weight.device.type, weight.dtype) == (7, "meta", torch.bfloat16)
        assert not any(module.training for module in network.modules())
        last = torch.empty(2, network.num_features, 2, 3, device="meta", dtype=torch.bfloat16)
        assert network.forward_head(last).shape == (2, 7)

    def test_features_without_pooling(self, network: Network):
        if network.has_linear_head:
            with pytest.raises(ConfigurationError, match="it must be avg, max, avgmax"):
                network.reset_classifier(0, "")
            return
        with pytest.raises(ConfigurationError, match='pass global_pool="avg"'):
            network.reset_classifier(5, "")
        network.reset_classifier(0)
        last = torch.empty(2, network.num_features, 2, 3, device="meta")
        assert network.forward_head(last).shape == (2, network.head_hidden_size, 2, 3)
        network.reset_classifier(0, "avg")
        assert network.forward_head(last).shape == (2, network.head_hidden_size)


@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ghost_vgg16"])
def test_recomputation_trains_with_the_same_numbers(name: str):
    plain = enliven(create_model(name, num_classes=3, drop_path_rate=0.3)).train()
    x = torch.randn(2, 3, 64, 64)
    other = copy.deepcopy(plain)
    other.set_grad_checkpointing()
    sizes = []
    for model in (plain, other):
        torch.manual_seed(1)
        stored = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=stored: (s.append(t.numel()), t)[1], lambda t: t):
            loss = model(x).square().sum()
        loss.backward()
        sizes.append(sum(stored))
    assert sizes[1] < 0.5 * sizes[0]
    for (key, mine), (_, expected) in zip(plain.named_parameters(), other.named_parameters(), strict=True):
        assert torch.equal(mine.grad, expected.grad), key
    for (key, mine), (_, expected) in zip(plain.named_buffers(), other.named_buffers(), strict=True):
        assert torch.equal(mine, expected), key
    other.set_grad_checkpointing(False)
    assert not other.grad_checkpointing


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
def test_recomputation_of_a_backbone_leaves_its_script_unchanged():
    backbone = create_model("ghostnet_050", features_only=True, like="timm", out_indices=(0, 2))
    backbone.set_grad_checkpointing()
    sum(m.square().sum() for m in backbone(torch.randn(2, 3, 64, 64))).backward()
    assert not [name for name, weight in backbone.named_parameters() if weight.grad is None]
    scripted = torch.jit.script(nn.Sequential(backbone.eval()))
    x = torch.randn(1, 3, 33, 47)
    assert all(map(torch.equal, run(scripted, x), run(backbone, x)))


def test_compiled_recomputation_counts_batches_once():
    stage = ConvBnAct(8, 8)
    torch.compiler.reset()
    compiled = torch.compile(partial(run_with_recomputation, stage), fullgraph=True, backend="aot_eager")
    compiled(torch.randn(2, 8, 8, 8)).sum().backward()
    torch.compiler.reset()
    assert {int(value) for name, value in stage.named_buffers() if name.endswith("num_batches_tracked")} == {1}
    assert all(weight.grad is not None for weight in stage.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"like": "timm"}, "like is given without features_only=True"),
        ({"features_only": True, "like": "torchvision"}, 'it must be "timm"'),
        ({"features_only": True, "like": "timm", "out_indices": (5,)}, "levels 0 to 4"),
        ({"features_only": True, "out_indices": 0}, "choose at least one"),
    ],
)
def test_wrong_arguments_raise(options: dict, message: str):
    with torch.device("meta"), pytest.raises(ConfigurationError, match=message):
        create_model("ghostnet_050", **options)


def test_wrong_arguments_of_intermediates_raise():
    with torch.device("meta"):
        network = create_model("ghostnet_050")
        with pytest.raises(ConfigurationError, match="NCHW"):
            network.forward_intermediates(torch.empty(1, 3, 32, 32), output_fmt="NLC")
        with pytest.raises(ConfigurationError, match="it must be avg, max, avgmax or empty"):
            network.reset_classifier(2, "catavgmax")
