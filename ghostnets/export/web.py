"""A folder for any static host: a page that classifies pictures and the camera in the browser, offline too."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from importlib.resources import files
from pathlib import Path

from ghostnets.checkpoints.fetch import download
from ghostnets.errors import ConfigurationError, ExportError, StorageError
from ghostnets.export.exporter import export_model
from ghostnets.export.report import Report

__all__ = ["RUNTIME", "export_web"]

# ONNX Runtime for browsers, as its makers publish it; fetched once into the usual cache, never from the page.
RUNTIME = "https://registry.npmjs.org/onnxruntime-web/-/onnxruntime-web-1.30.0.tgz"
RUNTIME_SHA256 = "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")

# Of the service's page; start.js is another one here, and the explorer needs torch.
SHARED = ("index.html", "page.css", "icon.svg", "app.js", "bars.js", "dom.js", "intake.js")
FILE_LIST = "files.js"


def export_web(
    checkpoint: str | os.PathLike[str], to: str | os.PathLike[str], *, images: str | os.PathLike[str] | None = None
) -> Report:
    """Writes the folder: page, ``model.onnx`` with its report, and ONNX Runtime for browsers (14 MB).

    The model is exported as ``export_model`` does it, in float32, from pixels to probabilities: run and compared before
    the folder takes its name. An older folder of this kind is replaced.

    Args:
        checkpoint: A file of this project.
        to: The folder.
        images: As ``export_model``.

    Returns:
        The report on the model.

    Raises:
        ConfigurationError: There is a folder that was not made by this, or a file.
        CheckpointError: ONNX Runtime can neither be fetched nor is it in the cache, or as ``export_model``.
        ExportError: As ``export_model``.
        StorageError: The disk is full, the folder cannot be written, ...
    """
    target = Path(to)
    if target.exists() and not (target.is_dir() and (not any(target.iterdir()) or (target / FILE_LIST).is_file())):
        raise ConfigurationError(f"{target} is there and is no folder of an earlier web export; name another one.")
    runtime = download(RUNTIME, sha256=RUNTIME_SHA256)
    folder: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
        report = export_model(checkpoint, folder / "model.onnx", format="onnx", images=images)
        (folder / "model.json").write_text(report.description.to_json(), encoding="utf-8")
        _copy_page(folder)
        _unpack_runtime(runtime, folder / "runtime")
        (folder / FILE_LIST).write_text(_file_list(folder), encoding="utf-8")
        folder.chmod(0o755)  # mkdtemp makes folders for their owner alone, and a host reads this one
        _replace(folder, target)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(
            f"could not write {target} ({error.strerror or error}); free space or choose another."
        ) from error
    finally:
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    return report


def _copy_page(folder: Path) -> None:
    package = files("ghostnets")
    served, own = package / "serve" / "page", package / "export" / "web_page"
    for name in SHARED:
        (folder / name).write_bytes((served / name).read_bytes())
    for file in own.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())


def _unpack_runtime(package: Path, folder: Path) -> None:
    folder.mkdir()
    with tarfile.open(package) as archive:
        for name in RUNTIME_FILES:
            stream = archive.extractfile(f"package/dist/{name}")
            if stream is None:
                raise ExportError(f"{package} holds no {name}; delete it, and it is fetched anew.")
            (folder / name).write_bytes(stream.read())


def _file_list(folder: Path) -> str:
    """JavaScript for the service worker: what to keep, and a version that changes with any byte of it."""
    content, names = hashlib.sha256(), []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = file.relative_to(folder).as_posix()
        content.update(f"{name} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
        # The browser keeps service_worker.js itself; the page is asked for by the folder's address.
        if name not in ("service_worker.js", "model.onnx.report.json"):
            names.append("./" if name == "index.html" else name)
    listed = "".join(f'    "{name}",\n' for name in names)
    version = content.hexdigest()[:16]
    return f'self.GHOSTNETS = {{\n  version: "{version}",\n  files: [\n{listed}  ],\n}};\n'


def _replace(folder: Path, target: Path) -> None:
    """An older folder steps aside for the moment of the change."""
    if target.exists():
        older = folder.with_suffix(".older")
        target.replace(older)
        folder.replace(target)
        shutil.rmtree(older)
    else:
        folder.replace(target)
