"""Learning rate range test (Smith, arXiv 1506.01186): the loss while the rate grows from step to step."""

import math
import tempfile
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

from ghostnets.data import Batch, TrainingBatches, derive_seed
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.train.callback import Callback
from ghostnets.train.distributed import init_distributed
from ghostnets.train.hardware import resolve_workers
from ghostnets.train.parameters import set_learning_rate
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.setup import TrainingSetup, build_setup
from ghostnets.train.spec import RunSpec

__all__ = ["LearningRateTest", "run_learning_rate_test"]

STEPS, LOW, HIGH = 100, 1e-6, 10.0
SMOOTHING = 0.9  # weight of the earlier losses in the moving average
DIVERGENCE = 4  # multiple of the lowest loss at which the test ends
MIN_STEPS = 10  # fewer finite losses have no minimum


class LearningRateTest(NamedTuple):
    """Result of a range test.

    Attributes:
        name: Data and network, as in the default name of a run.
        rates: Learning rate of each step, ascending by a constant factor.
        losses: Training loss of each step, a moving average.
        best: Rate with the lowest loss.
        suggestion: A tenth of ``best``, two significant digits: a peak rate at which the loss still falls.
        current: Rate of the recipe.
    """

    name: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    best: float
    suggestion: float
    current: float


def run_learning_rate_test(spec: RunSpec, callback: Callback) -> LearningRateTest:
    """Train for up to 100 steps with a rate that grows from 1e-6 to 10, and discard the network; writes no file.

    Args:
        spec: Specification of the run.
        callback: Gets the messages and the progress of reading and of the steps.

    Raises:
        ConfigurationError: There are several processes.
        RunError: The loss is not finite even at the lowest rates.
        Any error of ``build_setup``.
    """
    recipe = spec.config.recipe
    with init_distributed(spec.config.device) as distributed, tempfile.TemporaryDirectory() as folder:
        if distributed.world_size > 1:
            raise ConfigurationError("the learning rate is searched by one process; start it without torchrun.")
        splits = spec.read_images(callback)
        setup = build_setup(spec, splits, RunFolder(folder), None, distributed, on_message=callback.on_message)
        workers = resolve_workers(spec.config.workers, distributed.device)
        rates, losses, average = [], [], 0.0
        for step, (batch, size) in zip(range(STEPS), _stream(spec, setup, workers), strict=False):
            rate = LOW * (HIGH / LOW) ** (step / (STEPS - 1))
            set_learning_rate(setup.state.optimizer, rate)
            totals = setup.step(batch, batch_size=size, seed=derive_seed(recipe.seed, 0, step, 0), stop=False)
            if not totals.is_finite:
                break
            average = SMOOTHING * average + (1 - SMOOTHING) * totals.loss / totals.num_seen
            rates.append(rate)
            losses.append(average / (1 - SMOOTHING ** (step + 1)))  # without the bias of starting at 0
            if losses[-1] > DIVERGENCE * min(losses):
                break
    if len(rates) < MIN_STEPS:
        raise RunError(
            f"the loss is not finite or diverges at a learning rate of {LOW:g} already; check the images and the"
            " initial weights."
        )
    best = rates[losses.index(min(losses))]
    return LearningRateTest(spec.name, tuple(rates), tuple(losses), best, _round(best / 10), recipe.lr)


def _stream(spec: RunSpec, setup: TrainingSetup, workers: int) -> Iterator[tuple[Batch, int]]:
    """Yield batches of one epoch after another, each with its number of images."""
    recipe = spec.config.recipe
    for epoch in count():
        batches = TrainingBatches(
            setup.splits.train,
            setup.augmentation,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            epoch=epoch,
            class_balanced=recipe.class_balanced,
        )
        for batch in batches.stream(workers=workers):
            yield batch, batches.batch_size


def _round(value: float) -> float:
    """Round a value to two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))
