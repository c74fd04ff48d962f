"""Trouble with the disk, in words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from errors import DestinationError

_HINTS = {
    errno.ENOSPC: "the disk is full: free some space, then run again",
    errno.EDQUOT: "the disk quota is used up: free some space, then run again",
    errno.ENOENT: "make its folder first",
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
