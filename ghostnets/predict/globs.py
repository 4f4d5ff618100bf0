"""Shell globs, with ``**`` for any depth, without following loops of links."""

import glob
from collections.abc import Iterator

from ghostnets.data.finder import LeftOut, walk_folders

__all__ = ["expand_glob"]


def expand_glob(pattern: str, left_out: LeftOut) -> Iterator[str]:
    """Yield the paths that match, sorted within a folder.

    ``**`` matches the folders of ``data.finder``: each once, and no hidden ones. As the last part of a pattern it
    matches the folder itself, not the files in it.

    Args:
        pattern: The glob.
        left_out: Counter of the links that are not followed.
    """
    parts = pattern.split("/")
    if "**" not in parts:
        yield from sorted(glob.iglob(pattern))  # noqa: PTH207 - Path.glob takes no absolute pattern
        return
    position = parts.index("**")
    start = "/".join(parts[:position]) or ("/" if pattern.startswith("/") else ".")
    rest = [part for part in parts[position + 1 :] if part]
    matched = set()
    for root in sorted(glob.iglob(start)):  # noqa: PTH207
        for folder in walk_folders(root, left_out) if rest else [root]:
            place = folder.removeprefix("./") if start == "." else folder
            prefix = "" if place == "." else f"{glob.escape(place.rstrip('/'))}/"
            for path in expand_glob(prefix + "/".join(rest), left_out) if rest else [place]:
                if path not in matched:
                    matched.add(path)
                    yield path
