"""Weights of NanoDet-Plus-m from its ncnn file: of that network, or neck and head of another detector."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor

from ghostnets.checkpoints import EMBEDDED_WEIGHTS, Checkpoint, load_ncnn, read_ncnn
from ghostnets.errors import CheckpointError
from ghostnets.models.detection import DETECTORS, Detector, create_detector
from ghostnets.preprocessing import Preprocessing
from ghostnets.train.backbone_tasks import load_embedded_backbone
from ghostnets.train.folded_norms import find_folded_norms, restore_norms

__all__ = ["IMAGE_SIZE", "NCNN_SUFFIX", "read_published"]

IMAGE_SIZE = 416
NCNN_SUFFIX = ".param"
BINS = 8  # of the distances of every detector in the registry
PUBLISHED = "nanodet_plus_m"
OTHER_INPUTS = ("backbone.", "pan.reduce.")  # the backbone, and the convolutions that read its maps


def read_published(
    location: str,
    arguments: dict[str, Any],
    *,
    name: str,
    images: Iterable[Tensor] | None = None,
    on_message: Callable[[str], None] = lambda sentence: None,
) -> Checkpoint:
    """Read an ncnn file of the detector ``name``, or of NanoDet-Plus-m, whose neck and head another detector takes.

    Its backbone then has the weights that come with the package, if there are any.

    Args:
        location: The ``.param`` file, with the ``.bin`` file next to it.
        arguments: Those of ``create_detector``, except the number of classes, which is that of the file.
        name: The detector to build.
        images: Normalised batches, (N, C, H, W), on which the statistics of normalisation are measured that the file
            has folded into its convolutions; None to leave them folded.
        on_message: Callback for messages to the user.

    Raises:
        CheckpointError: The file cannot be read, or neither it nor its neck and head fit.
    """
    convolutions = read_ncnn(location)
    num_classes = len(convolutions[-1].bias) - 4 * BINS if convolutions else 0
    if num_classes < 1:
        raise CheckpointError(f"{location} is not an ncnn file of a detector; pass one of NanoDet-Plus.")
    source, detector = _load(location, name, num_classes)
    if images is not None:
        _restore(detector, images, location, on_message)
    arguments = {**arguments, "num_classes": num_classes}
    if source != name:
        detector = _take_neck_and_head(detector, location, name, arguments, on_message)
    classes = tuple(f"class {number}" for number in range(num_classes))
    return Checkpoint(name, arguments, detector.state_dict(), classes, Preprocessing.for_boxes(IMAGE_SIZE))


def _load(location: str, name: str, num_classes: int) -> tuple[str, Detector]:
    """Load the file into the network that it is of; return its name, and the network."""
    for candidate in dict.fromkeys((name, PUBLISHED)):
        detector = create_detector(candidate, num_classes=num_classes)
        try:
            load_ncnn(detector, location)
        except CheckpointError as error:
            problem = error
        else:
            return candidate, detector
    raise CheckpointError(f"{location} is an ncnn file, but not one of {PUBLISHED}: {problem}") from problem


def _restore(detector: Detector, images: Iterable[Tensor], location: str, on_message: Callable[[str], None]) -> None:
    """Restore the normalisation that the file has folded into its convolutions."""
    batches = list(images)
    restore_norms(detector, find_folded_norms(detector), batches)
    on_message(
        f"{location} has batch normalisation folded into its convolutions: its statistics are measured on"
        f" {sum(map(len, batches))} training images"
    )


def _take_neck_and_head(
    published: Detector, location: str, name: str, arguments: dict[str, Any], on_message: Callable[[str], None]
) -> Detector:
    """Build a detector with the published weights of neck and head, and its own of the backbone."""
    channels = DETECTORS[PUBLISHED].channels
    if DETECTORS[name].channels != channels:
        fitting = [other for other, variant in DETECTORS.items() if variant.channels == channels]
        raise CheckpointError(
            f"neck and head of {location} have {channels} channels, and those of {name} {DETECTORS[name].channels};"
            f" choose --model {' or '.join(fitting)}."
        )
    detector = create_detector(name, **arguments)
    taken = {key: value for key, value in published.state_dict().items() if not key.startswith(OTHER_INPUTS)}
    detector.load_state_dict(taken, strict=False)
    backbone = arguments.get("backbone") or DETECTORS[name].backbone
    if backbone in EMBEDDED_WEIGHTS:
        load_embedded_backbone(detector, backbone)
    weights = "the weights that come with the package" if backbone in EMBEDDED_WEIGHTS else "random weights"
    on_message(
        f"{location} is of {PUBLISHED}: {name} takes its neck and head, and {weights} of {backbone}; new are the"
        " convolutions between them"
    )
    return detector
