"""Published weights: where they lie, what they were measured to be worth, and how they come here.

Files of the Hugging Face hub go through ``huggingface_hub`` and its cache, files of releases into torch hub's
(``torch.hub.get_dir()/checkpoints``). What is in a cache, or was put at ``cache_path`` by hand, is used without any
request.

GhostNet 0.5x and 1.3x have no weights in a form that loads here: only PaddleClas (GhostNet_x0_5, x1_3) and
keras_cv_attention_models (ghostnet_050, ghostnet_130) publish them, as Paddle and Keras files. Of V2 0.5x and of V3
0.5x, 1.3x and 1.6x nobody has published weights.
"""

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import IO, Literal, NamedTuple

import torch
from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url, try_to_load_from_cache
from torch import nn

from ghostnets.checkpoints.load import load_checkpoint
from ghostnets.errors import CheckpointError, StorageError, UnknownNameError
from ghostnets.models import PrintedGhostNet, create_model, model_entry

__all__ = [
    "WEIGHTS",
    "Evaluation",
    "HubFile",
    "PublishedWeights",
    "cache_path",
    "download",
    "find_weights",
    "load_pretrained",
]

MAX_BYTES = 1_000_000_000  # the largest file of the table has 50 MB
CHUNK_BYTES = 1 << 20
TIMEOUT_SECONDS = 30.0  # to connect, and for each piece

Progress = Callable[[int, int], None]


class HubFile(NamedTuple):
    """A file of the Hugging Face hub."""

    repository: str
    file: str = "model.safetensors"


class Evaluation(NamedTuple):
    """How the images were prepared when the accuracy was measured: resize, cut the centre, normalise."""

    interpolation: Literal["bicubic", "bilinear"]
    image_size: int = 224
    crop_share: float = 0.875  # image_size divided by the shorter side before the cut: 224 of 256
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """One file of weights for a network of the registry, trained on ImageNet-1k.

    Attributes:
        tag: Who publishes it: ``"timm"``, ``"official"``, ``"d-li14"``.
        location: A file of the hub, or the address of a released file.
        top1, top5: Published ImageNet accuracy in per cent; None where it is not told.
        accuracy_source: Who measured it.
        evaluation: Preprocessing that goes with the accuracy.
        licence: SPDX identifier.
        sha256: First hexadecimal digits of the file's SHA-256, where they are published.
    """

    tag: str
    location: HubFile | str
    top1: float
    top5: float | None
    accuracy_source: str
    evaluation: Evaluation
    licence: str
    sha256: str | None = None

    @property
    def url(self) -> str:
        if isinstance(self.location, HubFile):
            return f"https://huggingface.co/{self.location.repository}/resolve/main/{self.location.file}"
        return self.location


RELEASES = "https://github.com/huawei-noah/Efficient-AI-Backbones/releases/download"


def _timm(repository: str, top1: float, top5: float) -> PublishedWeights:
    return PublishedWeights(
        tag="timm",
        location=HubFile(f"timm/{repository}"),
        top1=top1,
        top5=top5,
        accuracy_source="timm, results-imagenet.csv",
        evaluation=Evaluation("bicubic"),
        licence="Apache-2.0",
    )


def _official(
    url: str, top1: float, top5: float | None, source: str, interpolation: Literal["bicubic", "bilinear"]
) -> PublishedWeights:
    return PublishedWeights(
        tag="official",
        location=url,
        top1=top1,
        top5=top5,
        accuracy_source=source,
        evaluation=Evaluation(interpolation),
        licence="Apache-2.0",
    )


# The first of a network is the default. V2 and V3 were trained and evaluated by a copy of timm's script, whose default
# is bicubic; V1's validate.py resizes bilinearly.
WEIGHTS: dict[str, tuple[PublishedWeights, ...]] = {
    "ghostnet_100": (
        _timm("ghostnet_100.in1k", 73.958, 91.542),
        _official(
            "https://github.com/huawei-noah/CV-backbones/releases/download/ghostnet_pth/ghostnet_1x.pth",
            *(73.98, 91.46, "official ghostnet_pytorch/readme.md", "bilinear"),
        ),
    ),
    "ghostnetv2_100": (
        _timm("ghostnetv2_100.in1k", 75.186, 92.334),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_10.pth.tar", 75.3, None, "official README", "bicubic"),
    ),
    "ghostnetv2_130": (
        _timm("ghostnetv2_130.in1k", 76.746, 93.364),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_13.pth.tar", 76.9, None, "timm pull request 1916", "bicubic"),
    ),
    "ghostnetv2_160": (
        _timm("ghostnetv2_160.in1k", 77.836, 93.948),
        _official(f"{RELEASES}/GhostNetV2/ck_ghostnetv2_16.pth.tar", 77.8, None, "timm pull request 1916", "bicubic"),
    ),
    "ghostnetv3_100": (
        _timm("ghostnetv3_100.in1k", 76.936, 93.124),
        _official(f"{RELEASES}/GhostNetV3/ghostnetv3-1.0.pth.tar", 77.1, None, "as iFormer quotes it", "bicubic"),
    ),
    "ghostnet_100_printed_revised": (
        PublishedWeights(
            tag="d-li14",
            location="https://github.com/d-li14/ghostnet.pytorch/raw/master/pretrained/ghostnet_1x-f97d70db.pth",
            top1=73.636,
            top5=91.228,
            accuracy_source="README of d-li14/ghostnet.pytorch",
            evaluation=Evaluation("bilinear"),  # not told there; the usual of PyTorch's ImageNet example
            licence="MIT",
        ),
    ),
}


def find_weights(name: str, tag: str | None = None) -> PublishedWeights:
    """The published weights of a network: those of a tag, or the first of the table.

    Raises:
        UnknownNameError: There is no such network, or no such tag for it.
        CheckpointError: Nobody has published weights of this network that load here.
    """
    model_entry(name)
    if name not in WEIGHTS:
        raise CheckpointError(
            f"no weights of {name} are published in a form that loads here; there are some of {', '.join(WEIGHTS)}."
        )
    by_tag = {weights.tag: weights for weights in WEIGHTS[name]}
    if tag is None:
        return WEIGHTS[name][0]
    if tag not in by_tag:
        raise UnknownNameError(f"tag of {name}", tag, by_tag)
    return by_tag[tag]


def cache_path(weights: PublishedWeights) -> Path:
    """Where a released file is kept, and where any file may be put by hand."""
    if isinstance(weights.location, HubFile):
        name = "--".join((*weights.location.repository.split("/"), weights.location.file))
    else:
        name = weights.location.rpartition("/")[2]
    return Path(torch.hub.get_dir(), "checkpoints", name)


def download(weights: PublishedWeights, *, progress: Progress | None = None) -> Path:
    """The file of the weights, fetched unless a cache has it.

    A released file is written beside its place and renamed when it is whole; what a broken transfer has left there is
    used by the next one.

    Args:
        weights: A row of ``WEIGHTS``.
        progress: Called with the bytes that are here and those of the whole file, for a released file; the hub draws
            its own bar.

    Raises:
        CheckpointError: No network, no such file, a file that is not the published one, or one larger than 1 GB; the
            message names the address and where to put the file by hand.
        StorageError: The file could not be written.
    """
    path = cache_path(weights)
    if path.exists():
        _check_hash(weights, path)
        return path
    if isinstance(weights.location, HubFile):
        return _from_hub(weights, weights.location)
    partial = path.with_name(f"{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of processes that want the same file, one fetches it
            if path.exists():
                partial.unlink(missing_ok=True)
                return path
            _transfer(weights, file, progress)
            file.flush()
            try:
                _check_hash(weights, partial)
            except CheckpointError:
                file.truncate(0)
                raise
            os.fsync(file.fileno())
            partial.replace(path)
    except OSError as error:
        raise StorageError(
            f"could not write {path} ({error.strerror or error}); free space or set TORCH_HOME to another folder."
        ) from error
    return path


def load_pretrained(
    model: nn.Module,
    name: str,
    tag: str | None = None,
    *,
    replace_head: bool = False,
    progress: Progress | None = None,
) -> PublishedWeights:
    """Loads published weights into a network, strictly.

    Example::

        model = create_model("ghostnet_100", num_classes=10)
        load_pretrained(model, "ghostnet_100", replace_head=True)

    Args:
        model: What ``create_model(name, ...)`` built; changed in place.
        name: Name of the network.
        tag: Which weights; the first of ``WEIGHTS[name]`` if not told.
        replace_head: Leave the classifier as it is, for other classes than ImageNet's 1000; everything else is loaded.
        progress: As for ``download``.

    Returns:
        What was loaded, with its preprocessing.

    Raises:
        CheckpointError: There are no such weights, they could not be fetched, or they do not fit.
        StorageError: The file could not be written.
        UnknownNameError: There is no such network or tag.
    """
    weights = find_weights(name, tag)
    published = create_model(name)
    load_checkpoint(published, download(weights, progress=progress))
    state_dict, own = published.state_dict(), model.state_dict()
    head = "classifier.4." if isinstance(published, PrintedGhostNet) else "classifier."
    if replace_head:
        state_dict = {key: tensor for key, tensor in state_dict.items() if not key.startswith(head)}
        state_dict |= {key: tensor for key, tensor in own.items() if key.startswith(head)}
    shapes, own_shapes = ({(key, tensor.shape) for key, tensor in d.items()} for d in (state_dict, own))
    if different := sorted({key for key, _ in shapes ^ own_shapes}):
        only_head = all(key.startswith(head) for key in different)
        advice = "pass replace_head=True to keep its own classifier" if only_head else f'use create_model("{name}")'
        raise CheckpointError(
            f"the {weights.tag} weights of {name} do not fit this network in {len(different)} tensors"
            f" ({', '.join(different[:5])}{', ...' if len(different) > 5 else ''}); {advice}."
        )
    model.load_state_dict(state_dict)
    return weights


def _from_hub(weights: PublishedWeights, location: HubFile) -> Path:
    cached = try_to_load_from_cache(location.repository, location.file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        size = get_hf_file_metadata(hf_hub_url(location.repository, location.file)).size
        if size is not None and size <= MAX_BYTES:
            return Path(hf_hub_download(location.repository, location.file))
    except Exception as error:  # the hub's HTTP library differs between its versions, and so do the errors
        raise _failure(weights, _first_line(error)) from error
    raise _failure(weights, f"the size told is {size} bytes, allowed are {MAX_BYTES}")


def _transfer(weights: PublishedWeights, file: IO[bytes], progress: Progress | None) -> None:
    """Appends to ``file`` what it lacks of the released file."""
    done = os.fstat(file.fileno()).st_size
    request = urllib.request.Request(weights.url, headers={"User-Agent": "ghostnets", "Accept-Encoding": "identity"})
    if done:
        written = os.fstat(file.fileno()).st_mtime
        request.add_header("Range", f"bytes={done}-")
        # Were the file replaced since then, its end would not go with our beginning.
        request.add_header("If-Unmodified-Since", formatdate(written, usegmt=True))
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        error.close()
        if done and error.code in (
            http.HTTPStatus.PRECONDITION_FAILED,
            http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
        ):
            file.truncate(0)
            return _transfer(weights, file, progress)
        raise _failure(weights, f"the server answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        raise _failure(weights, _first_line(error)) from error
    with response:
        if response.status != http.HTTPStatus.PARTIAL_CONTENT:
            file.truncate(0)
            done = 0
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            raise _failure(weights, "the server sent another part than was asked for")
        length = response.headers.get("Content-Length", "")
        if not length.isdecimal() or response.headers.get_content_maintype() == "text":
            raise _failure(weights, "what the server sent is a page or a stream, not a file")
        total = done + int(length)
        if total > MAX_BYTES:
            raise _failure(weights, f"the file has {total} bytes, allowed are {MAX_BYTES}")
        while done < total:
            try:
                piece = response.read(min(CHUNK_BYTES, total - done))
            except (OSError, http.client.HTTPException) as error:
                raise _failure(weights, f"{_first_line(error)}, after {done} of {total} bytes") from error
            if not piece:
                raise _failure(weights, f"the connection ended after {done} of {total} bytes")
            file.write(piece)
            done += len(piece)
            if progress is not None:
                progress(done, total)
    return None


def _check_hash(weights: PublishedWeights, path: Path) -> None:
    if weights.sha256 is None:
        return
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(weights.sha256):
        raise CheckpointError(
            f"{path} is not what was published at {weights.url}: its SHA-256 begins with"
            f" {digest[: len(weights.sha256)]}, expected is {weights.sha256}; delete it and try again."
        )


def _failure(weights: PublishedWeights, reason: str) -> CheckpointError:
    return CheckpointError(
        f"could not fetch {weights.url} ({reason}); try again later, or fetch that address by other means and save it"
        f" as {cache_path(weights)}: a file there is used without any request."
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
