"""How long a database may take for an answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Timer

from errors import SourceError
from settings import get_settings


@contextmanager
def patience(label: str, cancel: Callable[[], None]) -> Iterator[None]:
    """Cancels what the block waits for after `PIVOTAL_READ_TIMEOUT`.

    Args:
        label: Who is waited for.
        cancel: Makes the call in the block fail, from another thread.

    Raises:
        SourceError: It was cancelled.
    """
    seconds, late = get_settings().read_timeout, Event()

    def give_up() -> None:
        late.set()
        cancel()

    timer = Timer(seconds, give_up)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception:
        if late.is_set():
            raise SourceError(
                f"{label}: the database has not answered for {seconds:g} s",
                hint="look at what holds it up there, make the query lighter, or raise PIVOTAL_READ_TIMEOUT",
                retryable=True,
            ) from None
        raise
    finally:
        timer.cancel()
