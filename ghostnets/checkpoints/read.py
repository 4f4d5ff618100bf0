"""From one file to names and tensors. Four formats, none of which can run code here; every file is read once."""

import argparse
import hashlib
import io
import json
import os
import pickle
import stat
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from ghostnets.checkpoints.sources import read_h5, read_pdparams
from ghostnets.errors import CheckpointError, MissingExtraError

__all__ = ["WeightsFile", "check_numbers", "load_pickled", "read_weights"]

MAX_BYTES = 4 << 30  # the largest network of the family has 0.25 GB

Parts = tuple[dict[str, Tensor], dict[str, str]]


class WeightsFile(NamedTuple):
    """What a file of weights holds."""

    path: Path
    tensors: dict[str, Tensor]  # under the names of the file
    metadata: dict[str, str]  # of a safetensors file
    sha256: str  # of the bytes that the tensors were made from


def read_weights(path: str | os.PathLike[str]) -> WeightsFile:
    """Names and tensors of a file: safetensors, PyTorch (``torch.save``), Paddle (.pdparams) or Keras (.h5).

    The suffix tells the format; without one of those above, a file that begins as safetensors is one, and any other
    must come from ``torch.save``. Of a training state that holds averaged weights (``state_dict_ema``) these are taken,
    as timm does; the official GhostNetV3 file is one.

    Raises:
        CheckpointError: The file is missing, damaged or refused, changes while it is read, or holds no state dict, or
            a tensor holds numbers that are not finite.
        MissingExtraError: A .h5 file, and h5py is not installed.
    """
    path = Path(path)
    content = _read_once(path)
    default = _from_safetensors if content[8:9] == b"{" else _from_torch  # 8 bytes of length, then JSON
    tensors, metadata = READERS.get(path.suffix, default)(content, path)
    check_numbers(tensors, path)
    return WeightsFile(path, tensors, metadata, hashlib.sha256(content).hexdigest())


def load_pickled(path: Path) -> Any:
    """``torch.load`` that admits tensors, plain containers and ``argparse.Namespace`` only.

    Raises:
        CheckpointError: The file is missing, damaged or refused.
    """
    return _unpickle_torch(_read_once(path), path)


def check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuses what no trained network holds, before anything is computed with it.

    Raises:
        CheckpointError: A tensor is sparse, quantised, complex or larger than its storage, or is not finite as float32.
    """
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
        # A few bytes repeated by strides of 0 would unfold to any size.
        if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(f"{path} is refused: {name} is no ordinary tensor with a number for each element.")
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise CheckpointError(
                f"{path} is refused: {name} holds numbers that are not finite, so the network could not answer;"
                " use a file from before its training failed."
            )


def _read_once(path: Path) -> bytes:
    """All bytes of a regular file, through one descriptor. Links are followed: the hub's cache is made of them.

    Raises:
        CheckpointError: There is no such file, it is a folder, a device or a pipe, it is too large, it cannot be read,
            or it was changed meanwhile.
    """
    if not path.exists():
        detail = ": the link leads to no file" if path.is_symlink() else ""
        raise CheckpointError(
            f"there is no checkpoint {path}{detail}; expected is a file such as runs/NAME/best.safetensors."
        )
    not_a_file = CheckpointError(f"{path} is not a file; expected is a file such as runs/NAME/best.safetensors.")
    if not path.is_file():
        raise not_a_file
    try:
        # The file may have become a pipe since; opening one without O_NONBLOCK waits for somebody who writes.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise not_a_file
            if before.st_size > MAX_BYTES:
                raise CheckpointError(
                    f"{path} is refused: it has {before.st_size} bytes, allowed are {MAX_BYTES}; expected are the"
                    " weights of one network."
                )
            content = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error
    if len(content) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise CheckpointError(f"{path} changed while it was read; try again when nothing writes to it.")
    return content


def _from_safetensors(content: bytes, path: Path) -> Parts:
    try:
        tensors = load_safetensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is no safetensors file, or a damaged one ({_first_line(error)});"
            " expected is a file such as runs/NAME/best.safetensors."
        ) from error
    return tensors, header.get("__metadata__", {})


def _from_torch(content: bytes, path: Path) -> Parts:
    state_dict = _unpickle_torch(content, path)
    for wrapper in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state_dict, dict) and isinstance(state_dict.get(wrapper), dict):
            state_dict = state_dict[wrapper]
    is_dict = isinstance(state_dict, dict) and bool(state_dict)
    if not is_dict or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in state_dict.items()):
        raise CheckpointError(f"{path} holds no state dict (names with tensors); save model.state_dict() instead.")
    if all(name.startswith("module.") for name in state_dict):  # of a network that was trained on several devices
        state_dict = {name.removeprefix("module."): tensor for name, tensor in state_dict.items()}
    return dict(state_dict), {}


def _from_paddle(content: bytes, path: Path) -> Parts:
    try:
        return read_pdparams(content), {}
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or a pickle that holds more than arrays of numbers, which could run"
            f" code when opened ({_first_line(error)}); use the .pdparams file that paddle.save(model.state_dict(),"
            " ...) writes."
        ) from error
    except Exception as error:  # bytes that are no pickle can make the interpreter of pickles fail in any way
        raise CheckpointError(f"{path} is damaged or no .pdparams file ({_first_line(error)}).") from error


def _from_keras(content: bytes, path: Path) -> Parts:
    try:
        return read_h5(content), {}
    except MissingExtraError:
        raise
    except Exception as error:  # as above
        raise CheckpointError(
            f"{path} is damaged, or no file of weights that Keras writes ({_first_line(error)});"
            " expected is what model.save_weights('NAME.h5') writes."
        ) from error


READERS: dict[str, Callable[[bytes, Path], Parts]] = {
    ".safetensors": _from_safetensors,
    ".pdparams": _from_paddle,
    ".h5": _from_keras,
}


def _unpickle_torch(content: bytes, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # torch then reads it or refuses it
            if zipfile.is_zipfile(io.BytesIO(content)):
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                        raise pickle.UnpicklingError("it is compressed, so it may unfold to any size")
            # What timm's training saves beside its weights; a holder of values without methods.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is refused: it is damaged, or a pickle that holds more than tensors, which could run code when"
            " opened; ask its author for a safetensors file."
        ) from error
    except Exception as error:  # damaged bytes can make it fail in any way
        raise CheckpointError(f"{path} is damaged or no checkpoint ({_first_line(error)}).") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
