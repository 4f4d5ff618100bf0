"""The JSON of a request -> a model of pydantic, whatever the JSON holds."""

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ghostnets.errors import ConfigurationError

__all__ = ["read_json"]

MOST_VALUES = 50_000  # a question names ghosts; the network with the most, Ghost-ResNet-101, has 26,304
SHOWN_PROBLEMS = 3
SHOWN_LETTERS = 200

T = TypeVar("T", bound=BaseModel)


def read_json(model: type[T], body: bytes) -> T:
    """Reads a body, in memory that is a small multiple of its size.

    Args:
        model: What the body shall be.
        body: All of it.

    Raises:
        ConfigurationError: It is no JSON, or another one; the sentence names a few of its problems.
    """
    # A problem takes a hundred times the memory of the two bytes that make it, so they are counted first.
    values = sum(map(body.count, (b",", b"[", b"{")))
    if values > MOST_VALUES:
        raise ConfigurationError(
            f"the JSON holds some {values} values, {MOST_VALUES} are allowed; send several requests."
        )
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False, include_input=False)[:SHOWN_PROBLEMS]
        count = error.error_count()
    # Outside, as an error that waits to be answered would keep the other one, and all that that one knows.
    reasons = [f"{'.'.join(map(str, each['loc'])) or 'the body'}: {each['msg']}" for each in problems]
    shown = "; ".join(reason if len(reason) <= SHOWN_LETTERS else f"{reason[:SHOWN_LETTERS]}..." for reason in reasons)
    more = f"; and {count - len(problems)} more" if count > len(problems) else ""
    raise ConfigurationError(f"{shown}{more}; /openapi.json lists what is taken.")
