"""Output of the commands: results on stdout, messages and progress on stderr."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ghostnets.terminal import create_console, escape_control

if TYPE_CHECKING:
    from rich.console import Console  # imported by the functions that need it: it is slow to import
    from rich.progress import Progress, ProgressColumn

__all__ = [
    "LINE_SECONDS",
    "download_progress",
    "message",
    "print_json",
    "progress_bars",
    "progress_console",
    "result_console",
    "show_stages",
]

LINE_SECONDS = 30  # between two lines on the progress of something, where it is not shown in a terminal


def result_console() -> "Console":
    """Console for results on stdout; 160 columns wide if stdout is not a terminal."""
    return create_console(width=None if sys.stdout.isatty() else 160)


def progress_console() -> "Console":
    """Console for progress and messages on stderr."""
    return create_console(stderr=True)


def message(sentence: str, *, kind: str = "note") -> None:
    """Print one sentence on stderr, unwrapped, with the rank of the process if that is not 0.

    Args:
        sentence: The sentence.
        kind: ``"note"`` or ``"error"``.
    """
    from rich.text import Text

    style = "bold red" if kind == "error" else "bold"
    rank = os.environ.get("RANK", "0")
    sentence = escape_control(sentence)
    text = Text.assemble((f"{kind}: ", style), sentence if rank == "0" else f"(process {rank}) {sentence}")
    progress_console().print(text, soft_wrap=True)


@contextmanager
def show_stages() -> "Iterator[Callable[[str], None]]":
    """Function that shows what is being done: in a terminal until the next call or the end, else as a line each."""
    console = progress_console()
    if not console.is_terminal:
        yield message
        return
    with console.status("") as status:
        yield status.update


def progress_bars(*columns: "str | ProgressColumn") -> "Progress":
    """Context manager for progress: bars in a terminal, else a line when a task begins and now and then.

    Args:
        columns: Columns of the bars; those of ``rich.progress.Progress`` by default.
    """
    from rich.progress import Progress, TaskID

    console = progress_console()
    if console.is_terminal:
        return Progress(*columns, console=console, transient=True)

    class ProgressLines(Progress):
        shown, next_line = "", 0.0

        def add_task(self, *arguments: Any, **options: Any) -> TaskID:
            task = super().add_task(*arguments, **options)
            self._show(task)
            return task

        def advance(self, task_id: TaskID, advance: float = 1) -> None:
            super().advance(task_id, advance)
            self._show(task_id)

        def update(self, task_id: TaskID, **changes: Any) -> None:
            super().update(task_id, **changes)
            self._show(task_id)

        def _show(self, task_id: TaskID) -> None:
            task, now = self._tasks[task_id], time.monotonic()
            if task.description == self.shown and now < self.next_line:
                return
            count = "" if task.total is None else f": {task.completed:,.0f} of {task.total:,.0f}"
            message(f"{task.description}{count}")
            self.shown, self.next_line = task.description, now + LINE_SECONDS

    return ProgressLines(console=console, disable=True)


def print_json(value: Any) -> None:
    """Print a result as JSON on stdout."""
    print(json.dumps(value, indent=2))


def download_progress() -> Callable[[int, int], None]:
    """Callback for a download: a line on stderr, which counts in a terminal."""
    shown = -1

    def show(done: int, total: int) -> None:
        nonlocal shown
        percent = 100 * done // max(1, total)
        if shown < 0 or (percent > shown and sys.stderr.isatty()):
            end = "\n" if done >= total or not sys.stderr.isatty() else ""
            print(f"\rdownloading {total / 1e6:,.1f} MB: {percent} %", end=end, file=sys.stderr, flush=True)
            shown = percent

    return show
