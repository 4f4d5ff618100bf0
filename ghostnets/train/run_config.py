"""The configuration of a run, ``config.json``."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from ghostnets import __version__
from ghostnets.data import TASKS, DataSpec
from ghostnets.devices import check_device_name
from ghostnets.errors import ConfigurationError
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.recipe import Recipe

__all__ = ["RunConfig"]

MAX_THREADS = 4096


@dataclass(frozen=True)
class RunConfig:
    """The complete configuration of a run: with the images, it determines the outcome.

    Attributes:
        data: ``"fashion-mnist"``, the absolute path of a folder, or a URL.
        recipe: The recipe with every value resolved.
        arguments: Arguments of the network (``create_model``).
        preprocessing: Preprocessing of the network.
        changes: Changes that compression made in the network (``Checkpoint.changes``).
        full, root: Options of Fashion-MNIST.
        skip_corrupt: Leave unreadable images out.
        threads: Threads of torch on the CPU; another number gives other rounding.
        device: Name of the device, as in ``devices.select_device``; resolved where the run is trained.
        workers: Processes that read images, for each process that trains; None for as many as the device needs.
        start: A sentence on the initial weights and why they were chosen; empty in runs of earlier versions.
        identity: Digest of the data (``DataSource.identity``); None in configurations of earlier versions.
        earlier_epochs: Values of ``recipe.epochs`` before it was changed on resuming.
        task: What is trained, one of ``data.TASKS``.
    """

    data: str
    recipe: Recipe
    arguments: dict[str, Any]
    preprocessing: Preprocessing
    changes: tuple[dict[str, Any], ...] = ()
    full: bool = False
    root: str | None = None
    skip_corrupt: bool = False
    threads: int = 1
    device: str = "auto"
    workers: int | None = None
    start: str = ""
    identity: str | None = None
    earlier_epochs: tuple[int, ...] = ()
    task: str = "classify"

    def __post_init__(self) -> None:
        checks = {
            "data": (isinstance(self.data, str), "a path, a URL or a name"),
            "arguments": (isinstance(self.arguments, dict), "an object"),
            "changes": (all(isinstance(change, dict) for change in self.changes), "a list of objects"),
            "full": (isinstance(self.full, bool), "true or false"),
            "root": (self.root is None or isinstance(self.root, str), "a path or null"),
            "skip_corrupt": (isinstance(self.skip_corrupt, bool), "true or false"),
            "threads": (type(self.threads) is int and 1 <= self.threads <= MAX_THREADS, f"from 1 to {MAX_THREADS}"),
            "device": (isinstance(self.device, str), "auto, cpu, cuda, mps or xpu"),
            "start": (isinstance(self.start, str), "a sentence"),
            "identity": (self.identity is None or isinstance(self.identity, str), "a digest or null"),
            "earlier_epochs": (all(type(epochs) is int for epochs in self.earlier_epochs), "a list of integers"),
            "task": (self.task in TASKS, " or ".join(TASKS)),
            "workers": (
                self.workers is None or (type(self.workers) is int and 0 <= self.workers <= MAX_THREADS),
                f"from 0 to {MAX_THREADS}",
            ),
        }
        wrong = [f"{name} is {getattr(self, name)!r}, expected {want}" for name, (ok, want) in checks.items() if not ok]
        if wrong:
            raise ConfigurationError(f"the configuration cannot be used: {'; '.join(wrong)}.")
        check_device_name(self.device)

    @property
    def data_spec(self) -> DataSpec:
        return DataSpec(
            self.data,
            full=self.full,
            root=self.root,
            skip_corrupt=self.skip_corrupt,
            max_pixels=self.preprocessing.max_pixels,
            task=self.task,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the content of ``config.json``."""
        return {"ghostnets_version": __version__, **asdict(self)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunConfig":
        """Return the configuration written by ``to_dict``, after a round trip through JSON.

        Raises:
            ConfigurationError, KeyError, TypeError: ``values`` are not a configuration.
        """
        own = {name: value for name, value in values.items() if name != "ghostnets_version"}
        own["earlier_epochs"] = tuple(own.get("earlier_epochs", ()))
        own["changes"] = tuple(own.get("changes", ()))  # configurations of earlier versions have none
        recipe, stored = Recipe.from_dict(own.pop("recipe")), own.pop("preprocessing")
        preprocessing = replace(
            Preprocessing.from_dict(stored), max_pixels=stored.get("max_pixels", Preprocessing.max_pixels)
        )
        return cls(recipe=recipe, preprocessing=preprocessing, **own)
