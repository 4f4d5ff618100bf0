"""Healing: the error falls, a resumed training ends with the same weights, arguments are checked."""

import copy
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ghostnets.compress import ghostify, heal
from ghostnets.compress.fit import output_error, outputs_of
from ghostnets.errors import ConfigurationError, RunError


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm, self.act = nn.Conv2d(8, 32, 1), nn.BatchNorm2d(32), nn.ReLU(inplace=True)
        self.project = nn.Conv2d(32, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.project(self.act(self.norm(self.expand(x))))


@pytest.fixture(scope="module")
def networks() -> tuple[nn.Module, nn.Module, Tensor]:
    torch.manual_seed(0)
    flat = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))
    model = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), Block(), Block(), flat).eval()
    images = torch.randn(48, 3, 16, 16)
    return model, ghostify(model, images, budget=0.4)[0], images


def test_heal_lowers_the_error_and_keeps_its_arguments_unchanged(networks: tuple[nn.Module, nn.Module, Tensor]):
    original, made, images = networks
    before = copy.deepcopy((original.state_dict(), made.state_dict()))
    expected = outputs_of(original, images)
    healed, report = heal(made, original, images, block_steps=30, steps=60, lr=2e-3)
    assert report.blocks == ("1", "2")
    assert len(report.losses) == 90
    assert (report.held_out, report.is_better) == (6, True)
    judges = images[7::8]
    for network, error, agreement in zip((made, healed), report.errors, report.agreement or (), strict=True):
        outputs, wanted = outputs_of(network, judges), outputs_of(original, judges)
        assert error == pytest.approx(output_error(outputs, wanted))
        assert agreement == sum(map(torch.equal, outputs.argmax(1), wanted.argmax(1))) / 6
    assert output_error(outputs_of(healed, images), expected) < 0.6 * output_error(outputs_of(made, images), expected)
    for network, state in zip((original, made), before, strict=True):
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
    assert {name: v.shape for name, v in healed.state_dict().items()} == {n: v.shape for n, v in before[1].items()}


def test_network_as_given_is_returned_if_healing_made_it_worse(networks: tuple[nn.Module, nn.Module, Tensor]):
    original, made, images = networks
    trunks = [nn.Sequential(*network[:3]).eval() for network in (original, made)]  # type: ignore[index]
    for given, teacher in ((made, original), (trunks[1], trunks[0])):
        healed, report = heal(given, teacher, images[:8], held_out=images[8:], block_steps=0, steps=3, lr=3.0)
        assert (report.held_out, report.is_better) == (40, False)
        before, after = report.agreement or report.errors
        assert (after < before) == (report.agreement is not None)
        assert healed is not given
        assert not healed.training
        assert all(torch.equal(value, healed.state_dict()[name]) for name, value in given.state_dict().items())


def test_networks_with_several_outputs_and_blocks_with_options_are_healed():
    class Scaled(Block):
        def forward(self, x: Tensor, *, factor: float) -> Tensor:
            return factor * super().forward(x)

    class Outputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block, self.head = nn.Conv2d(3, 8, 3, 2, 1), Scaled(), nn.Conv2d(8, 4, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = self.block(self.stem(x), factor=2.0)
            return {"maps": maps, "classes": self.head(maps)}

    torch.manual_seed(0)
    model, images = Outputs().eval(), torch.randn(24, 3, 16, 16)
    made, _ = ghostify(model, images, budget=0.6)
    healed, report = heal(made, model, images, block_steps=2, steps=30, lr=2e-3)
    assert (report.blocks, report.agreement, report.is_better) == ((), None, True)
    assert report.errors[1] < 0.9 * report.errors[0]
    assert outputs_of(healed, images).shape == outputs_of(model, images).shape


@pytest.mark.parametrize("stop", [7, 13])
def test_resumed_training_gives_the_same_weights(
    networks: tuple[nn.Module, nn.Module, Tensor], stop: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    original, made, images = networks
    labels = torch.arange(48) % 5
    labels[::3] = -1
    options = {"labels": labels, "block_steps": 10, "steps": 8, "batch_size": 5, "crop_size": 13}
    expected, report = heal(made, original, images, **options)
    monkeypatch.setattr(sys.modules["ghostnets.compress.heal"], "SAVE_EVERY", 1)

    def interrupt(step: int) -> None:
        if step == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        heal(made, original, images, **options, state=tmp_path / "state", on_step=interrupt)
    steps: list[int] = []
    healed, again = heal(made, original, images, **options, state=tmp_path / "state", on_step=steps.append)
    assert steps == list(range(stop + 1, 19))
    assert again.losses == report.losses
    assert all(torch.equal(v, healed.state_dict()[name]) for name, v in expected.state_dict().items())


def shift(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.uniform_(module.bias)


def test_states_of_other_trainings_and_damaged_ones_are_rejected(
    networks: tuple[nn.Module, nn.Module, Tensor], tmp_path: Path
):
    original, made, images = networks
    heal(made, original, images, block_steps=1, steps=0, state=tmp_path / "state")
    with pytest.raises(RunError, match="another training \\(other lr, steps\\)"):
        heal(made, original, images, block_steps=1, steps=1, lr=1, state=tmp_path / "state")
    others = [  # same shapes: labels, network, original, images
        {"labels": torch.arange(48) % 5},
        {"model": copy.deepcopy(made).apply(shift)},
        {"original": copy.deepcopy(original).apply(shift)},
        {"images": images.flip(0)},
    ]
    for other, name in zip(others, ("labels", "network", "original", "images"), strict=True):
        arguments = {"model": made, "original": original, "images": images, **other}
        with pytest.raises(RunError, match=f"another training \\(other {name}\\)"):
            heal(**arguments, block_steps=1, steps=0, state=tmp_path / "state")
    (tmp_path / "state").write_bytes(b"nothing")
    with pytest.raises(RunError, match="is not the state of healing this network"):
        heal(made, original, images, block_steps=1, steps=0, state=tmp_path / "state")


@pytest.mark.parametrize("arguments", [{"lr": 0.0}, {"steps": -1}, {"batch_size": 0}, {"crop_size": 17}])
def test_arguments_out_of_range_are_rejected(networks: tuple[nn.Module, nn.Module, Tensor], arguments: dict):
    original, made, images = networks
    with pytest.raises(ConfigurationError):
        heal(made, original, images, **arguments)


def test_too_few_images_to_hold_one_out_are_rejected(networks: tuple[nn.Module, nn.Module, Tensor]):
    original, made, images = networks
    with pytest.raises(ConfigurationError, match="there are 7 images and none that judges"):
        heal(made, original, images[:7])


def test_images_in_batches_give_the_same_result(networks: tuple[nn.Module, nn.Module, Tensor]):
    original, made, images = networks
    healed, again = (heal(made, original, x, block_steps=2, steps=2)[0] for x in (images, images.split(7)))
    assert all(torch.equal(v, again.state_dict()[name]) for name, v in healed.state_dict().items())


def test_errors_decide_where_the_agreement_is_equal(networks: tuple[nn.Module, nn.Module, Tensor]):
    original, _, images = networks
    near = copy.deepcopy(original)
    with torch.no_grad():
        near[3][2].bias += 1e-4  # type: ignore[index]
    healed, report = heal(near, original, images, block_steps=0, steps=1, lr=1e-4)
    assert report.agreement == (1.0, 1.0)
    assert report.errors[0] < report.errors[1]
    assert not report.is_better
    assert all(torch.equal(v, healed.state_dict()[name]) for name, v in near.state_dict().items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda made, original: {"labels": torch.zeros(47, dtype=torch.long)}, "labels have the shape \\(47,\\)"),
        (lambda made, original: {"original": original[:3], "model": made[:3], "labels": torch.zeros(48)}, "no logits"),
        (lambda made, original: {"original": original[:3]}, "have other shapes"),
        (lambda made, original: {"model": copy.deepcopy(made).half(), "original": original.half()}, "is in float16"),
    ],
)
def test_networks_and_labels_that_do_not_fit_are_rejected(networks: tuple, change, message: str):
    original, made, images = copy.deepcopy(networks)
    arguments = {"model": made, "original": original, "images": images, **change(made, original)}
    if "float16" in message:
        arguments["images"] = images.half()
    with pytest.raises(ConfigurationError, match=message):
        heal(**arguments)


def test_training_needs_no_gradients_outside_and_leaves_frozen_parameters(networks: tuple):
    original, made, images = copy.deepcopy(networks)
    options = {"block_steps": 2, "steps": 2, "lr": 2e-3}
    expected, report = heal(made, original, images, **options)
    with torch.no_grad():
        healed, again = heal(made, original, images, **options)
    assert again.losses == report.losses
    assert all(torch.equal(v, healed.state_dict()[name]) for name, v in expected.state_dict().items())
    made[3].requires_grad_(False)
    healed, _ = heal(made, original, images, **options)
    assert torch.equal(healed[3][2].weight, made[3][2].weight)
    with pytest.raises(ConfigurationError, match="no parameter of Sequential requires a gradient"):
        heal(made.requires_grad_(False), original, images, **options)
