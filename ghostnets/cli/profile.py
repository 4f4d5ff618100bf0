"""``ghostnets profile MODEL``: time and memory of a network by layer, compared with the machine's limits."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from rich.table import Table

from ghostnets import engine
from ghostnets.bench.models import BenchmarkModel, create_benchmark_model
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.options.profile import ProfileCommand
from ghostnets.cli.output import print_json, result_console
from ghostnets.compress import reparameterize
from ghostnets.measure import MachineLimits, Profile, measure_limits, processor_name, profile
from ghostnets.models.detection import Detector, DetectorMaps

__all__ = ["run"]

ABOVE = "a share above 100% means that other programs slowed its measurement."

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def run(command: ProfileCommand) -> int:
    model = _load(command)
    (_profile_engine if command.backend == "engine" else _profile_eager)(command, model)
    return 0


def _load(command: ProfileCommand) -> BenchmarkModel:
    source = command.source
    if isinstance(source, str):
        return create_benchmark_model(source, image_size=command.image_size)
    checkpoint = read_checkpoint(source, task=None)
    size = command.image_size or checkpoint.preprocessing.image_size
    return BenchmarkModel(reparameterize(checkpoint.build()).eval(), size, None, "")


def _profile_eager(command: ProfileCommand, model: BenchmarkModel) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(command.threads)
    try:
        limits = measure_limits(threads=command.threads)
        dtype, layout = DTYPES[command.precision], torch.channels_last
        x = torch.randn(command.batch, 3, model.image_size, model.image_size).to(dtype).to(memory_format=layout)
        result = profile(model.model.to(dtype).to(memory_format=layout), x, limits=limits, runs=command.runs)
    finally:
        torch.set_num_threads(before)
    if command.json:
        modules = [{**asdict(module), "share_of_limit": module.share_of_limit} for module in result.modules]
        print_json(
            {
                "network": command.network,
                "processor": processor_name(),
                "limits": asdict(limits),
                **asdict(result),
                "ideal_seconds": result.ideal_seconds,
                "modules": modules,
            }
        )
    else:
        _print_eager(command, limits, result)


def _profile_engine(command: ProfileCommand, model: BenchmarkModel) -> None:
    network = DetectorMaps(model.model) if isinstance(model.model, Detector) else model.model
    session = engine.compile(network, precision=command.precision, threads=command.threads)
    limits = measure_limits(threads=command.threads)
    x = torch.randn(command.batch, session.plan.in_channels, model.image_size, model.image_size)
    layers = session.profile(x, runs=command.runs)
    ideals = engine.ideal_seconds(layers, limits, precision=command.precision)
    if command.json:
        rows = [{**asdict(layer), "ideal_seconds": ideal} for layer, ideal in zip(layers, ideals, strict=True)]
        print_json(
            {
                "network": command.network,
                "processor": processor_name(),
                "isa": session.isa,
                "limits": asdict(limits),
                "seconds": sum(layer.seconds for layer in layers),
                "layers": rows,
            }
        )
        return
    result_console().print(
        f"{command.network}, {' x '.join(map(str, x.shape))}, {command.precision}, engine ({session.isa}),"
        f" {session.threads} threads; {processor_name()}",
        soft_wrap=True,
    )
    _print_engine(command, layers, ideals)


def _print_engine(command: ProfileCommand, layers: Sequence[Any], ideals: Sequence[float | None]) -> None:
    rows = list(zip(layers, ideals, strict=True))
    if command.layers:
        groups = [(layer.name, layer.kind, [(layer, ideal)]) for layer, ideal in rows]
    else:
        kinds: dict[str, list[Any]] = {}
        for layer, ideal in rows:
            kinds.setdefault(layer.kind, []).append((layer, ideal))
        groups = [(kind, str(len(members)), members) for kind, members in kinds.items()]
        groups.sort(key=lambda group: -sum(layer.seconds for layer, _ in group[2]))
    columns = ("module", "node") if command.layers else ("node", "count")
    table = _table(*columns, "weights (kB)", "share of limit")
    total = sum(layer.seconds for layer in layers)
    for name, kind, members in groups:
        seconds, ideal = sum(layer.seconds for layer, _ in members), sum(ideal or 0 for _, ideal in members)
        macs, weights = sum(layer.macs for layer, _ in members), sum(layer.weight_bytes for layer, _ in members)
        table.add_row(
            name or "(threads)",
            kind,
            *_time_cells(seconds, total, macs),
            f"{weights / 1e3:.0f}" if weights else "",
            f"{ideal / seconds:.0%}" if ideal and seconds else "",
        )
    console = result_console()
    console.print(table)
    ideal = sum(filter(None, ideals))
    console.print(
        f"One run, timed operation by operation, takes {total * 1e3:.2f} ms: {ideal / total:.0%} of the limit"
        f" ({ideal * 1e3:.2f} ms). The limit is the longer of the multiply-adds and of reading the weights; {ABOVE}",
        soft_wrap=True,
    )


def _print_eager(command: ProfileCommand, limits: MachineLimits, result: Profile) -> None:
    console = result_console()
    console.print(
        f"{command.network}, {' x '.join(map(str, result.input_shape))}, {result.precision}, eager PyTorch"
        f" {torch.__version__}, channels_last, {limits.threads} threads; {processor_name()}",
        soft_wrap=True,
    )
    peaks = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in limits.macs_per_second.items())
    memory = ", ".join(f"{size >> 10} kB {speed / 1e9:.0f}" for size, speed in limits.bytes_per_second)
    console.print(f"measured limits: GMAC/s: {peaks}; copy bandwidth by working set, GB/s: {memory}", soft_wrap=True)
    total = sum(module.seconds for module in result.modules)
    if command.layers:
        table = _table("module", "kind", "share of limit", "output (kB)", "peak (kB)")
        for module in result.modules:
            table.add_row(
                module.name or "(network)",
                module.kind,
                *_time_cells(module.seconds, total, module.macs),
                f"{module.share_of_limit:.0%}" if module.share_of_limit is not None else "",
                f"{module.output_bytes / 1e3:.0f}",
                f"{module.peak_bytes / 1e3:.0f}",
            )
    else:
        table = _table("kind", "count", "share of limit")
        for kind, (seconds, macs, number) in result.by_kind().items():
            ideals = [m.ideal_seconds for m in result.modules if m.kind == kind and m.ideal_seconds is not None]
            share = f"{sum(ideals) / seconds:.0%}" if ideals else ""
            table.add_row(kind, str(number), *_time_cells(seconds, total, macs), share)
    console.print(table)
    ideal = result.ideal_seconds
    share = f" ({ideal / result.seconds:.0%} of the limit, {ideal * 1e3:.2f} ms)" if ideal is not None else ""
    console.print(
        f"One run takes {result.seconds * 1e3:.2f} ms{share}; activations peak at {result.peak_bytes / 1e6:.1f} MB."
        f" The limit covers convolutions and linear layers only; {ABOVE} Rows exclude child modules:"
        " the row of a GhostModule is its concatenation, that of a GhostBottleneck its addition.",
        soft_wrap=True,
    )


def _table(first: str, second: str, *others: str) -> Table:
    table = Table(first, second, "time (us)", "share of time", "MACs (M)", *others)
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def _time_cells(seconds: float, total: float, macs: int) -> tuple[str, str, str]:
    return f"{seconds * 1e6:.0f}", f"{seconds / total:.1%}", f"{macs / 1e6:.2f}" if macs else ""
