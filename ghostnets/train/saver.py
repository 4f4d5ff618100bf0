"""Saves the state and the best network of a run in their order, also where the disk is full for a while."""

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from ghostnets.checkpoints import Checkpoint
from ghostnets.errors import StorageError
from ghostnets.train.run_folder import RunFolder

__all__ = ["RunSaver"]


class RunSaver:
    """Writes ``last.pt``, and ``best.safetensors`` after the state that holds the same network.

    If a file cannot be written, the files of the last complete save stay as they are, and the next save writes what is
    missing. The state of a best epoch and its network are kept in memory until then: no later state may name an epoch
    as the best while ``best.safetensors`` is of another one.

    Args:
        folder: Folder of the run, locked.
        on_message: Callback for messages to the user.
    """

    def __init__(self, folder: RunFolder, on_message: Callable[[str], None]) -> None:
        self.folder, self.on_message = folder, on_message
        self._best_state: bytes | None = None  # to be written before the best network
        self._best: Checkpoint | None = None

    def save(self, state: dict[str, Any], best: Checkpoint | None = None) -> None:
        """Save a state.

        Args:
            state: From ``pack_state``.
            best: The network of this state, if it is that of the best epoch so far.

        Raises:
            RunError: The folder was removed.
            StorageError: A file cannot be written.
        """
        content = _serialize(state)
        if best is not None:
            self._best_state, self._best = content, best
        try:
            if self._best_state is not None:
                self.folder.save_state(self._best_state)
                self._best_state = None
            if self._best is not None:
                self.save_best(self._best)
                self._best = None
            if best is None:
                self.folder.save_state(content)
        except StorageError:
            if best is not None:  # training changes its tensors
                self._best = replace(best, state_dict={name: value.clone() for name, value in best.state_dict.items()})
            raise

    def try_save(self, state: dict[str, Any], best: Checkpoint | None = None) -> bool:
        """Save a state; if a file cannot be written, say so and return False."""
        try:
            self.save(state, best)
        except StorageError as error:
            self.on_message(
                f"the run could not be saved in {self.folder.path} ({error.reason}): the training continues and tries"
                " again after the next epoch, and until then a kill loses what was trained since the state saved"
                " before; free space."
            )
            return False
        return True

    def save_epoch(self, state: dict[str, Any], best: Checkpoint | None, *, is_last: bool) -> bool:
        """Save a finished epoch with ``save_end`` if it is the last one, else with ``try_save``."""
        if is_last:
            self.save_end(state, best)
            return True
        return self.try_save(state, best)

    def save_end(self, state: dict[str, Any], best: Checkpoint | None = None) -> None:
        """Save the state in which the training ends; raises StorageError with advice to resume."""
        try:
            self.save(state, best)
        except StorageError as error:
            raise StorageError(
                f"the training ends, but could not be saved in {self.folder.path} ({error.reason}); free space, then"
                f" resume from the state saved before: ghostnets train --resume {self.folder.path}"
            ) from error

    def save_best(self, checkpoint: Checkpoint) -> None:
        """Write the network of the saved state as the best one; raises RunError and StorageError as ``save``."""
        if (lost := self.folder.save_best(checkpoint)) is not None:
            self.on_message(f"the temperature {lost:g} of other weights is dropped; see eval --calibrate")


def _serialize(state: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return (
        buffer.getvalue()
    )  # no copy; a view, kept by the frames of an error, crashes Python 3.12.1 when both are freed
