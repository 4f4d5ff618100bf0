"""``ghostnets predict CHECKPOINT IMAGE|FOLDER ...``: classes with probabilities."""

import csv
import io
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.table import Table

from ghostnets.cli.output import message, print_json, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.files import write_text
from ghostnets.predict import Prediction, find_files, load_predictor

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Predict:
    """Classify images. An image that cannot be read gives a row with the reason; the exit code is then 1.

    Example: ghostnets predict runs/photos-ghostnet_100/best.safetensors holiday/ --csv answers.csv
    """

    checkpoint: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CHECKPOINT")]
    """best.safetensors of a run."""
    images: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="IMAGE|FOLDER ...")]
    """Image files, or folders of them."""
    top: int = 3
    """So many most probable classes for each image."""
    csv: Path | None = None
    """Write a CSV file here; - for stdout."""
    json: bool = False
    """Print the answers as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(Predict, prog="ghostnets predict", args=arguments)
    if not command.images:
        raise ConfigurationError("no image is given; name image files or folders after the checkpoint.")
    if command.json and command.csv == Path("-"):
        raise ConfigurationError("--json and --csv - would both write to stdout; give --csv a file.")
    predictor = load_predictor(command.checkpoint)
    predictions = list(predictor.predict_files(find_files(command.images), top=command.top))
    if command.csv is not None:
        text = _as_csv(predictions, min(command.top, len(predictor.class_names)))
        if command.csv == Path("-"):
            sys.stdout.write(text)
        else:
            write_text(command.csv, text)
    if command.json:
        print_json([_as_dict(prediction) for prediction in predictions])
    elif command.csv is None:
        _print(predictions)
    unreadable = [prediction for prediction in predictions if prediction.error]
    for prediction in unreadable:
        message(str(prediction.error), kind="error")
    if unreadable:
        message(f"{len(unreadable)} of {len(predictions)} images have no answer.", kind="error")
    return 1 if unreadable else 0


def _as_dict(prediction: Prediction) -> dict[str, object]:
    answers = [
        {"class": name, "probability": probability}
        for name, probability in zip(prediction.classes, prediction.probabilities, strict=True)
    ]
    return {"path": prediction.path, "answers": answers, "error": prediction.error}


def _as_csv(predictions: Iterable[Prediction], top: int) -> str:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    numbered = [f"{name}_{rank}" for rank in range(1, top + 1) for name in ("class", "probability")]
    writer.writerow(["path", *numbered, "error"])
    for prediction in predictions:
        cells: list[str] = []
        for name, probability in zip(prediction.classes, prediction.probabilities, strict=True):
            cells += [name, f"{probability:.6f}"]
        cells += [""] * (2 * top - len(cells))
        writer.writerow([prediction.path, *cells, prediction.error or ""])
    return buffer.getvalue()


def _print(predictions: Iterable[Prediction]) -> None:
    table = Table("image", "answer", "probability", "next")
    table.columns[2].justify = "right"
    for prediction in predictions:
        if prediction.error:
            table.add_row(prediction.path, "[red]cannot be read[/red]", "", "")
            continue
        first, *others = zip(prediction.classes, prediction.probabilities, strict=True)
        following = "  ".join(f"{name} {value:.1%}" for name, value in others)
        table.add_row(prediction.path, first[0], f"{first[1]:.1%}", following)
    result_console().print(table)
