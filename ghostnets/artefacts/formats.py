"""Table of file formats: how each is written (``export``) and opened (``artefacts``). Loads no torch."""

from typing import NamedTuple

__all__ = ["FORMATS", "ExportFormat"]


class ExportFormat(NamedTuple):
    """Modules, libraries and capabilities of a format.

    Attributes:
        suffix: Suffix of the file.
        module: Module ``export.MODULE``, whose ``write(job, path)`` writes the file and any companion files into the
            same folder, and ``artefacts.MODULE``, whose ``open_file(path, threads)`` opens it.
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
    "onnx": ExportFormat(".onnx", "onnx", ("onnx", "onnxruntime", "onnxscript"), "export", ("f32", "f16", "int8")),
    "openvino": ExportFormat(".xml", "openvino", ("openvino",), "export", ("f32", "f16", "int8")),
    "executorch": ExportFormat(".pte", "executorch", ("executorch",), "executorch", supports_any_size=False),
    "litert": ExportFormat(
        *(".tflite", "litert", ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), "litert", ("f32", "int8")),
        supports_any_size=False,
    ),
    "torch-export": ExportFormat(".pt2", "torch_export", ("torch",), "export", ("f32", "f16", "bf16")),
    "engine": ExportFormat(
        *(".engine", "engine_plan", ("ghostnets",), "export", ("f32", "bf16", "int8"), ("uint8",), ("logits",)),
    ),
}
