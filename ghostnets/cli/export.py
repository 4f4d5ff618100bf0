"""``ghostnets export CHECKPOINT --format FORMAT``: export to an inference runtime, with verification."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from ghostnets.artefacts import FORMATS
from ghostnets.cli.output import message, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.export import ExportReport, export_model, export_web

__all__ = ["main"]

FORMAT_HELP = f"{', '.join(FORMATS)}; or web: a page for any static host that classifies images in the browser (f32)."


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class ExportCommand:
    """Export a checkpoint to an inference runtime. The file is run by that runtime in a separate process on real images
    and compared with the network. If it exceeds the tolerance of its precision, no file is written and the exit code is
    1. A report is written next to the file.

    By default the file maps uint8 pixels, resized and cropped, to probabilities, if the format supports it. It contains
    its class names, preprocessing, versions and the SHA-256 of the checkpoint.

    Examples: ghostnets export runs/photos-ghostnet_100/best.safetensors --format openvino
    | ghostnets export best.safetensors --format onnx --precision int8 --images photos/
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """best.safetensors of a run."""
    format: Annotated[str, tyro.conf.arg(help=FORMAT_HELP)]
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE|FOLDER")] = None
    """Output file, by default the checkpoint's path with the format's suffix; for web a folder, by default web."""
    precision: str = "f32"
    """f32, f16, bf16 or int8, if supported by the format."""
    input: str | None = None
    """uint8: pixels, normalised by the file (default); float32: normalised by the caller."""
    output: str | None = None
    """probabilities (default if supported) or logits."""
    any_size: bool = False
    """Accept images of any size, not only of the checkpoint's image size."""
    features: bool = False
    """Add the input of the last linear layer, an embedding, as a second output."""
    images: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of images, or folder or URL of shards, for verification and calibration; by default the run's training
    data, or embedded images."""
    json: bool = False
    """Print the report as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(ExportCommand, prog="ghostnets export", args=arguments)
    if command.format == "web":
        return _export_web(command)
    report = export_model(
        command.checkpoint,
        command.to,
        format=command.format,
        precision=command.precision,
        input=command.input,
        output=command.output,
        any_size=command.any_size,
        features=command.features,
        images=command.images,
    )
    if command.json:
        print(report.to_json(), end="")
    else:
        _print_report(command.to or command.checkpoint.with_suffix(Path(report.file).suffix), report)
    return 0


def _export_web(command: ExportCommand) -> int:
    options = (command.precision, command.input, command.output, command.any_size, command.features)
    if options != ("f32", None, None, False, False):
        raise ConfigurationError(
            "the web page uses f32, uint8 input and probabilities; leave out --precision, --input, --output, --any-size"
            " and --features."
        )
    folder = command.to or command.checkpoint.with_name("web")
    report = export_web(command.checkpoint, folder, images=command.images)
    if command.json:
        print(report.to_json(), end="")
    else:
        _print_report(folder / report.file, report)
        message(f"copy {folder} to a static host, or try it: python -m http.server --directory {folder}")
    return 0


def _print_report(path: Path, report: ExportReport) -> None:
    comparison, tolerance = report.comparison, report.tolerance
    table = Table(show_header=False)
    sizes = ", ".join(f"{height} x {width}" for height, width in report.image_sizes)
    low, median, high = comparison.times_as_fast
    limit = "" if tolerance.max_difference is None else f" (limit {tolerance.max_difference:g})"
    for row in [
        ("file", f"{path}, {report.bytes / 1e6:.2f} MB, {report.description.precision}"),
        ("input", f"{report.description.input}, {'any size' if report.description.any_size else sizes}"),
        ("output", report.description.output + (", features" if report.description.has_features else "")),
        ("runtime", f"{comparison.runtime}, in a separate process"),
        ("images", f"{report.images} of {report.images_from}; {sizes}"),
        ("difference", f"max {comparison.max_difference:.1e} of the largest score{limit},"
         f" mean {comparison.mean_difference:.1e} (limit {tolerance.mean_difference:g});"
         f" max {comparison.max_probability_difference:.1e} of a probability"),
        ("top-1 agreement", f"{comparison.top1_agreement:.1%} of the images (minimum {tolerance.top1_agreement:.0%})"),
        ("one image", f"{comparison.seconds[1] * 1e3:.2f} ms; eager torch {comparison.torch_seconds[1] * 1e3:.2f} ms;"
         f" speedup {median:.2f} ({low:.2f} to {high:.2f}), {comparison.threads} thread, {comparison.processor}"),
    ]:  # fmt: skip
        table.add_row(*row)
    result_console().print(table)
