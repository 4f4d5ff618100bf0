"""MNN files. Needs no torch."""

import ctypes
import os
import sys
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.description import Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.errors import ArtefactError, require

__all__ = ["MnnModel", "open_file"]


class MnnModel(Model):
    """An MNN file. Its memory is planned for one image per run; calls from several threads are serialized."""

    def __init__(self, path: Path, description: Description, interpreter: Any, session: Any, threads: int) -> None:
        super().__init__(path, description, f"mnn {version('MNN')}")
        self.interpreter, self.session, self.threads = interpreter, session, threads
        self.lock = threading.Lock()

    def copy(self) -> "MnnModel":
        """Load the file again, with the same number of threads."""
        return open_file(self.path, self.threads)

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        mnn = require("MNN", extra="mnn")
        names = [self.description.output_name, "features"][: 1 + features]
        with self.lock:
            image = _host_tensor(mnn, np.ascontiguousarray(x))
            self.interpreter.getSessionInput(self.session).copyFrom(image)
            self.interpreter.runSession(self.session)
            outputs = [self.interpreter.getSessionOutput(self.session, name) for name in names]
            hosts = [_host_tensor(mnn, np.zeros(output.getShape(), np.float32)) for output in outputs]
            for output, host in zip(outputs, hosts, strict=True):
                output.copyToHostTensor(host)
        return tuple(np.array(host.getNumpyData(), np.float32).reshape(host.getShape()) for host in hosts)


def _host_tensor(mnn: Any, values: npt.NDArray[Any]) -> Any:
    return mnn.Tensor(values.shape, mnn.Halide_Type_Float, values, mnn.Tensor_DimensionType_Caffe)


@contextmanager
def _notes_to_stderr() -> Iterator[None]:
    """Send to stderr what native code writes to stdout, which is for results: MNN prints notes there."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None if os.name == "posix" else "msvcrt").fflush(None)
        os.dup2(kept, 1)
        os.close(kept)


def open_file(path: Path, threads: int | None) -> MnnModel:
    """Open an MNN file, as ``open_model``, by default with one thread.

    MNN's threads wait for one another by yielding, so that two of them nearly stood still where other processes used
    both cores (docs/log.md).
    """
    threads = threads or 1
    try:
        description = Description.from_appended(path)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"MNN cannot load it ({error}); export it again.") from error
    with _notes_to_stderr():
        mnn = require("MNN", extra="mnn")
        try:
            interpreter = mnn.Interpreter(str(path))
        except Exception as error:  # MNN raises no class of its own
            raise ArtefactError(f"MNN cannot load it ({error}); export it again.") from error
        session = interpreter.createSession({"backend": "CPU", "numThread": threads, "precision": "high"})
    return MnnModel(path, description, interpreter, session, threads)
