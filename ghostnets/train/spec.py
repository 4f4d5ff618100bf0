"""The specification of a run: its configuration resolved, its data opened, its initial weights read; each once."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch

from ghostnets.data import DatasetSplits, DataSource, DataSpec, describe_source
from ghostnets.data.duplicates import describe_duplicates
from ghostnets.errors import DataError, RunError
from ghostnets.train.callback import Callback
from ghostnets.train.detection.network import resolve_detector
from ghostnets.train.multi_label import check_multi_label
from ghostnets.train.network import InitialWeights, ResolvedRecipe, resolve_recipe
from ghostnets.train.recipe import Recipe
from ghostnets.train.run_config import RunConfig
from ghostnets.train.segmentation.network import resolve_segmenter
from ghostnets.train.state import changed_data

__all__ = ["RunSpec"]


class RunSpec(NamedTuple):
    """Resolved configuration of a run, with its opened data and initial weights.

    Attributes:
        config: Complete configuration.
        source: The opened data set.
        weights: Initial weights, if they were read to resolve the configuration.
    """

    config: RunConfig
    source: DataSource
    weights: InitialWeights | None = None

    @property
    def name(self) -> str:
        """Default name of the run: data and network."""
        return f"{self.source.name}-{self.config.recipe.model}"

    @classmethod
    def resolve(
        cls, data: DataSpec, source: DataSource, recipe: Recipe, *, device: str, workers: int | None, start: str = ""
    ) -> "RunSpec":
        """Resolve the configuration of a new run.

        Args:
            data: The data set.
            source: The opened data.
            recipe: The recipe as requested.
            device: Name of the device, as in ``devices.select_device``.
            workers: Processes that read images, for each process that trains; None for as many as the device needs.
            start: A sentence on the initial weights and why they were chosen.

        Raises:
            CheckpointError: The initial weights cannot be read.
            ConfigurationError: The recipe does not fit the data, the network or the weights.
        """
        if source.multi_label:
            check_multi_label(recipe)
        if source.task == "classify":
            resolved = resolve_recipe(recipe, source)
        else:
            resolve = resolve_detector if source.task == "detect" else resolve_segmenter
            resolved = ResolvedRecipe(*resolve(recipe, source), None, ())
        config = RunConfig(
            data=data.location,
            recipe=resolved.recipe,
            arguments=resolved.arguments,
            changes=resolved.changes,
            preprocessing=replace(resolved.preprocessing, max_pixels=data.max_pixels),
            full=data.full,
            root=None if data.root is None else str(Path(data.root).resolve()),
            skip_corrupt=data.skip_corrupt,
            threads=torch.get_num_threads(),
            device=device,
            workers=workers,
            start=start,
            identity=source.identity,
            task=source.task,
        )
        return cls(config, source, resolved.weights)

    @classmethod
    def from_config(cls, config: RunConfig) -> "RunSpec":
        """Open the data of an existing configuration.

        Raises:
            DataError: The data cannot be opened.
            RunError: The data are not those of the configuration.
        """
        try:
            source = config.data_spec.open(val_share=config.recipe.val_share, seed=config.recipe.seed)
        except DataError as error:
            raise DataError(f"{error} If the images of the run are elsewhere now, say where: --data FOLDER.") from error
        if config.identity not in (None, source.identity):
            raise RunError(changed_data(config.data))
        return cls(config, source)

    def read_images(self, callback: Callback) -> DatasetSplits:
        """Describe the data to the user, and read them.

        Raises:
            DataError: Images cannot be read.
        """
        for sentence in describe_source(self.source):
            callback.on_message(sentence)
        if self.config.recipe.weights is not None and self.source.channels < self.config.preprocessing.channels:
            callback.on_message(
                "the images are grayscale, and copied to the 3 channels of the weights (--in-chans 1: no)"
            )
        callback.on_read_start(self.source.num_images)
        splits = self.source.load(self.config.preprocessing, on_image=callback.on_image_read)
        for sentence in splits.skipped:
            callback.on_message(f"skipped: {sentence}")
        for sentence in describe_duplicates(splits):
            callback.on_message(sentence)
        return splits
