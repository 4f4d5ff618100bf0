"""``ghostnets ghostify MODEL|CHECKPOINT IMAGES --out FILE``: compresses a trained network."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from ghostnets.checkpoints import save_checkpoint
from ghostnets.cli.compression import BATCH, format_agreement, measure_agreement, read_images, read_source
from ghostnets.cli.options.ghostify import GhostifyCommand
from ghostnets.cli.output import message, print_json, result_console, show_stages
from ghostnets.compress import Analysis, CompressionReport, analyse, heal
from ghostnets.files import write_atomically
from ghostnets.terminal import format_count

__all__ = ["run"]

SHOWN_LAYERS = 8


def run(command: GhostifyCommand) -> int:
    checkpoint = read_source(command.source, command.weights)
    original = checkpoint.build()
    with show_stages() as show:
        show("reading images")
        preprocessing = replace(checkpoint.preprocessing, max_pixels=command.max_pixels)
        x, is_compared = read_images(command.images, command.most, preprocessing)
        fitted, compared = list(x[~is_compared].split(BATCH)), x[is_compared]
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
            healed = measure_agreement(made, original, compared)
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


def _point(
    budget: float, network: nn.Module, report: CompressionReport, original: nn.Module, compared: Tensor
) -> dict[str, Any]:
    return {
        "budget": budget,
        "macs": report.macs[1] / report.macs[0],
        "params": report.params[1] / report.params[0],
        "agreement": measure_agreement(network, original, compared),
    }


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
        table.add_row(
            f"{row['budget']:g}", f"{row['macs']:.1%}", f"{row['params']:.1%}", *format_agreement(row["agreement"])
        )
    if summary["healed"]:
        table.add_row(f"{command.budget:g}, healed", "", "", *format_agreement(summary["healed"]))
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
