"""Entry point ``ghostnets COMMAND ...``: runs a command and reports errors as one sentence and an exit code.

Exit codes: 0 success; 1 failure, with the reason on stderr; 2 invalid command line; 128 + n stopped by signal n (130
for Ctrl-C).
"""

import io
import os
import sys
from importlib import import_module

from ghostnets import __version__
from ghostnets.cli.output import message
from ghostnets.errors import GhostNetsError, UnknownNameError, explain_missing_torch
from ghostnets.terminal import ESCAPES

__all__ = ["COMMANDS", "MODULES", "main", "run_command"]

COMMANDS = {
    "train": "train a network on images with classes, boxes or masks (or on the embedded Fashion-MNIST)",
    "check": "examine a data set: counts, unreadable files, duplicates, leaks between splits",
    "shard": "pack a folder of images into shards for streaming, from disk or over HTTP",
    "compare": "compare training runs: curves, results, differing settings",
    "eval": "evaluate a checkpoint or an exported network on labelled images",
    "predict": "classify images, or find objects or masks, with a checkpoint or an exported network",
    "export": "export a checkpoint to ONNX, OpenVINO, ..., and verify the file in its runtime",
    "list": "list the networks: parameters, multiply-adds, published accuracy, downloadable weights",
    "import": "convert weights of other implementations to a checkpoint",
    "serve": "predict over HTTP, with a web page",
    "ghostify": "compress a trained network: Ghost modules in place of convolutions, fitted on images",
    "quantize": "quantise a trained network to int8, and measure every file",
    "explain": "analyse a network on images: redundant maps, ghosts, cheap kernels; one HTML page",
    "tables": "reproduce the papers' tables: published and computed cost side by side",
    "bench": "benchmark networks and backends side by side in one run",
    "profile": "profile time and memory of a network by layer, relative to the limits of the machine",
    "info": "show architecture, parameters and multiply-adds of a network, and its savings",
}
MODULES = {"import": "convert"}  # "import" is a keyword of Python
SPINS = "2000"  # some 70 us: longer than the usual wait within a training step, much shorter than a time slice


def main(arguments: list[str] | None = None) -> int:
    """Run a command line, given without the program name, and return the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=ESCAPES)  # for names that the encoding of a pipe or terminal lacks
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"ghostnets {__version__}")
        return 0
    try:
        return run_command(*arguments)
    except GhostNetsError as error:
        message(str(error), kind="error")
        number = getattr(error, "signal", None)
        return 128 + number if number is not None else 1
    except KeyboardInterrupt:
        message("interrupted.", kind="error")
        return 130
    except BrokenPipeError:  # the reader closed the pipe, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        message(f"{error.strerror or error}{where}; check the path, its permissions and the free space.", kind="error")
        return 1


def run_command(command: str, *arguments: str) -> int:
    """Run a command and return its exit code.

    Its options are parsed and checked first, without torch; the module that does the work is imported then.

    Raises:
        GhostNetsError: The command cannot be run, or failed.
        SystemExit: Help was printed (0), or the arguments are invalid (2).
    """
    if command not in COMMANDS:
        raise UnknownNameError("command", command, COMMANDS)
    name = MODULES.get(command, command)
    options = getattr(import_module(f"ghostnets.cli.options.{name}"), f"{command.title()}Command")
    parsed = options.parse(list(arguments))
    parsed.check()
    if command == "train":
        _limit_spinning()
    with explain_missing_torch():
        return int(import_module(f"ghostnets.cli.{name}").run(parsed))


def _limit_spinning() -> None:
    """Make waiting OpenMP threads sleep after a short spin instead of spinning for milliseconds (libgomp).

    When other programs preempt one thread, the spinning ones would keep their cores from it. libgomp reads the variable
    when torch loads it. Results do not depend on it.
    """
    if "torch" not in sys.modules and "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)


def _help() -> str:
    commands = "\n".join(f"  {name:<9}{text}" for name, text in COMMANDS.items())
    return f"""usage: ghostnets COMMAND ...

Build, train, analyse, export and benchmark networks of the GhostNet family.

{commands}

Run ghostnets COMMAND --help for the options of a command.

  ghostnets train                                    train on the embedded images, a few minutes on two cores
  ghostnets train photos/                            one folder per class, or train/ and val/ containing them
  ghostnets predict runs/NAME/best.safetensors x.jpg
  ghostnets export runs/NAME/best.safetensors --format onnx"""
