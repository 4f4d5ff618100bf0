"""Options of ``ghostnets list``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CommandOptions, JsonOutput

__all__ = ["ListCommand"]


@dataclass(frozen=True)
class ListCommand(CommandOptions):
    """List the networks: parameters, multiply-adds, published accuracy, and published weights.

    Examples: ghostnets list | ghostnets list 'ghostnetv3*'
    """

    command: ClassVar[str] = "list"

    pattern: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATTERN")] = "*"
    """Shell pattern of the names."""

    json: JsonOutput = False
