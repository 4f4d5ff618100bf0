"""Images copied or linked into one folder per predicted class."""

import filecmp
import os
import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path, PurePath

from ghostnets.artefacts import Prediction
from ghostnets.errors import ConfigurationError
from ghostnets.files import write_atomically
from ghostnets.predict.inputs import Input

__all__ = ["ImageSorter"]


class ImageSorter:
    """Copies or links images to ``folder/CLASS/NAME``. Idempotent, so it can be resumed.

    Args:
        folder: The folder, created if it is missing.
        class_names: Class names of the network.
        link: Symbolic links to the images instead of copies; images in shards are skipped.

    Attributes:
        counts: Number of images in their folders, by this run or an earlier one, by class or answer.
        problems: One sentence for each image that was left out.

    Raises:
        ConfigurationError: A class name cannot be the name of a folder.
    """

    def __init__(self, folder: Path, class_names: Sequence[str], *, link: bool = False) -> None:
        self.folder, self.link = folder, link
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        for name in class_names:
            if name in ("", "..") or PurePath(name).name != name or "\0" in name:
                raise ConfigurationError(
                    f"--sort-into needs classes that can be names of folders, and {name!r} cannot; rename the class."
                )

    def sort(
        self, inputs: Iterable[Input], predict: Callable[[Iterable[Input]], Iterator[list[Prediction]]]
    ) -> Iterator[list[Prediction]]:
        """Predict and sort, a batch at a time.

        Args:
            inputs: The images, consumed as needed.
            predict: Function from images to predictions, in their order.
        """
        waiting: deque[Input] = deque()

        def remember() -> Iterator[Input]:
            for source in inputs:
                waiting.append(source)
                yield source

        for batch in predict(remember()):
            for prediction in batch:
                self.add(waiting.popleft(), prediction)
            yield batch

    def add(self, source: Input, prediction: Prediction) -> None:
        """Copy or link an image into the folder of its most probable class; unreadable ones are left out.

        A different file of the same name is never replaced: the image is left out, with a sentence in ``problems``.

        Raises:
            StorageError: The image cannot be written.
        """
        if prediction.error is not None:
            return
        answer = prediction.answer or prediction.classes[0]
        target = self.folder / answer / Path(source.name).name
        if self.link and source.size is not None:
            self.problems.append(f"{source.name} is in a shard and cannot be linked; omit --link.")
        elif not os.path.lexists(target):
            self._write(source, target)
            self.counts[answer] += 1
        elif self._is_same(source, target):
            self.counts[answer] += 1
        else:
            self.problems.append(f"{source.name} is not sorted: {target} exists, and is another image.")

    def _write(self, source: Input, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if self.link:
            target.symlink_to(Path(source.path).resolve())
            return
        with write_atomically(target) as temporary:
            if source.size is None:
                shutil.copyfile(source.path, temporary)
                status = Path(source.path).stat()
                os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
            else:
                temporary.write_bytes(_read_member(source))

    def _is_same(self, source: Input, target: Path) -> bool:
        """Whether the target is this image, from an earlier run."""
        if target.is_symlink() or self.link:
            return target.is_symlink() and target.resolve() == Path(source.path).resolve()
        if not target.is_file():
            return False
        if source.size is None:
            return filecmp.cmp(source.path, target, shallow=False)
        return target.stat().st_size == source.size and target.read_bytes() == _read_member(source)


def _read_member(source: Input) -> bytes:
    assert source.size is not None
    with open(source.path, "rb") as stream:
        stream.seek(source.offset)
        return stream.read(source.size)
