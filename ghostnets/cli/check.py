"""``ghostnets check DATA``: examine a data set before training."""

import io
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghostnets.cli.options.check import CheckCommand
from ghostnets.cli.output import (
    download_progress,
    message,
    print_json,
    progress_bars,
    result_console,
)
from ghostnets.data import DataSpec
from ghostnets.data.check import DataCheck, ImageGroup, check_images
from ghostnets.data.labels import indices_of
from ghostnets.data.stored_images import decode_image
from ghostnets.errors import ImageError
from ghostnets.terminal import escape_control, format_count

if TYPE_CHECKING:
    from ghostnets.explain.data_page import PictureView

__all__ = ["run"]

SHOWN_LINES = 10  # findings per kind in the terminal
SHOWN_CLASSES = 40
PAGE_GROUPS = 40  # findings per kind on the page
PAGE_IMAGES = 6  # images shown per finding or class
PAGE_CLASSES = 60
SIDE = 120  # pixels of a picture
KINDS = (  # exact, crosses splits, crosses classes; name; what it means
    (True, True, False, "leaks", "The same file is in two splits: validation and test results are too optimistic."),
    (True, False, True, "conflicts", "The same file has two labels: one of them is wrong."),
    (True, False, False, "copies", "The same file twice in a class and split counts twice in training."),
    (False, True, False, "near leaks", "Similar images are in two splits; look whether they show the same scene."),
    (False, False, True, "near conflicts", "Similar images have two labels; look whether one of them is wrong."),
    (False, False, False, "near copies", "Similar images of a class and split, as of a burst, count twice."),
)


def run(command: CheckCommand) -> int:
    spec = DataSpec(command.data, progress=download_progress(), max_pixels=command.max_pixels, task=command.task)
    folder = spec.find()
    total = sum(len(files.paths) for files in folder.splits.values())
    with progress_bars() as bars:
        task = bars.add_task("reading images", total=total)
        result = check_images(
            folder,
            threshold=command.threshold,
            max_pixels=command.max_pixels,
            on_image=lambda: bars.advance(task),
        )
    if command.out is not None:
        _write_page(command, result)
    if command.json:
        print_json(result.to_dict())
    else:
        for sentence in result.data.notes:
            message(sentence)
        _print_result(result)
        if command.out is not None:
            result_console().print(f"page           {command.out}", soft_wrap=True, markup=False)
        if not result.has_findings:
            chosen = f" --task {command.task}" if command.task else ""
            message(f"nothing found; train with: ghostnets train {shlex.quote(command.data)}{chosen}")
    return int(command.strict and result.has_findings)


def _print_result(result: DataCheck) -> None:
    from rich.table import Table

    console = result_console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class")
    for split in result.splits:
        table.add_column(split, justify="right")
    counts = list(_format_counts(result).items())
    for class_name, by_split in counts[:SHOWN_CLASSES]:
        table.add_row(escape_control(class_name), *by_split.values())
    if len(counts) > SHOWN_CLASSES:
        table.add_row(f"... ({len(counts)} classes)", *("" for _ in result.splits))
    table.add_row("images", *(f"{count:,}" for count in result.num_images.values()))
    console.print(table, markup=False)
    if sizes := result.describe_sizes():
        small = f", {sizes['below_64']:,} below 64" if sizes["below_64"] else ""
        span = f"{_span(sizes)} pixels"
        console.print(f"sides          {span}, median {sizes['median']}{small} (the shorter side)")
    console.print(f"kinds          {', '.join(f'{kind} {count:,}' for kind, count in result.kinds.items())}")
    if result.rare_classes:
        names = ", ".join(map(escape_control, result.rare_classes[:SHOWN_LINES]))
        console.print(
            f"rare           {format_count(len(result.rare_classes), 'class')} with fewer than 2 images: {names}",
            markup=False,
        )
    if result.data.broken is not None:
        _print_sentences("broken labels", result.data.broken)
    _print_sentences("unreadable", [reason for _, reason in result.unreadable])
    for exact, splits, classes, label, meaning in KINDS:
        groups = _select(result, exact, splits, classes)
        console.print(f"{label:<15}{len(groups):,}")
        if groups:
            console.print(f"               {meaning}", soft_wrap=True)
        for group in groups[:SHOWN_LINES]:
            console.print(f"               {_describe(result, group)}", soft_wrap=True, markup=False)
    console.print(
        f"near: at most {result.threshold} of 128 bits of the difference hash differ, also flipped (--threshold);"
        f" {format_count(result.num_plain, 'image')} without structure not compared",
        soft_wrap=True,
    )


def _format_counts(result: DataCheck) -> dict[str, dict[str, str]]:
    """Number of images by class and split; of boxes "3 in 2", their number and that of the images that have them."""
    images, boxes = result.counts, result.boxes
    return {
        name: {
            split: f"{count:,}" if boxes is None else f"{boxes[name][split]:,} in {count:,}"
            for split, count in by_split.items()
        }
        for name, by_split in images.items()
    }


def _print_sentences(label: str, sentences: Sequence[str]) -> None:
    console = result_console()
    console.print(f"{label:<15}{len(sentences):,}")
    for sentence in sentences[:SHOWN_LINES]:
        console.print(f"               {escape_control(sentence)}", soft_wrap=True, markup=False)
    if (hidden := len(sentences) - SHOWN_LINES) > 0:
        console.print(f"               and {hidden:,} more (--json)")


def _span(sizes: dict[str, Any]) -> str:
    smallest, largest = sizes["smallest"], sizes["largest"]
    return f"{smallest}" if smallest == largest else f"{smallest} to {largest}"


def _select(result: DataCheck, exact: bool, splits: bool, classes: bool) -> list[ImageGroup]:
    """Groups of a kind; those that cross both splits and classes are among either."""
    groups = result.select(exact=exact, splits=splits, classes=classes)
    return groups if splits or classes else [g for g in groups if not g.crosses_splits and not g.crosses_classes]


def _describe(result: DataCheck, group: ImageGroup) -> str:
    names = [_label(result, index) for index in group.images[:PAGE_IMAGES]]
    more = f" and {len(group.images) - PAGE_IMAGES} more" if len(group.images) > PAGE_IMAGES else ""
    return escape_control(" = ".join(names) + more)


def _label(result: DataCheck, index: int) -> str:
    split = result.splits[result.split_indices[index]]
    return f"{result.paths[index]} ({split}, {result.describe_label(index)})"


def _write_page(command: CheckCommand, result: DataCheck) -> None:
    from ghostnets.explain.data_page import DataPage, PictureGroup, PictureSection, write_data_page
    from ghostnets.explain.page import sample_evenly

    assert command.out is not None
    pictures = partial(_pictures, result, folder=command.out.parent, max_pixels=command.max_pixels)
    sections = []
    figures = {"images": f"{len(result.paths):,}", "classes": f"{len(result.data.class_names):,}"}
    if sizes := result.describe_sizes():
        figures["shorter side"] = _span(sizes)
    if result.data.broken is not None:
        figures["broken labels"] = f"{len(result.data.broken):,}"
    figures["unreadable"] = f"{len(result.unreadable):,}"
    for exact, splits, classes, label, explanation in KINDS:
        groups = _select(result, exact, splits, classes)
        figures[label] = f"{len(groups):,}"
        if groups:
            shown = [
                PictureGroup(format_count(len(g.images), "image"), pictures(g.images)) for g in groups[:PAGE_GROUPS]
            ]
            first = f", the first {PAGE_GROUPS} shown" if len(groups) > PAGE_GROUPS else ""
            sections.append(PictureSection(f"{label.capitalize()} ({len(groups):,}{first})", explanation, shown))
    unreadable = {index for index, _ in result.unreadable}
    examples = []
    for number in sample_evenly(range(len(result.data.class_names)), PAGE_CLASSES):
        of_class = (index for index, label in enumerate(result.labels) if number in indices_of(label))
        members = [index for index in of_class if index not in unreadable]
        examples.append(PictureGroup(result.data.class_names[number], pictures(sample_evenly(members, PAGE_IMAGES))))
    page = DataPage(
        f"Examination of {Path(command.data).name or command.data}",
        figures,
        result.data.notes,
        [*(result.data.broken or ())[:PAGE_GROUPS], *(reason for _, reason in result.unreadable[:PAGE_GROUPS])],
        result.splits,
        "Images by class and split" if result.boxes is None else "Boxes, and images that have them, by class and split",
        _format_counts(result),
        sections,
        PictureSection("Examples", f"Up to {PAGE_IMAGES} images of up to {PAGE_CLASSES} classes.", examples),
    )
    write_data_page(command.out, page)


def _pictures(result: DataCheck, indices: Sequence[int], *, folder: Path, max_pixels: int) -> "list[PictureView]":
    from ghostnets.explain.data_page import PictureView
    from ghostnets.explain.page import link_to_file

    pictures = []
    for index in indices[:PAGE_IMAGES]:
        try:
            image = decode_image(result.paths[index], max_pixels=max_pixels).convert("RGB")
        except (ImageError, OSError) as error:
            message(f"{result.paths[index]} changed during the check and is not shown on the page: {error}")
            continue
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        split, class_name = result.splits[result.split_indices[index]], result.describe_label(index)
        width, height = result.sizes[index]
        name, link = escape_control(str(result.paths[index])), link_to_file(str(result.paths[index]), folder)
        pictures.append(PictureView(buffer.getvalue(), name, link, (split, class_name, f"{width} x {height}")))
    return pictures
