"""Export to a static web page that runs the network on images and camera photos in the browser, also offline."""

import hashlib
import os
import tarfile
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

from ghostnets.checkpoints.fetch import download
from ghostnets.errors import ConfigurationError, ExportError
from ghostnets.export.exporter import export_model
from ghostnets.export.report import ExportReport
from ghostnets.files import write_folder
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["RUNTIME", "export_web"]

# ONNX Runtime for browsers, downloaded once into the cache; the page itself loads nothing from other hosts.
RUNTIME = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

# Files shared with the service's page; start.js differs, and the explorer needs torch.
SHARED_FILES = (
    *("index.html", "page.css", "icon.svg", "app.js", "bars.js", "boxes.js", "dom.js", "download.js", "masks.js"),
    "image_sources.js",
)
FILE_LIST = "files.js"


def export_web(
    checkpoint: str | os.PathLike[str],
    to: str | os.PathLike[str],
    *,
    images: str | os.PathLike[str] | None = None,
    max_pixels: int = MAX_PIXELS,
    on_stage: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write a folder with the page, ``model.onnx`` and its report, and ONNX Runtime for browsers (14 MB).

    The model is exported by ``export_model`` in float32, from uint8 pixels to probabilities, predictions of a detector
    or logits of pixels, and verified before the folder gets its name. The page's JavaScript turns predictions into
    boxes, and logits into a mask. A folder of an earlier web export is replaced.

    Args:
        checkpoint: Checkpoint of this package, for any task.
        to: Folder to write.
        images: Folder of images for verification, as for ``export_model``.
        max_pixels: Maximum number of pixels of an image that is read.
        on_stage: Callback with a description of what begins, for a progress display.

    Returns:
        The report of the model.

    Raises:
        ConfigurationError: ``to`` is a file, or a folder that is not a web export.
        CheckpointError: ONNX Runtime is not in the cache and cannot be downloaded, or the checkpoint cannot be read.
        ExportError: The model cannot be exported or exceeds the tolerance.
        StorageError: The folder cannot be written.
    """
    target = Path(to)
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / FILE_LIST).is_file())):
        raise ConfigurationError(f"{target} exists and is not a web export; choose another folder.")
    runtime = download(RUNTIME, sha256=RUNTIME_SHA256)
    with write_folder(target) as folder:
        report = export_model(
            checkpoint, folder / "model.onnx", format="onnx", images=images, max_pixels=max_pixels, on_stage=on_stage
        )
        (folder / "model.json").write_text(report.description.to_json(), encoding="utf-8")
        _copy_page(folder)
        _unpack_runtime(runtime, folder / "runtime")
        (folder / FILE_LIST).write_text(_file_list(folder), encoding="utf-8")
    return report


def _copy_page(folder: Path) -> None:
    package = files("ghostnets")
    served, own = package / "serve" / "page", package / "export" / "web_page"
    for name in SHARED_FILES:
        (folder / name).write_bytes((served / name).read_bytes())
    for file in own.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def _unpack_runtime(package: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in RUNTIME_FILES:
            stream = archive.extractfile(f"package/dist/{name}")
            if stream is None:
                raise ExportError(f"{package} contains no {name}; delete it to download it again.")
            (folder / name).write_bytes(stream.read())


def _file_list(folder: Path) -> str:
    """Return JavaScript for the service worker: the files to cache, and a version that depends on their content."""
    content, names = hashlib.sha256(), []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        content.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        # The browser stores service_worker.js itself; the page is requested by the folder's URL.
        if name not in ("service_worker.js", "model.onnx.report.json"):
            names.append("./" if name == "index.html" else name)
    listed = "".join(f'    "{name}",\n' for name in names)
    version = content.hexdigest()[:16]
    return f'self.GHOSTNETS = {{\n  version: "{version}",\n  files: [\n{listed}  ],\n}};\n'
