"""Export to MNN, whose converter reads the ONNX file; f16 is the storage format of the weights.

The file takes one normalised image. The description is appended to it as a zip file, as in LiteRT.
"""

import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ghostnets.errors import ExportError
from ghostnets.export.deployed import ExportJob
from ghostnets.export.onnx import write as write_onnx

__all__ = ["write"]

# The native module of MNN's wheel, because its command imports a logger that installs packages with pip and sends
# statistics. In a process of its own, because it prints.
CONVERT = "import sys, _tools; sys.exit(0 if _tools.mnnconvert(['mnnconvert', *sys.argv[1:]]) else 1)"


def write(job: ExportJob, path: Path) -> None:
    """Write an ``.mnn`` file; see ``FileFormat``."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder) / "network.onnx"
        write_onnx(replace(job, description=replace(job.description, precision="f32")), source)
        options = ["-f", "ONNX", "--modelFile", str(source), "--MNNModel", str(path), "--bizCode", "ghostnets"]
        options += ["--fp16"] if job.description.precision == "f16" else []
        command = [sys.executable, "-c", CONVERT, *options]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
    if process.returncode != 0 or not path.is_file():
        lines = (process.stderr or process.stdout).strip().splitlines() or [f"exit code {process.returncode}"]
        raise ExportError(f"MNN cannot convert {job.description.architecture} ({lines[-1]}); report the network.")
    job.description.append_to(path)
