"""Latency of the engine against OpenVINO and other peers.

The engine and its peers (OpenVINO with the LATENCY hint, the same number of threads) alternate in blocks within one
process, on the same random weights and images. This is repeated in several processes, because OpenVINO occasionally
runs a whole process in a slow mode, and other load on the machine can affect a whole process as well. A ratio compares
the medians of one process; the median of these ratios is printed, with the lowest and the highest. Milliseconds are
those of each runner's fastest process.

    python benchmarks/engine.py                               ghostnet_100, batch 1, 2 and 1 threads
    python benchmarks/engine.py --models ghostnetv2_100 ghostnetv3_100 --batches 1 8
    python benchmarks/engine.py --models torchvision:resnet18 timm:efficientnet_lite0
    python benchmarks/engine.py --isa avx2                    without AVX-512, OpenVINO included
    python benchmarks/engine.py --precision bf16 --peers openvino-bf16
    python benchmarks/engine.py --precision int8 --peers openvino-int8
    python benchmarks/engine.py --peers openvino onnxruntime torch mobilenet
    python benchmarks/engine.py --layers                      also time and share of the machine's limit by layer
    python benchmarks/engine.py --table                       all rows of docs/engine.md's table, ten minutes

Needs: pip install 'ghostnets[bench]'
"""

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import nn
from torchvision.models import get_model, mobilenet_v3_large

from ghostnets import engine
from ghostnets.compress import reparameterize
from ghostnets.measure import processor_name
from ghostnets.models import create_model

PEERS = ("openvino", "openvino-bf16", "openvino-int8", "onnxruntime", "torch", "mobilenet")
BLOCK = 20
# networks, batches, threads, precision, peers, instruction set
TABLE: tuple[tuple[list[str], list[int], list[int], str, list[str], str | None], ...] = (
    (["ghostnet_100"], [1], [2, 1], "f32", ["openvino"], None),
    (["ghostnet_100"], [1], [2, 1], "f32", ["mobilenet"], None),
    (["ghostnet_100"], [1], [2, 1], "bf16", ["openvino-bf16"], None),
    (["ghostnet_100"], [1], [2, 1], "int8", ["openvino-int8"], None),
    (["ghostnet_100"], [8, 32], [2], "f32", ["openvino"], None),
    (["ghostnet_100"], [8, 32], [2], "int8", ["openvino-int8"], None),
    (["ghostnet_050", "ghostnet_130", "ghostnetv2_100", "ghostnetv3_100"], [1], [2, 1], "f32", ["openvino"], None),
    (["ghostnet_100"], [1], [2, 1], "f32", ["openvino"], "avx2"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["ghostnet_100"])
    parser.add_argument("--batches", nargs="+", type=int, default=[1])
    parser.add_argument("--threads", nargs="+", type=int, default=[2, 1])
    parser.add_argument(
        "--peers", nargs="+", choices=PEERS, default=["openvino"], help="mobilenet: V3-Large in OpenVINO"
    )
    parser.add_argument("--precision", choices=("f32", "bf16", "int8"), default="f32", help="precision of the engine")
    parser.add_argument("--isa", help="instruction set of the engine; avx2 limits OpenVINO to AVX2 too")
    parser.add_argument("--runs", type=int, default=200, help="runs per process")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument(
        "--layers", action="store_true", help="print the time of each layer as well, as ghostnets profile does"
    )
    parser.add_argument("--table", action="store_true", help="run all rows of docs/engine.md's table")
    parser.add_argument("--one", help=argparse.SUPPRESS)  # configuration to run in this process, as JSON
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    chosen = (options.models, options.batches, options.threads, options.precision, options.peers, options.isa)
    rows = TABLE if options.table else (chosen,)
    if options.table:
        options.peers = PEERS
    packages = ["torch", *(["openvino"] if set(options.peers) - {"onnxruntime", "torch"} else []), "numpy"]
    if "openvino-int8" in options.peers:
        packages.append("nncf")
    print(f"{processor_name()}; {', '.join(f'{name} {version(name)}' for name in packages)}; 224 x 224")
    print(
        f"medians of {options.runs} runs, alternating in blocks of {BLOCK}; {options.processes} processes; p10 to p90"
    )
    print("\n| network | batch | threads | runtime | ms | p10 to p90 | times the engine | range over processes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for models, batches, threads, options.precision, options.peers, options.isa in rows:
        for model, batch, number in itertools.product(models, batches, threads):
            report(model, batch, number, options)
            if options.layers:
                print_layers(model, batch, number, options.precision)


def report(model: str, batch: int, threads: int, options: argparse.Namespace) -> None:
    job = {"model": model, "batch": batch, "threads": threads, "isa": options.isa, "peers": options.peers}
    job |= {"precision": options.precision}
    environment = os.environ | ({"ONEDNN_MAX_CPU_ISA": "AVX2"} if options.isa == "avx2" else {})
    command = [sys.executable, __file__, "--one", json.dumps(job | {"runs": options.runs})]
    results: list[dict[str, Any]] = []
    for _ in range(options.processes):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    best = {name: min((result[name] for result in results), key=lambda row: row["median"]) for name in results[0]}
    for name, row in best.items():
        ratios = sorted(result[name]["median"] / result["engine"]["median"] for result in results)
        print(
            f"| {model} | {batch} | {threads} | {row['label']} | {row['median']:.3f} |"
            f" {row['low']:.2f} to {row['high']:.2f} | {statistics.median(ratios):.2f} |"
            f" {ratios[0]:.2f} to {ratios[-1]:.2f} |",
            flush=True,
        )


def print_layers(model: str, batch: int, threads: int, precision: str) -> None:
    command = [sys.executable, "-m", "ghostnets", "profile", model, "--backend", "engine", "--layers"]
    command += ["--batch", str(batch), "--threads", str(threads), "--precision", precision]
    print(flush=True)
    subprocess.run(command, check=True)


def measure(
    *, model: str, batch: int, threads: int, isa: str | None, peers: list[str], runs: int, precision: str
) -> dict[str, dict[str, Any]]:
    """Measure the latency of the engine and its peers in milliseconds, alternating in blocks."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    network = build(model)
    x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), dtype=np.float32)
    calibration = [x] if precision == "int8" else None
    session = engine.compile(network, threads=threads, isa=isa, precision=precision, calibration=calibration)
    work: dict[str, tuple[str, Callable[[], Any]]] = {
        "engine": (f"engine {precision} ({session.isa})", lambda: session(x))
    }
    for peer in peers:
        work[peer] = PEER_RUNNERS[peer](network, x, threads)
    expected = engine.compile(network, threads=threads, isa=isa)(x)
    for name in {*peers} & {"openvino", "onnxruntime", "torch"}:
        error = np.abs(work[name][1]() - expected).max() / np.abs(expected).max()
        assert error < 1e-4, f"{name} and the engine differ by {error}"
    times: dict[str, list[float]] = {name: [] for name in work}
    for _, run in work.values():
        for _ in range(BLOCK):
            run()
    for _ in range(max(1, runs // BLOCK)):
        for name, (_, run) in work.items():
            for _ in range(BLOCK):
                before = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - before))
    return {
        name: {
            "label": work[name][0],
            "median": statistics.median(values),
            "low": float(np.percentile(values, 10)),
            "high": float(np.percentile(values, 90)),
        }
        for name, values in times.items()
    }


def build(model: str) -> nn.Module:
    """Build a network of this package, ``torchvision:NAME`` or ``timm:NAME``, with random weights."""
    library, _, name = model.rpartition(":")
    if library == "torchvision":
        return randomized(get_model(name, weights=None))
    if library == "timm":
        import timm

        return randomized(timm.create_model(name))
    return reparameterize(randomized(create_model(model)))


def randomized(model: nn.Module) -> nn.Module:
    """Randomise the batch normalisation: with its initial values, folding would leave every bias at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


def openvino_runner(
    network: nn.Module, x: np.ndarray, threads: int, *, precision: str = "f32"
) -> tuple[str, Callable[[], Any]]:
    import openvino

    if precision == "int8":
        import nncf
    converted = openvino.convert_model(network, example_input=torch.from_numpy(x))
    converted.reshape(list(x.shape))
    if precision == "int8":
        converted = nncf.quantize(converted, nncf.Dataset([x]), preset=nncf.QuantizationPreset.MIXED, subset_size=1)
    hints = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }
    compiled = openvino.Core().compile_model(converted, "CPU", hints)
    kinds = {op.get_rt_info()["layerType"]: op.get_rt_info() for op in compiled.get_runtime_model().get_ops()}
    request = compiled.create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))

    def run() -> Any:
        request.infer()
        return request.get_output_tensor().data

    return f"OpenVINO {precision}, {kinds['Convolution']['primitiveType'].astype(str)}", run


def mobilenet_runner(network: nn.Module, x: np.ndarray, threads: int) -> tuple[str, Callable[[], Any]]:
    label, run = openvino_runner(randomized(mobilenet_v3_large()), x, threads)
    return f"MobileNetV3-Large 1.0 in {label}", run


def onnxruntime_runner(network: nn.Module, x: np.ndarray, threads: int) -> tuple[str, Callable[[], Any]]:
    import io

    import onnxruntime

    file = io.BytesIO()
    torch.onnx.export(network, (torch.from_numpy(x),), file, dynamo=False, input_names=["images"])
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file.getvalue(), settings, providers=["CPUExecutionProvider"])
    return f"ONNX Runtime {onnxruntime.__version__}", lambda: session.run(None, {"images": x})[0]


def torch_runner(network: nn.Module, x: np.ndarray, threads: int) -> tuple[str, Callable[[], Any]]:
    network, tensor = network.to(memory_format=torch.channels_last), torch.from_numpy(x)

    def run() -> Any:
        with torch.inference_mode():
            return network(tensor).numpy()

    return "torch eager, channels_last", run


PEER_RUNNERS: dict[str, Callable[..., tuple[str, Callable[[], Any]]]] = {
    "openvino": openvino_runner,
    "openvino-bf16": lambda *arguments: openvino_runner(*arguments, precision="bf16"),
    "openvino-int8": lambda *arguments: openvino_runner(*arguments, precision="int8"),
    "onnxruntime": onnxruntime_runner,
    "torch": torch_runner,
    "mobilenet": mobilenet_runner,
}


if __name__ == "__main__":
    main()
