"""Training and evaluation."""

from ghostnets.train.evaluate import ClassResult, Evaluation, evaluate
from ghostnets.train.loop import InterruptedRunError, TrainingResult, resume_training, train_model
from ghostnets.train.recipe import RECIPES, Recipe, named_recipe, recipe_for
from ghostnets.train.reporter import Reporter
from ghostnets.train.run_folder import EpochResult, RunConfig, RunFolder

__all__ = [
    "RECIPES",
    "ClassResult",
    "EpochResult",
    "Evaluation",
    "InterruptedRunError",
    "Recipe",
    "Reporter",
    "RunConfig",
    "RunFolder",
    "TrainingResult",
    "evaluate",
    "named_recipe",
    "recipe_for",
    "resume_training",
    "train_model",
]
