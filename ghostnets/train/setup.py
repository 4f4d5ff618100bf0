"""Modules, data and progress of a training run, built from its specification."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ghostnets.data import Augmentation, BatchAugmentation, DatasetSplits, TrainingBatches
from ghostnets.data.boxes import BoxAugmentation, BoxBatchAugmentation
from ghostnets.data.masks import MaskAugmentation
from ghostnets.errors import ConfigurationError, RunError
from ghostnets.models import Network
from ghostnets.models.detection import Detector
from ghostnets.terminal import format_count
from ghostnets.train.detection.network import build_initial_detector
from ghostnets.train.detection.supervised import SupervisedDetector
from ghostnets.train.distill import Distillation, FeatureStudent, load_teacher
from ghostnets.train.distributed import DistributedContext, convert_sync_batchnorm
from ghostnets.train.effects import describe_vain_crop
from ghostnets.train.ema import build_ema
from ghostnets.train.frozen import IdentityPreprocessing, classifier_head, extract_features
from ghostnets.train.mixing import build_mixing
from ghostnets.train.network import build_initial_network, read_initial_weights
from ghostnets.train.parameters import build_optimizer
from ghostnets.train.recipe import Recipe
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.segmentation.network import build_initial_segmenter, choose_training_side
from ghostnets.train.spec import RunSpec
from ghostnets.train.state import TrainProgress, TrainState, restore_state
from ghostnets.train.step import TrainingStep

__all__ = ["TrainingSetup", "build_setup", "check_batch", "class_weights"]

NORM_IMAGES = 64  # on which statistics of normalisation are measured


@dataclass(frozen=True)
class TrainingSetup:
    """The modules, data and progress of a run.

    Attributes:
        state: Network, optimizer, gradient scaler and moving average.
        step: The training step.
        progress: Progress of the run.
        splits: The images, or their features if the network is frozen.
        augmentation: Augmentation of the training images; None for features.
    """

    state: TrainState
    step: TrainingStep
    progress: TrainProgress
    splits: DatasetSplits
    augmentation: BatchAugmentation | None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and saved: the moving average if there is one."""
        average = self.state.average
        network = self.state.network if average is None else average.module
        assert isinstance(network, nn.Module)  # of the average it is Any
        return network


def build_setup(
    spec: RunSpec,
    splits: DatasetSplits,
    folder: RunFolder,
    saved: dict[str, Any] | None,
    distributed: DistributedContext,
    *,
    on_message: Callable[[str], None],
) -> TrainingSetup:
    """Build the setup of a run, and restore its saved state if there is one.

    Args:
        spec: Specification of the run.
        splits: Images of each split.
        folder: Run folder, which holds the cached outputs of a teacher.
        saved: Saved state; None for a new run.
        distributed: Processes of the run.
        on_message: Callback for messages to the user.

    Raises:
        CheckpointError: The initial weights or those of the teacher cannot be read, or do not fit.
        ConfigurationError: The teacher has other classes.
        RunError: The saved state does not fit.
    """
    config, class_names = spec.config, spec.source.class_names
    recipe, preprocessing = config.recipe, config.preprocessing
    if (num_classes := config.arguments.get("num_classes")) != len(class_names):
        raise RunError(
            f"the run's config.json has num_classes {num_classes}, but {config.data} has {len(class_names)} classes;"
            " restore the file or the data, or start a new run."
        )
    torch.manual_seed(recipe.seed)
    augmentation = _build_augmentation(spec, splits, on_message)
    images = _sample_images(spec, splits, augmentation)
    network = _build_network(spec, images, is_new=saved is None, on_message=on_message).to(distributed.device)
    network.to(memory_format=torch.channels_last if recipe.channels_last else torch.contiguous_format)
    if recipe.sync_bn:
        convert_sync_batchnorm(network, distributed)
    average = build_ema(network, recipe.ema_decay) if recipe.ema_decay else None
    distillation = None
    if recipe.teacher is not None:
        teacher = load_teacher(recipe.teacher, class_names).to(distributed.device)
        distillation = Distillation(teacher, recipe)
        if (
            isinstance(augmentation, Augmentation)
            and augmentation.is_identity
            and not recipe.mixup
            and not recipe.cutmix
        ):
            on_message("images are not augmented, so the teacher's outputs are computed once and cached")
            cache = folder.teacher if distributed.is_rank_zero else None
            distillation.cache_teacher(splits.train, preprocessing, cache)
    trained = _trained_module(network, recipe, distillation, distributed).to(distributed.device)
    optimizer = build_optimizer(trained, network, recipe)
    step = TrainingStep(
        trained,
        optimizer,
        recipe,
        IdentityPreprocessing() if recipe.frozen else preprocessing,
        distributed,
        mixing=build_mixing(recipe, len(class_names)),
        distillation=distillation,
        class_weights=class_weights(recipe, splits, len(class_names)),
        multi_label=spec.source.multi_label,
        after_update=None if average is None else lambda: average.update_parameters(network),
        on_message=on_message,
    )
    state = TrainState(network, trained, optimizer, step.scaler, average)
    progress = TrainProgress() if saved is None else restore_state(saved, state)
    if recipe.frozen:
        assert isinstance(network, Network)
        splits = extract_features(network, splits, preprocessing, flip=recipe.flip, device=distributed.device)
    return TrainingSetup(state, step, progress, splits, None if recipe.frozen else augmentation)


def _build_network(
    spec: RunSpec, images: Iterable[Tensor], *, is_new: bool, on_message: Callable[[str], None]
) -> nn.Module:
    """Build the network with its initial weights; those of a resumed run are in its state."""
    config, class_names = spec.config, spec.source.class_names
    if config.task != "classify":
        recipe = config.recipe if is_new else config.recipe.changed(weights=None)
        if config.task == "segment":
            return build_initial_segmenter(recipe, config.arguments, class_names, on_message=on_message)
        return build_initial_detector(recipe, config.arguments, class_names, images=images, on_message=on_message)
    if not is_new:
        recipe = config.recipe.changed(weights=None, frozen=False)
        return build_initial_network(recipe, config.arguments, None, class_names, changes=config.changes)
    weights = spec.weights or read_initial_weights(config.recipe)
    multi_label = spec.source.multi_label
    return build_initial_network(
        config.recipe, config.arguments, weights, class_names, changes=config.changes, multi_label=multi_label
    )


def _sample_images(spec: RunSpec, splits: DatasetSplits, augmentation: BatchAugmentation) -> Iterator[Tensor]:
    """The first training images as normalised batches, for statistics of initial weights."""
    recipe, preprocessing = spec.config.recipe, spec.config.preprocessing
    batches = TrainingBatches(splits.train, augmentation, batch_size=recipe.batch_size, seed=recipe.seed, epoch=0)
    for step in range(min(len(batches), -(-NORM_IMAGES // batches.batch_size))):
        yield preprocessing.normalize(batches[step].pixels)


def _trained_module(
    network: nn.Module, recipe: Recipe, distillation: Distillation | None, distributed: DistributedContext
) -> nn.Module:
    """Return the module whose weights are trained."""
    if isinstance(network, Detector):
        return SupervisedDetector(network, distributed.sum_tensor)
    if recipe.frozen:
        return classifier_head(network)
    if distillation is not None and recipe.distill == "features":
        assert isinstance(network, Network)
        return FeatureStudent(network, distillation.teacher.feature_channels)
    return network


def _build_augmentation(spec: RunSpec, splits: DatasetSplits, on_message: Callable[[str], None]) -> BatchAugmentation:
    recipe, size = spec.config.recipe, spec.config.preprocessing.image_size
    horizontal, vertical = recipe.flip in ("horizontal", "both"), recipe.flip in ("vertical", "both")
    if spec.config.task == "detect":
        color = recipe.color_jitter > 0
        return BoxBatchAugmentation(BoxAugmentation(size, crop=recipe.min_scale < 1, flip=horizontal, color=color))
    if spec.config.task == "segment":
        side = choose_training_side(size)
        return MaskAugmentation(side, recipe.min_scale, horizontal, vertical, recipe.color_jitter, recipe.rotate)
    has_input_size = getattr(splits.train, "common_size", None) == (size, size)  # set in memory, on disk and in shards
    if not recipe.frozen and (vain := describe_vain_crop(recipe, size, is_shifted=has_input_size)):
        on_message(vain)
    return Augmentation(
        size,
        recipe.shift if has_input_size else None,
        recipe.min_scale,
        horizontal,
        recipe.randaugment,
        recipe.randaugment_magnitude,
        recipe.erasing,
        vertical_flip=vertical,
        rotate=recipe.rotate,
        color_jitter=recipe.color_jitter,
    )


def class_weights(recipe: Recipe, splits: DatasetSplits, num_classes: int) -> Tensor | None:
    """Weight of each class in the loss, float32 (num_classes,), as scikit-learn's "balanced"; None for equal ones."""
    if recipe.class_weights == "none":
        return None
    counts = splits.train.labels.bincount(minlength=num_classes)
    return len(splits.train) / (num_classes * counts.clamp(min=1))


def check_batch(size: int, num_images: int, world_size: int, accumulate: int) -> None:
    """Raise ConfigurationError for a batch of fewer than two images for each process and accumulation step.

    Args:
        size: Images of a batch.
        num_images: Images of the training split, at least ``size``.
        world_size: Number of processes.
        accumulate: Number of accumulation steps.
    """
    needed = 2 * world_size * accumulate
    if size < needed:
        parts = f"{format_count(world_size, 'process')} and {format_count(accumulate, 'accumulation step')}"
        advice = "choose a larger --batch-size" if num_images >= needed else "add training images"
        raise ConfigurationError(
            f"a batch of {format_count(size, 'image')} is too small: batch normalisation needs 2 for each of {parts};"
            f" {advice}."
        )
