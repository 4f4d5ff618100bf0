"""``ghostnets profile MODEL``: where time and memory go, layer by layer, beside what the machine could do."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import torch
import tyro
from rich.table import Table

from ghostnets import engine
from ghostnets.bench.models import BenchmarkModel, create_benchmark_model
from ghostnets.checkpoints import read_checkpoint
from ghostnets.cli.output import print_json, result_console
from ghostnets.compress import reparameterize
from ghostnets.errors import ConfigurationError
from ghostnets.measure import MachineLimits, Profile, measure_limits, processor_name, profile

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class ProfileCommand:
    """Time and peak memory of a network by kind of layer, or layer by layer, in eager PyTorch or in the engine.

    The machine's own limits are measured first: multiply-adds a second, and bytes a second by the size of the data. The
    share of the limit is what a layer's arithmetic or data would take at them, over what it took.

    Examples: ghostnets profile ghostnet_100 | ghostnets profile timm:repghostnet_100 --layers
    | ghostnets profile runs/NAME/best.safetensors --backend engine --layers
    """

    network: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")]
    """Name of a network (ghostnets list), or timm:NAME, or torchvision:NAME, or a checkpoint of this project."""
    backend: str = "eager"
    """eager, or engine: its time by node of the plan, without memory."""
    layers: bool = False
    """One row a module instead of one row a kind."""
    batch: int = 1
    """Images a run."""
    threads: int = 1
    """That share one run."""
    precision: str = "f32"
    """f32 or bf16."""
    image_size: int | None = None
    """Side of the input in pixels; the network's own by default."""
    runs: int = 30
    """Timed runs, of which the medians are shown."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(ProfileCommand, prog="ghostnets profile", args=arguments)
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16}
    if command.precision not in dtypes:
        raise ConfigurationError(f"--precision is {command.precision}; profiles are of {' and '.join(dtypes)}.")
    if command.backend not in ("eager", "engine"):
        raise ConfigurationError(f"--backend is {command.backend}; it must be eager or engine.")
    for option in ("batch", "threads", "runs"):
        if getattr(command, option) < 1:
            raise ConfigurationError(f"--{option} is {getattr(command, option)}; it must be at least 1.")
    entrant = _entrant(command)
    if command.backend == "engine":
        return _profile_engine(command, entrant)
    before = torch.get_num_threads()
    torch.set_num_threads(command.threads)
    try:
        limits = measure_limits(threads=command.threads)
        dtype, last = dtypes[command.precision], torch.channels_last
        x = torch.randn(command.batch, 3, entrant.image_size, entrant.image_size).to(dtype).to(memory_format=last)
        result = profile(entrant.model.to(dtype).to(memory_format=last), x, limits=limits, runs=command.runs)
    finally:
        torch.set_num_threads(before)
    if command.json:
        print_json(
            {"network": command.network, "processor": processor_name(), "limits": asdict(limits), **_as_dict(result)}
        )
    else:
        _print(command, limits, result)
    return 0


def _entrant(command: ProfileCommand) -> BenchmarkModel:
    """The network and the size of its images."""
    if not command.network.endswith(".safetensors"):
        return create_benchmark_model(command.network, image_size=command.image_size)
    checkpoint = read_checkpoint(command.network)
    size = command.image_size or checkpoint.preprocessing.image_size
    return BenchmarkModel(reparameterize(checkpoint.build()).eval(), size, None, "")


def _profile_engine(command: ProfileCommand, entrant: BenchmarkModel) -> int:
    session = engine.compile(entrant.model, precision=command.precision, threads=command.threads)
    limits = measure_limits(threads=command.threads)
    x = torch.randn(command.batch, session.plan.in_channels, entrant.image_size, entrant.image_size)
    layers = session.profile(x, runs=command.runs)
    ideals = engine.ideal_seconds(layers, limits, precision=command.precision)
    total = sum(layer.seconds for layer in layers)
    if command.json:
        rows = [{**asdict(layer), "ideal_seconds": ideal} for layer, ideal in zip(layers, ideals, strict=True)]
        print_json(
            {
                "network": command.network,
                "processor": processor_name(),
                "isa": session.isa,
                "limits": asdict(limits),
                "seconds": total,
                "layers": rows,
            }
        )
        return 0
    console = result_console()
    console.print(
        f"{command.network}, {' x '.join(map(str, x.shape))}, {command.precision}, engine ({session.isa}),"
        f" {session.threads} threads; {processor_name()}",
        soft_wrap=True,
    )
    if command.layers:
        groups = [(layer.name, layer.kind, [(layer, ideal)]) for layer, ideal in zip(layers, ideals, strict=True)]
    else:
        kinds: dict[str, list[Any]] = {}
        for layer, ideal in zip(layers, ideals, strict=True):
            kinds.setdefault(layer.kind, []).append((layer, ideal))
        groups = [(kind, str(len(members)), members) for kind, members in kinds.items()]
        groups.sort(key=lambda group: -sum(layer.seconds for layer, _ in group[2]))
    first, second = ("module", "node") if command.layers else ("node", "number")
    table = Table(first, second, "time (us)", "share of time", "MACs (M)", "weights (kB)", "share of limit")
    for column in table.columns[2:]:
        column.justify = "right"
    for name, kind, members in groups:
        seconds, ideal = sum(layer.seconds for layer, _ in members), sum(ideal or 0 for _, ideal in members)
        macs, weights = sum(layer.macs for layer, _ in members), sum(layer.weight_bytes for layer, _ in members)
        table.add_row(
            name or "(threads)",
            kind,
            f"{seconds * 1e6:.0f}",
            f"{seconds / total:.1%}",
            f"{macs / 1e6:.2f}" if macs else "",
            f"{weights / 1e3:.0f}" if weights else "",
            f"{ideal / seconds:.0%}" if ideal and seconds else "",
        )
    console.print(table)
    ideal = sum(filter(None, ideals))
    console.print(
        f"A run with a clock at every operation takes {total * 1e3:.2f} ms, {ideal / total:.0%} of the limit"
        f" ({ideal * 1e3:.2f} ms). The limit counts multiply-adds, or reading the weights, whichever is longer.",
        soft_wrap=True,
    )
    return 0


def _as_dict(result: Profile) -> dict[str, Any]:
    modules = [{**asdict(module), "share_of_limit": module.share_of_limit} for module in result.modules]
    return {**asdict(result), "ideal_seconds": result.ideal_seconds, "modules": modules}


def _print(command: ProfileCommand, limits: MachineLimits, result: Profile) -> None:
    console = result_console()
    console.print(
        f"{command.network}, {' x '.join(map(str, result.input_shape))}, {result.precision}, eager PyTorch"
        f" {torch.__version__}, channels_last, {limits.threads} threads; {processor_name()}",
        soft_wrap=True,
    )
    peaks = ", ".join(f"{name} {speed / 1e9:.0f}" for name, speed in limits.macs_per_second.items())
    memory = ", ".join(f"{size >> 10} kB {speed / 1e9:.0f}" for size, speed in limits.bytes_per_second)
    console.print(
        f"limits, measured: billion multiply-adds a second: {peaks}; GB/s copied within: {memory}", soft_wrap=True
    )
    name = "module" if command.layers else "kind"
    table = Table(name, "number" if not command.layers else "kind", "time (us)", "share of time", "MACs (M)")
    table.add_column("share of limit")
    if command.layers:
        table.add_column("output (kB)")
        table.add_column("peak (kB)")
    for column in table.columns[2:]:
        column.justify = "right"
    total = sum(module.seconds for module in result.modules)
    if command.layers:
        for module in result.modules:
            table.add_row(
                module.name or "(network)",
                module.kind,
                f"{module.seconds * 1e6:.0f}",
                f"{module.seconds / total:.1%}",
                f"{module.macs / 1e6:.2f}" if module.macs else "",
                f"{module.share_of_limit:.0%}" if module.share_of_limit is not None else "",
                f"{module.output_bytes / 1e3:.0f}",
                f"{module.peak_bytes / 1e3:.0f}",
            )
    else:
        for kind, (seconds, macs, number) in result.by_kind().items():
            ideals = [m.ideal_seconds for m in result.modules if m.kind == kind and m.ideal_seconds is not None]
            table.add_row(
                kind,
                str(number),
                f"{seconds * 1e6:.0f}",
                f"{seconds / total:.1%}",
                f"{macs / 1e6:.2f}" if macs else "",
                f"{sum(ideals) / seconds:.0%}" if ideals else "",
            )
    console.print(table)
    ideal = result.ideal_seconds
    share = f", {ideal / result.seconds:.0%} of the limit ({ideal * 1e3:.2f} ms)" if ideal is not None else ""
    console.print(
        f"A run takes {result.seconds * 1e3:.2f} ms{share}; at most {result.peak_bytes / 1e6:.1f} MB of activations are"
        " alive at one time. The limit counts convolutions and linear layers alone. A module's row is what it does"
        " outside of the modules in it: concatenation in a GhostModule, addition in a GhostBottleneck.",
        soft_wrap=True,
    )
