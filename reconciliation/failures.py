"""Several things are done, and one that fails keeps none of the others from being done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from errors import PivotalError

logger = logging.getLogger(__name__)


class Failures:
    """What failed, to be told once everything was tried."""

    def __init__(self) -> None:
        self._errors: list[PivotalError] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Around one of the things: its failure is a line in the log, for now."""
        try:
            yield
        except PivotalError as error:
            logger.warning("%s", error.message)
            self._errors.append(error)

    def tell(self) -> None:
        """Nothing, if nothing failed.

        Raises:
            PivotalError: The only failure as it is, or the first, with how many there were beside it.
        """
        if not self._errors:
            return
        first, *others = self._errors
        if not others:
            raise first
        retryable = any(error.retryable for error in self._errors)
        raise PivotalError(f"{first.message} (and {len(others)} more failed)", hint=first.hint, retryable=retryable)
