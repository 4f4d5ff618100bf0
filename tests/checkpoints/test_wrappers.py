"""State dicts as training code saves them: wrappers, prefixes, averaged weights."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from ghostnets.checkpoints import read_weights
from ghostnets.errors import CheckpointError
from ghostnets.models import create_model

StateDict = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return create_model("ghostnet_050", num_classes=3, width=0.1)


@pytest.fixture
def state(network: nn.Module) -> StateDict:
    return network.state_dict()


def prefixed(prefix: str, state: StateDict) -> StateDict:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def doubled(state: StateDict) -> StateDict:
    return {name: 2 * tensor for name, tensor in state.items()}


def read(content: Any, tmp_path: Path, key: str | None = None) -> StateDict:
    torch.save(content, tmp_path / "x.pth")
    return read_weights(tmp_path / "x.pth", key=key).tensors


def same(first: StateDict, second: StateDict) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


OPTIMIZER = {"state": {"conv1.weight": {"exp_avg": torch.ones(3)}, 0: {"exp_avg": torch.ones(3)}}, "param_groups": []}
METRICS = {"best_k_models": {"a.ckpt": torch.tensor(0.7)}, "best_model_score": torch.tensor(0.7)}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: s,
        lambda s: prefixed("_orig_mod.", s),  # torch.compile
        lambda s: prefixed("module.", s),  # DataParallel, DDP
        lambda s: prefixed("module._orig_mod.", s),
        lambda s: prefixed("_orig_mod.module.", s),
        lambda s: {name.replace("blocks.", "blocks._orig_mod."): tensor for name, tensor in s.items()},
        lambda s: prefixed("_fsdp_wrapped_module.", s),
        lambda s: prefixed("model._orig_mod.module.", s),
        lambda s: {"state_dict": prefixed("net.", s), "optimizer_states": [OPTIMIZER], "callbacks": {"C": METRICS}},
        lambda s: {"model_state_dict": s, "optimizer_state_dict": OPTIMIZER, "epoch": 3, "loss": torch.tensor(0.1)},
        lambda s: {"epoch": 3, "whatever": {"deeper": {"network": prefixed("module.", s)}}},
        lambda s: {"ema_state_dict": prefixed("module.", s)},
        lambda s: {"params_ema": s},
        lambda s: {"model": s, "projection": {"weight": torch.ones(2, 2)}, "optimizer": OPTIMIZER},
        lambda s: prefixed("backbone.net.", s),
    ],
)
def test_find_state_dict_removes_wrapper_without_warning(
    wrap: Callable[[StateDict], Any], state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert same(read(wrap(state), tmp_path), state)
    assert not caplog.records


def test_find_state_dict_reads_averaged_model(network: nn.Module, state: StateDict, tmp_path: Path):
    assert same(read(AveragedModel(network).state_dict(), tmp_path), state)


@pytest.mark.parametrize(
    ("trained", "averaged"),
    [("model", "model_ema"), ("params", "params_ema"), ("state_dict", "state_dict_ema"), ("net", "swa_state_dict")],
)
def test_find_state_dict_takes_averaged_weights_and_says_so(
    trained: str, averaged: str, state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    content = {trained: state, averaged: doubled(state), "optimizer": OPTIMIZER}
    assert same(read(content, tmp_path), doubled(state))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"the averaged weights '{averaged}' are taken; pass key= for the others: {trained}" in record.getMessage()
    assert same(read(content, tmp_path, key=trained), state)
    assert len(caplog.records) == 1


def test_find_state_dict_in_lightning_module_with_averaged_copy(
    state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    inside = {
        **prefixed("model.", state),
        **prefixed("ema_model.module.", doubled(state)),
        "loss.weight": torch.ones(3),
    }
    assert same(read({"state_dict": inside}, tmp_path), doubled(state))
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "'state_dict.ema_model.module' are taken; pass key= for the others: state_dict.model" in said
    assert "are left out: loss.weight" in said
    assert same(read({"state_dict": inside}, tmp_path, key="model"), state)


def test_find_state_dict_in_safetensors(state: StateDict, tmp_path: Path):
    save_file(prefixed("model.", state), tmp_path / "x.safetensors")
    assert same(read_weights(tmp_path / "x.safetensors").tensors, state)


def test_find_state_dict_keeps_tensors_among_other_values(
    state: StateDict, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    assert same(read({**state, "epoch": 3, "arch": "x"}, tmp_path), state)
    assert "entries that are not tensors are left out: arch, epoch" in caplog.text


@pytest.mark.parametrize(
    ("content", "key", "message"),
    [
        ({"student": 1, "teacher": 1}, None, "several state dicts: student, teacher; choose one by its key"),
        ({"student": 1, "teacher": 1}, "tutor", "has no state dict 'tutor'; it has student, teacher"),
        ({"epoch": 3, "optimizer": OPTIMIZER}, None, "holds no state dict .*, but epoch, optimizer; save"),
        ({"best": METRICS["best_k_models"]}, None, "holds no state dict"),
        ([torch.ones(3)], None, "holds no state dict .*, but a list"),
        ({}, None, "it is empty"),
    ],
)
def test_find_state_dict_rejects(content: Any, key: str | None, message: str, state: StateDict, tmp_path: Path):
    if isinstance(content, dict):
        content = {name: doubled(state) if value == 1 else value for name, value in content.items()}
    with pytest.raises(CheckpointError, match=message):
        read(content, tmp_path, key=key)


def test_find_state_dict_with_shared_and_cyclic_mappings(state: StateDict, tmp_path: Path):
    level: dict[str, Any] = {"model": state}
    for _ in range(3):
        level = {str(number): level for number in range(200)}
    assert same(read(level, tmp_path), state)
    cycle: dict[str, Any] = {"a": {}}
    cycle["a"]["b"] = cycle
    with pytest.raises(CheckpointError, match="holds no state dict"):
        read(cycle, tmp_path)
