"""``explain.html``: similar maps, ghosts, cheap kernels and cost of a network, with figures and ``numbers.json``."""

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

from ghostnets.explain.anatomy import KERNEL_KINDS, CheapKernels, collect_cheap_kernels, collect_ghost_maps
from ghostnets.explain.anatomy_figures import ablation_figure, kernel_kinds_figure, kernels_figure
from ghostnets.explain.attention import collect_dfc_attention, grad_cam
from ghostnets.explain.captions import (
    ablation_caption,
    depth_caption,
    error_caption,
    gallery_caption,
    kernel_kinds_caption,
)
from ghostnets.explain.figures import save_figure, to_svg
from ghostnets.explain.ghost_ablation import AblationResult
from ghostnets.explain.maps import find_map_layers, observe_maps
from ghostnets.explain.page import link_to_file, max_stage_macs, render, sample_evenly, select_ghost_layers
from ghostnets.explain.redundancy import KERNEL_SIZES, RATIOS, LayerRedundancy, Redundancy
from ghostnets.explain.redundancy_figures import depth_figure, error_figure, gallery_figure
from ghostnets.explain.savings import LatencyComparison, Savings
from ghostnets.files import write_atomically, write_text
from ghostnets.measure import format_interval
from ghostnets.terminal import printable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Explanation", "write_explanation"]

MIN_GALLERY_SIDE = 14  # pixels; layers with smaller maps are shown only if there are no others
MAX_ACTIVATIONS = 6  # images shown with their class activation map
MAX_ATTENTION_LAYERS = 4


@dataclass(frozen=True)
class Explanation:
    """Content of the page.

    Attributes:
        title: Page title.
        summary: One or two sentences below the title.
        redundancy: Redundancy of the network's layers.
        model: The network, in evaluation mode.
        pixels: Sample images for display, uint8 (K, C, S, S); maps are shown for the first one.
        inputs: The same images preprocessed, float32 (K, C, S, S).
        names: Path or other name of each image.
        labels: Class of each, as an index into ``class_names``; -1 if unknown.
        class_names: Class names in output order, or None if unknown.
        ablation: Accuracy with ghosts replaced, or None.
        ablation_note: One sentence naming the images of the ablation, or the reason why there is none.
        savings: Cost by stage.
        speed: Latency against the plain counterpart, or None without one.
        settings: Name -> value, in display order.
        command: Command line that repeats the analysis.
    """

    title: str
    summary: str
    redundancy: Redundancy
    model: nn.Module
    pixels: Tensor
    inputs: Tensor
    names: Sequence[str]
    labels: Sequence[int]
    class_names: Sequence[str] | None
    ablation: AblationResult | None
    ablation_note: str
    savings: Savings
    speed: LatencyComparison | None
    settings: dict[str, str]
    command: str


@dataclass(frozen=True)
class FigurePanel:
    """A figure of the page: stem of its file names, accessible title, and caption."""

    name: str
    figure: "Figure"
    title: str
    caption: str


@dataclass(frozen=True)
class ClassActivation:
    """An image uint8 (C, H, W), its predicted class, and the class's activation map (H, W) in [0, 1].

    ``label`` is its true class, or None if unknown; ``link`` the relative URL of its file, if it has one.
    """

    pixels: Tensor
    heat: Tensor
    prediction: str
    label: str | None
    name: str
    link: str | None


def write_explanation(folder: str | os.PathLike[str], explanation: Explanation) -> tuple[Path, dict[str, Any]]:
    """Write ``explain.html``, ``numbers.json`` and ``figures/*.svg`` and ``*.png`` into a folder.

    Returns:
        Path of the page, and the content of ``numbers.json``.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        StorageError: A file could not be written.
    """
    folder = Path(folder)
    model, first = explanation.model, explanation.inputs[:1]
    kernels = collect_cheap_kernels(model)
    galleries = _galleries(explanation)
    panels = {panel.name: panel for panel in [*galleries.values(), *_panels(explanation, kernels)]}
    page = render(
        "explanation.html.jinja",
        interval=format_interval,
        page=explanation,
        numbered=list(enumerate(explanation.redundancy.layers, start=1)),
        kernel_sizes=KERNEL_SIZES,
        ratios=RATIOS,
        kernel_kinds=(*KERNEL_KINDS[1:], KERNEL_KINDS[0]),  # "nothing" last
        panels={n: (p, to_svg(p.figure, title=p.title, prefix=p.name)) for n, p in panels.items()},
        galleries=[(panel.name, layer) for layer, panel in galleries.items()],
        ghosts=select_ghost_layers(collect_ghost_maps(model, first)),
        kernels=[(n, layer.layer, _summarize_kernels(layer)) for n, layer in enumerate(kernels, start=1)],
        activations=_class_activations(explanation, folder),
        attention=sample_evenly(collect_dfc_attention(model, first), MAX_ATTENTION_LAYERS),
        largest_stage=max_stage_macs(explanation.savings),
    )
    write_text(folder / "explain.html", page)
    numbers = _numbers(explanation, kernels)
    write_text(folder / "numbers.json", json.dumps(numbers, indent=1))
    for panel in panels.values():
        for suffix in (".svg", ".png"):
            with write_atomically(folder / "figures" / f"{panel.name}{suffix}") as temporary:
                save_figure(panel.figure, temporary, suffix)
    return folder / "explain.html", numbers


def _numbers(explanation: Explanation, kernels: Sequence[CheapKernels]) -> dict[str, Any]:
    """Collect all measured values for ``numbers.json``; nan becomes None."""
    return {
        "title": explanation.title,
        "settings": explanation.settings,
        "redundancy": _replace_nan(explanation.redundancy.to_dict()),
        "cheap_kernels": [{"layer": layer.layer, **_replace_nan(_summarize_kernels(layer))} for layer in kernels],
        "ablation": _replace_nan(asdict(explanation.ablation)) if explanation.ablation else None,
        "savings": explanation.savings.to_dict(),
        "speed": asdict(explanation.speed) if explanation.speed else None,
    }


def _panels(explanation: Explanation, kernels: Sequence[CheapKernels]) -> list[FigurePanel]:
    redundancy, ablation = explanation.redundancy, explanation.ablation
    panels = [
        FigurePanel(
            "redundancy-by-depth",
            depth_figure(redundancy),
            "Share of maps with a near-duplicate, and unexplained variance of the ghosts at 3 x 3, by layer",
            depth_caption(redundancy),
        ),
        FigurePanel(
            "error-by-filter",
            error_figure(redundancy),
            "Unexplained variance of the ghosts by filter size",
            error_caption(redundancy),
        ),
    ]
    if kernels:
        panels += [
            FigurePanel(
                "kernel-kinds",
                kernel_kinds_figure(kernels),
                "Share of cheap kernels of each kind, by Ghost module",
                kernel_kinds_caption(kernels),
            ),
            FigurePanel(
                "kernels",
                kernels_figure(kernels),
                "Sample cheap kernels of each kind",
                "Each square is one kernel: red weights are positive, blue negative, white is 0; each kernel is scaled"
                " by its largest weight.",
            ),
        ]
    if ablation and ablation.layers:
        panels.append(
            FigurePanel(
                "without-ghosts",
                ablation_figure(ablation),
                "Top-1 accuracy with the ghosts of one module replaced, by Ghost module",
                ablation_caption(ablation),
            )
        )
    return panels


@torch.no_grad()
def _galleries(explanation: Explanation) -> dict[str, FigurePanel]:
    """Return layer name -> gallery, for the layer with most near-duplicates, the middle and the last one."""
    measured = [layer for layer in explanation.redundancy.layers if layer.pairs]
    visible = [layer for layer in measured if min(layer.size) >= MIN_GALLERY_SIDE] or measured
    most = max(visible, key=lambda layer: layer.duplicates_90)
    chosen = {layer.layer for layer in (most, visible[len(visible) // 2], visible[-1])}
    model, x = explanation.model, explanation.inputs[:1]
    maps: dict[str, Tensor] = {}
    layers = [layer for layer in find_map_layers(model, x) if layer.name in chosen]
    with observe_maps(model, layers, lambda layer, output: maps.update({layer.name: output[0].float().clone()})):
        model(x)
    return {layer.layer: _gallery(layer, maps[layer.layer]) for layer in measured if layer.layer in chosen}


def _gallery(layer: LayerRedundancy, maps: Tensor) -> FigurePanel:
    return FigurePanel(
        f"gallery-{layer.layer.replace('.', '-')}",
        gallery_figure(maps, layer.pairs),
        f"Maps of layer {layer.layer} with boxes around the most similar pairs",
        gallery_caption(layer),
    )


def _class_activations(explanation: Explanation, folder: Path) -> list[ClassActivation]:
    names, activations = explanation.class_names, []
    for i in range(min(MAX_ACTIVATIONS, len(explanation.pixels))):
        heat, index = grad_cam(explanation.model, explanation.inputs[i : i + 1])
        prediction, label = names[index] if names else str(index), explanation.labels[i]
        truth, name = names[label] if names and label >= 0 else None, explanation.names[i]
        link = link_to_file(name, folder)
        activations.append(ClassActivation(explanation.pixels[i], heat, prediction, truth, printable(name), link))
    return activations


def _summarize_kernels(layer: CheapKernels) -> dict[str, Any]:
    distance = layer.distance_from_identity()
    return {
        "kernels": distance.numel(),
        "distance_from_identity": distance.nanmedian().item(),
        "kinds": dict(Counter(layer.kinds())),
    }


def _replace_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _replace_nan(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_replace_nan(entry) for entry in value]
    return None if isinstance(value, float) and math.isnan(value) else value
