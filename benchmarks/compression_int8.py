"""Measurement of ``compression.py classifier``: top-1 of a trained classifier in the int8 of the engine."""

import argparse
import time
from pathlib import Path
from typing import Any

import torch
from compression_cifar import find_images, read
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.checkpoints import read_checkpoint
from ghostnets.compress import quantize
from ghostnets.compress.fit import output_error
from ghostnets.data import spread
from ghostnets.measure import format_accuracy

__all__ = ["measure_classifier"]

BATCH = 32


def measure_classifier(options: argparse.Namespace) -> None:
    """Print top-1, agreement with float32 and error of plain int8 and of ``quantize``, whose steps the engine judges.

    Args:
        options: Of the command line: ``images`` with a folder that has ``train/`` and ``val/`` with a folder for each
            class, ``checkpoint``, ``fitted``, ``train_steps`` and ``train_lr``.
    """
    checkpoint, folder = read_checkpoint(options.checkpoint), Path(options.images[0])
    model, preprocessing = checkpoint.build(), checkpoint.preprocessing
    fitted = read(spread(find_images(folder / "train"), options.fitted), preprocessing)
    files = find_images(folder / "val")
    compared = read(files, preprocessing)
    labels = torch.tensor([checkpoint.class_names.index(path.parent.name) for path in files])
    print(f"{checkpoint.architecture}: {len(fitted)} images fitted, {len(compared)} compared", flush=True)
    expected = _run(model, compared)

    def show(name: str, network: nn.Module, **arguments: Any) -> None:
        got = _run(network, compared, **arguments)
        same = float((got.argmax(1) == expected.argmax(1)).double().mean())
        top1 = format_accuracy(int((got.argmax(1) == labels).sum()), len(labels))
        print(f"{name}: top-1 {top1}, same class {same:.1%}, error {output_error(got, expected):.4f}", flush=True)

    show("float32", model)
    int8 = {"precision": "int8", "calibration": [batch.numpy() for batch in fitted.split(BATCH)]}
    for method in ("minmax", "percentile"):
        show(f"plain, {method}", model, method=method, **int8)
    for steps in (0, options.train_steps) if options.train_steps else (0,):
        begin = time.process_time()
        made, report = quantize(model, fitted, steps=steps, lr=options.train_lr, run_int8=engine.run_int8)
        print(
            f"quantize, {steps} steps of training: {time.process_time() - begin:.0f} CPU s; {', '.join(report.steps)}"
        )
        errors = ", ".join(f"{step} {error:.4f}" for step, error in report.errors.items())
        print(f"  judged by: {errors}; in float32 {report.float_share:.1%} of multiply-adds", flush=True)
        show("  result", made, float_layers=report.float_layers, **int8)


def _run(network: nn.Module, images: Tensor, **arguments: Any) -> Tensor:
    """Outputs of the engine (N, C)."""
    session = engine.compile(network, threads=1, **arguments)
    return torch.cat([torch.as_tensor(session(batch)) for batch in images.split(BATCH)])
