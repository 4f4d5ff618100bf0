"""The end of a run: by epochs, by a time limit, or after epochs without improvement."""

from ghostnets.errors import RunError
from ghostnets.terminal import format_count
from ghostnets.train.recipe import Recipe
from ghostnets.train.run_config import RunConfig
from ghostnets.train.schedule import learning_rate
from ghostnets.train.state import TrainProgress

__all__ = ["check_epochs", "describe_changed_epochs", "describe_end", "is_finished", "schedule_position"]


def check_epochs(recipe: Recipe, progress: TrainProgress) -> None:
    """Raise RunError if a run of the recipe would have ended before this progress."""
    least = progress.epoch + (progress.step > 0)
    if recipe.epochs < least:
        raise RunError(
            f"the run is in epoch {least}, so it cannot end after {recipe.epochs}; pass at least --epochs {least}, or"
            " start a new run."
        )


def describe_changed_epochs(config: RunConfig, epoch: float) -> str | None:
    """Describe a change of the number of epochs on resuming after ``epoch`` epochs; None if there was none."""
    if not config.earlier_epochs:
        return None
    earlier = " and ".join(map(str, config.earlier_epochs))
    lr = learning_rate(config.recipe, epoch)
    return f"{config.recipe.epochs} epochs instead of {earlier}: the schedule follows, with a learning rate of {lr:.3g}"


def schedule_position(recipe: Recipe, progress: TrainProgress, epoch: float) -> float:
    """Return the position in the schedule, in epochs: by training progress or by elapsed time, whichever is further.

    A time limit keeps twice the time of a validation in reserve, for the last one and that of the best epoch.

    Args:
        recipe: The recipe.
        progress: The progress of the run, whose time counts.
        epoch: Finished epochs, which may be fractional.

    Returns:
        A number up to ``recipe.epochs``, where the run ends. Without a time limit, ``epoch``.
    """
    limit = recipe.time_limit_seconds
    if limit is None:
        return epoch
    available = limit - 2 * progress.val_seconds
    share = progress.seconds / available if available > 0 else 1.0
    return min(recipe.epochs, max(epoch, share * recipe.epochs))


def is_finished(recipe: Recipe, progress: TrainProgress) -> bool:
    """Return whether a run ends with the epochs that it has finished."""
    return describe_end(recipe, progress) is not None


def describe_end(recipe: Recipe, progress: TrainProgress) -> str | None:
    """Return why a run ends with the epochs that it has finished; None if it continues."""
    if progress.step or not progress.epoch:
        return None
    if progress.epoch >= recipe.epochs:
        return f"after {format_count(progress.epoch, 'epoch')}"
    if schedule_position(recipe, progress, progress.epoch) >= recipe.epochs:
        return f"after epoch {progress.epoch}, at the time limit"
    without_gain = progress.epoch - 1 - progress.best_epoch
    if recipe.patience is not None and without_gain >= recipe.patience:
        return (
            f"after epoch {progress.epoch}, as {without_gain} epochs have brought no better validation accuracy than"
            f" epoch {progress.best_epoch + 1}"
        )
    return None
