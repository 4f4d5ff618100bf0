"""Deployed models against their networks: every family, every option."""

import numpy as np
import pytest
import torch
from conftest import enliven
from graphs import GRAPHS, SHORT_STAGES

from ghostnets.artefacts import Description
from ghostnets.checkpoints import Checkpoint
from ghostnets.export.deployed import DeployedModel, ExportJob, trace
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(48, 48, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
NAMES = tuple("abcde")
FAMILIES = {
    "ghostnet_100": {"width": 0.2, "stages": SHORT_STAGES},
    "ghostnetv2_100": {"width": 0.2, "ratio": 3, "stages": SHORT_STAGES},
    "ghostnetv3_100": {"width": 0.2, "stages": SHORT_STAGES},
    **{name: GRAPHS[name] for name in ("ghostnet_100_d_li14", "g_ghost_regnetx_002", "ghost_resnet18", "ghost_vgg16")},
}


def make_job(name: str, arguments: dict, **choices) -> ExportJob:
    arguments = {"num_classes": 5, **arguments}
    model = enliven(create_model(name, **arguments))
    checkpoint = Checkpoint(name, arguments, model.state_dict(), NAMES, PREPROCESSING)
    description = Description(name, arguments, NAMES, PREPROCESSING, **choices)
    return ExportJob(checkpoint, description, np.zeros((0, 48, 48, 3), np.uint8))


@pytest.mark.parametrize("name", FAMILIES)
def test_traced_model_matches_network(name: str):
    job = make_job(name, FAMILIES[name], output="probabilities", has_features=True)
    program = trace(job).module()
    network = job.checkpoint.build()
    pixels = torch.randint(0, 256, (3, 48, 48, 3), dtype=torch.uint8)
    with torch.inference_mode():
        x = PREPROCESSING.normalize(pixels.permute(0, 3, 1, 2))
        expected = network(x)
        network.reset_classifier(0)
        features = network(x)
        for some in (slice(0, 1), slice(0, 3)):  # traced with a batch of two
            probabilities, got = program(pixels[some])
            torch.testing.assert_close(probabilities, expected[some].softmax(1), rtol=0, atol=1e-4)
            torch.testing.assert_close(got, features[some], rtol=0, atol=1e-4 * float(features.abs().max()))


def test_float32_input_logits_any_size_match_network():
    job = make_job("ghostnetv2_100", {"width": 0.2, "stages": SHORT_STAGES}, input="float32", any_size=True)
    program, network = trace(job).module(), job.checkpoint.build()
    for shape in [(1, 3, 97, 97), (3, 3, 97, 130), (2, 3, 140, 101)]:
        x = torch.randn(shape)
        with torch.inference_mode():
            (logits,), expected = program(x), network(x)
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("precision", ["f16", "bf16"])
def test_half_precision_keeps_float32_input_and_output(precision: str):
    job = make_job("ghostnet_100", {"width": 0.2}, precision=precision)
    deployed = DeployedModel(job.checkpoint.build(), job.description)
    assert {p.dtype for p in deployed.parameters()} == {{"f16": torch.float16, "bf16": torch.bfloat16}[precision]}
    assert {b.dtype for b in deployed.buffers()} == {torch.float32}  # normalisation
    (logits,) = deployed(torch.zeros(1, 48, 48, 3, dtype=torch.uint8))
    assert logits.dtype == torch.float32
    assert not [name for name, _ in deployed.named_modules() if "bn" in name and type(_).__name__ == "BatchNorm2d"]


def test_calibration_batches_match_input_format():
    job = make_job("resnet20", {}, input="float32")
    pixels = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    batches = ExportJob(job.checkpoint, job.description, pixels).calibration_batches()
    expected = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    np.testing.assert_allclose(np.concatenate(batches), expected, rtol=1e-6, atol=1e-6)
    job = make_job("resnet20", {})
    batches = ExportJob(job.checkpoint, job.description, pixels).calibration_batches()
    assert [(b.shape, b.dtype) for b in batches] == [((1, 48, 48, 3), np.uint8)] * 2
