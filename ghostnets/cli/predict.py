"""``ghostnets predict ARTEFACT|CHECKPOINT IMAGE|FOLDER|...``: classes with probabilities."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from ghostnets import __version__
from ghostnets.artefacts import Artefact, open_artefact
from ghostnets.cli.output import message, progress_console, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.predict import AnswerFile, Input, Prediction, as_dict, find_inputs, predict_images

__all__ = ["main"]

TABLE_ROWS = 1000  # of one table; more images give more tables
REPORTED = 20  # sentences about unreadable images; all stand in the answers
SECONDS_BEFORE_PROGRESS = 1


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class Predict:
    """Classify images. An image that cannot be read gives a row with the reason; the exit code is then 1.

    Stopped while it writes a file, the same command goes on where it was, with the same file in the end.

    Examples: ghostnets predict net.engine photo.jpg | ghostnets predict net.engine holiday/ --out answers.csv
    """

    network: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ARTEFACT|CHECKPOINT")]
    """What ghostnets export wrote (.engine, .onnx, .xml, ...), or best.safetensors of a run."""
    images: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="IMAGE|FOLDER|GLOB|@FILE|TAR ...")]
    """Image files, folders or globs of them, @FILE with one path a line, WebDataset shards (.tar)."""
    top: int = 3
    """So many most probable classes for each image."""
    out: Path | None = None
    """Write the answers here: .csv, .jsonl or .parquet."""
    features: bool = False
    """Write the embeddings as well, the input of the last layer; with --out .parquet or .jsonl."""
    json: bool = False
    """Print the answers as JSON on stdout."""
    engine: Literal["local", "ray"] = "local"
    """Where it runs: on all cores of this process, or in actors of Ray Data (cluster of RAY_ADDRESS, or here)."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(Predict, prog="ghostnets predict", args=arguments)
    if not command.images:
        raise ConfigurationError("no image is given; name image files or folders after the network.")
    if command.top < 1:
        raise ConfigurationError(f"--top is {command.top}; it must be at least 1.")
    if command.json and command.out is not None:
        raise ConfigurationError("--json prints the answers and --out writes them to a file; give one of the two.")
    if command.features and command.out is None:
        raise ConfigurationError("--features are written to a file alone; add --out ANSWERS.parquet or .jsonl.")
    artefact = open_artefact(command.network, threads=1)
    if command.features and not artefact.description.has_features:
        raise ConfigurationError(
            f"{command.network} gives no features; export it with --features, or use the checkpoint itself."
        )
    top = min(command.top, len(artefact.description.class_names))
    inputs = find_inputs(command.images)

    def answers(wanted: Iterable[Input]) -> Iterator[list[Prediction]]:
        if command.engine == "ray":
            from ghostnets.predict import predict_on_ray

            return predict_on_ray(command.network, wanted, top=top, features=command.features)
        return predict_images(artefact, wanted, top=top, features=command.features)

    progress = Progress()
    with progress:
        if command.out is not None:
            settings = _settings(command.network, artefact, top, command.features)
            with AnswerFile(command.out, settings=settings, top=top, features=command.features) as file:
                progress.begin(file.rows, file.errors)
                for batch in progress.follow(answers(file.remaining(inputs))):
                    file.write(batch)
        elif command.json:
            _print_json(progress.follow(answers(inputs)))
        else:
            _print_tables(progress.follow(answers(inputs)))
    progress.report()
    return 1 if progress.errors else 0


class Progress:
    """Counts the answers that pass through it; on a terminal it shows how many, once they take more than a moment."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.earlier = self.images = self.errors = 0
        self.bar: Any = None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin(self, images: int, errors: int) -> None:
        """So many are answered already, by a run that was stopped."""
        self.earlier = self.images = images
        self.errors = errors
        if images:
            message(f"going on after {images} images.")

    def follow(self, answers: Iterable[list[Prediction]]) -> Iterator[list[Prediction]]:
        for batch in answers:
            for answer in batch:
                if answer.error is not None:
                    self.errors += 1
                    if self.errors <= REPORTED:
                        message(answer.error, kind="error")
            self.images += len(batch)
            yield batch
            if time.monotonic() - self.start > SECONDS_BEFORE_PROGRESS and sys.stderr.isatty():
                self._show()

    def report(self) -> None:
        """What was done, on stderr."""
        seconds, here = time.monotonic() - self.start, self.images - self.earlier
        if seconds > SECONDS_BEFORE_PROGRESS:
            message(f"{here} images in {seconds:.1f} s, {here / seconds:.0f} images/s.")
        if self.errors:
            message(f"{self.errors} of {self.images} images have no answer.", kind="error")

    def _show(self) -> None:
        if self.bar is None:
            from rich import progress

            columns = (
                progress.SpinnerColumn(),
                progress.TextColumn("{task.description}"),
                progress.TimeElapsedColumn(),
            )
            self.bar = progress.Progress(*columns, console=progress_console(), transient=True)
            self.bar.start()
            self.bar.add_task("")
        rate = (self.images - self.earlier) / (time.monotonic() - self.start)
        self.bar.update(0, description=f"{self.images} images, {rate:.0f} images/s, {self.errors} without answer")


def _settings(network: Path, artefact: Artefact, top: int, features: bool) -> dict[str, Any]:
    """What answers depend on beside the images."""
    digest = hashlib.sha256(network.read_bytes())
    weights = network.with_suffix(".bin")  # of OpenVINO
    if network.suffix == ".xml" and weights.exists():
        digest.update(weights.read_bytes())
    return {
        "ghostnets": __version__,
        "network": digest.hexdigest(),
        "runtime": artefact.runtime,
        "top": top,
        "features": features,
    }


def _print_json(answers: Iterable[list[Prediction]]) -> None:
    """A list, an element a line, as they come."""
    separator = "["
    for batch in answers:
        for answer in batch:
            print(separator, json.dumps(as_dict(answer)), sep="\n", end="")
            separator = ","
    print("\n]")


def _print_tables(answers: Iterable[list[Prediction]]) -> None:
    rows: list[Prediction] = []
    for batch in answers:
        rows += batch
        if len(rows) >= TABLE_ROWS:
            _print_table(rows)
            rows.clear()
    if rows:
        _print_table(rows)


def _print_table(rows: list[Prediction]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("image", "answer", "probability", "next")
    table.columns[2].justify = "right"
    for prediction in rows:
        if prediction.error:
            table.add_row(escape(prediction.path), "[red]cannot be read[/red]", "", "")
            continue
        first, *others = zip(prediction.classes, prediction.probabilities, strict=True)
        following = "  ".join(f"{name} {value:.1%}" for name, value in others)
        table.add_row(escape(prediction.path), escape(first[0]), f"{first[1]:.1%}", escape(following))
    result_console().print(table)
