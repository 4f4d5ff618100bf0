"""Options of ``ghostnets explain``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions
from ghostnets.cli.options.checks import check_at_least, check_folder, find_network
from ghostnets.data import EMBEDDED
from ghostnets.devices import check_device_name
from ghostnets.errors import ConfigurationError, DataError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["ExplainCommand"]


@dataclass(frozen=True)
class ExplainCommand(CommandOptions):
    """Analyse a network: similar maps, ghosts, learned cheap kernels, class activation maps, cost.

    Writes explain.html (one file, works offline), figures/ (SVG and PNG) and numbers.json.

    Example: ghostnets explain runs/photos-ghostnet_100/best.safetensors --images photos/
    """

    command: ClassVar[str] = "explain"

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT|MODEL")]
    """Checkpoint (best.safetensors of a run), or name of a network (ghostnets list), whose published weights are
    downloaded."""
    images: str
    """Folder of images, folder or URL of shards, or "fashion-mnist" for its test images. If its subfolders, or the
    classes of its shards, are named after the checkpoint's classes, the accuracy with ghosts replaced is measured."""
    out: Path | None = None
    """Output folder; explain/ next to the checkpoint, or explain-MODEL/, by default."""
    most: int = 1000
    """Maximum number of images, sampled evenly from the folder."""
    threads: int | None = None
    """Number of threads; by default all processors, or OMP_NUM_THREADS."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    untrained: bool = False
    """With MODEL: use random weights instead of published ones."""
    device: str = "cpu"
    """Device of the network while maps are measured: cuda, mps, xpu, cuda:1, cpu, or auto for an accelerator, if there
    is one."""
    json: bool = False
    """Print the numbers as JSON on stdout as well."""

    @property
    def source(self) -> str | Path:
        """Name of the network, or path of the checkpoint."""
        return find_network(self.network)

    def check(self) -> None:
        check_at_least("--threads", self.threads, 1)
        check_at_least("--most", self.most, 1)
        check_device_name(self.device)
        if self.out is not None and self.out.suffix.lower() in (".html", ".htm"):
            raise ConfigurationError(
                f"--out is {self.out}, but must be the folder in which explain.html, figures/ and numbers.json are"
                f" written; give --out {self.out.with_suffix('')}."
            )
        check_folder("--out", self.out)
        check_at_least("--max-pixels", self.max_pixels, 1)
        require_installed("matplotlib", "jinja2", extra="explain")
        if isinstance(self.source, Path) and self.untrained:
            raise ConfigurationError(
                f"{self.network} is a checkpoint with trained weights; --untrained requires a model name"
                " (ghostnets list)."
            )
        if self.images != EMBEDDED and "://" not in self.images and not Path(self.images).exists():
            raise DataError(
                f"--images is {self.images}, which is not a folder; pass a folder of images or shards, a table of"
                f" labels, an archive, or {EMBEDDED}."
            )
