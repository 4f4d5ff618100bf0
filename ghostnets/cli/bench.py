"""``ghostnets bench MODEL...``: how fast networks are, in every backend that is installed, in one run."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import tyro
from rich.progress import Progress
from rich.table import Table

from ghostnets.bench import BACKENDS, BenchmarkResult, BenchmarkSettings, run_benchmark
from ghostnets.bench.figures import accuracy_figure, kinds_figure, macs_figure
from ghostnets.bench.models import create_benchmark_model
from ghostnets.cli.output import print_json, progress_console, result_console
from ghostnets.errors import ConfigurationError
from ghostnets.files import write_text
from ghostnets.measure import profile

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class BenchCommand:
    """Time networks side by side: every combination alternates with all others, in one run.

    Networks of timm and torchvision stand in the same run as timm:NAME and torchvision:NAME. Weights are random and the
    input is noise. What a time depends on is printed above the table.

    Examples: ghostnets bench ghostnet_100 --backends eager,openvino --threads 1,2
    | ghostnets bench ghostnet_100 ghostnetv3_100 torchvision:mobilenet_v3_large --backends openvino --out bench
    """

    networks: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="MODEL")]
    """Names (ghostnets list), or timm:NAME, or torchvision:NAME."""
    backends: str = "eager"
    """Separated by commas: eager, compile, onnxruntime, openvino, engine."""
    batch: str = "1"
    """Images a run, separated by commas."""
    threads: str = "1"
    """That share one run, separated by commas."""
    precision: str = "f32"
    """Separated by commas: f32, bf16, int8."""
    baseline: str | None = None
    """The backend that ratios refer to, with the first network; the first backend by default."""
    image_size: int | None = None
    """Side of the input in pixels; each network's own by default."""
    runs: int = 200
    """Timed runs of each combination at the least."""
    rounds: int = 10
    """Blocks that these are spread over, in turns."""
    out: Path | None = None
    """A folder for bench.json and pictures (SVG)."""
    json: bool = False
    """Print the result as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(BenchCommand, prog="ghostnets bench", args=arguments)
    settings = BenchmarkSettings(
        networks=command.networks,
        backends=_split(command.backends),
        batches=_numbers("--batch", command.batch),
        threads=_numbers("--threads", command.threads),
        precisions=_split(command.precision),
        image_size=command.image_size,
        runs=command.runs,
        rounds=command.rounds,
    )
    with Progress(console=progress_console(), transient=True) as bars:
        task = bars.add_task("", total=None)
        built: list[str] = []

        def on_row(name: str) -> None:
            built.append(name)
            bars.update(task, description=f"building {name}")

        def on_block() -> None:
            bars.update(task, description="timing", total=len(built) * settings.rounds, advance=1)

        comparison = run_benchmark(settings, baseline=command.baseline, on_row=on_row, on_block=on_block)
    if command.out is not None:
        _write(command.out, comparison)
    if command.json:
        print_json(comparison.to_dict())
    else:
        _print(comparison, command.out)
    return 0


def _split(value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _numbers(option: str, value: str) -> tuple[int, ...]:
    try:
        return tuple(map(int, _split(value)))
    except ValueError as error:
        raise ConfigurationError(f"{option} is {value!r}; give whole numbers separated by commas.") from error


def _print(comparison: BenchmarkResult, out: Path | None) -> None:
    console = result_console()
    versions = ", ".join(f"{name} {version}" for name, version in comparison.versions.items())
    console.print(f"{comparison.processor}, {comparison.platform}", soft_wrap=True)
    console.print(f"{versions}, {comparison.date}", soft_wrap=True)
    for backend in comparison.settings.backends:
        console.print(f"{backend}: {BACKENDS[backend].setting}", soft_wrap=True, markup=False)
    table = Table("network", "backend", "precision", "batch", "threads", "MACs (M)", "ms a run", "quartiles")
    table.add_column("images/s")
    table.add_column("times as fast (quartiles)")
    table.add_column("difference")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in comparison.rows:
        low, median, high = row.times_as_fast
        table.add_row(
            row.network,
            row.backend,
            row.precision,
            str(row.batch),
            str(row.threads),
            f"{row.macs / 1e6:.1f}",
            f"{row.seconds.median * 1e3:.2f}",
            f"{row.seconds.low * 1e3:.2f} to {row.seconds.high * 1e3:.2f}",
            f"{row.images_per_second:.0f}",
            f"{median:.2f} ({low:.2f} to {high:.2f})",
            f"{row.difference:.0e}",
        )
    console.print(table)
    runs = comparison.rows[0].seconds.runs
    console.print(
        f"Medians of {runs} runs each, in {comparison.settings.rounds} alternating blocks. Times as fast as"
        f" {' '.join(comparison.baseline)} of the same batch and threads, block by block. Difference: the largest, from"
        " eager float32, over the largest output; random weights, and int8 ranges from noise.",
        soft_wrap=True,
    )
    for sentence in comparison.left_out:
        console.print(f"Left out: {sentence}", soft_wrap=True)
    if out is not None:
        console.print(f"Wrote bench.json and pictures to {out}.", soft_wrap=True, markup=False)


def _write(folder: Path, comparison: BenchmarkResult) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "bench.json", json.dumps(comparison.to_dict(), indent=2) + "\n")
    macs_figure(comparison.rows).savefig(folder / "latency-macs.svg", facecolor="white")
    profiles = {}
    for name in comparison.settings.networks:
        entrant = create_benchmark_model(name, image_size=comparison.settings.image_size)
        profiles[name] = profile(entrant.model, torch.randn(1, 3, entrant.image_size, entrant.image_size))
    kinds_figure(profiles).savefig(folder / "time-by-layer.svg", facecolor="white")
    accuracy = accuracy_figure(comparison.rows)
    if accuracy is not None:
        accuracy.savefig(folder / "accuracy-latency.svg", facecolor="white")
