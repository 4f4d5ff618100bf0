"""What a training run leaves on disk, and how it is found again."""

import csv
import fcntl
import io
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from ghostnets import __version__
from ghostnets.checkpoints.read import load_pickled
from ghostnets.errors import CheckpointError, ConfigurationError, RunError
from ghostnets.files import PARTIAL, write_atomically, write_text
from ghostnets.train.recipe import Recipe

__all__ = ["EpochResult", "RunConfig", "RunFolder"]


@dataclass(frozen=True)
class RunConfig:
    """What was asked for, complete: with the images, it decides the outcome.

    Attributes:
        data: ``"fashion-mnist"`` or the absolute path of a folder.
        recipe: With every value resolved.
        arguments: Of the network (``create_model``).
        preprocessing: Of the network, as ``Preprocessing.to_dict`` gives it.
        full, root: Of Fashion-MNIST.
        skip_corrupt: Leave unreadable files out.
        threads: Of torch on the CPU; another number gives other rounding.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        workers: Processes that read images, beside each process that trains.
    """

    data: str
    recipe: Recipe
    arguments: dict[str, Any] = field(default_factory=dict)
    preprocessing: dict[str, Any] = field(default_factory=dict)
    full: bool = False
    root: str | None = None
    skip_corrupt: bool = False
    threads: int = 1
    device: str = "auto"
    workers: int = 0


@dataclass(frozen=True)
class EpochResult:
    """One row of ``metrics.csv``.

    Attributes:
        epoch: From 1.
        lr: Learning rate at the end of the epoch.
        train_loss: Mean over the epoch, with label smoothing and augmentation.
        train_top1: Share of augmented training images recognised.
        val_loss, val_top1: On the validation images.
        images_per_second: While training, evaluation left out.
        seconds: Training and evaluation since the beginning of the run, over all sessions.
    """

    epoch: int
    lr: float
    train_loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    images_per_second: float
    seconds: float


class RunFolder:
    """``runs/NAME/``.

    ::

        config.json        what was asked for, complete (RunConfig): what --repeat starts again from
        best.safetensors   the network of the best epoch, with all that prediction needs
        last.pt            network, optimiser, averages, scaler, progress: what --resume goes on from
        teacher.safetensors   answers of a teacher who was asked once
        metrics.csv        one row an epoch
        tensorboard/       the same as TensorBoard events
        result.json        the final evaluation
        report.html        all of it to look at
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.best = self.path / "best.safetensors"
        self.last = self.path / "last.pt"
        self.teacher = self.path / "teacher.safetensors"
        self.metrics = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self._held: int | None = None

    def check_new(self) -> None:
        """Raises RunError where the folder exists and holds more than what a killed process did not finish."""
        if self.path.exists() and not (
            self.path.is_dir() and all(file.name.endswith(PARTIAL) for file in self.path.iterdir())
        ):
            raise RunError(
                f"{self.path} exists already; choose another name (--name),"
                f" or go on with the run in it: ghostnets train --resume {self.path}"
            )

    def hold(self) -> None:
        """Keeps other processes from training here, until ``release``; removes what killed ones left unfinished.

        Raises:
            RunError: Another one does; such as a worker whose torchrun was killed.
        """
        self._held = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.release()
            raise RunError(
                f"{self.path} is being trained by another process (workers outlive a torchrun that was killed);"
                " wait for it, or end it."
            ) from error
        for file in self.path.iterdir():
            if file.name.endswith(PARTIAL):  # nobody writes it any more
                file.unlink()

    def release(self) -> None:
        """Ends ``hold``; nothing happens where this process did not begin it."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def holds(self, config: RunConfig) -> bool:
        """Whether the run in the folder is of this very configuration."""
        if not self.config_file.is_file():
            return False
        wanted: dict[str, Any] = json.loads(json.dumps(asdict(config)))  # JSON has no tuples
        return wanted == json.loads(json.dumps(asdict(self.read_config())))

    def create(self, config: RunConfig) -> None:
        """Makes the folder.

        Raises:
            RunError: It exists and is not empty.
            StorageError: It cannot be made.
        """
        self.check_new()
        content = {"ghostnets_version": __version__, **asdict(config)}
        write_text(self.config_file, json.dumps(content, indent=2) + "\n")

    def read_config(self) -> RunConfig:
        """Raises RunError where the folder holds no run."""
        if not self.config_file.is_file():
            raise RunError(
                f"{self.path} holds no training run (it has no config.json); give a folder such as runs/NAME."
            )
        try:
            content = json.loads(self.config_file.read_text(encoding="utf-8"))
            content.pop("ghostnets_version")
            return RunConfig(**{**content, "recipe": Recipe.from_dict(content["recipe"])})
        except (
            json.JSONDecodeError,
            KeyError,
            TypeError,
            AttributeError,
            UnicodeDecodeError,
            ConfigurationError,
        ) as error:
            raise RunError(
                f"{self.config_file} cannot be used ({error}); it is damaged or of another version."
            ) from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Raises StorageError; the older state is then untouched."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with write_atomically(self.last) as temporary:
            temporary.write_bytes(buffer.getbuffer())  # torch's own writer would hide why a write failed

    def load_state(self) -> dict[str, Any] | None:
        """The last saved state, or None where the run was stopped before it saved one.

        Raises:
            RunError: The file is damaged.
        """
        for half_written in self.path.glob(".*.partial"):  # of a process that was killed while it wrote
            half_written.unlink()
        if not self.last.exists():
            return None
        try:
            state: dict[str, Any] = load_pickled(self.last)
        except CheckpointError as error:
            raise RunError(f"the run cannot be resumed: {error}") from error
        return state

    def read_metrics(self) -> list[EpochResult]:
        """The epochs that are done.

        Raises:
            RunError: The folder holds no finished epoch, or the file is damaged.
        """
        try:
            with self.metrics.open(encoding="utf-8", newline="") as stream:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
            return [EpochResult(int(row.pop("epoch")), **row) for row in rows]
        except FileNotFoundError as error:
            raise RunError(f"{self.path} holds no finished epoch (it has no metrics.csv).") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.metrics} cannot be read ({error}); it is damaged or of another version.") from error

    def write_metrics(self, history: list[EpochResult]) -> None:
        """Raises StorageError."""
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, EpochResult.__dataclass_fields__, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
        write_text(self.metrics, buffer.getvalue())
