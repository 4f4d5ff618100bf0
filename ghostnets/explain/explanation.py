"""``explain.html``: what the maps of a network have in common and what its ghosts do; figures and numbers beside it."""

import json
import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ghostnets.explain import captions
from ghostnets.explain.anatomy import CheapKernels, collect_cheap_kernels, collect_ghost_maps
from ghostnets.explain.anatomy_figures import ablation_figure, kernel_kinds_figure, kernels_figure
from ghostnets.explain.attention import collect_dfc_attention, grad_cam
from ghostnets.explain.figures import save_figure, to_svg
from ghostnets.explain.ghost_ablation import AblationResult
from ghostnets.explain.maps import find_map_layers, observe_maps
from ghostnets.explain.page import max_stage_macs, render, sample_evenly, select_ghost_layers
from ghostnets.explain.redundancy import KERNEL_SIZES, Redundancy
from ghostnets.explain.redundancy_figures import depth_figure, error_figure, gallery_figure
from ghostnets.explain.savings import LatencyComparison, Savings
from ghostnets.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "write_explanation"]

GALLERY_PIXELS = 14  # smaller maps are not worth a gallery, where there are larger ones
LOOKS_SHOWN = 6  # images with their class activation map


@dataclass(frozen=True)
class Explanation:
    """What the page shows.

    Attributes:
        title: Of the page.
        summary: One or two sentences below it.
        redundancy: Of the network.
        model: The network, in evaluation mode.
        pixels: uint8 (K, C, S, S), some of the images; the first is the one whose maps are shown.
        inputs: float32 (K, C, S, S), the same, ready for the network.
        class_names: In the order of the outputs, or None where they are not known.
        ablation: Accuracy with ghosts replaced, or None.
        ablation_note: What it was measured on, or why it was not; one sentence.
        savings: Cost by stage.
        speed: Measured beside the plain twin, or None without one.
        settings: Name -> value, in order.
        command: What repeats it.
    """

    title: str
    summary: str
    redundancy: Redundancy
    model: nn.Module
    pixels: Tensor
    inputs: Tensor
    class_names: Sequence[str] | None
    ablation: AblationResult | None
    ablation_note: str
    savings: Savings
    speed: LatencyComparison | None
    settings: dict[str, str]
    command: str


@dataclass(frozen=True)
class FigurePanel:
    """A figure of the page: the name of its files, what a screen reader says, and one sentence of what to see."""

    name: str
    figure: "Figure"
    title: str
    caption: str


@dataclass(frozen=True)
class ClassActivation:
    """An image with the places that speak for the answer: pixels uint8 (C, H, W), heat (H, W) in [0, 1]."""

    pixels: Tensor
    heat: Tensor
    answer: str


def write_explanation(folder: str | os.PathLike[str], explanation: Explanation) -> tuple[Path, dict[str, Any]]:
    """Writes ``explain.html``, ``numbers.json`` and ``figures/*.svg`` and ``*.png`` into a folder.

    Returns:
        The path of the page, and what stands in ``numbers.json``.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: A file could not be written.
    """
    folder = Path(folder)
    kernels = collect_cheap_kernels(explanation.model)
    galleries = _galleries(explanation)
    plates = {plate.name: plate for plate in [*galleries.values(), *_plates(explanation, kernels)]}
    page = render(
        "explanation.html.jinja",
        page=explanation,
        numbered=list(enumerate(explanation.redundancy.layers, start=1)),
        kernel_sizes=KERNEL_SIZES,
        plates={n: (p, to_svg(p.figure, title=p.title, prefix=p.name)) for n, p in plates.items()},
        galleries=[(plate.name, layer) for layer, plate in galleries.items()],
        ghosts=select_ghost_layers(collect_ghost_maps(explanation.model, explanation.inputs[:1])),
        kernels=[(n, layer.layer, _kernel_row(layer)) for n, layer in enumerate(kernels, start=1)],
        looks=_looks(explanation),
        attention=sample_evenly(collect_dfc_attention(explanation.model, explanation.inputs[:1]), 4),
        largest_stage=max_stage_macs(explanation.savings),
    )
    write_text(folder / "explain.html", page)
    numbers = _numbers(explanation, kernels)
    write_text(folder / "numbers.json", json.dumps(numbers, indent=1))
    for plate in plates.values():
        for suffix in (".svg", ".png"):
            with write_atomically(folder / "figures" / f"{plate.name}{suffix}") as temporary:
                save_figure(plate.figure, temporary, suffix)
    return folder / "explain.html", numbers


def _numbers(explanation: Explanation, kernels: Sequence[CheapKernels]) -> dict[str, Any]:
    """Everything that was measured, for JSON; what is not defined (nan) becomes None."""
    return {
        "title": explanation.title,
        "settings": explanation.settings,
        "redundancy": _for_json(explanation.redundancy.to_dict()),
        "cheap_kernels": [{"layer": layer.layer, **_for_json(_kernel_row(layer))} for layer in kernels],
        "ablation": _for_json(asdict(explanation.ablation)) if explanation.ablation else None,
        "savings": explanation.savings.to_dict(),
        "speed": asdict(explanation.speed) if explanation.speed else None,
    }


def _plates(explanation: Explanation, kernels: Sequence[CheapKernels]) -> list[FigurePanel]:
    redundancy = explanation.redundancy
    plates = [
        FigurePanel(
            "redundancy-by-depth",
            depth_figure(redundancy),
            "Share of maps with a twin, and variance of the ghosts left by 3 x 3 filters, layer by layer",
            captions.depth(redundancy),
        ),
        FigurePanel(
            "error-by-filter",
            error_figure(redundancy),
            "Variance of the ghosts left, against the side of the filter",
            captions.error(redundancy),
        ),
    ]
    if kernels:
        plates += [
            FigurePanel(
                "kernel-kinds",
                kernel_kinds_figure(kernels),
                "Share of the cheap kernels of each kind, by Ghost module",
                captions.kernel_kinds(kernels),
            ),
            FigurePanel(
                "kernels",
                kernels_figure(kernels),
                "Some learned cheap kernels of each kind",
                "Each square is one kernel; red weights are positive, blue ones negative, white is 0, scaled by the"
                " largest.",
            ),
        ]
    if explanation.ablation and explanation.ablation.layers:
        plates.append(
            FigurePanel(
                "without-ghosts",
                ablation_figure(explanation.ablation),
                "Top-1 accuracy with the ghosts of one module replaced, by Ghost module",
                captions.ablation(explanation.ablation),
            )
        )
    return plates


@torch.no_grad()
def _galleries(explanation: Explanation) -> dict[str, FigurePanel]:
    """Layer -> its gallery: the one with most twins, one from the middle and the last whose maps are large enough."""
    measured = [layer for layer in explanation.redundancy.layers if layer.pairs]
    large = [layer for layer in measured if min(layer.size) >= GALLERY_PIXELS] or measured
    chosen = {layer.layer: layer for layer in (max(large, key=lambda m: m.twins_90), large[len(large) // 2], large[-1])}
    kept: dict[str, Tensor] = {}
    layers = [layer for layer in find_map_layers(explanation.model, explanation.inputs[:1]) if layer.name in chosen]
    with observe_maps(
        explanation.model, layers, lambda layer, maps: kept.update({layer.name: maps[0].float().clone()})
    ):
        explanation.model(explanation.inputs[:1])
    order = [layer.layer for layer in measured]
    return {
        name: FigurePanel(
            f"gallery-{name.replace('.', '-')}",
            gallery_figure(kept[name], chosen[name].pairs),
            f"Maps of the layer {name} with the most similar pairs in boxes",
            captions.gallery(chosen[name]),
        )
        for name in sorted(chosen, key=order.index)
    }


def _looks(explanation: Explanation) -> list[ClassActivation]:
    looks = []
    for pixels, x in zip(explanation.pixels[:LOOKS_SHOWN], explanation.inputs, strict=False):
        heat, answer = grad_cam(explanation.model, x[None])
        looks.append(
            ClassActivation(pixels, heat, explanation.class_names[answer] if explanation.class_names else f"{answer}")
        )
    return looks


def _kernel_row(layer: CheapKernels) -> dict[str, Any]:
    distance = layer.distance_from_identity()
    return {
        "kernels": distance.numel(),
        "distance_from_identity": distance.nanmedian().item(),
        "kinds": dict(Counter(layer.kinds())),
    }


def _for_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _for_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_for_json(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
