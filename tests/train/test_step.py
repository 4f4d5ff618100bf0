"""The training step: gradient accumulation, clipping, averages, mixing, and non-finite losses."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ghostnets.data import ArrayDataset, Batch, DatasetSplits
from ghostnets.errors import RunError
from ghostnets.models import create_model
from ghostnets.train import Recipe, step
from ghostnets.train.diagnose import diagnose_loss
from ghostnets.train.distributed import DistributedContext
from ghostnets.train.ema import build_ema
from ghostnets.train.frozen import IdentityPreprocessing
from ghostnets.train.hardware import resolve_precision, resolve_workers
from ghostnets.train.mixing import build_mixing
from ghostnets.train.parameters import build_optimizer
from ghostnets.train.setup import class_weights
from ghostnets.train.step import TrainingStep

RECIPE = Recipe(model="resnet20", lr=0.1, weight_decay=0.0, label_smoothing=0.0)


class Linear(nn.Module):
    """No normalisation, so that micro-batches give exactly the sum of their gradients."""

    path = ()

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(x)


def a_batch(count: int = 8) -> Batch:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 6, generator=generator)
    return Batch(x, torch.randint(0, 3, (count,), generator=generator), torch.arange(count))


def make(model: nn.Module, recipe: Recipe, **options: Any) -> TrainingStep:
    optimizer = build_optimizer(model, model, recipe)
    given = {"mixing": None, "distillation": None, "after_update": None, **options}
    return TrainingStep(model, optimizer, recipe, IdentityPreprocessing(), DistributedContext(), **given)


def run_step(recipe: Recipe, **options: Any) -> tuple[nn.Module, step.StepTotals]:
    torch.manual_seed(0)
    model = Linear()
    sums = make(model, recipe, **options)(a_batch(), batch_size=8, seed=1, stop=False)
    return model, sums


def test_step_matches_plain_torch():
    torch.manual_seed(0)
    model, batch = Linear(), a_batch()
    F.cross_entropy(model(batch.pixels), batch.labels).backward()
    gradient = model.linear.weight.grad
    before = model.linear.weight.detach().clone()
    after, sums = run_step(RECIPE)
    # The first step of Nesterov momentum goes 1 + 0.9 times along the gradient.
    torch.testing.assert_close(after.linear.weight, before - 0.1 * 1.9 * gradient)
    logits = model(batch.pixels)
    assert sums.loss == pytest.approx(F.cross_entropy(logits, batch.labels, reduction="sum").item(), rel=1e-5)
    assert (sums.correct, sums.num_seen, sums.num_stop_requests) == (
        (logits.argmax(1) == batch.labels).sum().item(),
        8,
        0,
    )


@pytest.mark.parametrize("accumulate", [2, 3])
def test_gradient_accumulation_gives_the_same_step(accumulate: int):
    whole, _ = run_step(RECIPE)
    accumulated, _ = run_step(RECIPE.changed(accumulate=accumulate))
    torch.testing.assert_close(whole.linear.weight, accumulated.linear.weight)


def test_clip_norm_bounds_the_step():
    torch.manual_seed(0)
    before = Linear()
    clipped, _ = run_step(RECIPE.changed(clip_norm=0.01))
    length = sum((a - b).square().sum() for a, b in zip(before.parameters(), clipped.parameters(), strict=True)) ** 0.5
    assert length.item() == pytest.approx(0.1 * 1.9 * 0.01, rel=1e-3)


def test_fp16_scales_the_loss_and_skips_overflow():
    half, _ = run_step(RECIPE.changed(precision="fp16"))
    full, _ = run_step(RECIPE)
    torch.testing.assert_close(half.linear.weight, full.linear.weight, rtol=1e-2, atol=1e-3)
    torch.manual_seed(0)
    model = Linear()
    scaled = make(model, RECIPE.changed(precision="fp16"))
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60)
    before = model.linear.weight.detach().clone()
    scaled(a_batch(), batch_size=8, seed=1, stop=False)
    assert torch.equal(model.linear.weight, before)  # the gradients overflowed: no step, a smaller scale
    assert scaled.scaler.get_scale() == 2.0**59


def test_seed_determines_dropout():
    class Dropping(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return F.dropout(self.linear(x), 0.5, self.training)

    def run(seed: int) -> float:
        torch.manual_seed(0)
        return make(Dropping(), RECIPE)(a_batch(), batch_size=8, seed=seed, stop=False).loss

    assert run(1) == run(1) != run(2)


def test_non_finite_loss_changes_no_weight_and_is_diagnosed():
    torch.manual_seed(0)
    model = Linear()
    before = model.linear.weight.detach().clone()
    broken = make(model, RECIPE)
    batch = a_batch()
    batch.pixels[3, 2] = float("nan")
    sums = broken(batch, batch_size=8, seed=1, stop=True)
    assert not sums.is_finite
    assert sums.num_stop_requests == 1
    assert torch.equal(model.linear.weight, before)
    assert broken.diagnose() == "the images themselves contain non-finite values"


def test_diagnose_names_the_first_non_finite_module():
    network = create_model("resnet20", num_classes=3)
    x = torch.randn(4, 3, 8, 8)
    mean = network.stem[1].running_mean.clone()
    with torch.no_grad():
        network.classifier.bias[0] = float("inf")
    assert "weights are no longer finite, classifier.bias among them" in diagnose_loss(network, x)
    with torch.no_grad():
        network.classifier.bias.zero_()
        for parameter in network.blocks[2][0].convs.parameters():
            parameter.fill_(1e30)
    assert "all weights are finite, but the output of blocks.2.0.convs" in diagnose_loss(network, x)
    assert torch.equal(network.stem[1].running_mean, mean)
    assert "so the loss itself overflowed" in diagnose_loss(create_model("resnet20", num_classes=3), x)


def test_ema_matches_the_formula():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = build_ema(model, 0.9)
    expected = model[0].weight.detach().clone()
    for count in range(30):
        with torch.no_grad():
            model[0].weight.normal_()
            model[1].running_mean.fill_(float(count))
        average.update_parameters(model)
        # The first update copies; after it the decay grows from 2/11 to 0.9.
        decay = 0.0 if count == 0 else min(0.9, (1 + count) / (10 + count))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
        torch.testing.assert_close(average.module[0].weight, expected)
    assert 15 < average.module[1].running_mean[0].item() < 29


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_mixed_targets_match_the_mixture(kind: str):
    torch.manual_seed(0)
    mix = build_mixing(RECIPE.changed(**{kind: 1.0}), 4)
    pixels = torch.arange(4.0)[:, None, None, None].expand(4, 3, 16, 16).contiguous()
    mixed, targets = mix(pixels, torch.arange(4))
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    # An image has its number everywhere, so the mean of the mixture is the mean of the targets.
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets @ torch.arange(4.0), rtol=1e-4, atol=1e-4)
    assert (mixed.flatten(1).unique(dim=1).shape[1] > 1) == (kind == "cutmix")
    assert build_mixing(RECIPE, 4) is None


def test_step_with_mixup_and_cutmix():
    torch.manual_seed(0)
    recipe = RECIPE.changed(mixup=0.5, cutmix=1.0, label_smoothing=0.1)
    network = create_model("resnet20", num_classes=3)
    images = Batch(torch.randn(8, 3, 8, 8), torch.arange(8) % 3, torch.arange(8))
    sums = make(network, recipe, mixing=build_mixing(recipe, 3))(images, batch_size=8, seed=1, stop=False)
    assert sums.is_finite
    assert sums.num_seen == 8


def test_compile_is_used_by_the_step(monkeypatch: pytest.MonkeyPatch):
    """With the eager backend: torch.compile is called, and its result is used."""
    compiled_models = []
    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model: compiled_models.append(model) or real(model, backend="eager"))
    compiled, _ = run_step(RECIPE.changed(compile=True))
    plain, _ = run_step(RECIPE)
    assert len(compiled_models) == 1
    assert torch.equal(compiled.linear.weight, plain.linear.weight)


class Limited(Linear):
    """A network on a device with memory for ``capacity`` images."""

    capacity = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > self.capacity:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().forward(x)


def test_step_out_of_memory_is_repeated_in_smaller_micro_batches():
    said: list[str] = []
    expected, sums = run_step(RECIPE.changed(accumulate=4))
    torch.manual_seed(0)
    model = Limited()
    training_step = make(model, RECIPE, on_message=said.append)
    assert training_step(a_batch(), batch_size=8, seed=1, stop=False) == sums
    assert torch.equal(model.linear.weight, expected.linear.weight)
    assert training_step.accumulate == 4
    assert said == [
        "out of memory with 8 images at a time: from here on 4, with the gradients of 2 accumulated for the same batch"
        " (--accumulate 2)",
        "out of memory with 4 images at a time: from here on 2, with the gradients of 4 accumulated for the same batch"
        " (--accumulate 4)",
    ]


def test_step_without_memory_for_two_images_fails_with_advice():
    model = Limited()
    model.capacity = 1
    with pytest.raises(RunError, match="with 2 images at a time, and batch normalisation needs two; start again with"):
        make(model, RECIPE)(a_batch(), batch_size=8, seed=1, stop=False)


def test_other_runtime_errors_of_a_step_are_raised():
    class Broken(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes do not match"):
        make(Broken(), RECIPE)(a_batch(), batch_size=8, seed=1, stop=False)


def test_precision_auto_is_mixed_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    names = {kind: resolve_precision("auto", torch.device(kind)) for kind in ("cpu", "mps", "xpu", "cuda")}
    assert names == {"cpu": "float32", "mps": "float32", "xpu": "bf16", "cuda": "fp16"}
    assert resolve_precision("float32", torch.device("cuda")) == "float32"


def test_workers_are_chosen_on_accelerators(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("ghostnets.train.hardware.usable_cores", lambda: 12)
    assert [resolve_workers(None, torch.device(kind)) for kind in ("cpu", "cuda")] == [0, 8]
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert resolve_workers(None, torch.device("cuda")) == 2
    assert resolve_workers(5, torch.device("cpu")) == 5


@pytest.mark.parametrize("is_mixed", [False, True])
def test_class_weights_weight_each_image_by_its_class(is_mixed: bool):
    def mix(pixels: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return pixels, 0.7 * F.one_hot(labels, 3) + 0.1

    weights = torch.tensor([0.5, 2.0, 1.0])
    _, sums = run_step(RECIPE, mixing=mix if is_mixed else None, class_weights=weights)
    torch.manual_seed(0)
    model, batch = Linear(), a_batch()
    target = mix(batch.pixels, batch.labels)[1] if is_mixed else batch.labels
    losses = F.cross_entropy(model(batch.pixels), target, reduction="none")
    factors = target @ weights if is_mixed else weights[target]
    assert sums.loss == pytest.approx((factors * losses).sum().item(), rel=1e-5)


def test_balanced_class_weights_are_one_on_average():
    labels = torch.tensor([0] * 6 + [1] * 2 + [2])
    images = ArrayDataset(torch.zeros(9, 1, 4, 4, dtype=torch.uint8), labels)
    weights = class_weights(RECIPE.changed(class_weights="balanced"), DatasetSplits(images, images, None), 3)
    assert weights.tolist() == pytest.approx([0.5, 1.5, 3.0])
    assert weights[labels].mean().item() == pytest.approx(1)
    assert class_weights(RECIPE, DatasetSplits(images, images, None), 3) is None
