"""A data set as the user names it, and its opening by the module that reads it."""

import os
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ghostnets.data.source import DataSource
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.preprocessing import MAX_PIXELS

if TYPE_CHECKING:
    from ghostnets.data.labels import LabelledFolder
    from ghostnets.http_download import Progress

__all__ = ["EMBEDDED", "TASKS", "DataSpec", "check_val_share", "find_task"]

TASKS = ("classify", "detect", "segment")
"""Tasks of data sets: images with classes, boxes or masks."""
OTHER_FOLDERS = ("imagesets", "segmentationobject", "train", "val", "valid", "test")  # of boxes or masks, and splits

EMBEDDED = "fashion-mnist"
"""Name of the data set that comes with the package."""


@dataclass(frozen=True)
class DataSpec:
    """A data set by name or location, and how to read it.

    Attributes:
        data: ``"fashion-mnist"``; the path of a folder or table (see ``ImageFolder``); the path or URL of shards (see
            ``write_shards``), or of an archive (see ``open_archive``) of any of them; or
            ``hf://datasets/OWNER/NAME``, a data set in the cache of Hugging Face.
        full: All 70,000 images of Fashion-MNIST instead of the embedded subset.
        root: Folder of the files of the full Fashion-MNIST.
        skip_corrupt: Leave unreadable images out instead of failing.
        progress: Callback while an archive is downloaded, with the number of bytes and the total.
        max_pixels: Maximum number of pixels of an image that is read.
        task: ``"classify"``, ``"detect"`` for labelled boxes, or ``"segment"`` for masks; None to infer it from the
            layout (``find_task``).
    """

    data: str | os.PathLike[str] = EMBEDDED
    full: bool = False
    root: str | os.PathLike[str] | None = None
    skip_corrupt: bool = False
    progress: "Progress | None" = field(default=None, compare=False, repr=False)
    max_pixels: int = MAX_PIXELS
    task: str | None = "classify"

    def __post_init__(self) -> None:
        if str(self.data).startswith("~") and not Path(self.data).exists():  # a shell leaves it in quotes
            home = os.path.expanduser(self.data)  # noqa: PTH111 - Path.expanduser raises for an unknown user
            object.__setattr__(self, "data", home)

    @property
    def location(self) -> str:
        """The data set independent of the working directory: name, URL or absolute path."""
        is_path = str(self.data) != EMBEDDED and Path(self.data).exists()
        return str(Path(self.data).resolve()) if is_path else str(self.data)

    def open(
        self, *, val_share: float = 0.2, seed: int = 0, network_classes: Collection[str] | None = None
    ) -> DataSource:
        """Open the source; no pixel is read yet.

        Args:
            val_share: Share of each class split off for validation if a folder has no such split.
            seed: Seed of that split.
            network_classes: Class names of the network that is evaluated, for the rules of evaluation
                (``open_folder``); None for training.

        Raises:
            DataError: As ``open_folder``, ``open_shards`` or ``open_archive``.
            ConfigurationError: ``full`` or ``root`` with another data set than Fashion-MNIST.
        """
        from ghostnets.data.archives import archive_suffix, open_archive
        from ghostnets.data.fashion_mnist import FashionMnist
        from ghostnets.data.folders import open_folder
        from ghostnets.data.labelled_arrow import HUB_DATASET, find_cached_dataset
        from ghostnets.data.shard_files import REMOTE
        from ghostnets.data.shards import is_shards, open_shards

        if str(self.data) == EMBEDDED and self.task not in (None, "classify"):
            labels = "labelled boxes" if self.task == "detect" else "masks"
            raise ConfigurationError(f"{EMBEDDED} has no {labels}; pass a folder with {labels.split()[-1]}.")
        if str(self.data) == EMBEDDED:
            if self.root is not None and not self.full:
                raise ConfigurationError("--root needs --full, the whole of Fashion-MNIST.")
            return FashionMnist(full=self.full, root=None if self.root is None else Path(self.root), seed=seed)
        if self.full or self.root is not None:
            raise ConfigurationError(f"--full and --root belong to {EMBEDDED}, not to the folder {self.data}.")
        if str(self.data).startswith(HUB_DATASET):
            folder = find_cached_dataset(str(self.data))
            return self._open_unpacked(folder, val_share=val_share, seed=seed, network_classes=network_classes)
        archive = archive_suffix(str(self.data)) is not None and not Path(self.data).is_dir()
        if archive and (str(self.data).startswith(REMOTE) or Path(self.data).is_file()):
            data = open_archive(str(self.data), progress=self.progress)
            if data != Path(self.data).resolve():
                return self._open_unpacked(data, val_share=val_share, seed=seed, network_classes=network_classes)
        task = self.task or find_task(self.data)
        if task == "detect":
            return self._open_boxes(val_share=val_share, seed=seed, for_evaluation=network_classes is not None)
        if task == "segment":
            return self._open_masks(val_share=val_share, seed=seed, for_evaluation=network_classes is not None)
        if is_shards(self.data):
            return open_shards(self.data)
        return open_folder(
            self.data,
            val_share=val_share,
            seed=seed,
            skip_corrupt=self.skip_corrupt,
            network_classes=network_classes,
        )

    def find(self) -> "LabelledFolder":
        """Find the labelled files without the checks of training, to examine them.

        Of images with boxes or masks the labels are read; images and labels that cannot be used are in ``broken``.

        Raises:
            DataError: As ``find_labelled_images`` in evaluation, ``open_boxes`` and ``open_masks`` (their layout), or
                ``open_archive``.
            ConfigurationError: The data set has no files here: shards at a URL, or Fashion-MNIST.
        """
        from ghostnets.data.archives import archive_suffix, open_archive, unpacking_notes
        from ghostnets.data.labelled_arrow import HUB_DATASET, find_cached_dataset
        from ghostnets.data.search import find_labelled_images

        name = str(self.data)
        is_remote = name.startswith(("http://", "https://"))
        if name == EMBEDDED or (is_remote and archive_suffix(name) is None):
            raise ConfigurationError(f"{name} has no files here; pass a folder, a table, tars or an archive.")
        is_archive = archive_suffix(name) is not None and (is_remote or Path(name).is_file())
        if name.startswith(HUB_DATASET):
            root = find_cached_dataset(name)
        else:
            root = open_archive(name, progress=self.progress) if is_archive else Path(name)
        task = self.task or find_task(root)
        if task == "classify":
            found = find_labelled_images(root, network_classes=(), skip_unreadable=True)
        else:
            found = self._find_annotated(root, task)
        return replace(found, notes=(*unpacking_notes(root), *found.notes)) if is_archive else found

    def _find_annotated(self, root: Path, task: str) -> "LabelledFolder":
        """Find the images of a data set with boxes or masks, and read their labels."""
        if task == "detect":
            from ghostnets.data.boxes.folder import BoxFolder
            from ghostnets.data.boxes.source import open_boxes

            return BoxFolder(open_boxes(root, skip_broken=True), False).find_files()
        from ghostnets.data.masks.folder import MaskFolder
        from ghostnets.data.masks.source import open_masks

        return MaskFolder(open_masks(root, skip_broken=True, max_pixels=self.max_pixels), False).find_files()

    def _open_boxes(self, *, val_share: float, seed: int, for_evaluation: bool) -> DataSource:
        """Open images with labelled boxes; for an evaluation any split will do."""
        from ghostnets.data.boxes import find_box_layout, open_boxes
        from ghostnets.data.boxes.folder import BoxFolder, split_validation

        guessed = ""
        if self.task is None:
            layout = find_box_layout(self.data) or ""
            others = "; on polygons and run lengths as masks: --task segment" * layout.startswith("COCO")
            guessed = (
                f"the labels are boxes ({layout}), so a detector is trained (for a classifier: --task classify{others})"
            )
        source = open_boxes(self.data, skip_broken=self.skip_corrupt)
        if for_evaluation and ("val" in source.splits or len(source.splits.get("train", ())) < 2):
            return BoxFolder(source, False, guessed)
        return split_validation(source, val_share=val_share, seed=seed, guessed=guessed)

    def _open_masks(self, *, val_share: float, seed: int, for_evaluation: bool) -> DataSource:
        """Open images with masks; for an evaluation any split will do."""
        from ghostnets.data.masks.folder import MaskFolder, split_mask_validation
        from ghostnets.data.masks.source import describe_mask_layout, open_masks

        guessed = ""
        if self.task is None:
            layout = describe_mask_layout(self.data)
            guessed = f"the labels are masks ({layout}), so a segmentation network is trained (--task classify: no)"
        source = open_masks(self.data, skip_broken=self.skip_corrupt, max_pixels=self.max_pixels)
        if for_evaluation and ("val" in source.splits or len(source.splits.get("train", ())) < 2):
            return MaskFolder(source, False, guessed)
        return split_mask_validation(source, val_share=val_share, seed=seed, guessed=guessed)

    def _open_unpacked(self, data: Path, **options: Any) -> DataSource:
        """Open unpacked or cached data; errors name their origin."""
        from ghostnets.data.archives import archive_suffix, unpacking_notes
        from ghostnets.data.folders import ImageFolder

        try:
            source = replace(self, data=data).open(**options)
        except DataError as error:
            raise DataError(f"in {self.data}: {error}") from error
        if not isinstance(source, ImageFolder):
            return source
        title = PurePosixPath(str(self.data).partition("#")[0]).name
        title = title.removesuffix(archive_suffix(title) or "")
        note = f"{self.data} is read from its copy in {data}"
        return replace(source, title=title, notes=(note, *unpacking_notes(data), *source.notes))


def check_val_share(source: DataSource, val_share: float) -> None:
    """Raise ConfigurationError if a share for validation was asked for of data whose validation images are given.

    Args:
        source: The opened data.
        val_share: The share.
    """
    from ghostnets.data.fashion_mnist import FashionMnist

    if not source.val_from_train or isinstance(source, FashionMnist):
        raise ConfigurationError(
            f"val_share {val_share:g} has no effect: {source.name} has {source.split_sizes['val']:,} validation images"
            " of its own; omit it."
        )


def find_task(data: str | os.PathLike[str]) -> str:
    """Infer the task from the layout of a data set: ``"detect"`` if it has labelled boxes, ``"segment"`` if masks.

    Without either, it is ``"classify"``.

    Raises:
        DataError: A folder has both labelled boxes and masks, or one of them and folders of classes.
    """
    from ghostnets.data.boxes import find_box_layout
    from ghostnets.data.masks.source import describe_mask_layout

    root = Path(data)
    if not root.exists() or (root.is_file() and root.suffix.lower() not in (".yaml", ".yml", ".json")):
        return "classify"
    layouts = {
        "detect": ("labelled boxes", find_box_layout(root)),
        "segment": ("masks", describe_mask_layout(root)),
        "classify": ("folders of classes", _class_folders(root)),
    }
    shown = {task: f"{labels} ({layout})" for task, (labels, layout) in layouts.items() if layout is not None}
    if len(shown) > 1 and shown.keys() != {"classify"}:
        first, *others = shown.values()
        raise DataError(
            f"{root} has {first} and also {' and '.join(others)}; choose"
            f" {' or '.join(f'--task {task}' for task in shown)}."
        )
    return next(iter(shown), "classify")


def _class_folders(root: Path) -> str | None:
    """Names of folders that can only be classes, or None if there are fewer than two."""
    from ghostnets.data.masks.layout import IMAGE_FOLDERS, MASK_FOLDERS
    from ghostnets.preprocessing import IMAGE_SUFFIXES

    others = {*IMAGE_FOLDERS, *MASK_FOLDERS, *OTHER_FOLDERS}
    folders = [path for top in (root, root / "train") if top.is_dir() for path in sorted(top.iterdir())]
    classes = [
        path.name
        for path in folders
        if path.is_dir()
        and path.name.lower() not in others
        and any(file.suffix.lower() in IMAGE_SUFFIXES for file in path.iterdir())
    ]
    return ", ".join(classes[:3]) if len(classes) > 1 else None
