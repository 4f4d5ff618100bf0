"""``ghostnets quantize MODEL|CHECKPOINT IMAGES --out FILE``: int8 without training, in every runtime that has it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.table import Table
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.artefacts import open_model
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.cli.compression import BATCH, compute_share, format_agreement, read_images, read_source
from ghostnets.cli.options.quantize import QuantizeCommand
from ghostnets.cli.output import message, print_json, result_console, show_stages
from ghostnets.compress import QuantizationReport, quantize
from ghostnets.errors import EngineError
from ghostnets.export import export_model
from ghostnets.files import write_atomically
from ghostnets.terminal import format_count

__all__ = ["run"]

SHOWN_LAYERS = 8


def run(command: QuantizeCommand) -> int:
    checkpoint = read_source(command.source, command.weights)
    original = checkpoint.build()
    with show_stages() as show:
        show("reading images")
        preprocessing = replace(checkpoint.preprocessing, max_pixels=command.max_pixels)
        x, is_compared = read_images(command.images, command.most, preprocessing)
        fitted, compared = x[~is_compared], x[is_compared]
        expected = _classes(original, compared)
        made, report = quantize(original, fitted, method=command.method, float_share=command.float_share, on_stage=show)
        result = _checkpoint(checkpoint, made, report)
        save_checkpoint(command.out, result)
        rows = []
        for method in ("minmax", "percentile"):
            show(f"plain int8 in the engine, {method}")
            rows += _plain(original, fitted, compared, expected, method)
        for name, path in command.targets.items():
            show(f"writing {path.name}")
            export_model(
                command.out, path, format=name, precision="int8", images=command.images, max_images=command.most
            )
            rows.append(_row(f"{name}: {path.name}", _run_file(path, checkpoint, compared), expected, _bytes(path)))
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
        _print(command, report, summary)
    return 0


def _checkpoint(checkpoint: Checkpoint, made: nn.Module, report: QuantizationReport) -> Checkpoint:
    return replace(
        checkpoint,
        state_dict=made.state_dict(),
        float_layers=report.float_layers,
        training={**checkpoint.training, "quantized_from": checkpoint.sha256},
    )


@torch.no_grad()
def _classes(network: nn.Module, images: Tensor) -> npt.NDArray[np.int64]:
    return torch.cat([network(x).argmax(1) for x in images.split(BATCH)]).numpy()


def _plain(
    original: nn.Module, fitted: Tensor, compared: Tensor, expected: npt.NDArray[np.int64], method: str
) -> list[dict[str, Any]]:
    """Measure int8 of the original as it is, or say why not."""
    try:
        session = engine.compile(original, precision="int8", calibration=list(fitted.split(BATCH)), method=method)
    except EngineError as error:
        message(f"plain int8 was not measured: {error}")
        return []
    got = np.concatenate([session(x.numpy()).argmax(1) for x in compared.split(BATCH)])
    return [_row(f"plain int8 in the engine, {method}", got, expected, None)]


def _run_file(path: Path, checkpoint: Checkpoint, compared: Tensor) -> npt.NDArray[np.int64]:
    """Return the classes that a file predicts for images, (N,)."""
    model = open_model(path, threads=1)
    preprocessing = checkpoint.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
    pixels = ((compared * std + mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    size = 1 if path.suffix == ".tflite" else BATCH
    parts = [model.run(pixels[i : i + size]).scores.argmax(1) for i in range(0, len(pixels), size)]
    return np.concatenate(parts)


def _bytes(path: Path) -> int:
    companion = path.with_suffix(".bin")
    return path.stat().st_size + (companion.stat().st_size if path.suffix == ".xml" and companion.exists() else 0)


def _row(name: str, got: npt.NDArray[np.int64], expected: npt.NDArray[np.int64], size: int | None) -> dict[str, Any]:
    return {"name": name, "bytes": size, **compute_share(int((got == expected).sum()), len(expected))}


def _print(command: QuantizeCommand, report: QuantizationReport, summary: dict[str, Any]) -> None:
    console = result_console()
    table = Table("int8", "size", "same class as the original", "95 % interval")
    for row in summary["agreement"]:
        size = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:,.1f} MB"
        table.add_row(row["name"], size, *format_agreement(row))
    console.print(table)
    errors = ", ".join(f"{step} {error:.2g}" for step, error in report.errors.items())
    console.print(f"Error of the output, simulated, as a share of its variance: {errors}.", soft_wrap=True)
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
