"""``ghostnets bench MODEL...``: benchmark networks across inference backends in one run."""

import json
from pathlib import Path

import torch
from rich.table import Table

from ghostnets.bench import BACKENDS, BenchmarkResult, BenchmarkSettings, run_benchmark
from ghostnets.bench.figures import accuracy_figure, kinds_figure, macs_figure
from ghostnets.bench.models import create_benchmark_model
from ghostnets.cli.options.bench import BenchCommand
from ghostnets.cli.output import print_json, progress_bars, result_console
from ghostnets.files import write_text
from ghostnets.measure import profile

__all__ = ["run"]


def run(command: BenchCommand) -> int:
    settings = BenchmarkSettings(
        networks=command.networks,
        backends=command.backend_names,
        batches=command.batches,
        threads=command.thread_counts,
        precisions=command.precisions,
        image_size=command.image_size,
        runs=command.runs,
        rounds=command.rounds,
    )
    with progress_bars() as bars:
        task = bars.add_task("building networks", total=None)
        built: list[str] = []

        def on_row(name: str) -> None:
            built.append(name)
            bars.update(task, description=f"building {name}")

        def on_block() -> None:
            bars.update(task, description="timing", total=len(built) * settings.rounds, advance=1)

        result = run_benchmark(settings, baseline=command.baseline, on_row=on_row, on_block=on_block)
    if command.out is not None:
        _write(command.out, result)
    if command.json:
        print_json(result.to_dict())
    else:
        _print(result, command.out)
    return 0


def _print(result: BenchmarkResult, out: Path | None) -> None:
    console = result_console()
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    console.print(f"{result.processor}, {result.platform}", soft_wrap=True)
    console.print(f"{versions}, {result.date}", soft_wrap=True)
    for backend in result.settings.backends:
        console.print(f"{backend}: {BACKENDS[backend].configuration}", soft_wrap=True)
    table = Table("network", "backend", "precision", "batch", "threads", "MACs (M)", "ms per run", "quartiles")
    table.add_column("images/s")
    table.add_column("speedup (quartiles)")
    table.add_column("difference")
    for column in table.columns[3:]:
        column.justify = "right"
    for row in result.rows:
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
    runs = result.rows[0].seconds.runs
    console.print(
        f"Medians of {runs} runs each, in {result.settings.rounds} interleaved blocks. Speedup: over"
        f" {' '.join(result.baseline)} at the same batch size and threads, block by block. Difference: largest"
        " deviation from eager float32, relative to the largest output; weights and int8 calibration are random.",
        soft_wrap=True,
    )
    for sentence in result.left_out:
        console.print(f"Skipped: {sentence}", soft_wrap=True)
    if out is not None:
        console.print(f"Wrote bench.json and figures to {out}.", soft_wrap=True)


def _write(folder: Path, result: BenchmarkResult) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "bench.json", json.dumps(result.to_dict(), indent=2) + "\n")
    macs_figure(result.rows).savefig(folder / "latency-macs.svg", facecolor="white")
    profiles = {}
    for name in result.settings.networks:
        model = create_benchmark_model(name, image_size=result.settings.image_size)
        profiles[name] = profile(model.model, torch.randn(1, 3, model.image_size, model.image_size))
    kinds_figure(profiles).savefig(folder / "time-by-layer.svg", facecolor="white")
    accuracy = accuracy_figure(result.rows)
    if accuracy is not None:
        accuracy.savefig(folder / "accuracy-latency.svg", facecolor="white")
