"""Learning rate schedules as functions of the epoch, so that no state has to be saved."""

import math

from ghostnets.train.recipe import Recipe

__all__ = ["learning_rate"]

WARMUP_START = 0.04  # share of the peak at which warm-up starts


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Learning rate after ``epoch`` epochs, which may be fractional.

    Linear warm-up over the share ``warmup`` of the run, then decay by ``schedule``; ``warmup=0.25`` with cosine decay
    is the one-cycle schedule of Smith and Topin (arXiv 1708.07120).

    >>> [round(learning_rate(Recipe(epochs=10, lr=1.0, warmup=0.1), epoch), 6) for epoch in (0, 1, 5.5, 10)]
    [0.04, 1.0, 0.5, 0.0]
    """
    done = epoch / recipe.epochs
    if done < recipe.warmup:
        return recipe.lr * (WARMUP_START + (1 - WARMUP_START) * done / recipe.warmup)
    after = (done - recipe.warmup) / (1 - recipe.warmup)
    if recipe.schedule == "cosine":
        return recipe.lr * 0.5 * (1 + math.cos(math.pi * after))
    if recipe.schedule == "linear":
        return recipe.lr * (1 - after)
    steps = (
        sum(done >= milestone for milestone in recipe.milestones)
        if recipe.decay_epochs is None
        else math.floor(epoch / recipe.decay_epochs)
    )
    return recipe.lr * float(recipe.decay_rate) ** steps
