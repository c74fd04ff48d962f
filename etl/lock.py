"""One run of a pipeline at a time: a lock that the kernel lets go of when its process dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock, Timeout

from errors import PivotalError
from settings import get_settings


@contextmanager
def only_run_of(name: str, *, wait: float | None = None) -> Iterator[None]:
    """Holds a pipeline's lock.

    Args:
        name: The pipeline's name.
        wait: Seconds to wait for another run; `PIVOTAL_LOCK_TIMEOUT` if not given.

    Raises:
        PivotalError: Another run goes on for longer.
    """
    settings = get_settings()
    timeout = settings.lock_timeout if wait is None else wait
    path = settings.path(f"data/locks/{name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=timeout):
            yield
    except Timeout:
        raise PivotalError(
            f"pipeline {name}: another run is in progress (waited {timeout:g} s)",
            hint="wait for it to end, or raise PIVOTAL_LOCK_TIMEOUT",
            retryable=True,
        ) from None
