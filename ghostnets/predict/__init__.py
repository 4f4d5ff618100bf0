"""Answers from a checkpoint."""

from ghostnets.predict.predictor import Prediction, Predictor, find_files, load_predictor

__all__ = ["Prediction", "Predictor", "find_files", "load_predictor"]
