"""``ghostnets serve ARTEFACT``: HTTP service that classifies images."""

from ghostnets.cli.options.serve import ServeCommand
from ghostnets.serve import serve

__all__ = ["run"]


def run(command: ServeCommand) -> int:
    serve(command.artefact, command.settings)
    return 0
