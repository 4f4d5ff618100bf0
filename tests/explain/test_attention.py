import pytest
import torch
from torch import nn

from ghostnets.errors import ConfigurationError
from ghostnets.explain import collect_dfc_attention, grad_cam
from ghostnets.models import create_model


def test_collected_gates_match_gates_applied_to_maps():
    model = create_model("ghostnetv2_050", width=0.2).eval()
    x = torch.randn(1, 3, 64, 64)
    attention = collect_dfc_attention(model, x)
    gated = [name for name, m in model.named_modules() if getattr(m, "short_conv", None) is not None]
    assert [maps.layer for maps in attention] == gated
    module = model.get_submodule(attention[0].layer)
    seen = {}
    handle = module.register_forward_hook(lambda m, inputs, output: seen.update(x=inputs[0], out=output))
    with torch.no_grad():
        model(x)
    handle.remove()
    height, width = seen["out"].shape[2:]
    gate = module.short_conv.gate(seen["x"], (height, width))[0]
    torch.testing.assert_close(attention[0].gates, gate[:, ::2, ::2])
    assert collect_dfc_attention(create_model("ghostnet_050", width=0.2).eval(), x) == []
    assert not any(m._forward_hooks for m in model.modules())


class LargerMap(nn.Module):
    """Classifies by which of two maps has the larger mean."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 1, bias=False)
        nn.init.eye_(self.conv.weight[:, :, 0, 0].data)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2)[:, :, None, None])

    def forward(self, x):
        return self.conv(x).relu_().mean((2, 3))


def test_grad_cam_highlights_evidence_for_predicted_class():
    model = LargerMap().eval()
    x = torch.zeros(1, 2, 8, 8)
    x[0, 1, 2:4, 5:7] = 3
    x[0, 0, 0, 0] = 1
    heat, predicted = grad_cam(model, x)
    assert predicted == 1
    torch.testing.assert_close(heat, x[0, 1] / 3)
    assert model.conv.weight.grad is None
    with torch.inference_mode():
        assert grad_cam(model, x)[1] == 1
    with pytest.raises(ConfigurationError, match="Flatten has no layer with several feature maps"):
        grad_cam(nn.Flatten(), x)
