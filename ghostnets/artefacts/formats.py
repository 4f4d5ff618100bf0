"""Formats of exported files: a module here runs a format, the module of the same name in ``export`` writes it."""

from typing import NamedTuple

__all__ = ["FORMATS", "FileFormat"]


class FileFormat(NamedTuple):
    """A file format and what it supports.

    Attributes:
        suffix: Suffix of the file.
        module: ``artefacts.MODULE.open_file(path, threads)`` opens the file; ``export.MODULE.write(job, path)`` writes
            ``path`` and any companion files into the same folder.
        libraries: Libraries needed to write and run the file; the first one's version is stored in it.
        extra: Extra of this package that installs the libraries.
        precisions: Supported values of ``Description.precision``, the default first.
        inputs: Supported values of ``Description.input``, the default first.
        outputs: Supported values of ``Description.output``, the default first.
        supports_any_size: Whether height and width may be dynamic.
    """

    suffix: str
    module: str
    libraries: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...] = ("f32",)
    inputs: tuple[str, ...] = ("uint8", "float32")
    outputs: tuple[str, ...] = ("probabilities", "logits")
    supports_any_size: bool = True


FORMATS = {
    "onnx": FileFormat(".onnx", "onnx", ("onnx", "onnxruntime", "onnxscript"), "export", ("f32", "f16", "int8")),
    "openvino": FileFormat(".xml", "openvino", ("openvino",), "export", ("f32", "f16", "int8")),
    "executorch": FileFormat(".pte", "executorch", ("executorch",), "executorch", supports_any_size=False),
    "litert": FileFormat(
        *(".tflite", "litert", ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), "litert", ("f32", "int8")),
        supports_any_size=False,
    ),
    "torch-export": FileFormat(".pt2", "torch_export", ("torch",), "export", ("f32", "f16", "bf16")),
    "engine": FileFormat(
        *(".engine", "engine_plan", ("ghostnets",), "export", ("auto", "f32", "bf16", "int8"), ("uint8",), ("logits",)),
    ),
}
