"""The learning rate, a function of the place in the run alone: nothing of it has to be saved."""

import math

from ghostnets.train.recipe import Recipe

__all__ = ["learning_rate"]

FIRST = 0.04  # share of the peak at which warming up begins


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Learning rate after so many epochs of the run, with the part of one that is done.

    Up along a line over the share ``warmup`` of the run, then down as ``schedule`` says; with ``warmup=0.25`` and a
    cosine that is the one-cycle schedule of Smith and Topin (arXiv 1708.07120).

    >>> [round(learning_rate(Recipe(epochs=10, lr=1.0, warmup=0.1), epoch), 6) for epoch in (0, 1, 5.5, 10)]
    [0.04, 1.0, 0.5, 0.0]
    """
    done = epoch / recipe.epochs
    if done < recipe.warmup:
        return recipe.lr * (FIRST + (1 - FIRST) * done / recipe.warmup)
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
