"""Safe reading of weight files in four formats: each file is read once, and none can execute code."""

import argparse
import hashlib
import io
import json
import logging
import os
import pickle
import re
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

from ghostnets.checkpoints.save import METADATA_KEY
from ghostnets.checkpoints.signatures import identify, is_hdf5, is_zip
from ghostnets.checkpoints.sources import read_h5, read_pdparams
from ghostnets.checkpoints.wrappers import find_state_dict
from ghostnets.errors import CheckpointError, MissingExtraError
from ghostnets.files import find_checkpoint

__all__ = ["WeightsFile", "check_numbers", "load_pickled", "read_weights"]

MAX_BYTES = 4 << 30  # the largest network has 0.25 GB

logger = logging.getLogger("ghostnets.checkpoints")  # WARNING and above go to stderr unless configured otherwise

Content = tuple[Any, dict[str, str]]  # tensors, possibly in mappings; metadata


class WeightsFile(NamedTuple):
    """Content of a file of weights."""

    path: Path
    tensors: dict[str, Tensor]  # by name in the file
    metadata: dict[str, str]  # metadata of a safetensors file; otherwise empty
    sha256: str  # digest of the bytes that were parsed


def read_weights(path: str | os.PathLike[str], *, key: str | None = None, keeps_prefixes: bool = False) -> WeightsFile:
    """Read a file of weights: safetensors, PyTorch (``torch.save``), Paddle (.pdparams) or Keras (.h5).

    The format follows from the first bytes, or else from the suffix. State dicts are found inside the mappings, and
    under the prefixes, that training code adds (docs/checkpoints.md); a choice among several is logged as a warning.

    Args:
        path: Path of the file, or folder of a training run, for its ``best.safetensors``.
        key: Key of the state dict in the file, or prefix of its names, such as ``"model_ema"``. Default: the only one;
            averaged weights (EMA, SWA) are preferred to the trained ones, as in timm.
        keeps_prefixes: As for ``find_state_dict``, for networks of other libraries.

    Raises:
        CheckpointError: The file is missing, damaged, rejected as unsafe or changed while it is read, is not a weights
            file, contains no state dict or several to choose from, or has non-finite values.
        MissingExtraError: The file is .h5 and h5py is not installed.
    """
    path = find_checkpoint(path)
    content = _read_once(path)
    tensors, metadata = _find_reader(content, path)(content, path)
    if METADATA_KEY in metadata:
        if key is not None:
            raise CheckpointError(f"{path} is a checkpoint of this package, with one state dict; omit key.")
    else:
        tensors, notes = find_state_dict(tensors, path, key=key, keeps_prefixes=keeps_prefixes)
        for note in notes:
            logger.warning("%s: %s.", path, note)
    check_numbers(tensors, path)
    return WeightsFile(path, tensors, metadata, hashlib.sha256(content).hexdigest())


def _find_reader(content: bytes, path: Path) -> Callable[[bytes, Path], Content]:
    """Return the function that reads the format of a file.

    Raises:
        CheckpointError: The file is not a weights file, but an HTML page, an ONNX model, an archive, ...
    """
    if (identified := identify(content)) is not None:
        kind, advice = identified
        raise CheckpointError(f"{path} is {kind}, not a checkpoint; {advice}.")
    if is_hdf5(content):
        return _from_keras
    if is_zip(content):
        return _from_torch
    default = _from_safetensors if content[8:9] == b"{" else _from_torch  # 8 bytes of length, then JSON
    return READERS.get(path.suffix, default)


def load_pickled(path: Path) -> Any:
    """Load a file of ``torch.save`` that may contain only tensors, plain containers and ``argparse.Namespace``.

    Raises:
        CheckpointError: The file is missing, damaged or rejected as unsafe.
    """
    return _unpickle_torch(_read_once(path), path)


def check_numbers(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Reject tensors that no trained network contains, before they are used in any computation.

    Raises:
        CheckpointError: A tensor is sparse, quantised, complex, larger than its storage, or non-finite in float32.
    """
    for name, tensor in tensors.items():
        is_plain = tensor.layout == torch.strided and not (tensor.is_quantized or tensor.is_complex() or tensor.is_meta)
        # Strides of 0 could expand a few bytes to any size.
        if not is_plain or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise CheckpointError(
                f"{path} is rejected: {name} is not a dense tensor with storage for each element; save it as one."
            )
        if tensor.is_floating_point() and not tensor.float().isfinite().all():
            raise CheckpointError(
                f"{path} is rejected: {name} has non-finite values; use a checkpoint from before the training diverged."
            )


def _read_once(path: Path) -> bytes:
    """Read a regular file through one descriptor. Links are followed, as the hub's cache consists of them.

    Raises:
        CheckpointError: The file is missing, is a folder, device or pipe, is too large, cannot be read, or changed
            while it was read.
    """
    if not path.exists():
        detail = ": the link is broken" if path.is_symlink() else ""
        raise CheckpointError(f"there is no checkpoint {path}{detail}; pass a file such as runs/NAME/best.safetensors.")
    not_a_file = CheckpointError(f"{path} is not a file; pass a file such as runs/NAME/best.safetensors.")
    if not path.is_file():
        raise not_a_file
    try:
        # Without O_NONBLOCK, which Windows lacks, a file that has become a pipe would block until a writer opens it.
        no_wait = getattr(os, "O_NONBLOCK", 0)
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | no_wait)) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise not_a_file
            if before.st_size > MAX_BYTES:
                raise CheckpointError(
                    f"{path} is rejected: it has {before.st_size} bytes, the limit is {MAX_BYTES}; pass the weights of"
                    " one network."
                )
            content = file.read(before.st_size + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error}); check its permissions.") from error
    if len(content) != before.st_size or (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
        raise CheckpointError(f"{path} changed while it was read; try again once no process writes to it.")
    return content


def _from_safetensors(content: bytes, path: Path) -> Content:
    try:
        tensors = load_safetensors(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    except (SafetensorError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{path} is not a safetensors file, or is damaged ({_first_line(error)}); pass a file such as"
            " runs/NAME/best.safetensors."
        ) from error
    return tensors, header.get("__metadata__", {})


def _from_torch(content: bytes, path: Path) -> Content:
    return _unpickle_torch(content, path), {}


def _from_paddle(content: bytes, path: Path) -> Content:
    try:
        return read_pdparams(content), {}
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path} is rejected: it is damaged, or a pickle of objects other than arrays of numbers, which could"
            f" execute code when opened ({_first_line(error)}); use the .pdparams file that"
            " paddle.save(model.state_dict(), ...) writes."
        ) from error
    except Exception as error:  # the unpickler can raise anything for invalid bytes
        raise CheckpointError(
            f"{path} is damaged or not a .pdparams file ({_first_line(error)}); get the file again."
        ) from error


def _from_keras(content: bytes, path: Path) -> Content:
    try:
        return read_h5(content), {}
    except MissingExtraError:
        raise
    except Exception as error:  # h5py can raise anything for damaged bytes
        raise CheckpointError(
            f"{path} is damaged, or not a weights file of Keras ({_first_line(error)}); pass a file written by"
            " model.save_weights('NAME.h5')."
        ) from error


READERS: dict[str, Callable[[bytes, Path], Content]] = {
    ".safetensors": _from_safetensors,
    ".pdparams": _from_paddle,
    ".h5": _from_keras,
}


def _unpickle_torch(content: bytes, path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Detected pickle protocol")  # torch then reads or rejects it
            if zipfile.is_zipfile(io.BytesIO(content)):
                with zipfile.ZipFile(io.BytesIO(content)) as archive:
                    if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                        raise pickle.UnpicklingError("it is compressed, so it could expand to any size")
            # timm's training state contains one; it has values but no methods.
            with torch.serialization.safe_globals([argparse.Namespace]):
                return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]{1,100})", str(error))
        detail = f" (it refers to {found[1]})" if found else ""
        raise CheckpointError(
            f"{path} is rejected: it is damaged, or a pickle of objects other than tensors{detail}, which could execute"
            " code when opened; save model.state_dict() alone, or get the weights as a safetensors file."
        ) from error
    except Exception as error:  # torch.load can raise anything for damaged bytes
        raise CheckpointError(
            f"{path} is damaged or not a checkpoint ({_first_line(error)}); get the file again."
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
