import pytest
import torch

from ghostnets.explain import compare_latency, compute_savings
from ghostnets.models import create_model


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_stages_sum_to_total_and_match_equations_4_and_5(ratio: int):
    with torch.device("meta"):
        model, plain = create_model("ghostnet_100", ratio=ratio), create_model("ghostnet_100", ratio=1)
        savings = compute_savings(model, plain, (3, 224, 224))
    assert sum(stage.macs for stage in savings.stages) == savings.macs
    assert sum(stage.plain_macs for stage in savings.stages) == savings.plain_macs
    # Both networks cost the same outside the Ghost modules.
    assert savings.macs - savings.module_macs == savings.plain_macs - savings.plain_module_macs
    measured = savings.plain_module_macs / savings.module_macs
    # Exact if the ratio divides every channel count; otherwise the last ghosts are cut off.
    assert measured == pytest.approx(savings.theoretical_ratio, rel=1e-9 if ratio == 2 else 0.02)
    compression = savings.plain_module_params / savings.module_params
    assert compression == pytest.approx(savings.theoretical_compression, rel=1e-9 if ratio == 2 else 0.02)
    assert [s.output_shape for s in savings.stages if s.name == "blocks.8"] == [(160, 7, 7)]
    assert savings.stages[-1].output_shape == (1000,)


def test_merged_ghostnetv3_costs_the_same_as_v2():
    with torch.device("meta"):
        v2, v3 = (
            compute_savings(create_model(name), create_model(name, ratio=1), (3, 96, 96))
            for name in ("ghostnetv2_050", "ghostnetv3_050")
        )
    assert (v3.macs, v3.plain_macs, v3.theoretical_ratio) == (v2.macs, v2.plain_macs, v2.theoretical_ratio)
    assert [(s.name, s.macs, s.plain_macs) for s in v3.stages] == [(s.name, s.macs, s.plain_macs) for s in v2.stages]


def test_compare_latency_returns_speedup_with_quartiles():
    model = create_model("ghostnet_050", width=0.1).eval()
    speed = compare_latency(model, model, torch.zeros(1, 3, 32, 32))
    assert 0 < speed.quartiles[0] <= speed.ratio <= speed.quartiles[1]
    assert speed.milliseconds > 0
    assert (speed.repeats, speed.threads) == (15, 1)


def test_savings_without_plain_counterpart_are_none():
    savings = compute_savings(create_model("ghostnet_100_d_li14"), None, (3, 32, 32))
    assert savings.plain_macs is None
    assert savings.theoretical_ratio is None
    assert {stage.name for stage in savings.stages} >= {"features.0", "features.16", "squeeze.0", "classifier.4"}
