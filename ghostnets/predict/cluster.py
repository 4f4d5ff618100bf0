"""Distributed inference with Ray Data, on this machine or on a cluster.

A task is a batch of inputs. Actors run it with ``predict_batch``, as the threads of a local run do, so the predictions
are the same. Ray reruns the tasks of a dead actor in another one.
"""

import logging
import os
import pickle
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ghostnets.artefacts import Prediction, load_classifier
from ghostnets.errors import require
from ghostnets.predict.inputs import Input
from ghostnets.predict.streaming import group_into_batches, predict_batch
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["predict_on_ray"]

BATCHES_PER_DATASET = 16_384  # the names of a quarter of a million images
BATCHES_PER_TASK = 4


def predict_on_ray(
    network: Path,
    inputs: Iterable[Input],
    *,
    top: int,
    features: bool = False,
    flip: bool = False,
    threshold: float | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Iterator[list[Prediction]]:
    """Yield predictions in the order of ``inputs``, a batch at a time, as ``predict_images``.

    The cluster is that of ``RAY_ADDRESS``, or this machine. There is one actor per core, and each holds the network.
    The file of the network and the images must have the same paths on every machine.

    Args:
        network: Path of the network, as for ``open_model``.
        inputs: Images of ``find_inputs``.
        top: Number of most probable classes per image.
        features: Return the features as well.
        flip: As for ``Classifier``.
        threshold: As for ``Classifier``.
        max_pixels: Maximum number of pixels of an image that is read.

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
    here, packed = str(Path.cwd()), map(pickle.dumps, group_into_batches(inputs))
    while tasks := [{"batch": task} for task in islice(packed, BATCHES_PER_DATASET)]:
        blocks = -(-len(tasks) // BATCHES_PER_TASK)
        rows = data.from_items(tasks, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(here, str(network), top, features, flip, threshold, max_pixels),
            batch_size=1,
            num_cpus=1,
            compute=data.ActorPoolStrategy(min_size=1, max_size=min(cores, blocks)),
        )
        for row in rows.iter_rows():
            yield pickle.loads(row["predictions"])


class Actor:
    """A classifier in a process of Ray.

    Args:
        folder: Folder that relative paths start from.
        network: Path of the network.
        top: Number of most probable classes, as in ``predict_batch``.
        features: Return the features as well.
        flip: As for ``Classifier``.
        threshold: As for ``Classifier``.
        max_pixels: Maximum number of pixels of an image that is read.
    """

    def __init__(
        self,
        folder: str,
        network: str,
        top: int,
        features: bool,
        flip: bool,
        threshold: float | None,
        max_pixels: int,
    ) -> None:
        os.chdir(folder)
        self.classifier = load_classifier(network, threads=1, flip=flip, threshold=threshold, max_pixels=max_pixels)
        self.top, self.features = top, features

    def __call__(self, tasks: dict[str, Any]) -> dict[str, list[bytes]]:
        """Map batches of inputs to predictions, both pickled by this program."""
        predicted = (
            predict_batch(self.classifier, pickle.loads(task), top=self.top, features=self.features)
            for task in tasks["batch"]
        )
        return {"predictions": [pickle.dumps(predictions) for predictions in predicted]}
