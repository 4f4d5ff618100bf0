"""``ghostnets predict ARTEFACT|CHECKPOINT IMAGE|FOLDER|...``: predictions, found objects or masks of images."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from ghostnets import __version__
from ghostnets.artefacts import Classifier, Model, Prediction, open_model
from ghostnets.cli.options.predict import PredictCommand
from ghostnets.cli.output import message, result_console
from ghostnets.cli.predict_output import MAX_REPORTED, PredictionProgress, hash_network, print_json_list, print_tables
from ghostnets.data.finder import LeftOut
from ghostnets.errors import ConfigurationError
from ghostnets.native import ENGINE, missing_native
from ghostnets.predict import Input, PredictionFile, as_dict, find_inputs, find_writer, predict_images
from ghostnets.terminal import format_count

if TYPE_CHECKING:
    from ghostnets.predict.sorting import ImageSorter

__all__ = ["run"]

TOP = 3  # classes per image, by default


def run(command: PredictCommand) -> int:
    options: dict[str, Any] = {
        "flip": command.tta == "flip",
        "threshold": command.threshold,
        "max_pixels": command.max_pixels,
    }
    model = open_model(command.network, threads=1, device=command.device)
    missing = missing_native(ENGINE)
    if missing and model.runtime.startswith("torch ") and " on " not in model.runtime:
        message(missing)
    if " on " in model.runtime:
        message(f"predicting with {model.runtime}")
    if model.description.task != "classify":
        return _run_other_task(command, model)
    _check_options(command)
    classifier = Classifier(model, **options)
    if command.features:
        classifier.model.require_features()
    top = min(command.top or TOP, len(classifier.class_names))
    left_out = LeftOut()
    inputs = find_inputs(command.images, left_out=left_out)
    sorter = _open_sorter(command, classifier)

    def predict(images: Iterable[Input]) -> Iterator[list[Prediction]]:
        if command.engine == "ray":
            from ghostnets.predict import predict_on_ray

            return predict_on_ray(command.network, images, top=top, features=command.features, **options)
        if sorter is not None:
            return sorter.sort(images, run_locally)
        return run_locally(images)

    def run_locally(images: Iterable[Input]) -> Iterator[list[Prediction]]:
        return predict_images(classifier, images, top=top, features=command.features, workers=command.threads)

    progress = PredictionProgress()
    with progress:
        if command.out is not None:
            settings = _settings(command, classifier.model, top)
            kind = find_writer(command.out, bom=command.bom)
            writer = kind(top=top, features=command.features, answer=classifier.threshold is not None)
            with PredictionFile(command.out, settings=settings, writer=writer) as file:
                progress.resume(file.rows, file.errors)
                for batch in progress.count(predict(file.remaining(inputs))):
                    file.write(batch)
        elif command.json:
            print_json_list(progress.count(predict(inputs)), as_dict)
        else:
            print_tables(progress.count(predict(inputs)), _print_table)
    progress.report()
    for sentence in left_out.sentences():
        message(sentence)
    if command.out is not None:
        message(f"wrote {command.out}, {format_count(progress.images, 'row')}.")
    if sorter is not None:
        _report_sorting(sorter)
    return 1 if progress.errors or (sorter is not None and sorter.problems) else 0


def _run_other_task(command: PredictCommand, model: Model) -> int:
    if model.description.task == "detect":
        from ghostnets.cli.predict_objects import run_detector

        return run_detector(command, model)
    from ghostnets.cli.predict_masks import run_segmenter

    return run_segmenter(command, model)


def _check_options(command: PredictCommand) -> None:
    """Raise ConfigurationError for options that do not apply to classifiers."""
    kinds = {"--draw": "detectors and segmentation networks", "--masks": "segmentation networks"}
    for option, value in (("--draw", command.draw), ("--masks", command.masks)):
        if value is not None:
            raise ConfigurationError(
                f"{command.network} is a classifier, and {option} is for {kinds[option]}; omit it."
            )


def _open_sorter(command: PredictCommand, classifier: Classifier) -> "ImageSorter | None":
    if command.sort_into is None:
        return None
    if classifier.model.description.multi_label:
        raise ConfigurationError(
            f"{command.network} predicts several labels per image, but --sort-into puts each image into one folder; use"
            " --out PREDICTIONS.csv instead."
        )
    from ghostnets.predict.sorting import ImageSorter

    return ImageSorter(command.sort_into, classifier.class_names, link=command.link)


def _report_sorting(sorter: "ImageSorter") -> None:
    for sentence in sorter.problems[:MAX_REPORTED]:
        message(sentence, kind="error")
    if len(sorter.problems) > MAX_REPORTED:
        message(
            f"{format_count(len(sorter.problems), 'image')} not sorted, of which {MAX_REPORTED} are named.",
            kind="error",
        )
    most = [f"{name} {count:,}" for name, count in sorter.counts.most_common(MAX_REPORTED)]
    others = len(sorter.counts) - len(most)
    by_class = ", ".join([*most, *([f"{others} more classes"] if others else [])])
    message(
        f"sorted {format_count(sorter.counts.total(), 'image')} into {sorter.folder}"
        f"{': ' if by_class else ''}{by_class}."
    )


def _settings(command: PredictCommand, model: Model, top: int) -> dict[str, Any]:
    """Return the settings that determine the predictions of an image."""
    return {
        "ghostnets": __version__,
        "network": hash_network(command.network),
        "runtime": model.runtime,
        "top": top,
        "features": command.features,
        **({} if command.threshold is None else {"threshold": command.threshold}),
        **({} if command.tta == "none" else {"tta": command.tta}),
    }


def _print_table(rows: list[Prediction]) -> None:
    from rich.table import Table
    from rich.text import Text

    has_answer = any(prediction.answer is not None for prediction in rows)
    table = Table("image", *(["answer"] if has_answer else []), "class", "probability", "next")
    table.columns[-2].justify = "right"
    for prediction in rows:
        if prediction.error:
            table.add_row(prediction.path, Text("cannot be read", style="red"))
            continue
        first, *following = zip(prediction.classes, prediction.probabilities, strict=True)
        table.add_row(
            prediction.path,
            *([prediction.answer or ""] if has_answer else []),
            first[0],
            f"{first[1]:.1%}",
            "  ".join(f"{name} {value:.1%}" for name, value in following),
        )
    result_console().print(table)
