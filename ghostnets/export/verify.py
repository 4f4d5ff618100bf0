"""An exported file, run by its runtime in a fresh process on real images, beside the network that it came from.

    python -m ghostnets.export.verify FILE CHECKPOINT IMAGES.npz

prints the comparison as JSON. The file answers before torch is imported, so that nothing but its own runtime can have
answered.
"""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Model, Outputs, open_model, softmax
from ghostnets.errors import ExportError
from ghostnets.export.report import Comparison

if TYPE_CHECKING:
    from torch import Tensor

    from ghostnets.models import Network
    from ghostnets.preprocessing import Preprocessing

__all__ = ["times_beside_torch", "verify"]

BATCH = 16
TIMED_RUNS, TIMED_ROUNDS = 40, 8
LEAST_PROBABILITY = 1e-12  # below, probabilities and their logarithms are noise

Array = npt.NDArray[np.float32]


def verify(path: Path, checkpoint: Path, images: list[npt.NDArray[np.uint8]], folder: Path) -> Comparison:
    """Runs a file in a process of its own.

    Args:
        path: The file.
        checkpoint: Of the network that it was made from.
        images: uint8 (N, H, W, C), one array for each size; the first is timed.
        folder: For the images.

    Raises:
        ExportError: The process failed; the last line that it wrote says why.
    """
    archive = folder / "images.npz"
    np.savez(archive, *images)
    command = [sys.executable, "-m", "ghostnets.export.verify", str(path), str(checkpoint), str(archive)]
    # It shall find this package as this process does, whatever the current folder is.
    paths = os.pathsep.join(p for p in [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")] if p)
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": paths})
    archive.unlink()
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"it ended with code {done.returncode}"]
        raise ExportError(f"{path.name} did not run in a process of its own ({lines[-1]}); no file was left.")
    values: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    times: dict[str, Any] = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Comparison(**{**values, **times})


def main(path: str, checkpoint_path: str, archive: str) -> None:
    """The fresh process."""
    model = open_model(path, threads=1)
    with np.load(archive) as arrays:
        images = [arrays[name] for name in arrays.files]
    answers = [_run(model, some) for some in images]
    torch_was_loaded = "torch" in sys.modules
    comparison = _compare(model, Path(checkpoint_path), images, answers, torch_was_loaded)
    print(json.dumps(asdict(comparison)))


def _run(model: Model, images: npt.NDArray[np.uint8]) -> Outputs:
    """Runs the first image alone and the others in batches, the last of which may be smaller."""
    starts = [0, *range(1, len(images), BATCH)]
    batches = [images[start : 1 if start == 0 else start + BATCH] for start in starts]
    outputs = [model.run(batch, features=model.description.has_features) for batch in batches]
    features = [output.features for output in outputs if output.features is not None]
    scores = np.concatenate([output.scores for output in outputs])
    return Outputs(scores, np.concatenate(features) if features else None)


def _compare(
    model: Model,
    checkpoint_path: Path,
    images: list[npt.NDArray[np.uint8]],
    answers: list[Outputs],
    torch_was_loaded: bool,
) -> Comparison:
    import torch

    from ghostnets.checkpoints import read_checkpoint
    from ghostnets.models import Network

    torch.set_num_threads(1)
    checkpoint = read_checkpoint(checkpoint_path)
    network, preprocessing = checkpoint.build(), checkpoint.preprocessing
    assert isinstance(network, Network)
    classifier = network.get_submodule(network.classifier_name)
    taken: list[torch.Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, inputs: taken.append(inputs[0]))

    gives_probabilities = model.description.output == "probabilities"
    differences, scales, agreements, probabilities = [], [], [], []
    feature_differences, feature_scales = [], []
    for some, (scores, features) in zip(images, answers, strict=True):
        taken.clear()
        with torch.inference_mode():
            logits = torch.cat(
                [network(_prepared(preprocessing, some[i : i + BATCH])) for i in range(0, len(some), BATCH)]
            ).numpy()
        expected = softmax(logits)
        got = scores if gives_probabilities else softmax(scores)
        right = _centered(np.log(expected.clip(LEAST_PROBABILITY)) if gives_probabilities else logits)
        found = _centered(np.log(scores.clip(LEAST_PROBABILITY)) if gives_probabilities else scores)
        differences.append(np.abs(found - right).reshape(-1))
        scales.append(np.abs(right).max())
        agreements.append(logits.argmax(1) == scores.argmax(1))
        probabilities.append(np.abs(expected - got).max())
        if features is not None:
            wanted = torch.cat(taken).numpy()
            feature_differences.append(np.abs(features - wanted).max())
            feature_scales.append(np.abs(wanted).max())
    hook.remove()
    scale = max(scales) or 1.0  # a network of one class has one score, which is its mean
    difference = np.concatenate(differences) / scale

    return Comparison(
        max_difference=float(difference.max()),
        mean_difference=float(difference.mean()),
        max_probability_difference=float(max(probabilities)),
        top1_agreement=float(np.concatenate(agreements).mean()),
        max_feature_difference=float(max(feature_differences) / max(feature_scales)) if feature_differences else None,
        threads=1,
        runtime=model.runtime,
        torch_was_loaded=torch_was_loaded,
        **times_beside_torch(model, network, images[0][:1]),
    )


def times_beside_torch(model: Model, network: "Network", image: npt.NDArray[np.uint8]) -> dict[str, Any]:
    """One image in the file and in eager torch, in turns, each with the threads that it has.

    Args:
        model: The file.
        network: What it was made from.
        image: uint8 (1, H, W, C).

    Returns:
        What a ``Comparison`` says of time, and of what it was taken on.
    """
    import torch

    from ghostnets.measure import Runner, processor_name, speedup, time_interleaved

    x = _prepared(model.description.preprocessing, image)
    runners = {"file": Runner(lambda: model.run(image)), "torch": Runner(torch.inference_mode()(lambda: network(x)))}
    timings = time_interleaved(runners, runs=TIMED_RUNS, rounds=TIMED_ROUNDS)
    file, eager = timings["file"], timings["torch"]
    return {
        "seconds": (file.low, file.median, file.high),
        "torch_seconds": (eager.low, eager.median, eager.high),
        "times_as_fast": speedup(eager, file),
        "runs": file.runs,
        "processor": processor_name(),
    }


def _prepared(preprocessing: "Preprocessing", images: npt.NDArray[np.uint8]) -> "Tensor":
    """What the network takes."""
    import torch

    return preprocessing.normalize(torch.from_numpy(images).permute(0, 3, 1, 2))


def _centered(scores: Any) -> Array:
    result: Array = scores - scores.mean(1, keepdims=True)
    return result


if __name__ == "__main__":
    main(*sys.argv[1:])
