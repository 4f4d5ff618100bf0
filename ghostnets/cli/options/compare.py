"""Options of ``ghostnets compare``."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput
from ghostnets.errors import RunError, require_installed

__all__ = ["CompareCommand"]


@dataclass(frozen=True)
class CompareCommand(CommandOptions):
    """Compare training runs: curves, results, and the settings that differ. Runs may be in progress.

    Folders without a readable run are reported and skipped; the exit code is then 1. Files are skipped with a note.

    Example: ghostnets compare runs/plain runs/ghost
    """

    command: ClassVar[str] = "compare"

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Folders of runs, runs/NAME, or their best.safetensors."""
    out: Path = Path("compare.html")
    """File of the page."""
    json: JsonOutput = False

    def check(self) -> None:
        require_installed("matplotlib", "jinja2", extra="train")
        if not self.runs:
            raise RunError("no run is given; pass folders such as runs/NAME.")
