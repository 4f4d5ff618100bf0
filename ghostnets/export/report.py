"""Comparison results, tolerances, and the report written next to an exported file."""

import json
from dataclasses import asdict, dataclass

from ghostnets.artefacts import Description

__all__ = [
    "BOX_TOLERANCES",
    "MASK_TOLERANCES",
    "TOLERANCES",
    "ExportComparison",
    "ExportReport",
    "Tolerance",
    "find_violation",
]


@dataclass(frozen=True)
class Tolerance:
    """Allowed deviation of a file from its network.

    Attributes:
        max_difference: Upper bound of ``ExportComparison.max_difference`` and ``max_feature_difference``, or None.
        mean_difference: Upper bound of ``ExportComparison.mean_difference``.
        top1_agreement: Lower bound of ``ExportComparison.top1_agreement``.
        max_probability_difference: Upper bound of ``ExportComparison.max_probability_difference``, or None.
        min_iou: Lower bound of ``ExportComparison.min_iou``, for detectors; else None.
        object_agreement: Lower bound of ``ExportComparison.object_agreement``, for detectors, or None.
        mean_iou: Lower bound of ``ExportComparison.mean_iou``, for segmentation networks, or None.
    """

    max_difference: float | None
    mean_difference: float
    top1_agreement: float
    max_probability_difference: float | None = None
    min_iou: float | None = None
    object_agreement: float | None = None
    mean_iou: float | None = None


# In f32, f16 and bf16 the scores differ by rounding, which may flip near ties. int8 changes the weights themselves.
TOLERANCES = {
    "f32": Tolerance(1e-4, 1e-5, 0.98),
    "f16": Tolerance(3e-2, 5e-3, 0.95),
    "bf16": Tolerance(2e-1, 3e-2, 0.9),
    "int8": Tolerance(None, 1e-1, 0.8),
    "auto": Tolerance(2e-1, 3e-2, 0.9),  # as for bf16, in which the file is verified
}
# Of detectors. In int8 boxes move, and scores near the threshold cross it: the objects that are found count.
BOX_TOLERANCES = {
    "f32": Tolerance(None, 1e-4, 0.98, max_probability_difference=1e-3, min_iou=0.99),
    "f16": Tolerance(None, 1e-3, 0.98, max_probability_difference=1e-2, min_iou=0.97),
    "bf16": Tolerance(None, 1e-2, 0.95, max_probability_difference=5e-2, min_iou=0.9),
    "int8": Tolerance(None, 1e-1, 0.8, object_agreement=0.8),
}
MASK_TOLERANCES = {  # of segmentation networks
    "f32": Tolerance(None, 1e-4, 0.999, max_probability_difference=1e-3),
    "f16": Tolerance(None, 2e-3, 0.998, max_probability_difference=2e-2),
    "bf16": Tolerance(None, 1e-2, 0.99, max_probability_difference=1e-1),
    "int8": Tolerance(None, 1e-1, 0.9, mean_iou=0.8),
}


@dataclass(frozen=True)
class ExportComparison:
    """Result of running a file and comparing it with its network.

    Scores are logits, or logarithms of probabilities above 1e-12; in both cases the mean of each image is subtracted.
    Of a detector they are all predictions, and its boxes are compared at each point with a score above 0.05 in the file
    or in the network, and at the 100 points of each image with the highest scores; ``top1_agreement`` is the fraction
    of these points with the same class. Of a segmentation network they are the logits of all pixels, and
    ``top1_agreement`` is the fraction with the same class of the pixels whose two highest probabilities in the network
    differ by more than 0.001.

    Attributes:
        max_difference: Largest absolute difference of scores, relative to the largest score of the network.
        mean_difference: Mean absolute difference of scores, relative to the largest score of the network.
        max_probability_difference: Largest absolute difference of probabilities.
        top1_agreement: Fraction of images with the same top-1 class.
        max_feature_difference: ``max_difference`` of the features; None if the file has no feature output.
        seconds: Latency of the file for one image, or ``Description.batch``: lower quartile, median, upper quartile.
        torch_seconds: Latency of the network in eager float32 torch, interleaved with the file's runs.
        times_as_fast: Speedup over torch, by blocks of runs: lower quartile, median, upper quartile.
        runs: Number of timed runs of the file, and of the network in torch.
        threads: Number of threads, the same for the file and for torch.
        runtime: Name and version of the runtime.
        torch_was_loaded: Whether torch was imported when the file ran; True if its runtime needs it.
        processor: Name of the processor.
        choice: Precision that the engine chose on this machine, and why; empty if the precision was given.
        min_iou: Lowest IoU of a box of the file with that of the network; only for detectors.
        boxes: Number of compared boxes; only for detectors.
        object_agreement: Of the objects with a score above 0.3 after non-maximum suppression, in the file and in the
            network, the share with a partner of the same class in the other whose box has an IoU of at least 0.8; None
            without an object, and for other networks.
        pixels: Number of pixels whose classes were compared; only for segmentation networks.
        mean_iou: Intersection over union of the pixels that file and network give a class, its mean over the classes
            that the network gives; only for segmentation networks.
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
    choice: str = ""
    min_iou: float | None = None
    boxes: int | None = None
    object_agreement: float | None = None
    pixels: int | None = None
    mean_iou: float | None = None

    @property
    def compared(self) -> str:
        """What ``top1_agreement`` is a fraction of."""
        return "points" if self.boxes is not None else "pixels" if self.pixels is not None else "images"


@dataclass(frozen=True)
class ExportReport:
    """Report on an export, written as ``FILE.report.json``.

    Attributes:
        file: Name of the exported file.
        format: Key of ``FORMATS``.
        bytes: Size of the file and its companion files.
        description: Description stored in the file.
        images: Number of images compared.
        images_from: Source of the images.
        image_sizes: Height and width of the images compared.
        resized: Number of the images that were compared at every size; the others at the first only.
        comparison: Measured deviation and latency.
        tolerance: Allowed deviation.
        date: Time of the export, ISO 8601 in UTC.
    """

    file: str
    format: str
    bytes: int
    description: Description
    images: int
    images_from: str
    image_sizes: tuple[tuple[int, int], ...]
    resized: int
    comparison: ExportComparison
    tolerance: Tolerance
    date: str

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def find_violation(comparison: ExportComparison, tolerance: Tolerance) -> str | None:
    """Describe the first value beyond the tolerance; None if all are within it."""
    measured = {"max_difference": comparison.max_difference, "mean_difference": comparison.mean_difference}
    if comparison.max_feature_difference is not None:
        measured["max_difference"] = max(comparison.max_difference, comparison.max_feature_difference)
    for name, value in measured.items():
        limit = getattr(tolerance, name)
        if limit is not None and not value <= limit:  # also true for NaN
            return f"the {name.replace('_', ' ')} is {value:.2g}, the limit is {limit:.2g}"
    limit = tolerance.max_probability_difference
    if limit is not None and not comparison.max_probability_difference <= limit:
        return f"a score differs by {comparison.max_probability_difference:.2g}, the limit is {limit:.2g}"
    if tolerance.min_iou is not None and (comparison.min_iou is None or not comparison.min_iou >= tolerance.min_iou):
        return f"a box has an IoU of {comparison.min_iou} with the network's, the minimum is {tolerance.min_iou}"
    shares = {
        "object_agreement": "of the objects that file or network find are found by both",
        "mean_iou": "is the mean IoU of its classes with the network's",
    }
    for name, meaning in shares.items():
        value, limit = getattr(comparison, name), getattr(tolerance, name)
        if limit is not None and value is None:
            return "neither finds an object in the images, so the file cannot be judged; give images with objects"
        if limit is not None and not value >= limit:
            return f"{value:.1%} {meaning}, the minimum is {limit:.0%}"
    if comparison.top1_agreement < tolerance.top1_agreement:
        return (
            f"the top-1 class agrees for {comparison.top1_agreement:.2%} of the {comparison.compared}, the minimum is"
            f" {tolerance.top1_agreement:.1%}"
        )
    return None
