"""PaddleClas: GhostNet_x0_5, x1_0 and x1_3, as saved by ``paddle.save`` (.pdparams).

The file is a pickle of a dict of numpy arrays. It cannot call numpy: stand-in classes record the components of each
array, and only raw bytes of floating-point numbers are converted to one.
"""

import io
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ghostnets.checkpoints.sources.canonical import BLOCKS, WIDE_BLOCK, add_batch_counters
from ghostnets.checkpoints.sources.folding import HEAD_NORM, fold_port
from ghostnets.errors import CheckpointError

__all__ = ["PADDLECLAS_KEYS", "convert_paddleclas", "read_pdparams"]

NAME_TABLE = "StructuredToParameterName@@"  # Paddle's internal parameter names, not needed here


def _paddleclas_keys() -> dict[str, str]:
    """Map key prefixes of PaddleClas's GhostNet to those of the canonical network."""
    pairs = {"conv1": ("conv_stem", "bn1"), "conv_last": (f"{WIDE_BLOCK}.conv", f"{WIDE_BLOCK}.bn1")}
    keys = {"fc_1": "classifier"}
    for number, block in enumerate(BLOCKS):
        bottleneck = f"_ghostbottleneck_{number}"
        for ghost in (1, 2):
            for half in ("primary_conv", "cheap_operation"):
                ours = f"{block}.ghost{ghost}.{half}"
                pairs[f"{bottleneck}.ghost_module_{ghost}.{half}"] = (f"{ours}.0", f"{ours}.1")
        pairs |= {
            f"{bottleneck}.depthwise_conv": (f"{block}.conv_dw", f"{block}.bn_dw"),
            f"{bottleneck}.shortcut_depthwise": (f"{block}.shortcut.0", f"{block}.shortcut.1"),
            f"{bottleneck}.shortcut_conv": (f"{block}.shortcut.2", f"{block}.shortcut.3"),
        }
        keys |= {
            f"{bottleneck}.se_block.squeeze": f"{block}.se.conv_reduce",
            f"{bottleneck}.se_block.excitation": f"{block}.se.conv_expand",
        }
    pairs["fc_0"] = ("conv_head", HEAD_NORM)
    for theirs, (convolution, norm) in pairs.items():
        keys |= {f"{theirs}._conv": convolution, f"{theirs}._batch_norm": norm}
    return keys


PADDLECLAS_KEYS = _paddleclas_keys()
LEAVES = {"weight": "weight", "bias": "bias", "_mean": "running_mean", "_variance": "running_var"}


def convert_paddleclas(state_dict: Mapping[str, Tensor], *, squeezed_channels: Mapping[str, int]) -> dict[str, Tensor]:
    """Convert a state dict of PaddleClas's GhostNet to the canonical GhostNet with the same outputs.

    The (in, out) matrices of Paddle's linear layers are transposed; ``fold_port`` converts the clamped gate, its C // 4
    units and the normalised head.

    Args:
        state_dict: Tensors under the names of PaddleClas.
        squeezed_channels: Squeeze-and-excitation widths of the target network, as in ``fold_port``.

    Returns:
        State dict of the canonical network.

    Raises:
        CheckpointError: A name is not in the key table, or a tensor is missing.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state_dict.items():
        prefix, _, leaf = key.rpartition(".")
        if prefix not in PADDLECLAS_KEYS or leaf not in LEAVES:
            raise CheckpointError(
                f"GhostNet of PaddleClas has no tensor {key!r}; this state dict belongs to another network."
            )
        renamed[f"{PADDLECLAS_KEYS[prefix]}.{LEAVES[leaf]}"] = tensor.T if tensor.ndim == 2 else tensor
    return add_batch_counters(fold_port(renamed, squeezed_channels=squeezed_channels))


def read_pdparams(content: bytes) -> dict[str, Tensor]:
    """Read the state dict of a .pdparams file (pickle protocols 2 to 4).

    Raises:
        pickle.UnpicklingError: The pickle refers to anything but arrays of floating-point numbers.
        Exception: Any exception, for bytes that are not a pickle.
    """
    state_dict = _ArrayUnpickler(content).load()
    if not isinstance(state_dict, dict):
        raise pickle.UnpicklingError("it is not a dict of arrays")
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for name, value in state_dict.items():
        if name == NAME_TABLE:
            continue
        if isinstance(value, tuple):  # Paddle 2.1: (name of the parameter, array)
            value = value[1]
        if not isinstance(name, str) or not isinstance(value, _Array) or value.numpy is None:
            raise pickle.UnpicklingError(f"{str(name)[:50]!r} is not an array")
        arrays[name] = value.numpy
    if not arrays:
        raise pickle.UnpicklingError("it contains no arrays")
    if sum(array.nbytes for array in arrays.values()) > len(content):
        raise pickle.UnpicklingError("its arrays are larger than the file")
    return {name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="))) for name, array in arrays.items()}


class _DataType:
    """Stand-in for ``numpy.dtype``: floating-point numbers of 2, 4 or 8 bytes, in either byte order."""

    def __init__(self, code: Any, *_: Any) -> None:
        if code not in ("f2", "f4", "f8"):
            raise pickle.UnpicklingError(f"an array of {str(code)[:50]!r}, expected floating-point numbers")
        self.numpy = np.dtype(code)

    def __setstate__(self, state: Any) -> None:  # (version, byte order, ...)
        self.numpy = self.numpy.newbyteorder({"<": "<", ">": ">"}[state[1]])


class _Array:
    """Stand-in for ``numpy.ndarray``."""

    def __init__(self, *_: Any) -> None:
        self.numpy: np.ndarray[Any, Any] | None = None  # until __setstate__ is called

    def __setstate__(self, state: Any) -> None:
        _, shape, data_type, is_fortran, content = state
        if not isinstance(data_type, _DataType) or not isinstance(content, bytes):
            raise pickle.UnpicklingError("an array whose content is not raw bytes of numbers")
        self.numpy = np.frombuffer(content, data_type.numpy).reshape(shape, order="F" if is_fortran else "C")


def _pair(values: Any) -> tuple[Any, Any]:
    """Stand-in for ``tuple``."""
    if not isinstance(values, tuple) or len(values) != 2:
        raise pickle.UnpicklingError("a tuple that is not a pair of a name and an array")
    return values


class _ArrayUnpickler(pickle._Unpickler):
    """Unpickler in Python: the C implementation allocates any size that a few bytes request."""

    def __init__(self, content: bytes) -> None:
        super().__init__(io.BytesIO(content))
        self.encodable = len(content)
        self.admitted = {
            "numpy.core.multiarray._reconstruct": _Array,
            "numpy._core.multiarray._reconstruct": _Array,
            "numpy.ndarray": _Array,
            "numpy.dtype": _DataType,
            "_codecs.encode": self.encode,
            "builtins.tuple": _pair,
            "__builtin__.tuple": _pair,
        }

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Stand-in for ``_codecs.encode``, by which protocol 2 stores bytes; their sum is limited to the file size."""
        self.encodable -= len(text)
        if not isinstance(text, str) or encoding != "latin1" or self.encodable < 0:
            raise pickle.UnpicklingError("a string that is not the content of an array")
        return text.encode("latin1")

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in self.admitted:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}"[:150])
        return self.admitted[f"{module}.{name}"]
