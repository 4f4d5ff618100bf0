"""Options of ``ghostnets tables``."""

from dataclasses import dataclass
from typing import ClassVar

from ghostnets.cli.options.base import CommandOptions, JsonOutput

__all__ = ["TablesCommand"]


@dataclass(frozen=True)
class TablesCommand(CommandOptions):
    """Print the tables of the GhostNet papers, with parameters and multiply-adds counted here next to published ones.

    Accuracies are published by others, not measured here.

    Example: ghostnets tables
    """

    command: ClassVar[str] = "tables"

    json: JsonOutput = False
