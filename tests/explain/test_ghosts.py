import pytest
import torch
from torch import nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.explain import count_ghosts, disable_ghosts, find_ghost_modules
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


@pytest.mark.parametrize(("channels", "ratio"), [(6, 2), (7, 3), (10, 4)])
@pytest.mark.parametrize("fill", ["copies", "zeros"])
def test_disable_ghosts_replaces_only_disabled_ghosts(channels: int, ratio: int, fill: str, randomize):
    module = GhostModule(3, channels, ratio=ratio, act=False)
    model = randomize(nn.Sequential(module))
    x = torch.randn(2, 3, 5, 5)
    with torch.inference_mode():
        plain = model(x)
        intrinsic = channels - count_ghosts(module)
        assert intrinsic == -(-channels // ratio)
        disabled = [0, count_ghosts(module) - 1]
        with disable_ghosts(model, {"0": disabled}, fill=fill):
            some_disabled = model(x)
        with disable_ghosts(model, {"0": None}, fill=fill):
            all_disabled = model(x)
    for ghost in range(count_ghosts(module)):
        source = plain[:, ghost // (ratio - 1)] if fill == "copies" else torch.zeros(2, 5, 5)
        original = plain[:, intrinsic + ghost]
        assert not torch.equal(source, original)
        assert torch.equal(some_disabled[:, intrinsic + ghost], source if ghost in disabled else original)
        assert torch.equal(all_disabled[:, intrinsic + ghost], source)
    assert torch.equal(some_disabled[:, :intrinsic], plain[:, :intrinsic])
    with torch.inference_mode():
        assert torch.equal(model(x), plain)  # restored
    assert not any(part._forward_hooks for part in model.modules())


def test_disable_ghosts_rejects_unknown_module_ghost_and_fill():
    model = create_model("ghostnet_050", width=0.2).eval()
    name = next(iter(find_ghost_modules(model)))
    number = count_ghosts(find_ghost_modules(model)[name])
    with pytest.raises(ConfigurationError, match=f"has no ghost {number}; its ghosts are 0 to {number - 1}"):
        disable_ghosts(model, {name: [number]}, fill="zeros").__enter__()
    with pytest.raises(UnknownNameError, match=f"did you mean {name}"):
        disable_ghosts(model, {name + "x": None}, fill="zeros").__enter__()
    with pytest.raises(ConfigurationError, match="copies or zeros"):
        disable_ghosts(model, {name: None}, fill="ones").__enter__()
    assert not any(part._forward_hooks for part in model.modules())
