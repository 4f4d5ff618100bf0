"""``ghostnets eval SEGMENTER DATA``: overlap and pixel accuracy of a segmentation network on labelled masks."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ghostnets.artefacts import Model, SegmentedImage, Segmenter
from ghostnets.cli.eval_labels import check_classifier_options, find_training_images, open_labels
from ghostnets.cli.eval_masks_output import MaskRow, columns_of, print_masks, to_json, write_masks_page
from ghostnets.cli.options.eval import EvalCommand
from ghostnets.cli.output import message, print_json, result_console
from ghostnets.cli.predict_output import PredictionProgress
from ghostnets.data import summarize_source
from ghostnets.data.masks import IGNORED, MaskFolder, MaskPair
from ghostnets.errors import DataError
from ghostnets.files import write_atomically
from ghostnets.measure import MaskScores, PixelConfusion
from ghostnets.predict import Input, find_writer, segment_images

__all__ = ["run_segmenter"]


class _Outcome(NamedTuple):
    """Confusion of the pixels of one image; None if it cannot be read."""

    confusion: PixelConfusion | None
    error: str | None


@dataclass(frozen=True)
class _LabelledMasks:
    """The images to evaluate, and their masks with the labels of the network."""

    folder: MaskFolder
    split: str
    pairs: list[MaskPair]
    to_network: npt.NDArray[np.uint8]  # label of the data, or IGNORED -> label of the network, or IGNORED
    max_pixels: int

    def read_mask(self, pair: MaskPair) -> npt.NDArray[np.uint8]:
        """Class of the network of each pixel of an image, (H, W)."""
        return self.to_network[self.folder.source.read_mask(pair, max_pixels=self.max_pixels)]


def run_segmenter(command: EvalCommand, model: Model) -> int:
    """Evaluate an opened segmentation network with the masks that ``predict`` writes, at the size of the images."""
    check_classifier_options(command, "a segmentation network", has_flip=True)
    writer = None if command.out is None else find_writer(command.out, bom=command.bom)
    segmenter = Segmenter(model, flip=command.tta == "flip", max_pixels=command.max_pixels)
    labelled = _load(command, segmenter)
    before = time.perf_counter()
    scores, rows, skipped = _measure(command, segmenter, labelled)
    seconds = time.perf_counter() - before
    in_training = find_training_images(command.network, [row.pair for row in rows])
    console, summary = result_console(), summarize_source(labelled.folder)
    if command.json:
        files = {} if command.page is None else {"page": str(command.page)}
        facts = {
            "part": labelled.split,
            "runtime": f"{model.runtime}, {model.description.precision}",
            "flip": segmenter.flip,
        }
        values = to_json(scores, rows, in_training)
        print_json({**facts, **values, **files, "skipped": skipped, "data": summary})
    else:
        print_masks(scores, rows, labelled.split, in_training)
        if segmenter.flip:
            message("probabilities are averaged over each image and its horizontal flip (--tta flip).")
        console.print(f"{len(rows) / seconds:.0f} images/s")
        if skipped:
            message(f"unreadable images left out: {len(skipped)}: {' '.join(skipped[:5])}")
    if command.page is not None:
        title = f"{command.network.name} on {Path(command.data).name or command.data}"
        write_masks_page(
            command,
            scores,
            rows,
            title=title,
            split=labelled.split,
            summary=summary,
            segmenter=segmenter,
            read_mask=labelled.read_mask,
        )
    if writer is not None and command.out is not None:
        with write_atomically(command.out) as temporary:
            writer.write_table(columns_of(rows), temporary)
    for label, path in (("one row per image", command.out), ("page", command.page)):
        if path is not None and not command.json:
            console.print(f"{label}: {path}", soft_wrap=True)
    return 0


def _load(command: EvalCommand, segmenter: Segmenter) -> _LabelledMasks:
    """Open the data, with labels in the order of the classes of the network."""
    folder, split, indices = open_labels(command, task="segment", class_names=segmenter.class_names, kind="pixel")
    assert isinstance(folder, MaskFolder)
    to_network: npt.NDArray[np.uint8] = np.full(IGNORED + 1, IGNORED, np.uint8)
    to_network[: len(indices)] = indices
    pairs = [pair for name in (folder.split_names if split == "all" else (split,)) for pair in folder.images_of(name)]
    return _LabelledMasks(folder, split, pairs, to_network, command.max_pixels)


def _measure(
    command: EvalCommand, segmenter: Segmenter, labelled: _LabelledMasks
) -> tuple[MaskScores, list[MaskRow], list[str]]:
    """Segment all images; return the results of all pixels and of each image, and sentences on unreadable images."""
    classes = len(segmenter.class_names)
    pairs = {str(pair.image): pair for pair in labelled.pairs}

    def compare(source: Input, segmented: SegmentedImage) -> _Outcome:
        if segmented.error is not None:
            return _Outcome(None, segmented.error)
        truth = labelled.read_mask(pairs[source.path])
        return _Outcome(PixelConfusion.count(truth, segmented.mask, classes), None)

    total = PixelConfusion(np.zeros((classes, classes), np.int64))
    rows: list[MaskRow] = []
    problems: list[str] = []
    inputs = (Input(path, path) for path in pairs)
    remaining = iter(pairs.values())
    with PredictionProgress() as progress:
        found = segment_images(segmenter, inputs, compare, workers=command.threads)
        for batch in progress.count(found, name_errors=False):
            for (confusion, error), pair in zip(batch, remaining, strict=False):
                if confusion is None:
                    problems.append(str(error))
                else:
                    total += confusion
                    labels = int(confusion.matrix.sum())
                    rows.append(MaskRow(pair, confusion.mean_iou, confusion.pixel_accuracy, labels))
    if problems and not command.skip_corrupt:
        raise DataError(f"{problems[0]} ({len(problems)} images cannot be read; repair them, or pass --skip-corrupt.)")
    if not rows:
        raise DataError(f"no readable image is left in {command.data}.")
    return MaskScores(len(rows), total, segmenter.class_names), rows, problems
