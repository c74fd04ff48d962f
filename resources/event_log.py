"""The event log, as a Dagster resource."""

from __future__ import annotations

from contextlib import AbstractContextManager, closing

import dagster as dg
from pydantic import Field

from events.log import EventLog, open_log
from settings import get_settings


class EventLogResource(dg.ConfigurableResource[EventLog]):
    """Hands out the event log. Dagster shows its configuration, so a URL with a password is left to the environment."""

    url: str | None = Field(default=None, description="URL of the log; PIVOTAL_EVENTS_URL if not given.")

    def open(self) -> AbstractContextManager[EventLog]:
        """The log, closed at the end.

        Raises:
            EventLogError: It cannot be opened.
        """
        return closing(open_log(self.url or get_settings().events_url))
