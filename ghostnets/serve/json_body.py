"""Parse JSON request bodies: validation with bounded memory, and base64."""

import base64
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ghostnets.errors import ConfigurationError

__all__ = ["decode_base64", "read_json"]

MAX_VALUES = 50_000  # a request lists ghosts; the network with the most, Ghost-ResNet-101, has 26,304
MAX_SHOWN_PROBLEMS = 3
MAX_PROBLEM_LENGTH = 200  # characters
URL_SAFE_TO_STANDARD = str.maketrans("-_", "+/")

T = TypeVar("T", bound=BaseModel)


def read_json(model: type[T], body: bytes) -> T:
    """Parse and validate a body; memory use is a small multiple of its size.

    Args:
        model: Expected schema.
        body: Complete request body.

    Raises:
        ConfigurationError: The body is not valid JSON or does not match the schema; the first problems are named.
    """
    # pydantic needs a hundred times the memory of the two bytes that cause a problem, so count values first.
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > MAX_VALUES:
        raise ConfigurationError(
            f"the JSON has about {values} values, the limit is {MAX_VALUES}; send several requests."
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_SHOWN_PROBLEMS]
        count = error.error_count()
    # Raised outside the except block, because __context__ would keep the ValidationError and its input alive.
    reasons = [f"{'.'.join(map(str, each['loc'])) or 'body'}: {each['msg']}" for each in problems]
    shown = "; ".join(
        reason if len(reason) <= MAX_PROBLEM_LENGTH else f"{reason[:MAX_PROBLEM_LENGTH]}..." for reason in reasons
    )
    more = f"; and {count - len(problems)} more" if count > len(problems) else ""
    raise ConfigurationError(f"{shown}{more}; see /openapi.json for the schema.")


def decode_base64(text: str) -> bytes:
    """Decode base64 (RFC 4648) in the forms that clients send.

    The alphabet may be standard or URL-safe, padding may be missing, lines may be wrapped, and a data URI
    (``data:image/jpeg;base64,...``) may contain the text.

    Raises:
        ValueError: The text is not base64.
    """
    if text[:5].lower() == "data:":
        header, _, text = text.partition(",")
        if not header.lower().endswith(";base64"):
            raise ValueError("the data URI does not contain ';base64,'")
    text = "".join(text.split()).translate(URL_SAFE_TO_STANDARD)
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
