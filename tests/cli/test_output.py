"""Output of the commands."""

from ghostnets.cli.output import escape_control, message


def test_control_characters_are_escaped(capsys):
    assert escape_control("a\x1b[2J\u202eb é ж") == "a\\x1b[2J\\u202eb é ж"
    message("\x1b]0;title\x07.png cannot be read", kind="error")
    assert capsys.readouterr().err == "error: \\x1b]0;title\\x07.png cannot be read\n"
