"""Errors that become HTTP responses."""

from ghostnets.errors import GhostNetsError

__all__ = ["RETRY_AFTER", "RequestError", "body_too_large"]

RETRY_AFTER = 1  # seconds; a full queue of 256 images is empty after about that long


class RequestError(GhostNetsError):
    """A request that fails with ``status`` and ``{"error": message}``; 429 carries Retry-After.

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
        if self.status == 429:
            return {"retry-after": str(RETRY_AFTER)}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}


def body_too_large(limit: int) -> RequestError:
    """Create the 413 error for a body of more than ``limit`` bytes."""
    return RequestError(413, f"the request is larger than {limit} bytes, the limit; send fewer or smaller images.")
