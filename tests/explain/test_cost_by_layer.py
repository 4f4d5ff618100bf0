import pytest
import torch

from ghostnets.explain import find_ghost_modules, measure_cost_by_layer
from ghostnets.measure import count
from ghostnets.models import create_model


@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_050", "ghost_vgg16", "resnet20"])
def test_group_costs_sum_to_network_cost(name: str):
    arguments = {"width": 0.2} if "ghostnet" in name else {}
    model = create_model(name, num_classes=3, **arguments).eval()
    rows = measure_cost_by_layer(model, torch.randn(1, 3, 32, 32), runs=1)
    cost = count(model, (3, 32, 32))
    assert sum(row.macs for row in rows) == cost.macs
    assert [row.name for row in rows if row.is_ghost] == list(find_ghost_modules(model))
    for row in rows:
        assert row.seconds > 0
        if row.is_ghost:
            assert row.macs == sum(layer.macs for layer in cost.layers if layer.name.startswith(f"{row.name}."))
    assert len({row.name for row in rows}) == len(rows)
