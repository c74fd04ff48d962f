"""How the gateway says no."""

from __future__ import annotations

from errors import PivotalError

RETRY_AFTER = "5"
"""Seconds that a sender is asked to wait after a 503."""


class RefusedError(PivotalError):
    """A request that is answered with an error.

    Args:
        status: HTTP status: 4xx if the sender must change something, 503 if the trouble is ours.
        reason: Why, for our log: never holds a secret, nor what the sender sent.
        hint: As in `PivotalError`.
    """

    def __init__(self, status: int, reason: str, *, hint: str | None = None) -> None:
        super().__init__(reason, hint=hint, retryable=status == 503)
        self.status = status
