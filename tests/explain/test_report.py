"""The page of a run: complete, self-contained, and safe against what stands in names."""

from pathlib import Path

import pytest
from conftest import Page

from ghostnets.errors import ConfigurationError
from ghostnets.explain.figures import confusion_figure, save_figure


def test_the_report_of_a_run(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    page = Page(text)
    for section in (
        "How it learned",
        "What it answers",
        "What it mixes up",
        "Intrinsic maps",
        "What it costs",
        "repeat it",
    ):
        assert section in text
    images = [attributes for tag, attributes in page.found if tag == "img"]
    assert len(images) > 20
    assert all(image["src"].startswith("data:image/png;base64,") and image["alt"] for image in images)
    svgs = [attributes for tag, attributes in page.found if tag == "svg"]
    assert [svg["aria-label"] for svg in svgs] == ["Curves of loss and accuracy over the epochs", "Confusion matrix"]
    ids = [attributes["id"] for _, attributes in page.found if attributes.get("id")]
    assert len(ids) == len(set(ids))
    assert "ghostnets train" in text
    assert "chosen as well" in text  # there is no test part: the page says that the figure is a little optimistic


def test_no_request_leaves_the_page(tiny_run: Path):
    text = (tiny_run / "report.html").read_text(encoding="utf-8")
    assert Page(text).requests() == []


def test_pictures_of_a_confusion_matrix(tmp_path: Path):
    figure = confusion_figure([[3, 1], [0, 4]], ["a", "b"])
    for suffix, magic in [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".pdf", b"%PDF")]:
        save_figure(figure, tmp_path / f"a{suffix}", suffix)
        assert (tmp_path / f"a{suffix}").read_bytes().startswith(magic)
    with pytest.raises(ConfigurationError, match=r"cannot end in '\.txt'"):
        save_figure(figure, tmp_path / "a.txt", ".txt")
    save_figure(confusion_figure([[1] * 40] * 40, [str(i) for i in range(40)]), tmp_path / "b.png", ".png")
