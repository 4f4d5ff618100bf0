"""``ghostnets serve ARTEFACT``: an HTTP service that classifies images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ghostnets.serve import Settings, serve

__all__ = ["main"]

STANDARD = Settings()


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Serve:
    """Answer POST /v1/predict until SIGTERM or Ctrl-C; what was accepted by then is answered (docs/serve.md).

    SIGHUP opens the file again, and the new one takes over once it has answered. The log is JSON lines on stderr.

    Example: ghostnets serve net.engine --port 8000, then: curl -F images=@cat.jpg http://127.0.0.1:8000/v1/predict
    """

    artefact: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT")]
    """A file of ghostnets export, or a checkpoint."""
    settings: tyro.conf.OmitArgPrefixes[Settings] = STANDARD


def main(arguments: list[str]) -> int:
    command = tyro.cli(Serve, prog="ghostnets serve", args=arguments)
    serve(command.artefact, command.settings)
    return 0
