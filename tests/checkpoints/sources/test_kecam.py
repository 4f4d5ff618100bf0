"""GhostNet and GhostNetV2 of keras_cv_attention_models: exact conversion, and safe reading of their files.

Everyday tests write what that package writes, by its naming rules. Against the real one:

    python -m venv keras
    keras/bin/pip install tensorflow-cpu==2.21.0 tf-keras==2.21.0 keras-cv-attention-models==1.4.3
    GHOSTNETS_KERAS_PYTHON=keras/bin/python pytest -m foreign tests/checkpoints/sources
"""

import os
import subprocess
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from ghostnets import errors
from ghostnets.checkpoints import load_checkpoint, read_weights
from ghostnets.errors import CheckpointError, MissingExtraError
from ghostnets.models import create_model

LEAVES = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}


def layer_of(module: str) -> str:
    """Keras name, without its suffix for the kind of layer, of a canonical module."""
    for ours, theirs in [("conv_stem", "stem"), ("bn1", "stem"), ("conv_head", "features"), ("classifier", "head")]:
        if module == ours:
            return theirs
    _, stage, index, *rest = module.split(".")
    if stage == "9":
        return "pre"
    number = [1, 1, 1, 1, 1, 1, 5, 1, 4]
    stack = sum(number[: int(stage)]) + int(index) + 1
    part = ".".join(rest)
    for ours, theirs in [
        ("ghost1.primary_conv", "ghost_1_prim"),
        ("ghost1.cheap_operation", "ghost_1_cheap"),
        ("ghost2.primary_conv", "ghost_2_prim"),
        ("ghost2.cheap_operation", "ghost_2_cheap"),
        ("conv_dw", "down"),
        ("bn_dw", "down"),
        ("se.conv_reduce", "se_1"),
        ("se.conv_expand", "se_2"),
    ]:
        if part.startswith(ours):
            return f"stack{stack}_{theirs}"
    path, _, position = part.rpartition(".")  # pairs of convolution and normalisation
    prefix = {"shortcut": "short", "ghost1.short_conv": "ghost_1_short"}[path]
    return f"stack{stack}_{prefix}_{int(position) // 2 + 1}"


def arrays_of(model: torch.nn.Module) -> dict[str, np.ndarray]:
    """``layer/weight`` -> array in the layout of Keras, in the order of the canonical state dict."""
    arrays = {}
    for key, tensor in model.state_dict().items():
        module, _, leaf = key.rpartition(".")
        kind, array = type(model.get_submodule(module)).__name__, tensor.numpy()
        layer = layer_of(module)
        if leaf == "num_batches_tracked":
            continue
        if kind == "BatchNorm2d":
            name = f"{layer}_bn/{LEAVES[leaf]}"
        elif kind == "Linear":
            name, array = f"{layer}/{'kernel' if leaf == 'weight' else leaf}", array.T
        else:
            is_depthwise = model.get_submodule(module).groups > 1
            name = f"{layer}_{'dw_' * is_depthwise}conv/{'depthwise_' * is_depthwise}kernel"
            if leaf == "bias":
                name = f"{layer}_conv/bias"
            elif is_depthwise:
                array = array.transpose(2, 3, 0, 1)
            else:
                array = array.transpose(2, 3, 1, 0)
        arrays[name] = np.ascontiguousarray(array)
    return arrays


def save(arrays: dict[str, np.ndarray], path: Path, *, whole_model: bool = False) -> Path:
    """Write a file like ``model.save_weights(path)``, or like ``model.save(path)``."""
    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights") if whole_model else file
        if whole_model:
            file.create_dataset("optimizer_weights/iteration:0", data=np.int64(7))
        layers = list(dict.fromkeys(name.split("/")[0] for name in arrays))
        root.attrs["layer_names"] = [layer.encode() for layer in layers]
        for name, array in arrays.items():
            layer, weight = name.split("/")
            root.create_dataset(f"{layer}/{layer}/{weight}:0", data=array)
    return path


# Of a bottleneck, as Keras lists and so counts the layers of the real network; not every one has them all.
KERAS_ORDER = [
    *("ghost_1_short_1_conv", "ghost_1_short_1_bn", "ghost_1_prim_conv", "ghost_1_short_2_dw_conv"),
    *("ghost_1_prim_bn", "ghost_1_short_2_bn", "ghost_1_short_3_dw_conv", "ghost_1_cheap_dw_conv"),
    *("ghost_1_short_3_bn", "ghost_1_cheap_bn", "down_dw_conv", "down_bn", "se_1_conv", "se_2_conv"),
    *("ghost_2_prim_conv", "ghost_2_prim_bn", "short_1_dw_conv", "short_1_bn", "ghost_2_cheap_dw_conv"),
    *("short_2_conv", "ghost_2_cheap_bn", "short_2_bn"),
]


def save_numbered(arrays: dict[str, np.ndarray], path: Path) -> Path:
    """Write a file like ``model.save_weights("NAME.weights.h5")``: layers numbered by class, weights in order."""
    order = ["stem_conv", "stem_bn", *[f"stack{n}_{layer}" for n in range(1, 17) for layer in KERAS_ORDER]]
    counts: dict[str, int] = {}
    with h5py.File(path, "w") as file:
        for layer in [*order, "pre_conv", "pre_bn", "features_conv", "head"]:
            weights = [array for name, array in arrays.items() if name.startswith(f"{layer}/")]
            if not weights:
                continue
            kinds = {"_dw_conv": "depthwise_conv2d", "_conv": "conv2d", "_bn": "batch_normalization"}
            kind = next((kind for end, kind in kinds.items() if layer.endswith(end)), "dense")
            number = counts[kind] = counts.get(kind, -1) + 1
            for index, array in enumerate(weights):
                file.create_dataset(f"layers/{kind}{f'_{number}' if number else ''}/vars/{index}", data=array)
        file.create_dataset("optimizer/vars/0", data=np.int64(7))
    return path


@pytest.mark.parametrize("form", ["weights", "whole model", "numbered"])
@pytest.mark.parametrize("name", ["ghostnet_050", "ghostnetv2_100"])
def test_conversion_preserves_outputs(tmp_path: Path, randomize, name: str, form: str):
    theirs = randomize(create_model(name, num_classes=7))
    arrays = arrays_of(theirs)
    if form == "numbered":
        path = save_numbered(arrays, tmp_path / "x.weights.h5")
    else:
        path = save(arrays, tmp_path / "x.h5", whole_model=form == "whole model")
    ours = load_checkpoint(name, path).state_dict()
    assert all(torch.equal(tensor, ours[key]) for key, tensor in theirs.state_dict().items())


def test_mismatched_names_and_shapes_raise(tmp_path: Path):
    arrays = arrays_of(create_model("ghostnet_050", num_classes=3))
    model = create_model("ghostnet_050", num_classes=3)
    for change, message in [
        (lambda a: a.pop("stack4_se_1_conv/bias"), r"1 missing: blocks\.3\.0\.se\.conv_reduce\.bias"),
        (lambda a: a.update({"stack4_extra_conv/kernel": np.zeros(3, np.float32)}), "no tensor 'stack4_extra_conv/"),
        (lambda a: a.update({"head/bias": np.zeros(4, np.float32)}), r"1 of another shape: classifier\.bias"),
    ]:
        changed = dict(arrays)
        change(changed)
        with pytest.raises(CheckpointError, match=message):
            load_checkpoint(model, save(changed, tmp_path / "x.h5"))
    v2 = create_model("ghostnetv2_050", num_classes=3)
    for write, name in ((save, "x.h5"), (save_numbered, "x.weights.h5")):
        with pytest.raises(CheckpointError, match="missing"):
            load_checkpoint(v2, write(arrays, tmp_path / name))
        path = write(arrays_of(v2), tmp_path / name)
        with pytest.raises(CheckpointError, match=r"no tensor|unexpected"):
            load_checkpoint(model, path)


def hostile(file: h5py.File, kind: str, other: Path) -> None:
    """Add unsupported content to a file."""
    if kind == "external data":
        file.create_dataset("stem_conv/stem_conv/kernel:0", (4,), np.float32, external=[(str(other), 0, 16)])
    elif kind == "virtual data":
        layout = h5py.VirtualLayout((4,), np.float32)
        layout[:] = h5py.VirtualSource(str(other), "x", (4,))
        file.create_virtual_dataset("a", layout)
    elif kind == "chunks":  # a petabyte of zeros in a few bytes
        file.create_dataset("a", (1 << 48,), np.float32, chunks=(1024,), compression="gzip")
    elif kind == "unwritten":
        file.create_dataset("a", (1 << 48,), np.float32)
    elif kind == "integers":
        file.create_dataset("a", data=np.zeros(3, np.int64))
    elif kind == "objects":
        file.create_dataset("a", data=["text"])
    elif kind == "not finite":
        file.create_dataset("a", data=np.array([1, np.nan], np.float32))
    else:
        file["model_weights"] = h5py.ExternalLink(str(other), "/") if kind == "external link" else h5py.SoftLink("/")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        *((kind, "is not a contiguous array") for kind in ("external data", "virtual data", "chunks", "unwritten")),
        *((kind, "is not a contiguous array") for kind in ("integers", "objects")),
        *((kind, "contains no weights") for kind in ("external link", "soft link")),
        ("not finite", "a has non-finite values"),
    ],
)
def test_unsupported_content_is_rejected(tmp_path: Path, kind: str, message: str):
    other = save(arrays_of(create_model("ghostnet_050", width=0.1)), tmp_path / "other.h5")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        hostile(file, kind, other)
    assert (tmp_path / "x.h5").stat().st_size < 100_000
    with pytest.raises(CheckpointError, match=message) as caught:
        read_weights(tmp_path / "x.h5")
    assert "\n" not in str(caught.value)


def test_cyclic_groups_are_handled(tmp_path: Path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["a/b"] = np.ones(3, np.float32)
        file["a/again"] = file["a"]
        file["a/twice"] = file["a/b"]
    assert len(read_weights(tmp_path / "x.h5").tensors) == 1


def test_damaged_file_is_rejected(tmp_path: Path):
    path = save(arrays_of(create_model("ghostnet_050", width=0.1, num_classes=2)), tmp_path / "x.h5")
    content = path.read_bytes()
    for damaged in (b"", b"\x89HDF\r\n\x1a\n", b"not HDF5", content[:1000], content[: len(content) // 2]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="is damaged, or not a weights file") as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)


def test_missing_h5py_raises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name=name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    (tmp_path / "x.h5").write_bytes(b"")
    with pytest.raises(MissingExtraError, match=r"needs h5py, .* pip install .*\[import\]"):
        read_weights(tmp_path / "x.h5")


THEIR_SCRIPT = """
import os
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import sys
import numpy as np
from keras_cv_attention_models import ghostnet

folder, name = sys.argv[1:]
net = getattr(ghostnet, name)(
    input_shape=(None, None, 3), num_classes=1000, classifier_activation=None, pretrained=None
)
rng = np.random.default_rng(0)
for weight in net.weights:
    if "variance" in weight.name or "gamma" in weight.name:
        new = rng.uniform(0.5, 1.5, weight.shape)
    elif "se_" in weight.name and "bias" in weight.name:  # gates below 0, within, and above 1
        new = rng.normal(0, 4, weight.shape)
    elif "mean" in weight.name or "beta" in weight.name or "bias" in weight.name:
        new = rng.normal(0, 0.2, weight.shape)
    else:
        new = rng.normal(0, np.prod(weight.shape[:2] if "depthwise" in weight.name else weight.shape[:-1]) ** -0.5,
                         weight.shape)
    weight.assign(new)
stored = {}
for height, width in [(128, 192), (224, 224)]:
    x = rng.normal(size=(2, height, width, 3)).astype("float32")
    stored |= {f"x{height}": x.transpose(0, 3, 1, 2), f"y{height}": net(x, training=False).numpy()}
np.savez(folder + "/io.npz", **stored)
net.save_weights(folder + "/x.h5")
net.save_weights(folder + "/x.weights.h5")
net.save(folder + "/whole.h5")
"""


def tree(path: Path) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item.shape} if isinstance(item, h5py.Dataset) else {}))
    return {name: shape for name, shape in found.items() if not name.startswith("optimizer")}


@pytest.mark.foreign
@pytest.mark.skipif("GHOSTNETS_KERAS_PYTHON" not in os.environ, reason="names no Python that has this package")
@pytest.mark.parametrize("name", ["GhostNet_050", "GhostNet_100", "GhostNet_130", "GhostNetV2_100", "GhostNetV2_130"])
def test_matches_original_implementation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    subprocess.run([os.environ["GHOSTNETS_KERAS_PYTHON"], "-c", THEIR_SCRIPT, str(tmp_path), name], check=True)
    stored = {key: torch.from_numpy(array) for key, array in np.load(tmp_path / "io.npz").items()}

    def difference(file: str, height: int) -> float:
        with torch.inference_mode():
            got = load_checkpoint(name.lower(), tmp_path / file)(stored[f"x{height}"])
        return ((got - stored[f"y{height}"]).abs().max() / stored[f"y{height}"].abs().max()).item()

    differences = [difference(file, 128) for file in ("x.h5", "whole.h5", "x.weights.h5")]
    print(f"{name}: largest difference over largest output {max(differences):.2g}")
    assert max(differences) < 1e-5
    at_224 = difference("x.h5", 224)
    if "V2" in name:  # the gate of their 7 x 7 maps is enlarged from pixel centres, the published one from corners
        print(f"{name} at 224: {at_224:.2g}")
        assert at_224 > 1e-3
        enlarge = torch.nn.functional.interpolate
        monkeypatch.setattr(
            "ghostnets.layers.dfc.F.interpolate", lambda x, size, mode: enlarge(x, size, mode=f"{mode}-exact")
        )
        at_224 = difference("x.h5", 224)
    assert at_224 < 1e-5
    # What the everyday tests are made with is what that package writes.
    arrays = arrays_of(create_model(name.lower()))
    assert tree(tmp_path / "x.h5") == tree(save(arrays, tmp_path / "ours.h5"))
    assert tree(tmp_path / "x.weights.h5") == tree(save_numbered(arrays, tmp_path / "ours.weights.h5"))
