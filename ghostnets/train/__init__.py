"""Training and evaluation."""

from ghostnets.train.evaluate import ClassResult, Evaluation, evaluate
from ghostnets.train.recipe import Recipe
from ghostnets.train.recipes import RECIPES, named_recipe, recipe_for
from ghostnets.train.reporter import Reporter
from ghostnets.train.result import InterruptedRunError, TrainingResult
from ghostnets.train.run_folder import EpochResult, RunConfig, RunFolder
from ghostnets.train.start import repeat_training, resume_training, train_model

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
    "repeat_training",
    "resume_training",
    "train_model",
]
