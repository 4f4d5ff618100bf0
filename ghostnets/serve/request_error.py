"""A request that gets no answer, and the sentence that it gets instead."""

from ghostnets.errors import GhostNetsError

__all__ = ["RETRY_AFTER", "RequestError"]

RETRY_AFTER = 1  # seconds: a full queue of 256 images is empty again after about that


class RequestError(GhostNetsError):
    """Answered with ``status`` and ``{"error": sentence}``; for 429 with Retry-After.

    Args:
        status: 400 to 499, or 503 while the service stops.
        sentence: What was got, what was wanted, what to do next.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        if self.status == 429:
            return {"retry-after": str(RETRY_AFTER)}
        return {"www-authenticate": "Bearer"} if self.status == 401 else {}
