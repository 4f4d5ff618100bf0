"""The folder of a training run, ``runs/NAME``: its files and their formats."""

import csv
import io
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ghostnets.checkpoints import Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.checkpoints.read import load_pickled
from ghostnets.errors import CheckpointError, ConfigurationError, RunError, StorageError
from ghostnets.files import PARTIAL, remove_leftovers, write_atomically, write_text
from ghostnets.locks import PathLock, try_lock
from ghostnets.train.metrics import EpochResult
from ghostnets.train.run_config import RunConfig
from ghostnets.train.state import TrainProgress, read_progress

__all__ = ["RunFolder"]

SCORES = ("top1", "mean_average_precision", "mean_iou")  # of an evaluation: one of them, by the kind of labels


class RunFolder:
    """``runs/NAME/``.

    ``last.pt`` is the authoritative state. The files below it are derived from it: written after it, and rewritten on
    resume.

    ::

        config.json        complete configuration (RunConfig); --repeat starts from it
        train_digests.bin  content digests of the training images (``content_digest``), sorted, uint64 little-endian
        teacher.safetensors   cached outputs of a teacher
        last.pt            network, optimizer, averages, scaler, progress; --resume starts from it
        best.safetensors   network of the best epoch, with all that inference needs
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
        self._lock: PathLock | None = None
        self._created: list[Path] = []  # folders created by claim, innermost first

    def claim(self, config: RunConfig) -> None:
        """Create the folder of a new run with its ``config.json``, and lock it as ``lock`` does.

        Raises:
            RunError: It exists and holds more than unfinished files of a killed process, or another process trains in
                it; nothing is changed.
            StorageError: It cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise self._exists()
        self._created = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"could not create {self.path} ({error.strerror or error}); choose another folder."
            ) from error
        self.lock()
        try:
            if not all(file.name.endswith(PARTIAL) for file in self.path.iterdir()):
                raise self._exists()
            remove_leftovers(self.path)
            self._write_config(config)
        except BaseException:
            self.unlock()
            raise

    def update_config(self, config: RunConfig) -> None:
        """Write ``config.json`` of the locked folder again if it differs; raises StorageError."""
        if not self.has_config(config):
            self._write_config(config)

    def _write_config(self, config: RunConfig) -> None:
        write_text(self.config_file, json.dumps(config.to_dict(), indent=2) + "\n")

    def discard(self) -> None:
        """Remove what ``claim`` and the start of the run have written, as the run cannot begin, and unlock."""
        for file in (self.config_file, self.train_digests, self.teacher, self.last):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # another process has put files into it
            for folder in self._created:
                folder.rmdir()
        self.unlock()

    def lock(self) -> None:
        """Lock the folder against other processes until ``unlock``, or the end of this process.

        Raises:
            RunError: Another process holds the lock, such as a worker whose torchrun was killed.
        """
        self._lock = try_lock(self.path)
        if self._lock is None:
            raise RunError(
                f"{self.path} is being trained by another process (workers outlive a torchrun that was killed);"
                " wait for it, or stop it."
            )

    def check_present(self) -> None:
        """Raise RunError if the locked folder was removed, moved or replaced."""
        if self._lock is not None and not self._lock.is_on(self.path):
            raise RunError(
                f"{self.path} was removed or moved while the run was trained, so it cannot be saved; start it again, or"
                " resume it where the folder is now: ghostnets train --resume FOLDER"
            )

    def _exists(self) -> RunError:
        return RunError(
            f"{self.path} already exists; choose another name (--name),"
            f" or resume the run in it: ghostnets train --resume {self.path}"
        )

    def unlock(self) -> None:
        """Release the lock, if this process holds it."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def has_config(self, config: RunConfig) -> bool:
        """Return whether the run in the folder has exactly this configuration."""
        return self.config_file.is_file() and self.read_config() == RunConfig.from_dict(
            json.loads(json.dumps(config.to_dict()))  # JSON has no tuples
        )

    def read_config(self) -> RunConfig:
        """Read ``config.json``.

        Raises:
            RunError: The folder holds no run, or the file is damaged.
        """
        if not self.config_file.is_file():
            raise RunError(
                f"{self.path} holds no training run (it has no config.json); pass a folder such as"
                f" {self.path.parent if self.path.is_file() else 'runs/NAME'}."
            )
        try:
            content = json.loads(self.config_file.read_text(encoding="utf-8"))
            return RunConfig.from_dict(content)
        except (ValueError, KeyError, TypeError, AttributeError, ConfigurationError) as error:
            raise RunError(
                f"{self.config_file} cannot be used ({error}); it is damaged or of another version."
            ) from error

    def save_state(self, content: bytes) -> None:
        """Write ``last.pt``.

        Args:
            content: The state, as ``torch.save`` writes it.

        Raises:
            RunError: The folder was removed.
            StorageError: It cannot be written; the previous state is untouched.
        """
        self.check_present()
        with write_atomically(self.last) as temporary:
            temporary.write_bytes(content)  # torch's own writer hides why a write failed

    def save_best(self, checkpoint: Checkpoint) -> float | None:
        """Write ``best.safetensors``, with the temperature of the file that it replaces if that has the same weights.

        Returns:
            The temperature of a file with other weights, which is lost.

        Raises:
            RunError: The folder was removed.
            StorageError: It cannot be written.
        """
        self.check_present()
        temperature = None
        if self.best.is_file():
            with suppress(CheckpointError):  # damaged: replaced
                before = read_checkpoint(self.best, task=None)
                temperature = before.temperature
                has_same_weights = before.state_dict.keys() == checkpoint.state_dict.keys() and all(
                    before.state_dict[name].equal(tensor.cpu()) for name, tensor in checkpoint.state_dict.items()
                )
                if has_same_weights:
                    checkpoint, temperature = replace(checkpoint, temperature=temperature), None
        save_checkpoint(self.best, checkpoint)
        return temperature

    def load_state(self) -> dict[str, Any] | None:
        """Read ``last.pt`` of the locked folder; None if the run stopped before it saved a state.

        Raises:
            RunError: The file is damaged, or missing although files derived from it exist; or ``best.safetensors`` is
                missing, and the state does not hold its network.
        """
        remove_leftovers(self.path)
        if not self.last.exists():
            self._check_unstarted()
            return None
        try:
            state: dict[str, Any] = load_pickled(self.last)
            progress = read_progress(state)
            if progress.best_epoch >= 0 and not progress.holds_best:
                self._check_best(progress)
        except CheckpointError as error:
            raise RunError(f"the run cannot be resumed: {error}") from error
        return state

    def _check_unstarted(self) -> None:
        """Check that no file follows from a state, and remove what a killed start has left."""
        derived = (self.best, self.metrics, self.tensorboard, self.result, self.report)
        if found := [path.name for path in derived if path.exists()]:
            raise RunError(
                f"{self.path} holds {', '.join(found)}, but not last.pt, the state to resume from; restore the file, or"
                f" repeat the run from its start in a new folder: ghostnets train --repeat {self.path}"
            )
        for file in (self.train_digests, self.teacher):
            file.unlink(missing_ok=True)  # the images may have changed since

    def _check_best(self, progress: TrainProgress) -> None:
        advice = f"restore the file, or repeat the run in a new folder: ghostnets train --repeat {self.path}"
        if not self.best.is_file():
            raise RunError(
                f"{self.best} is missing, and last.pt holds the network of epoch {progress.epoch}, not that of the best"
                f" epoch, {progress.best_epoch + 1}; {advice}"
            )
        epoch = read_checkpoint(self.best, task=None).training.get("epoch")
        if epoch != progress.best_epoch + 1:
            raise RunError(
                f"{self.best} is of epoch {epoch}, but the best epoch of the run is {progress.best_epoch + 1}; {advice}"
            )

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
            history = [EpochResult.from_columns(row) for row in rows]
        except FileNotFoundError as error:
            raise RunError(f"{self.path} has no finished epoch (it has no metrics.csv).") from error
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.metrics} cannot be read ({error}); it is damaged or of another version. Resuming the run writes"
                f" it again: ghostnets train --resume {self.path}"
            ) from error
        if not history:
            raise RunError(
                f"{self.metrics} has no rows; resuming the run writes it again: ghostnets train --resume {self.path}"
            )
        return history

    def write_metrics(self, history: Sequence[EpochResult]) -> None:
        """Write ``metrics.csv``; raises StorageError, and RunError if the folder was removed."""
        self.check_present()
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, ["epoch", *history[0].metrics], extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in history)
        write_text(self.metrics, buffer.getvalue())

    def write_result(self, values: dict[str, Any]) -> None:
        """Write ``result.json``; raises StorageError, and RunError if the folder was removed."""
        self.check_present()
        write_text(self.result, json.dumps(values, indent=2) + "\n")

    def read_result(self) -> dict[str, Any] | None:
        """Read ``result.json``; None if the run is not finished.

        Raises:
            RunError: The file is damaged.
        """
        if not self.result.is_file():
            return None
        try:
            values = json.loads(self.result.read_text(encoding="utf-8"))
            evaluation = values["evaluation"]
            score = next(evaluation[name] for name in SCORES if name in evaluation)
            if isinstance(score, float | None) and isinstance(evaluation["images"], int) and values["part"]:
                return dict(values)
            problem = "its evaluation has no numbers"
        except StopIteration:
            problem = f"its evaluation has none of {', '.join(SCORES)}"
        except (ValueError, KeyError, TypeError) as error:
            problem = str(error)
        raise RunError(
            f"{self.result} cannot be read ({problem}); resuming the run writes it again:"
            f" ghostnets train --resume {self.path}"
        )
