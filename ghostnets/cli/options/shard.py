"""Options of ``ghostnets shard``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_data
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["ShardCommand"]


@dataclass(frozen=True)
class ShardCommand(CommandOptions):
    """Pack a folder of images into WebDataset shards with an index, for data sets that do not fit into memory.

    Example: ghostnets shard imagenet/ shards/ && ghostnets train shards/ (or https://SERVER/shards)
    """

    command: ClassVar[str] = "shard"

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FOLDER")]
    """Folder of images, as for train."""
    out: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="OUT")] = None
    """New folder for the shards."""
    out_option: Annotated[Path | None, tyro.conf.arg(name="out")] = None
    """New folder for the shards, as an option instead of OUT."""
    images_per_shard: int = 1000
    """Maximum number of images per shard."""
    val_share: float = 0.2
    """Share of each class split off for validation if FOLDER has no such split."""
    seed: int = 0
    """Seed of the validation split, and of the order in the shards."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    json: JsonOutput = False

    @property
    def target(self) -> Path:
        """New folder, from OUT or ``--out``."""
        given = {path for path in (self.out, self.out_option) if path is not None}
        if len(given) != 1:
            raise ConfigurationError(
                "the folder for the shards is missing or given twice; pass either OUT or --out OUT."
            )
        return given.pop()

    def check(self) -> None:
        target = self.target
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise DataError(f"{target} already exists; choose another folder, or remove it.")
        check_at_least("--max-pixels", self.max_pixels, 1)
        check_at_least("--images-per-shard", self.images_per_shard, 1)
        check_data(str(self.folder))
