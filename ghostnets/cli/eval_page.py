"""The page of ``ghostnets eval --page``: the images with the highest losses, to find wrong labels."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ghostnets.data import ImageDataset
from ghostnets.explain.data_page import DataPage, PictureGroup, PictureSection, PictureView, write_data_page
from ghostnets.explain.page import link_to_file, sample_evenly
from ghostnets.terminal import printable
from ghostnets.train import Evaluation, MultiLabelEvaluation

__all__ = ["write_eval_page"]

SHOWN, SHOWN_OF_CLASS, SHOWN_CLASSES = 120, 6, 60
SIDE = 160  # pixels of the longer side of a picture


def write_eval_page(
    path: Path, result: Evaluation | MultiLabelEvaluation, images: ImageDataset, *, title: str, split: str
) -> None:
    """Write the page.

    Args:
        path: The file.
        result: The evaluation.
        images: The evaluated images.
        title: Heading.
        split: Name of the evaluated split.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    order: list[int] = result.predictions.highest_losses().tolist()
    names = [row.name for row in result.classes]
    has_class = result.predictions.labels  # bool (N, classes) or int64 (N,)
    by_class = []
    for number in sample_evenly(range(len(names)), SHOWN_CLASSES):
        members = has_class[:, number] if has_class.ndim == 2 else has_class == number
        chosen = [index for index in order if members[index]][:SHOWN_OF_CLASS]
        by_class.append(PictureGroup(names[number], _pictures(result, images, chosen, path.parent)))
    first = f", the first {SHOWN}" if len(order) > SHOWN else ""
    highest = PictureGroup("", _pictures(result, images, order[:SHOWN], path.parent))
    page = DataPage(
        title,
        {"images": f"{result.images:,}", **result.headline()},
        (),
        (),
        (split,),
        "Images by class",
        {row.name: {split: f"{row.images:,}"} for row in result.classes},
        [
            PictureSection(
                f"Highest losses of all {result.images:,} images{first}",
                "A high loss is a label that the network finds improbable: an error of the network, or a wrong label.",
                [highest],
            )
        ],
        PictureSection("Highest losses by class", f"Up to {SHOWN_OF_CLASS} images of each true class.", by_class),
    )
    write_data_page(path, page)


def _pictures(
    result: Evaluation | MultiLabelEvaluation, images: ImageDataset, indices: Sequence[int], folder: Path
) -> list[PictureView]:
    """Views of images, with links relative to the folder of the page."""
    rows, names, pictures = result.predictions, [row.name for row in result.classes], []
    for index in indices:
        pixels = images[index].numpy()
        image = Image.fromarray(np.squeeze(pixels.transpose(1, 2, 0)))
        image.thumbnail((SIDE, SIDE))
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=80)
        truth, prediction = rows.describe(index, names)
        probability, loss = float(rows.probabilities[index]), float(rows.losses[index])
        text = (f"label {truth}", f"predicted {prediction} ({probability:.0%})", f"loss {loss:.2f}")
        name = images.name(index)
        pictures.append(PictureView(buffer.getvalue(), printable(name), link_to_file(name, folder), text))
    return pictures
