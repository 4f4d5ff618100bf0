"""The code and figures of the README, as written there."""

import re
from pathlib import Path

import pytest
import torch
from conftest import make_images
from PIL import Image

import ghostnets
from ghostnets.models import list_models, model_entry

README = (Path(ghostnets.__file__).parents[1] / "README.md").read_text(encoding="utf-8")


def test_python_blocks_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_images(tmp_path / "photos", classes={"dark": 200, "light": 200})  # enough for 60 steps
    (tmp_path / "new").mkdir()
    with Image.open(tmp_path / "photos" / "dark" / "000.png") as dark:
        dark.save(tmp_path / "new" / "one.jpg")
    torch.save(ghostnets.create_model("ghostnet_100").state_dict(), tmp_path / "state_dict_73.98.pth")
    blocks = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, object] = {"ghostnets": ghostnets}
    for block in blocks:
        exec(block, names)
    name, probability = capsys.readouterr().out.split()
    assert name == "dark"
    assert 0.5 < float(probability) <= 1


def test_network_table_matches_registry():
    rows = {m[0]: m[1:] for m in re.findall(r"^\| `(\w+)` \| ([\d.]+) \| ([\d.]+) \|", README, flags=re.MULTILINE)}
    families = ("g_ghost_regnetx_", "ghost_resnet", "resnet", "ghost_vgg16", "vgg16")
    assert sorted(rows) == [name for name in list_models() if not name.startswith(families)]
    assert all(f"`{family}" in README for family in families)
    for name, (params, macs) in rows.items():
        variant = model_entry(name).variant
        assert (float(params), float(macs)) == (variant.params, variant.macs)


def test_changelog_has_current_version():
    changelog = (Path(ghostnets.__file__).parents[1] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{ghostnets.__version__}]" in changelog
