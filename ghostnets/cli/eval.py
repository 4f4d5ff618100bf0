"""``ghostnets eval CHECKPOINT DATA``: evaluate a checkpoint on labelled images."""

import time
from collections import Counter
from dataclasses import replace
from typing import Any

import torch

from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.cli.eval_output import image_columns, print_evaluation, to_json
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import download_progress, message, print_json, progress_console, result_console
from ghostnets.data import DataSpec, ImageDataset, JoinedDataset, describe_source, summarize_source
from ghostnets.data.layout import normalize_name
from ghostnets.errors import DataError
from ghostnets.explain.figures import confusion_figure, save_figure
from ghostnets.files import write_atomically
from ghostnets.predict import find_writer
from ghostnets.train import RunFolder, evaluate

__all__ = ["run"]


def run(command: EvalCommand) -> int:
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    figure = command.figure or command.checkpoint.parent / "confusion.png"
    writer = None if command.out is None else find_writer(command.out, bom=command.bom)
    checkpoint = read_checkpoint(command.checkpoint)
    split, images, skipped, summary = _load_images(command, checkpoint)
    model = checkpoint.build().to(memory_format=torch.channels_last)
    before = time.perf_counter()
    with progress_console().status(f"evaluating {len(images)} images"):
        result = evaluate(model, images, checkpoint.preprocessing, checkpoint.class_names)
    seconds = time.perf_counter() - before
    in_training = RunFolder(command.checkpoint.parent).find_training_images(images.digests())
    # Printed before any file is written: a full disk does not lose the result.
    console = result_console()
    if command.json:
        values = to_json(result, images, in_training)
        print_json({"part": split, **values, "picture": str(figure), "skipped": skipped, "data": summary})
    else:
        print_evaluation(result, images, split, in_training)
        console.print(f"{result.images / seconds:.0f} images/s")
        if skipped:
            message(f"unreadable images left out: {len(skipped)}: {' '.join(skipped[:5])}")
    with write_atomically(figure) as temporary:
        save_figure(confusion_figure(result.confusion_cells, checkpoint.class_names), temporary, figure.suffix)
    if writer is not None and command.out is not None:
        with write_atomically(command.out) as temporary:
            writer.write_table(image_columns(result, images, range(len(images)), in_training), temporary)
    if not command.json:
        console.print(f"confusion matrix: {figure}", soft_wrap=True)
        if command.out is not None:
            console.print(f"one row per image: {command.out}", soft_wrap=True)
    return 0


def _load_images(command: EvalCommand, checkpoint: Checkpoint) -> tuple[str, ImageDataset, list[str], dict[str, Any]]:
    """The split, its images with labels in the checkpoint's order, sentences on unreadable ones, and a summary."""
    recipe = checkpoint.training.get("recipe", {})
    data = DataSpec(
        command.data,
        full=command.full,
        root=command.root,
        skip_corrupt=command.skip_corrupt,
        progress=download_progress(),
    )
    source = data.open(
        val_share=recipe.get("val_share", 0.2), seed=recipe.get("seed", 0), network_classes=checkpoint.class_names
    )
    split: str = command.split
    if split == "auto":
        trained = checkpoint.training
        is_training_data = data.location == trained.get("data") or source.identity == trained.get("data_identity")
        has_val = is_training_data or not source.val_from_train
        split = "test" if "test" in source.split_names else "val" if has_val else "all"
    for sentence in describe_source(source, by_split=split != "all" or not source.val_from_train):
        message(sentence)
    to_index = _match_classes(source.class_names, checkpoint.class_names, command.data)
    names = source.split_names if split == "all" else (split,)
    preprocessing = replace(checkpoint.preprocessing, max_pixels=command.max_pixels)
    loaded = [source.load_split(name, preprocessing) for name in names]
    datasets = [images for images, _ in loaded]
    images = JoinedDataset(datasets, to_index[torch.cat([dataset.labels for dataset in datasets])])
    if not len(images):
        raise DataError(f"no readable image is left in {command.data}.")
    return split, images, [sentence for _, skipped in loaded for sentence in skipped], summarize_source(source)


def _match_classes(names: tuple[str, ...], known: tuple[str, ...], data: str) -> torch.Tensor:
    """Map the index of a class in the data to its index in the checkpoint."""
    if names == known:
        return torch.arange(len(names))
    indices = {normalize_name(name): index for index, name in enumerate(known)}
    names = tuple(map(normalize_name, names))
    counts = Counter(map(normalize_name, known))
    if doubled := [name for name in names if counts[name] > 1]:
        raise DataError(
            f"{data} has the class {doubled[0]}, and the checkpoint has {counts[doubled[0]]} classes of that name, so"
            " it is unknown which one is meant; leave the folder out."
        )
    if unknown := [name for name in names if name not in indices]:
        folded = {name.casefold() for name in indices}
        case = " Upper and lower case differ." if any(name.casefold() in folded for name in unknown) else ""
        raise DataError(
            f"{data} has classes that the checkpoint does not have ({', '.join(unknown[:5])});"
            f" it has {len(known)}: {', '.join(known[:10])}{', ...' if len(known) > 10 else ''}.{case}"
        )
    if absent := [name for name in known if normalize_name(name) not in names]:
        shown = ", ".join(absent[:8]) + (f", ... ({len(absent)})" if len(absent) > 8 else "")
        message(f"no image of {shown}")
    return torch.tensor([indices[name] for name in names])
