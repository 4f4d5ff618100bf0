"""What a disk that is full at any write leaves: a state and a best network from which the run resumes."""

import io
import itertools
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from ghostnets.checkpoints import Checkpoint
from ghostnets.errors import StorageError
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.saver import RunSaver

NUM_EPOCHS = 4


@dataclass
class Disk:
    """In place of a run's folder: the epoch of the state and of the best network; the writes that fail, by number.

    Attributes:
        history: Epoch of the state, its best epoch, and the epoch of the best network, after every write.
    """

    fails: frozenset[int]
    path: Path = Path("run")
    epoch: int = 0
    best_epoch: int = 0
    saved_best: int = 0
    writes: int = 0
    history: list[tuple[int, int, int]] = field(default_factory=list)

    def save_state(self, content: memoryview) -> None:
        self._write()
        state = torch.load(io.BytesIO(content))
        self.epoch, self.best_epoch = state["epoch"], state["best_epoch"]
        assert state["weight"].item() == self.epoch  # as it was at the end of the epoch
        self.history.append((self.epoch, self.best_epoch, self.saved_best))

    def save_best(self, checkpoint: Checkpoint) -> None:
        self._write()
        self.saved_best = int(checkpoint.training["epoch"])
        assert checkpoint.state_dict["weight"].item() == self.saved_best
        self.history.append((self.epoch, self.best_epoch, self.saved_best))

    def _write(self) -> None:
        self.writes += 1
        if self.writes - 1 in self.fails:
            raise StorageError("full")


def run(disk: Disk, best_epochs: tuple[int, ...]) -> bool:
    """Save all epochs, as a run does; return whether the last one was saved."""
    saver = RunSaver(disk, lambda sentence: None)
    weight, best_epoch = torch.zeros(1), 0
    for epoch in range(1, NUM_EPOCHS + 1):
        weight.fill_(epoch)  # training changes it in place
        best = None
        if epoch in best_epochs:
            best_epoch = epoch
            best = Checkpoint("ghostnet_050", {}, {"weight": weight}, ("a", "b"), Preprocessing(8, 8), {"epoch": epoch})
        is_saved = saver.try_save({"epoch": epoch, "best_epoch": best_epoch, "weight": weight}, best)
    return is_saved


@pytest.mark.parametrize("best_epochs", [(1,), (1, 2), (1, 3), (1, 2, 4), (1, 4), (1, 2, 3, 4)])
def test_every_choice_of_failing_writes_leaves_a_run_that_resumes(best_epochs: tuple[int, ...]):
    """After every write, the state holds the best network itself, or ``best.safetensors`` is that of its best epoch."""
    for fails in itertools.chain.from_iterable(itertools.combinations(range(8), count) for count in range(9)):
        disk = Disk(frozenset(fails))
        is_saved = run(disk, best_epochs)
        for epoch, best_epoch, saved_best in disk.history:
            assert best_epoch in (epoch, saved_best), (fails, disk.history)
        if is_saved:
            assert (disk.epoch, disk.best_epoch) == (NUM_EPOCHS, best_epochs[-1]), fails
            assert disk.saved_best == best_epochs[-1], fails
