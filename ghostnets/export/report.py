"""What a comparison found, what it may find, and the report that stands beside an exported file."""

import json
from dataclasses import asdict, dataclass

from ghostnets.artefacts import Description

__all__ = ["TOLERANCES", "Comparison", "Report", "Tolerance", "complaint"]


@dataclass(frozen=True)
class Tolerance:
    """How far a file may be from its network.

    Attributes:
        max_difference: See ``Comparison``; None for no limit.
        mean_difference: See ``Comparison``.
        top1_agreement: At least.
    """

    max_difference: float | None
    mean_difference: float
    top1_agreement: float


# Rounding alone moves the scores in the first three; a near tie may then go the other way. int8 is another network.
TOLERANCES = {
    "f32": Tolerance(1e-4, 1e-5, 0.98),
    "f16": Tolerance(3e-2, 5e-3, 0.95),
    "bf16": Tolerance(2e-1, 3e-2, 0.9),
    "int8": Tolerance(None, 1e-1, 0.8),
}


@dataclass(frozen=True)
class Comparison:
    """What the fresh process found out.

    Scores are logits, or the logarithms of probabilities above 1e-12, in both cases less their mean for each image.

    Attributes:
        max_difference, mean_difference: Between the scores of file and network, over the largest score of the network.
        max_probability_difference: Largest difference of two probabilities.
        top1_agreement: Share of the images for which both name the same class.
        max_feature_difference: As ``max_difference``, of the features, or None where the file has none.
        seconds: One image in the file: lower quartile, median, upper quartile of the runs.
        torch_seconds: One image in the network as it was, eager torch in float32, runs in turn with the file's.
        times_as_fast: As torch, by blocks of runs: lower quartile, median, upper quartile.
        runs: Timed runs of each.
        threads: Of both.
        runtime: What ran the file.
        torch_was_loaded: When the file answered; True where its runtime needs it.
        processor: On which.
    """

    max_difference: float
    mean_difference: float
    max_probability_difference: float
    top1_agreement: float
    max_feature_difference: float | None
    seconds: tuple[float, float, float]
    torch_seconds: tuple[float, float, float]
    times_as_fast: tuple[float, float, float]
    runs: int
    threads: int
    runtime: str
    torch_was_loaded: bool
    processor: str


@dataclass(frozen=True)
class Report:
    """What stands beside an exported file.

    Attributes:
        file, format, bytes: Its name, and its size with all that belongs to it.
        description: As it stands in the file.
        images: How many were compared.
        images_from: Where they come from.
        image_sizes: Height and width of the images that were compared.
        comparison, tolerance: Found and allowed.
        date: ISO 8601, UTC.
    """

    file: str
    format: str
    bytes: int
    description: Description
    images: int
    images_from: str
    image_sizes: tuple[tuple[int, int], ...]
    comparison: Comparison
    tolerance: Tolerance
    date: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def complaint(comparison: Comparison, tolerance: Tolerance) -> str | None:
    """What is beyond the tolerance, or None."""
    found = {"max_difference": comparison.max_difference, "mean_difference": comparison.mean_difference}
    if comparison.max_feature_difference is not None:
        found["max_difference"] = max(comparison.max_difference, comparison.max_feature_difference)
    for name, value in found.items():
        most = getattr(tolerance, name)
        if most is not None and not value <= most:  # not a number is beyond everything
            return f"the {name.replace('_', ' ')} is {value:.2g}, at most {most:.2g} is allowed"
    if comparison.top1_agreement < tolerance.top1_agreement:
        return (
            f"{comparison.top1_agreement:.1%} of the images get the same class, at least {tolerance.top1_agreement:.0%}"
            " must"
        )
    return None
