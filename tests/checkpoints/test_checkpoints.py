import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ghostnets.checkpoints import Checkpoint, load_checkpoint, read_checkpoint, save_checkpoint
from ghostnets.checkpoints.save import METADATA_KEY
from ghostnets.errors import CheckpointError, ConfigurationError
from ghostnets.models import create_model
from ghostnets.preprocessing import Preprocessing

ARGUMENTS = {"num_classes": 2, "in_chans": 1, "width": 0.1}
PREPROCESSING = Preprocessing(16, 16, (0.5,), (0.2,))


def make(**changes) -> Checkpoint:
    model = create_model("ghostnet_050", **ARGUMENTS)
    values = {
        "architecture": "ghostnet_050",
        "arguments": ARGUMENTS,
        "state_dict": model.state_dict(),
        "class_names": ("cat", "dog"),
        "preprocessing": PREPROCESSING,
    }
    return Checkpoint(**{**values, **changes})


def test_save_and_read_round_trip(tmp_path: Path):
    checkpoint = make(training={"epoch": 3})
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    back = read_checkpoint(tmp_path / "a.safetensors")
    assert (back.architecture, back.arguments, back.class_names) == ("ghostnet_050", ARGUMENTS, ("cat", "dog"))
    assert (back.preprocessing, back.training) == (PREPROCESSING, {"epoch": 3})
    assert all(torch.equal(tensor, checkpoint.state_dict[name]) for name, tensor in back.state_dict.items())
    model = back.build()
    assert not model.training
    assert model(torch.randn(1, 1, 16, 16)).shape == (1, 2)


@pytest.mark.parametrize("revised", [False, True])
def test_checkpoint_with_earlier_architecture_name_loads(tmp_path: Path, revised: bool):
    name = "ghostnet_100_d_li14_revised" if revised else "ghostnet_100_d_li14"
    earlier = name.replace("d_li14", "printed")
    arguments = {"num_classes": 2, "in_chans": 1}
    model = create_model(earlier, **arguments).eval()
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, make(architecture=earlier, arguments=arguments, state_dict=model.state_dict()))
    back = read_checkpoint(path)
    assert back.architecture == name
    x = torch.randn(1, 1, 32, 32)
    expected = model(x)
    assert torch.equal(back.build()(x), expected)
    for known_as in (name, earlier):
        assert torch.equal(load_checkpoint(known_as, path)(x), expected)


def test_earlier_source_name_is_accepted(tmp_path: Path, randomize):
    port = randomize(create_model("ghostnet_100_printed", num_classes=3))
    torch.save(port.state_dict(), tmp_path / "port.pth")
    model = load_checkpoint("ghostnet_100", tmp_path / "port.pth", source="printed_port")
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), port(x), rtol=1e-4, atol=1e-4)


def test_save_checkpoint_is_deterministic(tmp_path: Path):
    checkpoint = make()
    save_checkpoint(tmp_path / "a.safetensors", checkpoint)
    save_checkpoint(tmp_path / "b.safetensors", checkpoint)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file, or is damaged"),
        (b"not a checkpoint at all", "not a safetensors file, or is damaged"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f{}", "not a safetensors file, or is damaged"),  # a header of 9 exabytes
        (b"\x00\xe4\x0b\x54\x02\x00\x00\x00{}", "not a safetensors file, or is damaged"),  # a header of 10 GB
    ],
)
def test_read_checkpoint_rejects_other_files(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "x.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "x.safetensors")


def test_read_checkpoint_rejects_truncated_file(tmp_path: Path):
    save_checkpoint(tmp_path / "a.safetensors", make())
    content = (tmp_path / "a.safetensors").read_bytes()
    for length in (4, 100, len(content) // 2, len(content) - 1):
        (tmp_path / "b.safetensors").write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            read_checkpoint(tmp_path / "b.safetensors")


def test_read_checkpoint_rejects_missing_file_and_folder(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"there is no checkpoint .*nothing\.safetensors"):
        read_checkpoint(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="is not a file"):
        read_checkpoint(tmp_path)


def test_read_checkpoint_rejects_missing_description(tmp_path: Path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="not a safetensors file with a description by ghostnets"):
        read_checkpoint(tmp_path / "x.safetensors")


def rewrite(path: Path, change, state_dict=None) -> None:
    """Write the checkpoint with a modified description."""
    save_checkpoint(path, make())
    description = {
        "format_version": 1,
        "architecture": "ghostnet_050",
        "arguments": ARGUMENTS,
        "class_names": ["cat", "dog"],
        "preprocessing": PREPROCESSING.to_dict(),
    }
    change(description)
    save_file(state_dict or make().state_dict, path, metadata={METADATA_KEY: json.dumps(description)})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format_version=99), "format 99, this ghostnets reads format 1"),
        (lambda d: d.update(architecture="resnet_1"), "no model named 'resnet_1'"),
        (lambda d: d.update(architecture="ghostnet_100_d_li14", arguments={"num_classes": 2}), "does not fit"),
        (lambda d: d.update(arguments={**ARGUMENTS, "depth": 3}), "no argument depth"),
        (
            lambda d: d.update(arguments={**ARGUMENTS, "num_classes": 3}),
            r"2 of another shape: classifier\.weight \(file \(2, 1280\), network \(3, 1280\)\)",
        ),
        (lambda d: d.update(class_names=["cat"]), "2 outputs but 1 class names"),
        (lambda d: d.pop("preprocessing"), "invalid description"),
        (lambda d: d.update(preprocessing={**d["preprocessing"], "resize_to": 8}), "resize_to not below image_size"),
        (lambda d: d.update(preprocessing={**d["preprocessing"], "std": ["a"]}), r"preprocessing .* \(ValueError"),
        (
            lambda d: d.update(preprocessing=Preprocessing.standard(16, 3).to_dict()),
            "1 input channels, but preprocessing for 3",
        ),
        (lambda d: d.update(arguments=7), "invalid description"),
        (lambda d: d.update(arguments={**ARGUMENTS, "width": 1e308}), "invalid description"),
        (lambda d: d.update(arguments={**ARGUMENTS, "width": "wide"}), "invalid description"),
        (lambda d: d.update(arguments={**ARGUMENTS, "stages": [[1]]}), "invalid description"),
        (lambda d: d.update(architecture=["ghostnet_050"]), "invalid description"),
    ],
)
def test_read_checkpoint_rejects_mismatched_description(tmp_path: Path, change, message: str):
    rewrite(tmp_path / "x.safetensors", change)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "x.safetensors")


@pytest.mark.parametrize("description", ["[" * 100_000, "7", "[]", "{", "null"])
def test_read_checkpoint_rejects_malformed_description(tmp_path: Path, description: str):
    save_file(make().state_dict, tmp_path / "x.safetensors", metadata={METADATA_KEY: description})
    with pytest.raises(CheckpointError, match="invalid description") as caught:
        read_checkpoint(tmp_path / "x.safetensors")
    assert "\n" not in str(caught.value)


class Bomb:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_pickle_with_code_is_rejected_without_running_it(tmp_path: Path, writer: str):
    content = {"conv_stem.weight": Bomb(tmp_path / "executed")}
    if writer == "torch":
        torch.save(content, tmp_path / "bomb.pth")
    else:
        (tmp_path / "bomb.pth").write_bytes(pickle.dumps(content))
    with pytest.raises(CheckpointError, match=r"is rejected|is damaged"):
        load_checkpoint(create_model("ghostnet_050"), tmp_path / "bomb.pth")
    assert not (tmp_path / "executed").exists()
    pickle.loads(pickle.dumps(content))  # the bomb is real
    assert (tmp_path / "executed").exists()


def test_load_checkpoint_reads_torch_and_safetensors_files(tmp_path: Path, randomize):
    source, x = randomize(create_model("ghostnet_050", num_classes=3)), torch.randn(1, 3, 32, 32)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    torch.save({"state_dict": source.state_dict(), "epoch": 3}, tmp_path / "b.pth.tar")
    save_file(source.state_dict(), tmp_path / "c.safetensors")
    for name in ("a.pth", "b.pth.tar", "c.safetensors"):
        target = create_model("ghostnet_050", num_classes=3).eval()
        load_checkpoint(target, tmp_path / name)
        assert torch.equal(target(x), source(x))


def test_load_checkpoint_is_strict_and_lists_mismatches(tmp_path: Path):
    state = create_model("ghostnet_050", num_classes=3).state_dict()
    state["extra"] = state.pop("bn1.weight")
    torch.save(state, tmp_path / "a.pth")
    target = create_model("ghostnet_050", num_classes=4)
    before = {k: v.clone() for k, v in target.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(target, tmp_path / "a.pth")
    for part in (
        "1 missing: bn1.weight",
        "1 unexpected: extra",
        "2 of another shape: classifier.weight (file (3, 1280)",
    ):
        assert part in str(caught.value)
    assert all(torch.equal(before[k], v) for k, v in target.state_dict().items())


def test_load_checkpoint_rejects_unknown_names_and_sources(tmp_path: Path):
    torch.save({"layer1.0.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"missing: .* 1 unexpected: layer1\.0\.weight"):
        load_checkpoint(create_model("ghostnet_050"), tmp_path / "a.pth")
    torch.save([1, 2], tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match="holds no state dict"):
        load_checkpoint(create_model("ghostnet_050"), tmp_path / "b.pth")
    with pytest.raises(ConfigurationError, match="source is 'timn'"):
        load_checkpoint(create_model("ghostnet_050"), tmp_path / "a.pth", source="timn")


def test_incomplete_d_li14_state_dict_is_rejected(tmp_path: Path):
    state = create_model("ghostnet_100_d_li14").state_dict()
    for gone in ("features.4.conv.2.fc.0.weight", "classifier.1.running_var"):
        torch.save({k: v for k, v in state.items() if k != gone}, tmp_path / "a.pth")
        with pytest.raises(CheckpointError, match="incomplete"):
            load_checkpoint(create_model("ghostnet_100"), tmp_path / "a.pth")
    torch.save({**state, "features.99.weight": torch.zeros(1)}, tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match=r"no tensor 'features\.99\.weight'"):
        load_checkpoint(create_model("ghostnet_100"), tmp_path / "a.pth")
