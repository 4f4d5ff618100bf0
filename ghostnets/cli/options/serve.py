"""Options of ``ghostnets serve``."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ghostnets.cli.options.base import CheckpointPath, CommandOptions, show_all
from ghostnets.errors import ArtefactError, require_installed
from ghostnets.serve import LIBRARIES, ServiceSettings

__all__ = ["ServeCommand"]


def _as_options(cls: type[ServiceSettings]) -> type[ServiceSettings]:
    show_all(cls, ServiceSettings.__annotations__)
    return dataclass(frozen=True, kw_only=True)(cls)


@_as_options
class ServiceOptions(ServiceSettings):
    """Options of the service; times are in seconds."""


DEFAULTS = ServiceOptions()


@dataclass(frozen=True)
class ServeCommand(CommandOptions):
    """Serve POST /v1/predict until SIGTERM or Ctrl-C; accepted requests are answered first (docs/serve.md).

    SIGHUP reloads the file; the new model takes over once it has passed a test run. Logs are JSON lines on stderr.

    Example: ghostnets serve net.engine --port 8000, then: curl -F images=@cat.jpg http://127.0.0.1:8000/v1/predict
    """

    command: ClassVar[str] = "serve"

    artefact: Annotated[tyro.conf.Positional[CheckpointPath], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT|RUN")]
    """File written by ghostnets export, a checkpoint, or the folder of a run."""
    settings: tyro.conf.OmitArgPrefixes[ServiceSettings] = DEFAULTS

    def check(self) -> None:
        require_installed(*LIBRARIES, extra="serve")
        if self.artefact.is_dir():
            raise ArtefactError(
                f"{self.artefact} is a folder without best.safetensors; pass the folder of a run, or a file."
            )
