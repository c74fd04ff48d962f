"""Files: where they are, and trouble with the disk in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import DestinationError
from settings import get_settings

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, then run again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run again",
    errno.EACCES: "the user that runs this needs the right to write there",
    errno.EPERM: "the user that runs this needs the right to write there",
    errno.EROFS: "the disk is read-only: name another path",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
}


@contextmanager
def disk_errors(where: Path | str) -> Iterator[None]:
    """Turns an `OSError` inside into a `DestinationError` that says what to do."""
    try:
        yield
    except OSError as error:
        full = error.errno in {errno.ENOSPC, errno.EDQUOT}
        reason = error.strerror or str(error)
        hint = _HINTS.get(error.errno or 0)
        raise DestinationError(f"{where}: {reason}", hint=hint, retryable=full) from None


def database_file(url: str) -> Path:
    """The file of an embedded database.

    Args:
        url: `sqlite:///relative/to/the/project` or `sqlite:////absolute`.

    Raises:
        DestinationError: The URL names no file.
    """
    kind, _, file = url.partition(":///")
    if not file or file == ":memory:":
        raise DestinationError(f"{url}: names no file", hint=f"write {kind.partition(':')[0]}:///data/name.db")
    return get_settings().path(file)
