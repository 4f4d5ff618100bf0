"""The description inside an exported file: everything that inference needs, and the provenance of the network."""

import hashlib
import json
import math
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ghostnets.errors import ArtefactError, ConfigurationError
from ghostnets.preprocessing import Preprocessing

__all__ = ["INPUTS", "MAX_BATCH", "METADATA_KEY", "OUTPUTS", "PRECISIONS", "TASKS", "Description"]

METADATA_KEY = "ghostnets_artefact"
"""Key of an artefact's description, the same in every format; some allow only letters and underscores."""
CHECKSUM = "sha256"
FORMAT_VERSION = 1
PRECISIONS = ("f32", "f16", "bf16", "int8", "auto")
INPUTS = ("uint8", "float32")
OUTPUTS = ("logits", "probabilities")


class Task(NamedTuple):
    """How messages call a network for a task, and the function of ``artefacts`` that opens it."""

    network: str
    loader: str


TASKS = {
    "classify": Task("a classifier", "load_classifier"),
    "detect": Task("a detector", "load_detector"),
    "segment": Task("a segmentation network", "load_segmenter"),
}
MAX_BATCH = 1024
MAX_LEVELS, MAX_STRIDE, MAX_BINS = 8, 1024, 256  # of detectors


@dataclass(frozen=True)
class Description:
    """Description of an exported network, stored in its file as JSON.

    Attributes:
        architecture: Name in the registry of networks, detectors or segmentation networks.
        arguments: Keyword arguments of ``create_model``, ``create_detector`` or ``create_segmenter``.
        class_names: Class names in the order of the outputs. A class is identified by its index, as names may repeat:
            ImageNet has "crane" and "maillot" twice.
        preprocessing: Preprocessing that turns an image into the input.
        precision: Precision of weights and arithmetic, one of ``PRECISIONS``; the outputs are always float32.
            ``"auto"``: an engine plan that runs in the fastest one on each machine.
        input: ``"uint8"``: (N, H, W, C), normalized by the file. ``"float32"``: (N, C, H, W), normalized by the caller.
        output: ``"logits"`` or ``"probabilities"``.
        any_size: Whether H and W may differ from the ``image_size`` of the preprocessing.
        batch: Number of images that the file takes, neither more nor fewer; None for any number. ``Model.run`` splits
            and pads batches.
        has_features: Whether the input of the last linear layer, (N, features), is a second output.
        temperature: Temperature T of calibrated probabilities, ``softmax(logits / T)``, or None. It is applied to
            probabilities that the file returns, not to logits.
        multi_label: Whether an image may have any number of classes; probabilities are then ``sigmoid(logits / T)`` and
            do not sum to 1.
        versions: Versions of the libraries that wrote the file: ``{"ghostnets": "0.1.0", "torch": "2.14.1", ...}``.
        source_sha256: SHA-256 of the exported checkpoint.
        task: ``"classify"``; ``"detect"``: the output is then a detector's predictions, (N, P, classes + 4 * bins), or
            their maps by level, (N, classes + 4 * bins, H, W) each; or ``"segment"``: the logits of each pixel,
            (N, classes, H, W).
        strides: Strides of a detector's levels; each is twice the previous one.
        bins: Number of bins of a detector's distribution of each distance.

    Raises:
        ArtefactError: A value cannot be used.
    """

    architecture: str
    arguments: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    precision: str = "f32"
    input: str = "uint8"
    output: str = "logits"
    any_size: bool = False
    batch: int | None = None
    has_features: bool = False
    temperature: float | None = None
    multi_label: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    source_sha256: str = ""
    task: str = "classify"
    strides: tuple[int, ...] = ()
    bins: int = 0

    def __post_init__(self) -> None:
        texts = {"architecture": self.architecture, "source_sha256": self.source_sha256}
        texts |= {f"class {index}": name for index, name in enumerate(self.class_names)}
        wrong = [f"{name} is {text!r}" for name, text in texts.items() if not isinstance(text, str)]
        for name, known in (("precision", PRECISIONS), ("input", INPUTS), ("output", OUTPUTS), ("task", TASKS)):
            if getattr(self, name) not in known:
                wrong.append(f"{name} is {getattr(self, name)!r}, not one of {', '.join(known)}")
        kinds = {"arguments": dict, "versions": dict, "any_size": bool, "has_features": bool, "multi_label": bool}
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                wanted = "true or false" if kind is bool else "an object"
                wrong.append(f"{name} is {getattr(self, name)!r}, not {wanted}")
        temperature = self.temperature
        if temperature is not None and not (type(temperature) in (int, float) and 0 < temperature < math.inf):
            wrong.append(f"temperature is {temperature!r}, not a number above 0")
        if self.batch is not None and not (type(self.batch) is int and 1 <= self.batch <= MAX_BATCH):
            wrong.append(f"batch is {self.batch!r}, not a whole number from 1 to {MAX_BATCH}")
        if self.task == "detect":
            wrong += self._faults_of_detector()
        elif self.strides or self.bins:
            wrong.append(f"strides are {self.strides!r} and bins is {self.bins!r}, which only detectors have")
        wrong += self._faults_of_maps() if self.task in ("detect", "segment") else []
        if wrong:
            wrong = [text if len(text) <= 200 else f"{text[:200]}..." for text in wrong[:3]]
            raise ArtefactError(f"its description cannot be used ({'; '.join(wrong)}); export the network again.")

    @property
    def output_name(self) -> str:
        """Name of the first output in a file whose format names outputs."""
        return {"detect": "predictions", "segment": "class_maps"}.get(self.task, self.output)

    def _faults_of_detector(self) -> list[str]:
        strides, bins, faults = self.strides, self.bins, []
        is_whole = all(type(stride) is int and 1 <= stride <= MAX_STRIDE for stride in strides)
        doubles = is_whole and all(after == 2 * before for before, after in pairwise(strides))
        if not doubles or not 1 <= len(strides) <= MAX_LEVELS:
            faults.append(f"strides are {strides!r}, not whole numbers of which each is twice the previous one")
        if type(bins) is not int or not 2 <= bins <= MAX_BINS:
            faults.append(f"bins is {bins!r}, not a whole number from 2 to {MAX_BINS}")
        return faults

    def _faults_of_maps(self) -> list[str]:
        network, faults = TASKS[self.task].network, []
        if self.preprocessing.fit == "crop":
            faults.append(f"fit is 'crop', which does not show {network} the whole image")
        if self.output != "logits" or self.has_features or not self.class_names:
            faults.append(f"{network} has class names, returns logits, and has no features")
        return faults

    def to_json(self) -> str:
        """Return the text stored in the file under ``METADATA_KEY``."""
        values = {"format_version": FORMAT_VERSION, **asdict(self), "preprocessing": self.preprocessing.to_dict()}
        for name in ("temperature", "multi_label", "batch"):  # omitted where unused, so that such files do not change
            if not values[name]:
                del values[name]
        if self.task != "detect":
            for name in ("strides", "bins", *(["task"] if self.task == "classify" else [])):
                del values[name]
        return json.dumps(values)

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """Parse the result of ``to_json``.

        Raises:
            ArtefactError: The text is damaged, or of another version.
        """
        try:
            values = json.loads(text)
            version = values.pop("format_version")
            if version != FORMAT_VERSION:
                raise ArtefactError(
                    f"its description has format {version}, this ghostnets reads format {FORMAT_VERSION};"
                    " export the network again."
                )
            values["class_names"] = tuple(values["class_names"])
            values["strides"] = tuple(values.get("strides", ()))
            values["preprocessing"] = Preprocessing.from_dict(values["preprocessing"])
            return cls(**values)
        except ArtefactError:
            raise
        except ConfigurationError as error:
            raise ArtefactError(f"its description cannot be used: {error}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtefactError(
                f"its description cannot be used ({type(error).__name__}: {error}); export the network again."
            ) from error

    def append_to(self, path: Path, *others: Path) -> None:
        """Append the description to a file whose format has no metadata, as a zip file that its runtime ignores.

        Args:
            path: The file.
            others: Files that belong to it; a checksum of all, before the zip file, is appended too.
        """
        checksum = _checksum(path.read_bytes(), others)
        with zipfile.ZipFile(path, "a") as archive:
            archive.writestr(METADATA_KEY, self.to_json())
            archive.writestr(CHECKSUM, checksum)

    @classmethod
    def from_appended(cls, path: Path, *others: Path) -> "Description":
        """Parse a description that was appended to a file, and compare the checksum.

        Raises:
            ArtefactError: The description cannot be used.
            KeyError, OSError, zipfile.BadZipFile: The file has no description, or it or one of the others was changed.
        """
        with zipfile.ZipFile(path) as archive:
            size = archive.getinfo(METADATA_KEY).header_offset
            text, checksum = (archive.read(name).decode(errors="replace") for name in (METADATA_KEY, CHECKSUM))
        if checksum != _checksum(path.read_bytes()[:size], others):
            raise zipfile.BadZipFile("the content is not what was exported")
        return cls.from_json(text)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Description":
        """Parse the description in the metadata of a file.

        Raises:
            ArtefactError: The metadata has no description, or one that cannot be used.
        """
        if METADATA_KEY not in metadata:
            raise ArtefactError(
                "it has no description by ghostnets, so classes and preprocessing are unknown; write it with:"
                " ghostnets export CHECKPOINT --format ..."
            )
        return cls.from_json(metadata[METADATA_KEY])


def _checksum(content: bytes, others: Iterable[Path]) -> str:
    digest = hashlib.sha256(content)
    for other in others:
        digest.update(other.read_bytes())
    return digest.hexdigest()
