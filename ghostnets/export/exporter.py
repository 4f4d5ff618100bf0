"""A checkpoint in, a file that has been run and compared out."""

import os
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets import __version__
from ghostnets.artefacts import Description
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.errors import ConfigurationError, ExportError, UnknownNameError, require
from ghostnets.export.formats import FORMATS, Format
from ghostnets.export.images import RealImages, find_real_images
from ghostnets.export.report import TOLERANCES, Report, complaint
from ghostnets.export.shipped import Order
from ghostnets.export.verify import verify
from ghostnets.files import write_together

__all__ = ["export_model"]

COMPARED, CALIBRATING = 64, 192


def export_model(
    checkpoint: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    format: str = "onnx",  # noqa: A002
    precision: str = "f32",
    input: str | None = None,  # noqa: A002
    output: str | None = None,
    any_size: bool = False,
    features: bool = False,
    images: str | os.PathLike[str] | None = None,
) -> Report:
    """Writes a checkpoint as a file for a runtime.

    The file is run by its runtime in a process of its own, on real images, and compared with the network in eager
    torch, before it takes its name; the report stands beside it, as ``FILE.report.json``. It takes any number of images
    (ExecuTorch and LiteRT: one), and tells class names, preprocessing, versions and the SHA-256 of the checkpoint.

    Args:
        checkpoint: A file of this project.
        to: The file to write; the checkpoint's name with the format's suffix by default.
        format: A key of ``FORMATS``.
        precision: ``"f32"``, ``"f16"``, ``"bf16"`` or ``"int8"``, as far as the format has it.
        input: ``"uint8"``: pixels (N, H, W, C), normalised in the file; or ``"float32"``: (N, C, H, W), normalised
            before. The former by default.
        output: ``"probabilities"`` or ``"logits"``; the former by default, but for the engine, which has no softmax.
        any_size: Take images of any size, not only those of the checkpoint's preprocessing.
        features: Give what the last linear layer takes as a second output.
        images: A folder of real images to compare and, for int8, calibrate with; by default those that the network was
            trained with, if its run tells where they are, or else embedded pictures of clothes, which say how exactly
            the file computes and nothing of its accuracy. int8 needs the network's own kind of images.

    Returns:
        The report.

    Raises:
        ExportError: The network cannot be exported, its file does not run, or answers beyond the tolerance. No file is
            left.
        CheckpointError, ConfigurationError, DataError, EngineError, MissingExtraError, StorageError: As they say.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    chosen, source = FORMATS[format], Path(checkpoint)
    input, output = input or chosen.inputs[0], output or chosen.outputs[0]  # noqa: A001
    _check(format, chosen, precision=precision, input=input, output=output, any_size=any_size, features=features)
    target = source.with_suffix(chosen.suffix) if to is None else Path(to)
    if target.suffix != chosen.suffix:
        raise ConfigurationError(f"{target} would be a file of format {format}; its name must end in {chosen.suffix}.")
    for library in chosen.libraries:
        require(library, extra=chosen.extra)
    network = read_checkpoint(source)
    if not network.class_names:
        raise ExportError(f"{source} has no classes to tell apart; export a network with a classifier.")
    description = Description(
        architecture=network.architecture,
        arguments=network.arguments,
        class_names=network.class_names,
        preprocessing=network.preprocessing,
        precision=precision,
        input=input,
        output=output,
        any_size=any_size or format == "engine",
        has_features=features,
        versions=_versions(chosen),
        source_sha256=network.sha256,
    )
    shown, calibration = _images(network, source, images, precision)
    compared = [shown.pixels, *(_resized(shown.pixels, side) for side in _other_sides(description))]
    with write_together(target) as folder:
        path = folder / target.name
        chosen.write(Order(network, description, calibration), path)
        size = sum(file.stat().st_size for file in folder.iterdir())
        comparison = verify(path, source, compared, folder)
        report = Report(
            file=target.name,
            format=format,
            bytes=size,
            description=description,
            images=sum(map(len, compared)),
            images_from=shown.source,
            image_sizes=tuple((some.shape[1], some.shape[2]) for some in compared),
            comparison=comparison,
            tolerance=TOLERANCES[precision],
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        if wrong := complaint(comparison, report.tolerance):
            raise ExportError(
                f"{target} in {precision} answers otherwise than {source}, in {comparison.runtime}: {wrong}; no file"
                " was left. Take a higher precision, or another format."
            )
        (folder / f"{target.name}.report.json").write_text(report.to_json(), encoding="utf-8")
    return report


def _check(name: str, chosen: Format, **asked: str | bool) -> None:
    """Raises ConfigurationError where the format cannot hold what is asked for."""
    known = {"precision": chosen.precisions, "input": chosen.inputs, "output": chosen.outputs}
    for option, values in known.items():
        if asked[option] not in values:
            raise ConfigurationError(f"{option} is {asked[option]!r}; the format {name} has {', '.join(values)}.")
    if asked["any_size"] and not chosen.takes_any_size:
        raise ConfigurationError(f"the format {name} has files of one image size alone; leave any size out.")
    if asked["features"] and not chosen.takes_features:
        raise ConfigurationError(f"the format {name} holds no features; leave them out, or choose another format.")


def _versions(chosen: Format) -> dict[str, str]:
    found = {"ghostnets": __version__}
    for library in ("torch", *chosen.libraries):
        try:
            found.setdefault(library, version(library))
        except PackageNotFoundError:  # a library whose package has another name
            continue
    return found


def _images(
    network: Checkpoint, source: Path, folder: str | os.PathLike[str] | None, precision: str
) -> tuple[RealImages, npt.NDArray[np.uint8]]:
    """Images to compare with, and others to calibrate with where int8 asks for them."""
    if precision != "int8":
        shown = find_real_images(network, source, folder=folder, most=COMPARED)
        return shown, shown.pixels[:0]
    found = find_real_images(network, source, folder=folder, most=COMPARED + CALIBRATING)
    if not found.are_its_own:
        raise ConfigurationError(
            "int8 takes the ranges of all maps from images such as the network will see, and where those are that it"
            " was trained with is not known; name a folder of some hundred: --images FOLDER."
        )
    if len(found.pixels) < 8:
        raise ConfigurationError(f"{found.source} holds {len(found.pixels)} images; int8 needs 8, better some hundred.")
    is_shown = np.arange(len(found.pixels)) % 4 == 0  # one in four to compare, three to calibrate
    return found._replace(pixels=found.pixels[is_shown]), found.pixels[~is_shown]


def _other_sides(description: Description) -> list[tuple[int, int]]:
    """Sizes beside its own that a file of any size is tried with."""
    side = description.preprocessing.image_size
    return [(side + side // 3 + 1, side + 32), (side + 5, 2 * side - 3)] if description.any_size else []


def _resized(pixels: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """The first images at another height and width."""
    height, width = size
    some = [Image.fromarray(image.squeeze()).resize((width, height)) for image in pixels[:4]]
    return np.stack([np.asarray(image).reshape(height, width, -1) for image in some])
