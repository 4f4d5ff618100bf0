"""Hostile engine plans are rejected with an EngineError or run; they never crash, hang or raise another exception."""

import importlib
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from ghostnets import engine
from ghostnets.engine.plan_file import KINDS
from ghostnets.errors import EngineError

PIXELS = np.zeros((1, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def fuzz() -> Iterator[ModuleType]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(Path(__file__).parents[2] / "scripts")
        yield importlib.import_module("fuzz_engine")


@pytest.fixture(scope="module")
def files(fuzz: ModuleType) -> list[bytes]:
    return fuzz.plans(["V1", "V2", "G-Ghost", "backbone", "every operation"])


@pytest.mark.parametrize(
    "numbers", [range(200), pytest.param(range(200, 1000), marks=pytest.mark.slow)], ids=["200", "800"]
)
def test_mutated_files_are_rejected_or_run(fuzz: ModuleType, files: list[bytes], numbers: range):
    totals = fuzz.fuzz(files, numbers, seconds=60, megabytes=1000)
    assert totals["FINDING"] == 0
    assert sum(totals.values()) == len(numbers)
    assert totals["runs"] >= len(numbers) * 0.03


def test_mutated_files_have_every_kind_of_node(fuzz: ModuleType, files: list[bytes]):
    kinds = {node["kind"] for content in files for node in fuzz.parts(content)[0]["nodes"]}
    assert kinds == set(KINDS)


def test_inserted_values_are_copies(fuzz: ModuleType):
    before = repr(fuzz.VALUES)
    for seed in range(200):
        description = {"nodes": [{"stride": "x"}]}
        fuzz._change_value(description, {}, random.Random(seed))
        for container, key in fuzz._places(description):
            if isinstance(container[key], list):
                container[key].append(1)
    assert repr(fuzz.VALUES) == before


def node_of(description: dict[str, Any], kind: str) -> dict[str, Any]:
    return next(node for node in description["nodes"] if node["kind"] == kind)


Tensors = dict[str, np.ndarray]


def without_squeeze(description: dict[str, Any], tensors: Tensors) -> None:
    name = node_of(description, "squeeze_excite")["weight"]
    tensors[name] = np.zeros((0, tensors[name].shape[1]), np.float32)


def without_kernel(description: dict[str, Any], tensors: Tensors) -> None:
    name = description["nodes"][0]["weight"]
    tensors[name] = np.zeros((*tensors[name].shape[:2], 0, 0), np.float32)


def non_finite_value(description: dict[str, Any], tensors: Tensors) -> None:
    tensors[description["nodes"][-1]["weight"]][0] = np.nan


def shared_weights(description: dict[str, Any], tensors: Tensors) -> None:
    description["nodes"][-1]["weight"] = description["nodes"][-2]["weight"]


def nested(description: dict[str, Any], tensors: Tensors) -> None:
    value: list[Any] = []
    description["nodes"][0]["pooled"] = value
    for _ in range(800):
        value.append([])
        value = value[0]


def residual_with_other_channels(description: dict[str, Any], tensors: Tensors) -> None:
    """A residual of as many padded values as its sum, but more channels, whose range would be read beyond its end."""
    layouts = description["layouts"]
    for node in description["nodes"]:
        channels, *shape = layouts[node["output"]]
        others = [
            number
            for number in range(node["output"])
            if layouts[number][0] in range(channels + 1, 9) and layouts[number][1:] == shape
        ]
        if node["kind"] == "ghost" and node.get("residual", -1) >= 0 and channels < 8 and others:
            node["residual"] = others[0]
            return
    raise AssertionError("the network has no such node")


CHANGES: list[tuple[Callable[[dict[str, Any], Tensors], object], str]] = [
    (without_squeeze, "squeeze_excite node .* has a tensor without values"),
    (without_kernel, "stem node .* has a tensor without values"),
    (non_finite_value, "linear node classifier has a value that is not finite"),
    (shared_weights, "linear node .* shares a tensor with another node|other shape"),
    (nested, "pooled of node"),
    (residual_with_other_channels, "a residual has a different shape from its sum"),
    (lambda d, t: d.update(gives_maps=True), "gives_maps is True"),
    (lambda d, t: node_of(d, "ghost").update(primary_dilation=2**31 - 1), "primary_dilation of node .* is 2147483647"),
    (lambda d, t: node_of(d, "ghost").update(dilation_h=65), "has an impossible stride or dilation"),
    (lambda d, t: d["layouts"][3].__setitem__(1, 0), "the segments of a layout is 0"),
    (lambda d, t: d["layouts"][3].__setitem__(0, 10**400), "the channels of a layout is"),
    (lambda d, t: d["layouts"].pop(), "writes no map, or a map that is already written|not an integer from 0"),
    (lambda d, t: d["nodes"].insert(0, d["nodes"].pop()), "it does not begin with a stem"),
    (lambda d, t: d["nodes"].append(dict(d["nodes"][2])), "shares a tensor|writes no map"),
    (lambda d, t: d.update(precision="int8"), "range of a map is missing"),
    (lambda d, t: d.update(floats=[node_of(d, "ghost")["output"]]), "reads and writes maps of different types"),
    (lambda d, t: d.update(floats=[len(d["layouts"])]), "floats is"),
    (lambda d, t: d.update(floats=None), "floats is None, not a list"),
    (lambda d, t: d.update(mean=[float("nan")] * 3), "a value of mean is nan"),
    (lambda d, t: d.update(std=[0.0, 1, 1]), "a value of std is below 1e-6"),
    (lambda d, t: d.update(outputs=d["outputs"] * 2), "or one of them twice|has 2 entries"),
    (lambda d, t: d["nodes"].clear(), "does not begin with a stem"),
    (lambda d, t: d.update(nodes=None), "nodes is None, not a list"),
    (lambda d, t: d.pop("layouts"), "layouts is None, not a list"),
]


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_changed_plan_is_rejected_with_reason(
    change: Callable[[dict[str, Any], Tensors], object],
    message: str,
    fuzz: ModuleType,
    files: list[bytes],
    tmp_path: Path,
):
    description, tensors = fuzz.parts(files[0])
    tensors = {name: tensor.copy() for name, tensor in tensors.items()}
    change(description, tensors)
    save_file(tensors, tmp_path / "plan", metadata={fuzz.KEY: json.dumps(description)})
    with pytest.raises(EngineError, match=message):
        engine.load(tmp_path / "plan", threads=1)


def test_deeply_nested_plan_is_rejected(fuzz: ModuleType, tmp_path: Path):
    save_file({"a": np.zeros(1, np.float32)}, tmp_path / "plan", metadata={fuzz.KEY: "[" * 200_000})
    with pytest.raises(EngineError, match="nested too deeply"):
        engine.load(tmp_path / "plan")


def test_plan_of_maps_of_different_sizes_is_rejected_when_run(fuzz: ModuleType, files: list[bytes], tmp_path: Path):
    description, tensors = fuzz.parts(files[0])
    node = next(node for node in description["nodes"] if node.get("residual", -1) >= 0)
    stride = next(n for n in description["nodes"] if n["kind"] == "ghost" and n["output"] == node["input"])
    stride["stride"] = 3
    save_file(tensors, tmp_path / "plan", metadata={fuzz.KEY: json.dumps(description)})
    with pytest.raises(EngineError, match="adds or multiplies maps of different sizes"):
        engine.load(tmp_path / "plan", threads=1)(PIXELS)
