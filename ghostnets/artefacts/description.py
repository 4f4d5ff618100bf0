"""What a shipped file says of itself: enough to ask it something, and to know where it comes from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ghostnets.errors import ArtefactError

__all__ = ["INPUTS", "METADATA_KEY", "OUTPUTS", "PRECISIONS", "Description"]

METADATA_KEY = "ghostnets_artefact"  # in every format; some take letters and underscores alone
FORMAT_VERSION = 1

PRECISIONS = ("f32", "f16", "bf16", "int8")
INPUTS = ("uint8", "float32")
OUTPUTS = ("logits", "probabilities")


@dataclass(frozen=True)
class Description:
    """A network that was shipped.

    Attributes:
        architecture: Name in the registry.
        arguments: Keyword arguments of ``create_model``.
        class_names: One name a class, in the order of the outputs.
        preprocessing: From an image to the input, as ``data.Preprocessing.to_dict`` gives it.
        precision: Of weights and arithmetic, one of ``PRECISIONS``; the outputs are float32 always.
        input: ``"uint8"``: (N, H, W, C), normalised by the file. ``"float32"``: (N, C, H, W), normalised already.
        output: ``"logits"`` or ``"probabilities"``.
        any_size: Whether H and W may differ from the ``image_size`` of the preprocessing.
        has_features: Whether a second output gives what the last linear layer takes, (N, features).
        versions: Of what wrote the file: ``{"ghostnets": "0.1.0", "torch": "2.14.1", ...}``.
        source_sha256: Of the checkpoint that the file was made from.
    """

    architecture: str
    arguments: dict[str, Any]
    class_names: tuple[str, ...]
    preprocessing: dict[str, Any]
    precision: str = "f32"
    input: str = "uint8"
    output: str = "logits"
    any_size: bool = False
    has_features: bool = False
    versions: dict[str, str] = field(default_factory=dict)
    source_sha256: str = ""

    def __post_init__(self) -> None:
        """Raises ArtefactError where a value cannot be used."""
        texts = {"architecture": self.architecture, "source_sha256": self.source_sha256}
        texts |= {f"class {index}": name for index, name in enumerate(self.class_names)}
        wrong = [f"{name} is {text!r}" for name, text in texts.items() if not isinstance(text, str)]
        for name, known in (("precision", PRECISIONS), ("input", INPUTS), ("output", OUTPUTS)):
            if getattr(self, name) not in known:
                wrong.append(f"{name} is {getattr(self, name)!r}, not one of {', '.join(known)}")
        try:
            mean, std = list(map(float, self.mean)), list(map(float, self.std))
            is_usable = len(mean) == len(std) >= 1 and min(std) > 0 and self.image_size >= 1
        except (KeyError, TypeError, ValueError):
            is_usable = False
        if not is_usable:
            wrong.append(f"preprocessing is {self.preprocessing!r}")
        if wrong:
            raise ArtefactError(f"its description cannot be used ({'; '.join(wrong)}); export the network again.")

    @property
    def image_size(self) -> int:
        """Side of the square input in pixels."""
        return int(self.preprocessing["image_size"])

    @property
    def mean(self) -> tuple[float, ...]:
        """Of pixels in [0, 1], one value a channel."""
        return tuple(self.preprocessing["mean"])

    @property
    def std(self) -> tuple[float, ...]:
        """As ``mean``."""
        return tuple(self.preprocessing["std"])

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return len(self.mean)

    def to_json(self) -> str:
        """The text that stands in the file under ``METADATA_KEY``."""
        return json.dumps({"format_version": FORMAT_VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> "Description":
        """Reads what ``to_json`` wrote.

        Raises:
            ArtefactError: It is damaged, or of another version.
        """
        try:
            values = json.loads(text)
            version = values.pop("format_version")
            if version != FORMAT_VERSION:
                raise ArtefactError(
                    f"its description has format {version}, this ghostnets reads format {FORMAT_VERSION};"
                    " export the network again."
                )
            return cls(**{**values, "class_names": tuple(values["class_names"])})
        except ArtefactError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ArtefactError(
                f"its description cannot be used ({type(error).__name__}: {error}); export the network again."
            ) from error

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "Description":
        """Finds the description among the metadata of a file.

        Raises:
            ArtefactError: There is none, or it cannot be used.
        """
        if METADATA_KEY not in metadata:
            raise ArtefactError(
                "it has no description by ghostnets, so classes and preprocessing are unknown; write it with:"
                " ghostnets export CHECKPOINT --format ..."
            )
        return cls.from_json(metadata[METADATA_KEY])
