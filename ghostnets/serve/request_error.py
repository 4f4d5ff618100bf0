"""Errors that become HTTP responses."""

from ghostnets.errors import GhostNetsError

__all__ = ["NO_MEMORY", "REJECTED", "RETRY_AFTER", "RequestError", "body_too_large", "out_of_memory"]

RETRY_AFTER = 1  # seconds; a full queue of 256 images is empty after about that long
REJECTED = "rejected"  # key of a request's state: status that was sent without the application, while the body arrived

NO_MEMORY = "the service has not enough memory for this request; retry later, or with fewer or smaller images."
MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "can't start new thread", "bad_alloc")


class RequestError(GhostNetsError):
    """A request that fails with ``status`` and ``{"error": message}``; 429 and 503 carry Retry-After.

    Args:
        status: HTTP status: 4xx for the client's errors, 500 for the service's own.
        message: What was received, what was expected, and what to do next.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """Additional response headers."""
        if self.status in (429, 503):
            return {"retry-after": str(RETRY_AFTER)}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}


def body_too_large(limit: int) -> RequestError:
    """Create the 413 error for a body of more than ``limit`` bytes."""
    return RequestError(413, f"the request is larger than {limit} bytes, the limit; send fewer or smaller images.")


def out_of_memory(error: BaseException) -> RequestError | None:
    """Create the 503 error for an exception that says that memory is used up, or follows from one; None for others."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, MemoryError) or any(text in str(seen) for text in MEMORY_MESSAGES):
            return RequestError(503, NO_MEMORY)
        seen = seen.__cause__ or seen.__context__
    return None
