"""Training and evaluation."""

from ghostnets.train.callback import Callback, RunStart
from ghostnets.train.evaluate import ClassResult, Evaluation, ImagePredictions, evaluate
from ghostnets.train.metrics import METRICS, SELECTION, EpochResult, best_epoch, format_minutes
from ghostnets.train.recipe import Recipe
from ghostnets.train.recipes import RECIPES, default_recipe, named_recipe
from ghostnets.train.report import describe_evaluation, list_warnings, write_run_report
from ghostnets.train.reporter import ConsoleReporter
from ghostnets.train.result import InterruptedRunError, TrainingResult
from ghostnets.train.run_config import RunConfig
from ghostnets.train.run_folder import RunFolder
from ghostnets.train.start import repeat_training, resume_training, train_model

__all__ = [
    "METRICS",
    "RECIPES",
    "SELECTION",
    "Callback",
    "ClassResult",
    "ConsoleReporter",
    "EpochResult",
    "Evaluation",
    "ImagePredictions",
    "InterruptedRunError",
    "Recipe",
    "RunConfig",
    "RunFolder",
    "RunStart",
    "TrainingResult",
    "best_epoch",
    "default_recipe",
    "describe_evaluation",
    "evaluate",
    "format_minutes",
    "list_warnings",
    "named_recipe",
    "repeat_training",
    "resume_training",
    "train_model",
    "write_run_report",
]
