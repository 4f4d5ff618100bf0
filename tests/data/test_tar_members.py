"""Tar archives: what tarfile writes is found; hostile headers are rejected, and never waited for."""

import io
import tarfile
from pathlib import Path

import pytest

from ghostnets.data.tar_members import walk_tar
from ghostnets.errors import DataError

END = bytes(1024)


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    member = tarfile.TarInfo(name)
    member.type, member.size = kind, size
    return member.tobuf(tarfile.GNU_FORMAT)


def pad(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


GOOD = header("a.png", 3) + pad(b"abc")


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tar_format: int, tmp_path: Path):
    names = ["a.png", "d/" + "n" * 90 + "/" + "m" * 60 + ".png", "empty", "é.png"]
    with tarfile.open(tmp_path / "s.tar", "w", format=tar_format) as archive:
        for index, name in enumerate(names):
            for kind, content in ((tarfile.REGTYPE, bytes([index]) * (700 * index)), (tarfile.DIRTYPE, b"")):
                member = tarfile.TarInfo(name if kind == tarfile.REGTYPE else f"folder{index}")
                member.type, member.size, member.mtime = kind, len(content), 1.5
                archive.addfile(member, io.BytesIO(content))
    with tarfile.open(tmp_path / "s.tar") as archive, (tmp_path / "s.tar").open("rb") as stream:
        expected = [(m.name, m.offset_data, m.size) for m in archive if m.isreg()]
        assert [(m.name, m.offset, m.size) for m in walk_tar(stream)] == expected
    assert [name for name, *_ in expected] == names


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        (header("n.png", -1024), "claims -1024 bytes"),
        (header("n.png", -1), "claims -1 bytes"),
        (header("h.png", 2**62), "claims 4611686018427387904 bytes"),
        (header("././@LongLink", 2**60, tarfile.GNUTYPE_LONGNAME) + pad(b"abc"), "claims"),
        (header("././@LongLink", 10**5, tarfile.GNUTYPE_LONGNAME) + pad(bytes(10**5)), "have 100000 bytes"),
        (header("p", 14, tarfile.XHDTYPE) + pad(b"14 size=-1024\n"), "claims '-1024' bytes"),
        (header("p", 9, tarfile.XHDTYPE) + pad(b"99999 a=b"), None),
        (header("p", 3, tarfile.XHDTYPE) + pad(b"x=1"), "attributes of a member are damaged"),
        ((header("././@LongLink", 6, tarfile.GNUTYPE_LONGNAME) + pad(b"x.png\0")) * 3000, "more than 8 headers"),
        ((header("p", 14, tarfile.XHDTYPE) + pad(b"14 path=b.jpg\n")) * 3000, "more than 8 headers"),
        (header("s.png", 3, tarfile.GNUTYPE_SPARSE) + pad(b"abc"), "a sparse file"),
        (b"x" * 512, "the header at byte 1024 is damaged"),
        (header("././@LongLink", 6, tarfile.GNUTYPE_LONGNAME) + pad(b"x.png\0"), "ends after the header"),
    ],
)
def test_hostile_headers_end_the_archive_after_the_members_before(members: bytes, reason: str | None):
    walk = walk_tar(io.BytesIO(GOOD + members + (GOOD if reason is None else b"") + END))
    assert next(walk).name == "a.png"
    if reason is None:
        assert next(walk).name == "a.png"
        return
    with pytest.raises(DataError, match=reason):
        list(walk)
