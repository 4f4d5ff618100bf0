"""``ghostnets VERB ...``: finds the verb, runs it, and turns errors into one sentence and an exit code.

Exit codes: 0 done; 1 it could not be done (the sentence on stderr says why); 2 the command line is wrong; 128 + n
stopped by signal n, 130 for Ctrl-C.
"""

import importlib
import os
import sys
import warnings

from ghostnets import __version__
from ghostnets.cli.output import message
from ghostnets.errors import GhostNetsError, UnknownNameError

__all__ = ["VERBS", "main"]

VERBS = {
    "train": "train a network on a folder of images (or on the embedded Fashion-MNIST)",
    "shard": "pack a folder of images into shards that training streams, from a disk or over HTTP",
    "compare": "lay training runs side by side: curves, results, settings that differ",
    "eval": "measure a checkpoint on labelled images",
    "predict": "classify images with a checkpoint or an exported network",
    "export": "write a checkpoint as ONNX, OpenVINO, ... : run there, and compared",
    "list": "the networks: parameters, multiply-adds, published accuracy, downloadable weights",
    "import": "turn other people's weights into a checkpoint of this project",
    "serve": "answer HTTP requests with classes, from an artefact or a checkpoint",
    "explain": "look inside a network with images: redundant maps, ghosts, cheap kernels; one HTML page",
    "tables": "the papers' tables: published beside counted here",
    "bench": "time networks side by side, in every backend, in one run",
    "profile": "time and memory of a network by layer, beside the limits of the machine",
    "info": "architecture, parameters and multiply-adds of a network, and what the cheap operations save",
}
MODULES = {"import": "convert"}  # a verb whose name Python keeps for itself


def main(arguments: list[str] | None = None) -> int:
    """Runs one command line, without the program's name; returns the exit code."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(_help())
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"ghostnets {__version__}")
        return 0
    # An image that is too large is refused with a sentence of our own; PIL's warning before it would only repeat that.
    warnings.filterwarnings("ignore", message="Image size .* exceeds limit")
    verb, *rest = arguments
    try:
        if verb not in VERBS:
            raise UnknownNameError("command", verb, VERBS)
        return int(importlib.import_module(f"ghostnets.cli.{MODULES.get(verb, verb)}").main(rest))
    except GhostNetsError as error:
        message(str(error), kind="error")
        number = getattr(error, "signal", None)
        return 128 + number if number is not None else 1
    except KeyboardInterrupt:
        message("stopped.", kind="error")
        return 130
    except BrokenPipeError:  # the reader of our output went away, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        message(f"{error.strerror or error}{where}; check the path, its permissions and the free space.", kind="error")
        return 1


def _help() -> str:
    verbs = "\n".join(f"  {name:<9}{text}" for name, text in VERBS.items())
    return f"""usage: ghostnets VERB ...

Build, understand, train and measure GhostNets.

{verbs}

ghostnets VERB --help tells the options of a verb.

  ghostnets train                                    train on the embedded images, a few minutes on two cores
  ghostnets train photos/                            one folder a class, or train/ and val/ with these
  ghostnets predict runs/NAME/best.safetensors x.jpg"""
