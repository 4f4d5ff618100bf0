"""Opening what was not exported here, checkpoints, and plans; the exported formats are tested with their export."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ghostnets import engine
from ghostnets.artefacts import METADATA_KEY, SUFFIXES, Classifier, Description, open_model
from ghostnets.checkpoints import Checkpoint, save_checkpoint
from ghostnets.errors import ArtefactError, CheckpointError, ConfigurationError, EngineError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

PREPROCESSING = Preprocessing(24, 28, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25))
NAMES = ("a", "b", "c")
needs_engine = pytest.mark.skipif(not engine.session.is_built(), reason="the engine needs a C++ compiler")


@pytest.fixture
def checkpoint(request, tmp_path: Path, randomize) -> tuple[Path, torch.nn.Module]:
    name, arguments = request.param, {"num_classes": 3, **({"width": 0.1} if request.param[:8] == "ghostnet" else {})}
    model = randomize(create_model(name, **arguments))
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, Checkpoint(name, arguments, model.state_dict(), NAMES, PREPROCESSING))
    return path, model


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)


@pytest.mark.parametrize("is_engine", [pytest.param(True, marks=needs_engine), False])
@pytest.mark.parametrize("checkpoint", ["ghostnetv2_100", "resnet20"], indirect=True)
def test_checkpoint_outputs_equal_those_of_its_network(
    checkpoint, pixels: np.ndarray, is_engine: bool, monkeypatch: pytest.MonkeyPatch
):
    if not is_engine:
        monkeypatch.setitem(sys.modules, "ghostnets.engine._native", None)
    path, model = checkpoint
    opened = open_model(path, threads=1)
    x = PREPROCESSING.normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    with torch.inference_mode():
        expected = model(x)
        model.reset_classifier(0)
        features = model(x)
    for network in (opened, opened.copy()):
        for count in (5, 0):
            outputs = network.run(pixels[:count], features=True)
            for got, wanted in ((outputs.scores, expected[:count]), (outputs.features, features[:count])):
                assert got.dtype == np.float32
                torch.testing.assert_close(torch.from_numpy(got), wanted, rtol=1e-4, atol=1e-4)
            scores_only = network.run(pixels[:count])
            np.testing.assert_array_equal(scores_only.scores, outputs.scores)
            assert scores_only.features is None
    np.testing.assert_allclose(Classifier(opened).run(pixels).scores, expected.softmax(1), rtol=1e-4, atol=1e-4)
    assert opened.runtime.startswith("ghostnets engine" if is_engine else "torch")
    assert len(opened.description.source_sha256) == 64
    assert opened.run(np.zeros((1, 30, 41, 3), np.uint8)).scores.shape == (1, 3)
    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(lambda images: opened.run(images, features=True), [pixels] * 8):
            np.testing.assert_allclose(outputs.features, features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("checkpoint", ["resnet20"], indirect=True)
def test_images_of_wrong_shape_or_type_are_rejected(checkpoint):
    opened = open_model(checkpoint[0])
    for images in [
        np.zeros((1, 24, 24, 1), np.uint8),
        np.zeros((1, 0, 24, 3), np.uint8),
        np.zeros((24, 24, 3), np.uint8),
        np.zeros((1, 24, 24, 3), np.float32),
    ]:
        with pytest.raises(ConfigurationError, match=r"takes uint8 \(N, H, W, 3\)"):
            opened.run(images)


@needs_engine
@pytest.mark.parametrize("checkpoint", ["ghostnet_100"], indirect=True)
def test_plan_is_run_without_torch(checkpoint, pixels: np.ndarray, tmp_path: Path):
    path, _ = checkpoint
    session = engine.compile(path, threads=1)
    description = Description("ghostnet_100", {"num_classes": 3}, NAMES, PREPROCESSING)
    session.save(tmp_path / "net.engine", metadata={METADATA_KEY: description.to_json()})
    np.save(tmp_path / "pixels.npy", pixels)
    code = (
        "import sys, numpy as np\n"
        "from ghostnets.artefacts import open_model\n"
        "model = open_model('net.engine', threads=1)\n"
        "np.save('scores.npy', model.run(np.load('pixels.npy')).scores)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    np.testing.assert_array_equal(np.load(tmp_path / "scores.npy"), session(pixels))
    opened = open_model(tmp_path / "net.engine", threads=1)
    assert opened.description.class_names == NAMES
    with pytest.raises(ConfigurationError, match="gives no features"):
        opened.run(pixels, features=True)
    with pytest.raises(ConfigurationError, match=r"takes uint8 \(N, 24, 24, 3\)"):
        opened.run(np.zeros((1, 25, 24, 3), np.uint8))
    other = Description("ghostnet_100", {}, ("one",), PREPROCESSING)
    session.save(tmp_path / "wrong.engine", metadata={METADATA_KEY: other.to_json()})
    with pytest.raises(ArtefactError, match="names 1 classes"):
        open_model(tmp_path / "wrong.engine").run(pixels)
    session.save(tmp_path / "bare.engine")
    with pytest.raises(ArtefactError, match=r"bare.engine cannot be used: it has no description"):
        open_model(tmp_path / "bare.engine")


def test_unusable_files_are_rejected(tmp_path: Path):
    with pytest.raises(ArtefactError, match="has no suffix of a known format"):
        open_model(tmp_path / "net.exe")
    for suffix in SUFFIXES:
        with pytest.raises(ArtefactError, match="there is no file"):
            open_model(tmp_path / f"net{suffix}")
    for suffix in (".engine", ".onnx", ".safetensors", ".pt2", ".xml"):
        path = tmp_path / f"net{suffix}"
        path.write_bytes(b"no network at all")
        with pytest.raises((ArtefactError, CheckpointError, EngineError), match=r"net"):
            open_model(path)
    (tmp_path / "net.bin").write_bytes(b"")
    with pytest.raises(ArtefactError, match="OpenVINO cannot load it"):
        open_model(tmp_path / "net.xml")
    with pytest.raises(ConfigurationError, match="threads is 0"):
        open_model(tmp_path / "net.onnx", threads=0)
