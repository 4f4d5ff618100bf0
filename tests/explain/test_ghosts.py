import pytest
import torch
from torch import nn

from ghostnets.errors import ConfigurationError, UnknownNameError
from ghostnets.explain import count_ghosts, disable_ghosts, find_ghost_modules
from ghostnets.layers import GhostModule
from ghostnets.models import create_model


@pytest.mark.parametrize(("channels", "ratio"), [(6, 2), (7, 3), (10, 4)])
@pytest.mark.parametrize("fill", ["copies", "zeros"])
def test_what_is_off_is_replaced_and_nothing_else(channels: int, ratio: int, fill: str, randomize):
    module = GhostModule(3, channels, ratio=ratio, act=False)
    model = randomize(nn.Sequential(module))
    x = torch.randn(2, 3, 5, 5)
    with torch.inference_mode():
        plain = model(x)
        intrinsic = channels - count_ghosts(module)
        assert intrinsic == -(-channels // ratio)
        off = [0, count_ghosts(module) - 1]
        with disable_ghosts(model, {"0": off}, fill=fill):
            changed = model(x)
        with disable_ghosts(model, {"0": None}, fill=fill):
            without = model(x)
    for ghost in range(count_ghosts(module)):
        source = plain[:, ghost // (ratio - 1)] if fill == "copies" else torch.zeros(2, 5, 5)
        kept = plain[:, intrinsic + ghost]
        assert not torch.equal(source, kept)
        assert torch.equal(changed[:, intrinsic + ghost], source if ghost in off else kept)
        assert torch.equal(without[:, intrinsic + ghost], source)
    assert torch.equal(changed[:, :intrinsic], plain[:, :intrinsic])
    with torch.inference_mode():
        assert torch.equal(model(x), plain)  # and afterwards it is as it was
    assert not any(part._forward_hooks for part in model.modules())


def test_what_is_not_there_cannot_be_switched_off():
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
