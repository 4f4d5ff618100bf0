"""``ghostnets quantize MODEL|CHECKPOINT IMAGES --out FILE``: int8 in every runtime that has it."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.artefacts import open_model
from ghostnets.artefacts.description import TASKS
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.compression import BATCH, compute_share, format_agreement, read_images, read_source
from ghostnets.cli.options.quantize import QuantizeCommand
from ghostnets.cli.output import message, print_json, result_console, show_stages
from ghostnets.cli.quantize_results import NetworkResults
from ghostnets.compress import Int8Runner, QuantizationReport, quantize
from ghostnets.data import spread
from ghostnets.errors import ConfigurationError, EngineError
from ghostnets.export import export_model
from ghostnets.export.exporter import MAP_FORMATS, NUM_SEGMENTED
from ghostnets.files import check_writable, write_atomically
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_count

__all__ = ["run"]

SHOWN_LAYERS = 8


@dataclass(frozen=True)
class _Comparison:
    """Images that int8 is compared on: result of the original network, and labels, -1 for none, int64 (N,)."""

    results: NetworkResults
    expected: Any
    labels: npt.NDArray[np.int64]

    def row(self, name: str, got: Any, size: int | None) -> dict[str, Any]:
        """Return a row of the report for a result."""
        same, total = self.results.count_same(got, self.expected)
        if self.results.task != "classify":  # objects and pixels of an image are not independent: no interval
            return {"name": name, "bytes": size, "share": same / total if total else None, "of": total}
        known = self.labels >= 0
        number = int(known.sum())
        right = compute_share(int((got == self.labels)[known].sum()), number) if number else None
        return {"name": name, "bytes": size, **compute_share(same, total), "accuracy": right, "labelled": number}

    def original(self) -> list[dict[str, Any]]:
        """Return the row of the original, if there are labels to compare it with."""
        return [self.row("float32", self.expected, None)] if (self.labels >= 0).any() else []


def run(command: QuantizeCommand) -> int:
    check_writable(command.out)
    checkpoint = read_source(command.source, command.weights, task=None)
    for name in command.targets if checkpoint.task != "classify" else ():
        if "int8" not in MAP_FORMATS[checkpoint.task].get(name, ()):
            raise ConfigurationError(
                f"{command.source} is {TASKS[checkpoint.task].network}, which format {name} is not tested with in int8;"
                " choose other --formats."
            )
    original = checkpoint.build()
    results = NetworkResults(checkpoint, original)
    with show_stages() as show:
        show("reading images")
        preprocessing = replace(checkpoint.preprocessing, max_pixels=command.max_pixels)
        names = checkpoint.class_names if results.task == "classify" else ()
        x, is_compared, labels = read_images(
            command.images, command.most, preprocessing, names, has_masks=results.task == "segment"
        )
        fitted, compared, known = x[~is_compared], x[is_compared], labels[is_compared].numpy()
        if results.task == "segment":  # logits of all pixels are large
            chosen = spread(range(len(compared)), NUM_SEGMENTED)
            compared, known = compared[chosen], known[chosen]
        comparison = _Comparison(results, results.of_network(original, compared), known)
        options: dict[str, Any] = {"method": command.method, "float_share": command.float_share, "on_stage": show}
        options["steps"] = command.train_steps
        runner = _find_runner(original, command.method, results.float_layers)
        made, report = quantize(original, fitted, run_int8=runner, **options)
        result = _checkpoint(checkpoint, made, report)
        save_checkpoint(command.out, result)
        rows = comparison.original()
        for method in ("minmax", "percentile"):
            show(f"plain int8 in the engine, {method}")
            rows += _plain(original, fitted, compared, comparison, method)
        for name, path in command.targets.items():
            show(f"writing {path.name}")
            export_model(
                command.out, path, format=name, precision="int8", images=command.images, max_images=command.most
            )
            got = results.of_file(open_model(path, threads=1), _pixels(compared, preprocessing))
            rows.append(comparison.row(f"{name}: {path.name}", got, _bytes(path)))
    summary = {
        **report.to_dict(),
        "checkpoint": str(command.out),
        "files": {name: str(path) for name, path in command.targets.items()},
        "images": {"fitted": len(fitted), "compared": len(compared)},
        "agreement": rows,
    }
    with write_atomically(command.out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    if command.json:
        print_json(summary)
    else:
        _print(command, report, summary, results)
    return 0


def _checkpoint(checkpoint: Checkpoint, made: nn.Module, report: QuantizationReport) -> Checkpoint:
    return replace(
        checkpoint,
        state_dict=made.state_dict(),
        float_layers=report.float_layers,
        training={**checkpoint.training, "quantized_from": checkpoint.sha256},
    )


def _find_runner(original: nn.Module, method: str, float_layers: tuple[str, ...]) -> Int8Runner | None:
    """Return the engine's int8, or None if it cannot run the network."""
    try:
        engine.compile(original)
    except EngineError as error:
        message(f"steps are judged by simulated int8: {error}")
        return None

    def run_int8(model: nn.Module, batches: Sequence[Tensor], floats: Collection[str], images: Tensor) -> Tensor:
        return engine.run_int8(model, batches, (*floats, *float_layers), images, method=method)

    return run_int8


def _plain(
    original: nn.Module, fitted: Tensor, compared: Tensor, comparison: _Comparison, method: str
) -> list[dict[str, Any]]:
    """Measure int8 of the original as it is, or say why not."""
    results = comparison.results
    try:
        outputs = engine.run_int8(original, fitted.split(BATCH), results.float_layers, compared, method=method)
    except EngineError as error:
        message(f"plain int8 was not measured: {error}")
        return []
    return [comparison.row(f"plain int8 in the engine, {method}", results.of_outputs(outputs.numpy()), None)]


def _pixels(images: Tensor, preprocessing: Preprocessing) -> npt.NDArray[np.uint8]:
    """Return normalised images (N, C, H, W) as uint8 (N, H, W, C)."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels: npt.NDArray[np.uint8] = ((images * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return np.ascontiguousarray(pixels)


def _bytes(path: Path) -> int:
    companion = path.with_suffix(".bin")
    return path.stat().st_size + (companion.stat().st_size if path.suffix == ".xml" and companion.exists() else 0)


def _print(
    command: QuantizeCommand, report: QuantizationReport, summary: dict[str, Any], results: NetworkResults
) -> None:
    console = result_console()
    has_labels = any(row.get("accuracy") for row in summary["agreement"])
    has_interval = results.task == "classify"
    more = [f"top-1 of {summary['agreement'][0]['labelled']} labelled", "95 % interval"] if has_labels else []
    table = Table("", "size", results.meaning, *(["95 % interval"] if has_interval else []), *more)
    for row in summary["agreement"]:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f} MB"
        accuracy = format_agreement(row["accuracy"]) if has_labels else ()
        share = format_agreement(row) if has_interval else (_format_share(row),)
        table.add_row(row["name"], size, *share, *accuracy)
    console.print(table)
    errors = ", ".join(f"{step} {error:.2g}" for step, error in report.errors.items())
    console.print(f"Error of the output on held-out images, as a share of its variance: {errors}.", soft_wrap=True)
    for step in report.steps:
        if step.startswith("no "):
            console.print(f"Note: {step}.", soft_wrap=True)
    worst = sorted(report.sensitivity, key=lambda layer: -layer.damage)[:SHOWN_LAYERS]
    console.print(
        "Most sensitive: " + ", ".join(f"{layer.layer} ({layer.damage:.2g})" for layer in worst), soft_wrap=True
    )
    kept = ", ".join(report.float_layers) or "none"
    console.print(f"In float32: {kept} ({report.float_share:.1%} of the multiply-adds).", soft_wrap=True)
    fitted, compared = summary["images"]["fitted"], summary["images"]["compared"]
    console.print(
        f"Calibrated with {format_count(fitted, 'image')}, compared on {compared} others. Wrote {command.out},"
        f" {command.out.with_suffix('.json')}{''.join(f', {path}' for path in command.targets.values())}.",
        soft_wrap=True,
    )


def _format_share(row: dict[str, Any]) -> str:
    return "nothing found" if row["share"] is None else f"{row['share']:.1%} of {row['of']:,}"
