"""Extract image files from a request body: raw image, multipart form, or base64 in JSON."""

from dataclasses import dataclass
from typing import Any

from python_multipart import MultipartParser
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header

from ghostnets.errors import ConfigurationError
from ghostnets.serve.json_body import decode_base64, read_json
from ghostnets.serve.request_error import RequestError
from ghostnets.serve.schemas import PredictRequest

__all__ = ["Upload", "is_form_or_json", "read_uploads"]

SUPPORTED_TYPES = (
    "image/* or application/octet-stream (one image), multipart/form-data (files), or application/json (base64)"
)


@dataclass(frozen=True)
class Upload:
    """An uploaded file.

    Attributes:
        name: File name sent by the client, or None.
        content: Content of the file.
    """

    name: str | None
    content: bytes


def is_form_or_json(content_type: str) -> bool:
    """Return whether ``read_uploads`` parses the body, which takes milliseconds for a large one."""
    return not _is_raw(_media_type(content_type))


def read_uploads(content_type: str, body: bytes, *, max_images: int) -> list[Upload]:
    """Extract the files from a body.

    Args:
        content_type: Value of the Content-Type header; its media type selects the parser.
        body: Complete request body.
        max_images: Maximum number of files.

    Raises:
        RequestError: 415 for an unsupported content type, 400 for a body that does not match it, 413 for too many
            files.
    """
    media_type = _media_type(content_type)
    if _is_raw(media_type):
        uploads = [Upload(None, body)]
    elif media_type == "multipart/form-data":
        uploads = _from_form(content_type, body, max_images)
    elif media_type == "application/json":
        uploads = _from_json(body, max_images)
    else:
        raise RequestError(415, f"the content type is {content_type[:100]!r}; send {SUPPORTED_TYPES}.")
    if not uploads:
        raise RequestError(400, "the request contains no image; send at least one.")
    return uploads


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def _is_raw(media_type: str) -> bool:
    return media_type.startswith("image/") or media_type == "application/octet-stream"


def _from_json(body: bytes, max_images: int) -> list[Upload]:
    try:
        images = read_json(PredictRequest, body).images
    except ConfigurationError as error:
        raise RequestError(400, f'the JSON is not {{"images": ["base64 of a file", ...]}}: {error}') from error
    if len(images) > max_images:
        raise RequestError(413, f"the request contains {len(images)} images, the limit is {max_images}; split it.")
    uploads = []
    for index, text in enumerate(images):
        try:
            uploads.append(Upload(None, decode_base64(text)))
        except ValueError as error:
            raise RequestError(
                400, f"image {index} is not base64 ({error}); send the file's bytes as base64."
            ) from error
    return uploads


def _from_form(content_type: str, body: bytes, max_images: int) -> list[Upload]:
    collector = _FormFiles(max_images)
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not boundary:
            raise RequestError(
                400, "the form's content type has no boundary; let the HTTP library set the Content-Type header."
            )
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, f"the form cannot be parsed ({error}); send multipart/form-data with files.") from error
    if not collector.is_complete:
        raise RequestError(400, "the form ends before its final boundary; send it again.")
    return collector.files


class _FormFiles:
    """Collects the files of a multipart form; fields without a file name are ignored."""

    def __init__(self, max_images: int) -> None:
        self.files: list[Upload] = []
        self.is_complete = False
        self.max_images = max_images
        self.name: str | None = None
        self.field, self.value = b"", b""
        self.chunks: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self.begin_part,
            "on_header_field": self.header_field,
            "on_header_value": self.header_value,
            "on_header_end": self.end_header,
            "on_part_data": self.part_data,
            "on_part_end": self.end_part,
            "on_end": self.end,
        }

    def begin_part(self) -> None:
        self.name = None
        self.field, self.value = b"", b""
        self.chunks = []

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self.field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def end_header(self) -> None:
        if self.field.lower() == b"content-disposition":
            name = parse_options_header(self.value)[1].get(b"filename")
            self.name = None if name is None else name.decode("utf-8", "replace")
        self.field, self.value = b"", b""

    def part_data(self, data: bytes, start: int, end: int) -> None:
        if self.name is not None:
            self.chunks.append(data[start:end])

    def end_part(self) -> None:
        if self.name is None:
            return
        if len(self.files) == self.max_images:
            raise RequestError(413, f"the form contains more than {self.max_images} files; send several requests.")
        self.files.append(Upload(self.name, b"".join(self.chunks)))

    def end(self) -> None:
        self.is_complete = True
