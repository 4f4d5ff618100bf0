"""Networks by graph. Most properties of a network depend on its graph alone, not on its width and depth, so they are
tested for the smallest network of each graph, and with ``-m slow`` for all the others.

``tests/models/test_graphs.py`` checks that every network shares its layers with one of these.
"""

from collections.abc import Collection, Iterable
from typing import Any

import pytest

from ghostnets.models import create_model, list_models
from ghostnets.models.d_li14 import BLOCKS
from ghostnets.models.ghostnet import STAGES

# One block of each kind: with and without stride, squeeze-and-excitation, projected shortcut and, in V2 and V3, gate.
SHORT_STAGES = (*STAGES[:2], STAGES[3], STAGES[5], (STAGES[6][0], STAGES[6][-1]), STAGES[7], STAGES[8][-1:])
SHORT_BLOCKS = [BLOCKS[number] for number in (1, 2, 3, 4, 5, 6, 10, 12, 16)]
# Arguments that make a network shallower, with one block of each kind.
GRAPHS: dict[str, dict[str, Any]] = {
    "g_ghost_regnetx_002": {"depths": (1, 1, 3, 4)},
    "ghost_resnet18": {"depths": (2, 1, 1, 1)},
    "ghost_resnet20": {"depths": (2, 1, 1)},
    "ghost_resnet50": {"depths": (2, 1, 1, 1)},
    "ghost_vgg16": {},
    "ghostnet_050": {"stages": SHORT_STAGES},
    "ghostnet_100_d_li14": {"blocks": SHORT_BLOCKS},
    "ghostnet_100_d_li14_revised": {"blocks": SHORT_BLOCKS},
    "ghostnetv2_050": {"stages": SHORT_STAGES},
    "ghostnetv3_050": {"stages": SHORT_STAGES},
    "resnet20": {"depths": (2, 1, 1)},
    "vgg16": {},
}


def slow_unless(quick: Collection[str], names: Iterable[str]) -> list[Any]:
    """The names as parameters of a test, those that are not in ``quick`` marked as slow."""
    return [pytest.param(name, marks=() if name in quick else pytest.mark.slow) for name in names]


EVERY_GRAPH = slow_unless(GRAPHS, list_models())


def create_shallow(name: str, **arguments: Any) -> Any:
    """Create a network, or its backbone, with one block of each kind if it is the smallest of its graph."""
    return create_model(name, **GRAPHS.get(name, {}), **arguments)
