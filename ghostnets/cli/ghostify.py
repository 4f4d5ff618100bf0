"""``ghostnets ghostify MODEL|CHECKPOINT IMAGES --out FILE``: compresses a trained network."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from ghostnets.checkpoints import Checkpoint, build_network, read_checkpoint, read_weights, save_checkpoint
from ghostnets.cli.options.ghostify import GhostifyCommand
from ghostnets.cli.output import message, print_json, result_console, show_stages
from ghostnets.compress import Analysis, CompressionReport, analyse, heal
from ghostnets.data import find_sample
from ghostnets.errors import CheckpointError, DataError
from ghostnets.files import write_atomically
from ghostnets.measure import wilson_interval
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_count

__all__ = ["run"]

HELD_OUT = 4  # one image in so many is compared
BATCH = 16
SHOWN_LAYERS = 8


def run(command: GhostifyCommand) -> int:
    checkpoint = _read(command)
    original = checkpoint.build()
    with show_stages() as show:
        show("reading images")
        fitted, compared = _images(command, checkpoint.preprocessing)
        show("measuring the damage of changes")
        analysis = analyse(original, fitted)
        curve, made, report = [], original, None
        for budget in command.budgets:
            show(f"fitting a network of {budget:.0%} of the multiply-adds")
            network, found = analysis.ghostify(budget)
            curve.append(_point(budget, network, found, original, compared))
            if report is None:
                made, report = network, found
        assert report is not None
        healed = None
        if command.heal_steps:
            show("healing")
            blocks = command.heal_steps // 3
            made, _ = heal(
                made, original, torch.cat(list(fitted)), block_steps=blocks, steps=command.heal_steps - blocks
            )
            healed = _agreement(made, original, compared)
    result = replace(
        checkpoint,
        state_dict=made.state_dict(),
        changes=(*checkpoint.changes, *report.changes),
        temperature=None,
        training={**checkpoint.training, "compressed_from": checkpoint.sha256, "budget": command.budget},
    )
    save_checkpoint(command.out, result)
    summary = {
        "checkpoint": str(command.out),
        "images": {"fitted": sum(map(len, fitted)), "compared": len(compared)},
        "curve": curve,
        "healed": healed,
        "bytes": command.out.stat().st_size,
        **report.to_dict(),
    }
    with write_atomically(command.out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if checkpoint.temperature is not None:
        message("the temperature of the original is dropped; ghostnets eval --calibrate finds that of the new network.")
    if command.json:
        print_json(summary)
    else:
        _print(command, analysis, report, summary)
    return 0


def _read(command: GhostifyCommand) -> Checkpoint:
    """Return the network as a checkpoint, its own or one made of a library's network and a file of weights."""
    source = command.source
    if not isinstance(source, str):
        return read_checkpoint(source)
    assert command.weights is not None
    weights = read_weights(command.weights, keeps_prefixes=True)
    with torch.device("meta"):
        last = list(build_network(source, {}).state_dict())[-1]
    count = len(weights.tensors[last]) if last in weights.tensors and weights.tensors[last].dim() else 0
    if not count:
        raise CheckpointError(f"{command.weights} has no tensor {last} of {source}; give a state dict of that network.")
    arguments = {"num_classes": count}
    model = build_network(source, arguments)
    try:
        model.load_state_dict(weights.tensors)
    except RuntimeError as error:
        first = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{command.weights} does not fit {source}: {first}; give its own state dict.") from error
    names = tuple(f"class_{number:04d}" for number in range(1, count + 1))
    preprocessing = _library_preprocessing(model)
    return Checkpoint(source, arguments, model.state_dict(), names, preprocessing, sha256=weights.sha256)


def _library_preprocessing(model: nn.Module) -> Preprocessing:
    """Return the preprocessing that timm stores with a network, or the usual one at 224 pixels."""
    config = getattr(model, "pretrained_cfg", None)
    if not isinstance(config, dict) or "input_size" not in config:
        return Preprocessing.standard(224, 3)
    size = int(config["input_size"][-1])
    resize_to = max(size, round(size / float(config.get("crop_pct") or 0.875)))
    interpolation = "bicubic" if config.get("interpolation") == "bicubic" else "bilinear"
    mean, std = (tuple(map(float, config[key])) for key in ("mean", "std"))
    return Preprocessing(size, resize_to, mean, std, interpolation)


def _images(command: GhostifyCommand, preprocessing: Preprocessing) -> tuple[list[Tensor], Tensor]:
    """Read the images: batches to fit to, and others to compare on."""
    sample = find_sample(command.images, most=command.most, splits=())
    dataset, problems = sample.load(preprocessing, lambda: None)
    if problems:
        message(f"skipped {len(problems)} unreadable images: {' '.join(problems[:5])}")
    if len(dataset) < 2 * HELD_OUT:
        raise DataError(f"{command.images} has {len(dataset)} readable images; give at least {2 * HELD_OUT}.")
    x = torch.stack([preprocessing.center(dataset[index]) for index in range(len(dataset))])
    x = preprocessing.normalize(x)
    is_compared = torch.arange(len(x)) % HELD_OUT == 0
    return list(x[~is_compared].split(BATCH)), x[is_compared]


def _point(
    budget: float, network: nn.Module, report: CompressionReport, original: nn.Module, compared: Tensor
) -> dict[str, Any]:
    return {
        "budget": budget,
        "macs": report.macs[1] / report.macs[0],
        "params": report.params[1] / report.params[0],
        "agreement": _agreement(network, original, compared),
    }


@torch.no_grad()
def _agreement(network: nn.Module, original: nn.Module, images: Tensor) -> dict[str, Any]:
    """Return the number of images on which both networks predict the same class, with a Wilson interval."""
    same = sum(int((network(x).argmax(1) == original(x).argmax(1)).sum()) for x in images.split(BATCH))
    low, high = wilson_interval(same, len(images))
    return {"share": same / len(images), "low": low, "high": high}


def _print(command: GhostifyCommand, analysis: Analysis, report: CompressionReport, summary: dict[str, Any]) -> None:
    console = result_console()
    (macs, less), (params, fewer) = report.macs, report.params
    kinds = [change["kind"] for change in report.changes]
    console.print(
        f"{command.network}: {macs / 1e6:,.1f} M multiply-adds to {less / 1e6:,.1f} M ({less / macs:.1%}),"
        f" {params / 1e6:,.2f} M parameters to {fewer / 1e6:,.2f} M; {kinds.count('ghost')} Ghost modules,"
        f" {kinds.count('merge')} layers with merged channels, {len(report.left_alone)} convolutions left alone.",
        soft_wrap=True,
    )
    table = Table("budget", "multiply-adds", "parameters", "same class as the original", "95 % interval")
    rows: Sequence[dict[str, Any]] = summary["curve"]
    for row in sorted(rows, key=lambda row: -row["budget"]):
        table.add_row(f"{row['budget']:g}", f"{row['macs']:.1%}", f"{row['params']:.1%}", *_cells(row["agreement"]))
    if summary["healed"]:
        table.add_row(f"{command.budget:g}, healed", "", "", *_cells(summary["healed"]))
    console.print(table)
    worst = sorted(report.sensitivity, key=lambda entry: -entry.damage)[:SHOWN_LAYERS]
    listed = ", ".join(f"{entry.conv} ({entry.kind} {entry.damage:.2f})" for entry in worst)
    console.print(f"Most sensitive, with half of the maps: {listed}.", soft_wrap=True)
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    fitted, compared = summary["images"]["fitted"], summary["images"]["compared"]
    console.print(
        f"Fitted to {format_count(fitted, 'image')}, compared on {compared} others. Wrote {command.out}"
        f" ({summary['bytes'] / 1e6:,.1f} MB) and {command.out.with_suffix('.json')}.",
        soft_wrap=True,
    )


def _cells(agreement: dict[str, Any]) -> tuple[str, str]:
    return f"{agreement['share']:.1%}", f"{agreement['low']:.1%} to {agreement['high']:.1%}"
