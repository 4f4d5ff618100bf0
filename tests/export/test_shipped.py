"""What goes into the files, against the network itself; each family, every option."""

import numpy as np
import pytest
import torch
from conftest import enliven

from ghostnets.artefacts import Description
from ghostnets.checkpoints import Checkpoint
from ghostnets.export.shipped import Order, Shipped, trace
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(48, 48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
NAMES = tuple("abcde")
FAMILIES = {
    "ghostnet_100": {"width": 0.2},
    "ghostnetv2_100": {"width": 0.2, "ratio": 3},
    "ghostnetv3_100": {"width": 0.2},
    "ghostnet_100_d_li14": {},
    "g_ghost_regnetx_002": {},
    "ghost_resnet18": {},
    "ghost_vgg16": {},
}


def order_of(name: str, arguments: dict, **choices) -> Order:
    arguments = {"num_classes": 5, **arguments}
    model = enliven(create_model(name, **arguments))
    checkpoint = Checkpoint(name, arguments, model.state_dict(), NAMES, PREPROCESSING)
    description = Description(name, arguments, NAMES, PREPROCESSING, **choices)
    return Order(checkpoint, description, np.zeros((0, 48, 48, 3), np.uint8))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_traced_family_answers_as_its_network(name: str):
    order = order_of(name, FAMILIES[name], output="probabilities", has_features=True)
    program = trace(order).module()
    network = order.checkpoint.build()
    pixels = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        x = PREPROCESSING.normalize(pixels.permute(0, 3, 1, 2))
        expected = network(x)
        network.reset_classifier(0)
        features = network(x)
        for some in (slice(0, 1), slice(0, 3)):  # it was traced with two
            probabilities, got = program(pixels[some])
            torch.testing.assert_close(probabilities, expected[some].softmax(1), rtol=0, atol=1e-4)
            torch.testing.assert_close(got, features[some], rtol=0, atol=1e-4 * float(features.abs().max()))


def test_normalised_floats_in_logits_out_of_any_size():
    order = order_of("ghostnetv2_100", {"width": 0.2}, input="float32", any_size=True)
    program, network = trace(order).module(), order.checkpoint.build()
    for shape in [(1, 3, 97, 97), (3, 3, 97, 130), (2, 3, 140, 101)]:
        x = torch.randn(shape)
        with torch.inference_mode():
            (logits,), expected = program(x), network(x)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_half_precision_is_inside_and_float32_outside(precision: str):
    order = order_of("ghostnet_100", {"width": 0.2}, precision=precision)
    shipped = Shipped(order.checkpoint.build(), order.description)
    assert {p.dtype for p in shipped.parameters()} == {{"f16": torch.float16, "bf16": torch.bfloat16}[precision]}
    assert {b.dtype for b in shipped.buffers()} == {torch.float32}  # normalisation
    (logits,) = shipped(torch.zeros(1, 48, 48, 3, dtype=torch.uint8))
    assert logits.dtype == torch.float32
    assert not [name for name, _ in shipped.named_modules() if "bn" in name and type(_).__name__ == "BatchNorm2d"]


def test_calibration_is_what_the_file_takes():
    order = order_of("resnet20", {}, input="float32")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    batches = Order(order.checkpoint, order.description, pixels).calibration_batches()
    expected = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    np.testing.assert_allclose(np.concatenate(batches), expected, rtol=1e-6, atol=1e-6)
    order = order_of("resnet20", {})
    batches = Order(order.checkpoint, order.description, pixels).calibration_batches()
    assert [(b.shape, b.dtype) for b in batches] == [((1, 48, 48, 3), np.uint8)] * 2
