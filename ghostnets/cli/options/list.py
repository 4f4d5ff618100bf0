"""Options of ``ghostnets list``."""

from dataclasses import dataclass
from typing import ClassVar

from ghostnets.cli.options.base import CommandOptions, JsonOutput

__all__ = ["ListCommand"]


@dataclass(frozen=True)
class ListCommand(CommandOptions):
    """List the networks: parameters, multiply-adds, published accuracy, and published weights.

    Example: ghostnets list
    """

    command: ClassVar[str] = "list"

    json: JsonOutput = False
