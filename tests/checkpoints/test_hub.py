"""Published weights: the table, and loading them from a local server."""

from dataclasses import replace

import pytest
import torch
from local_server import hub_fixture, server_fixture  # noqa: F401
from safetensors.torch import save

import ghostnets
from ghostnets.checkpoints import WEIGHTS, cache_path, find_weights, load_pretrained
from ghostnets.errors import CheckpointError, GhostNetsError, UnknownNameError
from ghostnets.models import create_model, list_models
from ghostnets.preprocessing import Preprocessing


@pytest.fixture
def published(local_hub, randomize) -> torch.nn.Module:
    """Network whose weights the local hub publishes."""
    model = randomize(create_model("ghostnet_100"))
    local_hub.content = save(model.state_dict())
    return model


def test_load_pretrained_is_strict(published: torch.nn.Module):
    expected = published.state_dict()
    model = create_model("ghostnet_100")
    assert load_pretrained(model, "ghostnet_100") == WEIGHTS["ghostnet_100"][0]
    assert all(torch.equal(tensor, expected[key]) for key, tensor in model.state_dict().items())

    small = create_model("ghostnet_100", num_classes=5)
    before = {key: tensor.clone() for key, tensor in small.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"2 of another shape: classifier\.weight .* replace_head=True"):
        load_pretrained(small, "ghostnet_100")
    assert all(torch.equal(tensor, before[key]) for key, tensor in small.state_dict().items())

    load_pretrained(small, "ghostnet_100", replace_head=True)
    for key, tensor in small.state_dict().items():
        assert torch.equal(tensor, (before if key.startswith("classifier.") else expected)[key]), key

    grey = create_model("ghostnet_100", in_chans=1)
    load_pretrained(grey, "ghostnet_100", replace_head=True)
    assert torch.equal(grey.conv_stem.weight, expected["conv_stem.weight"].sum(1, keepdim=True))  # as timm
    with pytest.raises(CheckpointError, match=r"missing: .*short_conv.* and \d+ more; it fits ghostnet_100; build"):
        load_pretrained(create_model("ghostnetv2_100"), "ghostnet_100", replace_head=True)


def test_create_model_with_pretrained_weights(published: torch.nn.Module):
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        model = ghostnets.create_model("ghostnet_100", pretrained=True).eval()
        torch.testing.assert_close(model(x), published(x), rtol=0, atol=0)
        own = ghostnets.create_model("ghostnet_100", pretrained="timm", num_classes=5).eval()
        assert own(x).shape == (1, 5)
        features = published.forward_features(x)
        torch.testing.assert_close(own.forward_features(x), features, rtol=0, atol=0)
        backbone = ghostnets.create_model("ghostnet_100", pretrained=True, features_only=True, out_indices=(-1,)).eval()
        torch.testing.assert_close(backbone(x)[0], features, rtol=0, atol=0)
    with pytest.raises(GhostNetsError, match="features_only"):
        ghostnets.create_model("ghostnet_100", pretrained=True, out_indices=(1,))
    assert ghostnets.create_model("ghostnet_050", num_classes=2).num_classes == 2  # for which there may be none


def test_damaged_published_file_raises_even_with_replace_head(published: torch.nn.Module, local_hub):
    state = published.state_dict()
    del state["bn1.weight"]
    local_hub.content = save(state)
    with pytest.raises(CheckpointError, match=r"1 missing: bn1\.weight"):
        load_pretrained(create_model("ghostnet_100", num_classes=5), "ghostnet_100", replace_head=True)


def test_load_pretrained_replaces_nested_classifier_of_d_li14_port(server, randomize, monkeypatch: pytest.MonkeyPatch):
    name = "ghostnet_100_d_li14_revised"
    monkeypatch.setitem(WEIGHTS, name, (replace(WEIGHTS[name][0], location=f"{server.url}/weights.pth"),))
    published = randomize(create_model(name))
    place = cache_path(WEIGHTS[name][0].location)
    place.parent.mkdir(parents=True)
    torch.save(published.state_dict(), place)
    model = create_model(name, num_classes=5)
    before = model.classifier[4].weight.clone()
    load_pretrained(model, name, replace_head=True)
    assert torch.equal(model.classifier[4].weight, before)
    assert torch.equal(model.classifier[0].weight, published.classifier[0].weight)


def test_find_weights():
    assert find_weights("ghostnet_100").tag == "timm"
    assert find_weights("ghostnet_100", "official").top1 == 73.98
    assert find_weights("ghostnet_100_printed_revised") == find_weights("ghostnet_100_d_li14_revised")
    with pytest.raises(UnknownNameError, match="did you mean official"):
        find_weights("ghostnet_100", "oficial")
    with pytest.raises(UnknownNameError, match="there is no model named"):
        find_weights("ghostnetv2_10")
    with pytest.raises(CheckpointError, match="no weights of ghostnetv2_050 are published"):
        find_weights("ghostnetv2_050")


def test_published_weights_table_is_consistent():
    assert set(WEIGHTS) <= set(list_models())
    everything = [weights for rows in WEIGHTS.values() for weights in rows]
    for rows in WEIGHTS.values():
        assert len({weights.tag for weights in rows}) == len(rows)
    for weights in everything:
        assert weights.url.startswith("https://")
        assert 0.5 < weights.top1 / 100 < (weights.top5 or 100) / 100
        resized = 236 if weights.tag.startswith("kecam") else 256
        interpolation = weights.evaluation.interpolation
        assert weights.preprocessing == Preprocessing(224, resized, interpolation=interpolation)
    assert len({cache_path(weights.location) for weights in everything}) == len(everything)
