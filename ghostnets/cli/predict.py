"""``ghostnets predict ARTEFACT|CHECKPOINT IMAGE|FOLDER|...``: classify images."""

import hashlib
import json
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ghostnets import __version__
from ghostnets.artefacts import Classifier, Model, Prediction, load_classifier
from ghostnets.cli.options.predict import PredictCommand
from ghostnets.cli.output import LINE_SECONDS, message, progress_console, result_console
from ghostnets.data.finder import LeftOut
from ghostnets.errors import ConfigurationError
from ghostnets.native import ENGINE, missing_native
from ghostnets.predict import Input, PredictionFile, as_dict, find_inputs, predict_images
from ghostnets.terminal import format_count

if TYPE_CHECKING:
    from ghostnets.predict.sorting import ImageSorter

__all__ = ["run"]

TABLE_ROWS = 1000  # rows per table; more images give more tables
MAX_REPORTED = 20  # unreadable images named on stderr; the predictions name all of them
SECONDS_BEFORE_PROGRESS = 1


def run(command: PredictCommand) -> int:
    options: dict[str, Any] = {
        "flip": command.tta == "flip",
        "threshold": command.threshold,
        "max_pixels": command.max_pixels,
    }
    classifier = load_classifier(command.network, threads=1, device=command.device, **options)
    missing = missing_native(ENGINE)
    if missing and classifier.model.runtime.startswith("torch ") and " on " not in classifier.model.runtime:
        message(missing)
    if " on " in classifier.model.runtime:
        message(f"predicting with {classifier.model.runtime}")
    if command.features:
        classifier.model.require_features()
    top = min(command.top, len(classifier.class_names))
    left_out = LeftOut()
    inputs = find_inputs(command.images, left_out=left_out)
    sorter = _open_sorter(command, classifier)

    def predict(images: Iterable[Input]) -> Iterator[list[Prediction]]:
        if command.engine == "ray":
            from ghostnets.predict import predict_on_ray

            return predict_on_ray(command.network, images, top=top, features=command.features, **options)
        if sorter is not None:
            return sorter.sort(images, run_locally)
        return run_locally(images)

    def run_locally(images: Iterable[Input]) -> Iterator[list[Prediction]]:
        return predict_images(classifier, images, top=top, features=command.features, workers=command.threads)

    progress = PredictionProgress()
    with progress:
        if command.out is not None:
            settings = _settings(command, classifier.model, top)
            columns: dict[str, Any] = {"top": top, "features": command.features}
            columns |= {"answer": classifier.threshold is not None, "bom": command.bom}
            with PredictionFile(command.out, settings=settings, **columns) as file:
                progress.resume(file.rows, file.errors)
                for batch in progress.count(predict(file.remaining(inputs))):
                    file.write(batch)
        elif command.json:
            _print_json(progress.count(predict(inputs)))
        else:
            _print_tables(progress.count(predict(inputs)))
    progress.report()
    for sentence in left_out.sentences():
        message(sentence)
    if command.out is not None:
        message(f"wrote {command.out}, {format_count(progress.images, 'row')}.")
    if sorter is not None:
        _report_sorting(sorter)
    return 1 if progress.errors or (sorter is not None and sorter.problems) else 0


def _open_sorter(command: PredictCommand, classifier: Classifier) -> "ImageSorter | None":
    if command.sort_into is None:
        return None
    if classifier.model.description.multi_label:
        raise ConfigurationError(
            f"{command.network} gives several labels per image, and --sort-into has one folder for each image; write"
            " --out PREDICTIONS.csv instead."
        )
    from ghostnets.predict.sorting import ImageSorter

    return ImageSorter(command.sort_into, classifier.class_names, link=command.link)


def _report_sorting(sorter: "ImageSorter") -> None:
    for sentence in sorter.problems[:MAX_REPORTED]:
        message(sentence, kind="error")
    if len(sorter.problems) > MAX_REPORTED:
        message(
            f"{format_count(len(sorter.problems), 'image')} not sorted, of which {MAX_REPORTED} are named.",
            kind="error",
        )
    message(f"sorted {format_count(sorter.images, 'image')} into {sorter.folder}.")


class PredictionProgress:
    """Counts predictions and shows their number, if they take more than a moment; outside a terminal now and then."""

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.earlier = self.images = self.errors = 0
        self.bar: Any = None
        self.next_line = self.start + LINE_SECONDS

    def __enter__(self) -> "PredictionProgress":
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar is not None:
            self.bar.stop()

    def resume(self, images: int, errors: int) -> None:
        """Start from the counts of the interrupted run."""
        self.earlier = self.images = images
        self.errors = errors
        if images:
            message(f"resuming after {format_count(images, 'image')}.")

    def count(self, predictions: Iterable[list[Prediction]]) -> Iterator[list[Prediction]]:
        for batch in predictions:
            for prediction in batch:
                if prediction.error is not None:
                    self.errors += 1
                    if self.errors <= MAX_REPORTED:
                        message(prediction.error, kind="error")
            self.images += len(batch)
            yield batch
            if time.monotonic() - self.start > SECONDS_BEFORE_PROGRESS:
                self._show()

    def report(self) -> None:
        """Print the rate and the number of errors on stderr."""
        seconds, here = time.monotonic() - self.start, self.images - self.earlier
        if seconds > SECONDS_BEFORE_PROGRESS:
            message(f"{format_count(here, 'image')} in {seconds:.1f} s, {here / seconds:.0f} images/s.")
        if self.errors:
            message(f"{self.errors:,} of {format_count(self.images, 'image')} without a prediction.", kind="error")

    def _show(self) -> None:
        rate = (self.images - self.earlier) / (time.monotonic() - self.start)
        counts = f"{format_count(self.images, 'image')}, {rate:.0f} images/s, {self.errors} without prediction"
        if not sys.stderr.isatty():
            if time.monotonic() >= self.next_line:
                message(counts)
                self.next_line = time.monotonic() + LINE_SECONDS
            return
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
        self.bar.update(0, description=counts)


def _settings(command: PredictCommand, model: Model, top: int) -> dict[str, Any]:
    """Everything that the predictions depend on, except the images."""
    network = command.network
    digest = hashlib.sha256(network.read_bytes())
    weights = network.with_suffix(".bin")  # OpenVINO
    if network.suffix == ".xml" and weights.exists():
        digest.update(weights.read_bytes())
    return {
        "ghostnets": __version__,
        "network": digest.hexdigest(),
        "runtime": model.runtime,
        "top": top,
        "features": command.features,
        **({} if command.threshold is None else {"threshold": command.threshold}),
        **({} if command.tta == "none" else {"tta": command.tta}),
    }


def _print_json(predictions: Iterable[list[Prediction]]) -> None:
    """Print a list, one element per line, as the predictions arrive."""
    separator = "["
    for batch in predictions:
        for prediction in batch:
            print(separator, json.dumps(as_dict(prediction)), sep="\n", end="")
            separator = ","
    print("\n]")


def _print_tables(predictions: Iterable[list[Prediction]]) -> None:
    rows: list[Prediction] = []
    for batch in predictions:
        rows += batch
        if len(rows) >= TABLE_ROWS:
            _print_table(rows)
            rows.clear()
    if rows:
        _print_table(rows)


def _print_table(rows: list[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    has_answer = any(prediction.answer is not None for prediction in rows)
    table = Table("image", *(["answer"] if has_answer else []), "class", "probability", "next")
    table.columns[-2].justify = "right"
    for prediction in rows:
        if prediction.error:
            table.add_row(prediction.path, Text("cannot be read", style="red"))
            continue
        first, *others = zip(prediction.classes, prediction.probabilities, strict=True)
        following = "  ".join(f"{name} {value:.1%}" for name, value in others)
        table.add_row(
            prediction.path,
            *([prediction.answer or ""] if has_answer else []),
            first[0],
            f"{first[1]:.1%}",
            following,
        )
    result_console().print(table)
