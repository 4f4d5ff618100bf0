"""The body of a request -> the files in it: an image as it is, a form with files, or JSON with base64."""

import base64
import binascii
from dataclasses import dataclass
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ghostnets.errors import ConfigurationError
from ghostnets.serve.json_body import read_json
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import ImagesAsJson

__all__ = ["Upload", "is_form_or_json", "read_uploads"]

KINDS = (
    "image/* or application/octet-stream (one image as it is), multipart/form-data (files), application/json (base64)"
)


@dataclass(frozen=True)
class Upload:
    """One file.

    Attributes:
        name: As the client calls it, or None.
        content: The file's bytes.
    """

    name: str | None
    content: bytes


def is_form_or_json(content_type: str) -> bool:
    """Whether ``read_uploads`` takes its time, milliseconds for a large body."""
    return not _is_raw(_media_type(content_type))


def read_uploads(content_type: str, body: bytes, *, max_images: int) -> list[Upload]:
    """Takes a body apart.

    Args:
        content_type: The header's value; its media type decides how the body is read.
        body: All of it.
        max_images: At most so many files.

    Raises:
        RequestError: 415 for another content type, 400 for a body that does not fit it, 413 for too many files.
    """
    media_type = _media_type(content_type)
    if _is_raw(media_type):
        uploads = [Upload(None, body)]
    elif media_type == "multipart/form-data":
        uploads = _from_form(content_type, body, max_images)
    elif media_type == "application/json":
        uploads = _from_json(body, max_images)
    else:
        raise RequestError(415, f"the content type is {content_type[:100]!r}; send {KINDS}.")
    if not uploads:
        raise RequestError(400, "the request holds no image; send at least one.")
    return uploads


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_raw(media_type: str) -> bool:
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def _from_json(body: bytes, max_images: int) -> list[Upload]:
    try:
        images = read_json(ImagesAsJson, body).images
    except ConfigurationError as error:
        raise RequestError(400, f'the JSON is not {{"images": ["base64 of a file", ...]}}: {error}') from error
    if len(images) > max_images:
        raise RequestError(413, _too_many(len(images), max_images))
    uploads = []
    for index, text in enumerate(images):
        try:
            uploads.append(Upload(None, base64.b64decode(text, validate=True)))
        except (binascii.Error, ValueError) as error:
            raise RequestError(400, f"image {index} is no base64; send the file's bytes in standard base64.") from error
    return uploads


def _from_form(content_type: str, body: bytes, max_images: int) -> list[Upload]:
    collector = _Files(max_images)
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise RequestError(
                400, "the form names no boundary in its content type; let the HTTP library write the header."
            )
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"the form cannot be read ({error}); send multipart/form-data with files.") from error
    if not collector.is_whole:
        raise RequestError(400, "the form breaks off before its last boundary; send it again.")
    return collector.files


def _too_many(count: int, limit: int) -> str:
    return f"the request holds {count} images, the limit is {limit}; send several requests."


class _Files:
    """Collects the files of a form; fields without a file name are left out."""

    def __init__(self, max_images: int) -> None:
        self.files: list[Upload] = []
        self.is_whole = False
        self.max_images = max_images
        self.name: str | None = None
        self.field, self.value = b"", b""
        self.chunks: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.header_end,
            "on_part_data": self.data,
            "on_part_end": self.end,
            "on_end": self.finish,
        }

    def begin(self) -> None:
        self.name = None
        self.field, self.value = b"", b""
        self.chunks = []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def header_end(self) -> None:
        if self.field.lower() == b"content-disposition":
            name = parse_options_header(self.value)[1].get(b"filename")
            self.name = None if name is None else name.decode("utf-8", "replace")
        self.field, self.value = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.name is not None:
            self.chunks.append(data[start:end])

    def end(self) -> None:
        if self.name is None:
            return
        if len(self.files) == self.max_images:
            raise RequestError(413, f"the form holds more than {self.max_images} files; send several requests.")
        self.files.append(Upload(self.name, b"".join(self.chunks)))

    def finish(self) -> None:
        self.is_whole = True
