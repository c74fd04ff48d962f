"""What the resources of services have in common that can be changed: changes are told on the event log."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

import dagster as dg
from pydantic import Field, PrivateAttr

from events.cause import Cause, caused_by, current_cause
from events.log import EventLog
from resources.event_log import EventLogResource

if TYPE_CHECKING:
    from integrations.calls import RetryBudget

Client = TypeVar("Client")


class ChangingResource(dg.ConfigurableResource[Client], Generic[Client]):
    """A resource whose client tells of its changes."""

    events_url: str | None = Field(
        default=None, description="The event log, where changes are told; PIVOTAL_EVENTS_URL if not given."
    )

    attempts: int = Field(default=4, ge=1, description="How often a call is tried, the first time included.")

    _run_id: str | None = PrivateAttr(None)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        """Learns which run it works for."""
        self._run_id = context.run.run_id if context.run else None

    @property
    def retry(self) -> RetryBudget:
        """How often a call is tried."""
        from integrations.calls import RetryBudget

        return RetryBudget(attempts=self.attempts)

    @contextmanager
    def told(self) -> Iterator[EventLog]:
        """The event log; what is told is told with the run as its cause, unless there is another one.

        Raises:
            EventLogError: The event log cannot be opened.
        """
        cause = current_cause() or (Cause(self._run_id) if self._run_id else None)
        with EventLogResource(url=self.events_url).open() as log:
            if cause is None:
                yield log
                return
            with caused_by(cause):
                yield log
