"""Log a training run to MLflow.

pip install mlflow
python mlflow_callback.py photos/
mlflow ui
"""

import sys

import mlflow

from ghostnets.train import Callback, EpochResult, RunStart, TrainingResult, train_model


class MlflowCallback(Callback):
    """Logs the configuration, the metrics of each epoch, the final accuracy, the checkpoint and the report.

    Args:
        experiment: Experiment in MLflow.
    """

    def __init__(self, experiment: str) -> None:
        self.experiment, self.is_active = experiment, False

    def on_run_start(self, run: RunStart) -> None:
        mlflow.set_experiment(self.experiment)
        mlflow.start_run(run_name=run.folder.name)
        self.is_active = True
        mlflow.log_params(run.config.recipe.to_dict())

    def on_epoch_end(self, result: EpochResult, *, is_best: bool) -> None:
        mlflow.log_metrics({name: getattr(result, name) for name in result.metrics}, step=result.epoch)

    def on_run_end(self, result: TrainingResult) -> None:
        if self.is_active:  # a run of which no epoch was left does not start
            for name, value in result.evaluation.scores.items():  # top1, or map and others of several labels
                mlflow.log_metric(f"{result.split}_{name}", value)
            for file in (result.checkpoint, result.folder / "report.html"):
                mlflow.log_artifact(str(file))
            mlflow.end_run()

    def on_run_error(self, error: BaseException) -> None:
        if self.is_active:
            mlflow.end_run(status="FAILED")


if __name__ == "__main__":
    train_model(sys.argv[1], callbacks=[MlflowCallback("ghostnets")])
