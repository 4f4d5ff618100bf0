"""``ghostnets compare RUN...``: compare training runs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from ghostnets.cli.options.compare import CompareCommand
from ghostnets.cli.output import message, print_json, result_console
from ghostnets.errors import RunError
from ghostnets.explain import ComparedRun, write_comparison
from ghostnets.files import find_checkpoint
from ghostnets.measure import format_accuracy
from ghostnets.train import METRICS, RunConfig, RunFolder, best_epoch

__all__ = ["run"]

DIGEST = "digest of the data"


def run(command: CompareCommand) -> int:
    runs, problems = _read_all(command.runs)
    names = dict.fromkeys(name for run in runs for name in run.settings)
    differing = [name for name in names if len({run.settings.get(name, "") for run in runs}) > 1]
    write_comparison(command.out, runs, differing)
    if command.json:
        print_json(
            {
                "runs": [{"name": r.name, "epochs": r.epochs, "curves": r.curves, "results": r.results} for r in runs],
                "differing": {name: [run.settings.get(name, "") for run in runs] for name in differing},
                "page": str(command.out),
                "problems": problems,
            }
        )
    else:
        _print(runs, differing, command.out)
    return 1 if problems else 0


def _read_all(paths: Sequence[Path]) -> tuple[list[ComparedRun], dict[str, str]]:
    """Read the runs, each once; return them, and by path why others cannot be compared, which is printed as well.

    Runs of the same name are named by their paths, and runs of different images by a note.

    Raises:
        RunError: No run can be compared.
    """
    found: dict[Path, ComparedRun] = {}
    problems: dict[str, str] = {}
    for given in paths:
        path = given.parent if given.is_file() and given == find_checkpoint(given.parent) else given
        if path.is_file():  # runs/* has the figures of --find-lr too
            message(f"left out: {path} (a file, not the folder of a run)")
            continue
        try:
            found[path] = _read(path)
        except (RunError, OSError) as error:
            problem = str(error)
            if isinstance(error, OSError):
                problem = f"{error.filename} cannot be read ({error.strerror})."
            problems[str(path)] = problem
            message(problem if str(path) in problem else f"{path}: {problem}", kind="error")
    if not found:
        raise RunError("none of these runs can be compared.")
    names = Counter(run.name for run in found.values())
    runs = [run if names[run.name] == 1 else replace(run, name=str(path)) for path, run in found.items()]
    if other := next((run for run in runs if run.curves.keys() != runs[0].curves.keys()), None):
        raise RunError(
            f"{runs[0].name} and {other.name} have different metrics, as their labels are of different kinds; compare"
            " runs of one kind."
        )
    digests = [run.settings[DIGEST] for run in runs]
    if other := next((run for run in runs if run.settings[DIGEST] != digests[0]), None):
        message(f"{runs[0].name} and {other.name} have different images, so their figures are of different images too")
    return runs, problems


def _read(path: Path) -> ComparedRun:
    run = RunFolder(path)
    config, history = run.read_config(), run.read_metrics()
    best, last = best_epoch(history), history[-1]
    result = run.read_result()
    final = "not finished"
    if result:
        evaluation = result["evaluation"]
        if "top1" in evaluation:
            images = evaluation["images"]
            score = format_accuracy(round(evaluation["top1"] * images), images, digits=2)
        else:
            name, label = ("mean_iou", "mIoU") if "mean_iou" in evaluation else ("mean_average_precision", "mAP")
            value = evaluation[name]
            score = f"no labels for {label}" if value is None else f"{value:.2%} {label}"
        final = f"{score}, {result['part']}"
    return ComparedRun(
        name=path.resolve().name,
        epochs=[row.epoch for row in history],
        curves={
            f"validation {metric.axis.label}": [metric.axis.scale * getattr(row, name) for row in history]
            for name, metric in last.metrics.items()
            if metric.axis is not None and name.startswith("val_")
        },
        results={
            "epochs": f"{len(history)} of {config.recipe.epochs}",
            f"best {METRICS[best.selection].label}": best.format(best.selection),
            "in epoch": str(best.epoch),
            **{
                f"its {metric.label}": best.format(name)
                for name, metric in best.metrics.items()
                if name.startswith("val_") and name != best.selection
            },
            "measured": final,
            **{
                metric.label: last.format(name)
                for name, metric in last.metrics.items()
                if metric.axis is None and metric.higher_is_better is not None and not name.startswith("val_")
            },
        },
        settings=_settings(config),
    )


def _settings(config: RunConfig) -> dict[str, str]:
    others = {
        "data": config.data,
        DIGEST: (config.identity or "")[:12],
        "full": config.full,
        "skip_corrupt": config.skip_corrupt,
        "max_pixels": config.preprocessing.max_pixels,
        "earlier_epochs": ", ".join(map(str, config.earlier_epochs)),
        "threads": config.threads,
        "device": config.device,
    }
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
