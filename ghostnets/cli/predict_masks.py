"""``ghostnets predict SEGMENTER IMAGE|FOLDER|...``: a class for each pixel of images."""

from typing import Any, NamedTuple

from ghostnets.artefacts import Model, SegmentedImage, Segmenter
from ghostnets.cli.options.predict import PredictCommand
from ghostnets.cli.output import message, result_console
from ghostnets.cli.predict_output import PredictionProgress, print_json_list, print_tables
from ghostnets.data.finder import LeftOut
from ghostnets.errors import ConfigurationError
from ghostnets.predict import Input, MaskFiles, MaskPictures, find_inputs, segment_images
from ghostnets.preprocessing import class_color
from ghostnets.terminal import format_count

__all__ = ["run_segmenter"]


class SegmentedRow(NamedTuple):
    """What is printed of one image: its size, and the share of the pixels of each class that occurs."""

    path: str
    size: tuple[int, int]
    shares: dict[str, float]
    error: str | None


def run_segmenter(command: PredictCommand, model: Model) -> int:
    """Segment the images of a command with an opened network; return the exit code."""
    _check_options(command)
    segmenter = Segmenter(model, flip=command.tta == "flip", max_pixels=command.max_pixels)
    left_out = LeftOut()
    inputs = find_inputs(command.images, left_out=left_out)
    writers: list[MaskFiles | MaskPictures] = []
    if command.masks is not None:
        writers.append(MaskFiles(command.masks, segmenter.class_names))
    if command.draw is not None:
        writers.append(MaskPictures(command.draw, segmenter.class_names, max_pixels=command.max_pixels))

    def use(source: Input, segmented: SegmentedImage) -> SegmentedRow:
        if segmented.error is not None:
            return SegmentedRow(segmented.path, (0, 0), {}, segmented.error)
        for writer in writers:
            writer.write(source, segmented)
        return SegmentedRow(segmented.path, segmented.size, segmented.shares, None)

    progress = PredictionProgress()
    with progress:
        rows = progress.count(segment_images(segmenter, inputs, use, workers=command.threads))
        if command.json:
            print_json_list(rows, _as_dict)
        else:
            print_tables(rows, _print_table)
    progress.report()
    written = progress.images - progress.errors
    for sentence in left_out.sentences():
        message(sentence)
    if command.masks is not None:
        legend = ", ".join(f"{index} {name}" for index, name in enumerate(segmenter.class_names))
        message(f"wrote {format_count(written, 'mask')} into {command.masks}; values of their pixels: {legend}.")
    if command.draw is not None:
        colors = ", ".join(
            "{} #{:02x}{:02x}{:02x}".format(name, *class_color(label))
            for label, name in enumerate(segmenter.class_names)
        )
        message(f"drew {format_count(written, 'picture')} into {command.draw}; colors: {colors}.")
    return 1 if progress.errors else 0


def _as_dict(row: SegmentedRow) -> dict[str, Any]:
    """Return a row as JSON values."""
    return {
        "path": row.path,
        "width": row.size[0],
        "height": row.size[1],
        "shares": row.shares,
        "error": row.error,
    }


def _check_options(command: PredictCommand) -> None:
    """Raise ConfigurationError for options that apply to other networks only."""
    given = {
        "--top": command.top is not None,
        "--features": command.features,
        "--sort-into": command.sort_into is not None,
        "--engine ray": command.engine == "ray",
        "--threshold": command.threshold is not None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise ConfigurationError(
            f"{command.network} is a segmentation network, and {wrong[0]} is for other networks; omit it."
        )
    if command.out is not None:
        raise ConfigurationError(
            f"{command.network} is a segmentation network, whose masks are not written to {command.out.suffix}; use"
            " --masks FOLDER instead of --out, or --json for the shares of the classes."
        )


def _print_table(rows: list[SegmentedRow]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table("image", "size", "classes of the pixels")
    for row in rows:
        if row.error is not None:
            table.add_row(row.path, "", Text("cannot be read", style="red"))
            continue
        shares = ", ".join(f"{name} {share:.1%}" for name, share in row.shares.items())
        table.add_row(row.path, "{} x {}".format(*row.size), Text(shares))
    result_console().print(table)
