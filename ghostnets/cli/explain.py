"""``ghostnets explain CHECKPOINT|MODEL --images DIR``: a page that shows what goes on in a network."""

import platform
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from ghostnets import __version__
from ghostnets.checkpoints import load_pretrained, read_checkpoint
from ghostnets.cli.output import message, print_json, progress_console, result_console
from ghostnets.data import EMBEDDED, ArrayDataset, FashionMnist, ImageDataset, load_files
from ghostnets.errors import ConfigurationError, DataError, require
from ghostnets.explain import (
    AblationResult,
    Explanation,
    Redundancy,
    compare_latency,
    compute_savings,
    measure_ghost_ablation,
    measure_redundancy,
    write_explanation,
)
from ghostnets.layers import GhostModule
from ghostnets.measure import processor_name
from ghostnets.models import create_model, list_models, model_arguments, model_entry
from ghostnets.predict import find_files
from ghostnets.preprocessing import Preprocessing

__all__ = ["main"]

ABLATION_IMAGES = 256  # the accuracy is measured twice for each Ghost module
EVALUATION_PARTS = ("test", "val", "valid", "validation")
UNTRAINED_SIDE = 224
PIXELS_AT_ONCE = 16 * 224 * 224  # bounds the memory


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class ExplainCommand:
    """Look inside a network: which maps are alike, what the cheap kernels learned, where it looks, what it costs.

    Writes explain.html (one file, opens offline), figures/ as SVG and PNG, and numbers.json.

    Example: ghostnets explain runs/photos-ghostnet_100/best.safetensors --images photos/
    """

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="CHECKPOINT|MODEL")]
    """best.safetensors of a run, or the name of a network (ghostnets list), whose published weights are fetched."""
    images: str
    """A folder of images, or "fashion-mnist" for its test images. Where its folders are named as the classes of the
    checkpoint, the accuracy without ghosts is measured as well."""
    out: Path | None = None
    """Where to write; by default explain/ beside the checkpoint, or explain-MODEL/."""
    most: int = 1000
    """So many images at most, evenly chosen from the folder."""
    untrained: bool = False
    """With MODEL: random weights, to see what training has not made."""
    json: bool = False
    """Print the numbers as JSON on stdout as well."""


@dataclass(frozen=True)
class Subject:
    """The network that is explained."""

    name: str
    arguments: dict[str, Any]
    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    weights: str  # where they come from, one sentence


def main(arguments: list[str]) -> int:
    command = tyro.cli(ExplainCommand, prog="ghostnets explain", args=arguments)
    if command.most < 1:
        raise ConfigurationError(f"--most is {command.most}; it must be at least 1.")
    require("matplotlib", extra="explain")
    require("jinja2", extra="explain")
    subject = _subject(command)
    images, note = _images(command, subject)
    redundancy, ablation, note = _measure(subject, images, note)
    preprocessing, model = subject.preprocessing, subject.model
    plain = None
    if "ratio" in model_arguments(subject.name):
        plain = create_model(subject.name, **{**subject.arguments, "ratio": 1}).eval()
        plain = plain.to(memory_format=torch.channels_last)
    side, shown = preprocessing.image_size, range(0, len(images), -(-len(images) // 6))
    pixels = torch.stack([preprocessing.center(images[i]) for i in shown])
    explanation = Explanation(
        title=f"Inside {subject.name}",
        summary=f"{subject.weights} Images: {len(images):,} of {command.images}, each"
        f" {preprocessing.channels} x {side} x {side}.",
        redundancy=redundancy,
        model=model,
        pixels=pixels,
        inputs=preprocessing.normalize(pixels),
        class_names=subject.class_names,
        ablation=ablation,
        ablation_note=note,
        savings=compute_savings(model, plain, (preprocessing.channels, side, side)),
        speed=compare_latency(model, plain, preprocessing.normalize(pixels[:1])) if plain is not None else None,
        settings={
            "network": f"{subject.name}({', '.join(f'{k}={v}' for k, v in subject.arguments.items())})",
            "threads": str(torch.get_num_threads()),
            "processor": processor_name(),
            "versions": f"ghostnets {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        },
        command=shlex.join(["ghostnets", "explain", *arguments]),
    )
    is_file = Path(command.network).is_file()
    folder = command.out or (
        Path(command.network).parent / "explain" if is_file else Path(f"explain-{command.network}")
    )
    page, numbers = write_explanation(folder, explanation)
    if command.json:
        print_json(numbers)
    else:
        _print(redundancy)
    message(f"the page is {page}")
    return 0


def _subject(command: ExplainCommand) -> Subject:
    name = command.network
    if name in list_models() or not (Path(name).suffix or "/" in name):
        model_entry(name)  # an unknown name is told here, with close matches
        model = create_model(name)
        if command.untrained:
            preprocessing, weights = (
                Preprocessing.standard(UNTRAINED_SIDE, 3),
                "Random weights: nothing here was learned.",
            )
        else:
            published = load_pretrained(model, name)
            preprocessing, weights = published.preprocessing, f"Published weights ({published.tag})."
        model = model.eval().to(memory_format=torch.channels_last)
        return Subject(name, {}, model, preprocessing, None, weights)
    if command.untrained:
        raise ConfigurationError(
            f"{name} is a checkpoint, which has weights; --untrained goes with the name of a model."
        )
    checkpoint = read_checkpoint(name)
    return Subject(
        checkpoint.architecture,
        checkpoint.arguments,
        checkpoint.build().to(memory_format=torch.channels_last),
        checkpoint.preprocessing,
        checkpoint.class_names,
        f"Weights of {name}, {len(checkpoint.class_names)} classes.",
    )


def _images(command: ExplainCommand, subject: Subject) -> tuple[ImageDataset, str]:
    """The images with labels in the order of the outputs, -1 where there is none; and what the labelled ones are."""
    preprocessing, names = subject.preprocessing, list(subject.class_names or ())
    if command.images == EMBEDDED:
        test = FashionMnist().load(preprocessing).test
        assert test is not None
        known = tuple(names) == FashionMnist().class_names
        chosen = _evenly(list(range(len(test))), command.most)
        labels = test.labels[chosen] if known else torch.full((len(chosen),), -1)
        return ArrayDataset([test[i] for i in chosen], labels), "Measured on test images of Fashion-MNIST."
    root = Path(command.images)
    if not root.is_dir():
        raise DataError(f"--images is {root}, which is no folder; give a folder of images, or {EMBEDDED}.")
    files = find_files([root])
    parts = [part for part in EVALUATION_PARTS if (root / part).is_dir()]
    note = "Measured on the images of the folder, among them perhaps some that the network was trained on."
    if parts:
        files = [file for file in files if file.relative_to(root).parts[0] == parts[0]]
        note = f"Measured on images of {parts[0]}/."
    files = _evenly(files, command.most)
    labels = torch.tensor([_label(file.relative_to(root).parts[:-1], names) for file in files])
    with _progress() as progress:
        task = progress.add_task("reading images", total=len(files))
        images, problems = load_files(files, labels, preprocessing, on_image=lambda: progress.advance(task))
    if not len(images):
        raise DataError(f"none of the {len(files)} images of {root} can be read: {problems[0]}")
    if problems:
        message(f"{len(problems)} unreadable images were left out: {' '.join(problems[:5])}")
    return images, note


def _measure(subject: Subject, images: ImageDataset, note: str) -> tuple[Redundancy, AblationResult | None, str]:
    """The redundancy, and the accuracy without ghosts with what it was measured on, or why it was not."""
    model, preprocessing = subject.model, subject.preprocessing
    size = min(256, max(1, PIXELS_AT_ONCE // preprocessing.image_size**2))

    def batches(indices: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(indices), size):
            here = indices[start : start + size]
            pixels = torch.stack([preprocessing.center(images[i]) for i in here])
            yield preprocessing.normalize(pixels), images.labels[here]

    def inputs() -> Iterable[Tensor]:
        return (x for x, _ in batches(list(range(len(images)))))

    with _progress() as progress:
        task = progress.add_task("redundancy (two passes)", total=2 * len(images))
        redundancy = measure_redundancy(model, inputs, on_batch=lambda n: progress.advance(task, n))
        modules = sum(isinstance(m, GhostModule) and m.has_ghosts for m in model.modules())
        labelled = _evenly((images.labels >= 0).nonzero().flatten().tolist(), ABLATION_IMAGES)
        if not labelled:
            reason = (
                "Not measured: these images have no labels that the network knows;"
                " it takes folders that are named as its classes."
            )
            return redundancy, None, reason
        task = progress.add_task("without ghosts", total=modules)
        ablation = measure_ghost_ablation(model, lambda: batches(labelled), on_layer=lambda: progress.advance(task))
    return redundancy, ablation, note


def _evenly(items: list[Any], most: int) -> list[Any]:
    return [items[i * len(items) // min(most, len(items))] for i in range(min(most, len(items)))]


def _label(folders: tuple[str, ...], names: list[str]) -> int:
    return next((names.index(folder) for folder in folders if folder in names), -1)


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=progress_console(),
        transient=True,
    )


def _print(redundancy: Redundancy) -> None:
    table = Table("layer", "kind", "maps", "twins > 0.9", "> 0.95", "left by 1 x 1", "3 x 3", "7 x 7")
    for column in table.columns[2:]:
        column.justify = "right"
    for layer in redundancy.layers:
        table.add_row(
            layer.layer,
            layer.kind,
            str(layer.channels),
            f"{layer.twins_90:.0%}",
            f"{layer.twins_95:.0%}",
            *(f"{layer.errors[d]:.0%}" for d in (1, 3, 7)),
        )
    console = result_console()
    console.print(table)
    console.print(
        f"{redundancy.images} images. Twins: maps with another one of the same layer whose cosine with it is above 0.9,"
        " or 0.95. Left: share of the variance of half of the maps that the best filter of another map leaves.",
        soft_wrap=True,
    )
