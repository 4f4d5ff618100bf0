"""Pages of pictures from a data set, in one self-contained file each: findings of ``check``, losses of ``eval``."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ghostnets.explain.page import render
from ghostnets.files import write_text

__all__ = ["DataPage", "PictureGroup", "PictureSection", "PictureView", "write_data_page"]


@dataclass(frozen=True)
class PictureView:
    """A picture: PNG or JPEG content, name and relative URL (or None) of its file, and the parts of a line of text."""

    content: bytes
    name: str
    link: str | None
    text: Sequence[str]


@dataclass(frozen=True)
class PictureGroup:
    """Pictures that belong together; the heading may be empty."""

    heading: str
    pictures: Sequence[PictureView]


@dataclass(frozen=True)
class PictureSection:
    """A kind of finding.

    Attributes:
        heading: Heading with the number of findings.
        explanation: Meaning of the finding, and a remedy.
        groups: The findings shown.
    """

    heading: str
    explanation: str
    groups: Sequence[PictureGroup]


@dataclass(frozen=True)
class DataPage:
    """Content of the page.

    Attributes:
        title: Heading.
        figures: Label -> formatted value, for the top of the page.
        notes: Assumptions and exclusions, one sentence each.
        unreadable: A sentence for each broken label and unreadable image shown.
        splits: Names of the splits.
        counts_heading: Heading of the table of counts.
        counts: Class -> formatted number by split.
        sections: Findings with pictures.
        classes: Pictures by class.
    """

    title: str
    figures: dict[str, str]
    notes: Sequence[str]
    unreadable: Sequence[str]
    splits: Sequence[str]
    counts_heading: str
    counts: dict[str, dict[str, str]]
    sections: Sequence[PictureSection]
    classes: PictureSection


def write_data_page(path: str | os.PathLike[str], page: DataPage) -> None:
    """Write the page.

    Raises:
        MissingExtraError: jinja2 is not installed.
        StorageError: The file cannot be written.
    """
    write_text(path, render("data_page.html.jinja", page=page))
