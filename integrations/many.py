"""What became of many things that were asked for together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from errors import IntegrationError


class Outcome(Protocol):
    """What became of one of them."""

    @property
    def error(self) -> IntegrationError | None:
        """Why it was not done, not wholly, or not for certain; None if it was."""
        ...


OutcomeT = TypeVar("OutcomeT", bound=Outcome)


@dataclass(frozen=True, slots=True)
class Many(Generic[OutcomeT]):
    """What became of all of them.

    Args:
        results: One each, in the order in which they were asked for.
    """

    results: tuple[OutcomeT, ...]

    @property
    def total(self) -> int:
        """How many there were."""
        return len(self.results)

    @property
    def successful(self) -> int:
        """How many were done, wholly."""
        return self.total - self.failed

    @property
    def failed(self) -> int:
        """How many were not, as far as is known."""
        return sum(result.error is not None for result in self.results)
