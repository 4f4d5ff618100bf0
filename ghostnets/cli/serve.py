"""``ghostnets serve ARTEFACT``: HTTP service that classifies images."""

import os

from ghostnets.cli.options.serve import ServeCommand
from ghostnets.serve import serve

__all__ = ["run"]


def run(command: ServeCommand) -> int:
    if not serve(command.artefact, command.settings):
        os._exit(0)  # Python would wait for the threads that exceeded --drain-timeout
    return 0
