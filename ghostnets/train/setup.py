"""From a configuration and images to everything that a step needs."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from ghostnets.data import Augmentation, DatasetSplits
from ghostnets.models import Network
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.distill import Distillation, FeatureStudent, load_teacher
from ghostnets.train.distributed import DistributedContext, convert_sync_batchnorm
from ghostnets.train.ema import build_ema
from ghostnets.train.frozen import IdentityPreprocessing, classifier_head, extract_features
from ghostnets.train.mixing import mixing
from ghostnets.train.network import build_network
from ghostnets.train.optimizers import build_optimizer
from ghostnets.train.recipe import Recipe
from ghostnets.train.run_folder import RunConfig, RunFolder
from ghostnets.train.state import Progress, TrainState, check, unpack
from ghostnets.train.step import TrainingStep

__all__ = ["TrainingSetup", "build_setup"]


@dataclass(frozen=True)
class TrainingSetup:
    """What is trained, on what, and how far it has come.

    Attributes:
        learned: Everything with a state.
        step: One step of training.
        progress: Where the run stands.
        splits: The images, or in a frozen run their features.
        augmentation: Of the training images; None for features.
        is_new: Whether nothing had been saved.
    """

    learned: TrainState
    step: TrainingStep
    progress: Progress
    splits: DatasetSplits
    augmentation: Augmentation | None
    is_new: bool

    @property
    def result(self) -> Network:
        """The network that is evaluated and kept: the moving average where there is one."""
        average = self.learned.average
        network = self.learned.network if average is None else average.module
        assert isinstance(network, Network)
        return network


def build_setup(
    run: RunFolder,
    config: RunConfig,
    splits: DatasetSplits,
    class_names: tuple[str, ...],
    distributed: DistributedContext,
    *,
    note: Callable[[str], None],
) -> TrainingSetup:
    """Builds all of it, and puts the saved state into it where there is one.

    Args:
        run: Where the state is.
        config: What was asked for.
        splits: The images.
        class_names: In the order of the labels.
        distributed: The processes.
        note: Hears what is worth a line.

    Raises:
        CheckpointError: The weights to begin with, or those of the teacher, cannot be had or do not fit.
        ConfigurationError: The teacher knows other classes.
        RunError: The saved state does not fit.
    """
    recipe, preprocessing = config.recipe, Preprocessing.from_dict(config.preprocessing)
    state = distributed.on_rank_zero(run.load_state)
    if state is not None:
        check(state, images=len(splits.train), class_names=class_names, data=config.data)
    torch.manual_seed(recipe.seed)
    # The weights that a run begins with are in its first state, and not needed again.
    beginning = recipe if state is None else recipe.changed(weights=None, frozen=False)
    network = build_network(beginning, config.arguments, class_names).to(distributed.device)
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.sync_bn:
        convert_sync_batchnorm(network, distributed)
    average = build_ema(network, recipe.ema_decay) if recipe.ema_decay else None
    augmentation = _augmentation(recipe, splits, preprocessing.image_size)
    distillation = None
    if recipe.teacher is not None:
        distillation = _distillation(recipe.teacher, recipe, class_names, distributed)
        if augmentation.is_identity and not recipe.mixup and not recipe.cutmix:
            note("nothing changes an image in this run, so the teacher is asked once about each")
            distillation.remember(splits.train, preprocessing, run.teacher if distributed.is_rank_zero else None)
    trained: nn.Module = network
    if recipe.frozen:
        trained = classifier_head(network)
    elif distillation is not None and recipe.distill == "features":
        trained = FeatureStudent(network, distillation.teacher.feature_channels).to(distributed.device)
    optimizer = build_optimizer(trained, network, recipe)
    step = TrainingStep(
        trained,
        optimizer,
        recipe,
        IdentityPreprocessing() if recipe.frozen else preprocessing,
        distributed,
        mixing=mixing(recipe, len(class_names)),
        distillation=distillation,
        after=None if average is None else lambda: average.update_parameters(network),
    )
    learned = TrainState(network, trained, optimizer, step.scaler, average)
    progress = Progress() if state is None else unpack(state, learned)
    if recipe.frozen:
        splits = extract_features(network, splits, preprocessing, mirrored=recipe.flip, device=distributed.device)
    return TrainingSetup(learned, step, progress, splits, None if recipe.frozen else augmentation, state is None)


def _augmentation(recipe: Recipe, splits: DatasetSplits, size: int) -> Augmentation:
    fits = getattr(splits.train, "common_size", None) == (size, size)  # known of images in memory and in shards
    return Augmentation(
        size,
        recipe.shift if fits else None,
        recipe.min_scale,
        recipe.flip,
        recipe.randaugment,
        recipe.randaugment_magnitude,
        recipe.erasing,
    )


def _distillation(
    name: str, recipe: Recipe, class_names: tuple[str, ...], distributed: DistributedContext
) -> Distillation:
    teacher = load_teacher(name, class_names)
    teacher.model.to(distributed.device)
    return Distillation(teacher, recipe)
