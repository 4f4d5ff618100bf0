"""A checkpoint of this project, in the engine where it is built and knows the network, or in torch."""

import copy
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy.typing as npt
import torch
from torch import nn

from ghostnets import __version__, engine
from ghostnets.artefacts.artefact import Array, Artefact, normalize
from ghostnets.artefacts.description import Description
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.compress import fuse
from ghostnets.errors import EngineError
from ghostnets.models import Network

__all__ = ["CheckpointArtefact", "open_file"]

Run = Callable[[npt.NDArray[Any]], Array]


class CheckpointArtefact(Artefact):
    """In the engine, calls from several threads take turns; in torch they run side by side."""

    kind = "checkpoint"

    def __init__(self, path: Path, checkpoint: Checkpoint, threads: int | None) -> None:
        description = Description(
            architecture=checkpoint.architecture,
            arguments=checkpoint.arguments,
            class_names=checkpoint.class_names,
            preprocessing=checkpoint.preprocessing,
            any_size=True,
            has_features=True,
            source_sha256=checkpoint.sha256,
        )
        self.network, self.threads = checkpoint.build(), threads
        self.logits, runtime = _runner(self.network, description, threads)
        self.embed: Run | None = None
        self.lock = threading.Lock()
        super().__init__(path, description, runtime)

    def copy(self) -> "CheckpointArtefact":
        """On the same weights in memory, with as many threads."""
        made = copy.copy(self)
        made.logits, made.lock = _beside(self.logits), threading.Lock()
        made.embed = None if self.embed is None else _beside(self.embed)
        return made

    def _run(self, x: npt.NDArray[Any]) -> tuple[Array, ...]:
        return (self.logits(x),)

    def _features(self, x: npt.NDArray[Any]) -> Array:
        with self.lock:
            if self.embed is None:
                twin = copy.deepcopy(self.network)
                assert isinstance(twin, Network)
                twin.reset_classifier(0)
                self.embed, _ = _runner(twin, self.description, self.threads)
        return self.embed(x)


def open_file(path: Path, threads: int | None) -> CheckpointArtefact:
    """As ``open_artefact``."""
    return CheckpointArtefact(path, read_checkpoint(path), threads)


def _beside(run: Run) -> Run:
    return cast("Run", run.copy(threads=run.threads)) if isinstance(run, engine.Session) else run


def _runner(network: nn.Module, description: Description, threads: int | None) -> tuple[Run, str]:
    """A function from uint8 (N, H, W, C) to the network's output, and the name of what computes it."""
    try:
        session = engine.compile(
            network,
            threads=threads or len(os.sched_getaffinity(0)),
            mean=description.preprocessing.mean,
            std=description.preprocessing.std,
        )
        return cast("Run", session), f"ghostnets engine {__version__} {session.isa}"  # it gives one array for arrays
    except EngineError:  # not built, or not a network that it knows
        pass
    if threads is not None:
        torch.set_num_threads(threads)
    fused = fuse(network).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def run(images: npt.NDArray[Any]) -> Array:
        x = torch.from_numpy(normalize(images, description.preprocessing))
        return fused(x.to(memory_format=torch.channels_last)).numpy()

    return run, f"torch {torch.__version__}"
