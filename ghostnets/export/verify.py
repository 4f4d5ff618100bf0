"""Run an exported file in a fresh process on real images, and compare it with its network.

    python -m ghostnets.export.verify FILE IMAGES.npz OUTPUTS.npz

stores the file's outputs, and prints its runtime as JSON. That process does not import torch, so only the file's own
runtime can have computed them.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Description, Model, Outputs, open_model, probabilities_of
from ghostnets.errors import ExportError
from ghostnets.export.report import ExportComparison
from ghostnets.export.verify_boxes import compare_boxes, predict_by_network
from ghostnets.export.verify_masks import compare_masks

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ghostnets.checkpoints import Checkpoint
    from ghostnets.preprocessing import Preprocessing

__all__ = ["time_against_torch", "verify"]

BATCH_SIZE = 16
TIMED_RUNS, TIMED_ROUNDS = 40, 8
MIN_PROBABILITY = 1e-12  # smaller probabilities, and their logarithms, are noise

Array = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


def verify(path: Path, checkpoint: "Checkpoint", images: list[Pixels], folder: Path) -> ExportComparison:
    """Run a file in a separate process and compare it with its network; then time both in this process.

    Args:
        path: Exported file.
        checkpoint: Checkpoint that it was exported from.
        images: uint8 (N, H, W, C), one array per image size; the first is timed.
        folder: Folder for temporary files with images and outputs.

    Raises:
        ExportError: The process failed; the message has the last line of its stderr.
    """
    import torch

    outputs, facts = _run_separately(path, images, folder)
    network, threads_before = checkpoint.build(), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        model = open_model(path, threads=1)
        compare = _compare_scores if model.description.task == "classify" else _compare_maps
        found = compare(model.description, images, outputs, network, checkpoint.preprocessing)
        times = time_against_torch(model, network, _timed_images(images[0], model.description))
    finally:
        torch.set_num_threads(threads_before)
    return ExportComparison(**found, **times, **facts, threads=1, choice=model.note)


def _run_separately(path: Path, images: list[Pixels], folder: Path) -> tuple[list[Outputs], dict[str, Any]]:
    """Run a file in a separate process; return its outputs for each array of images, and what the process printed."""
    archive, results = folder / "images.npz", folder / "outputs.npz"
    np.savez(archive, *images)
    command = [sys.executable, "-m", "ghostnets.export.verify", str(path), str(archive), str(results)]
    # The child must import the same package as this process, whatever the working directory is.
    paths = os.pathsep.join(p for p in [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")] if p)
    with (
        (folder / "errors").open("w+", encoding="utf-8") as errors,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # closed when this process ends, however it ends
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        ) as process,
    ):
        assert process.stdout is not None
        try:
            printed = process.stdout.read()
        except BaseException:
            process.kill()
            raise
        code = process.wait()
        errors.seek(0)
        lines = errors.read().strip().splitlines() or [f"exit code {code}"]
    for file in (archive, folder / "errors"):
        file.unlink()
    if code != 0:
        raise ExportError(f"{path.name} failed to run in a separate process ({lines[-1]}); no file was written.")
    with np.load(results) as arrays:
        outputs = [Outputs(arrays[f"scores_{i}"], arrays.get(f"features_{i}")) for i in range(len(images))]
    results.unlink()
    return outputs, json.loads(printed.splitlines()[-1])


def main(path: str, archive: str, results: str) -> None:
    """Run the file on images, and store its outputs; entry point of the separate process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    model = open_model(path, threads=1)
    if model.note:  # of the precisions that a machine may choose from, the least precise one is compared
        model = open_model(path, threads=1, precision="bf16")
    arrays: dict[str, Array] = {}
    with np.load(archive) as images:
        for index, name in enumerate(images.files):
            outputs = _run_file(model, images[name])
            arrays[f"scores_{index}"] = outputs.scores
            if outputs.features is not None:
                arrays[f"features_{index}"] = outputs.features
    np.savez(results, **arrays)  # type: ignore[arg-type]
    print(json.dumps({"runtime": model.runtime, "torch_was_loaded": "torch" in sys.modules}))


def _end_with_parent() -> None:
    """Wait until the other end of stdin is closed, as the parent process has ended, and end this process."""
    os.read(0, 1)  # without Python's stream, whose lock would delay the end of this process
    os._exit(1)


def _run_file(model: Model, images: Pixels) -> Outputs:
    """Return the outputs of a file for its task, and features if it has them; a batch of 1 comes before larger ones."""
    starts = [0, *range(1, len(images), BATCH_SIZE)]
    batches = [images[start : 1 if start == 0 else start + BATCH_SIZE] for start in starts]
    if model.description.task != "classify":
        return Outputs(np.concatenate([model.scores(batch) for batch in batches]), None)
    outputs = [model.run(batch, features=model.description.has_features) for batch in batches]
    features = [output.features for output in outputs if output.features is not None]
    scores = np.concatenate([output.scores for output in outputs])
    return Outputs(scores, np.concatenate(features) if features else None)


def _run_network(network: "nn.Module", preprocessing: "Preprocessing", images: Pixels) -> tuple[Array, Array | None]:
    """Return logits and features of the network in eager torch; the features are None if they cannot be identified."""
    import torch

    from ghostnets.models import Network

    features: list[Tensor] = []
    is_own = isinstance(network, Network)
    classifier = network.get_submodule(network.classifier_name) if isinstance(network, Network) else network
    hook = classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    with torch.inference_mode():
        starts = range(0, len(images), BATCH_SIZE)
        logits = [network(_normalize(preprocessing, images[i : i + BATCH_SIZE])) for i in starts]
    hook.remove()
    return torch.cat(logits).numpy(), torch.cat(features).numpy() if is_own else None


def _compare_scores(
    description: Description,
    images: list[Pixels],
    outputs: list[Outputs],
    network: "nn.Module",
    preprocessing: "Preprocessing",
) -> dict[str, Any]:
    """Compare a classifier's outputs with those of the network, which has its own preprocessing.

    Returns:
        The fields of ``ExportComparison`` about differences.
    """
    is_probability, multi_label = description.output == "probabilities", description.multi_label
    differences, scales, agreements, probability_differences = [], [], [], []
    feature_differences, feature_scales = [], []
    for batch, (scores, features) in zip(images, outputs, strict=True):
        logits, expected_features = _run_network(network, preprocessing, batch)
        expected_probabilities = probabilities_of(logits, multi_label=multi_label, temperature=description.temperature)
        probabilities = scores
        if not is_probability:
            probabilities = probabilities_of(scores, multi_label=multi_label, temperature=description.temperature)
        expected = _comparable(expected_probabilities if is_probability else logits, description)
        differences.append(np.abs(_comparable(scores, description) - expected).reshape(-1))
        scales.append(np.abs(expected).max())
        agreements.append(_agreements(logits, probabilities, multi_label=multi_label))
        probability_differences.append(np.abs(expected_probabilities - probabilities).max())
        if features is not None and expected_features is not None:
            feature_differences.append(np.abs(features - expected_features).max())
            feature_scales.append(np.abs(expected_features).max())
    scale = max(scales) or 1.0  # the only score of a one-class network equals its mean
    difference = np.concatenate(differences) / scale
    return {
        "max_difference": float(difference.max()),
        "mean_difference": float(difference.mean()),
        "max_probability_difference": float(max(probability_differences)),
        "top1_agreement": float(np.concatenate(agreements).mean()),
        "max_feature_difference": (
            float(max(feature_differences) / max(feature_scales)) if feature_differences else None
        ),
    }


def _compare_maps(
    description: Description,
    images: list[Pixels],
    outputs: list[Outputs],
    network: "nn.Module",
    preprocessing: "Preprocessing",
) -> dict[str, Any]:
    """Compare the outputs of a detector or a segmentation network with those of the network, as above."""
    expected = predict_by_network(network, preprocessing, images[0])
    if description.task == "detect":
        return compare_boxes(outputs[0].scores, expected, description)
    return compare_masks(outputs[0].scores, expected)


def _timed_images(images: Pixels, description: Description) -> Pixels:
    """Return one image, or as many as the file takes."""
    return images.take(range(description.batch or 1), axis=0, mode="wrap")


def time_against_torch(model: Model, network: "nn.Module", images: Pixels) -> dict[str, Any]:
    """Time a batch in the file and in eager torch, interleaved, with the current thread settings of each.

    Args:
        model: Exported file.
        network: Network that it was exported from.
        images: uint8 (N, H, W, C).

    Returns:
        The fields of ``ExportComparison`` about time and processor.
    """
    import torch

    from ghostnets.measure import Runner, processor_name, speedup, time_interleaved

    x = _normalize(model.description.preprocessing, images)
    runners = {
        "file": Runner(lambda: model.scores(images)),
        "torch": Runner(torch.inference_mode()(lambda: network(x))),
    }
    timings = time_interleaved(runners, runs=TIMED_RUNS, rounds=TIMED_ROUNDS)
    file, eager = timings["file"], timings["torch"]
    return {
        "seconds": (file.low, file.median, file.high),
        "torch_seconds": (eager.low, eager.median, eager.high),
        "times_as_fast": speedup(eager, file),
        "runs": file.runs,
        "processor": processor_name(),
    }


def _normalize(preprocessing: "Preprocessing", images: Pixels) -> "Tensor":
    """Convert uint8 (N, H, W, C) to the network's input, float32 (N, C, H, W)."""
    import torch

    return preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))


def _comparable(scores: Array, description: Description) -> Array:
    """Return logits from the scores of a file, centred unless multi-label: softmax does not depend on their mean."""
    if description.output == "probabilities":
        scores = _log(scores) - _log(1 - scores) if description.multi_label else _log(scores)
    result: Array = scores if description.multi_label else scores - scores.mean(1, keepdims=True)
    return result


def _agreements(logits: Array, probabilities: Array, *, multi_label: bool) -> npt.NDArray[np.bool_]:
    """Return whether file and network agree on the top-1 class of each image, or on each label if multi-label."""
    result: npt.NDArray[np.bool_] = logits.argmax(1) == probabilities.argmax(1)
    return ((logits > 0) == (probabilities > 0.5)).reshape(-1) if multi_label else result


def _log(probabilities: Array) -> Array:
    result: Array = np.log(probabilities.clip(MIN_PROBABILITY))
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
