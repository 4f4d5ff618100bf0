"""Export a checkpoint: write the file, run it, compare it with the network, and report."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ghostnets import __version__
from ghostnets.artefacts import FORMATS, Description, FileFormat
from ghostnets.artefacts.checkpoint import describe_task
from ghostnets.artefacts.description import MAX_BATCH, TASKS
from ghostnets.checkpoints import Checkpoint, read_checkpoint
from ghostnets.data import spread
from ghostnets.errors import ConfigurationError, ExportError, UnknownNameError, require_installed
from ghostnets.export.deployed import ExportJob
from ghostnets.export.images import SampleImages, find_sample_images
from ghostnets.export.report import BOX_TOLERANCES, MASK_TOLERANCES, TOLERANCES, ExportReport, find_violation
from ghostnets.export.verify import verify
from ghostnets.files import write_together
from ghostnets.preprocessing import MAX_PIXELS

__all__ = ["export_model"]

# Task -> format -> precisions in which the results of a trained network were within the tolerance.
MAP_FORMATS: dict[str, dict[str, tuple[str, ...]]] = {
    task: {
        "onnx": ("f32", "f16", "int8"),
        "openvino": ("f32", "f16", "int8"),
        "engine": ("f32", "bf16", "int8"),
        "litert": ("f32",),
        "ncnn": ("f32",),
        "mnn": ("f32",),
        "executorch": ("f32",),
        **({"torch-export": ("f32",)} if task == "detect" else {}),
    }
    for task in ("detect", "segment")
}
NUM_COMPARED, NUM_CALIBRATION, MIN_INT8_IMAGES = 64, 192, 8
TASK_TOLERANCES = {"classify": TOLERANCES, "detect": BOX_TOLERANCES, "segment": MASK_TOLERANCES}
NUM_SEGMENTED = 16  # images compared by their pixels: many, and each with all classes
LOWEST_OPSET = 14  # below, onnx's converter has no rule for Sub, which differs in the types that it takes

Pixels = npt.NDArray[np.uint8]


def export_model(
    checkpoint: str | os.PathLike[str],
    to: str | os.PathLike[str] | None = None,
    *,
    format: str = "onnx",  # noqa: A002
    precision: str | None = None,
    input: str | None = None,  # noqa: A002
    output: str | None = None,
    any_size: bool = False,
    batch: int | None = None,
    opset: int | None = None,
    features: bool = False,
    images: str | os.PathLike[str] | None = None,
    max_images: int = NUM_COMPARED + NUM_CALIBRATION,
    max_pixels: int = MAX_PIXELS,
    on_stage: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a checkpoint of a classifier, a detector or a segmentation network to a file for an inference runtime.

    Before the file is moved to its final name, a separate process runs it with its runtime on real images and compares
    it with the network in eager torch; ``FILE.report.json`` is written next to it. The file contains class names,
    preprocessing, versions and the SHA-256 of the checkpoint.

    Args:
        checkpoint: Checkpoint of this package.
        to: File to write; by default the checkpoint's path with the format's suffix.
        format: Key of ``FORMATS``.
        precision: ``"f32"``, ``"f16"``, ``"bf16"`` or ``"int8"``, if supported by the format, f32 by default; for the
            engine ``"auto"`` is the default, f32 or bf16, whichever is faster on the machine that runs the file.
            Detectors and segmentation networks have fewer (docs/export.md), and no ``"auto"``.
        input: ``"uint8"`` for pixels (N, H, W, C), normalised by the file, or ``"float32"`` for normalised images
            (N, C, H, W); by default the format's first input.
        output: ``"probabilities"`` or ``"logits"``; by default probabilities, except for the engine, which has no
            softmax. A detector has logits: its predictions, which ``ObjectDetector`` decodes.
        any_size: Accept images of any size, not only of the checkpoint's image size.
        batch: Number of images that the file takes; by default any number, or one if the format takes only one. An
            ONNX file then has no dynamic dimension, as compilers for TensorRT, RKNN and Hailo need.
        opset: Version of ONNX's operators, for format ``"onnx"``, from 14 on; by default that of torch's exporter.
        features: Add the input of the last linear layer as a second output.
        images: Folder of real images for verification and int8 calibration; by default the run's training data if it
            still exists, else the embedded Fashion-MNIST, which tests numerical equivalence but not accuracy. int8
            needs images of the network's own domain.
        max_images: Maximum number of images for int8; one in four is compared, the others calibrate.
        max_pixels: Maximum number of pixels of an image that is read.
        on_stage: Callback with a description of what begins, for a progress display.

    Returns:
        The report.

    Raises:
        ExportError: The network cannot be exported, or its file does not run or exceeds the tolerance; no file is
            written.
        CheckpointError: The checkpoint cannot be read.
        ConfigurationError: The format does not support an option, or int8 has no images to calibrate with.
        DataError: ``images`` contains no readable image.
        EngineError: The engine does not support the network.
        MissingExtraError: A library of the format is not installed.
        StorageError: The file cannot be written.
    """
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    export_format, source = FORMATS[format], Path(checkpoint)
    network = read_checkpoint(source, task=None)
    gives_maps = network.task != "classify"
    precision = precision or ("f32" if gives_maps else export_format.precisions[0])
    input = input or export_format.inputs[0]  # noqa: A001
    output = output or ("logits" if gives_maps else export_format.outputs[0])
    if gives_maps:
        options = {"any_size": any_size, "features": features}
        _check_maps(source, network.task, format, precision=precision, output=output, **options)
    _check_options(format, precision=precision, input=input, output=output, any_size=any_size, batch=batch, opset=opset)
    target = source.with_suffix(export_format.suffix) if to is None else Path(to)
    if not target.name.endswith(export_format.suffix):
        raise ConfigurationError(f"{target} does not end in {export_format.suffix}, the suffix of format {format}.")
    require_installed(*export_format.libraries, extra=export_format.extra)
    _check_network(source, network, features=features)
    if gives_maps and precision == "int8":
        network = _with_float_outputs(network)
    description = Description(
        architecture=network.architecture,
        arguments=network.arguments,
        class_names=network.class_names,
        preprocessing=network.preprocessing,
        precision=precision,
        input=input,
        output=output,
        any_size=any_size or (format == "engine" and not gives_maps),
        batch=1 if export_format.batch == "one" else batch,
        has_features=features,
        temperature=network.temperature,
        multi_label=network.multi_label,
        versions=_versions(export_format),
        source_sha256=network.sha256,
        **(describe_task(network.task, network.build()) if gives_maps else {}),
    )
    notify = on_stage or _ignore
    notify("reading images")
    reading = replace(network, preprocessing=replace(network.preprocessing, max_pixels=max_pixels))
    samples, calibration = _find_images(reading, source, images, precision, max_images)
    job = ExportJob(network, description, calibration, opset)
    return _write_verified(format, source, target, job, samples, notify)


def _with_float_outputs(checkpoint: Checkpoint) -> Checkpoint:
    """Keep the last layers of a detector or segmentation network in float32: 256 levels are few for its outputs."""
    names: Sequence[str] = checkpoint.build().classifier_names  # type: ignore[assignment]
    return replace(checkpoint, float_layers=tuple(dict.fromkeys((*checkpoint.float_layers, *names))))


def _ignore(stage: str) -> None:
    """No progress display."""


def _check_options(name: str, *, batch: int | None, opset: int | None, **options: str | bool) -> None:
    """Raise ConfigurationError if the format does not support an option."""
    chosen = FORMATS[name]
    supported = {"precision": chosen.precisions, "input": chosen.inputs, "output": chosen.outputs}
    for option, values in supported.items():
        if options[option] not in values:
            raise ConfigurationError(f"{option} is {options[option]!r}; format {name} supports {', '.join(values)}.")
    if options["any_size"] and not chosen.supports_any_size:
        raise ConfigurationError(f"format {name} supports one image size only; omit any_size (--any-size).")
    if batch is not None and chosen.batch != "choice":
        number = "one image" if chosen.batch == "one" else "any number of images"
        raise ConfigurationError(f"a file of format {name} takes {number}; omit batch (--batch).")
    if batch is not None and not 1 <= batch <= MAX_BATCH:
        raise ConfigurationError(f"batch is {batch}; it must be from 1 to {MAX_BATCH}.")
    if opset is not None and not chosen.supports_opset:
        raise ConfigurationError(f"format {name} has no opset; omit it (--opset), or choose format onnx.")
    if opset is not None and opset < LOWEST_OPSET:
        raise ConfigurationError(f"opset is {opset}; it must be at least {LOWEST_OPSET}.")


def _check_network(source: Path, network: Checkpoint, *, features: bool) -> None:
    """Raise an error for a network without classes, or without the features that are asked for."""
    if not network.class_names:
        raise ExportError(f"{source} has no classes; export a network with a classifier.")
    if features and ":" in network.architecture:
        raise ConfigurationError(
            f"{network.architecture} is a network of another library, whose features are unknown; omit features"
            " (--features)."
        )


def _check_maps(source: Path, task: str, name: str, *, precision: str, output: str, **options: bool) -> None:
    """Raise ConfigurationError if a format or an option is not for detectors or segmentation networks."""
    subject, formats = f"{source} is {TASKS[task].network}", MAP_FORMATS[task]
    if name not in formats:
        raise ConfigurationError(f"{subject}, which format {name} is not tested with; choose {', '.join(formats)}.")
    precisions = formats[name]
    wrong = {
        f"precision {precision}": precision not in precisions,
        f"output {output}": output != "logits",
        **{f"{option} (--{option.replace('_', '-')})": is_given for option, is_given in options.items()},
    }
    if found := [option for option, is_wrong in wrong.items() if is_wrong]:
        raise ConfigurationError(
            f"{subject}, which format {name} holds in {' or '.join(precisions)}, with logits, in its own"
            f" image size and without features; omit {found[0]}."
        )


def _versions(export_format: FileFormat) -> dict[str, str]:
    versions = {"ghostnets": __version__}
    for library in ("torch", *export_format.libraries):
        try:
            versions.setdefault(library, version(library))
        except PackageNotFoundError:  # the distribution has another name than the module
            continue
    return versions


def _find_images(
    network: Checkpoint, source: Path, folder: str | os.PathLike[str] | None, precision: str, max_images: int
) -> tuple[SampleImages, Pixels]:
    """Load images for the comparison, and other images for int8 calibration (none for other precisions)."""
    if precision != "int8":
        number = NUM_SEGMENTED if network.task == "segment" else NUM_COMPARED
        samples = find_sample_images(network, source, folder=folder, max_images=number)
        return samples, samples.pixels[:0]
    samples = find_sample_images(network, source, folder=folder, max_images=max_images)
    if not samples.is_in_domain:
        raise ConfigurationError(
            "int8 needs images of the network's domain for calibration, and its training data was not found; give a"
            " folder of a few hundred images: --images FOLDER."
        )
    if len(samples.pixels) < MIN_INT8_IMAGES:
        raise ConfigurationError(
            f"{samples.source} contains {len(samples.pixels)} images; int8 needs at least {MIN_INT8_IMAGES}, better a"
            " few hundred."
        )
    is_compared = np.arange(len(samples.pixels)) % 4 == 0  # one in four; the others calibrate
    compared = spread(np.flatnonzero(is_compared).tolist(), NUM_SEGMENTED if network.task == "segment" else max_images)
    return samples._replace(pixels=samples.pixels[compared]), samples.pixels[~is_compared]


def _write_verified(
    format_name: str,
    source: Path,
    target: Path,
    job: ExportJob,
    samples: SampleImages,
    notify: Callable[[str], None],
) -> ExportReport:
    """Write, verify and report; no file is left unless it is within the tolerance."""
    description = job.description
    images = [samples.pixels, *(_resize(samples.pixels, size) for size in _additional_sizes(description))]
    tolerance = TASK_TOLERANCES[description.task][description.precision]
    with write_together(target) as folder:
        path = folder / target.name
        notify(f"converting to {format_name}" + (", with calibration" if description.precision == "int8" else ""))
        import_module(f"ghostnets.export.{FORMATS[format_name].module}").write(job, path)
        size = sum(file.stat().st_size for file in folder.iterdir())
        notify("verifying the file in a separate process")
        comparison = verify(path, job.checkpoint, images, folder)
        if violation := find_violation(comparison, tolerance):
            raise ExportError(
                f"{target} in {description.precision}, run by {comparison.runtime}, differs from {source}: {violation};"
                " no file was written. Choose a higher precision, or another format."
            )
        report = ExportReport(
            file=target.name,
            format=format_name,
            bytes=size,
            description=description,
            images=len(samples.pixels),
            images_from=samples.source,
            image_sizes=tuple((batch.shape[1], batch.shape[2]) for batch in images),
            resized=len(images[1]) if len(images) > 1 else 0,
            comparison=comparison,
            tolerance=tolerance,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        (folder / f"{target.name}.report.json").write_text(report.to_json(), encoding="utf-8")
    return report


def _additional_sizes(description: Description) -> list[tuple[int, int]]:
    """Choose heights and widths, other than the image size, to verify a file of dynamic size with."""
    side = description.preprocessing.image_size
    return [(side + side // 3 + 1, side + 32), (side + 5, 2 * side - 3)] if description.any_size else []


def _resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Resize the first four images."""
    height, width = size
    images = [Image.fromarray(image.squeeze()).resize((width, height)) for image in pixels[:4]]
    return np.stack([np.asarray(image).reshape(height, width, -1) for image in images])
