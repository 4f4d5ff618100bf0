"""Estimate of the remaining time of a run, from its first steps."""

from ghostnets.train.recipe import Recipe
from ghostnets.train.state import TrainProgress

__all__ = ["TimeEstimate", "format_duration"]

MIN_STEPS, MIN_SECONDS = 3, 2.0  # measured before the first estimate; the first step, which warms up, is left out
SHORT_SECONDS = 20.0  # seconds left below which nothing is announced
CHANGE = 0.25  # relative change of the estimate that is announced


def format_duration(seconds: float) -> str:
    """
    >>> format_duration(44), format_duration(370), format_duration(9000)
    ('40 seconds', '6 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{10 * max(1, round(seconds / 10))} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"


class TimeEstimate:
    """Time left of a run, announced after its first steps, and again when it has changed.

    Args:
        recipe: The recipe.
        progress: The progress of the run, kept up to date by the caller.
        steps: Steps of an epoch.
    """

    def __init__(self, recipe: Recipe, progress: TrainProgress, steps: int) -> None:
        self.recipe, self.progress, self.steps = recipe, progress, steps
        self.num_steps, self.step_seconds = 0, 0.0
        self.announced: tuple[float, float] | None = None  # elapsed and estimated total time at the last announcement

    def add_step(self, seconds: float) -> str | None:
        """Count a step of this session; return the announcement if it is due."""
        self.num_steps += 1
        if self.num_steps > 1:
            self.step_seconds += seconds
        if self.announced is not None or self.num_steps <= MIN_STEPS or self.step_seconds < MIN_SECONDS:
            return None
        return self._announce("about {time}")

    def add_epoch(self) -> str | None:
        """Count an epoch, with its validation; return an announcement if the last one no longer holds."""
        if self.num_steps < 2:
            return None
        if self.announced is None:
            return self._announce("about {time} left")
        at, expected = self.announced
        left, expected_left = self.seconds_left(), max(0.0, expected - (self.progress.seconds - at))
        if abs(left - expected_left) <= max(CHANGE * left, SHORT_SECONDS):
            return None
        return self._announce("now about {time} left")

    def seconds_left(self) -> float:
        """Time that the remaining steps and validations take, at most up to the time limit."""
        progress, per_step = self.progress, self.step_seconds / max(1, self.num_steps - 1)
        epochs = self.recipe.epochs - progress.epoch
        seconds = (epochs * self.steps - progress.step) * per_step + (epochs + 1) * progress.val_seconds
        limit = self.recipe.time_limit_seconds
        return seconds if limit is None else min(seconds, max(0.0, limit - progress.seconds))

    def _announce(self, sentence: str) -> str | None:
        left = self.seconds_left()
        self.announced = self.progress.seconds, left
        if left < SHORT_SECONDS:
            return None
        per_epoch = self.steps * self.step_seconds / (self.num_steps - 1) + self.progress.val_seconds
        detail = f"{self.recipe.epochs - self.progress.epoch} epochs of {per_epoch:.2g} s with validation"
        limit = "" if self.recipe.time_limit is None else f", at most {self.recipe.time_limit} in all"
        return f"{sentence.format(time=format_duration(left))}: {detail}{limit}"
