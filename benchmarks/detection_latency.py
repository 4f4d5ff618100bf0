"""Latency of detectors in the engine against ncnn and OpenVINO, float32, one image.

    pip install ncnn 'ghostnets[bench]'
    python benchmarks/detection_latency.py --param nanodet-plus-m_416.param

Measures NanoDet-Plus-m (its published weights, in ncnn from the file itself), ghostdet_050 and ghostdet_100 (random
weights, OpenVINO only) at 320 and 416 pixels with 1 and 2 threads; and ghostdet_050 against its backbone alone at 320.
The runners alternate in blocks within one process, on the same image; this is repeated in several processes. A ratio
compares the medians of one process; the median of these ratios is printed, with the lowest and the highest.
Milliseconds are those of each runner's fastest process. Decoding of boxes is not included.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import torch
from torch import nn

from ghostnets import engine
from ghostnets.checkpoints import load_ncnn
from ghostnets.measure import processor_name
from ghostnets.models.detection import Detector, DetectorMaps, create_detector

NETWORKS, SIZES, THREADS = ("nanodet_plus_m", "ghostdet_050", "ghostdet_100"), (320, 416), (2, 1)
BLOCK = 20
MAX_DIFFERENCE = (
    1e-2  # of predictions, relative to the largest one; ncnn computes its float16 file with its own options
)

Run = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--param", type=Path, help=".param file of NanoDet-Plus-m, with the .bin file next to it")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--threads", nargs="+", type=int, default=THREADS)
    parser.add_argument("--channels", type=int, help="channels of neck and head, if not those of the network")
    parser.add_argument("--runs", type=int, default=200, help="runs per process")
    parser.add_argument("--processes", type=int, default=3)
    parser.add_argument("--one", help=argparse.SUPPRESS)  # configuration to run in this process, as JSON
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(**json.loads(options.one))))
        return
    if "nanodet_plus_m" in options.networks and options.param is None:
        parser.error("nanodet_plus_m needs --param; or choose others with --networks")
    names = ["torch", "openvino", *(["ncnn"] if options.param else [])]
    print(f"{processor_name()}; {', '.join(f'{name} {version(name)}' for name in names)}; float32, one image")
    print(f"medians of {options.runs} runs, alternating in blocks of {BLOCK}; {options.processes} processes")
    print("\n| network | size | threads | runtime | ms | p10 to p90 | times the engine | range over processes |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for network, size, threads in itertools.product(options.networks, options.sizes, options.threads):
        report(network, size, threads, options)


def report(network: str, size: int, threads: int, options: argparse.Namespace) -> None:
    job = {"network": network, "size": size, "threads": threads, "runs": options.runs}
    job["param"] = str(options.param) if network == "nanodet_plus_m" else None
    job["channels"] = options.channels
    results: list[dict[str, dict[str, float]]] = []
    for _ in range(options.processes):
        command = [sys.executable, __file__, "--one", json.dumps(job)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(done.stderr)
        results.append(json.loads(done.stdout.splitlines()[-1]))
    for name in results[0]:
        best = min((result[name] for result in results), key=lambda row: row["median"])
        ratios = sorted(result[name]["median"] / result["engine"]["median"] for result in results)
        print(
            f"| {network} | {size} | {threads} | {name} | {best['median']:.3f} | {best['low']:.2f} to"
            f" {best['high']:.2f} | {statistics.median(ratios):.2f} | {ratios[0]:.2f} to {ratios[-1]:.2f} |",
            flush=True,
        )


def measure(
    *, network: str, size: int, threads: int, runs: int, param: str | None, channels: int | None
) -> dict[str, dict[str, float]]:
    """Measure the latency of each runner in milliseconds, alternating in blocks."""
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    torch.set_num_threads(threads)
    detector = create_detector(network, channels=channels).eval()
    if param is None:
        randomize(detector)
    else:
        load_ncnn(detector, param)
    x = np.random.default_rng(0).standard_normal((1, 3, size, size), dtype=np.float32)
    session = engine.compile(DetectorMaps(detector), threads=threads)
    work: dict[str, Run] = {"engine": lambda: session(x), "openvino": openvino_runner(detector, x, threads)}
    if param is not None:
        work["ncnn"] = ncnn_runner(Path(param), x, threads)
    check(work, detector)
    if network == "ghostdet_050" and size == SIZES[0]:
        backbone = engine.compile(detector.backbone, threads=threads)
        work["engine, the backbone alone"] = lambda: backbone(x)
    times: dict[str, list[float]] = {name: [] for name in work}
    for _, run in itertools.product(range(BLOCK), work.values()):
        run()
    for _ in range(max(1, runs // BLOCK)):
        for name, run in work.items():
            for _ in range(BLOCK):
                before = time.perf_counter()
                run()
                times[name].append(1e3 * (time.perf_counter() - before))
    low_high = {name: np.percentile(values, [10, 90]).tolist() for name, values in times.items()}
    return {
        name: {"median": statistics.median(values), "low": low_high[name][0], "high": low_high[name][1]}
        for name, values in times.items()
    }


def check(work: dict[str, Run], detector: Detector) -> None:
    """Compare the predictions of the runners, as logits of classes and distances."""
    expected = np.concatenate([level.reshape(*level.shape[:2], -1) for level in work["engine"]()], 2)[0].T
    for name in work.keys() - {"engine"}:
        actual, wanted = np.array(work[name]()).reshape(expected.shape), expected.copy()
        if name == "ncnn":  # its file returns scores
            wanted[:, : detector.num_classes] = 1 / (1 + np.exp(-wanted[:, : detector.num_classes]))
        difference = np.abs(actual - wanted).max() / np.abs(wanted).max()
        if not difference < MAX_DIFFERENCE:
            sys.exit(f"{name} and the engine differ by {difference:.3g}")


def openvino_runner(detector: nn.Module, x: np.ndarray, threads: int) -> Run:
    model = openvino.convert_model(detector, example_input=torch.from_numpy(x))
    model.reshape(list(x.shape))
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    request.set_input_tensor(openvino.Tensor(x))

    def run() -> np.ndarray:
        request.infer()
        data: np.ndarray = request.get_output_tensor().data
        return data

    return run


def ncnn_runner(param: Path, x: np.ndarray, threads: int) -> Run:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = threads
    if net.load_param(str(param)) or net.load_model(str(param.with_suffix(".bin"))):
        sys.exit(f"ncnn cannot load {param}")
    bgr = np.ascontiguousarray(x[0, ::-1])

    def run() -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("data", ncnn.Mat(bgr))
        return np.array(extractor.extract("output")[1])

    return run


def randomize(model: nn.Module) -> None:
    """Randomise the batch normalisation: with its initial values, folding would leave every bias at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)


if __name__ == "__main__":
    main()
