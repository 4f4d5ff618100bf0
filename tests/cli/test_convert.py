"""``ghostnets import``: the checkpoint has the outputs of the original network."""

import hashlib
import json
import pickle
from pathlib import Path

import h5py
import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from ghostnets.artefacts import load_classifier
from ghostnets.checkpoints import load_checkpoint, read, read_checkpoint
from ghostnets.checkpoints.sources import kecam
from ghostnets.checkpoints.sources.paddleclas import LEAVES, PADDLECLAS_KEYS
from ghostnets.cli.main import run_command
from ghostnets.errors import CheckpointError, ConfigurationError, UnknownNameError
from ghostnets.models import create_model


def run(*arguments: object) -> int:
    return run_command("import", *map(str, arguments))


def answers_equal(path: Path, original: torch.nn.Module) -> bool:
    """Whether the classifier of a written checkpoint returns the probabilities of the network it was made from."""
    classifier = load_classifier(path, threads=1)
    image = Image.effect_noise((300, 260), 90).convert("RGB")
    pixels = classifier.read(image)[None]
    normalize = classifier.model.description.preprocessing.normalize
    with torch.no_grad():
        expected = original.eval()(normalize(torch.from_numpy(pixels).permute(0, 3, 1, 2))).softmax(1)
    prediction = classifier(image, top=3)
    values, indices = expected[0].topk(3)
    assert prediction.classes == tuple(classifier.class_names[i] for i in indices.tolist())
    assert prediction.probabilities == pytest.approx(values.tolist(), abs=1e-5)
    return np.allclose(classifier.run(pixels).scores, expected, atol=1e-5)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A state dict of three classes."""
    torch.save(create_model("ghostnet_050", num_classes=3).state_dict(), tmp_path / "weights.pth")
    return tmp_path / "weights.pth"


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_import_timm_weights(tmp_path: Path, randomize, capsys, suffix: str):
    original = randomize(timm.create_model("ghostnet_100", num_classes=1000))
    path, out = tmp_path / f"timm{suffix}", tmp_path / "out.safetensors"
    if suffix == ".pth":
        torch.save({"state_dict": original.state_dict(), "epoch": 3}, path)
    else:
        save_file(original.state_dict(), path)
    assert run(path, "--model", "ghostnet_100", "--to", out, "--interpolation", "bicubic", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["checkpoint"], result["source"], result["num_classes"]) == (str(out), "canonical", 1000)
    assert result["params"] == sum(p.numel() for p in original.parameters())
    checkpoint = read_checkpoint(out)
    assert (checkpoint.class_names[0], checkpoint.class_names[-1]) == ("class_0001", "class_1000")
    assert (checkpoint.preprocessing.resize_to, checkpoint.preprocessing.interpolation) == (256, "bicubic")
    assert answers_equal(out, original)


@pytest.mark.parametrize("model", ["ghostnet_100", "ghostnet_100_d_li14"])
def test_import_d_li14_weights(tmp_path: Path, randomize, capsys, model: str):
    original = randomize(create_model("ghostnet_100_d_li14", num_classes=7))
    path, out = tmp_path / "port.pth", tmp_path / "out.safetensors"
    torch.save(original.state_dict(), path)
    assert run(path, "--model", model, "--to", out) == 0
    printed = capsys.readouterr().out
    assert "d_li14 names" in printed
    assert f"{model}, " in printed
    assert "7 classes (named class_0001 and so on)" in printed
    assert f"Wrote {out}" in printed
    assert answers_equal(out, original)


def test_import_with_class_names(file: Path, tmp_path: Path):
    names, out = tmp_path / "names.txt", tmp_path / "out.safetensors"
    names.write_text("\ufeffcat\n  wild boar \nÖtter\n\n", encoding="utf-8")  # as Windows marks the encoding
    assert run(file, "--model", "ghostnet_050", "--to", out, "--classes", names) == 0
    assert read_checkpoint(out).class_names == ("cat", "wild boar", "Ötter")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"cat\ndog\n", "has 2 names in 2 lines, the network has 3 classes"),
        (b"cat\n\ndog\n", "has 2 names in 3 lines, the network has 3 classes"),
        (b"", "has 0 names in 0 lines"),
        (b"cat\n\xff\ndog", "cannot be read"),
        (None, "cannot be read"),
    ],
)
def test_invalid_class_file_raises(file: Path, tmp_path: Path, content: bytes | None, message: str):
    names, out = tmp_path / "names.txt", tmp_path / "out.safetensors"
    if content is not None:
        names.write_bytes(content)
    with pytest.raises(ConfigurationError, match=message) as caught:
        run(file, "--model", "ghostnet_050", "--to", out, "--classes", names)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_weights_of_another_network_raise(file: Path, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    with pytest.raises(CheckpointError, match="does not fit the network GhostNetV2"):
        run(file, "--model", "ghostnetv2_050", "--to", out)
    with pytest.raises(UnknownNameError, match="did you mean ghostnet_050"):
        run(file, "--model", "ghostnet_05", "--to", out)
    with pytest.raises(CheckpointError, match=r"d-li14/ghostnet\.pytorch has no tensor .conv_stem\.weight"):
        run(file, "--model", "ghostnet_050", "--to", out, "--source", "d_li14")
    assert not out.exists()


def test_existing_output_is_kept_unless_overwrite(file: Path, tmp_path: Path):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"precious")
    with pytest.raises(ConfigurationError, match=r"out\.safetensors exists; .*--overwrite"):
        run(file, "--model", "ghostnet_050", "--to", out)
    assert out.read_bytes() == b"precious"
    assert run(file, "--model", "ghostnet_050", "--to", out, "--overwrite") == 0
    assert len(read_checkpoint(out).class_names) == 3
    with pytest.raises(ConfigurationError, match=r"it must end in \.safetensors"):
        run(file, "--model", "ghostnet_050", "--to", tmp_path / "out.pth")


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s["blocks.0.0.ghost1.primary_conv.0.weight"].view(-1)[3:4].fill_(float("nan")), "ghost1.*finite"),
        (lambda s: s.update({"bn1.weight": torch.full((8,), 1e300, dtype=torch.float64)}), r"bn1\.weight .*finite"),
        (lambda s: s.update({"classifier.bias": torch.zeros(1).expand(3)}), r"classifier\.bias is not a dense tensor"),
        (
            lambda s: s.update({"classifier.weight": torch.zeros(1, 1).expand(10**12, 1280)}),
            r"classifier\.weight is not a dense tensor",
        ),
        (
            lambda s: s.update({"classifier.weight": torch.zeros(3, 1280).to_sparse()}),
            r"classifier\.weight is not a dense tensor",
        ),
        (
            lambda s: s.update({"classifier.weight": torch.zeros(3, 1280, dtype=torch.complex64)}),
            r"classifier\.weight is not a dense tensor",
        ),
        (lambda s: s.update({"classifier.weight": torch.zeros(0, 1280)}), r"no matrix classifier\.weight"),
        (lambda s: s.update({"classifier.weight": torch.zeros(())}), r"no matrix classifier\.weight"),
        (lambda s: s.update({"classifier.weight": torch.zeros(3, 7)}), "1 of another shape"),
        (lambda s: s.pop("bn1.weight"), r"1 missing: bn1\.weight"),
        (lambda s: s.update({"backdoor": torch.zeros(1)}), "1 unexpected: backdoor"),
    ],
)
def test_hostile_files_are_rejected(file: Path, tmp_path: Path, change, message: str):
    state, out = torch.load(file, weights_only=True), tmp_path / "out.safetensors"
    change(state)
    torch.save(state, file)
    with pytest.raises(CheckpointError, match=message) as caught:
        run(file, "--model", "ghostnet_050", "--to", out)
    assert "\n" not in str(caught.value)
    assert not out.exists()


def test_import_reads_file_once(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    opened, open_file = [], read.os.open
    monkeypatch.setattr(read.os, "open", lambda path, *rest: opened.append(path) or open_file(path, *rest))
    assert run(file, "--model", "ghostnet_050", "--to", tmp_path / "out.safetensors", "--json") == 0
    assert [Path(path) for path in opened].count(file) == 1
    assert json.loads(capsys.readouterr().out)["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


def test_own_checkpoint_is_rejected(file: Path, tmp_path: Path):
    assert run(file, "--model", "ghostnet_050", "--to", tmp_path / "a.safetensors") == 0
    with pytest.raises(ConfigurationError, match="is already a checkpoint of this package; use it directly"):
        run(tmp_path / "a.safetensors", "--model", "ghostnet_050", "--to", tmp_path / "b.safetensors")


def paddle_file(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a PaddleClas file; the conversion itself is tested in tests/checkpoints/sources."""
    state = {**state, **{f"head_norm.{leaf}": torch.rand(1280) for leaf in LEAVES.values()}}
    del state["conv_head.bias"]
    arrays = {}
    for theirs, ours in PADDLECLAS_KEYS.items():
        for leaf, our_leaf in LEAVES.items():
            tensor = state.get(f"{ours}.{our_leaf}")
            if tensor is not None:
                is_linear = tensor.ndim > 1 and not theirs.endswith("_conv")
                arrays[f"{theirs}.{leaf}"] = (tensor.flatten(1).T if is_linear else tensor).contiguous().numpy()
    path.write_bytes(pickle.dumps(arrays, protocol=4))


def keras_file(state: dict[str, torch.Tensor], path: Path) -> None:
    """Write a kecam file."""
    with h5py.File(path, "w") as file:
        for kind, layers in kecam.LAYERS.items():
            for layer, ours in layers.items():
                for weight, leaf in kecam.WEIGHTS[kind].items():
                    tensor = state.get(f"{ours}.{leaf}")
                    if tensor is not None:
                        order = {4: (2, 3, 0, 1) if kind.startswith("depth") else (2, 3, 1, 0), 2: (1, 0), 1: (0,)}
                        file[f"{layer}/{layer}/{weight}:0"] = tensor.permute(order[tensor.ndim]).numpy()


@pytest.mark.parametrize(("suffix", "write"), [(".pdparams", paddle_file), (".h5", keras_file)])
def test_import_paddle_and_keras_weights(tmp_path: Path, randomize, capsys, suffix: str, write):
    path, out = tmp_path / f"x{suffix}", tmp_path / "out.safetensors"
    write(randomize(create_model("ghostnet_050", num_classes=3)).state_dict(), path)
    assert run(path, "--model", "ghostnet_050", "--to", out) == 0
    printed = capsys.readouterr().out
    assert {".pdparams": "paddleclas names", ".h5": "kecam names"}[suffix] in printed
    assert "3 classes" in printed
    assert answers_equal(out, load_checkpoint("ghostnet_050", path))


def test_help_names_the_sources(capsys):
    with pytest.raises(SystemExit) as caught:
        run("--help")
    assert caught.value.code == 0
    printed = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for part in ("official", "timm", "G-Ghost", "d-li14", "PaddleClas", "keras_cv_attention_models", "kecam"):
        assert part in printed


def test_links_are_followed_to_regular_files_only(file: Path, tmp_path: Path):
    out, link = tmp_path / "out.safetensors", tmp_path / "link.pth"
    link.symlink_to(file)
    assert run(link, "--model", "ghostnet_050", "--to", out) == 0
    for target, message in [("/dev/zero", "is not a file"), (tmp_path, "is not a file"), ("nowhere", "no checkpoint")]:
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(CheckpointError, match=message):
            run(link, "--model", "ghostnet_050", "--to", out, "--overwrite")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        run(tmp_path / "nothing.pth", "--model", "ghostnet_050", "--to", tmp_path / "b.safetensors")
