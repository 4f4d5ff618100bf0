"""``ghostnets eval CHECKPOINT DATA``: evaluate a checkpoint on labelled images."""

import copy
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from rich.table import Table

from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.cli.output import message, print_json, progress_console, result_console
from ghostnets.data import ArrayDataset, DataSpec, FileDataset, ImageDataset, describe_source
from ghostnets.data.layout import normalize_name
from ghostnets.errors import DataError, require
from ghostnets.explain.figures import confusion_figure, save_figure
from ghostnets.files import write_atomically
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Evaluation, evaluate

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class EvalCommand:
    """Evaluate a checkpoint: top-1, top-5, results by class, and a figure of the confusion matrix.

    Example: ghostnets eval runs/photos-ghostnet_100/best.safetensors photos/
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """best.safetensors of a run."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """Folder as for train, or "fashion-mnist"."""
    split: Annotated[Literal["auto", "train", "val", "test", "all"], tyro.conf.arg(name="part")] = "auto"
    """Split to evaluate: auto is test/, else val/ (or the validation split of the training run), else all."""
    full: bool = False
    """With fashion-mnist: the full data set."""
    root: Path | None = None
    """With --full: folder of the four *-ubyte.gz files."""
    picture: Path | None = None
    """File of the confusion matrix, .png or .svg; by default confusion.png next to the checkpoint."""
    skip_corrupt: bool = False
    """Leave unreadable images out instead of failing, and print how many."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(EvalCommand, prog="ghostnets eval", args=arguments)
    require("torchmetrics", extra="train")
    require("matplotlib", extra="train")
    checkpoint = read_checkpoint(command.checkpoint)
    preprocessing = checkpoint.preprocessing
    split, images, skipped = _load_images(command, checkpoint, preprocessing)
    model = checkpoint.build().to(memory_format=torch.channels_last)
    before = time.perf_counter()
    with progress_console().status(f"evaluating {len(images)} images"):
        result = evaluate(model, images, preprocessing, checkpoint.class_names)
    seconds = time.perf_counter() - before
    picture = command.picture or command.checkpoint.parent / "confusion.png"
    with write_atomically(picture) as temporary:
        save_figure(confusion_figure(result.confusion, checkpoint.class_names), temporary, picture.suffix)
    if command.json:
        print_json({"part": split, **result.to_dict(), "picture": str(picture), "skipped": skipped})
    else:
        _print(result, split, seconds, picture, skipped)
    return 0


def _load_images(
    command: EvalCommand, checkpoint: Checkpoint, preprocessing: Preprocessing
) -> tuple[str, ImageDataset, list[str]]:
    """The split, its images with labels in the checkpoint's order, and a sentence for each unreadable image."""
    recipe = checkpoint.training.get("recipe", {})
    data = DataSpec(command.data, full=command.full, root=command.root, skip_corrupt=command.skip_corrupt)
    source = data.open(
        val_share=recipe.get("val_share", 0.2), seed=recipe.get("seed", 0), network_classes=checkpoint.class_names
    )
    for sentence in describe_source(source):
        message(sentence)
    to_index = _match_classes(source.class_names, checkpoint.class_names, command.data)
    split: str = command.split
    if split == "auto":
        is_training_data = checkpoint.training.get("data") == data.location
        has_val = is_training_data or not source.val_from_train
        split = "test" if "test" in source.split_names else "val" if has_val else "all"
    names = source.split_names if split == "all" else (split,)
    loaded = [source.load_split(name, preprocessing) for name in names]
    images = _relabel([images for images, _ in loaded], to_index)
    if not len(images):
        raise DataError(f"no readable image is left in {command.data}.")
    return split, images, [sentence for _, skipped in loaded for sentence in skipped]


def _match_classes(names: tuple[str, ...], known: tuple[str, ...], data: str) -> torch.Tensor:
    """Map the index of a class in the data to its index in the checkpoint."""
    names, known = tuple(map(normalize_name, names)), tuple(map(normalize_name, known))
    if unknown := [name for name in names if name not in known]:
        raise DataError(
            f"{data} has classes that the checkpoint does not have ({', '.join(unknown[:5])});"
            f" it has {len(known)}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}."
        )
    if absent := [name for name in known if name not in names]:
        shown = ", ".join(absent[:8]) + (f", ... ({len(absent)})" if len(absent) > 8 else "")
        message(f"no image of {shown}")
    return torch.tensor([known.index(name) for name in names])


def _relabel(datasets: list[ImageDataset], to_index: torch.Tensor) -> ImageDataset:
    """Concatenate datasets, with their labels mapped."""
    labels = to_index[torch.cat([images.labels for images in datasets])]
    if len(datasets) == 1:
        relabelled = copy.copy(datasets[0])
        relabelled.labels = labels
        return relabelled
    files = [images for images in datasets if isinstance(images, FileDataset)]
    if len(files) == len(datasets):
        return FileDataset([path for images in files for path in images.paths], labels, files[0].preprocessing)
    return ArrayDataset([images[i] for images in datasets for i in range(len(images))], labels)


def _print(result: Evaluation, split: str, seconds: float, picture: Path, skipped: list[str]) -> None:
    table = Table("class", "images", "recall", "precision", title=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.classes:
        table.add_row(row.name, str(row.images), f"{row.recall:.1%}", f"{row.precision:.1%}")
    console = result_console()
    console.print(table)
    five = f"   top-5 {result.top5:.2%}" if len(result.classes) > 5 else ""
    console.print(f"{result.images} images ({split})   top-1 {result.top1:.2%}{five}   loss {result.loss:.4f}")
    console.print(f"{result.images / seconds:.0f} images/s   confusion matrix: {picture}", soft_wrap=True)
    if skipped:
        message(f"{len(skipped)} unreadable images were left out: {' '.join(skipped[:5])}")
