"""The event log that the commands look into."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from events.log import EventLog


def event_log() -> AbstractContextManager[EventLog]:
    """The project's event log; closed when the block is left.

    Raises:
        EventLogError: It cannot be opened.
    """
    from events.log import open_log
    from settings import get_settings

    return closing(open_log(get_settings().events_url))
