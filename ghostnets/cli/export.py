"""``ghostnets export CHECKPOINT --format FORMAT``: export to an inference runtime, with verification."""

import shlex
from pathlib import Path

import torch
from rich.table import Table

from ghostnets.cli.options.export import WEB, ExportCommand
from ghostnets.cli.output import message, result_console, show_stages
from ghostnets.export import ExportReport, export_model, export_web
from ghostnets.export.report import ExportComparison, Tolerance
from ghostnets.terminal import format_count

__all__ = ["run"]

OUTPUTS = {  # by task, of networks that are not classifiers
    "detect": "logits of classes and distances at each point, which ghostnets decodes",
    "segment": "logits of the classes of each pixel",
}


def run(command: ExportCommand) -> int:
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    if command.format == WEB:
        return _export_web(command)
    with show_stages() as on_stage:
        report = export_model(
            command.checkpoint,
            command.out,
            format=command.format,
            precision=command.precision,
            input=command.input,
            output=command.output,
            any_size=command.any_size,
            batch=command.batch,
            opset=command.opset,
            features=command.features,
            images=command.images,
            max_pixels=command.max_pixels,
            on_stage=on_stage,
        )
    if command.json:
        print(report.to_json(), end="")
    else:
        path = command.out or command.checkpoint.with_name(report.file)
        _print_report(path, report)
        name = shlex.quote(str(path))
        message(f"use it: ghostnets predict {name} IMAGES, or ghostnets serve {name}")
    return 0


def _export_web(command: ExportCommand) -> int:
    folder = command.out or command.checkpoint.with_name("web")
    with show_stages() as on_stage:
        report = export_web(
            command.checkpoint, folder, images=command.images, max_pixels=command.max_pixels, on_stage=on_stage
        )
    if command.json:
        print(report.to_json(), end="")
    else:
        _print_report(folder / report.file, report)
        message(f"copy {folder} to a static host, or try it: python -m http.server --directory {folder}")
    return 0


def _print_report(path: Path, report: ExportReport) -> None:
    comparison, tolerance = report.comparison, report.tolerance
    table = Table(show_header=False)
    sizes, *others = [f"{height} x {width}" for height, width in report.image_sizes]
    compared = sizes + (f", and {report.resized} of them at {' and '.join(others)}" if others else "")
    low, median, high = comparison.times_as_fast
    batch = format_count(report.description.batch, "image") if report.description.batch else ""
    limit = "" if tolerance.max_difference is None else f" (limit {tolerance.max_difference:g})"
    for row in [
        ("file", f"{path}, {report.bytes / 1e6:.2f} MB, {report.description.precision}"),
        ("report", f"{path}.report.json"),
        *([("precision", comparison.choice)] if comparison.choice else []),
        ("input", f"{report.description.input}, {'any size' if report.description.any_size else sizes}"
         + (f", {batch} at a time" if batch else "")),
        ("output", OUTPUTS.get(report.description.task)
         or report.description.output + (", features" if report.description.has_features else "")),
        ("runtime", f"{comparison.runtime}, in a separate process"),
        ("images", f"{report.images} of {report.images_from}; {compared}"),
        ("difference", f"max {comparison.max_difference:.1e} of the largest score{limit},"
         f" mean {comparison.mean_difference:.1e} (limit {tolerance.mean_difference:g});"
         f" max {comparison.max_probability_difference:.1e} of a probability"),
        *_rows_of_maps(comparison, tolerance),
        ("top-1 agreement", f"{comparison.top1_agreement:.2%} of the {comparison.compared} (minimum"
         f" {tolerance.top1_agreement:.1%})"),
        (batch or "one image", f"{comparison.seconds[1] * 1e3:.2f} ms;"
         f" eager torch {comparison.torch_seconds[1] * 1e3:.2f} ms; speedup {median:.2f} ({low:.2f} to {high:.2f}),"
         f" {comparison.threads} thread, {comparison.processor}"),
    ]:  # fmt: skip
        table.add_row(*row)
    result_console().print(table)


def _rows_of_maps(comparison: ExportComparison, tolerance: Tolerance) -> list[tuple[str, str]]:
    """Rows for a detector's boxes and objects, or for the masks of a segmentation network."""
    rows = []

    def limit(value: float | None, word: str) -> str:
        return "" if value is None else f" ({word} {value:g})"

    if comparison.min_iou is not None:
        rows.append(
            (
                "boxes",
                f"{comparison.boxes:,} compared; lowest IoU {comparison.min_iou:.4f}"
                f"{limit(tolerance.min_iou, 'minimum')}, max {comparison.max_probability_difference:.1e} of a score"
                f"{limit(tolerance.max_probability_difference, 'limit')}",
            )
        )
    if comparison.object_agreement is not None:
        share = f"{comparison.object_agreement:.1%} found by both{limit(tolerance.object_agreement, 'minimum')}"
        rows.append(("objects", share))
    if comparison.mean_iou is not None:
        rows.append(("masks", f"mean IoU {comparison.mean_iou:.4f}{limit(tolerance.mean_iou, 'minimum')}"))
    return rows
