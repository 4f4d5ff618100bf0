"""Images that labels list: listed again, in two splits, not at all, or by a path of another machine."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path, PurePosixPath
from typing import Protocol, TypeVar

from ghostnets.data.boxes.annotations import BrokenLabels
from ghostnets.data.finder import is_image_name
from ghostnets.terminal import format_count, printable

__all__ = ["drop_repeated", "find_by_end", "shared_image_notes", "unused_image_notes"]

LAST_PARTS = 3  # of a path from another machine, which are looked up


class ListedImage(Protocol):
    """Anything that is read from an image file."""

    @property
    def path(self) -> Path: ...


Listed = TypeVar("Listed", bound=ListedImage)


def drop_repeated(images: Iterable[Listed], split: str, broken: BrokenLabels) -> Iterator[Listed]:
    """Yield the images of a split, each once; one that is listed again is added to ``broken``."""
    seen = set()
    for image in images:
        if image.path in seen:
            broken.add(image.path, f"it is listed more than once in {split}")
        else:
            seen.add(image.path)
            yield image


def shared_image_notes(splits: Mapping[str, Sequence[ListedImage]]) -> list[str]:
    """Return a sentence for each two splits that have images in common."""
    paths = {split: {image.path for image in images} for split, images in splits.items()}
    shared = {pair: paths[pair[0]] & paths[pair[1]] for pair in combinations(paths, 2)}
    return [
        f"{format_count(len(common), 'image')} both in {first} and in {second}, such as {printable(str(min(common)))}:"
        " what is measured on them says little about other images"
        for (first, second), common in shared.items()
        if common
    ]


def unused_image_notes(used: Iterable[ListedImage], broken: BrokenLabels) -> list[str]:
    """Return a sentence on the images beside those of a data set that no label and no list names."""
    paths = {image.path for image in used}
    reported = {path.stem for path in broken.files}
    unused = [
        path
        for folder in sorted({path.parent for path in paths})
        for path in sorted(folder.iterdir())
        if is_image_name(path.name) and path not in paths and path.stem not in reported
    ]
    if not unused:
        return []
    return [
        f"left out: {format_count(len(unused), 'image')} that no label and no list names, such as"
        f" {printable(str(unused[0]))}"
    ]


def find_by_end(path: str, folder: Path) -> Path | None:
    """Find what a path from another machine, also one of Windows, names, by its last parts below a folder."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    for count in range(min(len(parts), LAST_PARTS), 0, -1):
        last = parts[-count:]
        if not {"..", "/"} & set(last) and (found := folder.joinpath(*last)).exists():
            return found
    return None
