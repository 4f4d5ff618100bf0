"""The formats: one row here and one file beside this one for each."""

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from ghostnets.export.shipped import Order

__all__ = ["FORMATS", "Format"]


class Format(NamedTuple):
    """What a format can hold.

    Attributes:
        suffix: Of the file that ``artefacts.open_model`` opens.
        writer: File of this room; its ``write(order, path)`` writes ``path``, and what belongs to it into the same
            folder.
        libraries: What must be installed to write and to run it; the first one's version goes into the file.
        extra: Of this package, which installs them.
        precisions, inputs, outputs: As ``artefacts.Description`` has them, the default first.
        takes_any_size: Whether the size of images may be left open.
        takes_features: Whether a second output may give the features.
    """

    suffix: str
    writer: str
    libraries: tuple[str, ...]
    extra: str
    precisions: tuple[str, ...] = ("f32",)
    inputs: tuple[str, ...] = ("uint8", "float32")
    outputs: tuple[str, ...] = ("probabilities", "logits")
    takes_any_size: bool = True
    takes_features: bool = True

    def write(self, order: Order, path: Path) -> None:
        """Writes the file; raises ExportError or StorageError."""
        import_module(f"ghostnets.export.{self.writer}").write(order, path)


FORMATS = {
    "onnx": Format(".onnx", "onnx", ("onnx", "onnxruntime", "onnxscript"), "export", ("f32", "f16", "int8")),
    "openvino": Format(".xml", "openvino", ("openvino",), "export", ("f32", "f16", "int8")),
    "executorch": Format(".pte", "executorch", ("executorch",), "executorch", takes_any_size=False),
    "litert": Format(
        *(".tflite", "litert", ("litert_torch", "ai_edge_quantizer", "ai_edge_litert"), "litert", ("f32", "int8")),
        takes_any_size=False,
    ),
    "torch-export": Format(".pt2", "torch_export", ("torch",), "export", ("f32", "f16", "bf16")),
    "engine": Format(
        *(".engine", "engine_plan", ("ghostnets",), "export", ("f32", "bf16", "int8"), ("uint8",), ("logits",)),
        takes_features=False,
    ),
}
