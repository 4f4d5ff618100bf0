"""The port of d-li14/ghostnet.pytorch: its layers, and its conversion to the canonical network."""

import pytest
import torch
from torch import nn

from ghostnets.checkpoints import load_checkpoint
from ghostnets.errors import CheckpointError
from ghostnets.models import DLi14GhostNet, create_model


def test_layers_match_published_table():
    """Channels, kernels, strides, squeeze-and-excitation widths and shortcuts, typed from the published network."""
    published = {
        # N: (in, expansion, out, k, stride, (C, mid) of SE, has a shortcut path)
        1: (16, 16, 16, 3, 1, None, False), 2: (16, 48, 24, 3, 2, None, True), 3: (24, 72, 24, 3, 1, None, False),
        4: (24, 72, 40, 5, 2, (72, 18), True), 5: (40, 120, 40, 5, 1, (120, 30), False),
        6: (40, 240, 80, 3, 2, None, True), 7: (80, 200, 80, 3, 1, None, False), 8: (80, 184, 80, 3, 1, None, False),
        9: (80, 184, 80, 3, 1, None, False), 10: (80, 480, 112, 3, 1, (480, 120), True),
        11: (112, 672, 112, 3, 1, (672, 168), False), 12: (112, 672, 160, 5, 2, (672, 168), True),
        13: (160, 960, 160, 5, 1, None, False), 14: (160, 960, 160, 5, 1, (960, 240), False),
        15: (160, 960, 160, 5, 1, None, False), 16: (160, 960, 160, 5, 1, (960, 240), False),
    }  # fmt: skip
    model = DLi14GhostNet()
    assert len(model.features) == 17
    for number, (c_in, hidden, c_out, k, stride, se, has_shortcut) in published.items():
        block = model.features[number]
        first, depthwise, excite, second = block.conv
        assert (first.in_channels, first.out_channels) == (c_in, hidden)
        assert (second.in_channels, second.out_channels) == (hidden, c_out)
        assert len(depthwise) == (2 if stride == 2 else 0)
        if stride == 2:
            assert depthwise[0].kernel_size == (k, k)
        if se:
            assert (excite.fc[0].in_features, excite.fc[0].out_features) == se
        else:
            assert len(excite) == 0
        if has_shortcut:
            assert block.shortcut[0][0].kernel_size == (k, k)
            assert block.shortcut[0][0].stride == (stride, stride)
            assert not any(isinstance(layer, nn.ReLU) for layer in block.shortcut.modules())
        else:
            assert len(block.shortcut) == 0
    assert [type(layer).__name__ for layer in model.classifier] == [
        "Linear", "BatchNorm1d", "ReLU", "Dropout", "Linear",
    ]  # fmt: skip
    assert not [m for m in model.modules() if isinstance(m, nn.Hardswish)]


@pytest.mark.parametrize("num_classes", [1000, 7])
def test_state_dict_folds_exactly_into_canonical_network(num_classes: int, randomize, tmp_path):
    port = randomize(DLi14GhostNet(num_classes=num_classes))
    for name, parameter in port.named_parameters():
        if ".fc." in name:  # gates on both sides of 0 and 1, so that clamping matters
            nn.init.normal_(parameter, 0, 0.6)
    torch.save(port.state_dict(), tmp_path / "port.pth")
    canonical = create_model("ghostnet_100", num_classes=num_classes).eval()
    load_checkpoint(canonical, tmp_path / "port.pth")
    gates: list[torch.Tensor] = []
    for block in port.features[1:]:
        if list(block.conv[2].children()):
            block.conv[2].fc.register_forward_hook(lambda _module, _inputs, output: gates.append(output.flatten()))
    for size in [(224, 224), (97, 160)]:
        x = torch.randn(2, 3, *size)
        with torch.inference_mode():
            expected, got = port(x), canonical(x)
        torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5 * max(1.0, expected.abs().max().item()))
    assert (torch.cat(gates) < 0).any()
    assert (torch.cat(gates) > 1).any()


def test_state_dict_round_trip(tmp_path, randomize):
    port, copy = randomize(DLi14GhostNet()), DLi14GhostNet().eval()
    torch.save(port.state_dict(), tmp_path / "port.pth")
    load_checkpoint(copy, tmp_path / "port.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(copy(x), port(x))


def test_revised_state_dict_fits_only_revised_network(tmp_path, randomize):
    revised = randomize(create_model("ghostnet_100_d_li14_revised"))
    for number in (2, 4, 6, 10, 12):
        depthwise = revised.features[number].shortcut[0]
        assert depthwise[0].kernel_size == (3, 3)
        assert isinstance(depthwise[2], nn.ReLU)
    torch.save(revised.state_dict(), tmp_path / "revised.pth")
    copy = create_model("ghostnet_100_d_li14_revised").eval()
    load_checkpoint(copy, tmp_path / "revised.pth")
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(copy(x), revised(x))
    for other in ("ghostnet_100", "ghostnet_100_d_li14"):  # the 5x5 shortcut kernels give it away
        with pytest.raises(CheckpointError, match="of another shape"):
            load_checkpoint(create_model(other), tmp_path / "revised.pth")
