"""Layouts against the definition of the Ghost module's output: intrinsic maps first, then the ghosts by groups."""

import numpy as np
import pytest

from ghostnets.engine.plan import Layout, Plan


@pytest.mark.parametrize(("channels", "segments"), [(16, 2), (17, 2), (18, 3), (20, 3), (7, 4), (5, 1), (1, 2)])
def test_layout_holds_every_channel_once(channels: int, segments: int):
    order = Layout(channels, segments).order
    assert order.shape == (segments, -(-channels // segments))
    assert sorted(order[order >= 0]) == list(range(channels))


def test_layout_puts_ghosts_in_later_segments():
    # Three intrinsic maps, two ghosts each; a grouped convolution puts out 0a 0b 1a 1b 2a 2b, and 2b is cut off.
    assert Layout(8, 3).order.tolist() == [[0, 1, 2], [3, 5, 7], [4, 6, -1]]


def test_grouped_layout_keeps_neighbouring_channels():
    layout = Layout(6, 3, is_grouped=True)
    assert layout.order.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert layout.positions == list(range(6))


def test_positions_invert_arrange():
    layout = Layout(8, 3)
    assert layout.arrange(np.arange(8.0, dtype=np.float32), 0)[layout.positions].tolist() == list(range(8))


def test_arrange_fills_with_zeros():
    values = np.arange(1, 9, dtype=np.float32)[None]
    assert Layout(8, 3).arrange(values, 1).tolist() == [[1, 2, 3, 4, 6, 8, 5, 7, 0]]


def test_add_names_tensors_after_the_node():
    plan = Plan(3)
    plan.add("linear", "classifier", input=0, output=1, tensors={"weight": np.ones((2, 3))})
    assert plan.nodes == [
        {"kind": "linear", "name": "classifier", "input": 0, "output": 1, "weight": "0.linear.weight"}
    ]
    assert plan.tensors["0.linear.weight"].dtype == np.float32
