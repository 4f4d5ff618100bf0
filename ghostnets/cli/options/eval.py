"""Options of ``ghostnets eval``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import tyro

from ghostnets.cli.options.base import CheckpointPath, CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_checkpoint, check_data, check_suffix, check_table_suffix
from ghostnets.errors import require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["FIGURE_SUFFIXES", "EvalCommand"]

FIGURE_SUFFIXES = (".png", ".svg", ".pdf")  # a test compares them with those of ghostnets.explain


@dataclass(frozen=True)
class EvalCommand(CommandOptions):
    """Evaluate a checkpoint: top-1, top-5, results by class and by image, and a figure of the confusion matrix.

    Example: ghostnets eval runs/photos-ghostnet_100/best.safetensors photos/ --out images.csv
    """

    command: ClassVar[str] = "eval"
    renamed: ClassVar[Mapping[str, str]] = {"--picture": "--figure"}

    checkpoint: tyro.conf.Positional[CheckpointPath]
    """Folder of a run, or its best.safetensors."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Folder as for train, or "fashion-mnist"."""
    split: Annotated[Literal["auto", "train", "val", "test", "all"], tyro.conf.arg(name="part")] = "auto"
    """Split to evaluate: auto is test/, else val/ (or the validation split of the training run), else all."""
    full: bool = False
    """With fashion-mnist: the full data set."""
    root: Path | None = None
    """With --full: folder of the four *-ubyte.gz files."""
    figure: Path | None = None
    """File of the confusion matrix, .png or .svg; by default confusion.png next to the checkpoint."""
    out: Path | None = None
    """Write one row per image (path, truth, prediction, probability, loss) to this file: .csv, .jsonl or .parquet."""
    bom: bool = False
    """With --out FILE.csv: begin it with a byte order mark, by which Excel recognises UTF-8."""
    threads: int | None = None
    """Number of threads; by default all processors, or OMP_NUM_THREADS."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    max_pixels: int = MAX_PIXELS
    """Largest number of pixels of an image that is read."""
    json: JsonOutput = False

    def check(self) -> None:
        check_at_least("--threads", self.threads, 1)
        check_at_least("--max-pixels", self.max_pixels, 1)
        require_installed("matplotlib", extra="train")
        check_suffix("--figure", self.figure, FIGURE_SUFFIXES)
        check_table_suffix("--out", self.out, bom=self.bom)
        check_checkpoint(self.checkpoint)
        check_data(self.data)
