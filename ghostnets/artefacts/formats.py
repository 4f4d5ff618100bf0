"""Formats of exported files: a module here runs a format, the module of the same name in ``export`` writes it."""

from typing import NamedTuple

__all__ = ["FORMATS", "FileFormat"]


class FileFormat(NamedTuple):
    """A file format and what it supports.

    Attributes:
        suffix: End of the file's name.
        module: ``artefacts.MODULE.open_file(path, threads)`` opens the file; ``export.MODULE.write(job, path)`` writes
            ``path`` and any companion files into the same folder.
        libraries: Libraries needed to write and run the file; the first one's version is stored in it.
        extra: Extra of this package that installs the libraries.
        precisions: Supported values of ``Description.precision``, the default first.
        inputs: Supported values of ``Description.input``, the default first.
        outputs: Supported values of ``Description.output``, the default first.
        supports_any_size: Whether height and width may be dynamic.
        batch: Number of images that a file takes: "any", "one", or "choice" for any or a chosen number.
        supports_opset: Whether ONNX's version of the operators may be chosen.
    """

    suffix: str
    module: str
    libraries: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...] = ("f32",)
    inputs: tuple[str, ...] = ("uint8", "float32")
    outputs: tuple[str, ...] = ("probabilities", "logits")
    supports_any_size: bool = True
    batch: str = "any"
    supports_opset: bool = False


FORMATS = {
    "onnx": FileFormat(
        *(".onnx", "onnx", ("onnx", "onnxruntime", "onnxscript"), "export", ("f32", "f16", "int8")),
        batch="choice",
        supports_opset=True,
    ),
    "openvino": FileFormat(".xml", "openvino", ("openvino",), "export", ("f32", "f16", "int8"), batch="choice"),
    "executorch": FileFormat(
        *(".pte", "executorch", ("executorch",), "executorch", ("f32", "int8")), supports_any_size=False, batch="one"
    ),
    "litert": FileFormat(
        *(".tflite", "litert", ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), "litert", ("f32", "int8")),
        supports_any_size=False,
        batch="one",
    ),
    "ncnn": FileFormat(
        *(".ncnn.param", "ncnn", ("ncnn", "pnnx", "onnx", "onnxscript"), "ncnn", ("f32", "f16"), ("float32",)),
        supports_any_size=False,
        batch="one",
    ),
    "mnn": FileFormat(
        *(".mnn", "mnn", ("MNN", "onnx", "onnxscript"), "mnn", ("f32", "f16"), ("float32",)),
        supports_any_size=False,
        batch="one",
    ),
    "torch-export": FileFormat(".pt2", "torch_export", ("torch",), "export", ("f32", "f16", "bf16"), batch="choice"),
    "engine": FileFormat(
        *(".engine", "engine_plan", ("ghostnets",), "export", ("auto", "f32", "bf16", "int8"), ("uint8",), ("logits",)),
    ),
}
"""Formats of exported files, by name."""
