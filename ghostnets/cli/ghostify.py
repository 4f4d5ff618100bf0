"""``ghostnets ghostify MODEL|CHECKPOINT IMAGES --out FILE``: compresses a trained network."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.bench.backends import prepare
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.compression import BATCH, format_agreement, measure_agreement, read_images, read_source
from ghostnets.cli.options.ghostify import GhostifyCommand
from ghostnets.cli.output import message, print_json, result_console, show_stages
from ghostnets.compress import Analysis, CompressionReport, HealReport, analyse, heal
from ghostnets.compress.heal import HOLD_OUT_EVERY
from ghostnets.errors import ConfigurationError, DataError, EngineError, MissingExtraError
from ghostnets.explain.compression_figure import compression_figure
from ghostnets.explain.figures import save_figure
from ghostnets.files import check_writable, write_atomically
from ghostnets.measure import time_interleaved
from ghostnets.processor import processor_name
from ghostnets.terminal import format_count

__all__ = ["run"]

SHOWN_LAYERS = 8
TIMED = ("engine", "openvino")
UNITS = {"macs": "multiply-adds", "latency": "time"}


def run(command: GhostifyCommand) -> int:
    check_writable(command.out)
    checkpoint = read_source(command.source, command.weights)
    original = checkpoint.build()
    with show_stages() as show:
        show("reading images")
        preprocessing = replace(checkpoint.preprocessing, max_pixels=command.max_pixels)
        x, is_compared, _ = read_images(command.images, command.most, preprocessing)
        fitted, compared = list(x[~is_compared].split(BATCH)), x[is_compared]
        if command.heal_steps and len(x) - len(compared) < HOLD_OUT_EVERY:
            raise DataError(
                f"{command.images} has {len(x)} readable images, too few to heal on; pass more, or omit --heal-steps."
            )
        show("measuring the damage of changes")
        analysis = analyse(original, fitted)
        made, report, curve = _fit(command, analysis, compared, show)
        healing, healed = None, None
        if command.heal_steps:
            show("healing")
            made, healing = _heal(made, original, torch.cat(fitted), command)
            healed = measure_agreement(made, original, compared) if healing.is_better else None
        times = _time(original, made, x[:1], show) if command.time else {}
    result = replace(
        checkpoint,
        state_dict=made.state_dict(),
        changes=(*checkpoint.changes, *report.changes),
        temperature=None,
        float_layers=(),
        training={
            **checkpoint.training,
            "compressed_from": checkpoint.sha256,
            "budget": command.budget,
            "budget_unit": command.unit,
        },
    )
    save_checkpoint(command.out, result)
    if command.heal_state is not None:
        command.heal_state.unlink(missing_ok=True)
    summary = {
        "checkpoint": str(command.out),
        "picture": _draw(command, report, curve, healed),
        "unit": command.unit,
        "images": {"fitted": sum(map(len, fitted)), "compared": len(compared)},
        "curve": curve,
        "healed": healed,
        "healing": None if healing is None else _describe(healing),
        "times": times,
        "bytes": command.out.stat().st_size,
        **report.to_dict(),
    }
    with write_atomically(command.out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    _say_what_is_dropped(checkpoint)
    if command.json:
        print_json(summary)
    else:
        _print(command, analysis, report, summary)
    return 0


def _say_what_is_dropped(checkpoint: Checkpoint) -> None:
    """Say what belongs to the original network alone, so that the new checkpoint does not have it."""
    if checkpoint.temperature is not None:
        message("the temperature of the original is dropped; ghostnets eval --calibrate finds that of the new network.")
    if checkpoint.float_layers:
        message(
            "the layers of the original that int8 leaves in float32 are dropped; ghostnets quantize finds those of the"
            " new network."
        )


def _fit(
    command: GhostifyCommand, analysis: Analysis, compared: Tensor, show: Callable[[str], None]
) -> tuple[nn.Module, CompressionReport, list[dict[str, Any]]]:
    """Return the network of the first budget, its report, and the points of all budgets that can be met."""
    timer = engine.time_layers if command.unit == "latency" else None
    fitted, curve = list[tuple[nn.Module, CompressionReport]](), list[dict[str, Any]]()
    for budget in command.budgets:
        show(f"fitting a network of {budget:.0%} of the {UNITS[command.unit]}")
        try:
            network, report = analysis.ghostify(budget, timer=timer)
        except ConfigurationError as error:
            if not fitted:
                raise
            message(f"left out of the curve: {error}")
            continue
        curve.append(_point(budget, network, report, analysis.original, compared))
        fitted = fitted or [(network, report)]
    return *fitted[0], curve


def _heal(
    made: nn.Module, original: nn.Module, images: Tensor, command: GhostifyCommand
) -> tuple[nn.Module, HealReport]:
    """Distil the original into the network, a third of the steps block by block; say so if that made it worse."""
    steps, state = command.heal_steps, command.heal_state
    if state is not None and state.exists():
        message(f"found {state}, the state of an interrupted healing, to resume from.")
    try:
        made, report = heal(made, original, images, block_steps=steps // 3, steps=steps - steps // 3, state=state)
    except KeyboardInterrupt:
        if state is not None and state.exists():
            message(f"healing is interrupted; the same command resumes it from {state}.")
        raise
    if not report.is_better:
        before, after = report.agreement or (0.0, 0.0)
        change = "lowered the agreement"
        if before == after:
            (before, after), change = report.errors, "raised the error"
        message(
            f"healing {change} on {format_count(report.held_out, 'image')} held out from {before:.1%} to"
            f" {after:.1%}, so the network as fitted is written; heal on more images (--most) or with other"
            " --heal-steps."
        )
    return made, report


def _describe(report: HealReport) -> dict[str, Any]:
    """What the report of healing says about the choice between both networks."""
    return {name: getattr(report, name) for name in ("held_out", "agreement", "errors", "is_better")}


def _time(original: nn.Module, made: nn.Module, image: Tensor, show: Callable[[str], None]) -> dict[str, Any]:
    """Time an image in both networks in turn, one runtime after the other: seconds, by name of the runtime."""
    found = {}
    for name in TIMED:
        show(f"timing in {name}")
        try:
            prepared = [
                prepare(name, network, image, precision="f32", threads=1).runner for network in (original, made)
            ]
        except (EngineError, MissingExtraError) as error:
            message(f"not timed in {name}: {error}")
            continue
        times = time_interleaved(dict(zip(("before", "after"), prepared, strict=True)))
        found[name] = {key: timing.median for key, timing in times.items()}
    return found


def _draw(
    command: GhostifyCommand, report: CompressionReport, curve: list[dict[str, Any]], healed: dict[str, Any] | None
) -> str | None:
    """Write the picture; return its path, or None without matplotlib."""
    path = command.out.with_suffix(".png")
    try:
        figure = compression_figure(report.sensitivity, curve, healed, unit=UNITS[command.unit])
    except MissingExtraError as error:
        message(f"no picture: {error}")
        return None
    with write_atomically(path) as temporary:
        save_figure(figure, temporary, path.suffix)
    return str(path)


def _point(
    budget: float, network: nn.Module, report: CompressionReport, original: nn.Module, compared: Tensor
) -> dict[str, Any]:
    macs = report.macs[1] / report.macs[0]
    cost = macs if report.seconds is None else report.seconds[1] / report.seconds[0]
    return {
        "budget": budget,
        "cost": cost,
        "seconds": report.seconds,
        "macs": macs,
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
    _print_curve(command, summary)
    for name, times in summary["times"].items():
        console.print(
            f"One image in {name}, float32, one thread, {processor_name()}: {times['before'] * 1e3:.2f} ms before,"
            f" {times['after'] * 1e3:.2f} ms after, {times['before'] / times['after']:.2f} times as fast.",
            soft_wrap=True,
        )
    halves = [entry for entry in report.sensitivity if entry.is_half]
    worst = sorted(halves, key=lambda entry: -entry.damage)[:SHOWN_LAYERS]
    listed = ", ".join(f"{entry.conv} ({entry.kind} {entry.damage:.2f})" for entry in worst)
    console.print(f"Most sensitive, with half of the maps: {listed}.", soft_wrap=True)
    for note in report.notes:
        console.print(f"Note: {note}", soft_wrap=True)
    fitted, compared = summary["images"]["fitted"], summary["images"]["compared"]
    written = [str(command.out.with_suffix(".json")), *([summary["picture"]] if summary["picture"] else [])]
    console.print(
        f"Fitted to {format_count(fitted, 'image')}, compared on {compared} others. Wrote {command.out}"
        f" ({summary['bytes'] / 1e6:,.1f} MB), {', '.join(written)}.",
        soft_wrap=True,
    )


def _print_curve(command: GhostifyCommand, summary: dict[str, Any]) -> None:
    """Print cost and agreement of the networks of all budgets, and measured times."""
    is_timed = command.unit == "latency"
    time = ["measured time"] if is_timed else []
    table = Table("budget", *time, "multiply-adds", "parameters", "same class as the original", "95 % interval")
    rows: Sequence[dict[str, Any]] = summary["curve"]
    for row in sorted(rows, key=lambda row: -row["budget"]):
        cells = [f"{row['cost']:.1%}"] if is_timed else []
        cells += [f"{row['macs']:.1%}", f"{row['params']:.1%}", *format_agreement(row["agreement"])]
        table.add_row(f"{row['budget']:g}", *cells)
    if summary["healed"]:
        table.add_row(f"{command.budget:g}, healed", *["" for _ in time], "", "", *format_agreement(summary["healed"]))
    console = result_console()
    console.print(table)
    if is_timed:
        before, after = rows[0]["seconds"]
        console.print(
            f"Time of one image in the engine, float32, one thread, {processor_name()}: {before * 1e3:.2f} ms before,"
            f" {after * 1e3:.2f} ms after (budget {command.budget:g}).",
            soft_wrap=True,
        )
