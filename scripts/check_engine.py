"""Measure the engine's error against torch in float64: every size from 32 to 320, every batch from 1 to 33.

python scripts/check_engine.py                             ghostnet_100
python scripts/check_engine.py ghostnetv2_100 --isa avx2 --threads 1
"""

import argparse
import copy
import sys

import torch
from torch import nn

from ghostnets import engine
from ghostnets.models import create_model

MAX_ERROR = 1e-5  # relative to the largest output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=["ghostnet_100"], help="see ghostnets list")
    parser.add_argument("--isa", help="instruction set; the best by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--step", type=int, default=1, help="step between sizes and between batches")
    options = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    is_correct = True
    for name in options.networks:
        model = randomized(create_model(name, num_classes=100))
        exact = copy.deepcopy(model).double()
        session = engine.compile(model, threads=options.threads, isa=options.isa)
        sizes = [(1, side, (side * 7 + 13) % 289 + 32) for side in range(32, 321, options.step)]
        sizes += [(1, side, side) for side in range(32, 321, 16 * options.step)]
        batches = [(count, 61, 48) for count in range(1, 34, options.step)]
        for kind, shapes in (("sizes", sizes), ("batches", batches)):
            errors = []
            for count, height, width in shapes:
                x = torch.randn(count, 3, height, width)
                with torch.no_grad():
                    expected = exact(x.double())
                error = (session(x).double() - expected).abs().max() / expected.abs().max()
                errors.append((error.item(), (count, 3, height, width)))
            worst, shape = max(errors)
            is_correct &= worst < MAX_ERROR
            print(
                f"{name}, {session.isa}, {session.threads} threads, {len(errors)} {kind}:"
                f" largest relative error {worst:.1e} ({' x '.join(map(str, shape))})",
                flush=True,
            )
    sys.exit(not is_correct)


def randomized(model: nn.Module) -> nn.Module:
    """Randomise normalisation statistics: with initial ones, folding would leave every bias at zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
            nn.init.normal_(module.running_mean, 0, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


if __name__ == "__main__":
    main()
