"""Measurement of ``compression.py cifar``: a classifier of CIFAR-10 compressed and healed, beside its alternatives.

All networks are healed alike: distilled from the original, on unlabelled training images, shifted and flipped. Of
several learning rates, each network takes the one whose trial, an eighth of the steps, ends at the highest agreement
with the original on held-out training images; these also decide whether the healed network is better than before.
"""

import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ghostnets.checkpoints import read_checkpoint
from ghostnets.compress import CompressionReport, HealReport, analyse, heal
from ghostnets.data import spread
from ghostnets.measure import count, format_accuracy
from ghostnets.models.ghost_resnet import ZeroPadShortcut
from ghostnets.preprocessing import IMAGE_SUFFIXES, Preprocessing
from ghostnets.train import RECIPES, train_model

__all__ = ["ALTERNATIVES", "find_images", "measure_cifar", "read"]

ALTERNATIVES = ("pruned", "random", "scratch")
HEALED = 40_000  # unlabelled training images
HELD_OUT = 2000  # further ones
TRIAL = 8  # steps of healing divided by those of the trial of a learning rate, which are at least LEAST
LEAST = 100
SHIFT = 4  # pixels
BATCH = 250  # images of a forward pass
BISECTIONS = 7


def measure_cifar(options: argparse.Namespace) -> None:
    """Print top-1 on the test images of a checkpoint, of compressed networks, and of the alternatives.

    Args:
        options: Of the command line: ``images`` with the folder of CIFAR-10, ``checkpoint``, ``budgets``, ``fitted``,
            ``heal_steps``, ``heal_lr``, ``beside``, ``scratch_minutes`` and ``seed``.
    """
    checkpoint, folder = read_checkpoint(options.checkpoint), Path(options.images[0])
    model, preprocessing = checkpoint.build(), checkpoint.preprocessing
    train, test = find_images(folder / "train"), find_images(folder / "test")
    fitted = read(spread(train, options.fitted), preprocessing)
    chosen = set(pooled := spread(train, HEALED)) | set(spread(train, options.fitted))
    others = spread([path for path in train if path not in chosen], HELD_OUT)
    pool, held_out = (read(files, preprocessing) if options.heal_steps else fitted for files in (pooled, others))
    judge = _Judge(read(test, preprocessing), [checkpoint.class_names.index(path.parent.name) for path in test])
    print(
        f"{checkpoint.architecture}: top-1 {judge(model)}; {len(fitted)} images fitted, {len(pool)} healed on",
        flush=True,
    )

    def heal_and_judge(name: str, network: nn.Module) -> None:
        begin = time.process_time()
        lr = choose_lr(network, model, pool, held_out, options)
        middle = time.process_time()
        healed, report = heal_shifted(network, model, pool, held_out, options.heal_steps, lr, options.seed)
        spent, tried = (time.process_time() - middle) / 60, (middle - begin) / 60
        assert report.agreement is not None  # of a classifier
        before, after = report.agreement
        print(
            f"  {name}, healed: top-1 {judge(healed)}, {spent:.1f} CPU minutes; learning rate {lr:g}, chosen in"
            f" {tried:.1f}; agreement on {report.held_out} held-out training images {before:.1%}, {after:.1%}"
            f" after{'' if report.is_better else ', as before is kept'}",
            flush=True,
        )

    begin = time.process_time()
    analysis = analyse(model, fitted)
    print(f"sensitivity: {time.process_time() - begin:.0f} CPU s", flush=True)
    for budget in options.budgets:
        begin = time.process_time()
        made, report = analysis.ghostify(budget)
        print(f"{_describe(budget, report)}, {time.process_time() - begin:.0f} CPU s", flush=True)
        print(f"  as fitted: top-1 {judge(made)}", flush=True)
        if options.heal_steps:
            heal_and_judge("fitted", made)
        if "pruned" in options.beside:
            name, pruned = prune(model, budget, fitted)
            print(f"  Torch-Pruning, {name}: {_macs(pruned) / _macs(model):.1%}, top-1 {judge(pruned)}", flush=True)
            heal_and_judge("Torch-Pruning", pruned)
        if "random" in options.beside:
            heal_and_judge("random start", renew(made, fitted, options.seed))
    if "scratch" in options.beside:
        begin = time.process_time()
        network = train_from_scratch(f"ghost_{checkpoint.architecture}", folder, options)
        share, spent = _macs(network) / _macs(model), (time.process_time() - begin) / 60
        print(
            f"ghost_{checkpoint.architecture} from scratch, {share:.1%} of multiply-adds: top-1 {judge(network)},"
            f" {spent:.1f} CPU minutes",
            flush=True,
        )


class _Judge:
    """Top-1 of networks on the same images."""

    def __init__(self, images: Tensor, labels: list[int]) -> None:
        self.images, self.labels = images, torch.tensor(labels)

    def __call__(self, network: nn.Module) -> str:
        correct = int((classes(network, self.images) == self.labels).sum())
        return format_accuracy(correct, len(self.labels), 2)


def choose_lr(
    made: nn.Module, model: nn.Module, images: Tensor, held_out: Tensor, options: argparse.Namespace
) -> float:
    """Return the learning rate of ``heal_lr`` whose trial ends at the highest agreement on the held-out images."""
    rates: list[float] = options.heal_lr
    if len(rates) == 1:
        return rates[0]
    steps = max(options.heal_steps // TRIAL, LEAST)
    found = {}
    for rate in rates:
        report = heal_shifted(made, model, images, held_out, steps, rate, options.seed)[1]
        assert report.agreement is not None
        found[rate] = report.agreement[1]
    tried = ", ".join(f"{rate:g} {agreement:.1%}" for rate, agreement in found.items())
    print(f"    agreement after {steps} steps by learning rate: {tried}", flush=True)
    return max(found, key=lambda rate: found[rate])


def heal_shifted(
    made: nn.Module, model: nn.Module, images: Tensor, held_out: Tensor, steps: int, lr: float, seed: int
) -> tuple[nn.Module, HealReport]:
    """Distil the network into another one, on images that are shifted by up to ``SHIFT`` pixels."""
    padded, size = F.pad(images, (SHIFT,) * 4, mode="reflect"), images.shape[-1]
    options = {"held_out": held_out, "block_steps": 0, "steps": steps, "lr": lr, "crop_size": size, "seed": seed}
    return heal(made, model, padded, **options)


def renew(made: nn.Module, images: Tensor, seed: int) -> nn.Module:
    """Return a copy with random weights, whose normalisations have the statistics of the images."""
    torch.manual_seed(seed)
    made = copy.deepcopy(made)
    for module in made.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
            module.momentum = None  # averages over all images
    with torch.no_grad():
        made.train()(images)
    return made.eval()


def prune(model: nn.Module, budget: float, images: Tensor) -> tuple[str, nn.Module]:
    """Prune by Torch-Pruning to a share of the multiply-adds, by each importance; return the best by agreement.

    The largest pruned network within the budget is found by bisection of the pruning ratio.
    """
    expected, found = classes(model, images), dict[str, nn.Module]()
    for name, attempt in _importances(model, images).items():
        low, high = 0.0, 1.0
        for _ in range(BISECTIONS):
            ratio = (low + high) / 2
            pruned = attempt(ratio)
            if _macs(pruned) <= budget * _macs(model):
                found[name], high = pruned, ratio
            else:
                low = ratio
    best = max(found, key=lambda name: int((classes(found[name], images) == expected).sum()))
    return best, found[best]


def _importances(model: nn.Module, images: Tensor) -> dict[str, Callable[[float], nn.Module]]:
    """Functions from a pruning ratio to the network pruned by one of Torch-Pruning's importances."""
    import torch_pruning

    importance = torch_pruning.importance

    def attempt(measure: Callable[[], Any], is_global: bool) -> Callable[[float], nn.Module]:
        def run(ratio: float) -> nn.Module:
            pruned = _with_convolutions(model)
            last = [module for module in pruned.modules() if isinstance(module, nn.Linear)][-1]
            options = {"pruning_ratio": ratio, "global_pruning": is_global, "ignored_layers": [last]}
            pruner = torch_pruning.pruner.BasePruner(pruned, images[:1], measure(), **options)
            F.cross_entropy(pruned(images), classes(model, images)).backward()  # for Taylor's
            pruner.step()
            pruned.zero_grad(set_to_none=True)
            return pruned.eval()

        return run

    return {
        f"{name}, {'global' if is_global else 'uniform'}": attempt(measure, is_global)
        for name, measure in {
            "magnitude": importance.GroupMagnitudeImportance,
            "scale of normalisation": importance.BNScaleImportance,
            "Taylor": importance.GroupTaylorImportance,
        }.items()
        for is_global in (False, True)
    }


def _with_convolutions(model: nn.Module) -> nn.Module:
    """Return a copy with 1 x 1 convolutions as shortcuts in place of zero padding, which Torch-Pruning cannot prune."""
    made = copy.deepcopy(model)
    for name, module in model.named_modules():
        if isinstance(module, ZeroPadShortcut):
            block = made.get_submodule(name.rpartition(".")[0])
            inputs = block.convs[0].primary_conv[0].in_channels
            block.shortcut = nn.Conv2d(inputs, inputs + module.extra_channels, 1, module.stride, bias=False)
            nn.init.eye_(block.shortcut.weight[:, :, 0, 0])
    return made


def train_from_scratch(architecture: str, folder: Path, options: argparse.Namespace) -> nn.Module:
    """Train a network from random weights, with labels, by the recipe ``cifar10-fast``, whose end is a time limit."""
    limit = f"{60 * options.scratch_minutes:.0f}s"
    changes = {"model": architecture, "epochs": 100, "time_limit": limit, "seed": options.seed}
    with tempfile.TemporaryDirectory() as runs:
        recipe = RECIPES["cifar10-fast"]
        result = train_model(
            folder, runs_dir=runs, recipe=recipe, device="cpu", report=False, progress=False, **changes
        )
        return read_checkpoint(result.checkpoint).build()


@torch.no_grad()
def classes(network: nn.Module, images: Tensor) -> Tensor:
    """Predicted classes (N,)."""
    return torch.cat([network(batch).argmax(1) for batch in images.split(BATCH)])


def find_images(folder: Path) -> list[Path]:
    """Find the images of a folder, sorted by path."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def read(files: list[Path], preprocessing: Preprocessing) -> Tensor:
    """Read images, normalised (N, C, H, W)."""
    return preprocessing.normalize(torch.stack([preprocessing.center(preprocessing.read(path)) for path in files]))


def _describe(budget: float, report: CompressionReport) -> str:
    kinds = [change["kind"] for change in report.changes]
    macs, params = (after / before for before, after in (report.macs, report.params))
    return (
        f"budget {budget}: {macs:.1%} of multiply-adds, {params:.1%} of parameters, {kinds.count('ghost')} Ghost"
        f" modules, {kinds.count('merge')} merges"
    )


def _macs(network: nn.Module) -> int:
    return count(network, (3, 32, 32)).macs
