"""``ghostnets compare RUN...``: training runs side by side."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.table import Table

from ghostnets.cli.output import print_json, result_console
from ghostnets.cli.run_report import minutes
from ghostnets.errors import RunError, require
from ghostnets.explain import ComparedRun, write_comparison
from ghostnets.train import RunConfig, RunFolder

__all__ = ["main"]


@tyro.conf.configure(tyro.conf.FlagCreatePairsOff)
@dataclass(frozen=True)
class CompareCommand:
    """Lay training runs side by side: curves, results, and the settings that differ. Runs may still be going on.

    Example: ghostnets compare runs/plain runs/ghost
    """

    runs: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="RUN")]
    """Folders of runs, runs/NAME."""
    out: Path = Path("compare.html")
    """Where the page goes."""
    json: bool = False
    """Print the comparison as JSON on stdout."""


def main(arguments: list[str]) -> int:
    command = tyro.cli(CompareCommand, prog="ghostnets compare", args=arguments)
    for library in ("matplotlib", "jinja2"):
        require(library, extra="train")
    if not command.runs:
        raise RunError("no run is given; give folders such as runs/NAME.")
    runs = [_read(path) for path in command.runs]
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differing = [name for name in names if len({run.settings.get(name, "") for run in runs}) > 1]
    write_comparison(command.out, runs, differing)
    if command.json:
        print_json(
            {
                "runs": [{"name": r.name, "epochs": r.epochs, "curves": r.curves, "results": r.results} for r in runs],
                "differing": {name: [run.settings.get(name, "") for run in runs] for name in differing},
                "page": str(command.out),
            }
        )
    else:
        _print(runs, differing, command.out)
    return 0


def _read(path: Path) -> ComparedRun:
    run = RunFolder(path)
    config, history = run.read_config(), run.read_metrics()
    best = max(history, key=lambda row: row.val_top1)
    result = _result(run)
    final = f"{result['evaluation']['top1']:.2%} ({result['part']})" if result else "not finished"
    return ComparedRun(
        name=path.resolve().name,
        epochs=[row.epoch for row in history],
        curves={
            "validation loss (nats)": [row.val_loss for row in history],
            "validation top-1 (%)": [100 * row.val_top1 for row in history],
        },
        results={
            "epochs": f"{len(history)} of {config.recipe.epochs}",
            "best val top-1": f"{best.val_top1:.2%}",
            "in epoch": str(best.epoch),
            "its val loss": f"{best.val_loss:.3f}",
            "measured": final,
            "images/s": f"{history[-1].images_per_second:.0f}",
            "minutes": minutes(history[-1].seconds),
        },
        settings=_settings(config),
    )


def _result(run: RunFolder) -> dict[str, Any]:
    try:
        result: dict[str, Any] = json.loads(run.result.read_text(encoding="utf-8")) if run.result.is_file() else {}
        return result
    except ValueError as error:
        raise RunError(f"{run.result} cannot be read ({error}); resume the run to write it again.") from error


def _settings(config: RunConfig) -> dict[str, str]:
    others = {"data": config.data, "full": config.full, "threads": config.threads, "device": config.device}
    return {name: str(value) for name, value in {**config.recipe.to_dict(), **others}.items()}


def _print(runs: list[ComparedRun], differing: list[str], page: Path) -> None:
    console = result_console()
    results = Table("run", *runs[0].results)
    for column in results.columns[1:]:
        column.justify = "right"
    for run in runs:
        results.add_row(run.name, *run.results.values())
    console.print(results)
    if differing:
        settings = Table("setting", *(run.name for run in runs))
        for name in differing:
            settings.add_row(name, *(run.settings.get(name, "") for run in runs))
        console.print(settings)
    else:
        console.print("All settings are the same.")
    console.print(f"curves: {page}", soft_wrap=True)
