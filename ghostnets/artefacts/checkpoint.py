"""A checkpoint of this project, run by the engine where it is built and supports the network, else by torch."""

import copy
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ghostnets import __version__, engine
from ghostnets.artefacts.description import Description
from ghostnets.artefacts.engine_plan import note_of, split_outputs
from ghostnets.artefacts.model import Model, normalize
from ghostnets.artefacts.scores import Array
from ghostnets.checkpoints import read_checkpoint
from ghostnets.compress import fuse
from ghostnets.cores import usable_cores
from ghostnets.devices import describe_device, select_device
from ghostnets.errors import EngineError
from ghostnets.models import Network

__all__ = ["EngineCheckpointModel", "TorchCheckpointModel", "describe_task", "open_file"]


class EngineCheckpointModel(Model):
    """A checkpoint in the engine. Calls from several threads are serialized.

    Args:
        path: The file.
        description: Description of the checkpoint.
        session: The network, compiled for its logits.
        joint: Compiles the network for logits and features of one run, when features are requested first.
    """

    def __init__(self, path: Path, description: Description, session: engine.Session, joint: "_JointSession") -> None:
        described = replace(description, precision=session.precision)
        super().__init__(path, described, f"ghostnets engine {__version__} {session.isa}")
        self.note = note_of(session)
        self.session, self.joint = session, joint
        self._joint_copy: engine.Session | None = None  # with its own threads, like self.session
        self._lock = threading.Lock()

    def copy(self) -> "EngineCheckpointModel":
        """Return a model with as many threads of its own that shares the weights in memory."""
        session = self.session.copy(threads=self.session.threads)
        return EngineCheckpointModel(self.path, self.description, session, self.joint)

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        if not features:
            outputs = self.session(x)
            return (outputs,) if isinstance(outputs, np.ndarray) else tuple(outputs)  # maps
        with self._lock:
            if self._joint_copy is None:
                self._joint_copy = self.joint.session().copy(threads=self.session.threads)
        both = self._joint_copy(x)
        assert isinstance(both, np.ndarray)
        return split_outputs(both, self.description)


class _JointSession:
    """A session for logits and features, compiled on first use and shared by the copies of a model."""

    def __init__(self, network: nn.Module, compile_network: partial[engine.Session]) -> None:
        self.network, self.compile_network = network, compile_network
        self._session: engine.Session | None = None
        self._lock = threading.Lock()

    def session(self) -> engine.Session:
        with self._lock:
            if self._session is None:
                self._session = self.compile_network(self.network, output="features+logits")
            return self._session


class TorchCheckpointModel(Model):
    """A checkpoint in eager torch. Calls from several threads run concurrently.

    Args:
        path: The file.
        description: Description of the checkpoint.
        network: The network.
        device: Device that it runs on.
    """

    def __init__(self, path: Path, description: Description, network: nn.Module, device: torch.device) -> None:
        where = "" if device.type == "cpu" else f" on {describe_device(device)}"
        super().__init__(path, description, f"torch {torch.__version__}{where}")
        self.device = device
        fused = fuse(network)
        self.classifier: nn.Module | None = None
        if isinstance(fused, Network):  # without its classifier a network returns the features, which it takes
            self.classifier = copy.deepcopy(fused.get_submodule(fused.classifier_name)).to(device)
            fused.reset_classifier(0)
        self.network = fused.to(device).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        images = torch.from_numpy(normalize(x, self.description.preprocessing))
        embeddings = self.network(images.to(self.device).to(memory_format=torch.channels_last))
        if self.classifier is None:
            return (embeddings.cpu().numpy(),)
        return self.classifier(embeddings).cpu().numpy(), embeddings.cpu().numpy()


def describe_task(task: str, network: nn.Module) -> dict[str, Any]:
    """Return the fields of a ``Description`` that networks for another task than classification have."""
    if task != "detect":
        return {} if task == "classify" else {"task": task}
    from ghostnets.models.detection import Detector

    assert isinstance(network, Detector)
    return {"task": task, "strides": network.strides, "bins": network.bins}


def open_file(path: Path, threads: int | None, device: str = "cpu", precision: str | None = None) -> Model:
    """Open a checkpoint (see ``open_model``)."""
    selected = select_device(device)
    checkpoint = read_checkpoint(path, task=None)
    network = checkpoint.build()
    description = Description(
        architecture=checkpoint.architecture,
        arguments=checkpoint.arguments,
        class_names=checkpoint.class_names,
        preprocessing=checkpoint.preprocessing,
        any_size=True,
        has_features=isinstance(network, Network),
        temperature=checkpoint.temperature,
        multi_label=checkpoint.multi_label,
        source_sha256=checkpoint.sha256,
        **describe_task(checkpoint.task, network),
    )
    gives_maps = checkpoint.task != "classify"
    if not (gives_maps or isinstance(network, Network)) or selected.type != "cpu":
        return TorchCheckpointModel(path, description, network, selected)
    compile_network = partial(
        engine.compile,
        threads=threads or usable_cores(),
        mean=checkpoint.preprocessing.mean,
        std=checkpoint.preprocessing.std,
        precision="f32" if precision in (None, "auto") else precision,  # only exports are compared in another one
        image_size=checkpoint.preprocessing.image_size,
    )
    try:
        session = compile_network(checkpoint if gives_maps else network)
    except EngineError:  # not built, or without a node for a module of this network
        if threads is not None:
            torch.set_num_threads(threads)
        return TorchCheckpointModel(path, description, network, selected)
    return EngineCheckpointModel(path, description, session, _JointSession(network, compile_network))
