"""Export to ExecuTorch: XNNPACK runs the operators that it supports, portable kernels the rest.

The program takes one image of a fixed size, because its memory is planned ahead of time. The format has no metadata, so
a constant method returns the description.
"""

import warnings
from collections.abc import Callable, Iterable, Set
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.fx import Node

from ghostnets.artefacts import METADATA_KEY
from ghostnets.errors import ExportError, require
from ghostnets.export.deployed import ExportJob, trace

__all__ = ["write"]


def write(job: ExportJob, path: Path) -> None:
    """Write an ExecuTorch program; see ``FileFormat``."""
    exir = require("executorch.exir", extra="executorch")
    xnnpack = require("executorch.backends.xnnpack.partition.xnnpack_partitioner", extra="executorch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the compiler's own internals
        program = trace(job)
        if job.description.precision == "int8":
            program = _quantize(job, program)
        lowered = exir.to_edge_transform_and_lower(
            program,
            partitioner=[xnnpack.XnnpackPartitioner()],
            constant_methods={METADATA_KEY: job.description.to_json()},
        ).to_executorch()
    path.write_bytes(lowered.buffer)


def _quantize(job: ExportJob, program: ExportedProgram) -> ExportedProgram:
    """Quantize to static int8 as XNNPACK computes it, with a scale for each output channel of a weight.

    Raises:
        ExportError: A layer that stays in float32 is not found.
    """
    quantizers = require("executorch.backends.xnnpack.quantizer.xnnpack_quantizer", extra="executorch")
    pt2e = require("torchao.quantization.pt2e.quantize_pt2e", extra="executorch")
    quantizer = quantizers.XNNPACKQuantizer()
    quantizer.set_global(quantizers.get_symmetric_quantization_config(is_per_channel=True))
    quantizer.set_filter_function(_outside(_find_modules(program, job.checkpoint.float_layers)))
    prepared = pt2e.prepare_pt2e(program.module(), quantizer)
    with torch.no_grad():
        for batch in job.calibration_batches():
            prepared(torch.from_numpy(batch))
    assert program.example_inputs is not None
    return torch.export.export(pt2e.convert_pt2e(prepared), program.example_inputs[0])


def _find_modules(program: ExportedProgram, layers: Iterable[str]) -> set[str]:
    """Return the names that layers of the network have in the program."""
    modules, found = set().union(*map(_modules_of, program.graph.nodes)), set()
    for layer in layers:
        names = modules & {f"network.{layer}", layer}
        if not names:
            raise ExportError(
                f"the layer {layer} that is to stay in float32 is not in the traced network; report the network."
            )
        found |= names
    return found


def _outside(modules: Set[str]) -> Callable[[Node], bool]:
    """Return the test whether an operation is outside of all these modules."""
    return lambda node: not _modules_of(node) & modules


def _modules_of(node: Node) -> set[str]:
    """Return the names of the modules that an operation is in."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack", {})
    return {path.removeprefix("L['self'].") for path, _ in stack.values()}
