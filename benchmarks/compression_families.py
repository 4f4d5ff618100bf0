"""Checks of ``compression.py families``: CNN classifiers of torchvision and timm are converted exactly, or refused."""

import copy
import io
import logging
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor, nn

from ghostnets import engine
from ghostnets.compress import apply_changes, ghostify
from ghostnets.compress.eligibility import find_ineligible
from ghostnets.compress.sites import Site, find_sites, trace
from ghostnets.compress.surgery import describe_change, insert_ghost, merge_channels
from ghostnets.errors import ConfigurationError, EngineError, require

__all__ = ["TIMM", "TORCHVISION", "check_families", "check_network"]

# Each family by its smallest network first, since the others only repeat its blocks.
TORCHVISION = (
    *("resnet18", "resnet50", "resnext50_32x4d", "vgg11", "vgg11_bn", "mobilenet_v2", "mobilenet_v3_small"),
    *("efficientnet_b0", "efficientnet_v2_s", "densenet121", "regnet_x_400mf", "regnet_y_400mf", "convnext_tiny"),
    *("googlenet", "inception_v3", "shufflenet_v2_x0_5", "mnasnet0_5", "squeezenet1_0", "squeezenet1_1", "alexnet"),
    *("mobilenet_v3_large", "shufflenet_v2_x1_0", "shufflenet_v2_x1_5", "shufflenet_v2_x2_0", "mnasnet0_75"),
    *("mnasnet1_0", "mnasnet1_3", "regnet_x_800mf", "regnet_y_800mf", "regnet_x_1_6gf", "regnet_y_1_6gf"),
    *("resnet34", "vgg13", "vgg13_bn", "vgg16", "vgg16_bn", "vgg19", "vgg19_bn", "efficientnet_b1"),
    *("efficientnet_b2", "efficientnet_b3", "densenet161", "densenet169", "densenet201", "resnet101", "resnet152"),
    *("wide_resnet50_2", "wide_resnet101_2", "resnext101_32x8d", "resnext101_64x4d", "regnet_x_3_2gf"),
    *("regnet_y_3_2gf", "regnet_x_8gf", "regnet_y_8gf", "regnet_x_16gf", "regnet_y_16gf", "regnet_x_32gf"),
    *("regnet_y_32gf", "convnext_small", "convnext_base", "convnext_large", "efficientnet_b4", "efficientnet_b5"),
    *("efficientnet_b6", "efficientnet_b7", "efficientnet_v2_m", "efficientnet_v2_l", "regnet_y_128gf"),
)
TIMM = (
    *("resnet18d", "seresnext26d_32x4d", "ecaresnet26t", "res2net50_14w_8s", "resnest14d", "skresnet18"),
    *("resnetv2_50", "nf_resnet26", "nfnet_l0", "repvgg_a0", "mobileone_s0", "dla46_c", "hrnet_w18_small"),
    *("cspresnet50", "darknet17", "ese_vovnet19b_dw", "selecsls42b", "dpn48b", "xception41", "inception_v4"),
    *("mobilenetv1_100", "mobilenetv4_conv_small", "tf_mobilenetv3_small_minimal_100", "efficientnet_lite0"),
    *("tf_efficientnet_lite0", "mixnet_s", "fbnetc_100", "semnasnet_075", "hardcorenas_a", "lcnet_050"),
    *("tinynet_e", "rexnet_100", "regnetz_b16", "gernet_s", "ghostnet_050", "repghostnet_050", "hgnetv2_b0"),
    *("convnext_atto", "convnextv2_atto", "fasternet_t0", "starnet_s1", "inception_next_atto", "rdnet_tiny"),
)
SIZES = {"inception_v3": 299, "inception_v4": 128, "alexnet": 96, "googlenet": 96, "xception41": 96, "dpn48b": 96}
SIZE = 64
CLASSES = 10
IMAGES = 6
MAX_CHANGED = 12  # convolutions, evenly spread, so that deep networks take minutes too
BUDGET = 0.95
BOUND = 1e-3  # of the largest output, where channels are permuted or copied


@dataclass
class Outcome:
    """What was found for one network.

    Attributes:
        changes: Number of changes by kind.
        refused: Why ghostify, the engine or ONNX refused it, by the name of the checker.
        wrong: Failed checks.
        errors: Largest error of each comparison, as a share of the largest output.
    """

    changes: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    errors: dict[str, float] = field(default_factory=dict)

    def compare(self, name: str, got: Tensor, expected: Tensor, bound: float) -> None:
        """Compare outputs, and record a failure."""
        if got.shape != expected.shape:
            self.wrong.append(f"{name}: {tuple(got.shape)} instead of {tuple(expected.shape)}")
            return
        self.errors[name] = float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-12))
        if not self.errors[name] <= bound:
            self.wrong.append(f"{name}: error {self.errors[name]:.2g}")


def create_network(name: str) -> nn.Module:
    """A network ``torchvision:NAME`` or ``timm:NAME`` with random weights and normalisations, in evaluation mode."""
    torch.manual_seed(0)
    library, _, plain = name.partition(":")
    if library == "timm":
        model: nn.Module = require("timm", extra="bench").create_model(plain, num_classes=CLASSES)
    else:
        more = {"init_weights": False} if plain in ("googlenet", "inception_v3") else {}
        models = require("torchvision.models", extra="bench")
        model = models.get_model(plain, weights=None, num_classes=CLASSES, **more)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.1)
        gain = getattr(module, "skipinit_gain", None)  # of normaliser-free networks, 0 before training
        if isinstance(gain, nn.Parameter):
            nn.init.constant_(gain, 0.5)
    return model.eval()


def check_network(name: str) -> Outcome:
    """Convert a network in three ways, and compare it with torch, ONNX Runtime and the engine."""
    outcome, size = Outcome(), SIZES.get(name.partition(":")[2], SIZE)
    model = create_network(name)
    x = torch.randn(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = model(x)
    graph, untraced = trace(model)
    sites = find_sites(model, graph)
    if untraced:
        outcome.refused["merging"] = untraced
    left_alone = find_ineligible(model, sites, x, None)
    sites = [site for site in sites if site.conv not in left_alone]
    with torch.no_grad():
        outcome.compare("permuted", permute_channels(model, sites)(x), expected, BOUND)
    copied = copy_channels(model, sites)
    leaner = leave_out_copies(copied, sites)
    with torch.no_grad():
        got = leaner(x)
        outcome.compare("copied channels", got, copied(x), BOUND)
    _check_gradients(outcome, leaner, x)
    _check_engine(outcome, "engine", leaner, x, got)
    _check_onnx(outcome, leaner, x, got)
    chosen = sites[:: max(1, -(-len(sites) // MAX_CHANGED))]
    try:
        made, report = ghostify(model, x, budget=BUDGET, layers=[site.conv for site in chosen])
    except ConfigurationError as error:
        outcome.refused["ghostify"] = str(error)
        return outcome
    for change in report.changes:
        outcome.changes[change["kind"]] = outcome.changes.get(change["kind"], 0) + 1
    with torch.no_grad():
        got = made(x)
    if got.shape != expected.shape or report.macs[1] > BUDGET * report.macs[0]:
        outcome.wrong.append(f"{tuple(got.shape)} instead of {tuple(expected.shape)}, multiply-adds {report.macs}")
    again = apply_changes(create_network(name), report.changes)
    again.load_state_dict(made.state_dict())
    with torch.no_grad():
        outcome.compare("built again", again(x), got, 0)
    if "engine" not in outcome.refused:
        _check_engine(outcome, "engine, within the budget", made, x, got)
    return outcome


def permute_channels(model: nn.Module, sites: list[Site]) -> nn.Module:
    """A copy with all channels between two layers in another order: it must compute the same."""
    permuted = copy.deepcopy(model)
    for site in sites:
        if site.consumer:
            order = torch.randperm(permuted.get_submodule(site.conv).out_channels)
            matrix = torch.zeros(len(order), len(order))
            matrix[order, torch.arange(len(order))] = 1
            change = describe_change(site, "merge", len(order))
            merge_channels(permuted, change, order, matrix, torch.zeros(len(order)))
    return permuted


def copy_channels(model: nn.Module, sites: list[Site]) -> nn.Module:
    """A copy of a network in which the last channel of each site is a copy of its first one."""
    made = copy.deepcopy(model)
    for site in sites:
        for name in dict.fromkeys((site.conv, site.norm, *site.chain)):
            layer = made.get_submodule(name) if name else nn.Identity()
            for tensor in (*layer.parameters(recurse=False), *layer.buffers(recurse=False)):
                if tensor.dim():
                    tensor.data[-1] = tensor.data[0]
    return made


def leave_out_copies(model: nn.Module, sites: list[Site]) -> nn.Module:
    """A copy of a network of ``copy_channels`` without the copied channels, by each kind of change in turn."""
    made = copy.deepcopy(model)
    for number, site in enumerate(sites):
        kind = ("merge", "ghost", "mixed ghost")[number % 3]
        kind = "ghost" if kind == "merge" and not site.consumer else kind
        channels = made.get_submodule(site.conv).out_channels
        kept = torch.arange(channels - 1)
        change = describe_change(site, kind, len(kept))
        if kind == "merge":
            merge_channels(made, change, kept, torch.eye(channels)[:, :-1] + _first(channels), torch.zeros(channels))
            continue
        ghost = insert_ghost(made, change, kept)
        with torch.no_grad():
            for tensor in (ghost.cheap.weight, ghost.cheap.bias, ghost.mix.weight if ghost.mix else ghost.source):
                assert tensor is not None
                tensor.zero_()
            ghost.cheap.weight[:, :, 1, 1] = 1
            if ghost.mix is not None:
                ghost.mix.weight[:, 0] = 1
    return made


def _first(channels: int) -> Tensor:
    """The matrix (C, C - 1) that predicts the last channel as the first one, and no other."""
    matrix = torch.zeros(channels, channels - 1)
    matrix[-1, 0] = 1
    return matrix


def _check_gradients(outcome: Outcome, made: nn.Module, x: Tensor) -> None:
    trained = copy.deepcopy(made).train()
    result = trained(x)
    (result if isinstance(result, Tensor) else result[0]).square().mean().backward()
    missing = [
        name for name, p in trained.named_parameters() if not name.startswith(("aux", "AuxLogits")) and p.grad is None
    ]
    if missing and isinstance(result, Tensor):
        outcome.wrong.append(f"no gradient of {missing[:3]}")


def _check_engine(outcome: Outcome, name: str, made: nn.Module, x: Tensor, expected: Tensor) -> None:
    try:
        session = engine.compile(made, threads=1)
    except EngineError as error:
        outcome.refused["engine"] = str(error)
        return
    outcome.compare(name, session(x), expected, 1e-3)


def _check_onnx(outcome: Outcome, made: nn.Module, x: Tensor, expected: Tensor) -> None:
    runtime, logger = require("onnxruntime", extra="export"), logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(made, (x,), dynamo=True, input_names=["images"], verbose=False)
    except Exception as error:  # torch has no common base class for its exporter's errors
        outcome.refused["ONNX"] = str(error).strip().splitlines()[0]
        return
    finally:
        logger.setLevel(level)
    assert program is not None
    with TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        program.save(file)  # above 2 GB, with its weights in a second file
        session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
        (got,) = session.run(None, {"images": np.ascontiguousarray(x.numpy())})
    outcome.compare("ONNX", torch.from_numpy(got), expected, 1e-3)


def check_families(names: list[str]) -> int:
    """Check networks, print a line for each, and return the number of wrong ones."""
    wrong = 0
    for name in names:
        begin = time.process_time()
        try:
            outcome = check_network(name)
        except Exception as error:  # so that the others are checked
            outcome = Outcome(wrong=[f"{type(error).__name__}: {str(error)[:300]}"])
        wrong += bool(outcome.wrong)
        changes = ", ".join(f"{number} {kind}" for kind, number in outcome.changes.items())
        errors = ", ".join(f"{key} {value:.1e}" for key, value in outcome.errors.items())
        refused = "".join(f"; {key} refused: {reason}" for key, reason in outcome.refused.items())
        verdict = f"WRONG: {'; '.join(outcome.wrong)}" if outcome.wrong else "right"
        print(f"{name}: {verdict}; {changes}; {errors}{refused}; {time.process_time() - begin:.0f} CPU s", flush=True)
    print(f"{len(names)} networks, {wrong} wrong")
    return wrong
