"""``ghostnets info MODEL|CHECKPOINT``: a network; ``ghostnets info --engine``: the engine on this machine."""

from importlib import import_module

from ghostnets.cli.options.info import InfoCommand

__all__ = ["run"]


def run(command: InfoCommand) -> int:
    subject = "engine" if command.engine else "network"  # each imported alone: the engine needs no torch
    return int(import_module(f"ghostnets.cli.info_{subject}").run(command))
