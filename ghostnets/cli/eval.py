"""``ghostnets eval ARTEFACT|CHECKPOINT DATA``: evaluate a network on labelled images."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ghostnets.checkpoints import read_checkpoint, save_checkpoint
from ghostnets.cli.eval_boxes import run_detector
from ghostnets.cli.eval_labels import choose_split, match_classes
from ghostnets.cli.eval_masks import run_segmenter
from ghostnets.cli.eval_network import EvaluatedNetwork, open_network, open_spatial
from ghostnets.cli.eval_output import image_columns, print_evaluation, to_json
from ghostnets.cli.eval_page import write_eval_page
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import download_progress, message, print_json, result_console, show_stages
from ghostnets.data import DataSpec, ImageDataset, JoinedDataset, describe_source, summarize_source
from ghostnets.errors import ConfigurationError, DataError
from ghostnets.explain.figures import confusion_figure, save_figure
from ghostnets.files import write_atomically
from ghostnets.measure import fit_temperature
from ghostnets.predict import find_writer
from ghostnets.terminal import format_count
from ghostnets.train import Evaluation, MultiLabelEvaluation, RunFolder, evaluate, evaluate_multi_label
from ghostnets.train.distributed import DistributedContext

__all__ = ["run"]

MAX_LOGITS = 200_000_000  # kept in memory for the areas under curves


def run(command: EvalCommand) -> int:
    if command.threads is not None:
        torch.set_num_threads(command.threads)
    if (model := open_spatial(command.network, command.device)) is not None:
        return (run_segmenter if model.description.task == "segment" else run_detector)(command, model)
    return _run_classifier(command)


def _run_classifier(command: EvalCommand) -> int:
    writer = None if command.out is None else find_writer(command.out, bom=command.bom)
    network = open_network(command.network, command.device, threads=command.threads)
    figure = None if network.multi_label else command.figure or command.network.parent / "confusion.png"
    if network.multi_label and command.figure is not None:
        raise ConfigurationError(
            f"{command.network} predicts several labels per image, which have no confusion matrix; omit --figure."
        )
    split, images, skipped, summary = _load_images(command, network)
    if network.device.type != "cpu":
        message(f"evaluating with {network.runtime}")
    before = time.perf_counter()
    result = _evaluate(command, network, images, network.temperature)
    seconds = time.perf_counter() - before
    temperature = network.temperature
    if command.calibrate:
        temperature = _calibrate(command, network, images)
        before_calibration, result = result, _evaluate(command, network, images, temperature)
        message(
            f"temperature {temperature:g} saved in {command.network}: expected calibration error"
            f" {before_calibration.calibration_error:.1%} before, {result.calibration_error:.1%} now, on the {split}"
            " images that it was fitted to."
        )
    in_training = RunFolder(command.network.parent).find_training_images(images.digests())
    # Printed before any file is written: a full disk does not lose the result.
    console = result_console()
    if command.json:
        values = to_json(result, images, in_training)
        facts = {"runtime": network.runtime, "temperature": temperature, "flip": command.tta == "flip"}
        files = {"picture": None if figure is None else str(figure)}
        files |= {} if command.page is None else {"page": str(command.page)}
        print_json({"part": split, **facts, **values, **files, "skipped": skipped, "data": summary})
    else:
        print_evaluation(result, images, split, in_training)
        console.print(f"{result.images / seconds:.0f} images/s")
        if skipped:
            message(f"unreadable images left out: {len(skipped)}: {' '.join(skipped[:5])}")
    if figure is not None:
        with write_atomically(figure) as temporary:
            save_figure(confusion_figure(result.confusion_cells, network.class_names), temporary, figure.suffix)
    if command.page is not None:
        title = f"{command.network.name} on {Path(command.data).name or command.data}"
        write_eval_page(command.page, result, images, title=title, split=split)
    if writer is not None and command.out is not None:
        with write_atomically(command.out) as temporary:
            writer.write_table(image_columns(result, images, range(len(images)), in_training), temporary)
    if not command.json:
        for label, path in (
            ("confusion matrix", figure),
            ("one row per image", command.out),
            ("highest losses", command.page),
        ):
            if path is not None:
                console.print(f"{label}: {path}", soft_wrap=True)
    return 0


def _evaluate(
    command: EvalCommand, network: EvaluatedNetwork, images: ImageDataset, temperature: float | None
) -> Evaluation | MultiLabelEvaluation:
    with show_stages() as on_stage:
        on_stage(f"evaluating {format_count(len(images), 'image')}")
        module = network.build(temperature=temperature, flip=command.tta == "flip")
        return _run(network, module, images, keep_logits=len(images) * len(network.class_names) <= MAX_LOGITS)


def _run(
    network: EvaluatedNetwork, module: nn.Module, images: ImageDataset, *, keep_logits: bool
) -> Evaluation | MultiLabelEvaluation:
    distributed, names = DistributedContext(device=network.device), network.class_names
    if network.multi_label:
        return evaluate_multi_label(module, images, network.transform, names, distributed=distributed)
    return evaluate(module, images, network.transform, names, keep_logits=keep_logits, distributed=distributed)


def _calibrate(command: EvalCommand, network: EvaluatedNetwork, images: ImageDataset) -> float:
    """Fit the temperature to the logits of the images as they are, and save it in the checkpoint."""
    plain = _run(network, network.model, images, keep_logits=True).predictions
    assert plain.logits is not None
    temperature = fit_temperature(plain.logits.numpy(), plain.labels.numpy())
    save_checkpoint(command.network, replace(read_checkpoint(command.network), temperature=temperature))
    return temperature


def _load_images(
    command: EvalCommand, network: EvaluatedNetwork
) -> tuple[str, ImageDataset, list[str], dict[str, Any]]:
    """The split, its images with labels in the order of the network, sentences on unreadable ones, and a summary."""
    recipe = network.training.get("recipe", {})
    data = DataSpec(
        command.data,
        full=command.full,
        root=command.root,
        skip_corrupt=command.skip_corrupt,
        progress=download_progress(),
    )
    source = data.open(
        val_share=recipe.get("val_share", 0.2), seed=recipe.get("seed", 0), network_classes=network.class_names
    )
    split: str = command.split
    if split == "auto":
        split = "val" if command.calibrate else choose_split(source, data.location, network.training)
    for sentence in describe_source(source, by_split=split != "all" or not source.val_from_train):
        message(sentence)
    to_index = torch.tensor(match_classes(source.class_names, network.class_names, command.data, kind="image"))
    names = source.split_names if split == "all" else (split,)
    preprocessing = replace(network.preprocessing, max_pixels=command.max_pixels)
    loaded = [source.load_split(name, preprocessing) for name in names]
    datasets = [images for images, _ in loaded]
    labels = torch.cat([dataset.labels for dataset in datasets])
    images = JoinedDataset(datasets, _match_labels(labels, to_index, network, command.data))
    if not len(images):
        raise DataError(f"no readable image is left in {command.data}.")
    return split, images, [sentence for _, skipped in loaded for sentence in skipped], summarize_source(source)


def _match_labels(labels: Tensor, to_index: Tensor, network: EvaluatedNetwork, data: str) -> Tensor:
    """Labels in the order of the network's classes; those of one class per image suit a multi-label network as well."""
    if not network.multi_label:
        if labels.ndim == 2:
            raise DataError(
                f"images of {data} have several labels, and the network gives one class per image; evaluate a network"
                " that was trained on several labels, or pass one label per image."
            )
        return to_index[labels]
    if labels.ndim == 1:
        labels = functional.one_hot(labels, len(to_index)).float()
    matched = torch.zeros(len(labels), len(network.class_names))
    matched[:, to_index] = labels
    return matched
