"""``ghostnets explain CHECKPOINT|MODEL --images DIR``: an HTML page on the feature maps and cost of a network."""

import platform
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from torch import Tensor, nn

from ghostnets import __version__
from ghostnets.checkpoints import load_pretrained, read_checkpoint
from ghostnets.cli.options.explain import ExplainCommand
from ghostnets.cli.output import message, print_json, progress_bars, result_console, show_stages
from ghostnets.data import EMBEDDED, ArrayDataset, FashionMnist, ImageDataset, find_sample, spread
from ghostnets.devices import describe_device, select_device
from ghostnets.errors import DataError
from ghostnets.explain import (
    AblationResult,
    Explanation,
    Redundancy,
    compare_latency,
    compute_savings,
    find_ghost_modules,
    measure_ghost_ablation,
    measure_redundancy,
    write_explanation,
)
from ghostnets.measure import processor_name
from ghostnets.models import create_model, model_arguments
from ghostnets.preprocessing import Preprocessing
from ghostnets.terminal import format_count

__all__ = ["run"]

ABLATION_IMAGES = 256  # every Ghost module needs two evaluations
UNTRAINED_IMAGE_SIZE = 224
MAX_BATCH_SIZE = 256
MAX_BATCH_PIXELS = 16 * 224 * 224  # bounds memory
SHOWN_IMAGES = 6


@dataclass(frozen=True)
class Subject:
    """The network to explain."""

    name: str
    arguments: dict[str, Any]
    model: nn.Module
    preprocessing: Preprocessing
    class_names: tuple[str, ...] | None
    weights: str  # one sentence naming their origin


def run(command: ExplainCommand) -> int:
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    subject = _load_subject(command)
    images, note = _load_images(command, subject)
    explanation = _analyse(subject, images, note, command, shlex.join(["ghostnets", "explain", *command.arguments]))
    source = command.source
    folder = command.out or (source.parent / "explain" if isinstance(source, Path) else Path(f"explain-{source}"))
    with show_stages() as on_stage:
        on_stage("drawing figures")
        page, numbers = write_explanation(folder, explanation)
    if command.json:
        print_json(numbers)
    else:
        _print(explanation.redundancy)
    message(f"wrote {page}")
    return 0


def _load_subject(command: ExplainCommand) -> Subject:
    name = command.source
    if isinstance(name, str):
        model = create_model(name)
        if command.untrained:
            preprocessing, weights = Preprocessing.standard(UNTRAINED_IMAGE_SIZE, 3), "Random weights (untrained)."
        else:
            published = load_pretrained(model, name)
            preprocessing, weights = published.preprocessing, f"Published weights ({published.tag})."
        model = model.eval().to(memory_format=torch.channels_last)
        return Subject(name, {}, model, preprocessing, None, weights)
    checkpoint = read_checkpoint(name)
    return Subject(
        checkpoint.architecture,
        checkpoint.arguments,
        checkpoint.build().to(memory_format=torch.channels_last),
        checkpoint.preprocessing,
        checkpoint.class_names,
        f"Weights of {name}, {format_count(len(checkpoint.class_names), 'class')}.",
    )


def _load_images(command: ExplainCommand, subject: Subject) -> tuple[ImageDataset, str]:
    """Load the images with labels in output order (-1 without a label); also return a sentence naming them."""
    preprocessing = replace(subject.preprocessing, max_pixels=command.max_pixels)
    names = list(subject.class_names or ())
    if command.images == EMBEDDED:
        test = FashionMnist().load(preprocessing).test
        assert test is not None
        has_labels = tuple(names) == FashionMnist().class_names
        indices = spread(range(len(test)), command.most)
        labels = test.labels[indices] if has_labels else torch.full((len(indices),), -1)
        return ArrayDataset([test[i] for i in indices], labels), "Measured on test images of Fashion-MNIST."
    sample = find_sample(command.images, most=command.most, class_names=names)
    note = "Measured on the images of the folder, which may include training images of the network."
    if sample.split is not None:
        note = f"Measured on images of the {sample.split} split."
    for sentence in sample.notes:
        message(sentence)
    with _progress() as progress:
        task = progress.add_task("reading images", total=len(sample.labels))
        images, problems = sample.load(preprocessing, lambda: progress.advance(task))
    if not len(images):
        raise DataError(f"none of the {len(sample.labels)} images of {command.images} can be read: {problems[0]}")
    if problems:
        message(f"skipped {format_count(len(problems), 'unreadable image')}: {' '.join(problems[:5])}")
    return images, note


def _analyse(
    subject: Subject, images: ImageDataset, note: str, command: ExplainCommand, command_line: str
) -> Explanation:
    device = select_device(command.device)
    if device.type != "cpu":
        message(f"measuring on {describe_device(device)}")
    subject.model.to(device)
    redundancy, ablation, note = _measure(subject, images, note, device)
    subject.model.to("cpu")
    preprocessing, model = subject.preprocessing, subject.model
    plain = None
    if ":" not in subject.name and "ratio" in model_arguments(subject.name):
        plain = create_model(subject.name, **{**subject.arguments, "ratio": 1}).eval()
        plain = plain.to(memory_format=torch.channels_last)
    shape = (preprocessing.channels, preprocessing.image_size, preprocessing.image_size)
    shown = range(0, len(images), -(-len(images) // SHOWN_IMAGES))
    pixels = torch.stack([preprocessing.center(images[i]) for i in shown])
    inputs = preprocessing.normalize(pixels)
    number = format_count(len(images), "image")
    return Explanation(
        title=f"Inside {subject.name}",
        summary=f"{subject.weights} {number} of {command.images}, {' x '.join(map(str, shape))}.",
        redundancy=redundancy,
        model=model,
        pixels=pixels,
        inputs=inputs,
        names=[images.name(i) for i in shown],
        labels=images.labels[list(shown)].tolist(),
        class_names=subject.class_names,
        ablation=ablation,
        ablation_note=note,
        savings=compute_savings(model, plain, shape),
        speed=compare_latency(model, plain, inputs[:1]) if plain is not None else None,
        settings={
            "network": f"{subject.name}({', '.join(f'{k}={v}' for k, v in subject.arguments.items())})",
            "threads": str(torch.get_num_threads()),
            "processor": processor_name(),
            "versions": f"ghostnets {__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        },
        command=command_line,
    )


def _measure(
    subject: Subject, images: ImageDataset, note: str, device: torch.device
) -> tuple[Redundancy, AblationResult | None, str]:
    """Measure redundancy and, with labelled images, the ghost ablation; the note explains a missing ablation."""
    model, preprocessing = subject.model, subject.preprocessing
    size = min(MAX_BATCH_SIZE, max(1, MAX_BATCH_PIXELS // preprocessing.image_size**2))

    def batches(indices: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(indices), size):
            batch = indices[start : start + size]
            pixels = torch.stack([preprocessing.center(images[i]) for i in batch])
            yield preprocessing.normalize(pixels.to(device)), images.labels[batch].to(device)

    def inputs() -> Iterable[Tensor]:
        return (x for x, _ in batches(list(range(len(images)))))

    with _progress() as progress:
        task = progress.add_task("redundancy (two passes)", total=2 * len(images))
        redundancy = measure_redundancy(model, inputs, on_batch=lambda n: progress.advance(task, n))
        labelled = spread((images.labels >= 0).nonzero().flatten().tolist(), ABLATION_IMAGES)
        if not labelled:
            reason = "Not measured: no image has a label of the network; name the subfolders after its classes."
            return redundancy, None, reason
        task = progress.add_task("ghost ablation", total=len(find_ghost_modules(model)))
        ablation = measure_ghost_ablation(model, lambda: batches(labelled), on_layer=lambda: progress.advance(task))
    return redundancy, ablation, note


def _progress() -> Progress:
    return progress_bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())


def _print(redundancy: Redundancy) -> None:
    table = Table("layer", "kind", "maps", "near-duplicates > 0.9", "> 0.95", "error 1 x 1", "3 x 3", "7 x 7")
    for column in table.columns[2:]:
        column.justify = "right"
    for layer in redundancy.layers:
        table.add_row(
            layer.layer,
            layer.kind,
            str(layer.channels),
            f"{layer.duplicates_90:.0%}",
            f"{layer.duplicates_95:.0%}",
            *(f"{layer.errors[d]:.0%}" for d in (1, 3, 7)),
        )
    console = result_console()
    console.print(table)
    console.print(
        f"{format_count(redundancy.images, 'image')}. Near-duplicates: maps whose cosine with another map of the layer"
        " exceeds 0.9 or 0.95 in absolute value. Error: unexplained variance of half of the maps, each predicted from"
        " one map of the other half by the best filter of this size.",
        soft_wrap=True,
    )
