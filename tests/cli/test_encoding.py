"""Output where the encoding of the terminal or pipe lacks characters, as of Windows' cp1252."""

import io
import sys

import pytest

from ghostnets.cli.main import main
from ghostnets.cli.output import result_console


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_characters_that_the_encoding_lacks_are_escaped(encoding: str, monkeypatch: pytest.MonkeyPatch):
    output, errors = (io.TextIOWrapper(io.BytesIO(), encoding=encoding) for _ in range(2))
    monkeypatch.setattr(sys, "stdout", output)
    monkeypatch.setattr(sys, "stderr", errors)
    assert main(["猫"]) == 1
    result_console().print("猫 café", markup=False)
    for stream, expected in ((errors, "\\u732b"), (output, "\\u732b caf")):
        stream.flush()
        assert expected in stream.buffer.getvalue().decode(encoding)
