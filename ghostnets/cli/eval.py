"""``ghostnets eval CHECKPOINT DATA``: how well a checkpoint does on labelled images."""

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
from ghostnets.data import ArrayDataset, FileDataset, ImageDataset, ImageFolder, ShardFolder, open_data
from ghostnets.errors import DataError, require
from ghostnets.explain.figures import confusion_figure, save_figure
from ghostnets.files import write_atomically
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Evaluation, evaluate

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class EvalCommand:
    """Measure a checkpoint: top-1, top-5, results by class, and the confusion matrix as a picture.

    Example: ghostnets eval runs/photos-ghostnet_100/best.safetensors photos/
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """best.safetensors of a run."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="DATA")]
    """A folder as for train, or "fashion-mnist"."""
    part: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images: auto is test/, else val/ (or what the training run kept back of this folder), else all."""
    full: bool = False
    """With fashion-mnist: the whole set."""
    root: Path | None = None
    """With --full: a folder that holds the four *-ubyte.gz files."""
    picture: Path | None = None
    """Where the confusion matrix goes, .png or .svg; by default confusion.png beside the checkpoint."""
    skip_corrupt: bool = False
    """Go on without images that cannot be read, and say how many."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(EvalCommand, prog="ghostnets eval", args=arguments)
    require("torchmetrics", extra="train")
    require("matplotlib", extra="train")
    checkpoint = read_checkpoint(command.checkpoint)
    preprocessing = checkpoint.preprocessing
    part, images, skipped = _images(command, checkpoint, preprocessing)
    model = checkpoint.build().to(memory_format=torch.channels_last)
    before = time.perf_counter()
    with progress_console().status(f"evaluating {len(images)} images"):
        result = evaluate(model, images, preprocessing, checkpoint.class_names)
    seconds = time.perf_counter() - before
    picture = command.picture or command.checkpoint.parent / "confusion.png"
    with write_atomically(picture) as temporary:
        save_figure(confusion_figure(result.confusion, checkpoint.class_names), temporary, picture.suffix)
    if command.json:
        print_json({"part": part, **result.to_dict(), "picture": str(picture), "skipped": skipped})
    else:
        _print(result, part, seconds, picture, skipped)
    return 0


def _images(
    command: EvalCommand, checkpoint: Checkpoint, preprocessing: Preprocessing
) -> tuple[str, ImageDataset, list[str]]:
    """The part that is measured, its images with labels in the checkpoint's order, and those that cannot be read."""
    recipe = checkpoint.training.get("recipe", {})
    source = open_data(
        command.data,
        full=command.full,
        root=command.root,
        val_share=recipe.get("val_share", 0.2),
        seed=recipe.get("seed", 0),
    )
    to_index = _match_classes(source.class_names, checkpoint.class_names, command.data)
    part = command.part
    if isinstance(source, ImageFolder | ShardFolder):
        if part == "auto":
            was_trained_on_it = checkpoint.training.get("data") == str(Path(source.root).resolve())
            has_val = not source.val_is_split_off or was_trained_on_it
            part = "test" if "test" in source.parts else "val" if has_val else "all"
        loaded = [source.load_split(name, preprocessing) for name in (source.parts if part == "all" else (part,))]
        skipped = [sentence for _, unreadable in loaded for sentence in unreadable]
        if skipped and not command.skip_corrupt:
            raise DataError(
                f"{len(skipped)} images cannot be used: {' '.join(skipped[:5])} To go on without them: --skip-corrupt."
            )
        parts = [images for images, _ in loaded]
    else:
        splits, skipped = source.load(preprocessing), []
        part = "test" if part == "auto" else part
        by_name = {"train": splits.train, "val": splits.val, "test": splits.test}
        parts = [images for name, images in by_name.items() if images is not None and part in (name, "all")]
    images = _relabelled(parts, to_index)
    if not len(images):
        raise DataError(f"no readable image is left in {command.data}.")
    return part, images, skipped


def _match_classes(names: tuple[str, ...], known: tuple[str, ...], data: str) -> torch.Tensor:
    """Index of a class in the data -> its index in the checkpoint."""
    if strange := [name for name in names if name not in known]:
        raise DataError(
            f"{data} has classes that the checkpoint does not know ({', '.join(strange[:5])});"
            f" it knows {len(known)}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}."
        )
    return torch.tensor([known.index(name) for name in names])


def _relabelled(parts: list[ImageDataset], to_index: torch.Tensor) -> ImageDataset:
    labels = to_index[torch.cat([images.labels for images in parts])]
    if len(parts) == 1:
        relabelled = copy.copy(parts[0])
        relabelled.labels = labels
        return relabelled
    if all(isinstance(images, FileDataset) for images in parts):
        first = parts[0]
        assert isinstance(first, FileDataset)
        paths = [path for images in parts if isinstance(images, FileDataset) for path in images.paths]
        return FileDataset(paths, labels, first.preprocessing)
    return ArrayDataset([images[i] for images in parts for i in range(len(images))], labels)


def _print(result: Evaluation, part: str, seconds: float, picture: Path, skipped: list[str]) -> None:
    table = Table("class", "images", "recall", "precision", title=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in result.classes:
        table.add_row(row.name, str(row.images), f"{row.recall:.1%}", f"{row.precision:.1%}")
    console = result_console()
    console.print(table)
    five = f"   top-5 {result.top5:.2%}" if len(result.classes) > 5 else ""
    console.print(f"{result.images} images ({part})   top-1 {result.top1:.2%}{five}   loss {result.loss:.4f}")
    console.print(f"{result.images / seconds:.0f} images/s   confusion matrix: {picture}", soft_wrap=True)
    if skipped:
        message(f"{len(skipped)} unreadable images were left out: {' '.join(skipped[:5])}")
