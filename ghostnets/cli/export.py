"""``ghostnets export CHECKPOINT --format FORMAT``: a file for a runtime, run there and compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from ghostnets.cli.output import message, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.export import Report, export_model, export_web

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Export:
    """Write a checkpoint for another runtime. The file is run there, in a process of its own, on real images, and
    compared with the network; beyond the tolerance of its precision no file is left, and the exit code is 1. The report
    stands beside the file.

    It takes pixels (uint8, resized and cut) and gives probabilities, as far as the format can, and knows its classes,
    preprocessing, versions and checkpoint.

    Examples: ghostnets export runs/photos-ghostnet_100/best.safetensors --format openvino
    | ghostnets export best.safetensors --format onnx --precision int8 --images photos/
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """best.safetensors of a run."""
    format: str
    """onnx, openvino, executorch, litert, torch-export or engine; or web: a folder for any static host, with a page
    that classifies pictures in the browser (f32)."""
    to: Annotated[Path | None, tyro.conf.arg(metavar="FILE|FOLDER")] = None
    """Write this file; the checkpoint's name with the format's suffix by default, for web a folder web beside it."""
    precision: str = "f32"
    """f32, f16, bf16 or int8, as far as the format has it."""
    input: str | None = None
    """uint8: pixels, normalised in the file (the default); float32: normalised before."""
    output: str | None = None
    """probabilities (the default where the format can) or logits."""
    any_size: bool = False
    """Take images of any size, not of the checkpoint's alone."""
    features: bool = False
    """Give what the last layer takes as a second output, too: an embedding."""
    images: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Real images to compare and calibrate with; by default those of the run, or embedded ones."""
    json: bool = False
    """Print the report as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(Export, prog="ghostnets export", args=arguments)
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
        _print(command.to or command.checkpoint.with_suffix(Path(report.file).suffix), report)
    return 0


def _export_web(command: Export) -> int:
    asked = (command.precision, command.input, command.output, command.any_size, command.features)
    if asked != ("f32", None, None, False, False):
        raise ConfigurationError(
            "the page takes f32, pixels in and probabilities out; leave precision, input, output, any size and features"
            " out."
        )
    folder = command.to or command.checkpoint.with_name("web")
    report = export_web(command.checkpoint, folder, images=command.images)
    if command.json:
        print(report.to_json(), end="")
    else:
        _print(folder / report.file, report)
        message(f"put {folder} on any static host, or look at it: python -m http.server --directory {folder}")
    return 0


def _print(path: Path, report: Report) -> None:
    found, allowed = report.comparison, report.tolerance
    table = Table(show_header=False)
    sizes = ", ".join(f"{height} x {width}" for height, width in report.image_sizes)
    low, median, high = found.times_as_fast
    most = "" if allowed.max_difference is None else f" (allowed {allowed.max_difference:g})"
    for row in [
        ("file", f"{path}, {report.bytes / 1e6:.2f} MB, {report.description.precision}"),
        ("in", f"{report.description.input}, {'any size' if report.description.any_size else sizes}"),
        ("out", report.description.output + (", features" if report.description.has_features else "")),
        ("run by", f"{found.runtime}, in a process of its own"),
        ("images", f"{report.images} of {report.images_from}; {sizes}"),
        ("difference", f"at most {found.max_difference:.1e} of the largest score{most},"
         f" {found.mean_difference:.1e} on average (allowed {allowed.mean_difference:g});"
         f" {found.max_probability_difference:.1e} of a probability"),
        ("same class", f"{found.top1_agreement:.1%} of the images (at least {allowed.top1_agreement:.0%})"),
        ("one image", f"{found.seconds[1] * 1e3:.2f} ms; eager torch {found.torch_seconds[1] * 1e3:.2f} ms;"
         f" {median:.2f} times as fast ({low:.2f} to {high:.2f}), {found.threads} thread, {found.processor}"),
    ]:  # fmt: skip
        table.add_row(*row)
    result_console().print(table)
