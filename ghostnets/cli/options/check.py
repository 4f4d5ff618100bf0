"""Options of ``ghostnets check``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.cli.options.checks import check_at_least, check_choices, check_data
from ghostnets.data import TASKS
from ghostnets.errors import ConfigurationError, require_installed
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["CheckCommand"]

MAX_THRESHOLD = 15  # bits out of 128; above, unrelated images begin to match


@dataclass(frozen=True)
class CheckCommand(CommandOptions):
    """Examine a data set: images by class and split, sizes, unreadable files, duplicates, leaks between splits.

    Examples: ghostnets check photos/ | ghostnets check photos/ --out check.html | ghostnets check labels.csv --strict
    """

    command: ClassVar[str] = "check"

    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Folder, table, tars or archive as for train."""
    task: Annotated[str | None, tyro.conf.arg(metavar="{classify,detect,segment}")] = None
    """Kind of labels, as for train: classes, boxes (detect) or masks (segment); by default found from the layout."""
    threshold: int = 6
    """Maximum number of differing bits, of 128, of the hashes of near duplicates; 0 to 15."""
    out: Path | None = None
    """Page with pictures to write."""
    max_pixels: int = MAX_PIXELS
    """Maximum number of pixels of an image that is read."""
    strict: bool = False
    """Exit with 1 if there are findings."""
    json: JsonOutput = False

    def check(self) -> None:
        check_data(self.data)
        check_choices("task", [self.task] if self.task else [], TASKS)
        check_at_least("--max-pixels", self.max_pixels, 1)
        if not 0 <= self.threshold <= MAX_THRESHOLD:
            raise ConfigurationError(f"--threshold is {self.threshold}; it must be from 0 to {MAX_THRESHOLD} bits.")
        if self.out is not None:
            require_installed("jinja2", extra="explain")
