"""The folder of a training run, ``runs/NAME``: its files and their formats."""

import csv
import fcntl
import io
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ghostnets import __version__
from ghostnets.checkpoints.read import load_pickled
from ghostnets.data import DataSpec
from ghostnets.errors import CheckpointError, ConfigurationError, RunError
from ghostnets.files import PARTIAL, write_atomically, write_text
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.metrics import EpochResult
from ghostnets.train.recipe import Recipe

__all__ = ["RunConfig", "RunFolder"]


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run: with the images, it determines the outcome.

    Attributes:
        data: ``"fashion-mnist"``, the absolute path of a folder, or a URL.
        recipe: The recipe with every value resolved.
        arguments: Arguments of the network (``create_model``).
        preprocessing: Preprocessing of the network.
        full, root: Options of Fashion-MNIST.
        skip_corrupt: Leave unreadable images out.
        threads: Threads of torch on the CPU; another number gives other rounding.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        workers: Processes that read images, for each process that trains.
    """

    data: str
    recipe: Recipe
    arguments: dict[str, Any]
    preprocessing: Preprocessing
    full: bool = False
    root: str | None = None
    skip_corrupt: bool = False
    threads: int = 1
    device: str = "auto"
    workers: int = 0

    @property
    def data_spec(self) -> DataSpec:
        return DataSpec(self.data, full=self.full, root=self.root, skip_corrupt=self.skip_corrupt)

    def to_dict(self) -> dict[str, Any]:
        """The content of ``config.json``."""
        return {"ghostnets_version": __version__, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """The configuration written by ``to_dict``, after a round trip through JSON.

        Raises:
            ConfigurationError, KeyError, TypeError: ``values`` are no configuration.
        """
        own = {name: value for name, value in values.items() if name != "ghostnets_version"}
        recipe, preprocessing = Recipe.from_dict(own.pop("recipe")), Preprocessing.from_dict(own.pop("preprocessing"))
        return cls(recipe=recipe, preprocessing=preprocessing, **own)


class RunFolder:
    """``runs/NAME/``.

    ::

        config.json        complete configuration (RunConfig); --repeat starts from it
        best.safetensors   network of the best epoch, with all that inference needs
        last.pt            network, optimizer, averages, scaler, progress; --resume starts from it
        train_digests.bin  content digests of the training images (``content_digest``), sorted, uint64 little-endian
        teacher.safetensors   cached outputs of a teacher
        metrics.csv        one row per epoch
        tensorboard/       the same as TensorBoard events
        result.json        final evaluation
        report.html        report of the run
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.best = self.path / "best.safetensors"
        self.last = self.path / "last.pt"
        self.train_digests = self.path / "train_digests.bin"
        self.teacher = self.path / "teacher.safetensors"
        self.metrics = self.path / "metrics.csv"
        self.tensorboard = self.path / "tensorboard"
        self.result = self.path / "result.json"
        self.report = self.path / "report.html"
        self._lock: int | None = None

    def check_new(self) -> None:
        """Raise RunError if the folder exists and holds more than unfinished files of a killed process."""
        if self.path.exists() and not (
            self.path.is_dir() and all(file.name.endswith(PARTIAL) for file in self.path.iterdir())
        ):
            raise RunError(
                f"{self.path} already exists; choose another name (--name),"
                f" or resume the run in it: ghostnets train --resume {self.path}"
            )

    def lock(self) -> None:
        """Lock the folder against other processes until ``unlock``, and remove unfinished files of killed ones.

        Raises:
            RunError: Another process holds the lock, such as a worker whose torchrun was killed.
        """
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.unlock()
            raise RunError(
                f"{self.path} is being trained by another process (workers outlive a torchrun that was killed);"
                " wait for it, or stop it."
            ) from error
        for file in self.path.iterdir():
            if file.name.endswith(PARTIAL):  # its writer is dead
                file.unlink()

    def unlock(self) -> None:
        """Release the lock, if this process holds it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def has_config(self, config: RunConfig) -> bool:
        """Whether the run in the folder has this very configuration."""
        return self.config_file.is_file() and self.read_config() == RunConfig.from_dict(
            json.loads(json.dumps(config.to_dict()))  # JSON has no tuples
        )

    def create(self, config: RunConfig) -> None:
        """Create the folder with its ``config.json``.

        Raises:
            RunError: It exists and is not empty.
            StorageError: It cannot be written.
        """
        self.check_new()
        write_text(self.config_file, json.dumps(config.to_dict(), indent=2) + "\n")

    def read_config(self) -> RunConfig:
        """Read ``config.json``.

        Raises:
            RunError: The folder holds no run, or the file is damaged.
        """
        if not self.config_file.is_file():
            raise RunError(
                f"{self.path} holds no training run (it has no config.json); give a folder such as runs/NAME."
            )
        try:
            content = json.loads(self.config_file.read_text(encoding="utf-8"))
            return RunConfig.from_dict(content)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as error:
            raise RunError(
                f"{self.config_file} cannot be used ({error}); it is damaged or of another version."
            ) from error

    def save_state(self, state: dict[str, Any]) -> None:
        """Write ``last.pt``.

        Raises:
            StorageError: It cannot be written; the previous state is untouched.
        """
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with write_atomically(self.last) as temporary:
            temporary.write_bytes(buffer.getbuffer())  # torch's own writer hides why a write failed

    def load_state(self) -> dict[str, Any] | None:
        """Read ``last.pt``; None if the run stopped before it saved a state.

        Raises:
            RunError: The file is damaged.
        """
        if not self.last.exists():
            return None
        try:
            state: dict[str, Any] = load_pickled(self.last)
        except CheckpointError as error:
            raise RunError(f"the run cannot be resumed: {error}") from error
        return state

    def save_train_digests(self, digests: np.ndarray | None) -> None:
        """Write ``train_digests.bin`` unless it exists or the digests are unknown; raises StorageError."""
        if digests is not None and not self.train_digests.exists():
            with write_atomically(self.train_digests) as temporary:
                temporary.write_bytes(np.sort(digests).astype("<u8").tobytes())

    def find_training_images(self, digests: np.ndarray | None) -> np.ndarray | None:
        """Find the images with the content of a training image of the run.

        Args:
            digests: ``content_digest`` of each image, uint64 (N,); None if unknown.

        Returns:
            bool (N,), or None if the digests of either side are unknown.
        """
        if digests is None or not self.train_digests.is_file():
            return None
        content = self.train_digests.read_bytes()
        if len(content) % 8:
            raise RunError(
                f"{self.train_digests} is damaged; remove it to evaluate without knowing the training images."
            )
        return np.isin(digests, np.frombuffer(content, dtype="<u8"))

    def read_metrics(self) -> list[EpochResult]:
        """Read ``metrics.csv``, the finished epochs.

        Raises:
            RunError: The folder has no finished epoch, or the file is damaged.
        """
        try:
            with self.metrics.open(encoding="utf-8", newline="") as stream:
                rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(stream)]
            return [EpochResult(int(row.pop("epoch")), **row) for row in rows]
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no finished epoch (it has no metrics.csv).") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{self.metrics} cannot be read ({error}); it is damaged or of another version.") from error

    def write_metrics(self, history: list[EpochResult]) -> None:
        """Write ``metrics.csv``; raises StorageError."""
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, EpochResult.__dataclass_fields__, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
        write_text(self.metrics, buffer.getvalue())
