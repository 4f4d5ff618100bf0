"""Options of ``ghostnets eval``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ghostnets.cli.options.base import CheckpointPath, CommandOptions, JsonOutput
from ghostnets.cli.options.checks import (
    check_at_least,
    check_data,
    check_network_file,
    check_suffix,
    check_table_suffix,
)
from ghostnets.devices import check_device_name
from ghostnets.errors import ConfigurationError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["FIGURE_SUFFIXES", "EvalCommand"]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")  # a test compares them with those of ghostnets.explain


@dataclass(frozen=True)
class EvalCommand(CommandOptions):
    """Evaluate a network on labels: accuracy, F1, areas under curves and calibration, by class and by image; average
    precision of a detector; overlap of the masks of a segmentation network.

    Examples: ghostnets eval runs/photos-ghostnet_100 photos/ --page losses.html | ghostnets eval net.onnx photos/
    """

    command: ClassVar[str] = "eval"
    renamed: ClassVar[Mapping[str, str]] = {"--picture": "--figure"}

    network: Annotated[tyro.conf.Positional[CheckpointPath], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT|RUN")]
    """Folder of a run, its best.safetensors, or a file of ghostnets export (.engine, .onnx, .xml, ...)."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Folder as for train, or "fashion-mnist"."""
    split: Annotated[Literal["auto", "train", "val", "test", "all"], tyro.conf.arg(name="part")] = "auto"
    """Split to evaluate: auto is test/, else val/ (or the validation split of the training run), else all."""
    device: str = "auto"
    """Device of a checkpoint: cuda, mps, xpu, one of several (cuda:1), or cpu; auto is an accelerator if there is one.
    An exported file runs on the CPU."""
    tta: Literal["none", "flip"] = "none"
    """Test-time augmentation: flip averages the probabilities of each image and its horizontal flip."""
    calibrate: bool = False
    """Fit the temperature of the probabilities to the validation images, and save it in the checkpoint."""
    full: bool = False
    """With fashion-mnist: the full data set."""
    root: Path | None = None
    """With --full: folder of the four *-ubyte.gz files."""
    figure: Path | None = None
    """File of the confusion matrix, .png or .svg; by default confusion.png next to the checkpoint. None is written for
    several labels per image."""
    page: Path | None = None
    """Write a page with the images of the highest losses, all together and by class, to find wrong labels: .html. Of a
    detector or segmentation network: with the worst and the best images, drawn with labels and predictions."""
    out: Path | None = None
    """Write one row per image (path, truth, prediction, probability, loss) to this file: .csv, .jsonl or .parquet."""
    bom: bool = False
    """With --out FILE.csv: begin it with a byte order mark, by which Excel recognises UTF-8."""
    threads: int | None = None
    """Number of threads; by default all processors, or OMP_NUM_THREADS."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    json: JsonOutput = False

    def check(self) -> None:
        check_at_least("--threads", self.threads, 1)
        check_at_least("--max-pixels", self.max_pixels, 1)
        require_installed("matplotlib", extra="train")
        check_suffix("--figure", self.figure, FIGURE_SUFFIXES)
        if self.page is not None:
            require_installed("jinja2", extra="train")
            check_suffix("--page", self.page, (".html",))
        check_table_suffix("--out", self.out, bom=self.bom)
        check_device_name(self.device)
        check_network_file(self.network)
        if self.calibrate and self.network.suffix != ".safetensors":
            raise ConfigurationError(
                f"a temperature is saved in a checkpoint; calibrate best.safetensors, from which {self.network} was"
                " exported, and export it again."
            )
        if self.calibrate and self.split == "train":
            raise ConfigurationError(
                "training images are fitted too well, which is not for a temperature; omit --part, or use val."
            )
        check_data(self.data)
