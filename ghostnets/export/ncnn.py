"""Export to ncnn: pnnx converts the ONNX file; f16 is the storage format of the weights.

The network takes one normalised image: ncnn has no bytes. The description is appended to the weights as a zip file, as
in LiteRT: ``unzip`` shows it, and ncnn reads only what the network names.
"""

import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

from ghostnets.errors import ExportError, require
from ghostnets.export.deployed import ExportJob
from ghostnets.export.onnx import write as write_onnx

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write ``.ncnn.param`` and ``.ncnn.bin``; see ``FileFormat``."""
    pnnx = require("pnnx", extra="ncnn")
    weights = path.with_suffix(".bin")
    with tempfile.TemporaryDirectory(dir=path.parent) as name:
        folder = Path(name)
        write_onnx(replace(job, description=replace(job.description, precision="f32")), folder / "network.onnx")
        command = [pnnx.EXEC_PATH, "network.onnx", f"fp16={int(job.description.precision == 'f16')}"]
        process = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        files = [folder / "network.ncnn.param", folder / "network.ncnn.bin"]
        if process.returncode != 0 or not all(file.is_file() for file in files):
            lines = (process.stderr or process.stdout).strip().splitlines() or [f"exit code {process.returncode}"]
            raise ExportError(f"pnnx cannot convert {job.description.architecture} ({lines[-1]}); report the network.")
        for file, target in zip(files, (path, weights), strict=True):
            file.replace(target)
    job.description.append_to(weights, path)
