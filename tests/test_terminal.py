"""Control characters, bidirectional characters and markup in what is printed."""

import io

import pytest
from rich.table import Table

from ghostnets.cli.output import message
from ghostnets.terminal import create_console, escape_control, format_count


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\x1b[2J\u202eb é ж", "a\\x1b[2J\\u202eb é ж"),
        ("a\tb\rc\x9b", "a\\tb\\rc\\x9b"),
        ("two\nlines", "two\nlines"),
        ("line\u2028separator", "line\\u2028separator"),
        ("byte \udcff, half \ud83d", "byte \\xff, half \\ud83d"),
        ("\u2066isolate\u2069 \u200fmark", "\\u2066isolate\\u2069 \\u200fmark"),
        # Joiners and other format characters of real scripts and of emoji stay.
        ("می\u200cخواهم क्\u200dष 👩\u200d🔬 co\u00adop", "می\u200cخواهم क्\u200dष 👩\u200d🔬 co\u00adop"),
    ],
)
def test_escape_control(text: str, escaped: str):
    assert escape_control(text) == escaped
    assert "\n" not in escape_control(text, keep="")


def test_console_escapes_lines_and_cells_and_reads_no_markup():
    stream = io.StringIO()
    console = create_console(file=stream, width=80)
    console.print("\x1b]0;title\x07 [red]:smile:")
    table = Table("\x9bheader")
    table.add_row("[bold]\x1b[31mcell")
    console.print(table)
    printed = stream.getvalue()
    assert "\x1b" not in printed
    for part in ("\\x1b]0;title\\x07 [red]:smile:", "\\x9bheader", "[bold]\\x1b[31mcell"):
        assert part in printed


def test_message_escapes_control_characters(capsys: pytest.CaptureFixture[str]):
    message("\x1b]0;title\x07.png cannot be read", kind="error")
    assert capsys.readouterr().err == "error: \\x1b]0;title\\x07.png cannot be read\n"


def test_count_has_the_number_of_its_noun():
    counts = [format_count(*case) for case in ((1, "image"), (0, "row"), (2000, "image"), (2, "class"), (1, "class"))]
    assert counts == ["1 image", "0 rows", "2,000 images", "2 classes", "1 class"]
