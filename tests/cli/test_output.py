"""Progress of commands whose output is not a terminal."""

import pytest

from ghostnets.cli import output


def test_progress_is_a_line_at_the_start_and_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    with output.progress_bars() as bars:
        task = bars.add_task("reading images", total=3000)
        bars.advance(task)
        monkeypatch.setattr(output, "LINE_SECONDS", 0)
        bars.update(task, description="building a")
        bars.advance(task, 1500)
        bars.add_task("timing", total=None)
    captured = capsys.readouterr()
    lines = ["reading images: 0 of 3,000", "building a: 1 of 3,000", "building a: 1,501 of 3,000", "timing"]
    assert captured.err.splitlines() == [f"note: {line}" for line in lines]
    assert captured.out == ""


def test_stages_are_lines(capsys: pytest.CaptureFixture[str]):
    with output.show_stages() as on_stage:
        on_stage("drawing figures")
    assert capsys.readouterr().err == "note: drawing figures\n"
