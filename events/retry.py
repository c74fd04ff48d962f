"""Work on the log that goes on by itself after trouble: a database that is away, or held by somebody else."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from threading import Event as Signal

from errors import PivotalError
from events.log import EventLog

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before it is tried again; twice as long each time."""

logger = logging.getLogger(__name__)


def keep_on(
    work: Callable[[EventLog], Iterator[object]], open_log: Callable[[], EventLog], stop: Signal, *, trouble: str
) -> None:
    """Works until it is told to stop; after any trouble with a log that is opened anew.

    Args:
        work: Ends when `stop` is set. Whenever it has got on it gives something: the next pause is short again.
        open_log: Opens the log; what was opened before may be of no use after trouble.
        stop: Set by who wants it to end.
        trouble: What is said of any: "events cannot be applied".

    Raises:
        PivotalError: What came when it was to end, and does not pass by itself: nobody else would tell.
    """
    pause = FIRST_PAUSE
    while not stop.is_set():
        try:
            with closing(open_log()) as log:
                for _ in work(log):
                    pause = FIRST_PAUSE
        except PivotalError as error:
            if stop.is_set() and not error.retryable:
                raise
            told = {"reason": error.message, "hint": error.hint, "seconds": pause}
            logger.error("%s; trying again", trouble, extra=told)  # noqa: TRY400  (a cause, not a bug)
            stop.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
