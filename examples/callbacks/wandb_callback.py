"""Log a training run to Weights & Biases.

    pip install wandb
    python wandb_callback.py photos/

A resumed run continues the record of the same name.
"""

import sys

import wandb

from ghostnets.train import Callback, EpochResult, RunStart, TrainingResult, train_model


class WandbCallback(Callback):
    """Logs the configuration, the metrics of each epoch, the final accuracy and the checkpoint.

    Args:
        project: Project in Weights & Biases.
    """

    def __init__(self, project: str) -> None:
        self.project, self.run = project, None

    def on_run_start(self, run: RunStart) -> None:
        name = run.folder.name
        self.run = wandb.init(
            project=self.project, name=name, id=name, resume="allow", config=run.config.recipe.to_dict()
        )

    def on_epoch_end(self, result: EpochResult, *, is_best: bool) -> None:
        self.run.log({name: getattr(result, name) for name in result.metrics}, step=result.epoch)

    def on_run_end(self, result: TrainingResult) -> None:
        if self.run is not None:  # a run of which no epoch was left does not start
            for name, value in result.evaluation.scores.items():  # top1, or map and others of several labels
                self.run.summary[f"{result.split}_{name}"] = value
            self.run.save(str(result.checkpoint), base_path=str(result.folder))
            self.run.finish()

    def on_run_error(self, error: BaseException) -> None:
        if self.run is not None:
            self.run.finish(exit_code=1)


if __name__ == "__main__":
    train_model(sys.argv[1], callbacks=[WandbCallback("ghostnets")])
