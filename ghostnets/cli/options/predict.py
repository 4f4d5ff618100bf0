"""Options of ``ghostnets predict``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ghostnets.cli.options.base import CheckpointPath, CommandOptions, JsonOutput
from ghostnets.cli.options.checks import (
    check_at_least,
    check_bom,
    check_folder,
    check_outside,
    check_table_suffix,
    check_threshold_option,
)
from ghostnets.devices import check_device_name
from ghostnets.errors import ConfigurationError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["PredictCommand"]


@dataclass(frozen=True)
class PredictCommand(CommandOptions):
    """Classify images, find the objects in them with a detector, or segment them with a segmentation network.

    An image that cannot be read gives a row with the reason; the exit code is then 1.

    Repeat the command to resume a run that was interrupted while it wrote a file; the file is the same in the end.

    Examples: ghostnets predict net.engine photo.jpg | ghostnets predict net.engine holiday/ --out predictions.csv
    | ghostnets predict runs/NAME holiday/ --sort-into sorted
    """

    command: ClassVar[str] = "predict"

    network: Annotated[tyro.conf.Positional[CheckpointPath], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT|RUN")]
    """A file of ghostnets export (.engine, .onnx, .xml, ...), or best.safetensors of a run, or
    the folder of the run."""
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE|FOLDER|GLOB|@FILE|TAR ...")]
    """Image files, folders or globs of them, @FILE with one path per line, WebDataset shards (.tar)."""
    top: int | None = None
    """Number of most probable classes per image, 3 by default."""
    out: Path | None = None
    """Write the predictions to this file: .csv, .jsonl or .parquet; for a detector also .json, in COCO's format."""
    draw: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """For a detector or a segmentation network: write each image with boxes and names, or with the colors of its
    classes, as a JPEG file into this folder."""
    masks: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """For a segmentation network: write the mask of each image into this folder, as a PNG file with a palette, whose
    values are the indices of the classes."""
    bom: bool = False
    """With --out FILE.csv: begin the file with a byte order mark, by which Excel recognises UTF-8."""
    features: bool = False
    """Write the features as well, the input of the last layer; with --out .parquet or .jsonl."""
    threshold: float | None = None
    """Lowest probability of the most probable class for which it is the answer; else that is "none of these". For a
    network with several labels per image: lowest probability of each label, 0.5 by default. For a detector: score
    that an object must exceed, 0.3 by default."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation: flip averages the probabilities of each image and its horizontal flip."""
    device: str = "cpu"
    """Device of a checkpoint: cpu, by the engine; cuda, mps, xpu or one of several (cuda:1), by torch; or auto for an
    accelerator if there is one."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    threads: int | None = None
    """Number of threads, each of which decodes images and runs the network; by default all processors."""
    sort_into: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """Copy each image into FOLDER/CLASS/, by its most probable class, under its own name. No other image is replaced;
    repeat the command to resume."""
    link: bool = False
    """With --sort-into: symbolic links instead of copies."""
    json: JsonOutput = False
    engine: Literal["local", "ray"] = "local"
    """Run on all cores of this process, or in actors of Ray Data (on the cluster of RAY_ADDRESS, or this machine)."""

    def check(self) -> None:
        check_at_least("--threads", self.threads, 1)
        check_at_least("--max-pixels", self.max_pixels, 1)
        if not self.images:
            raise ConfigurationError("no image is given; name image files or folders after the network.")
        check_at_least("--top", self.top, 1)
        if self.json and self.out is not None:
            raise ConfigurationError(
                "--json prints the predictions and --out writes them to a file; pass one of the two."
            )
        if self.features and self.out is None:
            raise ConfigurationError("--features are only written to a file; add --out PREDICTIONS.parquet or .jsonl.")
        for option, folder in (("--sort-into", self.sort_into), ("--draw", self.draw), ("--masks", self.masks)):
            if folder is not None:
                check_outside(option, folder, self.images)
                check_folder(option, folder)
        if self.out is None or self.out.suffix.lower() != ".json":  # only of a detector
            check_table_suffix("--out", self.out, bom=self.bom)
        check_bom(self.out, bom=self.bom)
        check_threshold_option(self.threshold)
        check_device_name(self.device)
        if self.engine == "ray" and self.device != "cpu":
            raise ConfigurationError("--engine ray runs networks on CPUs; omit --device.")
        if self.link and self.sort_into is None:
            raise ConfigurationError("--link is for --sort-into; add --sort-into FOLDER, or omit it.")
        if self.engine == "ray":
            if self.sort_into is not None or self.threads is not None:
                raise ConfigurationError("--sort-into and --threads need --engine local; leave them or ray out.")
            require_installed("ray", extra="ray")
