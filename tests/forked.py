"""Processes forked from one that has imported torch: the import costs each new process seconds of processor time."""

import multiprocessing
import os
import sys
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from ghostnets.cli.main import main


def start_process(target: Callable[..., Any], *arguments: Any) -> BaseProcess:
    """Start a process that calls ``target``; the first call in a test session starts the process that it forks from."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ghostnets.train.start", "torch.utils.tensorboard"])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def start_command(arguments: Sequence[object], *, folder: Path, errors: Path) -> BaseProcess:
    """Start ``ghostnets`` with these arguments in ``folder``; the file ``errors`` receives its standard error."""
    return start_process(run_command, [str(argument) for argument in arguments], folder, errors)


def run_command(arguments: list[str], folder: Path, errors: Path) -> None:
    """Body of such a process."""
    os.chdir(folder)
    for descriptor, path in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), descriptor)
    sys.exit(main(arguments))
