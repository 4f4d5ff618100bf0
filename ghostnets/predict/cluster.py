"""The same answers from many processes: Ray Data, on this machine or on a cluster.

A task is a batch of inputs. Actors read it and run it with ``predict_batch``, as the threads of a local run do, so the
rows are the same. Ray runs the tasks of an actor that died again in another.
"""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ghostnets.artefacts import open_artefact
from ghostnets.errors import require
from ghostnets.predict.answers import Prediction, batches, predict_batch
from ghostnets.predict.inputs import Input

__all__ = ["predict_on_ray"]

BATCHES_AT_ONCE = 16_384  # of one dataset: the names of a quarter of a million images
BATCHES_PER_TASK = 4


def predict_on_ray(
    network: Path, inputs: Iterable[Input], *, top: int, features: bool = False
) -> Iterator[list[Prediction]]:
    """Answers in the order of ``inputs``, a batch at a time, as ``predict_images`` gives them.

    The cluster is that of ``RAY_ADDRESS``, or this machine. Each actor takes one core and holds the network; there are
    as many as there are cores. The file of the network and the images must stand under the same paths on every machine.

    Args:
        network: Of ``open_artefact``.
        inputs: Of ``find_inputs``.
        top: So many most probable classes.
        features: Embeddings as well.

    Raises:
        MissingExtraError: Ray is not installed.
    """
    ray = require("ray", extra="ray")
    data = require("ray.data", extra="ray")
    if not ray.is_initialized():
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(log_to_driver=False, logging_level=logging.WARNING, include_dashboard=False)
    context = data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    cores = max(1, int(ray.cluster_resources().get("CPU", 1)))
    here, packed = str(Path.cwd()), map(pickle.dumps, batches(inputs))
    while tasks := [{"batch": task} for task in islice(packed, BATCHES_AT_ONCE)]:
        blocks = -(-len(tasks) // BATCHES_PER_TASK)
        answers = data.from_items(tasks, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(here, str(network), top, features),
            batch_size=1,
            num_cpus=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(cores, blocks)),
        )
        for row in answers.iter_rows():
            yield pickle.loads(row["answers"])


class Actor:
    """Holds a network in a process of Ray's.

    Args:
        folder: That the paths start from.
        network: Of ``open_artefact``.
        top: As ``predict_batch``.
        features: As ``predict_batch``.
    """

    def __init__(self, folder: str, network: str, top: int, features: bool) -> None:
        os.chdir(folder)
        self.network, self.top, self.features = open_artefact(network, threads=1), top, features

    def __call__(self, tasks: dict[str, Any]) -> dict[str, list[bytes]]:
        """Batches of inputs -> their answers, both pickled: they come from this program alone."""
        answered = (
            predict_batch(self.network, pickle.loads(task), top=self.top, features=self.features)
            for task in tasks["batch"]
        )
        return {"answers": [pickle.dumps(answers) for answers in answered]}
