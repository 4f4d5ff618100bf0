"""Options of ``ghostnets export``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.artefacts import FORMATS
from ghostnets.cli.options.base import CheckpointPath, CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_checkpoint, check_choices
from ghostnets.errors import ConfigurationError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["WEB", "ExportCommand"]

WEB = "web"


@dataclass(frozen=True)
class ExportCommand(CommandOptions):
    """Export a checkpoint to an inference runtime. The file is run by that runtime in a separate process on real images
    and compared with the network. If it exceeds the tolerance of its precision, no file is written and the exit code is
    1. A report is written next to the file.

    By default the file maps uint8 pixels, resized and cropped, to probabilities, if the format supports it. It contains
    its class names, preprocessing, versions and the SHA-256 of the checkpoint.

    Examples: ghostnets export runs/photos-ghostnet_100/best.safetensors --format openvino
    | ghostnets export best.safetensors --format onnx --precision int8 --images photos/
    """

    command: ClassVar[str] = "export"
    renamed: ClassVar[Mapping[str, str]] = {"--to": "--out"}

    checkpoint: tyro.conf.Positional[CheckpointPath]
    """Folder of a run, or its best.safetensors."""
    format: Annotated[
        str,
        tyro.conf.arg(
            help=f"{', '.join(FORMATS)}; or {WEB}: a folder for any static host with a page that runs the network in"
            " the browser (f32)."
        ),
    ]
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE|FOLDER")] = None
    """Output file, by default the checkpoint's path with the format's suffix; for web a folder, by default web."""
    precision: str | None = None
    """f32, f16, bf16 or int8, if supported by the format; default: f32, for the engine auto: f32 or bf16, whichever is
    faster on the machine that runs the file."""
    input: str | None = None
    """uint8: pixels, normalised by the file (default); float32: normalised by the caller."""
    output: str | None = None
    """probabilities (default if supported) or logits."""
    any_size: bool = False
    """Accept images of any size, not only of the checkpoint's image size."""
    batch: int | None = None
    """Number of images that the file takes, by default any; an ONNX file then has static shapes, as compilers for
    TensorRT, RKNN and Hailo need."""
    opset: int | None = None
    """Version of ONNX's operators, at least 14; by default that of torch's exporter."""
    features: bool = False
    """Add the input of the last linear layer, an embedding, as a second output."""
    images: Annotated[str | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Folder of images, or folder or URL of shards, for verification and calibration; by default the run's training
    data, or embedded images."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    threads: int | None = None
    """Number of threads of torch, for calibration; by default all processors, or OMP_NUM_THREADS."""
    json: JsonOutput = False

    def check(self) -> None:
        check_at_least("--threads", self.threads, 1)
        check_at_least("--batch", self.batch, 1)
        check_at_least("--max-pixels", self.max_pixels, 1)
        check_choices("format", [self.format], [*FORMATS, WEB])
        chosen = FORMATS["onnx" if self.format == WEB else self.format]
        options = (
            self.precision or "f32",
            self.input,
            self.output,
            self.any_size,
            self.batch,
            self.opset,
            self.features,
        )
        if self.format == WEB and options != ("f32", None, None, False, None, None, False):
            raise ConfigurationError(
                "the web page uses f32, uint8 input and probabilities; leave out --precision, --input, --output,"
                " --any-size, --batch, --opset and --features."
            )
        require_installed(*chosen.libraries, extra=chosen.extra)
        check_checkpoint(self.checkpoint)
