"""Text files line by line, many lines at a time."""

from __future__ import annotations

from collections.abc import Iterator

from errors import SourceError
from etl.sources.disk import File, Stream

_CHUNK = 4 << 20  # what is made of the lines of one chunk is in memory at once
_LONGEST = 64 << 20


def lines(file: File, stream: Stream, hint: str) -> Iterator[list[bytes]]:
    """The lines that are not blank, in their order; a line feed ends a line.

    Args:
        file: What is read.
        stream: Its bytes.
        hint: What may be wrong if a line has no end.

    Raises:
        SourceError: A line is longer than memory should hold.
    """
    rest = b""
    while chunk := stream.read(_CHUNK):
        *found, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST:
            raise SourceError(f"{file.name}: a line is longer than {_LONGEST >> 20} MB", hint=hint)
        if found := [line for line in found if line.strip()]:
            yield found
    if rest.strip():
        yield [rest]
