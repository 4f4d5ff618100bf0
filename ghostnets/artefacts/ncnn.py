"""ncnn networks: a .ncnn.param file, with its weights in a .ncnn.bin file next to it. Needs no torch."""

import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts.description import Description
from ghostnets.artefacts.model import Model
from ghostnets.artefacts.scores import Array
from ghostnets.cores import usable_cores
from ghostnets.errors import ArtefactError, require

__all__ = ["NcnnModel", "open_file"]


class NcnnModel(Model):
    """An ncnn network. Each run has its own extractor, so calls from several threads run concurrently."""

    def __init__(self, path: Path, description: Description, net: Any) -> None:
        super().__init__(path, description, f"ncnn {version('ncnn')}")
        self.net = net

    def _run(self, x: npt.NDArray[Any], features: bool) -> tuple[Array, ...]:
        ncnn = require("ncnn", extra="ncnn")
        image = np.ascontiguousarray(x[0])  # ncnn reads it in place, so it lives until the end
        extractor = self.net.create_extractor()
        extractor.input("in0", ncnn.Mat(image))
        outputs = []
        for name in ["out0", "out1"][: 1 + features]:
            code, output = extractor.extract(name)
            if code != 0:
                raise RuntimeError(f"extracting {name} returned {code}")
            outputs.append(np.array(output)[None])
        return tuple(outputs)


def open_file(path: Path, threads: int | None) -> NcnnModel:
    """Open an ncnn network, as ``open_model``."""
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise ArtefactError(f"its weights, {weights.name}, are not next to it; keep the two files together.")
    net = require("ncnn", extra="ncnn").Net()
    net.opt.num_threads = threads or usable_cores()
    net.opt.use_vulkan_compute = False
    net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False  # float32, as verified
    try:
        description = Description.from_appended(weights, path)
    except (KeyError, OSError, zipfile.BadZipFile) as error:
        raise ArtefactError(f"it or its weights, {weights.name}, are damaged ({error}); export it again.") from error
    if net.load_param(str(path)) != 0 or net.load_model(str(weights)) != 0:
        raise ArtefactError("ncnn cannot load it; export it again.")
    return NcnnModel(path, description, net)
