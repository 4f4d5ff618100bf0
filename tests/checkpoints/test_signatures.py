"""Files that are mistaken for weights: the message says what they are."""

import gzip
import io
import re
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from ghostnets.checkpoints import read_weights
from ghostnets.errors import CheckpointError


def tar(*names: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    return file.getvalue()


def zipped(**members: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def numpy_archive() -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.ones(3))
    return file.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 20000000\n"


@pytest.mark.parametrize(
    ("content", "kind", "advice"),
    [
        (LFS, "a Git LFS pointer", "git lfs pull"),
        (b"\n  <!DOCTYPE html><html><body>Sign in</body></html>", "an HTML page", "download the file itself"),
        (b"<html>404</html>", "an HTML page", "download"),
        (gzip.compress(b"weights", mtime=0), "compressed by gzip", "gunzip"),
        (b"\x08\x08\x12\x07pytorch\x1a\x052.1.0", "an ONNX model", "as an exported file"),
        (tar("sys_info", "pickle", "storages", "tensors"), "the tar format of PyTorch before", "save model.state_dict"),
        (tar("run/model.pth", "run/log.txt"), r"a tar archive \(run/model.pth, run/log.txt\)", "tar -xf"),
        (zipped(readme=b"a"), r"a zip archive \(readme\)", "unpack it"),
        (zipped(**{"a/archive_format": b"pt2", "a/data.pkl": b""}), "a program of torch.export", "exported from"),
        (numpy_archive(), r"a NumPy archive \(.npz\)", "torch.save"),
        (b"\x20\x00\x00\x00TFL3" + bytes(50), "a LiteRT", "exported from"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image", "file of weights"),
        (b"GGUF" + bytes(50), "a GGUF file", "safetensors"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".safetensors", ".bin"])
def test_read_weights_error_names_the_file_type(content: bytes, kind: str, advice: str, suffix: str, tmp_path: Path):
    path = tmp_path / f"x{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=f"{re.escape(str(path))} is (in )?{kind}.*not a checkpoint; .*{advice}"):
        read_weights(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_read_weights_names_pickled_module_and_torchscript(tmp_path: Path):
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"refers to torch\.nn\.modules\.linear\.Linear.*model\.state_dict"):
        read_weights(tmp_path / "module.pth")
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "script.pt")
    with pytest.raises(CheckpointError, match="a TorchScript archive"):
        read_weights(tmp_path / "script.pt")


@pytest.mark.parametrize("suffix", [".safetensors", ".h5", ".bin", ".ckpt"])
def test_read_weights_follows_content_before_suffix(suffix: str, tmp_path: Path):
    torch.save({"a.weight": torch.ones(2)}, tmp_path / f"x{suffix}")
    assert torch.equal(read_weights(tmp_path / f"x{suffix}").tensors["a.weight"], torch.ones(2))
    with h5py.File(tmp_path / "keras.bin", "w") as file:
        file["conv/kernel:0"] = np.ones(3, np.float32)
    assert read_weights(tmp_path / "keras.bin").tensors.keys() == {"conv/kernel:0"}
