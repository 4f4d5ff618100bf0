"""``ghostnets serve ARTEFACT``: HTTP service that classifies images."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ghostnets.serve import ServiceSettings, serve

__all__ = ["main"]

DEFAULTS = ServiceSettings()


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class ServeCommand:
    """Serve POST /v1/predict until SIGTERM or Ctrl-C; accepted requests are answered first (docs/serve.md).

    SIGHUP reloads the file; the new model takes over once it has passed a test run. Logs are JSON lines on stderr.

    Example: ghostnets serve net.engine --port 8000, then: curl -F images=@cat.jpg http://127.0.0.1:8000/v1/predict
    """

    artefact: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT")]
    """File written by ghostnets export, or a checkpoint."""
    settings: tyro.conf.OmitArgPrefixes[ServiceSettings] = DEFAULTS


def main(arguments: list[str]) -> int:
    command = tyro.cli(ServeCommand, prog="ghostnets serve", args=arguments)
    if not serve(command.artefact, command.settings):
        os._exit(0)  # Python would wait for the threads that exceeded --drain-timeout
    return 0
