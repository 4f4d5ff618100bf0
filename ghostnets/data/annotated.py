"""Images with labelled boxes or masks as sources of training data: what both share. Importable without torch."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

from ghostnets.data.labels import LabelledFiles, LabelledFolder
from ghostnets.data.source import check_split
from ghostnets.errors import DataError
from ghostnets.preprocessing import middle_of
from ghostnets.terminal import format_count

if TYPE_CHECKING:
    from ghostnets.data.datasets import DatasetSplits, ImageDataset
    from ghostnets.preprocessing import Preprocessing

__all__ = ["AnnotatedFolder", "describe_elongated"]

Item = TypeVar("Item", covariant=True)


class AnnotatedSource(Protocol[Item]):
    """Annotated images as read from a folder."""

    @property
    def name(self) -> str: ...

    @property
    def splits(self) -> Mapping[str, Sequence[Item]]: ...

    @property
    def broken(self) -> Sequence[str]: ...


@dataclass(frozen=True)
class AnnotatedFolder(ABC, Generic[Item]):
    """The part of ``DataSource`` that does not depend on the kind of annotation.

    Attributes:
        source: Annotated images of the splits, with ``"train"`` and ``"val"`` among them.
        val_from_train: Whether ``"val"`` was split off from the training images.
        guessed: Sentence on how the task was inferred from the layout; empty if it was given.
    """

    source: AnnotatedSource[Item]
    val_from_train: bool
    guessed: str = ""

    multi_label = False
    channels = 3

    @property
    def name(self) -> str:
        return self.source.name

    @property
    def split_names(self) -> tuple[str, ...]:
        return tuple(self.source.splits)

    @property
    def num_images(self) -> int:
        return sum(self.split_sizes.values())

    @property
    def notes(self) -> tuple[str, ...]:
        return (*self._notes, *(f"left out: {sentence}" for sentence in self.source.broken))

    @property
    def split_sizes(self) -> dict[str, int]:
        return {split: len(images) for split, images in self.source.splits.items()}

    def check_validation(self, *, is_labelled: bool, missing: str) -> Self:
        """Return this source if its validation images have labels, without which no epoch would be the best.

        Raises:
            DataError: ``is_labelled`` is false; ``missing`` says what they lack.
        """
        if not is_labelled:
            images = format_count(self.split_sizes["val"], "validation image")
            where, advice = " split off the training images", "label more images, or raise --val-share"
            if not self.val_from_train:
                where, advice = "", "label some, or remove the val split: training images then replace it"
            raise DataError(f"{images} of {self.name}{where}: {missing}, so no epoch would be the best; {advice}.")
        return self

    def images_of(self, split: str) -> Sequence[Item]:
        """Return the annotated images of a split; raises ConfigurationError if there is none."""
        check_split(self, split)
        return self.source.splits[split]

    def load(self, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = lambda: None) -> "DatasetSplits":
        """Read all splits: training images with their aspect ratio, all others preprocessed for the network."""
        from ghostnets.data.datasets import load_with_large_training_images

        return load_with_large_training_images(
            self.split_names, preprocessing, lambda split, chosen: self.load_split(split, chosen, on_image=on_image)[0]
        )

    def load_split(
        self, split: str, preprocessing: "Preprocessing", *, on_image: Callable[[], None] = lambda: None
    ) -> "tuple[ImageDataset, tuple[str, ...]]":
        """Read one split, preprocessed for the network; none of its images is left out."""
        loaded, problems = self._read(self.images_of(split), preprocessing, on_image)
        if problems:
            raise DataError(f"{problems[0]} ({len(problems)} images of {split} cannot be read; repair or remove them.)")
        return loaded, ()

    def find_files(self) -> LabelledFolder:
        """The image files of each split, labelled with the classes that their boxes or masks have."""
        splits = {split: self._labelled(split) for split in self.split_names}
        broken = tuple(self.source.broken)
        return LabelledFolder(self.class_names, splits, self._notes, self.identity, multi_label=True, broken=broken)

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]: ...

    @property
    @abstractmethod
    def identity(self) -> str: ...

    @property
    @abstractmethod
    def _notes(self) -> tuple[str, ...]:
        """Assumptions and exclusions, without the broken labels."""

    @abstractmethod
    def _labelled(self, split: str) -> LabelledFiles:
        """Paths of the images of a split, and the classes of each."""

    @abstractmethod
    def _read(
        self, images: Sequence[Item], preprocessing: "Preprocessing", on_image: Callable[[], None]
    ) -> "tuple[ImageDataset, Sequence[str]]":
        """Read images; return them and a sentence for each that cannot be read."""


def describe_elongated(sizes: Iterable[tuple[int, int]]) -> list[str]:
    """A sentence on training images of these sizes (W, H) of which only the middle is read; none without any."""
    count = sum(middle_of(size) != (0, 0, *size) for size in sizes)
    images = format_count(count, "training image")
    return [f"{images} more elongated than 4 : 1, of which the middle is trained on"] if count else []
