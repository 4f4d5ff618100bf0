"""Output of ``ghostnets predict`` for classifiers and detectors: progress, JSON, tables; digest of the network."""

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ghostnets.cli.output import LINE_SECONDS, message, progress_console
from ghostnets.terminal import format_count

__all__ = ["MAX_REPORTED", "PredictionProgress", "hash_network", "print_json_list", "print_tables"]

TABLE_ROWS = 1000  # results from which a table is printed and the next one begins
MAX_REPORTED = 20  # unreadable images named on stderr; the predictions include all of them
SECONDS_BEFORE_PROGRESS = 1


class HasError(Protocol):
    """A result on one image."""

    @property
    def error(self) -> str | None: ...


Result = TypeVar("Result", bound=HasError)


class PredictionProgress:
    """Counts predictions, and shows progress after ``SECONDS_BEFORE_PROGRESS``.

    In a terminal this is one line that is updated, elsewhere a new line every ``LINE_SECONDS``.
    """

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
        """Start from the counts of an interrupted run."""
        self.earlier = self.images = images
        self.errors = errors
        if images:
            message(f"resuming after {format_count(images, 'image')}.")

    def count(self, predictions: Iterable[list[Result]], *, name_errors: bool = True) -> Iterator[list[Result]]:
        """Yield the batches; count their images and errors, and print the first errors on stderr if ``name_errors``."""
        for batch in predictions:
            for prediction in batch:
                if prediction.error is not None:
                    self.errors += 1
                    if name_errors and self.errors <= MAX_REPORTED:
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


def print_json_list(batches: Iterable[list[Result]], as_dict: Callable[[Result], dict[str, Any]]) -> None:
    """Print the results as a JSON list with one element per line, each as it arrives."""
    separator = "["
    for batch in batches:
        for result in batch:
            print(separator, json.dumps(as_dict(result)), sep="\n", end="")
            separator = ","
    print("\n]")


def print_tables(batches: Iterable[list[Result]], print_table: Callable[[list[Result]], None]) -> None:
    """Print the results in tables of at least ``TABLE_ROWS``; the last one has the remaining results."""
    rows: list[Result] = []
    for batch in batches:
        rows += batch
        if len(rows) >= TABLE_ROWS:
            print_table(rows)
            rows.clear()
    if rows:
        print_table(rows)


def hash_network(network: Path) -> str:
    """Return the SHA-256 of a network's file, and for OpenVINO also of the second file, which holds the weights."""
    digest = hashlib.sha256(network.read_bytes())
    weights = network.with_suffix(".bin")
    if network.suffix == ".xml" and weights.exists():
        digest.update(weights.read_bytes())
    return digest.hexdigest()
