"""Fine-tuning and distillation from published weights use the preprocessing that belongs to the weights."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import make_images
from local_server import hub_fixture, server_fixture  # noqa: F401
from safetensors.torch import load, save

from ghostnets.checkpoints import WEIGHTS, Checkpoint, read_checkpoint, save_checkpoint
from ghostnets.checkpoints.hub import PublishedPreprocessing
from ghostnets.data import DataSpec
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing
from ghostnets.train import Callback, Recipe, initial_weights, train_model
from ghostnets.train.distill import load_teacher
from ghostnets.train.initial_weights import choose_weights
from ghostnets.train.network import build_initial_network, resolve_recipe
from ghostnets.train.spec import RunSpec

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)
PRETRAINED = Recipe(model="ghostnet_050", weights="pretrained")


@pytest.fixture(params=[(0.875, 256), (0.95, 236)])
def preprocessing(request, local_hub, randomize, monkeypatch: pytest.MonkeyPatch) -> Preprocessing:
    """The preprocessing of the weights that the local hub publishes, bicubic, with a crop ratio."""
    crop_share, resize_to = request.param
    weights = replace(
        WEIGHTS["ghostnet_100"][0],
        location="hf://timm/small",
        evaluation=PublishedPreprocessing("bicubic", crop_share=crop_share, mean=MEAN, std=STD),
    )
    monkeypatch.setitem(WEIGHTS, "ghostnet_050", (weights,))
    local_hub.content = save(randomize(create_model("ghostnet_050")).state_dict())
    return Preprocessing(224, resize_to, MEAN, STD, "bicubic")


@pytest.mark.parametrize(("channels", "typical_size"), [(3, 500), (1, 28)])
def test_resolve_adopts_published_preprocessing(preprocessing: Preprocessing, channels: int, typical_size: int):
    source = SimpleNamespace(typical_size=typical_size, channels=channels, class_names=("dark", "light"))
    resolved = resolve_recipe(PRETRAINED, source)
    assert resolved.preprocessing == preprocessing
    assert (resolved.recipe.image_size, resolved.recipe.in_chans) == (224, 3)
    smaller = resolve_recipe(PRETRAINED.changed(image_size=112), source).preprocessing
    assert smaller == replace(preprocessing, image_size=112, resize_to=preprocessing.resize_to // 2)
    gray = resolve_recipe(PRETRAINED.changed(in_chans=1), source)
    assert (gray.preprocessing.mean, gray.preprocessing.std) == ((pytest.approx(0.5),), (pytest.approx(0.25),))
    assert (gray.arguments["in_chans"], gray.preprocessing.interpolation) == (1, "bicubic")


@pytest.mark.parametrize("weights", ["hf://timm/small", "hf://timm/small/model.safetensors"])
def test_resolve_adopts_published_preprocessing_by_location(preprocessing: Preprocessing, weights: str):
    source = SimpleNamespace(typical_size=500, channels=3, class_names=("dark", "light"))
    assert resolve_recipe(PRETRAINED.changed(weights=weights), source).preprocessing == preprocessing


def test_rgb_weights_train_a_grayscale_network(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """The stem is summed, of a checkpoint of this project too; the other way is rejected."""
    arguments = {"num_classes": 2, "width": 0.1}
    trained = create_model("ghostnet_050", **arguments)
    rgb = Preprocessing.standard(32, 3)
    path = tmp_path / "rgb.safetensors"
    save_checkpoint(path, Checkpoint("ghostnet_050", arguments, trained.state_dict(), ("a", "b"), rgb))
    source = SimpleNamespace(typical_size=32, channels=3, class_names=("a", "b"))
    resolved = resolve_recipe(Recipe(model="ghostnet_050", weights=str(path), in_chans=1), source)
    network = build_initial_network(resolved.recipe, resolved.arguments, resolved.weights, source.class_names)
    assert torch.equal(network.conv_stem.weight, trained.conv_stem.weight.sum(1, keepdim=True))
    assert torch.equal(network.classifier.weight, trained.classifier.weight)
    assert "conv_stem.weight, for 3 input channels, are summed over RGB for 1" in caplog.text
    assert resolved.preprocessing == rgb.as_grayscale()
    gray = Checkpoint("ghostnet_050", resolved.arguments, network.state_dict(), ("a", "b"), resolved.preprocessing)
    save_checkpoint(path, gray)
    assert read_checkpoint(path).preprocessing.channels == 1
    with pytest.raises(ConfigurationError, match=r"in_chans is 3, but the network of .* takes 1; omit --in-chans"):
        resolve_recipe(Recipe(model="ghostnet_050", weights=str(path), in_chans=3), source)


def test_fine_tuned_checkpoint_keeps_published_preprocessing(preprocessing: Preprocessing, tmp_path: Path):
    photos = make_images(tmp_path / "photos", classes={"dark": 5, "light": 5})
    recipe = PRETRAINED.changed(image_size=32, epochs=1, batch_size=4)
    result = train_model(photos, folder=tmp_path / "run", recipe=recipe)
    assert read_checkpoint(result.checkpoint).preprocessing == preprocessing.with_image_size(32)


def test_published_teacher_uses_published_preprocessing(preprocessing: Preprocessing):
    names = tuple(f"class {number}" for number in range(1000))
    teacher = load_teacher("ghostnet_050", names)
    assert teacher.preprocessing == preprocessing
    seen: list[torch.Tensor] = []
    teacher.model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    pixels = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    teacher(pixels)
    assert torch.equal(seen[0], preprocessing.normalize(pixels))
    small = pixels[..., :48, :48]
    teacher(small)
    resized = torch.nn.functional.interpolate(small.float(), (224, 224), mode="bicubic", antialias=True)
    assert torch.equal(seen[1], preprocessing.normalize(resized.clamp(0, 255)))


def test_published_weights_are_the_default_start_and_cached(
    preprocessing: Preprocessing, local_hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    auto = Recipe(model="ghostnet_050", weights="auto")
    recipe, sentence = choose_weights(auto)
    assert recipe.weights == "pretrained"
    assert sentence.startswith("training ghostnet_050 from its published weights (timm, 74.0 % top-1 on ImageNet)")
    assert f"downloaded from {WEIGHTS['ghostnet_050'][0].url}" in sentence
    requests = len(local_hub.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "the cache has them" in choose_weights(auto)[1]
    assert len(local_hub.requests) == requests
    assert choose_weights(Recipe(weights="published"))[0].weights == "pretrained"
    photos = make_images(tmp_path / "photos", classes={"dark": 4, "light": 4}, size=(70, 70))
    options = {"image_size": 72, "epochs": 1, "batch_size": 4, "lr": 1e-9, "weight_decay": 0.0}
    result = train_model(photos, folder=tmp_path / "run", model="ghostnet_050", report=False, **options)
    trained = read_checkpoint(result.checkpoint)  # by the default recipe for photographs
    assert trained.training["recipe"]["weights"] == "pretrained"
    assert torch.allclose(
        trained.state_dict["conv_stem.weight"], load(local_hub.content)["conv_stem.weight"], atol=1e-6
    )


@pytest.mark.parametrize(
    ("changes", "offline", "reason"),
    [
        ({"status": 404}, "0", r"cannot be downloaded \(.*404"),
        ({"delay": 0.5}, "0", r"does not answer within 0\.2 s"),
        ({}, "1", r"is not cached, and HF_HUB_OFFLINE is set"),
    ],
)
def test_unreachable_weights_fall_back_to_embedded_ones(
    preprocessing: Preprocessing, local_hub, monkeypatch: pytest.MonkeyPatch, changes: dict, offline: str, reason: str
):
    monkeypatch.setenv("HF_HUB_OFFLINE", offline)
    monkeypatch.setattr(initial_weights, "REACHABLE_SECONDS", 0.2 if "delay" in changes else 5.0)
    for name, value in changes.items():
        setattr(local_hub, name, value)
    auto, scratch = Recipe(model="ghostnet_050", weights="auto"), Recipe(model="ghostnet_050")
    with pytest.raises(CheckpointError, match=rf"no weights of ghostnet_050 come with the package, and .*{reason}"):
        choose_weights(auto)
    recipe, sentence = choose_weights(auto, scratch=scratch)
    assert recipe is scratch
    assert sentence.startswith("training ghostnet_050 from scratch, with random weights: none come with the package")
    monkeypatch.setitem(WEIGHTS, "ghostnet_100", WEIGHTS["ghostnet_050"])
    assert choose_weights(auto.changed(model="ghostnet_100"))[0].weights == "embedded"


def test_grayscale_images_of_rgb_weights_are_reported(tmp_path: Path):
    arguments = {"num_classes": 2, "width": 0.1}
    weights = tmp_path / "rgb.safetensors"
    state = create_model("ghostnet_050", **arguments).state_dict()
    save_checkpoint(weights, Checkpoint("ghostnet_050", arguments, state, ("a", "b"), Preprocessing.standard(16, 3)))
    data = DataSpec(str(make_images(tmp_path / "gray", classes={"a": 5, "b": 5}, grey=True)))
    for in_chans, is_copied in [(None, True), (1, False)]:
        said: list[str] = []
        listener = Callback()
        listener.on_message = said.append  # type: ignore[method-assign]
        recipe = Recipe(model="ghostnet_050", weights=str(weights), in_chans=in_chans)
        source = data.open(val_share=0.2, seed=0)
        RunSpec.resolve(data, source, recipe, device="cpu", workers=None).read_images(listener)
        assert any("copied to the 3 channels of the weights" in sentence for sentence in said) == is_copied
