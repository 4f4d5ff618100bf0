"""Identification of files that are mistaken for weights, for errors that name their type and a remedy."""

import io
import tarfile
import zipfile

__all__ = ["identify", "is_hdf5", "is_zip"]

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = b"PK\x03\x04"

# First bytes -> type of the file, remedy.
SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer", "run `git lfs pull`, or download the file"),
    (b"<!doctype html", "an HTML page", "open its URL in a browser and download the file itself"),
    (b"<html", "an HTML page", "open its URL in a browser and download the file itself"),
    (b"<?xml", "an XML document", "download the file of weights itself"),
    (b"\x1f\x8b", "compressed by gzip", "unpack it with gunzip (or tar -xzf) and pass the file inside"),
    (b"BZh", "compressed by bzip2", "unpack it with bunzip2 and pass the file inside"),
    (b"\xfd7zXZ", "compressed by xz", "unpack it with unxz and pass the file inside"),
    (b"7z\xbc\xaf", "a 7z archive", "unpack it and pass the file inside"),
    (b"GGUF", "a GGUF file", "pass the weights as a safetensors file"),
    (b"\x89PNG", "a PNG image", "pass a file of weights"),
    (b"\xff\xd8\xff", "a JPEG image", "pass a file of weights"),
    (b"%PDF", "a PDF document", "pass a file of weights"),
    (b"\x93NUMPY", "a NumPy array", "pass a state dict saved by torch.save or as safetensors"),
)
MEMBERS_SHOWN = 3


def identify(content: bytes) -> tuple[str, str] | None:
    """Identify a file that is not a checkpoint by its content.

    Args:
        content: Bytes of the file.

    Returns:
        Type of the file and a remedy; None if it may be a checkpoint.
    """
    start = content[:512].lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    for signature, kind, advice in SIGNATURES:
        if content.startswith(signature) or start.startswith(signature):
            return kind, advice
    if content[4:8] == b"TFL3":
        return "a LiteRT (TensorFlow Lite) model", "pass the weights that it was exported from"
    if _is_onnx(content):
        return "an ONNX model", "use it as an exported file (ghostnets predict FILE.onnx), or pass its checkpoint"
    if content[257:262] == b"ustar" or _starts_like_tar(content):
        return _tar(content)
    return _archive(content) if is_zip(content) else None


def is_hdf5(content: bytes) -> bool:
    """Whether the content is HDF5, the format of Keras's .h5 files."""
    return content.startswith(HDF5)


def is_zip(content: bytes) -> bool:
    """Whether the content is a zip archive, the format of ``torch.save``."""
    return content.startswith(ZIP)


def _is_onnx(content: bytes) -> bool:
    """Whether the content starts like ``onnx.ModelProto``: ir_version, then producer, metadata, graph or opset."""
    return len(content) > 2 and content[0] == 0x08 and 3 <= content[1] <= 20 and content[2] in (0x12, 0x3A, 0x42)


def _starts_like_tar(content: bytes) -> bool:
    """Whether the content is a tar archive from before POSIX, which has a checksum but no signature."""
    header = content[:512]
    try:
        checksum = int(header[148:156].strip(b" \0") or b"-1", 8)
    except ValueError:
        return False
    return len(header) == 512 and checksum == sum(header[:148]) + 8 * 32 + sum(header[156:])


def _tar(content: bytes) -> tuple[str, str]:
    names: list[str] = []
    try:
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            while len(names) < MEMBERS_SHOWN + 1 and (member := archive.next()) is not None:
                names.append(member.name)
    except Exception:  # tarfile can raise anything for damaged bytes; that it is a tar archive is known
        names.append("...")
    if {"sys_info", "pickle", "storages"} & {name.rpartition("/")[2] for name in names}:
        return (
            "in the tar format of PyTorch before version 0.2",
            "load it with a PyTorch that reads it and save model.state_dict() again",
        )
    return f"a tar archive ({_listed(names)})", "unpack it with tar -xf and pass the file of weights inside"


def _archive(content: bytes) -> tuple[str, str] | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
    except Exception:  # zipfile can raise anything for damaged bytes, which the reader then reports as damaged
        return None
    leaves = {name.rpartition("/")[2] for name in names}
    if "constants.pkl" in leaves:
        return "a TorchScript archive", "save the state dict of the network: torch.save(model.state_dict(), ...)"
    if "archive_format" in leaves:
        return "a program of torch.export", "save the state dict of the network that it was exported from"
    if "data.pkl" in leaves:
        return None
    if "model.weights.h5" in leaves:
        return "a Keras 3 model (.keras)", "save its weights with model.save_weights('NAME.weights.h5')"
    if names and all(name.endswith(".npy") for name in names):
        return "a NumPy archive (.npz)", "pass a state dict saved by torch.save or as safetensors"
    return f"a zip archive ({_listed(names)})", "unpack it and pass the file inside"


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1][:60] for name in names[:MEMBERS_SHOWN])
    return shown + (", ..." if len(names) > MEMBERS_SHOWN else "") if names else "empty"
