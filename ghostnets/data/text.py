"""Text files of unknown encoding: lists of paths, tables of labels. Importable without torch."""

import io
from typing import IO

__all__ = ["decode_text"]

BYTE_ORDER_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def decode_text(stream: IO[bytes]) -> io.TextIOWrapper:
    """Decode from the start, by the byte-order mark, or by the null bytes of UTF-16 without one; else as UTF-8.

    Bytes that are not UTF-8 are kept (``surrogateescape``): file names may be any bytes. Line ends are translated.
    """
    start = stream.read(4)
    stream.seek(0)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if start.startswith(mark):
            errors = "surrogateescape" if encoding == "utf-8-sig" else "replace"
            return io.TextIOWrapper(stream, encoding=encoding, errors=errors)
    if len(start) > 1 and (start[0] == 0) != (start[1] == 0):
        return io.TextIOWrapper(stream, encoding="utf-16-be" if start[0] == 0 else "utf-16-le", errors="replace")
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape")
