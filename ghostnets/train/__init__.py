"""Training and evaluation. Names are imported on first access: the command line lists recipes without loading torch."""

from typing import TYPE_CHECKING

from ghostnets.lazy import lazy_getattr

if TYPE_CHECKING:
    from ghostnets.train.callback import Callback, RunStart
    from ghostnets.train.evaluation import ClassResult, Evaluation, ImagePredictions, evaluate
    from ghostnets.train.find_lr import LearningRateTest
    from ghostnets.train.metrics import METRICS, SELECTION, EpochResult, best_epoch, format_minutes
    from ghostnets.train.multi_label import MultiLabelEvaluation, evaluate_multi_label
    from ghostnets.train.recipe import Recipe
    from ghostnets.train.recipes import RECIPES, default_recipe, named_recipe
    from ghostnets.train.report import describe_evaluation, list_warnings, write_run_report
    from ghostnets.train.reporter import ConsoleReporter
    from ghostnets.train.result import InterruptedRunError, TrainingResult
    from ghostnets.train.run_config import RunConfig
    from ghostnets.train.run_folder import RunFolder
    from ghostnets.train.start import find_learning_rate, repeat_training, resume_training, train_model

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
    "LearningRateTest",
    "MultiLabelEvaluation",
    "Recipe",
    "RunConfig",
    "RunFolder",
    "RunStart",
    "TrainingResult",
    "best_epoch",
    "default_recipe",
    "describe_evaluation",
    "evaluate",
    "evaluate_multi_label",
    "find_learning_rate",
    "format_minutes",
    "list_warnings",
    "named_recipe",
    "repeat_training",
    "resume_training",
    "train_model",
    "write_run_report",
]

_MODULES = {
    "METRICS": "metrics",
    "RECIPES": "recipes",
    "SELECTION": "metrics",
    "Callback": "callback",
    "ClassResult": "evaluation",
    "ConsoleReporter": "reporter",
    "EpochResult": "metrics",
    "Evaluation": "evaluation",
    "ImagePredictions": "evaluation",
    "InterruptedRunError": "result",
    "LearningRateTest": "find_lr",
    "MultiLabelEvaluation": "multi_label",
    "Recipe": "recipe",
    "RunConfig": "run_config",
    "RunFolder": "run_folder",
    "RunStart": "callback",
    "TrainingResult": "result",
    "best_epoch": "metrics",
    "default_recipe": "recipes",
    "describe_evaluation": "report",
    "evaluate": "evaluation",
    "evaluate_multi_label": "multi_label",
    "find_learning_rate": "start",
    "format_minutes": "metrics",
    "list_warnings": "report",
    "named_recipe": "recipes",
    "repeat_training": "start",
    "resume_training": "start",
    "train_model": "start",
    "write_run_report": "report",
}

__getattr__ = lazy_getattr(__name__, _MODULES)
