"""Rows, speedups and output differences of a benchmark; no test asserts a duration."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ghostnets.bench import BACKENDS, BenchmarkResult, BenchmarkSettings, run_benchmark
from ghostnets.bench.backends import prepare
from ghostnets.bench.models import create_benchmark_model
from ghostnets.cli.main import main
from ghostnets.engine.session import is_built
from ghostnets.errors import ConfigurationError, GhostNetsError, MissingExtraError, UnknownNameError
from ghostnets.layers import GhostModule
from ghostnets.measure import count, limits
from ghostnets.models import create_model, model_entry

QUICK = {"image_size": 32, "runs": 4, "rounds": 2}


@pytest.fixture(scope="module")
def result() -> BenchmarkResult:
    settings = BenchmarkSettings(
        networks=("ghostnet_050", "torchvision:squeezenet1_1"),
        backends=("eager", "onnxruntime", "openvino", "engine"),
        batches=(2,),
        precisions=("f32", "bf16"),
        **QUICK,
    )
    return run_benchmark(settings, baseline="openvino")


def test_every_combination_is_a_row_or_left_out(result: BenchmarkResult):
    rows = {(row.network, row.backend, row.precision, row.batch) for row in result.rows}
    expected = {
        (network, backend, precision, batch)
        for network in ("ghostnet_050", "torchvision:squeezenet1_1")
        for backend in ("eager", "onnxruntime", "openvino")
        for precision in ("f32", "bf16")
        for batch in (2,)
        if (backend, precision) != ("onnxruntime", "bf16")
    }
    engine = {(row[0], "engine", p, 2) for row in expected for p in ("f32", "bf16")}
    assert rows == expected | (engine if is_built() else set())
    assert [s for s in result.left_out if "engine" not in s] == ["onnxruntime does not support bf16 on CPUs."]
    assert set(result.versions) == {"python", "torch", "onnxruntime", "openvino", "ghostnets"}


def test_every_backend_matches_eager_output(result: BenchmarkResult):
    for row in result.rows:
        assert 0 <= row.difference < (1e-4 if row.precision == "f32" else 0.2), row


def test_detectors_and_segmentation_networks_match_eager_output():
    networks = ("ghostdet_050", "ghostseg_050")
    backends = ("eager", "engine") if is_built() else ("eager",)
    settings = BenchmarkSettings(networks, backends, image_size=32, runs=1, rounds=1)
    rows = run_benchmark(settings).rows
    assert [(row.network, row.backend) for row in rows] == [(name, each) for name in networks for each in backends]
    assert all(0 <= row.difference < 1e-4 for row in rows)


def test_row_has_speedup_cost_and_published_accuracy(result: BenchmarkResult):
    assert result.baseline == ("ghostnet_050", "openvino", "f32")
    for row in result.rows:
        assert row.seconds.runs == 4
        assert row.images_per_second == row.batch / row.seconds.median
        if (row.network, row.backend, row.precision) == result.baseline:
            assert row.times_as_fast == (1.0, 1.0, 1.0)
    ours = next(row for row in result.rows if row.network == "ghostnet_050")
    assert (ours.top1, ours.image_size) == (model_entry("ghostnet_050").variant.top1, 32)
    assert ours.macs == count(create_model("ghostnet_050"), (3, 32, 32)).macs
    theirs = next(row for row in result.rows if row.network.startswith("torchvision"))
    assert (theirs.top1, theirs.accuracy_source) == (58.178, "torchvision, SqueezeNet1_1_Weights.IMAGENET1K_V1")


def test_int8_backends_match_eager_output_roughly():
    model = create_model("ghost_resnet20", depths=(1, 1, 1)).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = model(x).numpy()
    for backend in ("onnxruntime", "openvino"):
        prepared = prepare(backend, model, x, precision="int8", threads=1)
        difference = np.abs(prepared.output - expected).max() / np.abs(expected).max()
        assert 1e-6 < difference < 0.2, backend  # rounding, but not much


def test_openvino_bf16_leaves_signal_handling_intact():
    """Runs in a subprocess, because an unhandled signal ends the process."""
    code = """
import faulthandler, os, signal
from ghostnets.bench import BenchmarkSettings, run_benchmark
faulthandler.enable()  # like pytest: signals are handled on an alternate stack
precisions = ("f32", "bf16")
quick = {"image_size": 32, "runs": 4, "rounds": 2}
run_benchmark(BenchmarkSettings(("ghost_resnet20",), ("openvino",), precisions=precisions, **quick))
signal.signal(signal.SIGINT, lambda *_: print("handled"))
os.kill(os.getpid(), signal.SIGINT)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n")


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="inductor needs a C++ compiler")
def test_compile_matches_eager_output():
    layers = GhostModule(3, 7), GhostModule(7, 8, kernel_size=3, stride=2), nn.Flatten(), nn.Linear(8 * 8 * 8, 5)
    model = nn.Sequential(*layers).eval()
    x = torch.randn(1, 3, 16, 16)
    prepared = prepare("compile", model, x, precision="f32", threads=1)
    with torch.inference_mode():
        np.testing.assert_allclose(prepared.output, model(x).numpy(), rtol=0, atol=1e-4)
    np.testing.assert_array_equal(prepared.runner.run().numpy(), prepared.output)


def test_create_benchmark_model_merges_branches():
    merged = create_benchmark_model("ghostnetv3_050").model
    assert round(count(merged, (3, 224, 224)).params / 1e6, 4) == 2.8532
    assert count(create_benchmark_model("timm:repghostnet_050").model, (3, 224, 224)).params < 2.4e6
    assert not merged.training


@pytest.mark.parametrize(
    ("changes", "baseline", "message"),
    [
        ({"backends": ("openvin",)}, None, "did you mean openvino"),
        ({"precisions": ("f16",)}, None, "no precision named 'f16'"),
        ({"batches": (0,)}, None, "batch is 0"),
        ({"rounds": 0}, None, "runs is 4, 0"),
        ({"networks": ()}, None, "name a network"),
        ({"networks": ("ghostnet_05",)}, None, "did you mean ghostnet_050"),
        ({"networks": ("keras:vgg",)}, None, "one of timm, torchvision"),
        ({"networks": ("timm:no_such",)}, None, "has no network 'no_such'"),
        ({"networks": ("torchvision:no_such",)}, None, "torchvision has no classifier"),
        ({"networks": ("torchvision:fcn_resnet50",)}, None, "torchvision has no classifier"),
        ({}, "openvino", "the baseline is openvino; it must be one of eager"),
        ({"precisions": ("int8",)}, None, "has none of the precisions int8"),
        (
            {"networks": ("timm:convnext_atto",), "backends": ("engine", "eager")},
            None,
            "cannot run: timm:convnext_atto in engine: ",
        ),
        ({"networks": ("timm:convnext_atto",), "backends": ("engine",)}, None, "cannot run: timm:convnext_atto in"),
        ({"image_size": 0}, None, "image_size is 0; every number must be at least 1"),
    ],
)
def test_run_benchmark_rejects_invalid_settings(changes: dict, baseline: str | None, message: str):
    settings = {"networks": ("ghostnet_050",), "backends": ("eager",), **QUICK} | changes
    with pytest.raises(GhostNetsError, match=message):
        run_benchmark(BenchmarkSettings(**settings), baseline=baseline)


def test_prepare_names_pip_command_of_missing_backend(monkeypatch: pytest.MonkeyPatch):
    def reject(name: str, *_: object) -> object:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr("ghostnets.errors.importlib.import_module", reject)
    with pytest.raises(MissingExtraError, match=r"pip install .*\[bench\]"):
        prepare("openvino", torch.nn.Identity(), torch.zeros(1), precision="f32", threads=1)


def test_prepare_rejects_unsupported_precision_and_unknown_backend():
    with pytest.raises(ConfigurationError, match="eager does not support int8 on CPUs; choose one of f32, bf16"):
        prepare("eager", torch.nn.Identity(), torch.zeros(1), precision="int8", threads=1)
    with pytest.raises(UnknownNameError):
        prepare("tensorflow", torch.nn.Identity(), torch.zeros(1), precision="f32", threads=1)
    assert all(backend.version for backend in BACKENDS.values())


def test_bench_command_writes_json_and_figures(tmp_path: Path, capsys):
    arguments = ["bench", "ghostnet_050", "ghost_resnet20", "--image-size", "32", "--runs", "2", "--rounds", "2"]
    assert main([*arguments, "--precision", "f32,bf16", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "Medians of 2 runs each, in 2 interleaved blocks" in printed
    assert "eager: channels_last, inference_mode" in printed
    written = json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [(row["network"], row["precision"]) for row in written["rows"]] == [
        ("ghostnet_050", "f32"), ("ghostnet_050", "bf16"), ("ghost_resnet20", "f32"), ("ghost_resnet20", "bf16"),
    ]  # fmt: skip
    for figure in ("latency-macs", "accuracy-latency", "time-by-layer"):
        assert "</svg>" in (tmp_path / "out" / f"{figure}.svg").read_text()
    assert main([*arguments, "--batch", "one"]) == 1
    assert "--batch is 'one'; pass comma-separated integers" in capsys.readouterr().err


def test_profile_command_prints_kinds_layers_and_json(capsys, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(limits, "SECONDS", 0.02)  # per measured limit of the machine
    arguments = ["profile", "ghostnet_050", "--image-size", "32", "--runs", "2"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert "depthwise 3x3" in printed
    assert "of the limit" in printed
    assert main([*arguments, "--layers", "--precision", "bf16"]) == 0
    assert "blocks.0.0.ghost1.primary_conv.0" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert sum(module["macs"] for module in result["modules"]) == count(create_model("ghostnet_050"), (3, 32, 32)).macs
    assert result["limits"]["threads"] == 1
    assert main([*arguments, "--precision", "int8"]) == 1
    assert "known are: bf16, f32" in capsys.readouterr().err
